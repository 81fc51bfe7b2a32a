"""The bound of ReinMax: it holds of honest code, in any order of sums, and wrong code does not hide below it."""

from __future__ import annotations

import dataclasses
import functools

import exact
import inputs
import numpy as np
import pytest
from honest import total

import npselect
from npselect.testing import tolerance
from npselect.testing.tolerance_reinmax import reinmax

DTYPES = list(inputs.DTYPES)
NARROW = ("float16", "bfloat16")
SIZES = {1: 4, 2: 400, 3: 300, 10: 150, 100: 15, 1000: 2}  # choices: rows


def wide(x):
    return x.astype(np.float32) if x.dtype.itemsize == 2 else x


# ------------------------------------------------------------------------------------------------ sums, as columns


def left_to_right(terms):
    return np.cumsum(wide(terms), axis=-1)[:, -1:].astype(terms.dtype)


def largest_first(terms):
    order = np.argsort(-np.abs(terms.astype(np.float64)), axis=-1)
    return left_to_right(np.take_along_axis(terms, order, axis=-1))


def documented(terms):
    """The order of the kernels: lanes of 128, folds in fours, then by halves, segments of 1024."""
    result = None
    for start in range(0, terms.shape[-1], 1024):
        segment = wide(terms)[:, start : start + 1024]
        lanes = np.zeros((len(terms), 128), segment.dtype)
        for j in range(0, segment.shape[-1], 128):
            lanes[:, : segment.shape[-1] - j] += segment[:, j : j + 128]
        fours = lanes.reshape(len(terms), 32, 4).transpose(2, 0, 1)
        sums = (fours[0] + fours[2]) + (fours[1] + fours[3])
        for half in (16, 8, 4, 2, 1):
            sums = sums[:, :half] + sums[:, half : 2 * half]
        result = sums if result is None else result + sums
    return result.astype(terms.dtype)


# ------------------------------------------------------------------------------------------------ honest code


def softmax(t, summed):
    e = np.exp(t - np.max(t, axis=-1, keepdims=True))
    return e / summed(e)


def one_hot(w, d):
    return (np.arange(w.shape[-1]) == d[:, None]).astype(w.dtype)


def textbook(g, w, d, temp, summed=total):
    p, middle = softmax(w, summed), (softmax(w / temp, summed) + one_hot(w, d)) / w.dtype.type(2)
    return w.dtype.type(2) * product(middle, g, summed) - product(p, g, summed) / w.dtype.type(2)


def product(x, g, summed=total):
    return x * (g - summed(x * g))


def two_terms(g, w, d, temp):
    p, middle = softmax(w, total), (softmax(w / temp, total) + one_hot(w, d)) / w.dtype.type(2)
    first, second = (x * g - x * total(x * g) for x in (middle, p))
    return w.dtype.type(2) * first - second / w.dtype.type(2)


def published(g, w, d, temp):
    """As autodiff makes it of ``softmax(stop_gradient(log(middle) - w) + w)``."""
    with np.errstate(divide="ignore"):
        log = np.log((softmax(w / temp, total) + one_hot(w, d)) / w.dtype.type(2))
    two = w.dtype.type(2)
    return product(softmax((log - w) + w, total), two * g) + product(softmax(w, total), -g / two)


def from_drawn(g, w, d, temp, summed=documented):
    """The cotangent measured from the drawn candidate; 16 bits are computed in 32, and rounded once."""
    dtype, at = w.dtype, d[:, None]
    g, w, temp = wide(g), wide(w), wide(temp)
    half = w.dtype.type(0.5)
    h = g - np.take_along_axis(g, at, axis=-1)
    z = w - np.max(w, axis=-1, keepdims=True)
    e_p, e_q = np.exp(z), np.exp(z / temp)
    s_p, s_q = summed(e_p), summed(e_q)
    a, b = summed(e_q * h) / s_q, summed(e_p * h) / s_p
    q, p = e_q / s_q, e_p / s_p
    result = q * (h - a * half) - (p * half) * (h - b)
    p_d, q_d = (np.take_along_axis(x, at, axis=-1) for x in (p, q))
    np.put_along_axis(result, at, (p_d * half) * b - (q_d * a + a) * half, axis=-1)
    return result.astype(dtype)


def in_float64(g, w, d, temp):
    return textbook(*(x.astype(np.float64) for x in (g, w)), d, temp.astype(np.float64)).astype(w.dtype)


