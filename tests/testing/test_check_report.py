"""Cases in somebody's test suite, and reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from checked import OPERATORS, ROOT, last_of_equals, temp_forgotten
from honest import (
    DTYPES,
    hard,
    implementation,
    soft_gradient,
    with_options,
)

import npselect
from npselect import gumbel_softmax, straight_through, testing
from npselect.testing import tolerance

pytestmark = pytest.mark.usefixtures("small_checks")

# ------------------------------------------------------------------------------------------------ the cases


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_cases_are_the_same_every_time(dtype, operator):
    once, again = (testing.cases(dtype, operator=operator, options=["axis", "where"], profile="strict") for _ in "12")
    assert [str(case) for case in once] == [case.id for case in again]
    assert len({case.id for case in once}) == len(once)
    prefix = "" if operator is straight_through else "gumbel/"
    for a, b in zip(once, again, strict=True):
        assert a.id == f"{prefix}{dtype}/{a.name}"
        for name in ("logits", "grad_mask", "where", "noise"):
            mine, other = getattr(a, name), getattr(b, name)
            assert (mine is None) == (other is None)
            assert mine is None or mine.tobytes() == other.tobytes()
        assert (a.noise is None) == (operator is straight_through)
        assert a.logits.dtype.name == a.grad_mask.dtype.name == dtype
        assert a.temp == float(np.asarray(a.temp).astype(a.logits.dtype))
    assert {case.group for case in once} == {"digits", "random", "edge", "axis", "where", "layout"}
    lengths = {case.logits.shape[case.axis] for case in once}
    assert lengths >= {1, 2, 3, 5, 7, 10, 33, 64, 100, 129, 1000, 1024, 1025, 4096}


@pytest.mark.parametrize("dtype", DTYPES)
def test_logits_and_noise_add_up_without_a_rounding_error(dtype):
    for case in testing.cases(dtype, operator=gumbel_softmax, options=["axis", "where"], profile="strict"):
        exact = case.logits.astype(np.float64) + case.noise.astype(np.float64)
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal((case.logits + case.noise).astype(np.float64), exact)


def test_cases_by_options_and_profile():
    plain = {case.id for case in testing.cases()}
    axis = {case.id for case in testing.cases(options=("axis",))}
    where = {case.id for case in testing.cases(options={"where"})}
    both = {case.id for case in testing.cases(options=["axis", "where"])}
    assert {name.split("/")[1] for name in axis - plain} == {"axis"}
    assert {name.split("/")[1] for name in where - plain} == {"where"}
    assert both - axis - where == {"float32/where/axis=1"}
    strict = {case.id for case in testing.cases(profile="strict")}
    assert plain < strict
    assert "float32/edge/NaN" in strict - plain
    assert not any("temp=" in name or "K=0" in name for name in strict)
    for case in testing.cases(options=["axis", "where"]):
        assert case.options.keys() == ({"axis"} if case.axis != -1 else set()) | (
            {"where"} if case.where is not None else set()
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"options": ["axes"]}, "options holds 'axes'"),
        ({"profile": "lenient"}, "profile is 'lenient'"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"operator": npselect.noise}, "operator is <module"),
    ],
)
def test_cases_refuse(arguments, message):
    with pytest.raises(ValueError, match=message):
        testing.cases(**arguments)


def test_a_case_is_found_by_its_id():
    for known in [*testing.cases(operator=gumbel_softmax), *testing.cases("float16")][::7]:
        case = testing.find_case(known.id)
        assert case.id == known.id
        assert case.logits.tobytes() == known.logits.tobytes()
    assert testing.find_case("float64/random/K=2", temp=2.0).temp == 2.0
    for unknown in ("float32/random/K=6", "K=3", "", "float8/random/K=3", "gumbel/float32/edge/near ties"):
        with pytest.raises(ValueError, match=f"id is '{unknown}'"):
            testing.find_case(unknown)


def test_a_case_has_the_answers():
    case = testing.find_case("float32/where/axis=1")
    np.testing.assert_array_equal(case.mask, straight_through.forward(case.logits, case.temp, **case.options))
    assert case.mask.dtype == case.grad_logits.dtype == np.float32
    assert case.bound.shape == case.grad_logits.shape == case.logits.shape == (3, 8, 5)
    assert np.all(case.bound[~case.where] < 1e-44)
    assert np.all(case.bound[case.where] > 1e-44)
    for row, choice in ((0, 0), (7, 3), (14, 7)):
        assert case.rows(case.logits)[row, choice] == case.logits[case.position(row, choice)]
    np.testing.assert_array_equal(case.unrows(case.rows(case.logits)), case.logits)


# ------------------------------------------------------------------------------------------------ in a test suite


SUITE = """
import numpy as np
import pytest

