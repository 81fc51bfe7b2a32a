"""Arrays in the host's memory: a `Memory` and a `FastMemory` (see `npselect._call.memory`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from npselect._call.arguments import bools, floating, integers
from npselect._call.memory import AnyArray, Fill
from npselect._dtypes import Array, DType, Shape
from npselect._places import as_numpy_sees, on_device
from npselect.tiers.cpu import gather as vectors

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
    "integers",
    "is_contiguous",
    "may_share",
    "new",
    "result",
    "run",
    "shares",
    "to_host",
    "usable",
    "vectors",
    "writable",
]


def to_host(values: AnyArray) -> AnyArray:
    """The numbers where NumPy can look at them."""
    return values


def writable(out: object) -> Array:
    """`out` as a plain ndarray; a torch tensor's memory is written to, and autograd is not told."""
    out = as_numpy_sees(out)
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        if on_device(out):
            raise TypeError("out lives on a GPU, and what it is to be computed from does not; give a NumPy array")
        raise TypeError(f"out is a {type(out).__name__}; it takes a NumPy array")
    if not out.flags.writeable:
        raise ValueError("out is read-only")
    return np.asarray(out)


# ------------------------------------------------------------------------------------------------ layouts


def empty(shape: Shape, dtype: DType) -> Array:
    """A new array."""
    return np.empty(shape, dtype)


def full(shape: Shape, one: Array) -> Array:
    """An array all of whose elements are the one that was given."""
    return np.full(shape, one.reshape(()), one.dtype)


def broadcast_to(array: Array, shape: Shape) -> Array:
    """A larger shape, in which elements are repeated."""
    return np.broadcast_to(array, shape)


def as_rows(moved: Array, dtype: DType) -> Array:
    """Shape (rows, K), C-contiguous, in a dtype; a view wherever that can be had."""
    rows = moved.reshape(math.prod(moved.shape[:-1]), moved.shape[-1])
    return rows if rows.dtype == dtype and is_contiguous(rows) else np.require(rows, dtype, ["C", "A"])


def is_contiguous(array: Array) -> bool:
    """Whether elements lie as the tiers take them."""
    return array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative


def may_share(one: Array, other: Array) -> bool:
    """Whether the memory between the first and the last elements of two arrays overlaps."""
    return np.may_share_memory(one, other)


def shares(one: Array, other: Array) -> bool:
    """Whether two arrays have an element in common."""
    return np.shares_memory(one, other)


# ------------------------------------------------------------------------------------------------ results


def run(fill: Fill, arguments: Sequence[AnyArray]) -> None:
    """Let a tier fill the last of the arrays."""
    fill(*arguments)


def fill_with(value: int | Array, *arrays: Array) -> None:
    """Write a number, or numbers, everywhere."""
    for array in arrays:
        array[...] = value


def copy_into(moved: Array, rows: Array) -> None:
    """Write rows into an array whose axes are those of the rows, then that of the choices."""
    np.copyto(moved, rows.reshape(moved.shape), casting="same_kind")


def result(array: Array) -> Array:
    """A new array as callers get it: a number where it has no axes."""
    number: Array = array[()]
    return number


def finish() -> None:
    """Nothing is left to do."""


# ------------------------------------------------------------------------------------------------ the fast path


def usable(values: object) -> Array | None:
    """An array that a tier can take, read and write, but for the number of its axes; None if it cannot."""
    if type(values) is np.ndarray and values.flags.carray and values.size and values.ndim and values.dtype.isnative:
        return values
    return None


def fits(array: Array, shape: Shape, dtype: DType, beside: Array) -> bool:  # noqa: ARG001
    """Whether an array has a shape and a dtype, and is where another is."""
    return array.dtype is dtype and array.shape == shape


def new(shape: Shape, dtype: DType, beside: Array) -> Array:  # noqa: ARG001
    """A new array where another is."""
    return np.empty(shape, dtype)


def are_apart(array: Array, others: Sequence[Array]) -> bool:
    """Whether an array surely shares no memory with others; two arrays that own their memory do not."""
    for other in others:
        if array is other:
            return False
        if not (array.flags.owndata and other.flags.owndata) and np.may_share_memory(array, other):
            return False
    return True
