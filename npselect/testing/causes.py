"""Likely causes, found by trying: each known mistake predicts values, and the one that predicts them best is named.

A mistake is a function of the question, in float64. What it predicts fits a row if it is no farther from the actual
values than four times the row's largest tolerance, in proportion to the size of what is predicted. It must fit every
row, and be much nearer than the right values are to most of the wrong ones: many a mistake changes next to nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from npselect.testing import signs, tolerance
from npselect.testing.case import Case
from npselect.testing.compare import Allowed
from npselect.testing.judge import Observation
from npselect.testing.layouts import memory

__all__ = ["BACKWARD", "FORWARD", "likely_cause"]

Array = npt.NDArray[Any]


class _Question(NamedTuple):
    """The arguments of a case as rows: (rows, K) in float64."""

    g: Array
    w: Array  # noise added, -inf at excluded entries
    temp: float
    added: Array  # the noise, or zeros
    case: Case

    @property
    def logits(self) -> Array:
        """Without the noise."""
        return self.w - self.added


Mistake = Callable[[_Question], Array]


def _probs(w: Array, temp: float = 1.0, axis: int | None = -1) -> Array:
    e = np.exp((w - np.max(w, axis=axis, keepdims=True)) / temp)
    return np.asarray(e / np.sum(e, axis=axis, keepdims=True))


def _one_hot(index: Array, choices: int) -> Array:
    return np.asarray(np.arange(choices) == index[:, None], np.float64)


def _mask(w: Array) -> Array:
    return _one_hot(np.argmax(w, axis=-1), w.shape[-1])


def _log_probs(w: Array, temp: float) -> Array:
    t = (w - np.max(w, axis=-1, keepdims=True)) / temp
    return np.asarray(t - np.log(np.sum(np.exp(t), axis=-1, keepdims=True)))


def _gradient(g: Array, w: Array, temp: float) -> Array:
    h = g - np.take_along_axis(g, np.argmax(w, axis=-1, keepdims=True), axis=-1)
    return _weighted(_probs(w, temp), h, temp)


def _weighted(p: Array, g: Array, temp: float) -> Array:
    """The formula, whatever the probabilities are."""
    return np.asarray(p * (g - _mean(p, g)) / temp)


def _mean(weights: Array, g: Array) -> Array:
    return np.asarray(np.sum(weights * g, axis=-1, keepdims=True))


def _over_the_batch(q: _Question, axis: int | None = -1) -> Array:
    p = _probs(q.w, q.temp, axis)
    return np.asarray(p * (q.g - np.sum(p * q.g)) / q.temp)


def _clamped(q: _Question, least: float) -> Array:
    return _weighted(np.maximum(_probs(q.w, q.temp), least), q.g, q.temp)


def _candidates(q: _Question, values: Array) -> Array:
    return np.where(q.w > -np.inf, values, 0.0)


def _uniform(q: _Question) -> Array:
    """Over the candidates."""
    return _candidates(q, 1 / np.sum(q.w > -np.inf, axis=-1, keepdims=True))


def _mixed(p: Array, uniform: Array | float, share: float) -> Array:
    return np.asarray((1 - share) * p + share * uniform)


def _mixed_before_noise(q: _Question, share: float) -> Array:
    """What is chosen from then."""
    return np.asarray(np.log(_mixed(_probs(q.logits), _uniform(q), share)) + q.added)


def _through_the_mixture(q: _Question, share: float) -> Array:
    """Of ``log((1 - share) probs + share uniform) + noise``, back to the logits."""
    p = _probs(q.logits)
    arrived = _gradient(q.g, _mixed_before_noise(q, share), q.temp)
    return (1 - share) * _weighted(p, _candidates(q, arrived / _mixed(p, _uniform(q), share)), 1.0)


def _of_the_largest(q: _Question, k: int) -> Array:
    if k >= q.w.shape[-1]:
        return q.w
    return np.where(q.w >= np.partition(q.w, -k, axis=-1)[:, -k, None], q.w, -np.inf)


def _index_in(q: _Question, dtype: Any, choices_too: bool = False) -> Array:
    """The mask of an index that is carried in a dtype; ``choices_too``: and so are the choices it is compared with."""
    index, choices = np.argmax(q.w, axis=-1).astype(dtype), np.arange(q.w.shape[-1])
    return np.asarray(index[:, None] == (choices.astype(dtype) if choices_too else choices), np.float64)


def _counted_from_the_end(q: _Question, dtype: Any) -> Array:
    """As Python takes an index that has become negative."""
    index = np.argmax(q.w, axis=-1).astype(dtype).astype(np.int64)
    return _one_hot(np.where(index < 0, index + q.w.shape[-1], index), q.w.shape[-1])


def _flushed(q: _Question) -> Array:
    tiny = tolerance.Format.of(q.case.logits.dtype).tiny

    def flush(values: Array) -> Array:
        return np.where(np.abs(values) < tiny, 0.0, values)

    p = flush(_probs(q.w, q.temp))
    return flush(flush(p * (q.g - _mean(p, q.g))) / q.temp)


def _along_the_last_axis(q: _Question, function: Callable[..., Array]) -> Array:
    """Of the arrays as given, in rows of the case again."""
    w = q.case.logits.astype(np.float64)
    if q.case.noise is not None:
        w = w + q.case.noise.astype(np.float64)
    if q.case.where is not None:
        w = np.where(q.case.where, w, -np.inf)
    return q.case.rows(function(q.case.grad_mask.astype(np.float64), w))


def _without_where(q: _Question) -> Array:
    return q.case.rows(q.case.logits.astype(np.float64)) + q.added


def _where_inverted(q: _Question) -> Array:
    if q.case.where is None:
        return q.w
    return np.where(q.case.rows(np.broadcast_to(q.case.where, q.case.logits.shape)), -np.inf, _without_where(q))


def _in_memory(array: Array) -> Array:
    """What is found where an array begins, by whom takes its rows for adjacent."""
    flat, shape, _ = memory(array)
    return flat[: array.size].reshape(shape)


def _mistaken_order(q: _Question) -> tuple[Array, Array]:
    """Cotangents and logits, with the noise and -inf at excluded entries, of which the memory was read in C order."""
    other = replace(q.case, logits=_in_memory(q.case.logits), grad_mask=_in_memory(q.case.grad_mask))
    return other.rows(other.grad_mask.astype(np.float64)), other.w


_SHARES = (1e-3, 0.01, 0.02, 0.05, 0.1)


def _mixtures(share: float) -> tuple[Mistake, ...]:
    """Differentiated; or in the place of the probabilities, over all choices or over the candidates."""
    return (
        lambda q: (1 - share) * _gradient(q.g, q.w, q.temp),
        lambda q: _weighted(_mixed(_probs(q.w, q.temp), 1 / q.w.shape[-1], share), q.g, q.temp),
        lambda q: _weighted(_mixed(_probs(q.w, q.temp), _uniform(q), share), q.g, q.temp),
    )


BACKWARD: tuple[tuple[str, Mistake], ...] = (
    ("grad_mask is taken for contiguous in memory", lambda q: _gradient(_mistaken_order(q)[0], q.w, q.temp)),
    ("logits are taken for contiguous in memory", lambda q: _gradient(q.g, _mistaken_order(q)[1], q.temp)),
    ("arrays are taken for contiguous in memory", lambda q: _gradient(*_mistaken_order(q), q.temp)),
    ("1/temp is missing", lambda q: _gradient(q.g, q.w, q.temp) * q.temp),
    ("divided by temp twice", lambda q: _gradient(q.g, q.w, q.temp) / q.temp),
    ("multiplied by temp instead of divided", lambda q: _gradient(q.g, q.w, q.temp) * q.temp**2),
    ("temp is ignored, as though it were 1", lambda q: _gradient(q.g, q.w, 1.0)),
    ("the softmax is taken of logits, not of logits / temp", lambda q: _gradient(q.g, q.w, 1.0) / q.temp),
    ("the softmax is taken of logits * temp", lambda q: _gradient(q.g, q.w, 1 / q.temp) / q.temp**2),
    ("the sign is flipped", lambda q: -_gradient(q.g, q.w, q.temp)),
    ("the gradient of the hard mask, which is 0", lambda q: np.zeros_like(q.g)),
    ("grad_mask is passed straight through (identity)", lambda q: q.g),
    ("grad_mask is passed straight through (identity), over temp", lambda q: q.g / q.temp),
    ("probs * grad_mask / temp, without the mean", lambda q: _probs(q.w, q.temp) * q.g / q.temp),
    (
        "mask instead of probs in the backward pass",
        lambda q: _probs(q.w, q.temp) * (q.g - _mean(_mask(q.w), q.g)) / q.temp,
    ),
    (
        "mask instead of probs in the backward pass",
        lambda q: _mask(q.w) * (q.g - _mean(_probs(q.w, q.temp), q.g)) / q.temp,
    ),
    ("no gradient to the candidates that were not selected", lambda q: _mask(q.w) * _gradient(q.g, q.w, q.temp)),
    (
        "grad_mask counts at the selected entry only",
        lambda q: _weighted(_probs(q.w, q.temp), _mask(q.w) * _candidates(q, q.g), q.temp),
    ),
    ("grad_mask is passed straight through to the selected entry only", lambda q: _mask(q.w) * q.g),
    ("grad_mask is passed straight through to the selected entry only", lambda q: _mask(q.w) * q.g / q.temp),
    *(("log-probabilities instead of probabilities", mistake) for mistake in (
        lambda q: (q.g - _probs(q.w, q.temp) * _mean(np.ones_like(q.g), q.g)) / q.temp,
        lambda q: _candidates(
            q, q.g - _probs(q.w, q.temp) * _mean(np.ones_like(q.g), _candidates(q, q.g))) / q.temp,
        lambda q: _weighted(_log_probs(q.w, q.temp), q.g, q.temp),
        lambda q: _weighted(_candidates(q, _log_probs(q.w, q.temp)), q.g, q.temp),
    )),
    ("wrong axis", lambda q: _gradient(q.g.T, q.w.T, q.temp).T),
    ("axis= is ignored", lambda q: _along_the_last_axis(q, lambda g, w: _gradient(g, w, q.temp))),
    ("where= is ignored", lambda q: _gradient(q.g, _without_where(q), q.temp)),
    ("where= is taken for what is excluded", lambda q: _gradient(q.g, _where_inverted(q), q.temp)),
    ("grad_mask and logits are swapped", lambda q: _gradient(q.logits, q.g + q.added, q.temp)),
    ("sum over the batch", _over_the_batch),
    ("sum over the batch", lambda q: np.sum(_gradient(q.g, q.w, q.temp), axis=0, keepdims=True) + 0 * q.g),
    ("mean over the batch", lambda q: _gradient(q.g, q.w, q.temp) / len(q.w)),
    ("mean over the batch", lambda q: np.mean(_gradient(q.g, q.w, q.temp), axis=0, keepdims=True) + 0 * q.g),
    ("mean over the choices", lambda q: _gradient(q.g, q.w, q.temp) / q.w.shape[-1]),
    ("the softmax runs over the whole batch", lambda q: _over_the_batch(q, axis=None)),
    *((f"probs are kept from falling below {least:g}", lambda q, least=least: _clamped(q, least))
      for least in (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)),
    *((f"probs are mixed with the uniform distribution, to {share:g}", mistake)
      for share in _SHARES for mistake in _mixtures(share)),
    *((f"the softmax is taken of the {k} largest alone", lambda q, k=k: _gradient(q.g, _of_the_largest(q, k), q.temp))
      for k in (2, 3, 4, 5, 8, 10, 20, 40, 50)),
    ("subnormal numbers are taken for 0, which flushes_subnormals = True declares", _flushed),
    *((f"the gradient is clipped at {most:g}", lambda q, most=most: np.clip(_gradient(q.g, q.w, q.temp), -most, most))
      for most in (0.1, 1.0, 5.0, 10.0, 100.0)),
)  # fmt: skip
"""Mistakes of the backward pass."""

FORWARD: tuple[tuple[str, Mistake], ...] = (
    ("logits are taken for contiguous in memory", lambda q: _mask(_mistaken_order(q)[1])),
    (
        "the last of equals is selected",
        lambda q: _one_hot(q.w.shape[-1] - 1 - np.argmax(q.w[:, ::-1], axis=-1), q.w.shape[-1]),
    ),
    ("all of equals are selected", lambda q: (q.w == np.max(q.w, axis=-1, keepdims=True)).astype(np.float64)),
    ("+0 is taken for larger than -0", lambda q: _mask(np.where(q.w == 0, np.copysign(1e-300, q.w), q.w))),
    ("the smallest is selected", lambda q: _mask(-q.w)),
    ("wrong axis", lambda q: _mask(q.w.T).T),
    ("axis= is ignored", lambda q: _along_the_last_axis(q, _hard)),
    ("where= is ignored", lambda q: _mask(_without_where(q))),
    ("where= is taken for what is excluded", lambda q: _mask(_where_inverted(q))),
    ("the choice runs over the whole batch", lambda q: _mask(q.w.reshape(1, -1)).reshape(q.w.shape)),
    ("probs instead of the mask", lambda q: _probs(q.w, q.temp)),
    ("log-probabilities instead of the mask", lambda q: _log_probs(q.w, q.temp)),
    *(
        (f"the index is carried as {np.dtype(form).name}", lambda q, form=form: _index_in(q, form))
        for form in (np.int8, np.uint8, np.int16, np.uint16)
    ),
    *(
        (f"the index is carried as {np.dtype(form).name}", lambda q, form=form: _counted_from_the_end(q, form))
        for form in (np.int8, np.int16)
    ),
    *(
        (f"the index is carried as {np.dtype(form).name}", lambda q, form=form: _index_in(q, form, choices_too=True))
        for form in (np.int8, np.int16, np.float16)
    ),
    ("always the first", lambda q: _one_hot(np.zeros(len(q.w)), q.w.shape[-1])),
)
"""Mistakes of the forward pass."""

WITH_NOISE: tuple[tuple[str, Callable[[_Question], Array]], ...] = (
    ("noise is missing", lambda q: q.logits),
    ("the first row's noise is used in all rows", lambda q: q.logits + q.added[:1]),
    ("noise is subtracted", lambda q: q.logits - q.added),
    ("noise is added after the division by temp", lambda q: q.logits + q.temp * q.added),
    ("noise is divided by temp twice", lambda q: q.logits + q.added / q.temp),
    *((f"probs are mixed with the uniform distribution, to {share:g}, before noise is added",
       lambda q, share=share: _mixed_before_noise(q, share)) for share in _SHARES),
)  # fmt: skip
"""Mistakes with noise: what is chosen from in the place of logits + noise."""

THROUGH_NOISE: tuple[tuple[str, Mistake], ...] = tuple(
    (
        f"probs are mixed with the uniform distribution, to {share:g}, before noise is added",
        partial(_through_the_mixture, share=share),
    )
    for share in _SHARES
)
"""Mistakes of the backward pass with noise, of what is differentiated too."""


def _hard(_: Array, w: Array) -> Array:
    """One-hots along the last axis of any array."""
    return np.asarray(np.arange(w.shape[-1]) == np.argmax(w, axis=-1)[..., None], np.float64)


def likely_cause(observations: Iterable[Observation]) -> str | None:
    """The mistakes that explain all the values of a pass that has wrong ones, or None.

    Parameters
    ----------
    observations : iterable of Observation
        Of the cases that were judged.
    """
    seen = [observation for observation in observations if observation.case.logits.size]
    noisy = bool(seen) and seen[0].case.noise is not None
    forward, backward = FORWARD, BACKWARD
    if noisy:
        forward += tuple((f"{name} in the forward pass", _chosen_from(w)) for name, w in WITH_NOISE)
        backward += tuple((f"{name} in the backward pass", _differentiated_at(w)) for name, w in WITH_NOISE)
        backward += THROUGH_NOISE
    gradients = [_gradients(observation) for observation in seen]
    causes = {
        "forward": _cause([_masks(observation) for observation in seen], forward, signs.FORWARD),
        "backward": _cause(gradients, backward, signs.BACKWARD) or _lost_digits(gradients),
    }
    return "; ".join(f"{direction}: {cause}" for direction, cause in causes.items() if cause) or None


def _lost_digits(seen: list[_Values]) -> str | None:
    if any(values.actual is None for values in seen):
        return None
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of medians of nothing
        if not _are_of_log_softmax(seen):
            return None
    return "small gradients lose their digits, as logits are normalised first, which normalises_logits = True declares"


def _chosen_from(w: Mistake) -> Mistake:
    return lambda q: _mask(w(q))


def _differentiated_at(w: Mistake) -> Mistake:
    return lambda q: _gradient(q.g, w(q), q.temp)


def _are_of_log_softmax(seen: list[_Values]) -> bool:
    """Whether errors are those of logits that were normalised first: within that bound, ``q_i`` times one of the row's.

    See `npselect.testing.tolerance`: where p is far smaller than ``q = softmax(logits)``, what is left is ``-q_i S``.
    """
    declared = Allowed("standard", normalises_logits=True)
    wrong = explained = 0
    for values in seen:
        at = _wrong(values)
        if not np.any(at):
            continue
        assert values.actual is not None
        if np.any(_off(values, values.right)[at] > values.question.case.allowed(declared)[at]):
            return False
        q = _probs(values.question.logits)
        error = np.where(at, values.actual.astype(np.float64) - values.right, np.nan)
        several = np.count_nonzero(at, axis=-1) > 2
        error, q = error[several], q[several]
        rest = np.abs(error - q * np.nanmedian(error / q, axis=-1, keepdims=True))
        wrong, explained = wrong + int(np.sum(at)), explained + int(np.sum(rest <= np.abs(error) / 16))
    return 2 * explained >= wrong > 0


class _Values(NamedTuple):
    """One pass over one case: the question, and what to compare a mistake's prediction with."""

    question: _Question
    rows: Array
    actual: Array | None
    right: Array
    allowed: Array
    exact: bool = False  # whether what is not right is wrong, however near it is