import npselect
from npselect import gumbel_softmax, straight_through
from npselect.testing import cases


def softmax(w, temp):
    e = np.exp((w - w.max(axis=-1, keepdims=True)) / w.dtype.type(temp))
    return e / e.sum(axis=-1, keepdims=True)


def forward(w, temp):
    return (np.arange(w.shape[-1]) == w.argmax(axis=-1)[..., None]).astype(w.dtype)


def backward(g, w, temp):
    p = softmax(w, temp)
    return p * (g - (p * g).sum(axis=-1, keepdims=True)) / w.dtype.type(temp)


@pytest.mark.parametrize("case", npselect.testing.cases(), ids=str)
def test_mine(case):
    case.check_forward(forward(case.logits, case.temp))
    case.check_backward(backward(case.grad_mask, case.logits, case.temp))


@pytest.mark.parametrize("case", cases("float64", operator=gumbel_softmax), ids=str)
def test_with_noise(case):
    case.check_forward(forward(case.logits + case.noise, case.temp))
    case.check_backward(backward(case.grad_mask, case.logits + case.noise, case.temp))


@pytest.mark.parametrize("case", cases(options=("axis", "where"), profile="strict"), ids=str)
def test_with_options(case):
    case.check_forward(straight_through.forward(case.logits, case.temp, **case.options), profile="strict")
    grad_logits = straight_through.backward(case.grad_mask, case.logits, case.temp, **case.options)
    case.check_backward(grad_logits, profile="strict")


@pytest.mark.parametrize("case", cases()[1:5], ids=str)
def test_wrong(case):
    case.check_backward(case.temp * backward(case.grad_mask, case.logits, case.temp))
