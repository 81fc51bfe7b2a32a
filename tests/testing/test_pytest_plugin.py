"""The plugin of pytest, run as users run it: in a process of its own, found by the entry point of pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import children
import ml_dtypes
import numpy as np
import pytest
from honest import hard, implementation, soft_gradient

import npselect
from npselect import gumbel_softmax, straight_through, testing
from npselect.testing import marked
from npselect.testing.marked import marked_cases

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
QUIET = ("-p", "no:hypothesispytest", "-p", "no:benchmark")  # others' plugins, which take longer to start
HEAVY = ("numpy", "numba", "npselect", "scipy")

MINE = """
import numpy as np

def forward(logits, temp):
    index = np.argmax(logits, axis=-1, keepdims=True)
    return (np.arange(logits.shape[-1]) == index).astype(logits.dtype)

def backward(g, logits, temp):
    e = np.exp((logits - logits.max(-1, keepdims=True)) / logits.dtype.type(temp))
    p = e / e.sum(-1, keepdims=True)
    return p * (g - (p * g).sum(-1, keepdims=True)) / logits.dtype.type(temp)
"""

TESTS = """
import mine, pytest, types

wrong = types.SimpleNamespace(forward=mine.forward, backward=lambda g, w, t: mine.backward(g, w, t) * w.dtype.type(t))

@pytest.mark.npselect(dtypes={"float64", "float32"}, groups=["layout"])
def test_right(npselect_case):
    npselect_case.check(mine)

@pytest.mark.npselect(groups="layout")
def test_wrong(npselect_case):
    npselect_case.check(wrong)

@pytest.mark.npselect(groups="layout")
class TestBoth:
    def test_forward(self, npselect_case):
        npselect_case.check_forward(mine.forward(npselect_case.logits, npselect_case.temp))

    def test_backward(self, npselect_case):
        npselect_case.check_backward(wrong.backward(npselect_case.grad_mask, npselect_case.logits, npselect_case.temp))

    def test_other(self):
        pass
