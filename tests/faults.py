"""Planted mistakes of both passes, with what a report must say of each."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from honest import (
    hard,
    one_hot,
    soft_gradient,
    softmax,
    total,
)

from npselect import testing

f32 = np.float32


class Fault(NamedTuple):
    """`says` is what a case that fails has in its note or in its first difference."""

    forward: Callable
    backward: Callable
    cause: str | None
    says: str


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