"""


def test_cases_parametrize_somebody_elses_tests(tmp_path):
    (tmp_path / "test_select.py").write_text(SUITE)
    options = ["-v", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "test_select.py"]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTEST_ADDOPTS": ""}
    command = [sys.executable, "-m", "pytest", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    good = len(testing.cases()) + len(testing.cases("float64", operator=gumbel_softmax))
    good += len(testing.cases(options=("axis", "where"), profile="strict"))
    assert f"3 failed, {good + 1} passed" in done.stdout, done.stdout  # with K=1 there is no gradient to be wrong
    assert "test_mine[float32/random/K=131072] PASSED" in done.stdout
    assert "test_with_noise[gumbel/float64/edge/ties] PASSED" in done.stdout
    assert "test_wrong[float32/random/K=3] FAILED" in done.stdout
    assert "AssertionError: float32/random/K=3: backward[0, 0] is " in done.stdout
    assert ", give or take " in done.stdout
    assert " (few choices)" in done.stdout


def test_checks_of_a_case_say_what_is_wrong():
    case = testing.find_case("gumbel/float32/axis/1 of 3")
    case.check_forward(case.mask, profile="strict")
    case.check_backward(case.grad_logits, profile="strict")
    assert case.check_forward(case.mask) is None
    wrong = case.grad_logits.copy()
    wrong[2, 3, 4] = 7
    expected = rf"{case.id}: backward\[2, 3, 4\] is 7.0; expected .*, give or take .* \({case.note}\)"
    with pytest.raises(AssertionError, match=expected):
        case.check_backward(wrong)
    with pytest.raises(AssertionError, match=r"forward\[0, .*, 0\] is 0.0; expected 1.0"):
        case.check_forward(0 * case.mask)
    with pytest.raises(AssertionError, match="returns dtype float64; expected float32"):
        case.check_forward(case.mask.astype(float))
    with pytest.raises(AssertionError, match=r"returns shape \(4, 5, 9\); expected \(4, 9, 5\)"):
        case.check_backward(np.moveaxis(case.grad_logits, 1, 2))
    with pytest.raises(AssertionError, match="returns a list; expected an array"):
        case.check_forward(case.mask.tolist())
    with pytest.raises(ValueError, match="profile is 'loose'"):
        case.check_forward(case.mask, profile="loose")


def test_checks_of_a_case_by_profile():
    case = testing.find_case("float32/edge/NaN beside")
    anything = case.mask.copy()
    anything[[1, 3]] = 5
    case.check_forward(anything)
    with pytest.raises(AssertionError, match=r"forward\[1, 0\] is 5.0; expected nan"):
        case.check_forward(anything, profile="strict")
    textbook = testing.find_case("float32/random/constant cotangent")
    result = soft_gradient(textbook.grad_mask, textbook.logits, textbook.temp)
    textbook.check_backward(result)
    with pytest.raises(AssertionError, match="constant cotangent: backward"):
        textbook.check_backward(result, profile="strict")


def test_a_case_of_ones_own():
    logits = np.array([[1.0, 2.0], [np.nan, 0.0]], np.float32)
    case = testing.Case("mine/two", "two rows", logits, np.ones_like(logits), 0.5)
    assert case.group == "mine"
    assert str(case) == "float32/mine/two"
    report = testing.check(implementation(hard, soft_gradient), cases=[case])
    assert (report.cases[0].rows, report.cases[0].judged_rows) == (2, 1)
    report = testing.check(implementation(hard, lambda g, w, t: g), cases=[case])
    assert "find_case" not in report.cases[0].reproduce
    assert report.cases[0].reproduce.startswith(
        "case = next(case for case in cases if case.id == 'float32/mine/two'); "
        "print(implementation.backward(case.grad_mask, case.logits, case.temp)["
    )


# ------------------------------------------------------------------------------------------------ the report


def test_assert_conforms():
    assert testing.assert_conforms(straight_through) is None
    with pytest.raises(AssertionError, match="likely cause: backward: 1/temp is missing"):
        testing.assert_conforms(implementation(hard, temp_forgotten), dtypes=("float32", "float64"))


@pytest.mark.parametrize("temp", [0.6, 0.3])
@pytest.mark.parametrize("operator", OPERATORS)
def test_the_first_failure_can_be_reproduced(operator, temp):
    subjects = [with_options(hard, temp_forgotten), with_options(last_of_equals, soft_gradient)]
    if operator is straight_through:
        subjects.append(implementation(hard, temp_forgotten))
    for subject in subjects:
        report = testing.check(subject, operator=operator, temp=temp)
        case = next(case for case in report.cases if case.verdict == "failed")
        for failure in [case, *(case for case in report.cases if case.verdict == "failed" and case.group == "where")][
            :2
        ]:
            printed, difference = [], failure.difference
            names = {
                "npselect": npselect,
                "implementation": subject,
                "print": lambda *what, to=printed: to.append(what),
            }
            exec(failure.reproduce, names)
            assert printed == [(difference.actual, difference.expected)]
        text = str(report)
        assert f"  case         {case.id}: {case.note}" in text
        assert f"  difference   {case.difference}" in text
        assert f"  reproduce    {case.reproduce}" in text
        for value, bits in (("actual", "actual_bits"), ("expected", "expected_bits")):
            bits = getattr(case.difference, bits)
            assert np.array(int(bits, 16), np.uint32).view(np.float32) == getattr(case.difference, value)
            assert f"{value} {bits}" in text
        if case.difference.direction == "backward":
            ulp = float(tolerance.ulp(np.array(case.difference.expected), "float32"))
            assert case.difference.conditioning == case.difference.tolerance / ulp
            assert f"errors of up to {case.difference.conditioning:.3g} ULP are honest there" in text


@pytest.mark.parametrize(
    ("dtype", "bits"), [("float16", "3c00"), ("bfloat16", "3f80"), ("float64", "3ff0000000000000")]
)
def test_bits_in_every_dtype(dtype, bits):
    report = testing.check(implementation(lambda w, t: 0 * w, soft_gradient), dtypes=dtype)
    difference = report.cases[0].difference
    assert (difference.actual_bits.strip("0"), difference.expected_bits) == ("", bits)
    assert len(difference.actual_bits) == len(bits)


def test_groups_count_all_cases():
    report = testing.check(implementation(last_of_equals, soft_gradient), dtypes=("float32", "float64"))
    assert [(group.dtype, group.name) for group in report.groups] == [
        (dtype, name)
        for dtype in ("float32", "float64")
        for name in ("digits", "random", "edge", "axis", "where", "layout")
    ]
    for group in report.groups:
        cases = [case for case in report.cases if (case.dtype, case.group) == group[:2]]
        counts = [
            sum(case.verdict in verdicts for case in cases)
            for verdicts in (["passed"], ["failed"], ["agrees", "differs"], ["not asked"])
        ]
        assert list(group[2:6]) == counts
        assert sum(counts) == len(cases)
        judged = [case.fraction for case in cases if case.verdict in ("passed", "failed") and case.fraction >= 0]
        np.testing.assert_equal(group.fraction, max(judged, default=np.nan))
        assert np.isnan(group.fraction) == (group.name in ("axis", "where"))
    edge = next(line for line in str(report).splitlines() if line.startswith("float32  edge"))
    assert edge.split()[2:6] == [str(count) for count in report.groups[2][2:6]]


def test_report_is_frozen():
    report = testing.check(straight_through, cases=testing.cases()[:2])
    with pytest.raises(FrozenInstanceError):
        report.dtype = "float64"
    with pytest.raises(FrozenInstanceError):
        report.cases[0].verdict = "failed"


@pytest.mark.parametrize(
    ("tested", "operator"),
    [
        (straight_through, straight_through),
        (implementation(hard, lambda g, w, t: np.nan * g), straight_through),
        (with_options(hard, temp_forgotten), gumbel_softmax),
    ],
)
def test_report_as_json(tested, operator):
    def strict(constant):
        raise AssertionError(constant)

    report = testing.check(tested, operator=operator, dtypes=("float32", "float16"))
    read = json.loads(report.to_json(), parse_constant=strict)
    assert read["schema"] == "npselect-report/2"
    assert read["ok"] is report.ok
    assert (read["dtypes"], read["temp"], read["profile"], read["backend"]) == (
        ["float32", "float16"], 0.6, "standard", "reference"
    )  # fmt: skip
    assert read["operator"] == operator.__name__.rpartition(".")[-1]
    assert read["options"] == list(report.options)
    assert read["likely_cause"] == report.likely_cause
    assert read["near_ties_allowed"] == report.near_ties_allowed
    assert set(read["versions"]) == {"npselect", "numpy", "python"}
    assert [group["name"] for group in read["groups"]] == [group.name for group in report.groups]
    assert [case["id"] for case in read["cases"]] == [case.id for case in report.cases]
    for case, outcome in zip(read["cases"], report.cases, strict=True):
        assert float(case["ulp"]) == pytest.approx(outcome.ulp, rel=0, abs=0, nan_ok=True)
        assert (case["difference"] is None) == (outcome.verdict in ("passed", "agrees", "not asked"))
        assert (case["reproduce"] is None) == (case["difference"] is None)


def test_no_framework_no_numba_is_loaded():
    code = "import sys, npselect.testing; npselect.testing.cases(); print(*sys.modules)"
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    assert not {"numba", "torch", "jax", "tensorflow", "scipy", "rich", "ml_dtypes", "pytest"} & set(loaded)
