"""A mistake that explains values, found by trying: each predicts what would come out, and the best one is named.

It fits if no value is farther from its prediction than four times the largest tolerance there, in proportion to the
size of what is predicted, and if most of the wrong values are much nearer to it than to what is right. Where all that
is right is 0 there is no such proportion, and nothing is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Answer", "Mistakes", "explain"]

Array = npt.NDArray[Any]
Mistakes = Sequence[tuple[str, Callable[[Any], Array]]]


class Answer(NamedTuple):
    """One array of an answer, beside what is right; all of one shape.

    Attributes
    ----------
    case : object
        The question, which a mistake is a function of.
    judged : ndarray of bool
        Which entries count.
    actual : ndarray or None
        None if there was none to compute with: then nothing is explained.
    right, allowed : ndarray
        The oracle's, and how far from it an entry may be.
    """

    case: Any
    judged: Array
    actual: Array | None
    right: Array
    allowed: Array


def explain(answers: Sequence[Answer], mistakes: Mistakes) -> str | None:
    """The name of the mistake that fits all answers best; None if nothing is wrong, or nothing fits.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect.testing.explain import Answer, explain
    >>> right = np.array([1.0, 2.0])
    >>> answer = Answer(None, right > 0, -right, right, 1e-6 * right)
    >>> explain([answer], [("halved", lambda _: right / 2), ("negated", lambda _: -right)])
    'negated'
    """
    if any(answer.actual is None for answer in answers):
        return None
    with np.errstate(all="ignore"):
        compared = [_compared(answer, answer.right) for answer in answers]
        wrong = [off > allowed for off, allowed in compared]
        if not any(map(np.any, wrong)):
            return None
        fits = [(_misfit(answers, compared, wrong, mistake), name) for name, mistake in mistakes]
    worst, name = min(fits)
    return name if worst <= 4 else None


def _compared(answer: Answer, other: Array) -> tuple[Array, Array]:
    """How far the entries that count are from others, and what is allowed there."""
    assert answer.actual is not None
    off = np.abs(answer.actual.astype(np.float64) - other.astype(np.float64))[answer.judged]
    return np.where(np.isnan(off), np.inf, off), answer.allowed[answer.judged].astype(np.float64)


def _misfit(
    answers: Sequence[Answer], compared: list[tuple[Array, Array]], wrong: list[Array], mistake: Callable[[Any], Array]
) -> float:
    """How far the predictions are off at worst, in tolerances; infinite if they do not explain what is wrong."""
    worst, explained, count = 0.0, 0, 0
    for answer, (from_right, allowed), at in zip(answers, compared, wrong, strict=True):
        predicted = mistake(answer.case)
        off, _ = _compared(answer, predicted)
        size, right = (
            np.max(np.abs(array.astype(np.float64)[answer.judged]), initial=0.0) for array in (predicted, answer.right)
        )
        if right == 0:  # nothing to compare the size with
            continue
        limit = np.max(allowed) * max(1.0, float(size / right))
        worst = max(worst, float(np.max(off)) / limit if np.any(off) else 0.0)
        if not worst <= 4:
            return np.inf
        explained += int(np.sum(at & (off <= from_right / 16)))
        count += int(np.sum(at))
    return worst if explained >= 0.75 * count else np.inf
