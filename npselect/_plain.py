"""The short way: arrays that are rows x choices already, and nothing else out of the ordinary.

Small batches would spend most of their time on the questions that `npselect._arrays` asks. Here the calls to which the
answers are known beforehand are told from all others. Those get None, and go the long way; so do wrong ones, to be told
there what is wrong.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from npselect._draws import Draws, Stream
from npselect.backends import choose

__all__ = ["are_usual", "plain_backward", "plain_mask"]

Array = npt.NDArray[Any]
_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
_NUMBERS = (float, np.float32, np.float64)


def are_usual(axis: Any, where: Any, nan_policy: Any, backend: Any) -> bool:
    """Whether the options are what they are unless given."""
    return backend is None and where is None and type(axis) is int and axis == -1 and nan_policy == "propagate"


def plain_mask(logits: Any, temp: Any, out: Any, stream: Stream | None = None) -> Array | None:
    """The mask of logits, all of them candidates, along their last axis; None if anything is not plain."""
    result = _result(logits, out) if _is_plain(logits) and _one(temp, logits) is not None else None
    if result is not None:
        rows = _rows(logits)
        choose(None).mask(rows, _draws(stream, rows), None, _rows(result))
    return result


def plain_backward(grad_mask: Any, logits: Any, temp: Any, out: Any, stream: Stream | None = None) -> Array | None:
    """The cotangent of such logits; None if anything is not plain."""
    if not (_is_plain(logits) and _is_plain(grad_mask) and _alike(logits, grad_mask)):
        return None
    temps = _one(temp, logits)
    result = None if temps is None else _result(logits, out, grad_mask)
    if result is not None:
        rows = _rows(logits)
        choose(None).backward(_rows(grad_mask), rows, _draws(stream, rows), temps, None, _rows(result))
    return result


def _is_plain(array: Any) -> bool:
    """Whether a tier takes it as it is, but for the number of its axes."""
    return (
        type(array) is np.ndarray
        and (array.dtype is _FLOAT32 or array.dtype is _FLOAT64)
        and array.flags.carray
        and array.size > 0
        and array.ndim > 0
    )


def _alike(array: Array, other: Array) -> bool:
    return array.dtype is other.dtype and array.shape == other.shape


def _result(logits: Array, out: Any, *others: Array) -> Array | None:
    """`out` or, for None, a new array; None if `out` cannot be written to while the others are read."""
    if out is None:
        return np.empty(logits.shape, logits.dtype)
    if _is_plain(out) and _alike(out, logits) and _are_apart(out, logits) and all(_are_apart(out, x) for x in others):
        return out  # type: ignore[no-any-return]
    return None


def _are_apart(a: Array, b: Array) -> bool:
    """Whether two arrays share no memory: sure if they are two, and each has its own."""
    if a.flags.owndata and b.flags.owndata:
        return a is not b
    return not np.may_share_memory(a, b)


def _rows(array: Array) -> Array:
    return array if array.ndim == 2 else array.reshape(-1, array.shape[-1])


def _draws(stream: Stream | None, rows: Array) -> Draws | None:
    return None if stream is None else Draws.of(stream, rows.shape, (0, 1), rows.dtype)


def _one(temp: Any, logits: Array) -> Array | None:
    return _temps(temp, logits.dtype) if type(temp) in _NUMBERS else None


@lru_cache(maxsize=256)
def _temps(temp: float, dtype: np.dtype[Any]) -> Array | None:
    """A temperature as tiers take it; None if it is not positive and finite there."""
    with np.errstate(over="ignore", under="ignore"):
        temps = np.full(1, temp, dtype)
    return temps if 0 < temps[0] < np.inf else None
