"""A mistake that explains values, found by trying: each predicts what would come out, and the best one is named.

A prediction fits a group of entries (a row, or a whole array) if it is no farther from the actual values than four
times the group's largest tolerance, in proportion to the size of what is predicted. It must fit every group, and be
much nearer than the right values are to most of the wrong ones: many a mistake changes next to nothing. Where all that
is right is 0 there is no such proportion, and no size is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from npselect.testing.aliases import Array

__all__ = ["Answer", "distance", "explain", "wrong"]

Q = TypeVar("Q")


class Answer(NamedTuple, Generic[Q]):
    """One array of an answer, beside what is right; all of one shape, its groups along the last axis.

    Attributes
    ----------
    question : object
        Which a mistake is a function of.
    counts : ndarray of bool
        Which entries are judged.
    actual : ndarray or None
        None if there was none to compute with: then nothing is explained.
    right, allowed : ndarray
        The oracle's, and how far from it an entry may be.
    largest : float
        The largest number of the dtype: predictions beyond are infinite.
    exact : bool
        Whether what is not right is wrong, however near it is.
    """

    question: Q
    counts: Array
    actual: Array | None
    right: Array
    allowed: Array
    largest: float = np.inf
    exact: bool = False

    def as_one_group(self) -> Answer[Q]:
        """The same entries, judged together."""
        counts, right, allowed = (array.reshape(1, -1) for array in (self.counts, self.right, self.allowed))
        actual = None if self.actual is None else self.actual.reshape(1, -1)
        return self._replace(counts=counts, actual=actual, right=right, allowed=allowed)


def explain(answers: Sequence[Answer[Q]], mistakes: Sequence[tuple[str, Callable[[Q], Array]]]) -> str | None:
    """The name of the mistake that fits all answers best; None if nothing is wrong, or nothing fits.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect.testing.explain import Answer, explain
    >>> right = np.array([[1.0, 2.0]])
    >>> answer = Answer(None, right > 0, -right, right, 1e-6 * right)
    >>> explain([answer], [("halved", lambda _: right / 2), ("negated", lambda _: -right)])
    'negated'
    """
    if any(answer.actual is None for answer in answers):
        return None
    with np.errstate(all="ignore"):
        if not any(np.any(wrong(answer)) for answer in answers):
            return None
        fits = [(_misfit(answers, mistake), name, mistake) for name, mistake in mistakes]
        likely = [(worst, name) for worst, name, mistake in fits if worst <= 4 and _explains(answers, mistake)]
    return min(likely)[1] if likely else None


def distance(answer: Answer[Q], other: Array) -> Array:
    """How far the answer is from others; 0 where they are the same infinity."""
    assert answer.actual is not None
    actual, other = answer.actual.astype(np.float64), other.astype(np.float64)
    return np.asarray(np.where(actual == other, 0.0, np.abs(actual - other)))


def wrong(answer: Answer[Q]) -> Array:
    """Which entries are judged, and wrong."""
    allowed = 0.0 if answer.exact else answer.allowed
    return np.asarray(answer.counts & ~(distance(answer, answer.right) <= allowed))


def _predicted(answer: Answer[Q], mistake: Callable[[Q], Array]) -> Array:
    """What a mistake predicts, in the range of the dtype."""
    exact = mistake(answer.question).reshape(answer.right.shape)
    return np.where(np.abs(exact) > answer.largest, np.copysign(np.inf, exact), exact)


def _misfit(answers: Sequence[Answer[Q]], mistake: Callable[[Q], Array]) -> float:
    """How far a mistake's predictions are off at worst, in tolerances; no further answer is asked once that is much."""
    worst = 0.0
    for answer in answers:
        predicted = _predicted(answer, mistake)
        off, size, right_size, limit = (
            np.max(np.where(answer.counts, np.abs(array.astype(np.float64)), 0.0), axis=-1, initial=0.0)
            for array in (distance(answer, predicted), predicted, answer.right, answer.allowed)
        )
        groups = np.any(answer.counts, axis=-1)
        predicted = predicted[groups]
        if np.all(predicted == predicted[:1]):  # groups were added up, and so were their errors
            limit = np.full_like(limit, np.sum(limit[groups]))
        telling = (right_size > 0) & ~np.isnan(size)
        misfit = np.where(off == 0, 0.0, off / (limit * np.maximum(1.0, size / right_size)))
        worst = max(worst, float(np.max(np.where(np.isnan(misfit), np.inf, misfit)[telling], initial=0.0)))
        if not worst <= 4:
            return np.inf
    return worst


def _explains(answers: Sequence[Answer[Q]], mistake: Callable[[Q], Array]) -> bool:
    """Whether most of the wrong values are what a mistake predicts, rather than what is right; NaN tells nothing."""
    count = explained = 0
    for answer in answers:
        assert answer.actual is not None
        at, predicted = wrong(answer), _predicted(answer, mistake)
        nearer = distance(answer, predicted) <= distance(answer, answer.right) / 16
        at &= ~(np.isnan(predicted) & np.isnan(answer.actual.astype(np.float64)))
        count, explained = count + int(np.sum(at)), explained + int(np.sum(at & nearer))
    return explained >= 0.75 * count > 0
