"""Arrays in the host's memory: how they are read, laid out as rows and written, for `npselect._call.layout`.

`npselect._call.on_gpu` has the same functions, under the same names, for arrays on a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from npselect._call.arguments import bools, floating
from npselect._places import as_numpy_sees, on_device
from npselect.tiers.cpu import gather as _vectors

__all__ = [
    "are_apart",
    "as_rows",
    "bools",
    "broadcast_to",
    "copy_into",
    "empty",
    "fill_with",
    "finish",
    "fits",
    "floating",
    "full",
    "is_plain",
    "may_share",
    "new",
    "plain",
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
    """`out`, as an array of no subclass; a torch tensor's memory is written to, whatever autograd knows of it."""
    out = as_numpy_sees(out)
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
    np.copyto(moved, rows.reshape(moved.shape), casting="same_kind")


def finish() -> None:
    """Nothing is left to do."""


def result(array: Array) -> Any:
    """A new array as callers get it: a number where it has no axes."""
    return array[()]


# ------------------------------------------------------------------------------------------------ the short way


def plain(values: Any) -> Array | None:
    """An array that a tier can take, read and write, but for the number of its axes; None if it cannot."""
    if type(values) is np.ndarray and values.flags.carray and values.size and values.ndim and values.dtype.isnative:
        return values
    return None


def fits(array: Array, shape: tuple[int, ...], dtype: np.dtype[Any], beside: Array) -> bool:  # noqa: ARG001
    """Whether an array has a shape and a dtype, and is where another is."""
    return array.dtype is dtype and array.shape == shape


def new(shape: tuple[int, ...], dtype: np.dtype[Any], beside: Array) -> Array:  # noqa: ARG001
    """A new array where another is."""
    return np.empty(shape, dtype)


def are_apart(array: Array, others: Sequence[Array]) -> bool:
    """Whether an array shares no memory with others: sure if they are two, and each has its own."""
    for other in others:
        if array is other:
            return False
        if not (array.flags.owndata and other.flags.owndata) and np.may_share_memory(array, other):
            return False
    return True
