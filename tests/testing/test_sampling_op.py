"""check_sampling_op: honest ops are accepted, faults are rejected with their causes, and what was not asked is said."""

from __future__ import annotations

import dataclasses
import json
import time

import numpy as np
import pytest
import sampling_ops
from sampling_ops import FAULTS, HARD_ONLY, HONEST, op, own

from npselect import testing

FIRST = {  # the others are slow together
    "gradient, zero",
    "gradient, no 1/temp",
    "gradient, without the noise",
    "gradient, clamped",
    "noise, cut off",
    "noise, tau inside",
    "noise, shared",
    "mask off",
    "paddle",
}
QUICK = {"choices": (2, 30), "temps": (0.1, 0.6, 5.0)}


@pytest.mark.parametrize("name", HONEST)
@pytest.mark.parametrize("hard_and_soft", [True, False])
def test_honest_ops_are_accepted(small, name, hard_and_soft, record):
    subject = dataclasses.replace(HONEST[name], hard_and_soft=hard_and_soft)
    report = testing.check_sampling_op(subject, **QUICK)
    assert report.ok, str(report)
    assert report.likely_cause is None
    fractions = [test.fraction for test in report.tests if test.fraction is not None]
    record(f"error/bound, {'both forms' if hard_and_soft else 'hard form'}, of NumPy", max(fractions))


@pytest.mark.parametrize(
    ("name", "dtype"), [("softmax", "float16"), ("softmax", "bfloat16"), ("softmax", "float64"), ("own", "float64")]
)
def test_honest_ops_are_accepted_in_other_dtypes(small, name, dtype, record):
    for hard_and_soft in (True, False):
        subject = dataclasses.replace(HONEST[name], hard_and_soft=hard_and_soft)
        report = testing.check_sampling_op(subject, dtypes=dtype, **QUICK)
        assert report.ok, str(report)
        fractions = [test.fraction for test in report.tests if test.fraction is not None]
        record(f"error/bound, {dtype}, {'both forms' if hard_and_soft else 'hard form'}, of NumPy", max(fractions))


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
@pytest.mark.parametrize("name", ["paddle", "gradient, without the noise", "mask off"])
def test_faults_in_other_dtypes(small, name, dtype):
    subject, cause = FAULTS[name]
    report = testing.check_sampling_op(subject, dtypes=dtype, choices=(2, 30), temps=(1.0, 5.0))
    assert not report.ok
    assert report.likely_cause == cause, str(report)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FIRST else pytest.mark.slow) for name in FAULTS]
)
def test_faults_are_rejected_with_their_cause(small, name):
    subject, cause = FAULTS[name]
    report = testing.check_sampling_op(subject, **QUICK)
    assert not report.ok
    assert report.likely_cause == cause, str(report)
    assert str(report).splitlines()[:2] == [report.verdict[0], f"likely cause: {cause}"]


@pytest.mark.parametrize("name", HARD_ONLY)
def test_faults_of_ops_without_a_soft_form(small, name):
    subject, cause = HARD_ONLY[name]
    report = testing.check_sampling_op(subject, **QUICK)
    assert not report.ok
    assert report.likely_cause == cause, str(report)


@pytest.mark.parametrize("name", ["zero", "no 1/temp", "without the noise"])
def test_faults_of_two_candidates_without_a_soft_form(small, name):
    """Of each gradient of two entries some noise is the reason; but not Gumbel's."""
    subject, cause = HARD_ONLY[name]
    report = testing.check_sampling_op(subject, choices=(2,), temps=(0.6, 5.0))
    assert not report.ok
    assert report.likely_cause == cause, str(report)


def test_what_was_not_asked_is_said(small):
    report = testing.check_sampling_op(own(hard_and_soft=False), choices=(2,), temps=(1.0,))
    (line,) = [line for line in report.notes if line.startswith("not asked")]
    assert line == "not asked, as it has no soft form: hard and soft, soft sample, gradient of the soft form"
    assert "hard form only" in str(report)


