"""Arrays in the host's memory: how they are read, laid out as rows and written, for `npselect._arrays`.

`npselect.backends.device_layout` has the same functions, under the same names, for arrays on a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from npselect import _vectors
from npselect._arguments import bools, floating
from npselect._kinds import on_device

__all__ = [
    "as_rows",
    "bools",
    "broadcast_to",
    "copy_into",
    "empty",
    "fill_with",
    "finish",
    "floating",
    "full",
    "is_plain",
    "may_share",
    "result",
    "run",
    "shares",
    "to_host",
    "vectors",
    "writable",
]

Array = npt.NDArray[Any]

broadcast_to = np.broadcast_to
empty = np.empty
may_share = np.may_share_memory
shares = np.shares_memory
vectors = _vectors


def to_host(values: Any) -> Any:
    """The numbers where NumPy can look at them."""
    return values


def as_rows(moved: Array, dtype: np.dtype[Any]) -> Array:
    """Shape (rows, K), C-contiguous, in a dtype; a view wherever that can be had."""
    rows = moved.reshape(math.prod(moved.shape[:-1]), moved.shape[-1])
    return rows if rows.dtype == dtype and is_plain(rows) else np.require(rows, dtype, ["C", "A"])


def full(shape: Sequence[int], one: Array) -> Array:
    """An array all of whose elements are the one that was given."""
    return np.full(shape, one.reshape(()), one.dtype)


def is_plain(array: Array) -> bool:
    """Whether elements lie as the tiers take them."""
    return array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative


def writable(out: Any) -> Array:
    """`out`, as an array of no subclass."""
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        if on_device(out):
            raise TypeError("out lives on a GPU, and what it is to be computed from does not; give a NumPy array")
        raise TypeError(f"out is a {type(out).__name__}; it takes a NumPy array")
    if not out.flags.writeable:
        raise ValueError("out is read-only")
    return np.asarray(out)


def run(fill: Callable[..., None], arrays: Sequence[Array]) -> None:
    """Let a tier fill arrays."""
    fill(*arrays)


def fill_with(value: int, *arrays: Array) -> None:
    """Write one number everywhere."""
    for array in arrays:
        array[...] = value


def copy_into(moved: Array, rows: Array) -> None:
    """Write rows into an array whose axes are those of the rows, then that of the choices."""
    with np.errstate(over="ignore"):
        np.copyto(moved, rows.reshape(moved.shape), casting="same_kind")


def finish() -> None:
    """Nothing is left to do."""


def result(array: Array) -> Any:
    """A new array as callers get it: a number where it has no axes."""
    return array[()]
