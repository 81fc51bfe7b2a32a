"""Planted faults: each is rejected in `standard`, by a case that asks for what it gets wrong, and named if possible."""

from __future__ import annotations

import numpy as np
import pytest
from faults import FAULTS, NO_VALUES, NOT_OF_SUMS, last_of_equals, rejected, selected_only
from honest import (
    DTYPES,
    hard,
    implementation,
    one_hot,
    soft_gradient,
    softmax,
    total,
    with_options,
)

import npselect
from npselect import gumbel_softmax, straight_through, testing

pytestmark = pytest.mark.usefixtures("small_checks")

# ------------------------------------------------------------------------------------------------ of either pass


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_rejected_with_its_cause(name):
    fault = FAULTS[name]
    rejected(implementation(fault.forward, fault.backward), fault.cause, fault.says)


@pytest.mark.parametrize(
    "name", [name for name in FAULTS if name.partition(": ")[2] not in NO_VALUES and name not in NOT_OF_SUMS]
)
def test_fault_is_rejected_with_noise(name):
    fault = FAULTS[name]
    rejected(with_options(fault.forward, fault.backward), fault.cause, fault.says, operator=gumbel_softmax)


# ------------------------------------------------------------------------------------------------ of state and memory


class OneBuffer:
    """Results of one shape share their memory."""

    def __init__(self, shared):
        self.buffers, self.shared = {}, shared

    def keep(self, result, direction):
        if direction not in self.shared:
            return result
        buffer = self.buffers.setdefault((result.shape, result.dtype), np.empty_like(result))
        buffer[...] = result
        return buffer

    def forward(self, logits, temp):
        return self.keep(hard(logits, temp), "forward")

    def backward(self, grad_mask, logits, temp):
        return self.keep(soft_gradient(grad_mask, logits, temp), "backward")


@pytest.mark.parametrize("shared", [{"forward"}, {"backward"}, {"forward", "backward"}])
def test_a_buffer_that_is_used_again_is_found(shared):
    direction = min(shared, key=["forward", "backward"].index)
    says = f"{direction} returns an array that a later call overwrites"
    report = rejected(OneBuffer(shared), None, says)
    if len(shared) == 1:
        assert [case.name for case in report.cases if case.verdict == "failed"] == ["random/called again"]
        found(report, OneBuffer(shared))


class Remembering:
    """backward differentiates at the probabilities of the last call of forward."""

    def forward(self, logits, temp):
        self.probs = softmax(logits, temp)
        return hard(logits, temp)

    def backward(self, grad_mask, logits, temp):
        p = self.probs
        return p * (grad_mask - total(p * grad_mask)) / logits.dtype.type(temp)


class CachedByShape:
    def __init__(self):
        self.masks = {}

    def forward(self, logits, temp):
        key = logits.shape, temp, logits.shape == (16, 6) or logits.tobytes()
        return self.masks.setdefault(key, hard(logits, temp)).copy()

    def backward(self, grad_mask, logits, temp):
        return soft_gradient(grad_mask, logits, temp)


class WornOut:
    """Works a few times."""

    def __init__(self):
        self.calls = {}

    def forward(self, logits, temp):
        return hard(logits, temp)

    def backward(self, grad_mask, logits, temp):
        self.calls[logits.shape] = calls = self.calls.get(logits.shape, 0) + 1
        if logits.shape == (16, 6) and calls > 1:
            raise RuntimeError("the graph was freed")
        return soft_gradient(grad_mask, logits, temp)


@pytest.mark.parametrize("subject", [Remembering, CachedByShape, WornOut])
def test_state_between_calls_is_found(subject):
    report = rejected(subject(), None, "results depend on the arguments alone")
    assert [case.name for case in report.cases if case.verdict == "failed"] == ["random/called again"]
    if subject is not WornOut:
        found(report, subject())


def found(report, subject):
    """Run the line that the report gives, and look whether it shows a difference."""
    (case,) = (case for case in report.cases if case.verdict == "failed")
    printed = []
    exec(case.reproduce, {"npselect": npselect, "implementation": subject, "print": lambda *what: printed.append(what)})
    (what,) = printed
    assert what[0] > 0 if len(what) == 1 else what[0] != what[1]


def test_wrong_for_fortran_order_only_is_found():
    def backward(g, logits, temp):
        if logits.flags.f_contiguous and not logits.flags.c_contiguous:
            logits = logits.ravel("K").reshape(logits.shape)  # as a pointer to the first entry has it
        return soft_gradient(g, logits, temp)

    rejected(implementation(hard, backward), None, "arrays in Fortran order")


