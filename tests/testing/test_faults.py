"""Planted faults: each is rejected in `standard`, by a case that asks for what it gets wrong, and named if possible."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
import pytest
from honest import (
    DTYPES,
    as_rows,
    hard,
    hard_by_probs,
    implementation,
    one_hot,
    remembered_cases,
    small_cases,
    soft_gradient,
    softmax,
    total,
    with_options,
)

import npselect
from npselect import gumbel_softmax, straight_through, testing
from npselect.testing.dtypes import floating_dtype

f32 = np.float32


@pytest.fixture(autouse=True)
def _remembered(monkeypatch):
    monkeypatch.setattr(sys.modules["npselect.testing.check"], "all_cases", small_cases)


class Fault(NamedTuple):
    """`says` is what a case that fails has in its note or in its first difference."""

    forward: Callable
    backward: Callable
    cause: str | None
    says: str


# ------------------------------------------------------------------------------------------------ of the backward pass


def mean_forgotten(g, w, temp):
    return softmax(w, temp) * g / f32(temp)


def mask_in_the_mean(g, w, temp):
    return softmax(w, temp) * (g - total(hard(w, temp) * g)) / f32(temp)


def mask_in_front(g, w, temp):
    return hard(w, temp) * (g - total(softmax(w, temp) * g)) / f32(temp)


def selected_only(g, w, temp):
    return hard(w, temp) * soft_gradient(g, w, temp)


def multiplied(g, w, temp):
    p = softmax(w, temp)
    return p * (g - total(p * g)) * f32(temp)


def transposed(g, w, temp):
    p = softmax(w.T, temp).T if w.size else w
    return p * (g - total(p * g, axis=0)) / f32(temp)


def batch_sum(g, w, temp):
    p = softmax(w, temp)
    return p * (g - np.sum(p * g)) / f32(temp)


def batch_softmax(g, w, temp):
    if w.size == 0:
        return w
    e = np.exp((w - np.max(w)) / f32(temp))
    p = e / np.sum(e)
    return p * (g - np.sum(p * g)) / f32(temp)


def gradients_summed(g, w, temp):
    return np.sum(soft_gradient(g, w, temp), axis=0, keepdims=True) + 0 * g


def clamped(g, w, temp, least):
    p = np.maximum(softmax(w, temp), f32(least))
    return p * (g - total(p * g)) / f32(temp)


def with_epsilon(g, w, temp):
    p = softmax(w, temp) + f32(1e-7)
    return p * (g - total(p * g)) / f32(temp)


def unstable(g, w, temp):
    e = np.exp(w / f32(temp))
    p = e / total(e)
    return p * (g - total(p * g)) / f32(temp)


def nan_gradient_at_minus_inf(g, w, temp):
    return soft_gradient(g, w, temp) + 0 * w


def leaking(g, w, temp):
    return np.where(np.isneginf(w), f32(1e-12), soft_gradient(g, w, temp))


def clipped(g, w, temp, most):
    return np.clip(soft_gradient(g, w, temp), f32(-most), f32(most))


def clipped_by_norm(g, w, temp, most):
    gradient = soft_gradient(g, w, temp)
    norm = np.sqrt(total(gradient * gradient))
    return gradient * np.minimum(f32(1), f32(most) / np.maximum(norm, f32(1e-30)))


def dropped(g, w, temp, least):
    gradient = soft_gradient(g, w, temp)
    return np.where(np.abs(gradient) < f32(least), f32(0), gradient)


def swapped(g, w, temp):
    return soft_gradient(w, g, temp)


def zero_at(choices):
    return lambda g, w, temp: soft_gradient(g, w, temp) * f32(w.shape[-1] not in choices)


def last_block_forgotten(g, w, temp):
    """Of what is computed in blocks of 8, the tail is not."""
    whole = w.shape[-1] // 8 * 8
    gradient = soft_gradient(g, w, temp)
    gradient[:, whole:] *= f32(whole < 16)
    return gradient


def in_float16(g, w, temp):
    return soft_gradient(g.astype(np.float16), w.astype(np.float16), temp).astype(w.dtype)


def sums_in_float16(g, w, temp):
    p = softmax(w, temp)
    return p * (g - np.sum((p * g).astype(np.float16), axis=-1, keepdims=True).astype(w.dtype)) / f32(temp)


def temp_forgotten(g, w, temp):
    p = softmax(w, temp)
    return p * (g - total(p * g))


def exponents_clipped(g, w, temp):
    """Instead of subtracting the maximum."""
    e = np.exp(np.clip(w / f32(temp), f32(-80), f32(80)))
    p = e / total(e)
    return p * (g - total(p * g)) / f32(temp)


def of_log_probs(g, w, temp):
    return soft_gradient(g, np.log(softmax(w, temp) + f32(1e-20)), 1.0) / f32(temp)


def products_in_tf32(g, w, temp):
    def rounded(x):
        return (np.ascontiguousarray(x).view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)

    p = softmax(w, temp)
    return p * (g - total(rounded(p) * rounded(g))) / f32(temp)


def rows_forgotten(g, w, temp):
    gradient = soft_gradient(g, w, temp)
    gradient[1024:] = 0
    return gradient


def last_row_from_the_row_before(g, w, temp):
    gradient = soft_gradient(g, w, temp)
    if len(w) > 1:
        gradient[-1] = gradient[-2]
    return gradient


def one_entry_off(g, w, temp):
    gradient = soft_gradient(g, w, temp)
    if w.shape[-1] > 1e5:
        gradient[0, 77777] = 1e9
    return gradient


def raising_when_long(g, w, temp):
    if w.shape[-1] > 1e5:
        raise MemoryError("too many choices")
    return soft_gradient(g, w, temp)


def writes_to_grad_mask(g, w, temp):
    p = softmax(w, temp)
    g -= total(p * g)
    return p * g / f32(temp)


BACKWARD = {  # name: (function, likely cause or None, what a case says)
    "1/temp missing": (temp_forgotten, "1/temp is missing", "the gradient by it once"),
    "divided twice": (
        lambda g, w, t: soft_gradient(g, w, t) / f32(t),
        "divided by temp twice",
        "the gradient by it once",
    ),
    "multiplied": (multiplied, "multiplied by temp", "the gradient by it once"),
    "temp ignored": (lambda g, w, t: soft_gradient(g, w, 1.0), "temp is ignored", "logits are divided by temp"),
    "temp in front only": (
        lambda g, w, t: soft_gradient(g, w, 1.0) / f32(t),
        "the softmax is taken of logits",
        "logits are divided by temp",
    ),
    "temp in the softmax inverted": (
        lambda g, w, t: soft_gradient(g, w, 1 / t) / f32(t * t),
        "the softmax is taken of logits * temp",
        "logits are divided by temp",
    ),
    "temp is always 0.6": (lambda g, w, t: soft_gradient(g, w, 0.6), None, "logits are divided by temp"),
    "sign": (lambda g, w, t: -soft_gradient(g, w, t), "the sign is flipped", "the whole Jacobian"),
    "gradient of the hard mask": (lambda g, w, t: 0 * g, "the gradient of the hard mask", "the whole Jacobian"),
    "identity": (lambda g, w, t: g, "passed straight through", "the whole Jacobian"),
    "no mean": (mean_forgotten, "without the mean", "what the differences of grad_mask leave"),
    "mask in the mean": (mask_in_the_mean, "mask instead of probs", "the whole Jacobian"),
    "mask in front": (mask_in_front, "mask instead of probs", "what is not selected has a gradient"),
    "selected only": (
        selected_only,
        "no gradient to the candidates that were not",
        "what is not selected has a gradient",
    ),
    "wrong axis": (transposed, "wrong axis", "the wrong axis has the right length"),
    "sum over the batch": (batch_sum, "sum over the batch", "every row by itself"),
    "gradients summed": (gradients_summed, "sum over the batch", "every row by itself"),
    "mean over the batch": (
        lambda g, w, t: soft_gradient(g, w, t) / f32(max(1, len(w))),
        "mean over the batch",
        "every row by itself",
    ),
    "mean over the choices": (
        lambda g, w, t: soft_gradient(g, w, t) / f32(w.shape[-1]),
        "mean over the choices",
        "long rows",
    ),
    "softmax of the batch": (batch_softmax, "the softmax runs over the whole batch", "every row by itself"),
    "probs clamped at 1e-6": (partial(clamped, least=1e-6), "below 1e-06", "small probabilities are probabilities"),
    "probs clamped at 1e-8": (partial(clamped, least=1e-8), "below 1e-08", "small probabilities are probabilities"),
    "probs clamped at 1e-12": (partial(clamped, least=1e-12), None, "small probabilities are probabilities"),
    "epsilon added to probs": (with_epsilon, None, "small probabilities are probabilities"),
    "exp overflows": (unstable, None, "logits far from 0"),
    "NaN at -inf": (nan_gradient_at_minus_inf, "-inf gives NaN", "never selected; the gradient there is exactly 0"),
    "leak at -inf": (leaking, None, "is 1e-12; expected 0.0"),
    "clipped at 1": (partial(clipped, most=1.0), "the gradient is clipped at 1", "nothing is clipped"),
    "clipped at 10": (partial(clipped, most=10.0), "the gradient is clipped at 10", "nothing is clipped"),
    "clipped at 1000": (partial(clipped, most=1e3), None, "nothing is clipped"),
    "norm clipped at 100": (partial(clipped_by_norm, most=1e2), None, "nothing is clipped"),
    "dropped below 1e-8": (partial(dropped, least=1e-8), None, "nothing is clipped or dropped"),
    "dropped below 1e-15": (partial(dropped, least=1e-15), None, "nothing is clipped or dropped"),
    "arguments swapped": (swapped, "grad_mask and logits are swapped", "the whole Jacobian"),
    "zero for K=3": (zero_at([3]), None, "few choices"),
    "zero for K=131072": (zero_at([131072]), None, "gradients of 1e-6 are gradients"),
    "zero for long rows": (zero_at(range(4096, 10**6)), None, "small gradients are gradients"),
    "last block forgotten": (last_block_forgotten, None, "just beyond that of a block"),
    "computed in float16": (in_float16, None, "the logistic function"),
    "mean summed in float16": (sums_in_float16, None, "the logistic function"),
    "exponents clipped": (exponents_clipped, None, "logits far from 0"),
    "of log(probs + 1e-20)": (of_log_probs, None, "small probabilities are probabilities"),
    "products in TF32": (products_in_tf32, None, "the logistic function"),
    "temp + 1e-6": (lambda g, w, t: soft_gradient(g, w, t + 1e-6), None, "logits are divided by temp"),
    "rows after 1024 forgotten": (rows_forgotten, None, "held-out logits of handwritten digits"),
    "last row from the row before": (last_row_from_the_row_before, None, "every row by itself"),
    "one entry of 131072": (one_entry_off, None, "backward[0, 77777] is 1"),
    "NaN everywhere": (lambda g, w, t: np.nan * g, None, "is nan; expected"),
    "infinite": (lambda g, w, t: np.inf + 0 * g, None, "is inf; expected"),
    "raises": (lambda g, w, t: 1 // 0, None, "raises ZeroDivisionError"),
    "raises for long rows": (raising_when_long, None, "raises MemoryError: too many choices"),
    "shape": (lambda g, w, t: soft_gradient(g, w, t)[:, :1], None, "returns shape"),
    "a number": (lambda g, w, t: f32(1), None, "returns shape (); expected"),
    "float64": (lambda g, w, t: soft_gradient(g, w, t).astype(float), None, "dtype float64; expected float32"),
    "float16": (lambda g, w, t: soft_gradient(g, w, t).astype(np.float16), None, "dtype float16; expected float32"),
    "a matrix": (lambda g, w, t: np.asmatrix(soft_gradient(g, w, t)), None, "returns a matrix; expected an array"),
    "writes": (writes_to_grad_mask, None, "writes to its argument grad_mask"),
}


# ------------------------------------------------------------------------------------------------ of the forward pass


def last_of_equals(w, temp):
    return one_hot(w.shape[-1] - 1 - np.argmax(w[:, ::-1], axis=-1, keepdims=True), w)


def all_of_equals(w, temp):
    return (w == np.max(w, axis=-1, keepdims=True)).astype(w.dtype)


def shared_among_equals(w, temp):
    return all_of_equals(w, temp) / total(all_of_equals(w, temp))


def zeros_told_apart(w, temp):
    """+0 before -0."""
    return one_hot(np.argmax(np.where(w == 0, np.copysign(f32(1e-30), w), w), axis=-1, keepdims=True), w)


def nan_at_minus_inf(w, temp):
    return hard(w, temp) * (1 + 0 * w)


def of_the_batch(w, temp):
    return one_hot(np.argmax(w), w.reshape(1, -1)).reshape(w.shape) if w.size else w


def inexact(w, temp):
    return hard(w, temp) * (1 - f32(2**-24))


def sigmoid_threshold(w, temp):
    return (softmax(w, temp) > 0.5).astype(w.dtype)


def second(w, temp):
    order = np.argsort(-w, axis=-1, kind="stable")
    return one_hot(order[:, 1:2] if w.shape[-1] > 1 else order, w)


def rounded_logits(w, temp):
    return hard(w.astype(np.float16), temp).astype(w.dtype)


def second_where_it_may(w, temp):
    """The second best wherever the rounding of probabilities might have it so."""
    best = hard(w, temp)
    if w.shape[-1] == 1 or not w.size:
        return best
    rest = np.where(best == 1, -np.inf, w)
    gap = (np.max(w, axis=-1, keepdims=True) - np.max(rest, axis=-1, keepdims=True)) / temp
    return np.where((gap > 0) & (gap < 16 * 2**-24), hard(rest.astype(w.dtype), temp), best)


def with_jitter(w, temp):
    return hard(w + f32(1e-6) * np.random.default_rng(0).standard_normal(w.shape, f32), temp)


def index_of_16_bits(w, temp):
    return one_hot(np.argmax(w, axis=-1, keepdims=True).astype(np.int16), w)


def writes_to_logits(w, temp):
    w /= f32(temp)
    return hard(w, temp)


FORWARD = {
    "last of equals": (last_of_equals, "the last of equals", "the lowest index among equals"),
    "all of equals": (all_of_equals, "all of equals", "the lowest index among equals"),
    "shared among equals": (shared_among_equals, None, "the lowest index among equals"),
    "+0 before -0": (zeros_told_apart, "+0 is taken for larger than -0", "-0 equals +0"),
    "smallest": (lambda w, t: hard(-w, t), "the smallest", "never selected"),
    "second": (second, None, "expected 1.0"),
    "wrong axis": (
        lambda w, t: hard(w.T, t).T if w.size else w,
        "wrong axis",
        "the wrong axis has the right length",
    ),
    "of the batch": (of_the_batch, "the choice runs over the whole batch", "every row by itself"),
    "always the first": (lambda w, t: one_hot(np.zeros((len(w), 1)), w), "always the first", "is 1.0; expected 0.0"),
    "none": (lambda w, t: 0 * w, None, "is 0.0; expected 1.0"),
    "soft": (softmax, "probs instead of the mask", "expected 1.0"),
    "above one half": (sigmoid_threshold, None, "long rows"),
    "almost 1": (inexact, None, "is 0.99999994; expected 1.0"),
    "minus zeros": (lambda w, t: np.where(hard(w, t) == 0, f32(-0.0), f32(1)), None, "is -0.0; expected 0.0"),
    "NaN at -inf": (nan_at_minus_inf, "-inf gives NaN", "never selected"),
    "with jitter": (with_jitter, None, "the lowest index among equals"),
    "index of 16 bits": (index_of_16_bits, "the index is carried as int16", "forward[0, 108657] is 0.0; expected 1.0"),
    "of float16": (rounded_logits, None, "is 1.0; expected 0.0"),
    "bool": (lambda w, t: hard(w, t).astype(bool), None, "returns dtype bool; expected float32"),
    "index": (lambda w, t: np.argmax(w, axis=-1) if w.size else w, None, "returns shape"),
    "nothing": (lambda w, t: None, None, "returns a NoneType"),
    "exits": (lambda w, t: sys.exit("enough"), None, "raises SystemExit: enough"),
    "writes": (writes_to_logits, None, "writes to its argument logits"),
}

NO_VALUES = {"shape", "a number", "a matrix", "nothing", "index", "writes"}  # what takes rows alone fails otherwise
NOT_OF_SUMS = {"backward: arguments swapped", "forward: +0 before -0"}
FAULTS = {f"backward: {name}": Fault(hard, *fault) for name, fault in BACKWARD.items()}
FAULTS |= {f"forward: {name}": Fault(fault[0], soft_gradient, *fault[1:]) for name, fault in FORWARD.items()}


def rejected(subject, cause, says, **options):
    """The report, if it is as a fault's must be."""
    report = testing.check(subject, **options)
    assert not report.ok, str(report)
    failed = [case for case in report.cases if case.verdict == "failed"]
    assert any(says in f"{case.note}: {case.difference}" for case in failed), str(report)
    assert report.summary[-1].startswith(f"FAILED: {len(failed)} of ")
    if cause is None:
        assert report.likely_cause is None
    else:
        assert cause in str(report.likely_cause)
        assert f"likely cause: {report.likely_cause}" in str(report)
    return report


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


