"""Arrays in memory: copies that lie as the original does.

A transposed gradient comes of ``x.T``, one that is the same for all rows or choices of a sum or of broadcasting, one
cut out of a larger array of concatenating, every other number of a slice. What takes their memory for contiguous reads
other numbers: here NaN, wherever the array has none.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from npselect.testing.aliases import Array

__all__ = ["laid_out", "like", "memory"]


def laid_out(values: npt.ArrayLike, strides: tuple[int, ...]) -> Array:
    """A copy of the values with these strides, in numbers.

    In memory of its own, of as many numbers at least; what belongs to no value there is NaN, or true. Along an axis of
    stride 0 values must be equal.
    """
    return _written(np.asarray(values), strides)[1]


def like(values: Array, model: Array) -> Array:
    """A copy of the values with the strides of an array of the same shape and dtype."""
    return laid_out(values, _strides(model))


def memory(values: npt.ArrayLike) -> tuple[Array, tuple[int, ...], tuple[int, ...]]:
    """A copy's memory, flat, its shape and the strides, in numbers, from the first number of the memory on.

    They are those of the array, if none is negative, else those of C order.
    """
    array = np.asarray(values)
    strides = _strides(array)
    if any(stride < 0 for stride in strides):
        strides = _c_order(array)
    return _written(array, strides)[0], array.shape, strides


def _strides(array: Array) -> tuple[int, ...]:
    """In numbers; those of C order, if numbers do not lie at multiples of their size."""
    if array.size == 0 or any(stride % array.itemsize for stride in array.strides):
        return _c_order(array)
    return tuple(stride // array.itemsize for stride in array.strides)


def _c_order(array: Array) -> tuple[int, ...]:
    return tuple(math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim))


def _written(values: Array, strides: tuple[int, ...]) -> tuple[Array, Array]:
    """The memory, and the array in it."""
    extent = 1 + sum((length - 1) * abs(stride) for length, stride in zip(values.shape, strides, strict=True))
    beside = np.iinfo(values.dtype).min if values.dtype.kind in "iu" else np.nan  # what nobody should read
    flat = np.full(max(extent, values.size) * (values.size > 0), beside).astype(values.dtype)
    sizes = [abs(stride) * values.itemsize for stride in strides]
    array = np.lib.stride_tricks.as_strided(flat, values.shape, sizes)
    for axis, stride in enumerate(strides):
        array = np.flip(array, axis) if stride < 0 else array
    array[...] = values
    return flat, array
