"""Mistakes that are not predictable to the last place, by their symptoms: which rows are wrong, and in what way.

A symptom is a function of what was answered in all cases: it returns the name of the mistake, or None. It must account
for every wrong row, and for the right ones too: where the mistake would show, an answer must not be right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from npselect.testing.aliases import Array
from npselect.testing.tolerance import Format

__all__ = ["BACKWARD", "EITHER", "FORWARD", "Pass", "Symptom"]


class Pass(NamedTuple):
    """One pass over one case: the rows that were judged, (rows, K), in float64."""

    g: Array  # the cotangent, 0 at excluded entries
    w: Array  # noise added, -inf at excluded entries
    top: float  # the largest of them, of all rows
    temp: float
    form: Format
    actual: Array
    right: Array
    off: Array  # how far the two are apart
    allowed: Array
    wrong: Array  # bool, (rows,)


Symptom = Callable[[Sequence[Pass]], "str | None"]


def _everywhere(seen: Sequence[Pass], test: Callable[[Pass], Array]) -> bool:
    """Whether a test holds in all rows that are wrong."""
    return all(np.all(test(one)[one.wrong]) for one in seen)


def _one_hot(one: Pass) -> Array:
    return np.asarray(np.all((one.actual == 0) | (one.actual == 1), axis=-1) & (np.sum(one.actual, axis=-1) == 1))


# ------------------------------------------------------------------------------------------------ of either pass


def nan_at_minus_inf(seen: Sequence[Pass]) -> str | None:
    """The wrong rows have a NaN, and a candidate that is -inf."""

    def test(one: Pass) -> Array:
        return np.asarray(np.any(np.isnan(one.actual), axis=-1) & np.any(one.w == -np.inf, axis=-1))

    return "-inf gives NaN" if _everywhere(seen, test) else None


EITHER: tuple[Symptom, ...] = (nan_at_minus_inf,)
"""Symptoms of any pass, whatever the operator."""


def _maximum_of_the_batch(
    seen: Sequence[Pass], lost: Callable[[Pass], Array], digits: Callable[[Pass, Array], Array]
) -> str | None:
    """Rows whose exponentials all underflow are lost: ``lost`` says how that looks. Those of the largest are right.

    Those between lose digits: ``digits`` says which of them may be wrong, given how far each row's largest exponent is
    below the largest of all. Where that is not finite, no row need be right.
    """
    told = False
    for one in seen:
        if not np.isfinite(one.top):
            continue
        below = (one.top - np.max(one.w, axis=-1, initial=-np.inf)) / one.temp
        gone = below > 1 - np.log(one.form.least)
        alike = lost(one) | (~one.wrong & np.all(one.right == 0, axis=-1))
        if np.any(np.where(gone, ~alike, one.wrong & ~digits(one, below))):
            return None
        told |= bool(np.any(gone & one.wrong))
    return "one maximum is subtracted in the whole batch" if told else None


# ------------------------------------------------------------------------------------------------ of the forward pass


def hard_plus_probs_minus_probs(seen: Sequence[Pass]) -> str | None:
    """``fl(fl(1 + p) - p)`` is 1 or the number before it; it is 1 where p is 1, and ``fl(fl(0 + p) - p)`` is 0."""

    def test(one: Pass) -> Array:
        before = one.right * (1 - one.form.unit)
        return np.asarray(np.all((one.actual == before) & (np.sum(one.right, axis=-1) == 1)[:, None], axis=-1))

    wrong = sum(int(np.sum(one.wrong)) for one in seen)
    open_rows = sum(int(np.sum(~_certain(one))) for one in seen)
    if any(np.any(one.wrong & _certain(one)) for one in seen) or not _everywhere(seen, test):
        return None
    return "the mask is built as (hard + probs) - probs, which rounds" if wrong < open_rows / 2 else None


def _certain(one: Pass) -> Array:
    """Rows whose largest probability is 1 in the dtype, for all that rounding can do."""
    with np.errstate(all="ignore"):
        others = np.sum(np.exp((one.w - np.max(one.w, axis=-1, keepdims=True)) / one.temp), axis=-1) - 1
    return np.asarray(others < one.form.unit / 8)


def several_largest(seen: Sequence[Pass]) -> str | None:
    """In every row the k largest have a 1, and k is the same (but where there are fewer)."""
    counts = [np.sum(one.actual == 1, axis=-1) for one in seen]
    k = max((int(np.max(count, initial=0)) for count in counts), default=0)
    if k < 2:
        return None
    for one, count in zip(seen, counts, strict=True):
        candidates = np.sum(one.w > -np.inf, axis=-1)
        if np.any((count != np.minimum(k, candidates)) & (count != min(k, one.w.shape[-1]))):
            return None
        chosen = one.actual == 1
        least = np.min(np.where(chosen, one.w, np.inf), axis=-1, initial=np.inf)
        if not np.all(chosen | (one.actual == 0)) or np.any(~chosen & (one.w > least[:, None])):
            return None
    return f"the {k} largest are selected, not the largest"


def any_of_equals(seen: Sequence[Pass]) -> str | None:
    """A wrong row has its 1 at one of the largest, but not at the first of them."""

    def test(one: Pass) -> Array:
        top = np.max(one.w, axis=-1, keepdims=True, initial=-np.inf)
        return np.asarray(_one_hot(one) & np.any((one.actual == 1) & (one.w == top), axis=-1))

    return "any of equals is selected, not the first" if _everywhere(seen, test) else None


def maximum_of_the_batch_forward(seen: Sequence[Pass]) -> str | None:
    """Where all exponentials are 0, the first is the largest; or all are; or there is NaN, or nothing."""

    def lost(one: Pass) -> Array:
        first = _one_hot(one) & (one.actual[:, :1] == 1)[:, 0] if one.actual.shape[-1] else _one_hot(one)
        alike = np.all((one.actual == one.actual[:, :1]) | (one.w == -np.inf), axis=-1)
        return np.asarray(first | alike | np.any(np.isnan(one.actual), axis=-1))

    def digits(one: Pass, below: Array) -> Array:  # the largest exponential is subnormal
        return np.asarray(below > -1 - np.log(one.form.tiny))

    return _maximum_of_the_batch(seen, lost, digits)


FORWARD: tuple[Symptom, ...] = (
    nan_at_minus_inf,
    hard_plus_probs_minus_probs,
    several_largest,
    any_of_equals,
    maximum_of_the_batch_forward,
)
"""Symptoms of the forward pass, the surest first."""


# ------------------------------------------------------------------------------------------------ of the backward pass


def maximum_of_the_batch_backward(seen: Sequence[Pass]) -> str | None:
    """Where all exponentials are 0, their quotients are NaN; or 0, where something guards the division.

    Elsewhere each is wrong by the smallest normal number at most: the probabilities by that, times ``exp(below)``, once
    for themselves and K times for their sum; the gradient by that, times cotangents, for itself and for each of K.
    """

    def lost(one: Pass) -> Array:
        return np.asarray(np.any(np.isnan(one.actual), axis=-1) | np.all(one.actual == 0, axis=-1))

    def digits(one: Pass, below: Array) -> Array:
        lost = (1 + one.w.shape[-1]) ** 2 * one.form.tiny * np.exp(below)
        size = 4 * np.max(np.abs(one.g), axis=-1, initial=0.0) / one.temp
        return np.asarray((lost >= 1) | np.all(one.off <= 4 * one.allowed + (lost * size)[:, None], axis=-1))

    return _maximum_of_the_batch(seen, lost, digits)


BACKWARD: tuple[Symptom, ...] = (nan_at_minus_inf, maximum_of_the_batch_backward)
"""Symptoms of the backward pass."""