# ------------------------------------------------------------------------------------------------ of options


def options_mistaken(change):
    """An honest implementation of other options: of those that `change` returns, given the logits and the options."""
    honest = with_options(hard, soft_gradient)

    def forward(logits, temp, *, axis=-1, where=None):
        return honest.forward(logits, temp, **change(logits, axis=axis, where=where))

    def backward(g, logits, temp, *, axis=-1, where=None):
        return honest.backward(g, logits, temp, **change(logits, axis=axis, where=where))

    return implementation(forward, backward)


def in_the_forward_pass_only(change):
    return implementation(options_mistaken(change).forward, options_mistaken(lambda w, **given: given).backward)


def in_the_backward_pass_only(change):
    return implementation(options_mistaken(lambda w, **given: given).forward, options_mistaken(change).backward)


def masked_afterwards(g, logits, temp, *, axis=-1, where=None):
    """What is no candidate still counts in the softmax."""
    gradient = with_options(hard, soft_gradient).backward(g, logits, temp, axis=axis)
    return gradient if where is None else gradient * where


def masked_by_a_number(g, logits, temp, *, axis=-1, where=None):
    """What is no candidate has a logit of 1 less than the smallest."""
    if where is not None and logits.size:
        logits = np.where(where, logits, np.min(logits) - 1)
    return with_options(hard, soft_gradient).backward(g, logits, temp, axis=axis)


