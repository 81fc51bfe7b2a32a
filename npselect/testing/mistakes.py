"""What mistakes are made of: the arguments of a question as rows, and what a mistake makes of them, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from npselect.testing.aliases import Array
from npselect.testing.layouts import memory
from npselect.testing.question import Question

__all__ = [
    "SHARES",
    "Mistake",
    "Mistakes",
    "Rows",
    "along_the_last_axis",
    "candidates",
    "from_selected",
    "gradient",
    "hard",
    "log_probs",
    "mask_of",
    "mean",
    "mixed",
    "one_hot",
    "probs",
    "read_in_c_order",
    "rows_of",
    "uniform",
    "weighted",
    "where_inverted",
    "without_where",
]

SHARES = (1e-3, 0.01, 0.02, 0.05, 0.1)
"""Of the uniform distribution in a mixture."""


class Rows(NamedTuple):
    """The arguments of a question: (rows, K) in float64."""

    g: Array
    w: Array  # noise added, -inf at excluded entries
    temp: float  # what w is divided by
    added: Array  # what was added to the logits, or zeros
    question: Question

    @property
    def logits(self) -> Array:
        """Without the noise."""
        return self.w - self.added

    @property
    def selected(self) -> Array:
        """The one-hot of the right choice."""
        return one_hot(self.question.choice, self.w.shape[-1])


Mistake = Callable[[Rows], Array]
"""What comes out of a question, (rows, K) in float64."""
Mistakes = tuple[tuple[str, Mistake], ...]
"""By their causes, as a report names them."""


def rows_of(question: Question) -> Rows:
    """A question as mistakes take it."""
    added = np.zeros_like(question.w) if question.added is None else question.added.astype(np.float64)
    temp = question.temps if question.row_temp is None else question.temp
    return Rows(question.rows(question.grad_mask.astype(np.float64)), question.w, float(temp), added, question)


# ------------------------------------------------------------------------------------------------ the operator


def probs(w: Array, temp: float = 1.0, axis: int | None = -1) -> Array:
    """The softmax."""
    e = np.exp((w - np.max(w, axis=axis, keepdims=True)) / temp)
    return np.asarray(e / np.sum(e, axis=axis, keepdims=True))


def one_hot(index: Array, choices: int) -> Array:
    """Of indices."""
    return np.asarray(np.arange(choices) == index[:, None], np.float64)


def mask_of(w: Array) -> Array:
    """The one-hot of the first largest."""
    return one_hot(np.argmax(w, axis=-1), w.shape[-1])


def log_probs(w: Array, temp: float) -> Array:
    """The logarithm of the softmax."""
    t = (w - np.max(w, axis=-1, keepdims=True)) / temp
    return np.asarray(t - np.log(np.sum(np.exp(t), axis=-1, keepdims=True)))


def gradient(g: Array, w: Array, temp: float) -> Array:
    """The right one, from the selected entry."""
    h = g - np.take_along_axis(g, np.argmax(w, axis=-1, keepdims=True), axis=-1)
    return weighted(probs(w, temp), h, temp)


def weighted(p: Array, g: Array, temp: float) -> Array:
    """The formula, whatever the probabilities are."""
    return np.asarray(p * (g - mean(p, g)) / temp)


def mean(weights: Array, g: Array) -> Array:
    """Of the cotangents, with weights."""
    return np.asarray(np.sum(weights * g, axis=-1, keepdims=True))


def hard(_: Array, w: Array) -> Array:
    """One-hots along the last axis of any array."""
    return np.asarray(np.arange(w.shape[-1]) == np.argmax(w, axis=-1)[..., None], np.float64)


# ------------------------------------------------------------------------------------------------ candidates, mixtures


def candidates(q: Rows, values: Array) -> Array:
    """The values, and 0 at excluded entries."""
    return np.where(q.w > -np.inf, values, 0.0)


def from_selected(q: Rows) -> Array:
    """The cotangents of the candidates, from that of the selected one."""
    g = candidates(q, q.g)
    return candidates(q, g - np.take_along_axis(g, np.maximum(q.question.choice, 0)[:, None], axis=-1))


def uniform(q: Rows) -> Array:
    """Over the candidates."""
    return candidates(q, 1 / np.sum(q.w > -np.inf, axis=-1, keepdims=True))


def mixed(p: Array, uniform: Array | float, share: float) -> Array:
    """Probabilities with a share of others."""
    return np.asarray((1 - share) * p + share * uniform)


# ------------------------------------------------------------------------------------------------ axis=, where=, memory


def along_the_last_axis(q: Rows, function: Callable[..., Array]) -> Array:
    """Of the arrays as given, in rows of the case again."""
    w = q.question.logits.astype(np.float64)
    if q.question.noise is not None and q.question.added is not None:
        w = w + q.question.forward_temp * q.question.noise.astype(np.float64)
    if q.question.where is not None:
        w = np.where(q.question.where, w, -np.inf)
    return q.question.rows(function(q.question.grad_mask.astype(np.float64), w))


def without_where(q: Rows) -> Array:
    """What is chosen from if where= is ignored."""
    return q.question.rows(q.question.logits.astype(np.float64)) + q.added


def where_inverted(q: Rows) -> Array:
    """What is chosen from if where= names what is excluded."""
    if q.question.where is None:
        return q.w
    return np.where(
        q.question.rows(np.broadcast_to(q.question.where, q.question.logits.shape)), -np.inf, without_where(q)
    )


def _in_memory(array: Array) -> Array:
    """What is found where an array begins, by whom takes its rows for adjacent."""
    flat, shape, _ = memory(array)
    return flat[: array.size].reshape(shape)


def read_in_c_order(q: Rows) -> tuple[Array, Array]:
    """Cotangents and logits, with the noise and -inf at excluded entries, of which the memory was read in C order."""
    other = replace(q.question, logits=_in_memory(q.question.logits), grad_mask=_in_memory(q.question.grad_mask))
    return other.rows(other.grad_mask.astype(np.float64)), other.w
