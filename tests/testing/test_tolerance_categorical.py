"""The bound of two temperatures and of a share: it holds of honest code, and wrong code does not hide below it."""

from __future__ import annotations

import dataclasses
import functools

import exact
import numpy as np
import pytest
from bounded import DTYPES, batches, fractions, in_float64
from exact_family import Mixture, exact_categorical
from honest import softmax, softmax_difference_first, total
from inputs import compute_type

import npselect
from npselect.testing import tolerance
from npselect.testing.tolerance_categorical import categorical

SETTINGS = ((1.0, 0.01), (1.7, 0.0), (2.0, 0.01), (0.6, 0.5))
NORMALISING = dataclasses.replace(tolerance.TEXTBOOK, normalises_logits=True)


def product(x, g):
    return x * (g - total(x * g))


def share_of(w, e):
    """As the dtype has it."""
    return w.dtype.type(1) - w.dtype.type(e)


def both(w, f, temp):
    return (w.dtype.type(f) * temp).astype(w.dtype)


# ------------------------------------------------------------------------------------------------ honest code


def textbook(g, w, temp, f, e):
    """At the product of both temperatures."""
    return share_of(w, e) * (product(softmax_of(w / both(w, f, temp)), g) / both(w, f, temp))


def softmax_of(t):
    return softmax(t, 1.0)


def one_after_the_other(g, w, temp, f, e):
    f = w.dtype.type(f)
    return share_of(w, e) * product(softmax_of((w / f) / temp), g) / temp / f


def difference_first(g, w, temp, f, e):
    f = w.dtype.type(f)
    return share_of(w, e) * (product(softmax_difference_first(w / f / temp, 1.0), g / temp) / f)


def through_the_mixture(g, w, temp, f, e):
    """As autodiff has it of ``softmax(log((1 - e) p + e / n))``."""
    if not e:
        return textbook(g, w, temp, f, e)
    p = softmax_of(w / both(w, f, temp))
    m = share_of(w, e) * p + w.dtype.type(e / w.shape[-1])
    arrived = product(softmax_of(np.log(m)), g) / m
    return product(p, share_of(w, e) * arrived) / both(w, f, temp)


def two_terms(g, w, temp, f, e):
    p = softmax_of(w / both(w, f, temp))
    return share_of(w, e) * (p * g - p * total(p * g)) / both(w, f, temp)


def wide(way):
    def call(g, w, temp, f, e):
        return way(*(x.astype(np.float64) for x in (g, w, temp)), f, e).astype(w.dtype)

    return call


def normalised_first(g, w, temp, f, e):
    """As distributions of PyTorch have it: logits minus their logsumexp, and the gradient of both."""
    t = w / w.dtype.type(f)
    top = np.max(t, axis=-1, keepdims=True)
    y = t - (top + np.log(total(np.exp(t - top))))
    gradient = share_of(w, e) * product(softmax_of(y / temp), g) / temp
    return (gradient - np.exp(y) * total(gradient)) / w.dtype.type(f)


HONEST = {
    "textbook": textbook,
    "one after the other": one_after_the_other,
    "difference first": difference_first,
    "through the mixture": through_the_mixture,
    "two terms": two_terms,
    "in float64, rounded once": wide(textbook),
}


@functools.cache
def prepared(dtype, forward_temp, unimix):
    """Name, batch, the product of the temperatures and exact results."""
    form, found = compute_type(dtype), []
    for name, batch, _ in batches(dtype):
        temp = (forward_temp * batch.temp.astype(np.float64)).astype(form)
        mixture = Mixture(forward_temp, unimix, 1 - unimix)
        rows = exact.rows(*batch._replace(temp=temp))
        values = [exact_categorical(row, "float64", mixture, ["backward"])["backward"] for row in rows]
        found.append((name, batch, temp.astype(np.float64), in_float64(values)))
    return found


def worst_of(dtype, way, settings, arithmetic=tolerance.TEXTBOOK):
    """Name and errors in bounds of each batch."""
    f, e = settings
    for name, batch, temp, right in prepared(dtype, f, e):
        with np.errstate(all="ignore"):
            actual = way(batch.g, batch.logits, batch.temp, f, e).astype(np.float64)
            bound = categorical(batch.g, batch.logits, temp, dtype, arithmetic, forward_temp=f, unimix=e)
            yield name, fractions(actual, right, bound)
        assert np.mean(np.isfinite(bound)) > 0.9 or not name.startswith("K=")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", HONEST)
