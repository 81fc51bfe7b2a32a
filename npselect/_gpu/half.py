"""16-bit numbers on a GPU, which has instructions for them: the values of `npselect._arithmetic.half`, NaN aside."""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from npselect._arithmetic.aliases import (
    Bits,
    Builder,
    Chosen,
    Code,
    Context,
    NumbaType,
    Number,
    Signature,
    Typing,
    Value,
)
from npselect._arithmetic.primitives import compiles
from npselect._gpu.intrinsics import in_python

__all__ = ["narrow_bfloat16", "narrow_float16", "widen_bfloat16", "widen_float16"]

_SHORT, _WORD = ir.IntType(16), ir.IntType(32)


def widen_float16(bits: Bits) -> Number:
    """The float32 with the value of a float16, whose bits are given."""
    return in_python().widen_float16(bits)


def narrow_float16(x: Number) -> Bits:
    """The bits of the float16 nearest to a float32, ties to even."""
    return in_python().narrow_float16(x)


def widen_bfloat16(bits: Bits) -> Number:
    """The float32 with the value of a bfloat16, whose bits are given."""
    return in_python().widen_bfloat16(bits)


def narrow_bfloat16(x: Number) -> Bits:
    """The bits of the bfloat16 nearest to a float32, ties to even."""
    return in_python().narrow_bfloat16(x)


def _word(value: int) -> Value:
    return ir.Constant(_WORD, value)


@intrinsic
def _widen_float16(typing: Typing, bits: NumbaType) -> Code:
    def generate(context: Context, builder: Builder, signature: Signature, args: Sequence[Value]) -> Value:
        # the instruction itself, as LLVM would make two loads of a load of four halves
        convert = ir.InlineAsm(ir.FunctionType(ir.FloatType(), [_SHORT]), "cvt.f32.f16 $0, $1;", "=f,h")
        return builder.call(convert, args)

    return types.float32(types.uint16), generate


@intrinsic
def _narrow_float16(typing: Typing, x: NumbaType) -> Code:
    def generate(context: Context, builder: Builder, signature: Signature, args: Sequence[Value]) -> Value:
        return builder.bitcast(builder.fptrunc(args[0], ir.HalfType()), _SHORT)

    return types.uint16(types.float32), generate


@intrinsic
def _widen_bfloat16(typing: Typing, bits: NumbaType) -> Code:
    def generate(context: Context, builder: Builder, signature: Signature, args: Sequence[Value]) -> Value:
        return builder.bitcast(builder.shl(builder.zext(args[0], _WORD), _word(16)), ir.FloatType())

    return types.float32(types.int16), generate


@intrinsic
def _narrow_bfloat16(typing: Typing, x: NumbaType) -> Code:
    def generate(context: Context, builder: Builder, signature: Signature, args: Sequence[Value]) -> Value:
        bits = builder.bitcast(args[0], _WORD)
        kept = builder.lshr(bits, _word(16))
        odd = builder.and_(kept, _word(1))
        rounded = builder.lshr(builder.add(bits, builder.add(odd, _word(0x7FFF))), _word(16))
        is_nan = builder.fcmp_unordered("uno", args[0], args[0])
        return builder.trunc(builder.select(is_nan, builder.or_(kept, _word(0x40)), rounded), _SHORT)

    return types.int16(types.float32), generate


@compiles(widen_float16)
def _widen_float16_(bits: NumbaType) -> Chosen:
    return lambda bits: _widen_float16(bits)


@compiles(narrow_float16)
def _narrow_float16_(x: NumbaType) -> Chosen:
    return lambda x: _narrow_float16(x)


@compiles(widen_bfloat16)
def _widen_bfloat16_(bits: NumbaType) -> Chosen:
    return lambda bits: _widen_bfloat16(bits)


@compiles(narrow_bfloat16)
def _narrow_bfloat16_(x: NumbaType) -> Chosen:
    return lambda x: _narrow_bfloat16(x)
