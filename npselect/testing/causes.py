# ruff: noqa: ARG005 - every mistake has the arguments of its pass
"""Likely causes, found by trying: each known mistake predicts values, and the one that predicts them best is named.

A mistake is a function of the arguments, in float64. What it predicts fits a row if it is no farther from the actual
values than the row's largest tolerance, in proportion to the size of what is predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from npselect.testing import tolerance
from npselect.testing.judge import Observation

__all__ = ["BACKWARD", "FORWARD", "likely_cause"]

Array = npt.NDArray[Any]


def _probs(logits: Array, temp: float = 1.0, axis: int | None = -1) -> Array:
    t = (logits - np.max(logits, axis=axis, keepdims=True)) / temp
    e = np.exp(t)
    return np.asarray(e / np.sum(e, axis=axis, keepdims=True))


def _one_hot(index: Array, choices: int) -> Array:
    return np.asarray(np.arange(choices) == index[:, None], np.float64)


def _mask(logits: Array) -> Array:
    return _one_hot(np.argmax(logits, axis=-1), logits.shape[-1])


def _gradient(g: Array, w: Array, temp: float) -> Array:
    h = g - np.sum(_mask(w) * g, axis=-1, keepdims=True)
    p = _probs(w, temp)
    return np.asarray(p * (h - np.sum(p * h, axis=-1, keepdims=True)) / temp)


def _mean(weights: Array, g: Array) -> Array:
    return np.asarray(np.sum(weights * g, axis=-1, keepdims=True))


BACKWARD: tuple[tuple[str, Callable[[Array, Array, float], Array]], ...] = (
    ("1/temp is missing", lambda g, w, temp: _gradient(g, w, temp) * temp),
    ("divided by temp twice", lambda g, w, temp: _gradient(g, w, temp) / temp),
    ("multiplied by temp instead of divided", lambda g, w, temp: _gradient(g, w, temp) * temp**2),
    ("temp is ignored, as though it were 1", lambda g, w, temp: _gradient(g, w, 1.0)),
    ("the softmax is taken of logits, not of logits / temp", lambda g, w, temp: _gradient(g, w, 1.0) / temp),
    ("the softmax is taken of logits * temp", lambda g, w, temp: _gradient(g, w, 1 / temp) / temp**2),
    ("the sign is flipped", lambda g, w, temp: -_gradient(g, w, temp)),
    ("the gradient of the hard mask, which is 0", lambda g, w, temp: np.zeros_like(g)),
    ("grad_mask is passed straight through (identity)", lambda g, w, temp: g),
    ("grad_mask is passed straight through (identity), over temp", lambda g, w, temp: g / temp),
    ("probs * grad_mask / temp, without the mean", lambda g, w, temp: _probs(w, temp) * g / temp),
    (
        "mask instead of probs in the backward pass",
        lambda g, w, temp: _probs(w, temp) * (g - _mean(_mask(w), g)) / temp,
    ),
    (
        "mask instead of probs in the backward pass",
        lambda g, w, temp: _mask(w) * (g - _mean(_probs(w, temp), g)) / temp,
    ),
    ("no gradient to the candidates that were not selected", lambda g, w, temp: _mask(w) * _gradient(g, w, temp)),
    ("wrong axis", lambda g, w, temp: _gradient(g.T, w.T, temp).T),
    ("sum over the batch", lambda g, w, temp: _over_the_batch(g, w, temp)),
    ("sum over the batch", lambda g, w, temp: np.sum(_gradient(g, w, temp), axis=0, keepdims=True) + 0 * w),
    ("mean over the batch", lambda g, w, temp: _gradient(g, w, temp) / len(w)),
    ("mean over the batch", lambda g, w, temp: np.mean(_gradient(g, w, temp), axis=0, keepdims=True) + 0 * w),
    ("mean over the choices", lambda g, w, temp: _gradient(g, w, temp) / w.shape[-1]),
    ("the softmax runs over the whole batch", lambda g, w, temp: _over_the_batch(g, w, temp, axis=None)),
)
"""Mistakes of the backward pass as functions of grad_mask, logits and temp."""


def _over_the_batch(g: Array, w: Array, temp: float, axis: int | None = -1) -> Array:
    p = _probs(w, temp, axis)
    return np.asarray(p * (g - np.sum(p * g)) / temp)


FORWARD: tuple[tuple[str, Callable[[Array, float], Array]], ...] = (
    (
        "the last of equals is selected",
        lambda w, temp: _one_hot(w.shape[-1] - 1 - np.argmax(w[:, ::-1], axis=-1), w.shape[-1]),
    ),
    ("all of equals are selected", lambda w, temp: (w == np.max(w, axis=-1, keepdims=True)).astype(np.float64)),
    ("the smallest is selected", lambda w, temp: _mask(-w)),
    ("wrong axis", lambda w, temp: _mask(w.T).T),
    ("the choice runs over the whole batch", lambda w, temp: _mask(w.reshape(1, -1)).reshape(w.shape)),
    ("probs instead of the mask", _probs),
    ("always the first", lambda w, temp: _one_hot(np.zeros(len(w)), w.shape[-1])),
)
"""Mistakes of the forward pass as functions of logits and temp."""


def likely_cause(observations: Iterable[Observation]) -> str | None:
    """The mistakes that explain all the values of a pass that has wrong ones, or None.

    Parameters
    ----------
    observations : iterable of Observation
        Of the cases that were judged.
    """
    seen = [observation for observation in observations if observation.case.logits.size]
    forward = _cause([_masks(observation) for observation in seen], FORWARD)
    backward = _cause([_gradients(observation) for observation in seen], BACKWARD)
    causes = {"forward": forward, "backward": backward}
    return "; ".join(f"{direction}: {cause}" for direction, cause in causes.items() if cause) or None


class _Values(NamedTuple):
    """One pass over one case: the arguments of a mistake, and what to compare its prediction with."""

    arguments: tuple[Any, ...]
    rows: Array
    actual: Array | None
    right: Array
    allowed: Array


def _masks(seen: Observation) -> _Values:
    case = seen.case
    logits = case.logits.astype(np.float64)
    allowed = tolerance.soft(case.logits, case.temp, case.logits.dtype)
    return _Values((logits, case.temp), seen.rows & ~seen.near_ties, seen.mask, seen.expected_mask, allowed)


def _gradients(seen: Observation) -> _Values:
    case = seen.case
    arguments = (case.grad_mask.astype(np.float64), case.logits.astype(np.float64), case.temp)
    return _Values(arguments, seen.rows, seen.grad_logits, seen.expected_grad_logits, seen.tolerance)


def _cause(seen: list[_Values], mistakes: tuple[tuple[str, Callable[..., Array]], ...]) -> str | None:
    if any(values.actual is None for values in seen):
        return None
    with np.errstate(all="ignore"):
        wrong = [_wrong_rows(values) for values in seen]
        if not any(map(np.any, wrong)):
            return None
        if all(np.all(_is_nan_at_minus_inf(values)[rows]) for values, rows in zip(seen, wrong, strict=True)):
            return "-inf gives NaN"
        fits = [(_misfit(seen, mistake), name) for name, mistake in mistakes]
    worst, name = min(fits)
    return name if worst <= 1 else None


def _wrong_rows(values: _Values) -> Array:
    assert values.actual is not None
    off = np.abs(values.actual.astype(np.float64) - values.right.astype(np.float64))
    return np.asarray(values.rows & np.any(~(off <= values.allowed), axis=-1))


def _is_nan_at_minus_inf(values: _Values) -> Array:
    assert values.actual is not None
    nan = np.any(np.isnan(values.actual.astype(np.float64)), axis=-1)
    return np.asarray(nan & np.any(values.arguments[-2] == -np.inf, axis=-1))


def _misfit(seen: list[_Values], mistake: Callable[..., Array]) -> float:
    """How far a mistake's predictions are off at worst; no further case is asked once one does not fit."""
    worst = 0.0
    for values in seen:
        assert values.actual is not None
        predicted, actual, right, allowed = (
            array[values.rows].astype(np.float64)
            for array in (mistake(*values.arguments), values.actual, values.right, values.allowed)
        )
        off, size, right_size, limit = (
            np.max(np.abs(array), axis=-1, initial=0.0) for array in (actual - predicted, predicted, right, allowed)
        )
        telling = (right_size > 0) & ~np.isnan(size)
        misfit = off / (limit * np.maximum(1.0, size / right_size))
        worst = max(
            worst, float(np.max(np.where(np.isnan(misfit) & ~(off == 0), np.inf, misfit)[telling], initial=0.0))
        )
        if not worst <= 1:
            return np.inf
    return worst
