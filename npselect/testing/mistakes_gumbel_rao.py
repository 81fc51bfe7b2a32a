"""Mistakes of Gumbel-Rao, by their causes: what comes out in the place of ``mean_s J(softmax(w / temp)) g / temp``.

There w is what one sample of noise G makes of the logits, given that the selected candidate d is the largest. From it
others are ``behind_i = log(1 + exp(above_i + G_d - G_i))``, with ``above_i = log(Z) - logits_i``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from npselect.testing.aliases import Array
from npselect.testing.mistakes import Mistakes, Rows, candidates, from_selected, mask_of, mean, one_hot, probs, weighted
from npselect.testing.mistakes_backward import of_any
from npselect.testing.mistakes_forward import OF_INDEX
from npselect.testing.relatives import relatives

__all__ = ["BACKWARD", "FORWARD"]

_Noisy = Callable[[Rows, Array], Array]
"""The logits of one sample, but for what all of a row have in common."""


def _above(q: Rows) -> Array:
    z = q.w - np.max(q.w, axis=-1, keepdims=True)
    return np.asarray(np.log(np.sum(np.exp(z), axis=-1, keepdims=True)) - z)


def _behind(q: Rows, above: Array, noise: Array, selected: Array | None = None) -> Array:
    """How far behind the selected candidate the others are, negative."""
    drawn = (q.selected if selected is None else selected) == 1
    own = np.sum(np.where(drawn, noise, 0.0), axis=-1, keepdims=True)
    return np.where(drawn, 0.0, -np.logaddexp(0.0, above + own - noise))


def _of_sample(q: Rows, noise: Array) -> Array:
    return _behind(q, _above(q), noise)


def _at(q: Rows, noisy: _Noisy = _of_sample) -> Array:
    """The gradient, of logits that are noisy in some way; without 1 / temp."""
    terms = [weighted(probs(noisy(q, noise), q.temp), from_selected(q), 1.0) for noise in q.question.draws]
    return np.asarray(np.mean(terms, axis=0))


def _right(q: Rows) -> Array:
    return _at(q) / q.temp


def _with(noisy: _Noisy) -> Callable[[Rows], Array]:
    return lambda q: np.asarray(_at(q, noisy) / q.temp)


def _cut_off(q: Rows, noise: Array) -> Array:
    """What exceeds the largest is cut off there, rather than drawn anew."""
    z = q.w - np.max(q.w, axis=-1, keepdims=True)
    own = np.sum(q.selected * noise, axis=-1, keepdims=True)
    largest = np.log(np.sum(np.exp(z), axis=-1, keepdims=True)) + own
    return np.asarray(np.where(q.selected == 1, largest, np.minimum(z + noise, largest)))


def _without_log_z(q: Rows, noise: Array) -> Array:
    return _behind(q, -q.w, noise)


def _largest_for_log_z(q: Rows, noise: Array) -> Array:
    return _behind(q, np.max(q.w, axis=-1, keepdims=True) - q.w, noise)


def _own_for_log_z(q: Rows, noise: Array) -> Array:
    own = np.sum(np.where(q.selected == 1, q.w, 0.0), axis=-1, keepdims=True)
    return _behind(q, own - q.w, noise)


def _mean_softmax(q: Rows) -> Array:
    p = np.mean([probs(_of_sample(q, noise), q.temp) for noise in q.question.draws], axis=0)
    return weighted(p, from_selected(q), q.temp)


def _mean_at(q: Rows, above: Array, selected: Array | None = None) -> Array:
    """The gradient of noisy logits that may be finite where no candidate is."""
    terms = [weighted(probs(_behind(q, above, noise, selected), q.temp), q.g, q.temp) for noise in q.question.draws]
    return np.asarray(np.mean(terms, axis=0))


def _without_logits(q: Rows) -> Array:
    top = np.max(q.w, axis=-1, keepdims=True)
    return _mean_at(q, top + np.log(np.sum(np.exp(q.w - top), axis=-1, keepdims=True)))


def _of_the_next(q: Rows) -> Array:
    """As though the candidate after the selected one had been selected."""
    choices = q.w.shape[-1]
    return _mean_at(q, _above(q), one_hot((q.question.choice + 1) % choices, choices))


def _first_alone(q: Rows) -> Array:
    noise = q.question.draws[0]
    return weighted(probs(_of_sample(q, noise), q.temp), from_selected(q), q.temp)


def _without_the_mean(q: Rows) -> Array:
    """Of each sample."""
    terms = [probs(_of_sample(q, noise), q.temp) * candidates(q, q.g) for noise in q.question.draws]
    return np.asarray(np.mean(terms, axis=0)) / q.temp


def _unweighted(q: Rows) -> Array:
    g = candidates(q, q.g)
    centred = g - mean(candidates(q, 1 / np.sum(q.w > -np.inf, axis=-1, keepdims=True)), g)
    terms = [probs(_of_sample(q, noise), q.temp) * centred for noise in q.question.draws]
    return np.asarray(np.mean(terms, axis=0)) / q.temp


FORWARD: Mistakes = OF_INDEX
"""Mistakes of the forward pass."""

BACKWARD: Mistakes = (
    *of_any(_right),
    *relatives("categorical", "reinmax", "gapped"),
    ("1/temp is missing", _at),
    ("divided by temp twice", lambda q: _right(q) / q.temp),
    ("multiplied by temp instead of divided", lambda q: _right(q) * q.temp**2),
    ("logits are added twice: to noise that has them already", _with(lambda q, noise: _of_sample(q, noise) + q.w)),
    ("the noise is not that given the choice: the gradient of npselect.gumbel_softmax, averaged",
     _with(lambda q, noise: q.w + noise)),
    ("log(Z) is missing in the largest of the noisy logits", _with(_without_log_z)),
    ("the largest logit is taken for log(Z)", _with(_largest_for_log_z)),
    ("the selected candidate's logit is taken for log(Z)", _with(_own_for_log_z)),
    ("noisy logits above the selected one's are cut off there, not drawn below it", _with(_cut_off)),
    ("the others' noisy logits leave out their logits", _without_logits),
    ("samples are added up, not averaged", lambda q: _right(q) * len(q.question.draws)),
    ("the first sample is taken alone", _first_alone),
    ("the softmaxes are averaged, not the gradients", _mean_softmax),
    ("another candidate is taken for the selected one", _of_the_next),
    ("the largest is taken for what was sampled",
     _with(lambda q, noise: _behind(q, _above(q), noise, mask_of(q.w)))),
    ("the noise is subtracted", _with(lambda q, noise: _of_sample(q, -noise))),
    ("the noisy logits are not divided by temp", lambda q: _at(q._replace(temp=1.0)) / q.temp),
    ("probs * grad_mask / temp, without the mean", _without_the_mean),
    ("the mean of grad_mask is not weighted", _unweighted),
    ("mean over candidates", lambda q: _right(q) / np.sum(q.w > -np.inf, axis=-1, keepdims=True)),
    ("mean over candidates", lambda q: _right(q) / q.w.shape[-1]),
    ("no gradient to what was not selected", lambda q: q.selected * _right(q)),
)  # fmt: skip
"""Mistakes of the backward pass."""
