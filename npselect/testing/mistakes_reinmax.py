"""Mistakes of ReinMax, by their causes: what comes out in the place of ``2 J(pi1) g - J(p) g / 2``.

There ``pi1 = (q + D) / 2``, with D the sampled one-hot, ``p = softmax(w)`` and ``q = softmax(w / temp)``. Cotangents
are measured from the selected entry, which changes no product with the J of weights that sum to 1.
"""

from __future__ import annotations

import numpy as np

from npselect.testing.aliases import Array
from npselect.testing.mistakes import Mistakes, Rows, candidates, from_selected, mask_of, mean, probs
from npselect.testing.mistakes_backward import of_any
from npselect.testing.mistakes_forward import OF_INDEX
from npselect.testing.relatives import relatives

__all__ = ["BACKWARD", "FORWARD"]


def _times(x: Array, h: Array) -> Array:
    """``J(x) h``."""
    return np.asarray(x * (h - mean(x, h)))


def _p(q: Rows) -> Array:
    return probs(q.w)


def _q(q: Rows) -> Array:
    return probs(q.w, q.temp)


def _of_sample(q: Rows) -> Array:
    """``2 J(pi1) g``."""
    return 2 * _times((_q(q) + q.selected) / 2, from_selected(q))


def _of_probs(x: Array, q: Rows) -> Array:
    """``J(x) g``."""
    return _times(x, from_selected(q))


def _right(q: Rows) -> Array:
    return _of_sample(q) - _of_probs(_p(q), q) / 2


def _of_the_largest(q: Rows) -> Array:
    """As if the largest were what was drawn."""
    return 2 * _times((_q(q) + mask_of(q.w)) / 2, from_selected(q)) - _of_probs(_p(q), q) / 2


FORWARD: Mistakes = (
    *OF_INDEX,
    ("pi1 instead of the mask", lambda q: (_q(q) + q.selected) / 2),
    ("the surrogate instead of the mask", lambda q: _q(q) + q.selected - _p(q) / 2),
)
"""Mistakes of the forward pass."""

BACKWARD: Mistakes = (
    *of_any(_right),
    *relatives("gapped"),
    ("2 J(pi1) g missing its factor 2", lambda q: _of_sample(q) / 2 - _of_probs(_p(q), q) / 2),
    ("the sampled one-hot left out of pi1", lambda q: 2 * _of_probs(_q(q), q) - _of_probs(_p(q), q) / 2),
    ("the sampled one-hot left out of pi1",
     lambda q: 2 * _times(_q(q) / 2, candidates(q, q.g)) - _of_probs(_p(q), q) / 2),
    ("pi1 is the sum of probs and mask, not their mean",
     lambda q: 2 * _times(_q(q) + q.selected, candidates(q, q.g)) - _of_probs(_p(q), q) / 2),
    ("the largest is taken for what was sampled", _of_the_largest),
    ("- J(p) g / 2 is missing", _of_sample),
    ("- J(p) g / 2 missing its factor 1/2", lambda q: _of_sample(q) - _of_probs(_p(q), q)),
    ("J(p) g / 2 is added, not subtracted", lambda q: _of_sample(q) + _of_probs(_p(q), q) / 2),
    ("divided by temp", lambda q: _right(q) / q.temp),
    ("2 J(pi1) g is divided by temp", lambda q: _of_sample(q) / q.temp - _of_probs(_p(q), q) / 2),
    ("multiplied by temp", lambda q: _right(q) * q.temp),
    ("temp in both softmaxes", lambda q: _of_sample(q) - _of_probs(_q(q), q) / 2),
    ("temp in the wrong softmax",
     lambda q: 2 * _times((_p(q) + q.selected) / 2, from_selected(q)) - _of_probs(_q(q), q) / 2),
    ("the softmax is taken of logits * temp", lambda q: _right(q._replace(temp=1 / q.temp))),
    ("the gradient of straight-through alone", lambda q: _of_probs(_p(q), q)),
    ("the gradient of straight-through alone", lambda q: _of_probs(_q(q), q)),
    ("the gradient of straight-through alone", lambda q: _of_probs(_q(q), q) / q.temp),
    ("mean over candidates", lambda q: _right(q) / np.sum(q.w > -np.inf, axis=-1, keepdims=True)),
    ("mean over candidates", lambda q: _right(q) / q.w.shape[-1]),
    ("no gradient to what was not selected", lambda q: q.selected * _right(q)),
)  # fmt: skip
"""Mistakes of the backward pass."""
