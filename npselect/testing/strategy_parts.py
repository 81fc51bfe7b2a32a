"""What `npselect.testing.strategies` draws, part by part: rows, cotangents, long rows, options, noise.

The first alternative is everywhere the simplest, to which Hypothesis shrinks the others.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from npselect.testing.aliases import Array, Dtype
from npselect.testing.case import Case
from npselect.testing.dtypes import rounded
from npselect.testing.families import Family
from npselect.testing.tolerance import Format, ulp

__all__ = ["cotangents_row", "draw_case", "logits_row", "scales", "temperatures"]


def temperatures(form: Dtype) -> SearchStrategy[float]:
    """Usual ones; others; and powers of two far from 1."""
    far = {"float16": 12, "float64": 500}.get(form.name, 60)
    return st.one_of(
        st.sampled_from([1.0, 0.5, 2.0, 0.6, 0.1, 5.0]),
        st.floats(-10, 10).map(lambda power: 2.0**power),
        st.integers(-far, far).map(lambda power: 2.0**power),
    ).map(lambda temp: rounded(temp, form))


def _limit(form: Dtype, temp: float) -> float:
    """Of logits, so that they have room for noise, and for a division by temp."""
    return Format.of(form).largest / 64 * min(1.0, temp)


_SMALL, _TALL, _LONG = range(3)
_SIZES = [_SMALL] * 5 + [_TALL] * 2 + [_LONG] * 3  # half are small, which shrink and run fast
_KINDS = (0, 1, 2, 2, 2, 3, 4, 4, 5, 6, 7, 8)  # of `logits_row`: few rows of ties, or saturated, show a mistake


@st.composite
def logits_row(draw: DrawFn, form: Dtype, choices: int, temp: float, largest: float = np.inf) -> Array:
    """One row of numbers up to `largest`; they are not NaN, nor +inf, nor all of them -inf."""

    def entries(low: int, high: int) -> Array:
        return np.asarray(draw(st.lists(st.integers(low, high), min_size=choices, max_size=choices)), np.float64)

    kind, limit = draw(st.sampled_from(_KINDS)), min(largest, _limit(form, temp))
    match kind:
        case 0:  # equal
            w = temp * np.full(choices, draw(st.integers(-8, 8)) / 2)
        case 1:
            w = temp * entries(-16, 16) / 4
        case 2:  # ties
            w = np.array([0.0, -0.0, -1.0, 0.0])[entries(0, 3).astype(np.intp)]
        case 3:  # neighbours
            base = rounded(temp * draw(st.sampled_from([1.0, -1.0, 3.0, -0.75, 40.0])), form)
            w = base + float(ulp(np.asarray(base), form)) * entries(-2, 2)
        case 4:  # saturated
            w = temp * entries(-240, 0) / 2
            w[draw(st.integers(0, choices - 1))] = 0.0
        case 5:
            w = np.where(entries(0, 1) > 0, -np.inf, temp * entries(-16, 16) / 4)
            w[draw(st.integers(0, choices - 1))] = temp
        case 6:  # far from 0
            w = temp * (draw(st.sampled_from([100.0, -100.0, 1e3, -1e3, 1e4])) - entries(0, 16) / 4)
        case 7:  # subnormal
            w = Format.of(form).tiny * entries(-7, 7) / 8
        case _:
            ends = (
                float(np.asarray(sign * limit).astype(np.float32 if form.itemsize < 8 else form)) for sign in (-1, 1)
            )
            numbers = st.floats(*ends, width=32 if form.itemsize < 8 else 64)
            w = np.asarray(draw(st.lists(numbers, min_size=choices, max_size=choices)))
    return np.asarray(np.where(np.isneginf(w), w, np.clip(w, -limit, limit)).astype(form))


def cotangents_row(form: Dtype, choices: int) -> SearchStrategy[Array]:
    """One row in float64, of numbers up to 8."""

    def entries(some: SearchStrategy[int] | SearchStrategy[float]) -> SearchStrategy[Array]:
        return st.lists(some, min_size=choices, max_size=choices).map(lambda found: np.asarray(found, np.float64))

    return st.one_of(
        entries(st.integers(-8, 8)),
        st.integers(0, choices - 1).map(lambda place: np.eye(choices)[place]),
        entries(st.integers(-2, 2)).map(lambda steps: 3 + steps * 2 * Format.of(form).unit),  # nearly equal
        entries(st.floats(-8, 8, width=16)),
    )


def scales(form: Dtype) -> SearchStrategy[float]:
    """Of cotangents."""
    powers = [0, 4, -4, 8, -8] if form.name == "float16" else [0, 5, -5, 14, -14]
    return st.sampled_from(powers).map(lambda power: 2.0**power)


def draw_case(
    draw: DrawFn, form: Dtype, family: Family, options: Collection[str], largest: tuple[int, int, int]
) -> Case:
    """A small case, or one that is made of a small one: of more rows, or of longer ones."""
    rows, choices, longest = largest
    if form.name == "float16":
        longest = min(longest, 2**15)  # a sum of 65,505 equal weights is beyond its range, and so of no textbook
    temp, size = draw(temperatures(form)), draw(st.sampled_from(_SIZES)) if longest > choices else _SMALL
    lead: tuple[int, ...] | None = None
    if size == _SMALL and "axis" in options and draw(st.booleans()):
        lead = draw(st.sampled_from([(), (2,), (2, 3), (3, 2), (2, 2)]))
    fewest, most = (1, rows) if lead is None else (math.prod(lead), math.prod(lead))
    length = draw(st.integers(min(2, choices) if size == _LONG else 1, choices))
    least = min(1.0, temp) if "index" in family.given else temp  # ReinMax has a softmax at temperature 1 too
    digits = least / (2 * Format.of(form).unit)  # beyond, a quotient by temp has none behind the point, nor a bound
    pair = st.tuples(logits_row(form, length, temp, digits), cotangents_row(form, length))
    pairs = draw(st.lists(pair, min_size=fewest, max_size=most))  # a list loses what does not matter when it shrinks
    if lead is None:
        lead = (len(pairs),)
    w = np.stack([row for row, _ in pairs])
    g = np.asarray(np.stack([row for _, row in pairs]) * min(1.0, temp) * draw(scales(form))).astype(form)
    if size == _TALL:
        count = draw(st.sampled_from([17, 1025, 1100]))
        w, g = (array[np.arange(count) % len(array)] for array in (w, g))
    elif size == _LONG:
        w, g = _longer(draw, w, g, temp, (choices, longest))
    where = None
    if "where" in options and draw(st.booleans()):
        w, where = _some_excluded(draw, w, temp)
    noise = index = samples = None
    if "noise" in family.given:
        w, noise = _with_noise(draw, w)
    if "index" in family.given:
        index = _index(draw, w if where is None else np.where(where, w, w.dtype.type(-np.inf)))
    if "sample_noise" in family.given:
        samples = _sample_noise(draw, w)
    flags = ("ties", *["again"] * (size == _SMALL and draw(st.integers(0, 5)) == 5))
    axis = -1
    if size == _SMALL:
        lead_axes = len(lead)
        place = draw(st.integers(0, lead_axes)) if "axis" in options else lead_axes
        axis = place - (lead_axes + 1) * draw(st.booleans()) if lead_axes != 1 or place != 1 else -1
        if lead_axes != 1 and axis == -1:
            axis = lead_axes  # given as an option, without which arrays have two axes

        def placed(array: Array) -> Array:
            return np.ascontiguousarray(np.moveaxis(array.reshape((*lead, array.shape[-1])), -1, place))

        w, g = placed(w), placed(g)
        where, noise = (None if array is None else placed(array) for array in (where, noise))
        index = None if index is None else index.reshape(lead)
        samples = None if samples is None else np.stack([placed(one) for one in samples])
    order = draw(st.integers(0, 5))
    w, g = (np.asfortranarray(w) if order == 4 else w), (np.asfortranarray(g) if order == 5 else g)
    return Case("random/drawn", "drawn by Hypothesis", w, g, temp, axis, where, noise, flags, operator=family.name,
                index=index, sample_noise=samples)  # fmt: skip


def _longer(draw: DrawFn, w: Array, g: Array, temp: float, lengths: tuple[int, int]) -> tuple[Array, Array]:
    """The first rows among many entries more: excluded, or as good as nothing, or as small as the smallest."""
    shortest, longest = lengths
    edges = [n for power in range(7, 18) for n in (2**power - 1, 2**power, 2**power + 1)]
    known = [n for n in [*range(shortest + 1, 66), *edges] if shortest < n < longest]
    # Two in five are the longest: an index of 16 bits shows there alone.
    length = draw(st.sampled_from([*known, *[longest] * 60]))
    rows = 2 if length < 4096 else 1
    w, g = w[:rows], g[:rows]
    places = draw(st.lists(st.integers(0, length - 1), min_size=w.shape[1], max_size=w.shape[1], unique=True))
    if length - 1 not in places and draw(st.booleans()):
        places[-1] = length - 1
    if draw(st.booleans()):  # integers are small more often than not; so these are large as often
        places = [length - 1 - place for place in places]
    wide = w.astype(np.float64)
    smallest = np.min(np.where(np.isfinite(wide), wide, np.inf), axis=-1, keepdims=True)
    others = draw(st.sampled_from([-np.inf, 0.0, -200.0]))
    filler = np.maximum(smallest + others * temp, -_limit(w.dtype, temp)) if others > -np.inf else smallest - np.inf
    long_w, long_g = np.broadcast_to(filler, (len(w), length)).astype(w.dtype), np.resize(g, (len(g), length))
    long_w[:, places], long_g[:, places] = w, g
    return long_w, long_g


def _some_excluded(draw: DrawFn, w: Array, temp: float) -> tuple[Array, Array]:
    """One candidate is left in each row, at least; the others' logits are what they were, or larger, or NaN."""
    pattern = draw(st.lists(st.booleans(), min_size=7, max_size=7))
    where = np.resize(np.array(pattern), w.shape)
    where[np.arange(len(w)), np.argmax(np.isfinite(w), axis=-1)] = True
    there = draw(st.sampled_from(["as before", "larger", "NaN"]))
    if there == "larger":
        w = np.where(where, w, np.max(w, axis=-1, keepdims=True).astype(w.dtype) + w.dtype.type(rounded(temp, w.dtype)))
    elif there == "NaN":
        w = np.where(where, w, w.dtype.type(np.nan))
    return w, where


