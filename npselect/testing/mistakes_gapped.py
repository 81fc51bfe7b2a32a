"""Mistakes of `gapped`, by their causes: what comes out in the place of ``J(softmax(moved / temp)) g / temp``.

There ``moved_d`` is the largest logit, d being drawn, and ``moved_j`` the smaller of ``logits_j`` and that less a gap.
"""

from __future__ import annotations

import numpy as np

from npselect.testing.aliases import Array
from npselect.testing.mistakes import Mistakes, Rows, candidates, mask_of, mean, probs, weighted
from npselect.testing.mistakes_backward import of_any
from npselect.testing.mistakes_forward import OF_INDEX
from npselect.testing.relatives import relatives
from npselect.testing.textbook import adaptive_gap

__all__ = ["BACKWARD", "FORWARD", "adaptive", "right"]


def adaptive(q: Rows, most: float = 1.0) -> Array:
    """``-log(1 - p_d) / p_d``, of a p_d times `most`."""
    if most == 1:
        return adaptive_gap(q.w, q.selected == 1)
    of_drawn = most * np.sum(np.where(q.selected == 1, probs(q.w), 0.0), axis=-1, keepdims=True)
    return np.where(of_drawn > 0, -np.log1p(-of_drawn) / of_drawn, 1.0)


def right(q: Rows, gap: Array | float | None = None, selected: Array | None = None, temp: float | None = None) -> Array:
    """The gradient, with the question's gap or another one."""
    given: Array | float | str = q.question.gap if gap is None else gap
    least = adaptive(q) if isinstance(given, str) else given
    drawn = (q.selected if selected is None else selected) == 1
    z = q.w - np.max(q.w, axis=-1, keepdims=True)
    moved = np.where(drawn, 0.0, np.minimum(z, -least))
    return _at(q, np.where(q.w > -np.inf, moved, -np.inf), drawn, q.temp if temp is None else temp)


def _at(q: Rows, moved: Array, drawn: Array, temp: float, divisor: float | None = None) -> Array:
    """The gradient of a softmax of logits that are moved in some way."""
    h = candidates(q, q.g)
    h = candidates(q, h - np.sum(drawn * h, axis=-1, keepdims=True))
    return weighted(probs(moved, temp), h, temp if divisor is None else divisor)


def _moved(q: Rows, up: bool, down: bool) -> Array:
    """One of the two moves alone; with both, every other candidate goes down."""
    drawn, top, gap = q.selected == 1, np.max(q.w, axis=-1, keepdims=True), _gap(q)
    others = q.w - gap if up and down else np.minimum(q.w, top - gap) if down else q.w
    return _at(q, np.where(drawn, top if up else q.w, others), drawn, q.temp)


def _gap(q: Rows) -> Array | float:
    return adaptive(q) if isinstance(q.question.gap, str) else q.question.gap


def _without_the_mean(q: Rows) -> Array:
    drawn, z = q.selected == 1, q.w - np.max(q.w, axis=-1, keepdims=True)
    return probs(np.where(drawn, 0.0, np.minimum(z, -_gap(q))), q.temp) * candidates(q, q.g) / q.temp


FORWARD: Mistakes = OF_INDEX
"""Mistakes of the forward pass."""

BACKWARD: Mistakes = (
    *of_any(right),
    *relatives("categorical", "reinmax"),
    ("1/temp is missing", lambda q: right(q) * q.temp),
    ("divided by temp twice", lambda q: right(q) / q.temp),
    ("multiplied by temp instead of divided", lambda q: right(q) * q.temp**2),
    ("the gap is in units of temp", lambda q: right(q, _gap(q) * q.temp)),
    ("the gap is taken for 'adaptive'", lambda q: right(q, adaptive(q))),
    ("there is no gap: the drawn candidate is moved up, and no other down", lambda q: _moved(q, up=True, down=False)),
    ("the drawn candidate is not moved up to the largest", lambda q: _moved(q, up=False, down=True)),
    (
        "all others are moved down by the gap, near or not (or the drawn candidate above the largest)",
        lambda q: _moved(q, up=True, down=True),
    ),
    ("the largest is taken for what was sampled", lambda q: right(q, selected=mask_of(q.w))),
    ("probs * grad_mask / temp, without the mean", _without_the_mean),
    ("mean over candidates", lambda q: right(q) / np.sum(q.w > -np.inf, axis=-1, keepdims=True)),
    ("mean over candidates", lambda q: right(q) / q.w.shape[-1]),
    ("no gradient to what was not selected", lambda q: q.selected * right(q)),
    ("the mean of grad_mask is not weighted", lambda q: candidates(q, _unweighted(q))),
)
"""Mistakes of the backward pass."""


def _unweighted(q: Rows) -> Array:
    g = candidates(q, q.g)
    uniform = candidates(q, 1 / np.sum(q.w > -np.inf, axis=-1, keepdims=True))
    drawn, z = q.selected == 1, q.w - np.max(q.w, axis=-1, keepdims=True)
    p = probs(np.where(q.w > -np.inf, np.where(drawn, 0.0, np.minimum(z, -_gap(q))), -np.inf), q.temp)
    return np.asarray(p * (g - mean(uniform, g)) / q.temp)