def _question(case: Case) -> _Question:
    added = np.broadcast_to(0.0 if case.noise is None else case.noise.astype(np.float64), case.logits.shape)
    return _Question(case.rows(case.grad_mask.astype(np.float64)), case.w, case.temp, case.rows(added), case)


def _masks(seen: Observation) -> _Values:
    allowed = tolerance.soft(seen.case.w, seen.case.temp, seen.case.logits.dtype)
    return _Values(_question(seen.case), seen.rows & ~seen.near_ties, seen.mask, seen.expected_mask, allowed, True)


def _gradients(seen: Observation) -> _Values:
    return _Values(_question(seen.case), seen.rows, seen.grad_logits, seen.expected_grad_logits, seen.tolerance)


def _cause(
    seen: list[_Values], mistakes: tuple[tuple[str, Mistake], ...], betraying: tuple[signs.Sign, ...]
) -> str | None:
    if any(values.actual is None for values in seen):
        return None
    with np.errstate(all="ignore"):
        if not any(np.any(_wrong(values)) for values in seen):
            return None
        fits = [(_misfit(seen, mistake), name, mistake) for name, mistake in mistakes]
        likely = [(worst, name) for worst, name, mistake in fits if worst <= 4 and _explains(seen, mistake)]
        if likely:
            return min(likely)[1]
        answers = [_answer(values) for values in seen]
        return next((name for sign in betraying if (name := sign(answers))), None)