def _with_noise(draw: DrawFn, w: Array) -> tuple[Array, Array]:
    """Logits and noise whose sum has no rounding error, and is about w.

    Both are multiples of twice the unit in the last place of the row's largest, 2**e > |w|, and so is their sum; it is
    less than 2**(e + 1), and all such multiples are numbers of the dtype. The noise is at most 2**e / 8.
    """
    pattern = np.asarray(draw(st.lists(st.integers(-3, 8), min_size=11, max_size=11)), np.float64)
    wide = w.astype(np.float64)
    finite = np.isfinite(wide)
    largest = np.max(np.where(finite, np.abs(wide), 0.0), axis=-1, keepdims=True)
    _, exponent = np.frexp(largest)
    step = 2 * ulp(largest, w.dtype)
    noise = np.maximum(np.ldexp(1.0, exponent - 6), step) * np.resize(pattern, w.shape)
    with np.errstate(all="ignore"):
        logits = np.where(finite, np.round((wide - noise) / step) * step, wide)
    return logits.astype(w.dtype), noise.astype(w.dtype)


def _sample_noise(draw: DrawFn, w: Array) -> Array:
    """Of up to three samples, about as large as Gumbel noise is."""
    pattern = draw(st.lists(st.integers(-12, 32), min_size=13, max_size=13))
    return np.resize(np.asarray(pattern, np.float64) / 4, (draw(st.integers(1, 3)), *w.shape)).astype(w.dtype)


def _index(draw: DrawFn, w: Array) -> Array:
    """A candidate of each row, likely or not."""
    picks = np.resize(np.asarray(draw(st.lists(st.integers(0, 2**17), min_size=3, max_size=3))), len(w))
    candidates = [np.flatnonzero(np.isfinite(row)) for row in w]
    return np.array([some[pick % len(some)] for some, pick in zip(candidates, picks, strict=True)], np.int64)