HONEST = {
    "textbook": textbook,
    "left to right": functools.partial(textbook, summed=left_to_right),
    "largest first": functools.partial(textbook, summed=largest_first),
    "two terms": two_terms,
    "from the drawn one": functools.partial(from_drawn, summed=left_to_right),
    "in float64, rounded once": in_float64,
}


# ------------------------------------------------------------------------------------------------ rows and verdicts


@functools.cache
def batches(dtype):
    """Name, rows, the drawn candidates (half of them the likeliest) and exact results, by mpmath, in float64."""
    families = inputs.adversarial(dtype, 12, 5, 5, wild=False)
    made = {name: batch for name, batch in families.items() if name != "-inf" and not name.startswith("where")}
    made |= {f"K={k}": inputs.random(dtype, rows, k, k)._replace(where=None) for k, rows in SIZES.items()}
    made["long ties"] = inputs.batch(dtype, np.zeros((1, 1023)), 1.3, None, 1.0 + np.arange(1023) % 7, 0)
    found = []
    for name, batch in made.items():
        with np.errstate(over="ignore"):
            batch = batch._replace(temp=batch.temp.astype(batch.logits.dtype))
        keep = ((batch.temp > 0) & np.isfinite(batch.temp))[:, 0]  # of float16
        if keep.any():
            batch = batch.rows(keep)
            rng, w = np.random.default_rng(4), batch.logits.astype(np.float64)
            d = np.where(rng.random(len(w)) < 0.5, np.argmax(w, axis=-1), rng.integers(w.shape[-1], size=len(w)))
            rows = exact.rows(*batch)
            values = [exact.exact_reinmax(row, int(i), "float64") for row, i in zip(rows, d, strict=True)]
            found.append((name, batch, d, np.array([[exact.rounded(x, "float64") for x in row] for row in values])))
    return found


def fractions(dtype, way, arithmetic=tolerance.TEXTBOOK):
    """Name and errors in bounds of each batch; where the bound is not finite, nothing is asked."""
    for name, batch, d, right in batches(dtype):
        with np.errstate(all="ignore"):
            actual = way(batch.g, batch.logits, d, batch.temp).astype(np.float64)
            bound = reinmax(batch.g, batch.logits, d, batch.temp.astype(np.float64), dtype, arithmetic)
            bound = bound + tolerance.ulp(right, "float64") / 2
            asked = np.isfinite(bound) & (actual != right)
            yield name, np.where(asked, np.abs(actual - right) / bound, 0.0)
        assert np.isfinite(bound).all() or not name.startswith("K=")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", HONEST)
def test_honest_code_is_within_the_bound(name, dtype, record):
    worst = max((float(np.max(found)), batch) for batch, found in fractions(dtype, HONEST[name]))
    record(f"error/bound, reinmax, {dtype}, {name}", worst[0])
    assert worst[0] < 1, worst


def kernels(g, w, d, temp):
    return npselect.reinmax.backward(g, w, temp, index=d, backend="cpu")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("way", [from_drawn, kernels])
def test_what_measures_from_the_drawn_one_is_within_the_tight_bound(way, dtype, record):
    worst = max((float(np.max(found)), batch) for batch, found in fractions(dtype, way, tolerance.KERNELS))
    record(f"error/bound, reinmax, {dtype}, {way.__name__}, tight", worst[0])
    assert worst[0] < 1, worst


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_published_code_is_within_the_bound_that_it_declares(dtype, record):
    """And within the textbook's, but where logits are so large that nothing is left of ``log(middle) - w``."""
    declared = dataclasses.replace(tolerance.TEXTBOOK, by_logarithm=True)
    worst = max((float(np.max(found)), batch) for batch, found in fractions(dtype, published, declared))
    record(f"error/bound, reinmax, {dtype}, published", worst[0])
    assert worst[0] < 1, worst
    undeclared = {batch: float(np.max(found)) for batch, found in fractions(dtype, published)}
    assert max(found for batch, found in undeclared.items() if batch.startswith("K=")) < 1
    if dtype == "float32":
        assert undeclared["temps from 1e-30 to 1e30"] > 1000


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_textbook_is_not_within_the_tight_bound(dtype):
    """On saturated rows and nearly constant cotangents it has lost what the kernels keep."""
    found = dict(fractions(dtype, textbook, tolerance.KERNELS))
    for name in ("saturated", "nearly constant cotangents"):
        assert np.max(found[name]) > 100


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_tight_bound_is_the_tighter_one(dtype):
    for _, batch, d, _ in batches(dtype):
        arguments = batch.g, batch.logits, d, batch.temp.astype(np.float64), dtype
        loose, tight = reinmax(*arguments), reinmax(*arguments, tolerance.KERNELS)
        assert np.all((tight <= loose) | ~np.isfinite(loose))
        assert np.all(np.isfinite(tight))


