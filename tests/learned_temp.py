"""An honest gradient of a learned temperature, as a textbook has it, and how it is judged."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import numpy as np
from honest import as_rows, hard, softmax, total

from npselect import straight_through, testing


@functools.cache
def temp_cases(dtype, operator=straight_through):
    """Those of the temperature, and some others: ties, -inf, several axes, candidates that are not offered."""
    names = ("edge/ties", "edge/-inf", "random/K=10", "random/offset", "random/saturated", "edge/temp=0.0")
    options = ["axis", "where", "row_temp"]
    cases = testing.cases(dtype, operator=operator, options=options, profile="strict")
    return [case for case in cases if case.group in ("temp", "axis", "where") or case.name in names]


FEW = [
    "random/K=10",
    *(f"temp/{name}" for name in ("one sign", "of a row", "one in an array", "of a row, again", "where=")),
]


def judged(subject, dtype="float32", operator=straight_through, few=False, **options):
    """In few cases if functions are compiled for every shape."""
    cases = [case for case in temp_cases(dtype, operator) if not few or case.name in FEW]
    return testing.check(subject, cases=cases, dtypes=dtype, operator=operator, **options)


def chosen_from(logits, noise):
    return logits if noise is None else logits + noise


def quotients(logits, temp, where, noise):
    t = (chosen_from(logits, noise) / np.asarray(temp, logits.dtype)).astype(logits.dtype)
    return t if where is None else np.where(where, t, t.dtype.type(-np.inf))


def forward(logits, temp, *, axis=-1, where=None, noise=None):
    rows, back = as_rows(quotients(logits, np.asarray(1), where, noise), axis)
    return back(hard(rows, 1.0))


def backward(grad_mask, logits, temp, *, axis=-1, where=None, noise=None):
    rows, back = as_rows(quotients(logits, temp, where, noise), axis)
    p, g = softmax(rows, 1.0), as_rows(grad_mask, axis)[0]
    g = np.where(rows > -np.inf, g, g.dtype.type(0))
    return (back(p * (g - total(p * g))) / np.asarray(temp, logits.dtype)).astype(logits.dtype)


def summed(terms, like, dtype):
    """To the shape of the temperature, in no less than 32 bits."""
    wide = np.float32 if terms.dtype.itemsize == 2 else terms.dtype
    extra = terms.ndim - np.ndim(like)
    axes = tuple(i for i in range(terms.ndim) if i < extra or np.shape(like)[i - extra] == 1)
    result = np.sum(terms.astype(wide), axis=axes, keepdims=True)
    return result.reshape(np.shape(like)).astype(dtype)


def backward_temp(grad_mask, logits, temp, *, axis=-1, where=None, noise=None):
    grads = backward(grad_mask, logits, temp, axis=axis, where=where, noise=noise)
    w = chosen_from(logits, noise)
    terms = np.where(grads == 0, grads, grads * w / np.asarray(temp, w.dtype)).astype(w.dtype)
    return summed(-terms, temp, w.dtype)


def in_order(grad_mask, logits, temp, *, axis=-1, where=None, noise=None):
    """One term after another, as a loop adds them."""
    grads = backward(grad_mask, logits, temp, axis=axis, where=where, noise=noise)
    w, of = chosen_from(logits, noise), np.asarray(temp, logits.dtype)
    wide = np.float32 if w.dtype.itemsize == 2 else w.dtype
    terms = np.where(grads == 0, grads, grads * w).astype(wide)
    places = np.broadcast_to(np.arange(of.size).reshape(of.shape), w.shape).ravel()
    sums = np.zeros(of.size, wide)
    for place, term in zip(places, terms.ravel(), strict=True):
        sums[place] -= term
    return (sums.reshape(of.shape) / of.astype(wide)).astype(w.dtype)


def subject(**changes):
    functions = {"forward": forward, "backward": backward, "backward_temp": backward_temp, "row_temp": True}
    return SimpleNamespace(**functions | changes)
