"""Likely causes: the mistakes of an operator's family, and the symptoms of those that nobody can predict exactly."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import numpy as np

from npselect.testing import symptoms, tolerance
from npselect.testing.aliases import Array
from npselect.testing.case import Case
from npselect.testing.explain import Answer, distance, explain, wrong
from npselect.testing.judge import Observation
from npselect.testing.mistakes import Mistakes, Rows, candidates, probs, rows_of
from npselect.testing.profile import Profile

__all__ = ["likely_cause", "setting_cause"]


def likely_cause(observations: Iterable[Observation]) -> str | None:
    """The mistakes that explain all the values of a pass that has wrong ones, or None.

    Parameters
    ----------
    observations : iterable of Observation
        Of the cases that were judged, all of one operator.
    """
    seen = [observation for observation in observations if observation.case.logits.size]
    if not seen:
        return None
    family = seen[0].case.family
    masks_differ = any(one.mask is None or not np.array_equal(one.mask, one.expected_mask) for one in seen)
    masks = [_masks(observation) for observation in seen if masks_differ]  # their bounds take time
    gradients = [_gradients(observation) for observation in seen]
    causes = {
        "forward": _cause(masks, family.forward_mistakes, family.forward_symptoms),
        "backward": _cause(gradients, family.backward_mistakes, family.backward_symptoms)
        or _lost_digits(gradients, [observation.case for observation in seen]),
    }
    return "; ".join(f"{direction}: {cause}" for direction, cause in causes.items() if cause) or None


def setting_cause(observations: Iterable[Observation]) -> str | None:
    """The mistakes that explain all the values of cases with settings, where what is plain is right."""
    seen = [observation for observation in observations if observation.case.logits.size]
    if not seen:
        return None
    mistakes = seen[0].case.family.setting_mistakes
    causes = {
        "forward": explain([_masks(one) for one in seen], mistakes.forward),
        "backward": explain([_gradients(one) for one in seen], mistakes.backward),
    }
    return "; ".join(f"{direction}: {cause}" for direction, cause in causes.items() if cause) or None


def _cause(
    answers: Sequence[Answer[Rows]], mistakes: Mistakes, known_symptoms: Sequence[symptoms.Symptom]
) -> str | None:
    name = explain(answers, mistakes)
    if name is not None or any(answer.actual is None for answer in answers):
        return name
    with np.errstate(all="ignore"):
        if not any(np.any(wrong(answer)) for answer in answers):
            return None
        passes = [_pass(answer) for answer in answers]
        return next((name for symptom in known_symptoms if (name := symptom(passes))), None)


def _masks(seen: Observation) -> Answer[Rows]:
    allowed = tolerance.soft(seen.case.w, seen.case.temps, seen.case.logits.dtype)
    rows = seen.rows & ~seen.near_ties
    return _answer(seen.case, rows, seen.mask, seen.expected_mask, allowed)._replace(exact=True)


def _gradients(seen: Observation) -> Answer[Rows]:
    return _answer(seen.case, seen.rows, seen.grad_logits, seen.expected_grad_logits, seen.tolerance)


def _answer(case: Case, rows: Array, actual: Array | None, right: Array, allowed: Array) -> Answer[Rows]:
    counts = np.broadcast_to(rows[:, None], right.shape)
    largest = tolerance.Format.of(case.logits.dtype).largest
    return Answer(rows_of(case), counts, actual, right, allowed, largest)


def _pass(answer: Answer[Rows]) -> symptoms.Pass:
    """As symptoms look at it."""
    assert answer.actual is not None
    q, off, at = answer.question, distance(answer, answer.right), np.any(wrong(answer), axis=-1)
    judged = np.any(answer.counts, axis=-1)
    arrays = (candidates(q, q.g), q.w, answer.actual, answer.right, off, answer.allowed, at)
    g, w, actual, right, off, allowed, at = (array[judged] for array in arrays)
    form = tolerance.Format.of(q.question.logits.dtype)
    top = float(np.max(q.w))
    return symptoms.Pass(g, w, top, q.temp, form, actual.astype(np.float64), right.astype(np.float64), off, allowed, at)


# ------------------------------------------------------------------------------------------------ logits normalised


def _lost_digits(answers: Sequence[Answer[Rows]], cases: Sequence[Case]) -> str | None:
    if any(answer.actual is None for answer in answers):
        return None
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of medians of nothing
        if not _are_of_log_softmax(answers, cases):
            return None
    return "small gradients lose their digits, as logits are normalised first, which normalises_logits = True declares"


def _are_of_log_softmax(answers: Sequence[Answer[Rows]], cases: Sequence[Case]) -> bool:
    """Whether errors are those of logits that were normalised first: within that bound, ``q_i`` times one of the row's.

    See `npselect.testing.tolerance`: where p is far smaller than ``q = softmax(logits)``, what is left is ``-q_i S``.
    """
    declared = Profile("standard", normalises_logits=True)
    count = explained = 0
    for answer, case in zip(answers, cases, strict=True):
        at = wrong(answer)
        if not np.any(at):
            continue
        assert answer.actual is not None
        if np.any(distance(answer, answer.right)[at] > case.allowed(declared)[at]):
            return False
        q = probs(answer.question.logits)
        error = np.where(at, answer.actual.astype(np.float64) - answer.right, np.nan)
        several = np.count_nonzero(at, axis=-1) > 2
        error, q = error[several], q[several]
        rest = np.abs(error - q * np.nanmedian(error / q, axis=-1, keepdims=True))
        count, explained = count + int(np.sum(at)), explained + int(np.sum(rest <= np.abs(error) / 16))
    return 2 * explained >= count > 0
