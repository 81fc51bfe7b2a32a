"""Arrays in memory: copies that lie as the original does, and cases that come in every order.

A transposed gradient comes of ``x.T``, one that is the same for all rows or choices of a sum or of broadcasting, one
cut out of a larger array of concatenating, every other number of a slice. What takes their memory for contiguous reads
other numbers: here NaN, wherever the array has none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from npselect.testing.case import Case

__all__ = ["laid_out", "layout_cases", "like", "memory"]

Array = npt.NDArray[Any]


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
    flat = np.full(max(extent, values.size) * (values.size > 0), np.nan).astype(values.dtype)
    sizes = [abs(stride) * values.itemsize for stride in strides]
    array = np.lib.stride_tricks.as_strided(flat, values.shape, sizes)
    along: tuple[Any, ...] = (..., *(slice(None, None, -1 if stride < 0 else 1) for stride in strides))
    array = array[along]
    array[...] = values
    return flat, array


def layout_cases(dtype: np.dtype[Any], temp: float) -> Iterator[Case]:
    """Cases whose arrays lie otherwise than in C order; in others, they are as numbers are."""
    rows, choices = 32, 12
    rng = np.random.default_rng(64529)
    logits, grad_mask = (scale * rng.standard_normal((rows, choices)) for scale in (3.0, 1.0))
    c_order, columns = (choices, 1), (1, rows)

    def case(name: str, note: str, w: tuple[int, int], g: tuple[int, int]) -> Case:
        def array(values: Array, strides: tuple[int, int]) -> Array:
            same = tuple(slice(1) if stride == 0 else slice(None) for stride in strides)
            return laid_out(np.broadcast_to(values[same], values.shape).astype(dtype), strides)

        return Case(f"layout/{name}", note, array(logits, w), array(grad_mask, g), temp)

    yield case("transposed logits", "logits in Fortran order, grad_mask in C order", columns, c_order)
    yield case("transposed cotangent", "grad_mask in Fortran order, as of a transposed mask", c_order, columns)
    yield case("one row for all", "grad_mask is broadcast along the rows: of a stride of 0", c_order, (0, 1))
    yield case("one number a row", "grad_mask is broadcast along the choices, as of a sum", c_order, (1, 0))
    yield case("one number", "grad_mask is one number in memory, as of the sum of all", c_order, (0, 0))
    yield case("one row of logits", "logits are broadcast along the rows", (0, 1), c_order)
    yield case("cut out", "columns of larger arrays, as of concatenating", (choices + 3, 1), (choices + 5, 1))
    yield case("every other", "every other number of every other row", (4 * choices, 2), (6 * choices, 3))
    backwards = case("backwards", "negative strides", (-choices, -1), (choices, -1))
    yield replace(backwards, flags=("numpy",))
