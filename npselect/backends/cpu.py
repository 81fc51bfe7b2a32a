"""The CPU tier: the kernels over all rows of a batch, in as many threads as it is worth.

Noise is drawn for as many rows at a time as a processor's cache holds, for one at least, added to their logits, and
forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from npselect.backends import kernels
from npselect.backends.gumbel import draw, draw_at
from npselect.backends.reductions import LANES
from npselect.backends.storage import compute_type, stored
from npselect.backends.threads import over_rows

__all__ = ["backward", "backward_temp", "double_backward", "gumbel", "index", "mask", "soft"]

Array = npt.NDArray[Any]
_EVERYWHERE = np.empty((0, 0), dtype=np.bool_)
_BLOCK = 16384  # elements that are perturbed at a time


def mask(logits: Array, noise: Any, where: Array | None, out: Array) -> None:
    """The exact one-hot of the selected candidate."""
    _run(kernels.mask_rows, 1, compute_type(out), logits, noise, where, out)


def index(logits: Array, noise: Any, where: Array | None, out: Array) -> None:
    """Index of the selected candidate, -1 where nothing is selected."""
    _run(kernels.index_rows, 1, compute_type(logits), logits, noise, where, out)


def soft(logits: Array, noise: Any, temp: Array, where: Array | None, out: Array) -> None:
    """``probs = softmax(logits / temp)``."""
    _run(kernels.soft_rows, 1, compute_type(out), logits, noise, temp, where, out)


def backward(grad_mask: Array, logits: Array, noise: Any, temp: Array, where: Array | None, out: Array) -> None:
    """The softmax's Jacobian times `grad_mask`."""
    _run(kernels.backward_rows, 2, compute_type(out), logits, noise, grad_mask, temp, where, out)


def backward_temp(grad_mask: Array, logits: Array, noise: Any, temp: Array, where: Array | None, out: Array) -> None:
    """The gradient of each temperature, summed like a row over the ``rows // temps`` rows that share it."""
    compute = compute_type(out)
    per_row = np.empty(len(logits), compute)
    _run(kernels.backward_temp_rows, 3, compute, logits, noise, grad_mask, temp, where, per_row)
    _run(kernels.sum_rows, 0, compute, per_row.reshape(len(out), -1), None, out)


def double_backward(
    grad_grad_logits: Array,
    grad_mask: Array,
    logits: Array,
    noise: Any,
    temp: Array,
    where: Array | None,
    out_grad_mask: Array,
    out_logits: Array,
) -> None:
    """The gradient of `backward`."""
    arrays = grad_grad_logits, grad_mask, temp, where, out_grad_mask, out_logits
    _run(kernels.double_backward_rows, 3, compute_type(out_logits), logits, noise, *arrays)


def gumbel(seed: int, first: int, out: Array) -> None:
    """The noise from number `first` on, into an array of one axis."""

    def part(start: int, stop: int) -> None:
        draw(np.uint64(seed), np.uint64(first + start), out[start:stop])

    over_rows(part, len(out), 1)


def _run(
    rows: Callable[..., None],
    scratch_rows: int,
    compute: type[np.floating[Any]],
    logits: Array,
    noise: Any,
    *arrays: Array | None,
) -> None:
    """A kernel over all rows; each call of it gets scratch memory of its own."""
    choices = logits.shape[1]
    inputs = [_EVERYWHERE if array is None else stored(array) for array in arrays]

    def part(start: int, stop: int) -> None:
        scratch = np.empty(LANES + scratch_rows * choices, compute)
        if noise is None:
            rows(stored(logits), *inputs, start, stop, scratch)
            return
        step = max(1, _BLOCK // choices)
        for first in range(start, stop, step):
            last = min(first + step, stop)
            w = _perturbed(logits, noise, first, last).astype(compute, copy=False)
            rows(w, *(_part(array, first, last) for array in inputs), 0, last - first, scratch)

    over_rows(part, *logits.shape)


def _part(array: Array, first: int, last: int) -> Array:
    """Some rows of an array; all of one that is shared by the rows, or absent."""
    return array[first:last] if len(array) > 1 else array


def _perturbed(logits: Array, noise: Any, first: int, last: int) -> Array:
    """Some rows of ``logits + noise``, added in the type of the noise, to which 16-bit logits are widened."""
    if isinstance(noise, np.ndarray):
        added = _part(noise, first, last)
    else:
        added = np.empty((last - first, logits.shape[1]), noise.dtype)
        seed = np.uint64(noise.seed)
        if noise.in_order:
            draw(seed, np.uint64(noise.offset + first * logits.shape[1]), added.reshape(-1))
        else:
            draw_at(seed, noise.numbers(first, last).reshape(-1), added.reshape(-1))
    with np.errstate(all="ignore"):
        return np.asarray(logits[first:last].astype(added.dtype, copy=False) + added)
