"""Honest implementations over rows, (rows, K), as textbooks and frameworks have them; and how to give one its options.

Every operation is in the dtype of logits; temp is converted, because bfloat16 is widened by a Python float. Sums of
16-bit numbers are accumulated in 32 bits, of others in their own.
"""

from __future__ import annotations

import functools
import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.special

from npselect.testing.cases import all_cases

DTYPES = ["float16", "bfloat16", "float32", "float64"]
IN_FRAMEWORKS = [  # JAX compiles each operation for each shape and dtype
    *((framework, dtype) for framework in ("torch", "tensorflow") for dtype in DTYPES),
    *(pytest.param("jax", dtype, marks=pytest.mark.slow) for dtype in ("bfloat16", "float32")),
]
remembered_cases = functools.cache(all_cases)  # with their answers, which would take most of the time of the tests


def small_cases(*arguments, **options):
    """Those without many rows and long ones, for whatever is found without them."""
    return [case for case in remembered_cases(*arguments, **options) if case.origin is None]


def implementation(forward, backward, **attributes):
    return SimpleNamespace(forward=forward, backward=backward, **attributes)


def with_options(forward, backward, **attributes):
    """What works on rows, with axis=, where= and noise=."""

    def chosen_from(logits, where, noise):
        w = logits if noise is None else logits + noise
        return w if where is None else np.where(where, w, w.dtype.type(-np.inf))

    def full_forward(logits, temp, *, axis=-1, where=None, noise=None):
        rows, back = as_rows(chosen_from(logits, where, noise), axis)
        return back(forward(rows, temp))

    def full_backward(grad_mask, logits, temp, *, axis=-1, where=None, noise=None):
        rows, back = as_rows(chosen_from(logits, where, noise), axis)
        return back(backward(as_rows(grad_mask, axis)[0], rows, temp))

    return implementation(full_forward, full_backward, **attributes)


def as_rows(array, axis):
    """An array as (rows, K), and the way back."""
    moved = np.moveaxis(array, axis, -1)
    rows = moved.reshape(math.prod(moved.shape[:-1]), moved.shape[-1])
    return rows, lambda result: np.moveaxis(result.reshape(moved.shape), -1, axis)


# ------------------------------------------------------------------------------------------------ the forward pass


def total(values, axis=-1):
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


# ------------------------------------------------------------------------------------------------ the backward pass


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