def test_wrong_in_the_subclass_of_an_array_is_not_let_through():
    class Agreeable(np.ndarray):
        def __eq__(self, other):
            return np.ones(self.shape, bool)

    rejected(implementation(hard, lambda g, w, t: (0 * g).view(Agreeable)), "the gradient of the hard mask", "")
    honest = implementation(hard, lambda g, w, t: soft_gradient(g, w, t).view(Agreeable))
    assert testing.check(honest).ok


# ------------------------------------------------------------------------------------------------ of the dtypes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("temp", [0.25, 3.0])
def test_missing_temp_is_named_in_every_dtype(dtype, temp):
    def forgotten(g, logits, temp):
        return (soft_gradient(g, logits, temp).astype(np.float64) * temp).astype(logits.dtype)

    report = testing.check(implementation(hard, forgotten), dtypes=dtype, temp=temp)
    assert not report.ok
    assert report.likely_cause == "backward: 1/temp is missing"


@pytest.mark.parametrize("dtype", DTYPES)
def test_small_gradients_of_long_rows_are_missed_in_every_dtype(dtype):
    def zero_when_long(g, logits, temp):
        return (soft_gradient(g, logits, temp) * (logits.shape[-1] < 4096)).astype(dtype)

    report = testing.check(implementation(hard, zero_when_long), dtypes=dtype)
    failed = {case.name for case in report.cases if case.verdict == "failed"}
    long = {"random/K=4096", "random/K=4096, nearly equal", "random/K=131072"}
    long |= set() if dtype == "bfloat16" else {"random/few large"}
    assert failed == (long - {"random/K=131072"} if dtype == "float16" else long)


def test_an_absolute_tolerance_accepts_what_is_rejected_here():
    """No gradient at all for the longest row, within 1e-5 of the right one, as are other mistakes there."""
    (case,) = (case for case in testing.cases() if case.name == "random/K=131072")
    assert case.logits.size == 131072
    right = soft_gradient(case.grad_mask, case.logits, case.temp)
    case.check_backward(right)
    for wrong in (0 * right, right / 2, right * 1.01, selected_only(case.grad_mask, case.logits, case.temp)):
        assert np.allclose(wrong, case.grad_logits, rtol=1.3e-6, atol=1e-5)  # as torch.testing.assert_close has it
        with pytest.raises(AssertionError, match="gradients of 1e-6 are gradients"):
            case.check_backward(wrong)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sums_in_16_bits_are_rejected(dtype):
    def narrow(g, logits, temp):
        e = np.exp((logits - np.max(logits, axis=-1, keepdims=True)) / logits.dtype.type(temp))
        p = e / np.cumsum(e, axis=-1)[:, -1:]
        return p * (g - np.cumsum(p * g, axis=-1)[:, -1:]) / logits.dtype.type(temp)

    for operator in (straight_through, gumbel_softmax):
        report = testing.check(with_options(hard, narrow), dtypes=dtype, operator=operator)
        assert {case.name for case in report.cases if case.verdict == "failed"} >= {"random/K=4096, nearly equal"}


def test_both_passes_have_causes():
    report = testing.check(implementation(last_of_equals, lambda g, w, t: 0 * g))
    assert (
        report.likely_cause
        == "forward: the last of equals is selected; backward: the gradient of the hard mask, which is 0"
    )


# ------------------------------------------------------------------------------------------------ found by a reader


def last_of_equals_in_long_rows(w, temp):
    if w.shape[-1] <= 16:
        return hard(w, temp)
    return one_hot(w.shape[-1] - 1 - np.argmax(w[..., ::-1], axis=-1, keepdims=True), w)


def lowest_lane_of_eight(w, temp):
    if not w.size:
        return hard(w, temp)
    place = np.arange(w.shape[-1])
    order = np.where(w == np.max(w, axis=-1, keepdims=True), place % 8 * 10**6 + place, 10**9)
    return one_hot(np.argmin(order, axis=-1, keepdims=True), w)


@pytest.mark.parametrize("forward", [last_of_equals_in_long_rows, lowest_lane_of_eight])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ties_in_long_rows(forward, dtype):
    report = testing.check(implementation(forward, soft_gradient), dtypes=dtype)
    assert "edge/ties in long rows" in {case.name for case in report.cases if case.verdict == "failed"}


def test_a_choice_in_fewer_bits():
    narrow = implementation(lambda w, t: hard(w.astype(np.float32), t).astype(w.dtype), soft_gradient)
    report = testing.check(narrow, dtypes="float64")
    assert "random/distinct pairs" in {case.name for case in report.cases if case.verdict == "failed"}


def test_a_temperature_that_is_remembered():
    class Remembers:
        def forward(self, logits, temp):
            self.temp = temp
            return hard(logits, temp)

        def backward(self, grad_mask, logits, temp):
            return soft_gradient(grad_mask, logits, self.temp)

    report = testing.check(Remembers())
    assert {case.name for case in report.cases if case.verdict == "failed"} == {"random/called again"}