"""

MISTAKES = {
    "keyword": (
        "(dtype='float32')",
        "it was given dtype; it takes the keywords dtypes, operator, options, profile and g",
    ),
    "positional": (
        "('float32')",
        "it was given 'float32'; it takes the keywords dtypes, operator, options, profile and",
    ),
    "operator": (
        "(operator='softmax')",
        "operator is 'softmax'; it takes 'straight_through', 'gumbel_softmax', 'reinm",
    ),
    "groups": ("(groups='edges')", "groups holds 'edges'; with these options there are digits, random, edge, layout"),
    "dtypes": ("(dtypes=['int8'])", "int8"),
}


@pytest.fixture
def installed(pytester):
    """A folder that has npselect's metadata beside the tests, as an installed package has; and how to run pytest there.

    pytest finds plugins by entry points, and these in the folders of sys.path.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    metadata = pytester.mkdir(f"npselect-{npselect.__version__}.dist-info")
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: npselect\nVersion: {npselect.__version__}\n")
    lines = [f"{name} = {value}" for name, value in project["entry-points"]["pytest11"].items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[pytest11]", *lines, ""]))

    def run(*arguments):
        return pytester.run(*children.python(), "-m", "pytest", "-p", "no:cacheprovider", *arguments, timeout=300)

    return run


def ids(result):
    """Of what was run, with its outcome, and with whatever xdist writes in front."""
    pattern = r"(?:^(\S+::.*?\]) (PASSED|FAILED)|\[gw\d\].* (PASSED|FAILED) (\S+::.*\]))"
    found = (re.search(pattern, line) for line in result.outlines)
    return {match[1] or match[4]: match[2] or match[3] for match in found if match}


def test_cases_are_run_and_judged_in_one_process_and_in_two(pytester, installed):
    pytester.makepyfile(mine=MINE, test_mine=TESTS)
    alone = installed("-v", "--strict-markers", "-W", "error", *QUIET)
    alone.stdout.fnmatch_lines([f"npselect {npselect.__version__}: tests that take npselect_case run *"])
    layout = [case.id for case in testing.cases() if case.group == "layout"]
    right = [c.id for dtype in ("float32", "float64") for c in testing.cases(dtype) if c.group == "layout"]
    constant = [name for name in layout if "one number" in name]  # whose gradient is 0, with 1/temp or without
    assert len(constant) == 2 < len(layout)
    expected = {f"test_mine.py::test_right[{name}]": "PASSED" for name in right}
    expected |= {f"test_mine.py::test_wrong[{name}]": "PASSED" if name in constant else "FAILED" for name in layout}
    for name in layout:
        expected[f"test_mine.py::TestBoth::test_forward[{name}]"] = "PASSED"
        expected[f"test_mine.py::TestBoth::test_backward[{name}]"] = "PASSED" if name in constant else "FAILED"
    assert ids(alone) == expected
    failed = [*expected.values()].count("FAILED")
    alone.assert_outcomes(passed=len(expected) - failed + 1, failed=failed)
    assert [name for name in ids(alone) if "test_right" in name] == [
        f"test_mine.py::test_right[{name}]" for name in right
    ]
    text = alone.stdout.str()
    assert "likely cause: backward: 1/temp is missing" in text
    assert f"case = npselect.testing.find_case({layout[0]!r}); print(implementation.backward(" in text
    assert re.search(rf"AssertionError: {re.escape(layout[0])}: backward\[0, 0\] is ", text)

    two = installed("-v", "-n", "2", "-W", "error", *QUIET)
    assert ids(two) == expected


def test_nothing_heavy_is_imported_when_pytest_starts(pytester, installed):
    """Neither for the header nor for tests without the fixture; with ``-p no:npselect``, not even the plugin."""
    pytester.makepyfile(
        conftest=f"""
import sys

def pytest_unconfigure():
    print("loaded:", *(name for name in ("pytest_npselect", *{HEAVY!r}) if name in sys.modules))
""",
        test_light="def test_it(): pass\n",
    )
    result = installed(*QUIET)
    result.assert_outcomes(passed=1)
    assert "loaded: pytest_npselect" in result.outlines
    result = installed(*QUIET, "-p", "no:npselect")
    result.assert_outcomes(passed=1)
    assert "loaded:" in result.outlines
    assert not any(line.startswith("npselect ") for line in result.outlines)


def test_wrong_marks_are_errors_that_say_what_to_do(pytester, installed):
    for name, (arguments, _) in MISTAKES.items():
        mark = f"import pytest\n\n@pytest.mark.npselect{arguments}\n"
        pytester.makepyfile(**{f"test_{name}": f"{mark}def test_{name}(npselect_case): pass\n"})
    pytester.makepyfile(test_without="import pytest\n\n@pytest.mark.npselect()\ndef test_without(): pass\n")
    result = installed(*QUIET)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.assert_outcomes(errors=len(MISTAKES) + 1)
    text = result.stdout.str()
    for name, (_, message) in MISTAKES.items():
        assert re.search(rf"test_{name}: @pytest\.mark\.npselect: .*{re.escape(message)}", text), text
    assert "test_without is marked npselect, but takes no npselect_case" in text
    assert "Traceback" not in text


# ------------------------------------------------------------------------------------------------ the cases of a mark


def test_cases_of_a_mark():
    assert [case.id for case in marked_cases()] == [case.id for case in testing.cases()]
    names = [case.id for case in marked_cases(dtypes=[np.float64, ml_dtypes.bfloat16], groups="edge")]
    assert names == [c.id for dtype in ("bfloat16", "float64") for c in testing.cases(dtype) if c.group == "edge"]
    found = marked_cases(operator=gumbel_softmax, options=["where", "axis"], groups=("axis", "where"))
    assert {case.group for case in found} == {"axis", "where"}
    assert [case.id for case in found] == [
        case.id
        for case in marked_cases(operator="gumbel_softmax", options={"axis", "where"})
        if case.group in ("axis", "where")
    ]
    first, second = marked_cases(groups="edge"), marked_cases()
    assert {*map(id, first)} < {*map(id, second)}, "they are made anew, and so would be their answers"


@pytest.mark.parametrize("keywords", [{"dtypes": []}, {"groups": []}, {"profile": "lax"}, {"options": "colour"}])
def test_values_that_are_refused(keywords):
    with pytest.raises(ValueError, match=next(iter(keywords))):
        marked_cases(**keywords)


def test_the_profile_of_the_mark_judges():
    def zeros(g, w, temp):
        return 0 * soft_gradient(g, w, temp)

    (case,) = (case for case in marked_cases(profile="strict", groups="edge") if case.name == "edge/NaN beside")
    answer = np.nan_to_num(straight_through.backward(case.grad_mask, case.logits, case.temp))
    with pytest.raises(AssertionError, match=r"backward\[1, 0\] is 0.0; expected nan"):
        case.check_backward(answer)
    case.check_backward(answer, profile="standard")
    case.check_forward(case.mask)
    with pytest.raises(AssertionError, match="FAILED: 1 of 1 cases"):
        case.check(implementation(hard, zeros))


def test_what_is_not_judged_is_skipped_and_what_is_not_asked_is_an_error():
    flushing = implementation(hard, soft_gradient, flushes_subnormals=True)
    outcomes = {}
    for case in marked_cases(groups=("edge", "random")):
        if case.origin is not None or case.logits.size > 10**4:
            continue
        try:
            case.check(flushing)
            outcomes[case.id] = "passed"
        except pytest.skip.Exception as skipped:
            outcomes[case.id] = str(skipped)
    skipped = [message for message in outcomes.values() if message != "passed"]
    assert skipped
    assert len(skipped) < 5
    assert all("not judged of what declares flushes_subnormals" in message for message in skipped)
    case = marked.marked_cases(options="axis", groups="axis")[0]
    with pytest.raises(ValueError, match="none of 1 cases could be judged: the implementation takes no axis"):
        case.check(implementation(hard, soft_gradient))
