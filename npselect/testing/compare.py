"""The comparison of one result with the oracle's: shape, then dtype, then values, each value by a bound of its own."""

from __future__ import annotations

import sys
from typing import NamedTuple

import numpy as np

from npselect.testing import tolerance
from npselect.testing.aliases import Array
from npselect.testing.outcome import Difference
from npselect.testing.profile import Profile
from npselect.testing.question import Question

__all__ = ["Errors", "bits", "compare_gradients", "compare_masks", "malformed", "within_rounding"]


class Errors(NamedTuple):
    """The worst errors of a gradient, in ULP and as a fraction of what is allowed; NaN if nothing was compared."""

    ulp: float = np.nan
    fraction: float = np.nan

    def worse(self, other: Errors) -> Errors:
        """The larger of each."""
        return Errors(float(np.fmax(self.ulp, other.ulp)), float(np.fmax(self.fraction, other.fraction)))


def malformed(direction: str, returned: str, result: Array, expected: Array) -> Difference | None:
    """What is wrong with an answer before its values are looked at; `returned` is the type of what was returned."""
    if result.dtype == object or returned in ("list", "tuple", "MaskedArray", "matrix"):
        return Difference(direction, f"returns a {returned}; expected an array")
    if result.shape != expected.shape:
        return Difference(direction, f"returns shape {result.shape}; expected {expected.shape}")
    if result.dtype != expected.dtype:
        return Difference(direction, f"returns dtype {result.dtype}; expected {expected.dtype}")
    return None


def compare_masks(
    question: Question, actual: Array, expected: Array, judged: Array, profile: Profile
) -> tuple[Difference | None, Array]:
    """Exactly +0 and 1, or NaN; and the rows in which another index was accepted, as near as it is."""
    a, e = question.rows(actual), question.rows(expected)
    near = np.zeros(len(a), np.bool_)
    if profile.name == "standard":
        near = judged & _near_ties(question, a, e, profile)
    same = (a == e) & (np.signbit(a) == np.signbit(e)) | np.isnan(a) & np.isnan(e)
    return _first("forward", question, actual, expected, None, same, judged & ~near), near


def _near_ties(question: Question, actual: Array, expected: Array, profile: Profile) -> Array:
    """Rows whose mask has its 1 elsewhere, at the first of equals, as near as rounding can bring two probabilities."""
    rows, choices = expected.shape
    if np.array_equal(actual, expected):
        return np.zeros(rows, np.bool_)
    index = np.argmax(actual == 1, axis=-1)[:, None]
    one_hot = np.all(actual.astype(np.float64) == (np.arange(choices) == index), axis=-1)
    chosen = np.take_along_axis(question.chosen_from, index, axis=-1)
    first = np.argmax(question.chosen_from == chosen, axis=-1)[:, None] == index
    if profile.normalises_logits and question.noise is not None:
        first |= True  # sums that are equal on paper are of unequal numbers, and rounded
    near = one_hot[:, None] & first & np.take_along_axis(within_rounding(question, profile), index, axis=-1)
    return np.asarray(near[:, 0] & ~np.all(actual == expected, axis=-1) & ~np.any(np.signbit(actual), axis=-1))


def within_rounding(question: Question, profile: Profile) -> Array:
    """Candidates whose probability rounding can make as large as the largest: bool, (rows, K)."""
    with np.errstate(all="ignore"):
        w, added = question.chosen_from, None if question.index is not None else question.drawn_with
        gap = (np.max(w, axis=-1, keepdims=True, initial=-np.inf) - w) / question.temps
        near = tolerance.near_tie(w, question.temps, question.logits.dtype, profile.arithmetic, added)
        return np.asarray(gap <= near)


def compare_gradients(
    question: Question, actual: Array, expected: Array, judged: Array, allowed: Array
) -> tuple[Difference | None, Errors]:
    """Within what is allowed, (rows, K); and the worst errors."""
    wide, exact = question.rows(actual.astype(np.float64)), question.rows(expected.astype(np.float64))
    with np.errstate(all="ignore"):
        error = np.abs(wide - exact)
        same = (error <= allowed) | (wide == exact) | np.isnan(wide) & np.isnan(exact)
        cotangent = np.where(question.w == -np.inf, 0, question.rows(question.grad_mask.astype(np.float64)))
        broken = ~np.all(np.isfinite(cotangent), axis=-1, keepdims=True)
        same |= broken & ~np.isfinite(wide) & ~np.isfinite(exact)
        compared = np.isfinite(exact) & judged[:, None]
        error = np.where(np.isnan(error), np.inf, error)[compared]
        ulps = error / tolerance.ulp(exact, expected.dtype)[compared]
        fractions = np.where(error == 0, 0.0, error / allowed[compared])
    errors = Errors(float(np.max(ulps)), float(np.max(fractions))) if error.size else Errors()
    return _first("backward", question, actual, expected, allowed, same, judged), errors


def _first(
    direction: str,
    question: Question,
    actual: Array,
    expected: Array,
    allowed: Array | None,
    same: Array,
    judged: Array,
) -> Difference | None:
    """The first entry, row after row, of the rows that count where two arrays are not the same."""
    different = ~same & judged[:, None]
    if not np.any(different):
        return None
    row, choice = (int(i) for i in np.unravel_index(np.argmax(different), different.shape))
    position, limit = question.position(row, choice), 0.0 if allowed is None else float(allowed[row, choice])
    a, e = actual[position], expected[position]
    message = f"is {a!s}; expected {e!s}"
    if limit > 0:
        message += f", give or take {limit:.2g}"
    conditioning = None
    if allowed is not None and np.isfinite(limit):
        conditioning = limit / float(tolerance.ulp(np.asarray(e, np.float64), expected.dtype))
    return Difference(direction, message, position, float(a), float(e), limit, bits(a), bits(e), conditioning)


def bits(value: np.generic) -> str:
    """The bit pattern of a NumPy scalar in hexadecimal, the sign first."""
    return f"{int.from_bytes(value.tobytes(), sys.byteorder):0{2 * value.itemsize}x}"
