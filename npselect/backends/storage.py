"""How numbers are stored and what they are computed in: 16 bits are widened and narrowed inside the kernels.

=========  =================================  ============
dtype      in the kernels' arrays             computed in
=========  =================================  ============
float64    float64                            float64
float32    float32                            float32
float16    uint16, its bits                   float32
bfloat16   int16, its bits                    float32
=========  =================================  ============

The bits are taken apart by integer operations, which every target has; NaN stays NaN, and subnormals are exact.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types

from npselect.backends.primitives import bits_of, compiles, float32_of, formula

__all__ = ["compute_type", "narrow", "stored", "widen"]

Array = npt.NDArray[Any]

_FROM_HALF = np.float32(2.0**112)  # the exponents' biases differ by 112


@formula
def _widen_float16(bits: Any) -> Any:
    sign = (bits & 0x8000) << 16
    magnitude = bits_of(float32_of((bits & 0x7FFF) << 13) * _FROM_HALF)
    if (bits & 0x7C00) == 0x7C00:
        magnitude = magnitude | 0x7F800000
    return float32_of(sign | np.int64(magnitude))


@formula
def _narrow_float16(x: Any) -> Any:
    bits = np.int64(bits_of(x)) & 0xFFFFFFFF
    magnitude = bits & 0x7FFFFFFF
    normal = (magnitude - (112 << 23) + 0xFFF + ((magnitude >> 13) & 1)) >> 13
    subnormal = np.int64(bits_of(abs(x) + np.float32(0.5))) - 0x3F000000  # the sum rounds at 2**-24, half's last place
    special = 0x7E00 if magnitude > 0x7F800000 else 0x7C00
    result = special if magnitude >= 0x47800000 else (subnormal if magnitude < 0x38800000 else normal)
    return np.uint16(result | ((bits >> 16) & 0x8000))


@formula
def _widen_bfloat16(bits: Any) -> Any:
    return float32_of((np.int64(bits) & 0xFFFF) << 16)


@formula
def _narrow_bfloat16(x: Any) -> Any:
    bits = np.int64(bits_of(x)) & 0xFFFFFFFF
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    quiet = (bits >> 16) | 0x40
    result = quiet if (bits & 0x7FFFFFFF) > 0x7F800000 else rounded
    return np.int16(result - 0x10000 if result >= 0x8000 else result)


def widen(stored: Any) -> Any:
    """A stored number in its compute type, exactly."""
    if isinstance(stored, np.uint16):
        return _widen_float16(int(stored))
    return _widen_bfloat16(stored) if isinstance(stored, np.int16) else stored


@compiles(widen)
def _widen(stored: Any) -> Any:
    if stored == types.uint16:
        return lambda stored: _widen_float16(np.int64(stored))
    if stored == types.int16:
        return lambda stored: _widen_bfloat16(stored)
    return lambda stored: stored


def narrow(x: Any, storage: Any) -> Any:
    """A computed number in the type of the array `storage`, rounded to nearest, ties to even."""
    if storage.dtype == np.uint16:
        return _narrow_float16(x)
    return _narrow_bfloat16(x) if storage.dtype == np.int16 else x


@compiles(narrow)
def _narrow(x: Any, storage: Any) -> Any:
    if storage.dtype == types.uint16:
        return lambda x, storage: _narrow_float16(x)
    if storage.dtype == types.int16:
        return lambda x, storage: _narrow_bfloat16(x)
    return lambda x, storage: x


def compute_type(array: Array) -> type[np.floating[Any]]:
    """What a floating array is computed in."""
    return np.float64 if array.dtype == np.float64 else np.float32


@cache
def _storage_type(dtype: np.dtype[Any]) -> type[np.integer[Any]] | None:
    return {"float16": np.uint16, "bfloat16": np.int16}.get(dtype.name)


def stored(array: Array) -> Array:
    """The same memory in its storage type, writeable: numba would compile once more for read-only arrays."""
    storage = _storage_type(array.dtype)
    if storage is not None:
        array = array.view(storage)
    return array if array.flags.writeable else np.asarray(_Memory(array))


class _Memory:
    def __init__(self, array: Array) -> None:
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}
        self.owner = array