def _off(values: _Values, other: Array) -> Array:
    assert values.actual is not None
    actual, other = values.actual.astype(np.float64), other.astype(np.float64)
    return np.asarray(np.where(actual == other, 0.0, np.abs(actual - other)))


def _wrong(values: _Values) -> Array:
    allowed = 0.0 if values.exact else values.allowed
    return np.asarray(values.rows[:, None] & ~(_off(values, values.right) <= allowed))


def _answer(values: _Values) -> signs.Seen:
    """As signs look at it."""
    assert values.actual is not None
    q, off, wrong = values.question, _off(values, values.right), np.any(_wrong(values), axis=-1)
    rows = (_candidates(q, q.g), q.w, values.actual, values.right, off, values.allowed, wrong)
    g, w, actual, right, off, allowed, wrong = (array[values.rows] for array in rows)
    form = tolerance.Format.of(q.case.logits.dtype)
    top = float(np.max(q.w))
    return signs.Seen(g, w, top, q.temp, form, actual.astype(np.float64), right.astype(np.float64), off, allowed, wrong)


def _misfit(seen: list[_Values], mistake: Mistake) -> float:
    """How far a mistake's predictions are off at worst, in tolerances; no further case is asked once that is much."""
    worst = 0.0
    for values in seen:
        predicted = _predicted(values, mistake)
        off, size, right_size, limit = (
            np.max(np.abs(array[values.rows].astype(np.float64)), axis=-1, initial=0.0)
            for array in (_off(values, predicted), predicted, values.right, values.allowed)
        )
        predicted = predicted[values.rows]
        if np.all(predicted == predicted[:1]):  # rows were added up, and so were their errors
            limit = np.full_like(limit, np.sum(limit))
        telling = (right_size > 0) & ~np.isnan(size)
        misfit = np.where(off == 0, 0.0, off / (limit * np.maximum(1.0, size / right_size)))
        worst = max(worst, float(np.max(np.where(np.isnan(misfit), np.inf, misfit)[telling], initial=0.0)))
        if not worst <= 4:
            return np.inf
    return worst


def _predicted(values: _Values, mistake: Mistake) -> Array:
    """What a mistake predicts, in the range of the dtype."""
    exact = mistake(values.question)
    largest = tolerance.Format.of(values.question.case.logits.dtype).largest
    return np.where(np.abs(exact) > largest, np.copysign(np.inf, exact), exact)


def _explains(seen: list[_Values], mistake: Mistake) -> bool:
    """Whether most of the wrong values are what a mistake predicts, rather than what is right; NaN tells nothing."""
    wrong = explained = 0
    for values in seen:
        assert values.actual is not None
        at, predicted = _wrong(values), _predicted(values, mistake)
        nearer = _off(values, predicted) <= _off(values, values.right) / 16
        at &= ~(np.isnan(predicted) & np.isnan(values.actual.astype(np.float64)))
        wrong, explained = wrong + int(np.sum(at)), explained + int(np.sum(at & nearer))
    return explained >= 0.75 * wrong > 0
