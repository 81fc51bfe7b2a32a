"""The operators as textbooks have them, over arrays of (rows, K), in the dtype of the logits.

They serve as NumPy's part in the benchmark and as an honest implementation in the tests. Sums of 16-bit numbers would
stagnate: `wide` hands over float32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import NamedTuple

import numpy as np

from npselect.testing.aliases import Array, Function

__all__ = ["REINMAX", "SURROGATE", "Textbook", "one_hot", "softmax", "wide"]

Softmax = Callable[[Array], Array]


class Textbook(NamedTuple):
    """The two passes of an operator.

    Attributes
    ----------
    forward : callable
        ``forward(logits, temp, **given) -> mask``; what is given is the noise, for instance.
    backward : callable
        ``backward(grad_mask, logits, temp, softmax=softmax, **given) -> grad_logits``.
    """

    forward: Function
    backward: Function


def softmax(t: Array) -> Array:
    """Of each row."""
    exps = np.exp(t - np.max(t, axis=-1, keepdims=True))
    exps /= np.sum(exps, axis=-1, keepdims=True)
    return np.asarray(exps)


def one_hot(w: Array) -> Array:
    """At the largest of each row, the first of equals."""
    mask = np.zeros_like(w)
    np.put_along_axis(mask, np.argmax(w, axis=-1, keepdims=True), 1, axis=-1)
    return mask


def jacobian_times(p: Array, g: Array) -> Array:
    """``(diag(p) - p p^T) g`` of each row."""
    return np.asarray(p * (g - np.sum(p * g, axis=-1, keepdims=True)))


def _forward(logits: Array, temp: float, noise: Array | None = None) -> Array:  # noqa: ARG001 the mask has no temp
    return one_hot(logits if noise is None else logits + noise)


def _backward(
    grad_mask: Array, logits: Array, temp: float, noise: Array | None = None, softmax: Softmax = softmax
) -> Array:
    w = logits if noise is None else logits + noise
    return jacobian_times(softmax(w / temp), grad_mask) / temp


SURROGATE = Textbook(_forward, _backward)
"""The hard choice, and the gradient of the softmax; of the logits, or of their sums with the noise."""


def _at(logits: Array, temp: float, index: Array) -> Array:  # noqa: ARG001 the mask has no temp
    mask = np.zeros_like(logits)
    np.put_along_axis(mask, index[..., None], 1, axis=-1)
    return mask


def _second_order(grad_mask: Array, logits: Array, temp: float, index: Array, softmax: Softmax = softmax) -> Array:
    middle = (softmax(logits / temp) + _at(logits, temp, index)) / 2
    return 2 * jacobian_times(middle, grad_mask) - jacobian_times(softmax(logits), grad_mask) / 2


REINMAX = Textbook(_at, _second_order)
"""The mask of an index, and ReinMax as it is published (arXiv:2304.08612)."""


def wide(function: Function) -> Function:
    """In float32 at least, the result in the dtype of the first array; integers stay as they are."""

    @wraps(function)
    def call(*arguments: Array, **given: Array | None) -> Array:
        form = arguments[0].dtype
        to = np.float64 if form == np.float64 else np.float32
        widened = partial(np.asarray, dtype=to)
        options = {
            name: array if array is None or array.dtype.kind == "i" else widened(array) for name, array in given.items()
        }
        return np.asarray(function(*map(widened, arguments), **options), form)

    return call