def test_honest_code_is_within_the_bound(name, dtype, record):
    for settings in SETTINGS:
        worst = max((float(np.max(found)), batch) for batch, found in worst_of(dtype, HONEST[name], settings))
        record(f"error/bound, categorical, {dtype}, {name}", worst[0])
        assert worst[0] < 1, (settings, worst)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_normalises_logits_is_within_the_bound_that_it_declares(dtype, record):
    for settings in SETTINGS:
        found = worst_of(dtype, normalised_first, settings, NORMALISING)
        worst = max((float(np.max(found)), batch) for batch, found in found)
        record(f"error/bound, categorical, {dtype}, normalised first", worst[0])
        assert worst[0] < 1, (settings, worst)


def kernels(g, w, temp, f, e):
    index = np.argmax(w, axis=-1)
    return npselect.categorical.backward(g, w, temp, index=index, forward_temp=f, unimix=e, backend="cpu")


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_kernels_are_within_the_tight_bound(dtype, record):
    for settings in SETTINGS:
        worst = max((float(np.max(x)), batch) for batch, x in worst_of(dtype, kernels, settings, tolerance.KERNELS))
        record(f"error/bound, categorical, {dtype}, kernels", worst[0])
        assert worst[0] < 1, (settings, worst)


def test_without_either_it_is_the_bound_of_straight_through():
    for _, batch, _ in batches("float32"):
        arguments = batch.g, batch.logits, batch.temp.astype(np.float64), "float32"
        np.testing.assert_array_equal(categorical(*arguments), tolerance.backward(*arguments))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_tight_bound_is_the_tighter_one(dtype):
    """But where the selected cotangent is larger than those that are measured from it."""
    for f, e in SETTINGS:
        for _, batch, temp, _ in prepared(dtype, f, e):
            arguments, given = (batch.g, batch.logits, temp, dtype), {"forward_temp": f, "unimix": e}
            loose, tight = categorical(*arguments, **given), categorical(*arguments, tolerance.KERNELS, **given)
            finite = np.isfinite(loose) & (loose > 0)
            assert not finite.any() or np.median(tight[finite] / loose[finite]) <= 1
            assert np.all(np.isfinite(tight))


# ------------------------------------------------------------------------------------------------ wrong code


def of_mixture(g, w, temp, f, e):
    """J of the mixture, not of what is mixed."""
    p = softmax_of(w / both(w, f, temp))
    return product(share_of(w, e) * p + w.dtype.type(e / w.shape[-1]), g) / both(w, f, temp)


WRONG = {
    "share left out": (lambda g, w, temp, f, e: textbook(g, w, temp, f, 0.0), {0.5}),
    "share squared": (lambda g, w, temp, f, e: textbook(g, w, temp, f, e) * share_of(w, e), {0.5}),
    "J of the mixture": (of_mixture, {0.5}),
    "e for 1 - e": (lambda g, w, temp, f, e: textbook(g, w, temp, f, 1 - e), {0.01}),
    "forward_temp left out": (lambda g, w, temp, f, e: textbook(g, w, temp, 1.0, e), {1.7, 2.0, 0.6}),
    "temp left out": (lambda g, w, temp, f, e: textbook(g, w, np.ones_like(temp), f, e), {1.7}),
    "both left out": (lambda g, w, temp, f, e: textbook(g, w, np.ones_like(temp), 1.0, e), {1.7}),
    "1/forward_temp missing": (lambda g, w, temp, f, e: textbook(g, w, temp, f, e) * w.dtype.type(f), {1.7, 2.0}),
    "1/temp missing": (lambda g, w, temp, f, e: textbook(g, w, temp, f, e) * temp, {1.7}),
    "divided, not multiplied": (lambda g, w, temp, f, e: textbook(g, w, temp, 1 / f, e), {1.7, 2.0, 0.6}),
    "another sign": (lambda g, w, temp, f, e: -textbook(g, w, temp, f, e), {1.7}),
    "without the mean": (lambda g, w, temp, f, e: softmax_of(w / both(w, f, temp)) * g / both(w, f, temp), {1.7}),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", WRONG)
def test_wrong_code_does_not_hide_below_the_bound(name, dtype, record):
    way, where = WRONG[name]
    for settings in SETTINGS:
        if where & {*settings}:
            found = [x.ravel() for batch, x in worst_of(dtype, way, settings) if batch in ("K=2", "K=3", "K=10")]
            beyond = np.mean(np.concatenate(found) > 1)
            record(f"share of values beyond the bound, categorical, {dtype}, {name}", beyond)
            assert beyond > (0.25 if dtype == "bfloat16" else 0.8), settings
