"""How numbers are stored and what they are computed in: 16 bits are widened and narrowed inside the kernels.

=========  =================================  ============
dtype      in the kernels' arrays             computed in
=========  =================================  ============
float64    float64                            float64
float32    float32                            float32
float16    uint16, its bits                   float32
bfloat16   int16, its bits                    float32
=========  =================================  ============

The bits are taken apart by integer operations, which every target has, or by instructions for float16 where there are
some; NaN stays NaN, and subnormals are exact.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from npselect._arithmetic.primitives import bits_of, compiles, float32_of, float64_of, formula, select
from npselect._arithmetic.processor import has_half_floats

__all__ = [
    "as_slot",
    "bfloat16_bits",
    "compute_type",
    "float16_bits",
    "from_slot",
    "narrow",
    "narrow_slots",
    "stored",
    "widen",
    "widen_slots",
]

Array = npt.NDArray[Any]

_FROM_HALF = np.float32(2.0**112)  # the exponents' biases differ by 112
_HALF = np.float32(0.5)


@formula
def _widen_float16(bits: Any) -> Any:
    magnitude = bits_of(float32_of((bits & 0x7FFF) << 13) * _FROM_HALF)
    magnitude = select((bits & 0x7C00) == 0x7C00, magnitude | 0x7F800000, magnitude)
    return float32_of(((bits & 0x8000) << 16) | magnitude)


@formula
def _widen_bfloat16(bits: Any) -> Any:
    return float32_of(bits << 16)


@formula
def float16_bits(x: Any) -> Any:
    """The bits of the nearest float16, ties to even."""
    bits = bits_of(x)
    magnitude = bits & 0x7FFFFFFF
    normal = (magnitude - (112 << 23) + 0xFFF + ((magnitude >> 13) & 1)) >> 13
    subnormal = bits_of(float32_of(magnitude) + _HALF) - 0x3F000000  # the sum rounds at 2**-24, half's last place
    result = select(magnitude < 0x38800000, subnormal, normal)
    result = select(magnitude >= 0x47800000, 0x7C00, result)
    result = select(magnitude > 0x7F800000, 0x7E00, result)
    return result | ((bits >> 16) & 0x8000)


@formula
def bfloat16_bits(x: Any) -> Any:
    """The bits of the nearest bfloat16, ties to even."""
    bits = bits_of(x)
    high = bits >> 16
    rounded = high + (((bits & 0xFFFF) + 0x7FFF + (high & 1)) >> 16)
    return select((bits & 0x7FFFFFFF) > 0x7F800000, high | 0x40, rounded)


def widen(stored: Any) -> Any:
    """A stored number in its compute type, exactly."""
    if isinstance(stored, np.uint16):
        return _widen_float16(np.int32(stored))
    return _widen_bfloat16(np.int32(stored)) if isinstance(stored, np.int16) else stored


@compiles(widen)
def _widen(stored: Any) -> Any:
    if stored == types.uint16:
        return lambda stored: _widen_float16(np.int64(stored))
    if stored == types.int16:
        return lambda stored: _widen_bfloat16(np.int64(stored))
    return lambda stored: stored


def narrow(x: Any, storage: Any) -> Any:
    """A computed number in the type of the array `storage`, rounded to nearest, ties to even."""
    if storage.dtype == np.uint16:
        return np.uint16(float16_bits(x))
    return np.int16(bfloat16_bits(x)) if storage.dtype == np.int16 else x


@compiles(narrow)
def _narrow(x: Any, storage: Any) -> Any:
    if storage.dtype == types.uint16:
        return lambda x, storage: np.uint16(float16_bits(x))
    if storage.dtype == types.int16:
        return lambda x, storage: np.int16(bfloat16_bits(x))
    return lambda x, storage: x


# Packs of float16 by the processor's instructions, where it has them: the same numbers, and one NaN for another.


@intrinsic
def _has_half_floats(typing: Any) -> Any:
    """A constant: what is not taken is not compiled."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.IntType(1)(int(has_half_floats(context)))

    return types.boolean(), generate


def _halves(count: int) -> Any:
    return ir.VectorType(ir.HalfType(), count)


@intrinsic
def _extended(typing: Any, slots: Any) -> Any:
    """The float32 of slots with float16 in their low bits."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], ir.VectorType(ir.IntType(32), slots.width))
        bits = builder.trunc(bits, ir.VectorType(ir.IntType(16), slots.width))
        return builder.fpext(builder.bitcast(bits, _halves(slots.width)), args[0].type)

    return slots(slots), generate


@intrinsic
def _truncated(typing: Any, x: Any) -> Any:
    """The nearest float16 of float32, ties to even, in the low bits of slots."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        halves = builder.fptrunc(args[0], _halves(x.width))
        bits = builder.bitcast(halves, ir.VectorType(ir.IntType(16), x.width))
        return builder.bitcast(builder.zext(bits, ir.VectorType(ir.IntType(32), x.width)), args[0].type)

    return x(x), generate


@formula
def _widen_halves(slots: Any) -> Any:
    if _has_half_floats():
        return _extended(slots)
    return _widen_float16(bits_of(slots))


@formula
def _narrow_halves(x: Any) -> Any:
    if _has_half_floats():
        return _truncated(x)
    return float32_of(float16_bits(x))


def widen_slots(slots: Any, storage: Any) -> Any:
    """The numbers of a tile's column as loaded from the array `storage`: 16 bits are the low ones of 32."""
    raise NotImplementedError("packs are for compiled code alone")


@compiles(widen_slots)
def _widen_slots(slots: Any, storage: Any) -> Any:
    if storage.dtype == types.uint16:
        return lambda slots, storage: _widen_halves(slots)
    if storage.dtype == types.int16:
        return lambda slots, storage: _widen_bfloat16(bits_of(slots))
    return lambda slots, storage: slots


def narrow_slots(x: Any, storage: Any) -> Any:
    """Computed numbers as a tile holds them for the array `storage`."""
    raise NotImplementedError("packs are for compiled code alone")


@compiles(narrow_slots)
def _narrow_slots(x: Any, storage: Any) -> Any:
    if storage.dtype == types.uint16:
        return lambda x, storage: _narrow_halves(x)
    if storage.dtype == types.int16:
        return lambda x, storage: float32_of(bfloat16_bits(x))
    return lambda x, storage: x


def as_slot(entry: Any, tile: Any) -> Any:
    """An entry as it is stored, as a number of the tile's type: of 16-bit numbers and bools the low bits."""
    raise NotImplementedError("tiles are for compiled code alone")


@compiles(as_slot)
def _as_slot(entry: Any, tile: Any) -> Any:
    if entry == tile.dtype:
        return lambda entry, tile: entry
    if tile.dtype == types.float32:
        return lambda entry, tile: float32_of(np.int64(entry) & 0xFFFF)
    return lambda entry, tile: float64_of(np.int64(entry))


def from_slot(slot: Any, storage: Any) -> Any:
    """The same the other way round, for the array `storage`."""
    raise NotImplementedError("tiles are for compiled code alone")


@compiles(from_slot)
def _from_slot(slot: Any, storage: Any) -> Any:
    if storage.dtype == types.uint16:
        return lambda slot, storage: np.uint16(bits_of(slot))
    if storage.dtype == types.int16:
        return lambda slot, storage: np.int16(bits_of(slot))
    return lambda slot, storage: slot


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
