"""Tests of the tests: wrong implementations are rejected, each by its mistake; honest ones are not."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import ml_dtypes
import mpmath
import numpy as np
import pytest
import scipy.special

from npselect import straight_through, testing
from npselect.testing import judge, tolerance

DTYPES = ["float16", "bfloat16", "float32", "float64"]
NARROW = ["float16", "bfloat16"]


def implementation(forward, backward):
    return SimpleNamespace(forward=forward, backward=backward)


@pytest.fixture(autouse=True)
def remembered_answers(monkeypatch):
    """The oracle is asked each question once: most of the time of these tests would be its."""
    monkeypatch.setattr("npselect.testing.judge._oracle", _remembered)


def _remembered(case, backend):
    key = (case.logits.tobytes(), case.grad_mask.tobytes(), case.logits.dtype, case.logits.shape, case.temp, backend)
    if key not in _answers:
        _answers[key] = _oracle(case, backend)
    return _answers[key]


_answers: dict = {}
_oracle = judge._oracle


# ------------------------------------------------------------------------------- honest implementations
# Every operation is in the dtype of logits; temp is converted, because bfloat16 is widened by a Python float.


def total(values, axis=-1):
    """A sum of 16-bit numbers is accumulated in 32 bits, of others in their own."""
    wide = np.float32 if values.dtype.itemsize == 2 else None
    return np.sum(values, axis=axis, keepdims=True, dtype=wide).astype(values.dtype)


def one_hot(index, like):
    return (np.arange(like.shape[-1]) == index).astype(like.dtype)


def hard(logits, temp):
    return one_hot(np.argmax(logits, axis=-1, keepdims=True), logits)


def softmax(logits, temp):
    t = logits / logits.dtype.type(temp)
    e = np.exp(t - np.max(t, axis=-1, keepdims=True))
    return e / total(e)


def softmax_difference_first(logits, temp):
    e = np.exp((logits - np.max(logits, axis=-1, keepdims=True)) / logits.dtype.type(temp))
    return e / total(e)


def softmax_by_log(logits, temp):
    """exp(t - logsumexp(t)), as scipy had it before version 1.9."""
    t = logits / logits.dtype.type(temp)
    top = np.max(t, axis=-1, keepdims=True)
    return np.exp(t - (top + np.log(total(np.exp(t - top)))))


def hard_by_probs(logits, temp, probs=softmax):
    return one_hot(np.argmax(probs(logits, temp), axis=-1, keepdims=True), logits)


def straight_through_idiom(logits, temp):
    probs = softmax(logits, temp)
    return probs + (hard_by_probs(logits, temp) - probs)


def soft_gradient(g, logits, temp, probs=softmax):
    p = probs(logits, temp)
    return p * (g - total(p * g)) / logits.dtype.type(temp)


def two_terms(g, logits, temp):
    p = softmax(logits, temp)
    pg = p * g
    return (pg - p * total(pg)) / logits.dtype.type(temp)


def divided_first(g, logits, temp):
    p = softmax(logits, temp)
    g = g / logits.dtype.type(temp)
    return p * (g - total(p * g))


def by_jacobian(g, logits, temp):
    p = softmax(logits, temp)
    wide = np.float32 if p.dtype.itemsize == 2 else p.dtype
    jacobians = p[:, :, None] * (np.eye(p.shape[-1], dtype=p.dtype) - p[:, None, :])
    return (jacobians.astype(wide) @ g[:, :, None].astype(wide))[:, :, 0].astype(p.dtype) / logits.dtype.type(temp)


def by_scipy(g, logits, temp):
    if logits.size == 0:
        return logits.copy()
    p = scipy.special.softmax(logits / logits.dtype.type(temp), axis=-1)
    return p * (g - np.vecdot(p, g)[:, None]) / logits.dtype.type(temp)


def in_float64(g, logits, temp):
    return soft_gradient(g.astype(np.float64), logits.astype(np.float64), temp).astype(logits.dtype)


def in_a_loop(g, logits, temp):
    out = np.empty_like(logits)
    scalar = logits.dtype.type
    for i in range(len(logits)):
        top = max(logits[i])
        e = [np.exp((w - top) / scalar(temp)) for w in logits[i]]
        s, d = scalar(0), scalar(0)
        for term in e:
            s += term
        for term, cotangent in zip(e, g[i], strict=True):
            d += term / s * cotangent
        out[i] = [term / s * (cotangent - d) / scalar(temp) for term, cotangent in zip(e, g[i], strict=True)]
    return out


HONEST = {
    "divide first": (hard, soft_gradient),
    "difference first": (hard, partial(soft_gradient, probs=softmax_difference_first)),
    "by the logarithm": (partial(hard_by_probs, probs=softmax_by_log), partial(soft_gradient, probs=softmax_by_log)),
    "argmax of probs": (hard_by_probs, soft_gradient),
    "straight-through idiom": (straight_through_idiom, soft_gradient),
    "two terms": (hard, two_terms),
    "cotangent over temp": (hard, divided_first),
    "in float64, rounded once": (hard, in_float64),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", HONEST)
def test_honest_is_accepted(name, dtype):
    report = testing.check(implementation(*HONEST[name]), dtype=dtype)
    assert report.ok, str(report)
    assert report.likely_cause is None


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_scipy_is_accepted(dtype):
    report = testing.check(implementation(hard, by_scipy), dtype=dtype)
    assert report.ok, str(report)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backward", [by_jacobian, in_a_loop])
def test_honest_but_slow_is_accepted(backward, dtype):
    small = [case for case in testing.cases(dtype) if case.logits.shape[-1] <= 10 and len(case.logits) <= 512]
    report = testing.check(implementation(hard, backward), dtype=dtype, cases=small)
    assert report.ok, str(report)
    assert len(report.cases) > 20


@pytest.mark.parametrize("temp", [1e-3, 7.0, 1e3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_honest_is_accepted_at_any_temperature(dtype, temp):
    for name in ("argmax of probs", "difference first"):
        report = testing.check(implementation(*HONEST[name]), dtype=dtype, temp=temp)
        assert report.ok, str(report)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_own_tiers_pass_strict(backend, dtype):
    tier = implementation(
        partial(straight_through.forward, backend=backend), partial(straight_through.backward, backend=backend)
    )
    report = testing.check(tier, dtype=dtype, profile="strict")
    assert report.ok, str(report)
    assert all(case.verdict == "passed" for case in report.cases)
    assert all(case.judged_rows == case.rows for case in report.cases)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_kernels_serve_as_the_oracle(dtype):
    assert testing.check(implementation(hard, soft_gradient), dtype=dtype, backend="cpu").ok
    assert testing.check(straight_through, dtype=dtype, backend="cpu", profile="strict").ok
    assert not testing.check(implementation(hard, lambda g, w, t: t * soft_gradient(g, w, t)), backend="cpu").ok


# ------------------------------------------------------------------------------------------------ planted faults


def last_of_equals(logits, temp):
    return one_hot(logits.shape[-1] - 1 - np.argmax(logits[:, ::-1], axis=-1, keepdims=True), logits)


def all_of_equals(logits, temp):
    return (logits == np.max(logits, axis=-1, keepdims=True)).astype(logits.dtype)


def nan_at_minus_inf(logits, temp):
    return hard(logits, temp) * (1 + 0 * logits)


def clamped(g, logits, temp):
    p = np.maximum(softmax(logits, temp), np.float32(1e-6))
    return p * (g - total(p * g)) / np.float32(temp)


def unstable(g, logits, temp):
    e = np.exp(logits / np.float32(temp))
    p = e / total(e)
    return p * (g - total(p * g)) / np.float32(temp)


def selected_only(g, logits, temp):
    return hard(logits, temp) * soft_gradient(g, logits, temp)


def transposed(g, logits, temp):
    p = softmax(logits.T, temp).T if logits.size else logits
    return p * (g - total(p * g, axis=0)) / np.float32(temp)


def batch_sum(g, logits, temp):
    p = softmax(logits, temp)
    return p * (g - np.sum(p * g)) / np.float32(temp)


def batch_softmax(g, logits, temp):
    if logits.size == 0:
        return logits
    e = np.exp((logits - np.max(logits)) / np.float32(temp))
    p = e / np.sum(e)
    return p * (g - np.sum(p * g)) / np.float32(temp)


def mean_forgotten(g, logits, temp):
    return softmax(logits, temp) * g / np.float32(temp)


def hard_in_the_mean(g, logits, temp):
    return softmax(logits, temp) * (g - total(hard(logits, temp) * g)) / np.float32(temp)


def hard_in_front(g, logits, temp):
    return hard(logits, temp) * (g - total(softmax(logits, temp) * g)) / np.float32(temp)


def nan_gradient_at_minus_inf(g, logits, temp):
    p = softmax(logits, temp)
    return p * (g - total(p * g)) / np.float32(temp) + 0 * logits


def fixed_temp(g, logits, temp):
    return soft_gradient(g, logits, 0.6)


def writes_to_logits(logits, temp):
    logits /= logits.dtype.type(temp)
    return hard(logits, temp)


def writes_to_grad_mask(g, logits, temp):
    p = softmax(logits, temp)
    g -= total(p * g)
    return p * g / np.float32(temp)


def of_wrong_shape(g, logits, temp):
    return soft_gradient(g, logits, temp).sum(axis=0)


def of_wrong_dtype(g, logits, temp):
    return soft_gradient(g, logits, temp).astype(np.float64)


def zero_when_long(g, logits, temp):
    return soft_gradient(g, logits, temp) * np.float32(logits.shape[-1] < 4096)


def minus_zeros(logits, temp):
    return np.where(hard(logits, temp) == 0, np.float32(-0.0), np.float32(1.0))


def leaking(g, logits, temp):
    return np.where(np.isneginf(logits), np.float32(1e-12), soft_gradient(g, logits, temp))


def multiplied(g, logits, temp):
    p = softmax(logits, temp)
    return p * (g - total(p * g)) * np.float32(temp)


def f32(values):
    return np.asarray(values, np.float32)


FAULTS = {  # name: (forward, backward, likely cause or None, words in a difference)
    "1/temp is missing": (hard, lambda g, w, t: soft_gradient(g, w, t) * f32(t), "1/temp is missing", ""),
    "divided twice": (hard, lambda g, w, t: soft_gradient(g, w, t) / f32(t), "divided by temp twice", ""),
    "multiplied": (hard, multiplied, "multiplied by temp", ""),
    "temp is ignored": (hard, lambda g, w, t: soft_gradient(g, w, 1.0), "temp is ignored", ""),
    "temp in front only": (
        hard,
        lambda g, w, t: soft_gradient(g, w, 1.0) / f32(t),
        "the softmax is taken of logits",
        "",
    ),
    "temp is always 0.6": (hard, fixed_temp, None, "backward"),
    "sign": (hard, lambda g, w, t: -soft_gradient(g, w, t), "the sign is flipped", ""),
    "zero": (hard, lambda g, w, t: 0 * g, "the gradient of the hard mask", ""),
    "identity": (hard, lambda g, w, t: g, "passed straight through", ""),
    "no mean": (hard, mean_forgotten, "without the mean", ""),
    "mask in the mean": (hard, hard_in_the_mean, "mask instead of probs", ""),
    "mask in front": (hard, hard_in_front, "mask instead of probs", ""),
    "selected only": (hard, selected_only, "no gradient to the candidates that were not selected", ""),
    "wrong axis": (hard, transposed, "wrong axis", ""),
    "sum over the batch": (hard, batch_sum, "sum over the batch", ""),
    "mean over the batch": (
        hard,
        lambda g, w, t: soft_gradient(g, w, t) / f32(max(1, len(w))),
        "mean over the batch",
        "",
    ),
    "mean over the choices": (
        hard,
        lambda g, w, t: soft_gradient(g, w, t) / f32(w.shape[-1]),
        "mean over the choices",
        "",
    ),
    "softmax of the batch": (hard, batch_softmax, "the softmax runs over the whole batch", ""),
    "clamped probs": (hard, clamped, None, "backward"),
    "exp overflows": (hard, unstable, None, "is nan; expected"),
    "zero for long rows": (hard, zero_when_long, None, "0.0; expected"),
    "leak at -inf": (hard, leaking, None, "is 1e-12; expected 0.0"),
    "NaN at -inf, backward": (hard, nan_gradient_at_minus_inf, "-inf gives NaN", ""),
    "NaN at -inf, forward": (nan_at_minus_inf, soft_gradient, "-inf gives NaN", ""),
    "last of equals": (last_of_equals, soft_gradient, "the last of equals", "forward"),
    "all of equals": (all_of_equals, soft_gradient, "all of equals", "forward"),
    "smallest": (lambda w, t: hard(-w, t), soft_gradient, "the smallest", "forward"),
    "forward, wrong axis": (lambda w, t: hard(w.T, t).T if w.size else w, soft_gradient, "wrong axis", "forward"),
    "soft forward": (softmax, soft_gradient, "probs instead of the mask", "forward"),
    "minus zeros": (minus_zeros, soft_gradient, None, "is -0.0"),
    "an exception": (hard, lambda g, w, t: 1 // 0, None, "raises ZeroDivisionError"),
    "exit": (lambda w, t: sys.exit("enough"), soft_gradient, None, "raises SystemExit: enough"),
    "writes to logits": (writes_to_logits, soft_gradient, None, "writes to its argument logits"),
    "writes to grad_mask": (hard, writes_to_grad_mask, None, "writes to its argument grad_mask"),
    "shape": (hard, of_wrong_shape, None, "returns shape"),
    "dtype": (hard, of_wrong_dtype, None, "returns dtype float64; expected float32"),
    "nothing": (lambda w, t: None, soft_gradient, None, "returns a NoneType"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_rejected_with_its_cause(name):
    forward, backward, cause, words = FAULTS[name]
    report = testing.check(implementation(forward, backward))
    assert not report.ok
    assert any(words in str(case.difference) for case in report.cases if case.verdict == "failed")
    if cause is None:
        assert report.likely_cause is None
    else:
        assert cause in report.likely_cause
        assert f"likely cause: {report.likely_cause}" in str(report)
    assert "FAILED" in report.summary[-1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("temp", [0.25, 3.0])
def test_missing_temp_is_named_in_every_dtype(dtype, temp):
    def forgotten(g, logits, temp):
        return (soft_gradient(g, logits, temp).astype(np.float64) * temp).astype(logits.dtype)

    report = testing.check(implementation(hard, forgotten), dtype=dtype, temp=temp)
    assert not report.ok
    assert report.likely_cause == "backward: 1/temp is missing"


@pytest.mark.parametrize("dtype", DTYPES)
def test_small_gradients_of_long_rows_are_missed_in_every_dtype(dtype):
    def zero_when_long(g, logits, temp):
        return (soft_gradient(g, logits, temp) * (logits.shape[-1] < 4096)).astype(dtype)

    report = testing.check(implementation(hard, zero_when_long), dtype=dtype)
    failed = {case.name for case in report.cases if case.verdict == "failed"}
    assert failed == {"random/K=4096", "random/K=4096, nearly equal"}


@pytest.mark.parametrize("dtype", NARROW)
def test_sums_in_16_bits_are_rejected(dtype):
    def narrow(g, logits, temp):
        e = np.exp((logits - np.max(logits, axis=-1, keepdims=True)) / logits.dtype.type(temp))
        p = e / np.cumsum(e, axis=-1)[:, -1:]
        return p * (g - np.cumsum(p * g, axis=-1)[:, -1:]) / logits.dtype.type(temp)

    report = testing.check(implementation(hard, narrow), dtype=dtype)
    assert {case.name for case in report.cases if case.verdict == "failed"} >= {"random/K=4096, nearly equal"}


def test_both_passes_have_causes():
    report = testing.check(implementation(last_of_equals, lambda g, w, t: 0 * g))
    assert (
        report.likely_cause
        == "forward: the last of equals is selected; backward: the gradient of the hard mask, which is 0"
    )


def test_strict_rejects_a_textbook():
    report = testing.check(implementation(hard, soft_gradient), profile="strict")
    failed = {case.name for case in report.cases if case.verdict == "failed"}
    assert {"random/constant cotangent", "edge/NaN", "edge/all -inf", "edge/temp=0.0"} <= failed


def test_near_tie_is_accepted_in_standard_only_and_counted():
    close = [case for case in testing.cases("float16") if case.name == "edge/near ties, large temp"]
    by_probs = implementation(hard_by_probs, soft_gradient)
    report = testing.check(by_probs, dtype="float16", cases=close)
    assert report.ok
    assert report.cases[0].near_ties == 2
    assert "within the rounding of the probabilities: 2" in str(report)
    assert not testing.check(by_probs, dtype="float16", profile="strict", cases=close).ok


def test_a_tie_is_no_near_tie():
    ties = [case for case in testing.cases() if case.name == "edge/ties"]
    report = testing.check(implementation(last_of_equals, soft_gradient), cases=ties)
    assert not report.ok
    assert report.cases[0].difference.position == (0, 1)


def test_a_gap_wider_than_rounding_is_no_near_tie():
    def second(logits, temp):
        order = np.argsort(-logits, axis=-1, kind="stable")
        return one_hot(order[:, 1:2] if logits.shape[-1] > 1 else order, logits)

    report = testing.check(implementation(second, soft_gradient))
    assert [case.verdict for case in report.cases if case.name == "digits/1797x10"] == ["failed"]


# ------------------------------------------------------------------------------------------------ the interface


def test_what_textbooks_differ_in_is_shown_not_judged():
    report = testing.check(implementation(hard, soft_gradient))
    shown = {case.name: case.verdict for case in report.cases if case.verdict in ("agrees", "differs")}
    assert shown["edge/NaN"] == "differs"
    assert shown["edge/K=0"] == "agrees"
    assert "edge/temp=nan" in shown
    assert "shown for information, not judged" in str(report)


def test_an_error_where_textbooks_differ_does_not_count():
    def careful(logits, temp):
        if not np.all(np.isfinite(logits) | np.isneginf(logits)):
            raise ValueError("not finite")
        return hard(logits, temp)

    report = testing.check(implementation(careful, soft_gradient))
    assert report.ok
    assert {case.name: case.verdict for case in report.cases}["edge/NaN beside"] == "differs"


def test_keyboard_interrupt_passes():
    def interrupted(logits, temp):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        testing.check(implementation(interrupted, soft_gradient))


def test_warnings_of_the_implementation_are_its_own():
    def noisy(logits, temp):
        np.log(np.zeros(1))
        return hard(logits, temp)

    assert testing.check(implementation(noisy, soft_gradient)).ok


def test_nothing_checked_is_an_error():
    with pytest.raises(ValueError, match="nothing was checked"):
        testing.check(straight_through, cases=[])
    only_nan = [case for case in testing.cases() if case.name == "edge/NaN"]
    with pytest.raises(ValueError, match="nothing was checked"):
        testing.check(straight_through, cases=only_nan)
    assert testing.check(straight_through, cases=only_nan, profile="strict").ok


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (SimpleNamespace(), r"has no function forward\(logits, temp\)"),
        (SimpleNamespace(forward=hard), r"has no function backward\(grad_mask, logits, temp\)"),
        (SimpleNamespace(forward=hard, backward=3), "has no function backward"),
        (implementation(lambda logits: logits, soft_gradient), r"cannot be called as forward\(logits, temp\)"),
        (implementation(hard, hard), r"cannot be called as backward\(grad_mask, logits, temp\)"),
        (implementation(lambda logits, temp, *, key: logits, soft_gradient), "key"),
    ],
)
def test_what_is_no_implementation_is_a_type_error(broken, message):
    with pytest.raises(TypeError, match=message):
        testing.check(broken)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile": "lenient"}, "profile is 'lenient'"),
        ({"dtype": "int32"}, "dtype is 'int32'"),
        ({"dtype": "fp8"}, "dtype is 'fp8'"),
        ({"temp": 0.0}, "temp is 0.0"),
        ({"temp": float("nan")}, "temp is nan"),
        ({"temp": 1e-30, "dtype": "float16"}, "temp is 1e-30, in float16 0.0"),
        ({"temp": 1e30, "dtype": "float16"}, "temp is 1e[+]30, in float16 inf"),
        ({"backend": "tpu"}, "backend is 'tpu'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        testing.check(straight_through, **options)


def test_bfloat16_without_ml_dtypes(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(ModuleNotFoundError, match="pip install ml_dtypes"):
        testing.check(straight_through, dtype="bfloat16")


@pytest.mark.parametrize("dtype", [np.float16, np.dtype("float64"), ml_dtypes.bfloat16, "f4"])
def test_dtypes_as_numpy_has_them(dtype):
    few = testing.cases(dtype)[1:3]
    assert testing.check(straight_through, dtype=dtype, cases=few).dtype == np.dtype(dtype).name


def test_temp_is_rounded_to_the_dtype():
    seen = set()

    def spying(logits, temp):
        seen.add(temp)
        return hard(logits, temp)

    report = testing.check(implementation(spying, soft_gradient), dtype="float16", temp=0.6)
    assert report.temp == 0.60009765625  # the nearest multiple of 2**-11
    assert 0.60009765625 in seen
    assert 0.6 not in seen
    assert all(isinstance(temp, float) for temp in seen)
    assert "temp 0.60009765625 (rounded to float16)" in str(report)


def test_progress():
    calls = []
    report = testing.check(straight_through, progress=lambda *call: calls.append(call))
    assert [done for done, _, _ in calls] == list(range(len(report.cases) + 1))
    assert {total for _, total, _ in calls} == {len(report.cases)}
    assert [name for _, _, name in calls[:-1]] == [case.name for case in report.cases]


def test_cases_are_the_same_every_time():
    for dtype in DTYPES:
        once, again = testing.cases(dtype), testing.cases(dtype)
        assert [str(case) for case in once] == [case.name for case in again]
        assert len({case.name for case in once}) == len(once)
        for a, b in zip(once, again, strict=True):
            assert a.logits.tobytes() == b.logits.tobytes()
            assert a.grad_mask.tobytes() == b.grad_mask.tobytes()
            assert a.logits.dtype.name == a.grad_mask.dtype.name == dtype
        assert {case.group for case in once} == {"digits", "random", "edge"}
        assert {case.logits.shape[-1] for case in once} >= {0, 1, 2, 3, 7, 10, 64, 100, 1000, 1024, 4096}


def test_report_is_frozen():
    report = testing.check(straight_through, cases=testing.cases()[:2])
    with pytest.raises(FrozenInstanceError):
        report.dtype = "float64"
    with pytest.raises(FrozenInstanceError):
        report.cases[0].verdict = "failed"


def test_report_as_json():
    def strict(constant):
        raise AssertionError(constant)

    for tested in (straight_through, implementation(hard, lambda g, w, t: np.nan * g)):
        report = testing.check(tested)
        read = json.loads(report.to_json(), parse_constant=strict)
        assert read["schema"] == "npselect-report/1"
        assert read["ok"] is report.ok
        assert (read["dtype"], read["temp"], read["profile"], read["backend"]) == (
            "float32",
            float(np.float32(0.6)),
            "standard",
            "reference",
        )
        assert set(read["versions"]) == {"npselect", "numpy", "python"}
        assert [case["name"] for case in read["cases"]] == [case.name for case in report.cases]
        for case, outcome in zip(read["cases"], report.cases, strict=True):
            assert float(case["ulp"]) == pytest.approx(outcome.ulp, rel=0, abs=0, nan_ok=True)
            assert (case["difference"] is None) == (outcome.verdict in ("passed", "agrees"))


def test_no_framework_no_numba_is_loaded():
    code = "import sys, npselect.testing; npselect.testing.cases(); print(*sys.modules)"
    command = [sys.executable, "-c", code]
    root = Path(__file__).parents[1]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout.split()
    assert not {"numba", "torch", "jax", "tensorflow", "scipy", "rich", "ml_dtypes"} & set(loaded)


# ------------------------------------------------------------------------------------------------ the bounds


def exact_backward(g, logits, temp):
    """p (g - <p, g>) / temp by mpmath, with twice the digits until nothing changes in float64."""

    def row(w, cotangent):
        w, cotangent = [mpmath.mpf(float(x)) for x in w], [mpmath.mpf(float(x)) for x in cotangent]
        e = [mpmath.exp((x - max(w)) / mpmath.mpf(temp)) for x in w]
        mean = sum(a * b for a, b in zip(e, cotangent, strict=True)) / sum(e)
        return [a / sum(e) * (b - mean) / mpmath.mpf(temp) for a, b in zip(e, cotangent, strict=True)]

    digits, last = 60, None
    while True:
        with mpmath.workdps(digits):
            now = np.array([[float(x) for x in row(*pair)] for pair in zip(logits, g, strict=True)])
        if last is not None and np.array_equal(now, last):
            return now
        digits, last = 2 * digits, now


def adversarial(dtype, seed=1):
    rng = np.random.default_rng(seed)
    w = np.concatenate([spread * rng.standard_normal((12, 6)) for spread in (0.1, 1, 5, 30)])
    g = rng.standard_normal(w.shape)
    g[::3] = 1 + g[::3] / 64
    return g.astype(dtype), w.astype(dtype)


@pytest.mark.parametrize("dtype", [*NARROW, "float32"])
@pytest.mark.parametrize("name", HONEST)
def test_honest_errors_are_within_the_bound_and_wrong_ones_beyond(name, dtype):
    g, w = adversarial(dtype)
    temp = float(np.asarray(0.6, dtype))
    exact = exact_backward(g, w, temp)
    bound = tolerance.backward(g, w, temp, dtype)
    actual = HONEST[name][1](g, w, temp).astype(np.float64)
    assert np.max(np.abs(actual - exact) / bound) < 1
    for mutant in (actual * temp, actual / temp, 0 * actual, -actual, g.astype(np.float64)):
        assert np.max(np.abs(mutant - exact) / bound) > 1


@pytest.mark.parametrize("dtype", [*NARROW, "float32"])
def test_kernel_errors_are_within_the_tight_bound(dtype):
    g, w = adversarial(dtype, seed=2)
    temp = float(np.asarray(0.6, dtype))
    exact = exact_backward(g, w, temp)
    bound = tolerance.backward(g, w, temp, dtype, tolerance.KERNELS)
    assert np.all(bound <= tolerance.backward(g, w, temp, dtype))
    for backend in ("reference", "cpu"):
        actual = straight_through.backward(g, w, temp, backend=backend).astype(np.float64)
        assert np.max(np.abs(actual - exact) / bound) < 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_bound_is_zero_where_nothing_is_rounded(dtype):
    w = np.array([[1, -np.inf, 2], [-np.inf, 5, -np.inf]]).astype(dtype)
    bound = tolerance.backward(np.ones_like(w), w, 1.0, dtype)
    np.testing.assert_array_equal(bound > 0, [[True, False, True], [False, False, False]])


@pytest.mark.parametrize("dtype", DTYPES)
def test_bound_is_finite_for_huge_logits_and_tiny_temperatures(dtype):
    big, small = {"float16": (3e4, 1e-4), "float64": (1e300, 1e-300)}.get(dtype, (1e30, 1e-30))
    w = np.array([[big, 0, -big, big]]).astype(dtype)
    bound = tolerance.backward(np.ones_like(w), w, small, dtype, tolerance.KERNELS)
    assert np.all(np.isfinite(bound))


@pytest.mark.parametrize(
    ("dtype", "value", "unit"),
    [
        ("float32", 1.0, 2.0**-23),
        ("float32", 1.9, 2.0**-23),
        ("float32", 0.0, 2.0**-149),
        ("float64", 2.0, 2.0**-51),
        ("float16", 1.0, 2.0**-10),
        ("float16", 1e-7, 2.0**-24),
        ("bfloat16", -1.0, 2.0**-7),
    ],
)
def test_ulp(dtype, value, unit):
    assert tolerance.ulp(np.array(value), dtype) == unit


@pytest.mark.parametrize("dtype", DTYPES)
def test_format_knows_the_largest_number(dtype):
    assert tolerance.Format.of(dtype).largest == float(ml_dtypes.finfo(dtype).max)
    assert tolerance.Format.of(dtype).tiny == float(ml_dtypes.finfo(dtype).smallest_normal)


# ------------------------------------------------------------------------------------------------ results of no use


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda logits: None, "returns a NoneType; expected an array"),
        (lambda logits: logits.tolist(), "returns a list; expected an array"),
        (lambda logits: (row for row in logits), "returns a generator; expected an array"),
        (lambda logits: np.full(logits.shape, None), "returns a ndarray; expected an array"),
        (lambda logits: np.ma.masked_array(logits, mask=True), "returns a MaskedArray; expected an array"),
        (lambda logits: np.full(logits.shape, "abc"), "returns dtype <U3; expected float32"),
        (lambda logits: np.zeros(logits.shape, "V8"), r"returns dtype |V8; expected float32"),
        (lambda logits: logits.astype(np.complex64), "returns dtype complex64; expected float32"),
    ],
)
def test_results_that_are_no_arrays_of_the_dtype(answer, message):
    for direction in ("forward", "backward"):
        subject = SimpleNamespace(forward=straight_through.forward, backward=straight_through.backward)
        setattr(subject, direction, lambda *arguments: answer(arguments[-2]))
        report = testing.check(subject)
        assert not report.ok
        assert str(report.cases[0].difference) == f"{direction} {message}"
        assert report.likely_cause is None


def test_nothing_but_nan_has_no_likely_cause():
    subject = SimpleNamespace(
        forward=lambda logits, temp: np.full_like(logits, np.nan), backward=straight_through.backward
    )
    report = testing.check(subject)
    assert not report.ok
    assert report.likely_cause is None


def test_a_class_is_no_implementation():
    class Subject:
        def forward(self, logits, temp):
            return straight_through.forward(logits, temp)

        def backward(self, grad_mask, logits, temp):
            return straight_through.backward(grad_mask, logits, temp)

    with pytest.raises(TypeError, match="it is a class, give an instance"):
        testing.check(Subject)
    assert testing.check(Subject()).ok


def test_isclose():
    nan, inf = np.nan, np.inf
    actual = np.array([1.0, 1.5, nan, nan, inf, inf, -inf, 1.0, 1.25])
    exact = np.array([1.0, 1.0, nan, 1.0, inf, -inf, -inf, nan, 1.0])
    expected = [True, False, True, False, True, False, True, False, True]
    assert tolerance.isclose(actual, exact, 0.25).tolist() == expected
    with pytest.raises(ValueError, match=r"actual has shape \(9,\) and exact has shape \(3,\)"):
        tolerance.isclose(actual, exact[:3], 0.25)


def test_what_tolerances_refuse():
    w = [[1.0, 2.0, 3.0]]
    for temp in (-0.6, 0.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=r"temp is .*; it must be positive and finite"):
            tolerance.backward(w, w, temp, "float32")
    with pytest.raises(ValueError, match="dtype is int64; it takes one of float16"):
        tolerance.backward(w, w, 0.6, int)
    with pytest.raises(ValueError, match="the cotangent has shape"):
        tolerance.backward([[1.0, 2.0]], w, 0.6, "float32")
    with pytest.raises(ValueError, match="at least one candidate"):
        tolerance.soft(np.zeros((2, 0)), 0.6, "float32")
    assert tolerance.backward(w, w, 0.6, "float32").shape == (1, 3)