def test_hard_and_soft_of_other_noise(small):
    def sample(logits, temp, hard, seed):
        return own().sample(logits, temp, hard, seed + hard)

    def backward(grad_sample, logits, temp, hard, seed):
        return own().backward(grad_sample, logits, temp, hard, seed + hard)

    report = testing.check_sampling_op(testing.SamplingOp("other noise", sample, backward), choices=(10,), temps=(1.0,))
    failed = {test.name for test in report.tests if test.verdict == "failed"}
    assert {"hard and soft", "gradient of the hard form"} <= failed
    assert "gradient of the soft form" not in failed


def test_a_seed_that_is_ignored(small):
    subject = testing.SamplingOp(
        "one seed",
        lambda logits, temp, hard, seed: own().sample(logits, temp, hard, 7),
        lambda grad, logits, temp, hard, seed: own().backward(grad, logits, temp, hard, 7),
    )
    report = testing.check_sampling_op(subject, choices=(10,), temps=(1.0,))
    assert "other seed" in {test.name for test in report.tests if test.verdict == "failed"}


def test_nan_at_an_excluded_candidate(small):
    def backward(grad_sample, logits, temp, hard, seed):
        return own().backward(grad_sample, logits, temp, hard, seed) + 0 * logits  # -inf * 0

    report = testing.check_sampling_op(testing.SamplingOp("nan", own().sample, backward), choices=(10,), temps=(1.0,))
    (test,) = [test for test in report.tests if test.name == "excluded candidates"]
    assert test.verdict == "failed"
    assert "whose logit is -inf; expected 0" in test.finding


def test_soft_samples_that_are_none(small):
    def wrong(change):
        def sample(logits, temp, hard, seed):
            right = own().sample(logits, temp, hard, seed)
            return right if hard else change(right)

        return dataclasses.replace(own(), sample=sample)

    for change, said in (
        (lambda y: y * np.float32(1.01), "has the sum 1.01"),
        (lambda y: y * np.nan, "expected finite numbers"),
        (lambda y: y - 1, "expected probabilities"),
        (lambda y: y[:, :1], "expected an array of the shape of logits"),
    ):
        report = testing.check_sampling_op(wrong(change), choices=(10,), temps=(1.0,))
        (test,) = [test for test in report.tests if test.name == "soft sample"]
        assert test.verdict == "failed"
        assert said in test.finding


def test_noise_of_24_bits_in_float64():
    subject = op("24 bits", noise=sampling_ops.of_24_bits)
    report = testing.check_sampling_op(subject, dtypes="float64", choices=(1000,), temps=(1.0,))
    assert [test.name for test in report.tests if test.verdict == "failed"] == ["equal noise"]
    assert report.likely_cause == "uniforms of 24 bits"


@pytest.mark.slow
def test_the_whole_check_of_our_own(record):
    start = time.process_time()
    report = testing.check_sampling_op(own())
    record("processor seconds, check_sampling_op of npselect", time.process_time() - start)
    assert report.ok, str(report)
    assert sum(test.comparisons for test in report.tests if test.name.startswith("gradient")) > 8e5


def test_report_as_json(small):
    report = testing.check_sampling_op(FAULTS["paddle"][0], choices=(2,), temps=(0.6,))
    whole = json.loads(report.to_json())
    assert whole["schema"] == "npselect-sampling-report/1"
    assert whole["ok"] is False
    assert whole["likely_cause"] == report.likely_cause
    assert [test["id"] for test in whole["tests"]] == [test.id for test in report.tests]
    assert report.tests[3].id == "gradient of the hard form/float32/temp=0.6/K=2"
    assert report.summary[-1] == report.verdict[0]


