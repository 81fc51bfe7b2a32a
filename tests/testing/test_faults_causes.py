"""Likely causes: each is named in every dtype, and none that leaves a row unexplained."""

from __future__ import annotations

from functools import partial
from itertools import product

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
    soft_gradient,
    softmax,
    total,
    with_options,
)

from npselect import gumbel_softmax, straight_through, testing
from npselect.testing.dtypes import floating_dtype

pytestmark = pytest.mark.usefixtures("small_checks")


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