def masked_by_zero(logits, temp, *, axis=-1, where=None):
    chosen_from = logits if where is None else logits * where
    return with_options(hard, soft_gradient).forward(chosen_from, temp, axis=axis)


def broadcast_to_rows(w, axis, where):
    """A mask of the last axis, wherever the candidates are."""
    return {"axis": axis, "where": None if where is None else np.broadcast_to(where, w.shape)[..., :1]}


def without(option):
    return lambda w, **given: {**given, option: {"axis": -1, "where": None}[option]}


def inverted(w, axis, where):
    return {"axis": axis, "where": None if where is None else ~where}


def counted_from_the_start(w, axis, where):
    """-2 as 2."""
    return {"axis": axis if axis == -1 else abs(axis), "where": where}


def laid_out(as_rows):
    """Honest on rows that `as_rows` makes of an array, given the axis: with the way back."""

    def forward(logits, temp, *, axis=-1):
        rows, back = as_rows(logits, axis)
        return back(hard(rows, temp))

    def backward(g, logits, temp, *, axis=-1):
        rows, back = as_rows(logits, axis)
        return back(soft_gradient(as_rows(g, axis)[0], rows, temp))

    return implementation(forward, backward)


def back_as_it_came(array, axis):
    """Transposed by the same permutation, which is its own inverse for any axis but the first of three."""
    order = [i for i in range(array.ndim) if i != axis % array.ndim] + [axis % array.ndim]
    moved = array.transpose(order)
    return moved.reshape(-1, moved.shape[-1]), lambda result: result.reshape(moved.shape).transpose(order)


