"""Likely causes of what is wrong with a selection layer: each known mistake predicts values, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from npselect.testing import causes, tolerance
from npselect.testing.aliases import Array
from npselect.testing.explain import Answer, explain
from npselect.testing.judge import Observation
from npselect.testing.profile import Profile
from npselect.testing.selection_case import SelectionCase

__all__ = ["CHOSEN", "GRAD_LOGITS", "GRAD_X", "SelectionObservation", "likely_cause"]


class SelectionObservation(NamedTuple):
    """What a layer returned for a case that was judged; None where there was no array."""

    case: SelectionCase
    answers: dict[str, Array | None]


# ------------------------------------------------------------------------------------------------ the mistakes


def _probs(case: SelectionCase, w: Array | None = None) -> Array:
    w = case.question.w if w is None else w
    e = np.exp((w - np.max(w, axis=-1, keepdims=True)) / case.temp)
    return np.asarray(e / np.sum(e, axis=-1, keepdims=True))


def _hard(w: Array) -> Array:
    return np.asarray(np.arange(w.shape[-1]) == np.argmax(w, axis=-1)[:, None], np.float64)


def _last(case: SelectionCase) -> Array:
    return np.ascontiguousarray(_hard(case.question.w[:, ::-1])[:, ::-1])


def _logits(case: SelectionCase) -> Array:
    """With the noise, and without where."""
    added = 0.0 if case.noise is None else case.noise.astype(np.float64)
    return np.asarray(case.logits.astype(np.float64) + added)


def _mixed(case: SelectionCase, weights: Array) -> Array:
    return np.asarray(np.einsum("bk,bkd->bd", weights, case.vectors))


def _gradient(case: SelectionCase, g: Array) -> Array:
    p = _probs(case)
    return np.asarray(p * (g - np.sum(p * g, axis=-1, keepdims=True)) / case.temp)


def _without_noise(case: SelectionCase) -> Array:
    w = case.question.w
    return w if case.noise is None else np.where(w > -np.inf, case.logits.astype(np.float64), w)


def _assigned(case: SelectionCase, order: slice) -> Array:
    """The cotangent of one of the rows that select a vector."""
    if case.x.ndim == 3:
        return case.to_vectors(case.mask)
    result = np.zeros(case.x.shape)
    for row in range(len(case.logits))[order]:
        result[int(np.argmax(case.mask[row]))] = case.grad_chosen[row].astype(np.float64)
    return result


def _per_selecting_row(case: SelectionCase) -> Array:
    return case.to_vectors(case.mask) / np.maximum(case.over_x(case.mask[:, :, None]), 1)


CHOSEN = (
    ("the soft mixture probs @ x is returned, not the selected vector", lambda case: _mixed(case, _probs(case))),
    ("the last of equals is selected", lambda case: _mixed(case, _last(case))),
    ("the smallest is selected", lambda case: _mixed(case, _hard(-case.question.w))),
    ("wrong axis", lambda case: _mixed(case, _hard(case.question.w.T).T)),
    ("where= is ignored", lambda case: _mixed(case, _hard(_logits(case)))),
    ("the noise is missing", lambda case: _mixed(case, _hard(_without_noise(case)))),
    ("the selected vector is multiplied by its probability", lambda case: _mixed(case, case.mask * _probs(case))),
    ("the mean of all vectors", lambda case: np.mean(case.vectors, axis=1)),
)
"""Mistakes of the forward pass."""

GRAD_X = (
    ("x is detached: its gradient is 0", lambda case: np.zeros(case.x.shape)),
    ("every vector has a gradient, by probs instead of the mask", lambda case: case.to_vectors(_probs(case))),
    ("every vector has the whole gradient", lambda case: case.to_vectors(np.ones(case.logits.shape))),
    ("the mean over the rows, not the sum", lambda case: case.to_vectors(case.mask) / max(1, len(case.logits))),
    ("the mean over the rows that select a vector, not the sum", _per_selecting_row),
    ("assigned, not added: of the rows that select a vector the last one", lambda case: _assigned(case, slice(None))),
    (
        "assigned, not added: of the rows that select a vector the first one",
        lambda case: _assigned(case, slice(None, None, -1)),
    ),
    ("the sign is flipped", lambda case: -case.to_vectors(case.mask)),
    ("multiplied by the probability", lambda case: case.to_vectors(case.mask * _probs(case))),
)
"""Mistakes of the gradient of x."""

GRAD_LOGITS = (
    ("<grad_chosen, x> of the selected vector alone", lambda case: _gradient(case, case.mask * case.g)),
    ("the mean over the features, not the sum", lambda case: _gradient(case, case.g / case.x.shape[-1])),
    ("<grad_chosen, x> itself, without the softmax's Jacobian", lambda case: case.g),
)
"""Mistakes of the gradient of the logits, beside those of `npselect.testing.causes`."""


# ------------------------------------------------------------------------------------------------ naming them


def likely_cause(seen: Sequence[SelectionObservation], profile: Profile) -> str | None:
    """The mistakes that explain the values that are wrong, or None."""
    seen = [one for one in seen if one.case.logits.size]
    with np.errstate(all="ignore"):
        found = {
            "chosen": _of_chosen(seen, profile),
            "grad_x": _of_grad_x(seen, profile),
            "grad_logits": _of_grad_logits(seen, profile),
        }
    return "; ".join(f"{result}: {cause}" for result, cause in found.items() if cause) or None


def _answers(seen: Sequence[SelectionObservation], result: str, profile: Profile) -> list[Answer[SelectionCase]]:
    """One of the results in all cases, beside what is right."""
    answers = []
    for case, given in seen:
        actual, right = given[result], getattr(case, result)
        if actual is None or actual.shape != right.shape or actual.dtype != right.dtype:
            actual = None
        answers.append(Answer(case, np.ones(right.shape, np.bool_), actual, right, case.allowed(result, profile)))
    return answers


def _wider(answers: list[Answer[SelectionCase]], profile: Profile, result: str) -> list[Answer[SelectionCase]]:
    """A prediction with probs in it is off by their error, and by that of sums."""
    wider = []
    for answer in answers:
        case, u = answer.question, tolerance.Format.of(answer.right.dtype).unit
        error = tolerance.soft(case.question.w, case.temp, case.logits.dtype, profile.arithmetic)
        p = _probs(case)
        weights = error + (sum(case.x.shape) + len(p)) * u * p
        if result == "chosen":
            more = np.einsum("bk,bkd->bd", weights, np.abs(case.vectors))
        else:
            more = case.over_x(weights[:, :, None] * np.abs(case.grad_chosen.astype(np.float64))[:, None])
        wider.append(answer._replace(allowed=answer.allowed + more))
    return wider


def _of_chosen(seen: Sequence[SelectionObservation], profile: Profile) -> str | None:
    answers = _answers(seen, "chosen", profile)
    if any(answer.actual is None for answer in answers):
        return None
    off = [answer.actual.astype(np.float64) - answer.right for answer in answers if answer.actual is not None]
    if not any(map(np.any, off)):
        return None
    limits = [
        4 * tolerance.Format.of(answer.right.dtype).unit * np.max(np.abs(answer.question.vectors), axis=1)
        for answer in answers
    ]
    if all(np.all(np.abs(one) <= limit) for one, limit in zip(off, limits, strict=True)):
        return "the selected vector up to rounding: soft + (hard - soft) is not hard"
    return explain([answer.as_one_group() for answer in _wider(answers, profile, "chosen")], CHOSEN)


def _of_grad_x(seen: Sequence[SelectionObservation], profile: Profile) -> str | None:
    for case, given in seen:
        actual = given["grad_x"]
        if case.x.ndim == 2 and actual is not None and actual.shape == (len(case.logits), *case.x.shape):
            return "not summed over the rows that share x"
    answers = _answers(seen, "grad_x", profile)
    if any(answer.actual is None for answer in answers):
        return None
    off = (np.abs(answer.actual.astype(np.float64) - answer.right) > answer.allowed for answer in answers
           if answer.actual is not None)  # fmt: skip
    if not any(map(np.any, off)):
        return None
    return explain([answer.as_one_group() for answer in _wider(answers, profile, "grad_x")], GRAD_X)


def _of_grad_logits(seen: Sequence[SelectionObservation], profile: Profile) -> str | None:
    answers = _answers(seen, "grad_logits", profile)
    wider = [answer._replace(allowed=answer.allowed + answer.question.error_of_g(profile)) for answer in answers]
    own = explain([answer.as_one_group() for answer in wider], GRAD_LOGITS)
    if own is not None:
        return own
    observations = [
        Observation(
            answer.question.question,
            np.ones(len(answer.right), np.bool_),
            np.zeros(len(answer.right), np.bool_),
            None,
            answer.actual,
            answer.question.mask,
            answer.right,
            answer.allowed,
        )
        for answer in answers
    ]
    general = causes.likely_cause(observations)
    return None if general is None else general.removeprefix("backward: ")