def test_failures_that_are_known(small):
    subject = FAULTS["soft without temp"][0]
    asked = {"choices": (2,), "temps": (0.6, 5.0)}
    known = {"gradient of the soft form/*": "issue 12", "constants drop out/*": "issue 12"}
    report = testing.check_sampling_op(subject, known=known, **asked)
    assert report.ok, str(report)
    assert report.likely_cause is None
    assert {test.known for test in report.tests if test.verdict == "known"} == {"issue 12"}
    assert report.verdict == [f"PASSED: {len(report.tests) - 4} of {len(report.tests)} tests, and 4 known to fail"]

    report = testing.check_sampling_op(own(), known=known, **asked)
    assert not report.ok
    assert "known, but does not fail: gradient of the soft form/* (issue 12): its 2 cases pass" in str(report)
    with pytest.raises(ValueError, match="matches no case"):
        testing.check_sampling_op(own(), known={"gradient/*": "issue 12"}, **asked)


@pytest.mark.parametrize("hard_and_soft", [True, False])
def test_ids_are_known_before_anything_is_asked(small, hard_and_soft):
    """Patterns of known= are looked up among them."""
    asked = {"dtypes": ("float32", "float64"), "choices": (10,), "temps": (0.6, 1.0)}
    report = testing.check_sampling_op(own(hard_and_soft=hard_and_soft), **asked)
    ids = [test.id for test in report.tests]
    assert len(set(ids)) == len(ids)
    nothing = testing.SamplingOp("asked nothing", None.__init__, None.__init__, hard_and_soft)
    with pytest.raises(ValueError, match="matches no case"):
        testing.check_sampling_op(nothing, known={**dict.fromkeys(ids, "listed"), "none": "not listed"}, **asked)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"choices": 10}, TypeError, "choices is 10; it takes a sequence of integers"),
        ({"choices": (1,)}, ValueError, "each of choices is 1; it must be at least 2"),
        ({"temps": ()}, ValueError, "temps is empty"),
        ({"temps": 0.6}, TypeError, "temps is 0.6; it takes a sequence of numbers"),
        ({"temps": (0.0,)}, ValueError, "must be positive and finite"),
        ({"temps": (1e-9,), "dtypes": "float16"}, ValueError, "in float16 too"),
        ({"dtypes": "int8"}, ValueError, "dtype is 'int8'"),
        ({"dtypes": ()}, ValueError, "dtypes is empty"),
        ({"seed": -1}, ValueError, "seed is -1"),
        ({"false_alarm": 1}, ValueError, "false_alarm is 1; it must lie between 0 and 1"),
    ],
)
def test_arguments(options, error, message):
    with pytest.raises(error, match=message):
        testing.check_sampling_op(own(), **options)


def test_an_op_without_its_functions():
    with pytest.raises(TypeError, match=r"has no function sample\(logits, temp, hard, seed\)"):
        testing.check_sampling_op(object())


def test_errors_of_an_op_say_where():
    def sample(logits, temp, hard, seed):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError) as caught:
        testing.check_sampling_op(testing.SamplingOp("raises", sample, own().backward))
    assert "sample(logits" in caught.value.__notes__[0]


@pytest.mark.slow
def test_false_alarms_are_as_promised(small, monkeypatch, record):
    """200 honest checks at a rate of 0.05, of few rows: more than 24 alarms have a probability below 1e-4."""
    sizes = {"gradients": (11, 2e4), "samples": (9, 2e4), "many": (9, 2e4), "equal": (9, 1e5)}
    monkeypatch.setattr("npselect.testing.sampling.check._SIZES", sizes)
    subject = dataclasses.replace(HONEST["softmax"], max_seed=2**32 - 1)
    asked = {"choices": (2, 10), "temps": (0.6,), "false_alarm": 0.05}
    alarms = [not testing.check_sampling_op(subject, seed=1000 * i, **asked).ok for i in range(200)]
    record("false alarms in 200 checks at a rate of 0.05", sum(alarms))
    assert sum(alarms) <= 24