def flattened_unmoved(array, axis):
    return array.reshape(-1, array.shape[axis]), lambda result: result.reshape(array.shape)


def an_item_a_row(array, axis):
    """All of an item's entries as one row."""
    moved = np.moveaxis(array, axis, -1)
    rows = moved.reshape(len(moved), -1) if array.ndim == 3 and axis == 2 else moved.reshape(-1, moved.shape[-1])
    return rows, lambda result: np.moveaxis(result.reshape(moved.shape), -1, axis)


def a_row_at_least(array, axis):
    array = np.atleast_2d(array)
    rows = np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])
    return rows, lambda result: np.moveaxis(result.reshape(np.moveaxis(array, axis, -1).shape), -1, axis)


honest_with_options = with_options(hard, soft_gradient)
OPTIONS = {
    "axis ignored": (options_mistaken(without("axis")), "axis= is ignored", "the candidates along the first axis"),
    "axis ignored, backward": (
        in_the_backward_pass_only(without("axis")),
        "backward: axis= is ignored",
        "the candidates along a middle axis",
    ),
    "axis -2 as 2": (options_mistaken(counted_from_the_start), None, "a negative axis counts from the end"),
    "axis: transposed back as it came": (laid_out(back_as_it_came), None, "the first of three axes"),
    "axis: flattened, not moved": (laid_out(flattened_unmoved), None, "the candidates along a middle axis"),
    "axis: an item is a row": (laid_out(an_item_a_row), None, "the last of three axes"),
    "axis: a row at least": (laid_out(a_row_at_least), None, "one axis, and nothing beside it"),
    "where ignored": (
        options_mistaken(without("where")),
        "where= is ignored",
        "what is no candidate is never selected",
    ),
    "where ignored, forward": (
        in_the_forward_pass_only(without("where")),
        "forward: where= is ignored",
        "what is no candidate is never selected",
    ),
    "where ignored, backward": (
        in_the_backward_pass_only(without("where")),
        "backward: where= is ignored",
        "its gradient is exactly 0",
    ),
    "where as what is excluded": (
        options_mistaken(inverted),
        "where= is taken for what is excluded",
        "what is no candidate is never selected",
    ),
    "where after the softmax": (
        implementation(honest_with_options.forward, masked_afterwards),
        None,
        "what is no candidate is never selected",
    ),
    "where by a number": (
        implementation(honest_with_options.forward, masked_by_a_number),
        None,
        "its gradient is exactly 0",
    ),
    "where by zero": (
        implementation(masked_by_zero, honest_with_options.backward),
        None,
        "what is no candidate is never selected",
    ),
    "where of the first entry": (options_mistaken(broadcast_to_rows), None, "where= and axis= together"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_fault_with_options_is_rejected(name):
    subject, cause, says = OPTIONS[name]
    report = rejected(subject, cause, says)
    groups = {case.group for case in report.cases if case.verdict == "failed"}
    assert groups <= {"axis", "where"}
    assert report.options == (("axis",) if name.startswith("axis:") else ("axis", "where"))


# ------------------------------------------------------------------------------------------------ of noise


def noise_mistaken(forward=None, backward=None):
    """An honest implementation of other noise: of what `forward` and `backward` make of noise and temp."""
    honest = with_options(hard, soft_gradient)
    forward, backward = (change or (lambda noise, temp: noise) for change in (forward, backward))
    return implementation(
        lambda w, temp, *, noise: honest.forward(w, temp, noise=forward(noise, f32(temp))),
        lambda g, w, temp, *, noise: honest.backward(g, w, temp, noise=backward(noise, f32(temp))),
    )


def swapped_with_noise(g, logits, temp, *, noise):
    return soft_gradient(logits, g + noise, temp)


def own_noise(noise, temp):
    return np.random.default_rng(1).gumbel(size=noise.shape).astype(noise.dtype)


def noise_clipped(noise, temp):
    return np.clip(noise, f32(-1), f32(1))


NOISE_MISTAKES = {
    "missing": (lambda noise, temp: 0 * noise, "noise is missing"),
    "of the first row": (lambda noise, temp: noise[:1] + 0 * noise, "the first row's noise is used in all rows"),
    "subtracted": (lambda noise, temp: -noise, "noise is subtracted"),
    "after the division": (lambda noise, temp: noise * temp, "noise is added after the division by temp"),
    "divided twice": (lambda noise, temp: noise / temp, "noise is divided by temp twice"),
    "of its own": (own_noise, None),
    "of the next row": (lambda noise, temp: np.roll(noise, 1, axis=0), None),
    "clipped": (noise_clipped, None),
    "doubled": (lambda noise, temp: 2 * noise, None),
}


@pytest.mark.parametrize("name", NOISE_MISTAKES)
def test_wrong_noise_is_rejected_in_either_pass(name):
    change, cause = NOISE_MISTAKES[name]
    for passes in ({"forward"}, {"backward"}, {"forward", "backward"}):
        subject = noise_mistaken(**dict.fromkeys(passes, change))
        report = rejected(subject, cause, "every row by itself", operator=gumbel_softmax)
        assert report.options == ("noise",)
        for direction in ("forward", "backward"):
            named = f"{cause} in the {direction} pass" in str(report.likely_cause)
            assert named == (direction in passes and cause is not None)


def test_swapped_arguments_are_named_with_noise():
    subject = implementation(noise_mistaken().forward, swapped_with_noise)
    rejected(subject, "grad_mask and logits are swapped", "the whole Jacobian", operator=gumbel_softmax)


@pytest.mark.parametrize("name", ["logits", "noise", "grad_mask"])
def test_writing_to_any_argument_is_rejected(name):
    def backward(grad_mask, logits, temp, *, noise):
        result = noise_mistaken().backward(grad_mask, logits, temp, noise=noise)
        {"logits": logits, "noise": noise, "grad_mask": grad_mask}[name][...] += 1
        return result

    subject = implementation(noise_mistaken().forward, backward)
    rejected(subject, None, f"backward writes to its argument {name}", operator=gumbel_softmax)


def test_writing_to_where_is_rejected():
    def forward(logits, temp, *, where=None):
        mask = honest_with_options.forward(logits, temp, where=where)
        if where is not None:
            where[...] = True
        return mask

    rejected(implementation(forward, honest_with_options.backward), None, "writes to its argument where")


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


# ------------------------------------------------------------------------------------------------ causes in all dtypes


def in_dtype(value, like):
    return like.dtype.type(value)


def hard_plus_probs_minus_probs(w, temp):
    p = softmax(w, temp)
    return (hard(w, temp) + p) - p


def one_maximum(w, temp, axis=None):
    """Of the whole batch: of what is left, rows far below lose their digits, or all."""
    e = np.exp((w - np.max(w, axis=axis, initial=-np.inf)) / in_dtype(temp, w)) if w.size else w
    return e / total(e)


def several(w, temp, k):
    order = np.argsort(np.argsort(-w.astype(np.float64), axis=-1, kind="stable"), axis=-1, kind="stable")
    return (order < k).astype(w.dtype)


def one_of_equals(w, temp):
    """One in each row, by a number that has nothing to do with its place."""
    equals = w == np.max(w, axis=-1, keepdims=True)
    numbers = np.random.default_rng(7).permutation(w.shape[-1])
    return one_hot(np.argmax(np.where(equals, numbers, -1), axis=-1, keepdims=True), w)


def carried(w, temp, dtype):
    return one_hot(np.argmax(w, axis=-1, keepdims=True).astype(dtype), w)


def carried_and_counted_from_the_end(w, temp, dtype):
    mask = np.zeros_like(w)
    np.put_along_axis(mask, np.argmax(w, axis=-1, keepdims=True).astype(dtype).astype(int), 1, axis=-1)
    return mask


def compared_in(w, temp, dtype):
    index = np.argmax(w, axis=-1, keepdims=True).astype(dtype)
    return (np.arange(w.shape[-1]).astype(dtype) == index).astype(w.dtype)


def weighted(p, g, temp):
    return p * (g - total(p * g)) / in_dtype(temp, g)


def mixed(g, w, temp, share):
    """With the uniform distribution over all choices."""
    p = softmax(w, temp).astype(np.float64)
    return weighted(((1 - share) * p + share / w.shape[-1]).astype(w.dtype), g, temp)


def mixed_over_candidates(g, w, temp, share):
    p, count = softmax(w, temp).astype(np.float64), np.sum(w > -np.inf, axis=-1, keepdims=True)
    return weighted(np.where(w > -np.inf, (1 - share) * p + share / count, 0).astype(w.dtype), g, temp)


def through_a_mixture(g, w, temp, share):
    """As a framework differentiates it."""
    return ((1 - share) * soft_gradient(g, w, temp).astype(np.float64)).astype(g.dtype)


def selected_cotangent_only(g, w, temp):
    return weighted(softmax(w, temp), np.where(hard(w, temp) == 1, g, in_dtype(0, g)), temp)


def to_the_selected_alone(g, w, temp):
    return np.where(hard(w, temp) == 1, g, in_dtype(0, g))


def of_log_softmax(g, w, temp):
    g = np.where(w > -np.inf, g, in_dtype(0, g))
    return np.where(w > -np.inf, (g - softmax(w, temp) * total(g)) / in_dtype(temp, g), in_dtype(0, g))


def log_softmax(w, temp):
    t = (w - np.max(w, axis=-1, keepdims=True)) / in_dtype(temp, w)
    return t - np.log(total(np.exp(t)))


def log_probs_as_probs(g, w, temp):
    return weighted(log_softmax(w, temp), g, temp)


def of_the_largest(g, w, temp, k):
    least = np.sort(w, axis=-1)[:, -k:][:, :1]
    return soft_gradient(g, np.where(w < least, in_dtype(-np.inf, w), w), temp)


ONE_MAXIMUM = "one maximum is subtracted in the whole batch"
CAUSES_FORWARD = {
    "(hard + p) - p": (hard_plus_probs_minus_probs, "the mask is built as (hard + probs) - probs, which rounds"),
    "one maximum": (partial(hard_by_probs, probs=one_maximum), ONE_MAXIMUM),
    "top 2": (partial(several, k=2), "the 2 largest are selected, not the largest"),
    "top 50": (partial(several, k=50), "the 50 largest are selected, not the largest"),
    "one of equals": (one_of_equals, "any of equals is selected, not the first"),
    "log-probabilities": (log_softmax, "log-probabilities instead of the mask"),
    "int8": (partial(carried, dtype=np.int8), "the index is carried as int8"),
    "uint8": (partial(carried, dtype=np.uint8), "the index is carried as uint8"),
    "int16": (partial(carried, dtype=np.int16), "the index is carried as int16"),
    "uint16": (partial(carried, dtype=np.uint16), "the index is carried as uint16"),
    "int8, from the end": (partial(carried_and_counted_from_the_end, dtype=np.int8), "the index is carried as int8"),
    "int8, compared": (partial(compared_in, dtype=np.int8), "the index is carried as int8"),
    "float16, compared": (partial(compared_in, dtype=np.float16), "the index is carried as float16"),
}
CAUSES_BACKWARD = {
    "one maximum": (partial(soft_gradient, probs=one_maximum), ONE_MAXIMUM),
    "one maximum, guarded": (
        partial(soft_gradient, probs=lambda w, t: np.nan_to_num(one_maximum(w, t))),
        ONE_MAXIMUM,
    ),
    "selected cotangent": (selected_cotangent_only, "grad_mask counts at the selected entry only"),
    "to the selected": (to_the_selected_alone, "grad_mask is passed straight through to the selected entry only"),
    "to the selected, over temp": (
        lambda g, w, t: to_the_selected_alone(g, w, t) / in_dtype(t, g),
        "grad_mask is passed straight through to the selected entry only",
    ),
    "of log_softmax": (of_log_softmax, "log-probabilities instead of probabilities"),
    "log-probabilities": (log_probs_as_probs, "log-probabilities instead of probabilities"),
    "mixed, 0.05": (partial(mixed, share=0.05), "probs are mixed with the uniform distribution, to 0.05"),
    "mixed over candidates": (
        partial(mixed_over_candidates, share=0.01),
        "probs are mixed with the uniform distribution, to 0.01",
    ),
    "through a mixture": (
        partial(through_a_mixture, share=0.1),
        "probs are mixed with the uniform distribution, to 0.1",
    ),
    "of the largest": (partial(of_the_largest, k=3), "the softmax is taken of the 3 largest alone"),
}
PLANTED = {
    f"forward: {name}": (hard_cause[0], soft_gradient, hard_cause[1]) for name, hard_cause in CAUSES_FORWARD.items()
}
PLANTED |= {f"backward: {name}": (hard, *soft_cause) for name, soft_cause in CAUSES_BACKWARD.items()}


NOT_SHOWN = {  # where the other rounding errors are as large
    ("backward: through a mixture", "bfloat16"),
    ("backward: log-probabilities", "float16"),
    ("backward: log-probabilities", "bfloat16"),
    ("forward: int16", "float16"),  # of which no case is long enough
    ("forward: uint16", "float16"),
    ("forward: float16, compared", "float16"),
}


def telling(name, dtype, operator):
    """The smaller cases; of the long ones, those that an index in 8 or 16 bits is wrong in."""
    most, least = 2**13 if "int8" in name else 2**11, 2**15 if "16" in name else 2**30
    cases = remembered_cases(floating_dtype(dtype), 0.6, operator)
    return [case for case in cases if case.logits.size <= most or case.w.shape[-1] > least]


def cause_named(name, dtype, operator):
    forward, backward, cause = PLANTED[name]
    cases = telling(name, dtype, operator)
    report = testing.check(with_options(forward, backward), dtypes=dtype, operator=operator, cases=cases)
    assert report.likely_cause == f"{name.partition(':')[0]}: {cause}"


@pytest.mark.parametrize(("name", "dtype"), [pair for pair in product(PLANTED, DTYPES) if pair not in NOT_SHOWN])
def test_a_cause_is_named_in_every_dtype(name, dtype):
    cause_named(name, dtype, straight_through)


@pytest.mark.parametrize("name", PLANTED)
def test_a_cause_is_named_with_noise(name):
    cause_named(name, "float32", gumbel_softmax)


@pytest.mark.parametrize("name", PLANTED)
def test_a_cause_that_leaves_a_row_unexplained_is_not_named(name):
    """One row of each batch of one shape is wrong in a way of its own."""

    def another(result, w):
        if w.shape == (64, 10):
            result[5, 0] = 7
        return result

    forward, backward, _ = PLANTED[name]
    if name.startswith("forward"):
        subject = with_options(lambda w, t: another(forward(w, t), w), backward)
    else:
        subject = with_options(forward, lambda g, w, t: another(backward(g, w, t), w))
    report = testing.check(subject, cases=telling(name, "float32", straight_through))
    assert not report.ok
    assert report.likely_cause is None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("through", [False, True])
def test_a_mixture_before_noise_is_named(through, dtype):
    """Probabilities are mixed, their logarithms are the logits; ``through``: and that is differentiated too."""

    def uniform(w):
        candidates = w > -np.inf
        return np.where(candidates, 1 / np.sum(candidates, axis=-1, keepdims=True), 0)

    def chosen_from(w, noise, share=0.05):
        return np.log((1 - share) * softmax(w, 1.0) + share * uniform(w)) + noise

    def in_rows(function):
        def call(*arrays, axis=-1, where=None, noise):
            *arrays, w, temp = arrays
            out = w if where is None else np.where(where, w, w.dtype.type(-np.inf))
            back = as_rows(out, axis)[1]
            rows = [as_rows(array, axis)[0].astype(np.float64) for array in (*arrays, out, noise)]
            return back(function(*rows, temp).astype(w.dtype))

        return call

    @in_rows
    def forward(w, noise, temp):
        return hard(chosen_from(w, noise), temp)

    @in_rows
    def backward(g, w, noise, temp):
        arrived = soft_gradient(g, chosen_from(w, noise), temp)
        if not through:
            return arrived
        p = softmax(w, 1.0)
        mixed = np.where(w > -np.inf, 0.95 * p + 0.05 * uniform(w), 1)
        return 0.95 * weighted(p, np.where(w > -np.inf, arrived / mixed, 0), 1.0)

    def taken(w, temp, *, axis=-1, where=None, noise):
        return forward(w, temp, axis=axis, where=where, noise=noise)

    def taken_back(g, w, temp, *, axis=-1, where=None, noise):
        return backward(g, w, temp, axis=axis, where=where, noise=noise)

    cases = telling("", dtype, gumbel_softmax)
    report = testing.check(implementation(taken, taken_back), dtypes=dtype, operator=gumbel_softmax, cases=cases)
    mixture = "probs are mixed with the uniform distribution, to 0.05, before noise is added"
    passes = str(report.likely_cause).split("; ")
    assert passes[0] == f"forward: {mixture} in the forward pass"
    assert passes[1] == f"backward: {mixture}" + " in the backward pass" * (not through)


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
