"""`check_sampler`: honest samplers pass; what it gives them, what it reports, and what it refuses."""

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError
from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from samplers import HONEST, by_gumbel, by_inverse, noise_of_one_row, scaled, select, softmax
from scipy import stats

from npselect import gumbel_softmax, testing

ROOT = Path(__file__).parents[2]
TESTS = [
    "form",
    "same seed",
    "other seed",
    "each frequency",
    "mean logit",
    "all frequencies",
    "neighbouring rows",
    "neighbouring seeds",
    "position",
    "far seeds",
    "repeated rows",
]


# ------------------------------------------------------------------------------------------------ honest samplers


@pytest.mark.parametrize("sample", HONEST)
def test_honest_is_accepted(sample):
    report = testing.check_sampler(sample, choices=(2, 10, 100), rows=4099)
    assert report.ok, str(report)
    assert [test.name for test in report.tests] == 3 * TESTS


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_honest_is_accepted_in_every_dtype_at_full_size(dtype):
    seen = set()

    def sample(logits, seed):
        seen.add((logits.dtype.name, logits.shape, type(seed)))
        return by_gumbel(logits.astype(np.float32), seed)

    choices = (2, 10, 1000) if dtype == "float32" else (2, 10)
    report = testing.check_sampler(sample, dtype=dtype, choices=choices)
    assert report.ok, str(report)
    sizes = {(43691, 2), (43691, 10), (5461, 1000)}
    assert {shape for _, shape, _ in seen} >= {size for size in sizes if size[1] in choices}
    assert {(name, kind) for name, _, kind in seen} == {(dtype, int)}


@pytest.mark.parametrize("form", [bool, np.int8, np.float16, ml_dtypes.bfloat16, np.float64, np.ndarray.tolist])
def test_any_form_of_a_one_hot(form):
    def sample(logits, seed):
        mask = by_gumbel(logits, seed)
        return form(mask) if callable(form) and not isinstance(form, type) else mask.astype(form)

    report = testing.check_sampler(sample, choices=(3,), rows=257)
    assert report.ok, str(report)


@pytest.mark.parametrize(("dtype", "choices"), [("float32", (2, 10, 1000)), ("float64", (2, 10))])
def test_gumbel_softmax_is_a_sampler(dtype, choices):
    report = testing.check_sampler(
        lambda logits, seed: gumbel_softmax.forward(logits, seed=seed), dtype=dtype, choices=choices
    )
    assert report.ok, str(report)


# ------------------------------------------------------------------------------------------------ false alarms


def alarms(sample, runs, first=0, **options):
    """How many checks of an honest sampler fail, and the p-values of all."""
    options = {"choices": (2, 10), "vectors": 8, "rows": 129, "seeds": 5, "false_alarm": 0.05, **options}
    reports = [testing.check_sampler(sample, seed=first + 1000 * run, **options) for run in range(runs)]
    p_values = np.array([[test.p_value or 1.0 for test in report.tests] for report in reports])
    return sum(not report.ok for report in reports), p_values


@pytest.mark.parametrize("sample", [by_gumbel, by_inverse])
def test_an_honest_sampler_fails_as_rarely_as_stated(sample, monkeypatch):
    monkeypatch.setattr("npselect.testing.sampler_questions._FAR_SEEDS", 16)
    failed, p_values = alarms(sample, 120)
    assert stats.binom.sf(failed - 1, 120, 0.05) > 1e-3, failed
    assert np.mean(p_values < 0.5) > 1e-3  # p-values that are always 1 would pass as well


