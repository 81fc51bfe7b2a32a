"""How numbers are stored and what they are computed in: 16 bits are widened and narrowed inside the kernels.

=========  =================================  ============
dtype      in the kernels' arrays             computed in
=========  =================================  ============
float64    float64                            float64
float32    float32                            float32
float16    uint16, its bits                   float32
bfloat16   int16, its bits                    float32
=========  =================================  ============

Integer operations, which every target has, take the bits apart; SIMD vectors of float16 take instructions where there
are some. NaN stays NaN, and subnormals are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from npselect._arithmetic.aliases import (
    Array,
    Bits,
    Builder,
    Chosen,
    Code,
    Context,
    LlvmType,
    NumbaType,
    Number,
    Signature,
    Tile,
    Typing,
    Value,
    Vector,
)
from npselect._arithmetic.primitives import bits_of, compiles, float32_of, float64_of, formula, select
from npselect._arithmetic.processor import has_half_floats

__all__ = [
    "to_lane",
    "bfloat16_bits",
    "compute_type",
    "float16_bits",
    "from_lane",
    "narrow",
    "narrow_vector",
    "stored",
    "widen",
    "widen_vector",
]

HostArray = npt.NDArray[Any]

_FROM_HALF = np.float32(2.0**112)  # the exponents' biases differ by 112
_HALF = np.float32(0.5)


@formula
def _widen_float16(bits: Bits) -> Number:
    magnitude = bits_of(float32_of((bits & 0x7FFF) << 13) * _FROM_HALF)
    magnitude = select((bits & 0x7C00) == 0x7C00, magnitude | 0x7F800000, magnitude)
    return float32_of(((bits & 0x8000) << 16) | magnitude)


@formula
def _widen_bfloat16(bits: Bits) -> Number:
    return float32_of(bits << 16)


@formula
def float16_bits(x: Number) -> Bits:
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
def bfloat16_bits(x: Number) -> Bits:
    """The bits of the nearest bfloat16, ties to even."""
    bits = bits_of(x)
    high = bits >> 16
    rounded = high + (((bits & 0xFFFF) + 0x7FFF + (high & 1)) >> 16)
    return select((bits & 0x7FFFFFFF) > 0x7F800000, high | 0x40, rounded)


def widen(stored: Bits) -> Number:
    """A stored number in its compute type, exactly."""
    if isinstance(stored, np.uint16):
        return _widen_float16(np.int32(stored))
    return _widen_bfloat16(np.int32(stored)) if isinstance(stored, np.int16) else stored


@compiles(widen)
def _widen(stored: NumbaType) -> Chosen:
    if stored == types.uint16:
        return lambda stored: _widen_float16(np.int64(stored))
    if stored == types.int16:
        return lambda stored: _widen_bfloat16(np.int64(stored))
    return lambda stored: stored


def narrow(x: Number, storage: Array) -> Bits:
    """A computed number in the type of the array `storage`, rounded to nearest, ties to even."""
    if storage.dtype == np.uint16:
        return np.uint16(float16_bits(x))
    return np.int16(bfloat16_bits(x)) if storage.dtype == np.int16 else x


@compiles(narrow)
def _narrow(x: NumbaType, storage: NumbaType) -> Chosen:
    if storage.dtype == types.uint16:
        return lambda x, storage: np.uint16(float16_bits(x))
    if storage.dtype == types.int16:
        return lambda x, storage: np.int16(bfloat16_bits(x))
    return lambda x, storage: x


# SIMD vectors of float16 take the processor's instructions, where it has them: the same numbers, though another NaN.


@intrinsic
def _has_half_floats(typing: Typing) -> Code:
    """A constant, so that the branch not taken is not compiled."""

    def generate(context: Context, builder: Builder, sig: Signature, args: Sequence[Value]) -> Value:
        return ir.IntType(1)(int(has_half_floats(context)))

    return types.boolean(), generate


def _halves(count: int) -> LlvmType:
    return ir.VectorType(ir.HalfType(), count)


@intrinsic
def _extended(typing: Typing, lanes: NumbaType) -> Code:
    """float16 in the low bits of lanes as float32."""

    def generate(context: Context, builder: Builder, sig: Signature, args: Sequence[Value]) -> Value:
        bits = builder.bitcast(args[0], ir.VectorType(ir.IntType(32), lanes.width))
        bits = builder.trunc(bits, ir.VectorType(ir.IntType(16), lanes.width))
        return builder.fpext(builder.bitcast(bits, _halves(lanes.width)), args[0].type)

    return lanes(lanes), generate


@intrinsic
def _truncated(typing: Typing, x: NumbaType) -> Code:
    """float32 rounded to float16, ties to even, in the low bits of lanes."""

    def generate(context: Context, builder: Builder, sig: Signature, args: Sequence[Value]) -> Value:
        halves = builder.fptrunc(args[0], _halves(x.width))
        bits = builder.bitcast(halves, ir.VectorType(ir.IntType(16), x.width))
        return builder.bitcast(builder.zext(bits, ir.VectorType(ir.IntType(32), x.width)), args[0].type)

    return x(x), generate


@formula
def _widen_halves(lanes: Vector) -> Vector:
    if _has_half_floats():
        return _extended(lanes)
    return _widen_float16(bits_of(lanes))


@formula
def _narrow_halves(x: Number) -> Vector:
    if _has_half_floats():
        return _truncated(x)
    return float32_of(float16_bits(x))


def widen_vector(lanes: Vector, storage: Array) -> Vector:
    """`widen` for a vector whose lanes are as wide as the compute type, with the stored bits as their low ones."""
    raise NotImplementedError("SIMD vectors exist in compiled code alone")


@compiles(widen_vector)
def _widen_vector(lanes: NumbaType, storage: NumbaType) -> Chosen:
    if storage.dtype == types.uint16:
        return lambda lanes, storage: _widen_halves(lanes)
    if storage.dtype == types.int16:
        return lambda lanes, storage: _widen_bfloat16(bits_of(lanes))
    return lambda lanes, storage: lanes


def narrow_vector(x: Number, storage: Array) -> Vector:
    """`narrow` for a vector: 16 bits are the low ones of a lane."""
    raise NotImplementedError("SIMD vectors exist in compiled code alone")


@compiles(narrow_vector)
def _narrow_vector(x: NumbaType, storage: NumbaType) -> Chosen:
    if storage.dtype == types.uint16:
        return lambda x, storage: _narrow_halves(x)
    if storage.dtype == types.int16:
        return lambda x, storage: float32_of(bfloat16_bits(x))
    return lambda x, storage: x


def to_lane(entry: Bits, tile: Tile) -> Number:
    """A stored entry as a lane of the tile: 16-bit numbers and bools are its low bits."""
    raise NotImplementedError("SIMD vectors exist in compiled code alone")


@compiles(to_lane)
def _to_lane(entry: NumbaType, tile: NumbaType) -> Chosen:
    if entry == tile.dtype:
        return lambda entry, tile: entry
    if tile.dtype == types.float32:
        return lambda entry, tile: float32_of(np.int64(entry) & 0xFFFF)
    return lambda entry, tile: float64_of(np.int64(entry))


def from_lane(lane: Number, storage: Array) -> Bits:
    """A lane as a stored entry of the array `storage`."""
    raise NotImplementedError("SIMD vectors exist in compiled code alone")


@compiles(from_lane)
def _from_lane(lane: NumbaType, storage: NumbaType) -> Chosen:
    if storage.dtype == types.uint16:
        return lambda lane, storage: np.uint16(bits_of(lane))
    if storage.dtype == types.int16:
        return lambda lane, storage: np.int16(bits_of(lane))
    return lambda lane, storage: lane


def compute_type(array: HostArray) -> type[np.floating[Any]]:
    """What a floating array is computed in."""
    return np.float64 if array.dtype == np.float64 else np.float32


@cache
def _storage_type(dtype: np.dtype[Any]) -> type[np.integer[Any]] | None:
    return {"float16": np.uint16, "bfloat16": np.int16}.get(dtype.name)


def stored(array: HostArray) -> HostArray:
    """A view in the storage type, writeable: numba would compile once more for read-only arrays."""
    storage = _storage_type(array.dtype)
    if storage is not None:
        array = array.view(storage)
    return array if array.flags.writeable else np.asarray(_Memory(array))


class _Memory:
    def __init__(self, array: HostArray) -> None:
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}
        self.owner = array
