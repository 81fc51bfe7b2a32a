"""The operators as textbooks have them, over arrays of (rows, K), in the dtype of the logits.

They serve as NumPy's part in the benchmark and as an honest implementation in the tests. Sums of 16-bit numbers would
stagnate: `wide` hands over float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, wraps
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from npselect.testing.aliases import Array, Function

__all__ = ["SURROGATE", "TEXTBOOKS", "Textbook", "adaptive_gap", "one_hot", "softmax", "wide"]

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


def _forward(
    logits: Array,
    temp: float,  # noqa: ARG001 the mask has no temp
    noise: Array | None = None,
    forward_temp: float = 1.0,
) -> Array:
    return one_hot(_perturbed(logits, noise, forward_temp))


def _perturbed(logits: Array, noise: Array | None, forward_temp: float) -> Array:
    if noise is None:
        return logits
    return (logits if forward_temp == 1 else logits / logits.dtype.type(forward_temp)) + noise


def _backward(
    grad_mask: Array,
    logits: Array,
    temp: float,
    noise: Array | None = None,
    forward_temp: float = 1.0,
    softmax: Softmax = softmax,
) -> Array:
    w = _perturbed(logits, noise, forward_temp)
    return np.asarray(jacobian_times(softmax(w / temp), grad_mask) / (logits.dtype.type(forward_temp) * temp))


SURROGATE = Textbook(_forward, _backward)
"""The hard choice, and the gradient of the softmax; of the logits, or of their sums with the noise."""


def _at(
    logits: Array,
    temp: float,  # noqa: ARG001 the mask has no temp
    index: Array,
    **_: Array | float | str,
) -> Array:
    mask = np.zeros_like(logits)
    np.put_along_axis(mask, index[..., None], 1, axis=-1)
    return mask


def _of_the_mixture(
    grad_mask: Array,
    logits: Array,
    temp: float,
    index: Array,  # noqa: ARG001 the gradient is that of the probabilities
    forward_temp: float = 1.0,
    unimix: float = 0.0,
    softmax: Softmax = softmax,
) -> Array:
    both = logits.dtype.type(forward_temp) * temp
    return np.asarray(logits.dtype.type(1 - unimix) * jacobian_times(softmax(logits / both), grad_mask) / both)


_CATEGORICAL = Textbook(_at, _of_the_mixture)
"""The mask of an index, and the gradient of the probabilities, ``(1 - unimix) softmax(logits / T) + unimix / n``."""


def _of_the_gap(
    grad_mask: Array,
    logits: Array,
    temp: float,
    index: Array,
    gap: float | str = 1.0,
    softmax: Softmax = softmax,
) -> Array:
    drawn = _at(logits, temp, index) == 1
    top = np.max(logits, axis=-1, keepdims=True)
    least: Array = np.asarray(gap, logits.dtype) if gap != "adaptive" else adaptive_gap(logits, drawn)
    moved = np.where(drawn, top, np.minimum(logits, top - least))
    return np.asarray(jacobian_times(softmax(moved / temp), grad_mask) / temp)


def adaptive_gap(logits: Array, drawn: Array) -> Array:
    """``-log(1 - p_d) / p_d`` of each row, (rows, 1), by the log-odds ``L = log(p_d / (1 - p_d))``.

    That is ``log(1 + exp(L)) (1 + exp(-L))``: 1 where p_d vanishes, and infinite where there is nothing else.
    """
    own = np.sum(np.where(drawn, logits, 0), axis=-1, keepdims=True, dtype=logits.dtype)
    others = np.where(drawn, logits.dtype.type(-np.inf), logits)
    top = np.max(others, axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        rest = np.sum(np.exp(others - np.where(top > -np.inf, top, 0)), axis=-1, keepdims=True)
        odds = own - (np.where(top > -np.inf, top, 0) + np.log(rest))
        whole = np.logaddexp(odds.dtype.type(0), odds) * (1 + np.exp(-odds))
        return np.asarray(np.where(odds > -35, whole, 1), logits.dtype)


_GAPPED = Textbook(_at, _of_the_gap)
"""The mask of an index, and the gradient of the softmax of logits of which that leads by a gap (arXiv:2206.07235)."""


def _second_order(grad_mask: Array, logits: Array, temp: float, index: Array, softmax: Softmax = softmax) -> Array:
    middle = (softmax(logits / temp) + _at(logits, temp, index)) / 2
    return 2 * jacobian_times(middle, grad_mask) - jacobian_times(softmax(logits), grad_mask) / 2


_REINMAX = Textbook(_at, _second_order)
"""The mask of an index, and ReinMax as it is published (arXiv:2304.08612)."""


def _given_the_choice(
    grad_mask: Array, logits: Array, temp: float, index: Array, sample_noise: Array, softmax: Softmax = softmax
) -> Array:
    drawn, top = _at(logits, temp, index) == 1, np.max(logits, axis=-1, keepdims=True)
    log_z = top + np.log(np.sum(np.exp(logits - top), axis=-1, keepdims=True))
    total = np.zeros_like(logits)
    for noise in sample_noise:
        largest = log_z + np.sum(np.where(drawn, noise, 0), axis=-1, keepdims=True, dtype=noise.dtype)
        w = np.where(drawn, largest, -np.logaddexp(-largest, -(logits + noise)))
        total += jacobian_times(softmax(w / temp), grad_mask) / temp
    return np.asarray(total / logits.dtype.type(len(sample_noise)))


_GUMBEL_RAO = Textbook(_at, _given_the_choice)
"""The mask of an index, and the mean of the Gumbel-softmax's gradients at noise given that (arXiv:2010.04838)."""


TEXTBOOKS: Mapping[str, Textbook] = MappingProxyType(
    {
        "straight_through": SURROGATE,
        "gumbel_softmax": SURROGATE,
        "categorical": _CATEGORICAL,
        "reinmax": _REINMAX,
        "gapped": _GAPPED,
        "gumbel_rao": _GUMBEL_RAO,
    }
)
"""By the operators' names."""


def wide(function: Function) -> Function:
    """In float32 at least, the result in the dtype of the first array; integers stay as they are."""

    @wraps(function)
    def call(*arguments: Array, **given: Array | float | str | None) -> Array:
        form = arguments[0].dtype
        to = np.float64 if form == np.float64 else np.float32
        widened = partial(np.asarray, dtype=to)
        options = {
            name: widened(value) if isinstance(value, np.ndarray) and value.dtype.kind != "i" else value
            for name, value in given.items()
        }
        return np.asarray(function(*map(widened, arguments), **options), form)

    return call