@pytest.mark.slow
def test_lags_and_far_seeds_alone_fail_an_honest_sampler_as_rarely_as_stated(monkeypatch):
    """So few bits of a stretch and of a call that chance decides; the whole false alarm on these tests, and each."""
    monkeypatch.setattr("npselect.testing.sampler._TOLD", 20)
    monkeypatch.setattr("npselect.testing.sampler_repeats._BITS", 12)
    runs = 150
    failed, p_values = alarms(by_inverse, runs, first=2 * 10**6, choices=(2,), rows=300, seeds=3)
    assert stats.binom.sf(failed - 1, runs, 0.05) > 1e-3, failed
    seen = dict(zip(TESTS, p_values.T, strict=True))
    for name in ("neighbouring rows", "neighbouring seeds", "far seeds", "repeated rows"):
        for level in (0.05, 0.3):
            below = int(np.sum(seen[name] < level))
            assert stats.binom.sf(below - 1, runs, level / 9) > 1e-3, (name, level, below)


# ------------------------------------------------------------------------------------------------ the interface


def test_after_a_wrong_form_the_next_choices_are_tested():
    def sample(logits, seed):
        return softmax(logits) if logits.shape[-1] == 3 else by_gumbel(logits, seed)

    report = testing.check_sampler(sample, choices=(3, 4), rows=100)
    verdicts = [test.verdict for test in report.tests]
    assert verdicts == ["failed", *10 * ["not run"], *11 * ["passed"]]
    assert not report.ok
    assert "not run: 10 tests" in str(report)
    assert report.summary[-1] == "FAILED: 1 of 12 tests"


def test_what_the_sampler_is_given():
    seen = []

    def sample(logits, seed):
        assert type(logits) is np.ndarray
        assert logits.flags.writeable
        assert logits.flags.c_contiguous
        seen.append((seed, logits.copy()))
        logits[:] = 1
        return by_gumbel(seen[-1][1], seed)

    report = testing.check_sampler(sample, choices=(5,), vectors=6, rows=61, seeds=3, seed=np.int64(40))
    assert report.ok, str(report)
    assert all(type(seed) is int for seed, _ in seen)
    equal = [(seed, logits) for seed, logits in seen if not np.any(logits)]
    assert [seed for seed, _ in equal[:2]] == [2**64 - 1, -2]  # what does it take?
    assert {logits.shape for _, logits in equal[:-1]} == {(42, 5)}
    assert equal[-1][0] == 40
    assert equal[-1][1].shape == (61, 5)
    seen = [(seed, logits) for seed, logits in seen if np.any(logits)]
    assert [seed for seed, _ in seen] == [40, 41, 42, 40]
    assert all(np.array_equal(logits, seen[0][1]) for _, logits in seen)
    logits = seen[0][1]
    assert logits.shape == (61, 5)
    assert len(np.unique(logits, axis=0)) == 6
    assert np.any(np.isneginf(logits))
    assert np.all(np.isfinite(logits).any(axis=-1))


def test_the_same_check_has_the_same_report():
    options = {"choices": (2, 5), "rows": 300, "seed": 3}
    assert str(testing.check_sampler(by_gumbel, **options)) == str(testing.check_sampler(by_gumbel, **options))
    other = testing.check_sampler(by_gumbel, **{**options, "seed": 4})
    assert [test.p_value for test in other.tests] != [
        test.p_value for test in testing.check_sampler(by_gumbel, **options).tests
    ]


def test_the_smallest_check():
    report = testing.check_sampler(by_gumbel, choices=(2,), vectors=1, rows=16, seeds=2)
    assert report.ok, str(report)
    report = testing.check_sampler(by_gumbel, choices=(1000,), rows=16, seeds=2)
    assert {test.name: test.comparisons for test in report.tests}["all frequencies"] == 0
    assert report.ok, str(report)
    report.to_json()


def test_many_seeds():
    assert testing.check_sampler(by_gumbel, choices=(40,), rows=40, seeds=500).ok
    report = testing.check_sampler(lambda logits, seed: select(logits), choices=(40,), rows=40, seeds=500)
    assert "other seed" in {test.name for test in report.tests if test.verdict == "failed"}