# ------------------------------------------------------------------------------------------------ wrong code


def parts(g, w, d, temp):
    p, q, hot = softmax(w, total), softmax(w / temp, total), one_hot(w, d)
    return p, q, hot, w.dtype.type(2)


def without_the_factor(g, w, d, temp):
    p, q, hot, two = parts(g, w, d, temp)
    return product((q + hot) / two, g) - product(p, g) / two


def without_the_one_hot(g, w, d, temp):
    p, q, _, two = parts(g, w, d, temp)
    return two * product(q, g) - product(p, g) / two


def without_the_second_term(g, w, d, temp):
    _, q, hot, two = parts(g, w, d, temp)
    return two * product((q + hot) / two, g)


def without_the_half(g, w, d, temp):
    p, q, hot, two = parts(g, w, d, temp)
    return two * product((q + hot) / two, g) - product(p, g)


def mean_over_candidates(g, w, d, temp):
    return textbook(g, w, d, temp) / w.dtype.type(w.shape[-1])


def of_the_largest(g, w, d, temp):
    return textbook(g, w, np.argmax(w, axis=-1), temp)


WRONG = {
    "factor 2 missing": without_the_factor,
    "one-hot left out": without_the_one_hot,
    "second term left out": without_the_second_term,
    "1/2 missing": without_the_half,
    "divided by temp": lambda g, w, d, temp: textbook(g, w, d, temp) / temp,
    "temp in both": lambda g, w, d, temp: textbook(g, w / temp, d, np.ones_like(temp)),
    "temp ignored": lambda g, w, d, temp: textbook(g, w, d, np.ones_like(temp)),
    "mean over candidates": mean_over_candidates,
    "another sign": lambda g, w, d, temp: -textbook(g, w, d, temp),
    "zero": lambda g, w, d, temp: 0 * g,
    "straight through": lambda g, w, d, temp: product(softmax(w, total), g),
    "the largest, not the drawn": of_the_largest,
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", WRONG)
def test_wrong_code_does_not_hide_below_the_bound(name, dtype, record):
    """Of random rows with a choice, most values are beyond; in 16 bits, where bounds are wide, enough."""
    found = [x.ravel() for batch, x in fractions(dtype, WRONG[name]) if batch.startswith("K=") and batch != "K=1"]
    beyond = np.mean(np.concatenate(found) > 1)
    record(f"share of values beyond the bound, reinmax, {dtype}, {name}", beyond)
    least = 0.5 if name == "the largest, not the drawn" else 0.8  # it often is the same
    assert beyond > (0.25 if dtype in NARROW else least)
    assert max(map(np.max, found)) > (3 if dtype in NARROW else 1e4)


# ------------------------------------------------------------------------------------------------ the ends


@pytest.mark.parametrize("dtype", DTYPES)
def test_bound_is_zero_where_nothing_is_rounded(dtype):
    w = np.array([[1, -np.inf, 2], [-np.inf, 5, -np.inf]]).astype(dtype)
    for arithmetic in (tolerance.TEXTBOOK, tolerance.KERNELS):
        bound = reinmax(np.ones_like(w), w, [0, 1], 1.5, dtype, arithmetic)
        np.testing.assert_array_equal(bound > 0, [[True, False, True], [False, False, False]])


def test_bound_of_logits_that_are_normalised_first():
    normalising = tolerance.Arithmetic(None, 4.0, difference_first=False, normalises_logits=True)

    def normalised_first(g, w, d, temp):
        top = np.max(w, axis=-1, keepdims=True)
        y = w - (top + np.log(total(np.exp(w - top))))
        gradient = textbook(g, y, d, temp)
        return gradient - np.exp(y) * total(gradient)

    for dtype in ("float32", "float64"):
        assert max(float(np.max(found)) for _, found in fractions(dtype, normalised_first, normalising)) < 1