def test_an_error_of_the_sampler_is_the_callers():
    def sample(logits, seed):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        testing.check_sampler(sample, choices=(3,), rows=20, seed=9)
    assert caught.value.__notes__ == ["raised by sample(logits, 9) with logits of shape (20, 3) and dtype float32"]
    with pytest.raises(TypeError, match="positional argument"):
        testing.check_sampler(lambda logits: logits)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"choices": ()}, ValueError, "choices is empty: there is nothing to test"),
        ({"choices": 10}, TypeError, r"choices is 10; it takes a sequence of integers, such as \(10,\)"),
        ({"choices": (1,)}, ValueError, "each of choices is 1; it must be at least 2"),
        ({"choices": (2.5,)}, TypeError, "each of choices is 2.5; it takes an integer"),
        ({"choices": (3, 3)}, ValueError, r"choices is \(3, 3\); each K may be given once"),
        ({"vectors": 0}, ValueError, "vectors is 0; it must be at least 1"),
        ({"rows": 15}, ValueError, "rows is 15; it must be at least 16"),
        ({"rows": 20, "vectors": 30}, ValueError, "rows is 20; it must be at least 30"),
        ({"rows": "all"}, TypeError, "rows is 'all'; it takes an integer"),
        ({"seeds": 1}, ValueError, "seeds is 1; it must be at least 2"),
        ({"seed": -1}, ValueError, "seed is -1; it must be at least 0"),
        ({"max_seed": 14}, ValueError, "max_seed is 14; it must be at least 15"),
        ({"max_seed": 1e9}, TypeError, "max_seed is 1000000000.0; it takes an integer"),
        ({"seed": None}, TypeError, "seed is None; it takes an integer"),
        ({"false_alarm": 0}, ValueError, "false_alarm is 0; it must lie between 0 and 1"),
        ({"false_alarm": 1.0}, ValueError, "false_alarm is 1.0"),
        ({"false_alarm": float("nan")}, ValueError, "false_alarm is nan"),
        ({"false_alarm": "rare"}, TypeError, "false_alarm is 'rare'; it takes a number"),
        ({"dtype": "int32"}, ValueError, "dtype is 'int32'; it takes one of"),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        testing.check_sampler(by_gumbel, **options)


def test_what_is_no_sampler_is_a_type_error():
    with pytest.raises(TypeError, match=r"sample is 3; it takes a function sample\(logits, seed\)"):
        testing.check_sampler(3)


def test_report():
    report = testing.check_sampler(partial(scaled, factor=2), choices=(2, 10), rows=999, seed=5)
    text = str(report)
    assert report.heading[0].endswith("samples 15984 of K=2, 15984 of K=10")
    assert "dtype float32, 16 logits vectors for each K, seeds 5 to 20" in text
    failed = [test for test in report.tests if test.verdict == "failed"]
    assert {"each frequency", "mean logit", "all frequencies"} <= {test.name for test in failed}
    assert all(test.finding in text for test in failed)
    assert all(test.finding is None for test in report.tests if test.verdict == "passed")
    assert "tests that fail together may have one cause" in text
    assert report.summary[-1] == f"FAILED: {len(failed)} of 22 tests"
    assert len({line.index("verdict") for line in report.table[:1]}) == 1
    with pytest.raises(FrozenInstanceError):
        report.seed = 3
    with pytest.raises(FrozenInstanceError):
        report.tests[0].verdict = "passed"


def test_report_as_json():
    def strict(constant):
        raise AssertionError(constant)

    for sample in (by_gumbel, noise_of_one_row, lambda logits, seed: softmax(logits)):
        report = testing.check_sampler(sample, choices=(2, 5), rows=500)
        read = json.loads(report.to_json(), parse_constant=strict)
        assert read["schema"] == "npselect-sampler-report/1"
        assert read["ok"] is report.ok
        assert (read["rows"], read["seeds"], read["false_alarm"]) == ([500, 500], 16, 1e-6)
        assert [test["p_value"] for test in read["tests"]] == [test.p_value for test in report.tests]
        assert [test["finding"] for test in read["tests"]] == [test.finding for test in report.tests]


def test_only_a_check_loads_scipy():
    code = "import sys, npselect.testing; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"scipy", "numba"} & set(loaded.stdout.split())
