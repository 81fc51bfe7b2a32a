"""What the kernels' formulas are made of: one rounded operation or a few, with the same bits on every target.

Each function is plain Python over NumPy scalars; what it compiles to is stated beside it. The operations are `fma`, +,
-, * and /, which IEEE 754 rounds correctly on every processor. Where a product meets a sum the `fma` is explicit, so
that no compiler has anything left to contract.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TypeVar, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic, overload, register_jitable

from npselect._arithmetic.aliases import (
    Bits,
    Builder,
    Chosen,
    Code,
    Context,
    Flag,
    NumbaType,
    Number,
    Signature,
    Table,
    Typing,
    Value,
)
from npselect._arithmetic.fused import fma32
from npselect._arithmetic.processor import has_fma
from npselect._arithmetic.simd import SimdVector, as_vector

__all__ = [
    "bits_of",
    "compiles",
    "element",
    "lookup",
    "fast_two_sum",
    "float32_of",
    "float64_of",
    "fma",
    "formula",
    "inlined",
    "number_of",
    "rounded32",
    "select",
    "two_product",
    "two_sum",
]

Function = TypeVar("Function", bound=Callable[..., object])


def formula(function: Function) -> Function:
    """The same text for Python, the CPU and CUDA."""
    return cast("Function", register_jitable(no_cfunc_wrapper=True)(function))


def inlined(function: Function) -> Function:
    """A `formula` that is always inlined: a loop that calls it can be vectorised."""
    return cast("Function", register_jitable(forceinline=True, no_cfunc_wrapper=True)(function))


def compiles(function: Callable[..., object]) -> Callable[[Function], Function]:
    """Register what compiled code calls for `function`: the decorated function chooses it by the arguments' types."""

    def register(choose: Function) -> Function:
        choose.__annotations__ = {}  # numba compares signatures, annotations included
        return cast("Function", overload(function, jit_options={"no_cfunc_wrapper": True}, inline="always")(choose))

    return register


# ------------------------------------------------------------------------------------------------ fma, bits


def fma(a: Number, b: Number, c: Number) -> Number:
    """``a * b + c`` with one rounding; in Python by exact rational arithmetic."""
    if not (np.isfinite(a) and np.isfinite(b)):
        return a * b + c
    if not np.isfinite(c):
        return c
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    if exact == 0:
        return a * b + c  # for the sign of zero
    try:
        nearest = np.float64(exact.numerator / exact.denominator)
    except OverflowError:
        nearest = np.float64(np.inf if exact > 0 else -np.inf)
    if isinstance(a, np.float64):
        return nearest
    if np.isfinite(nearest) and Fraction(float(nearest)) != exact:  # rounded to odd, so that rounding twice is right
        toward_zero = nearest if abs(Fraction(float(nearest))) < abs(exact) else np.nextafter(nearest, np.float64(0.0))
        nearest = np.int64(toward_zero.view(np.int64) | 1).view(np.float64)
    return np.float32(nearest)


def bits_of(x: Number) -> Bits:
    """The bits of a float32 or float64 as an integer of the same width."""
    return x.view(np.int32 if isinstance(x, np.float32) else np.int64)


def float32_of(bits: Bits) -> Number:
    """The float32 with the low 32 of the given bits."""
    return np.uint32(int(bits) & 0xFFFFFFFF).view(np.float32)


def float64_of(bits: Bits) -> Number:
    """The float64 with the given bits."""
    return np.int64(bits).view(np.float64)


def number_of(bits: Bits) -> Number:
    """The float32 or float64 with the given bits, an int32 or int64."""
    return bits.view(np.float32 if isinstance(bits, np.int32) else np.float64)


def select(condition: Flag, a: Number, b: Number) -> Number:
    """``a if condition else b``, both computed."""
    return a if condition else b


def rounded32(x: Number) -> Number:
    """The float32 that is nearest to a float64."""
    return np.float32(x)


def lookup(table: Table, i: Bits) -> Number:
    """Number i, from 0 to 7, of a tuple of eight."""
    return table[i]


MakesCode = Callable[..., Code]  # takes the types of arguments: what `intrinsic` decorates


def _vector_meaning(function: Callable[..., object]) -> Callable[[MakesCode], MakesCode]:
    """An intrinsic, and what `function` means for SIMD vectors.

    Scalars are served by an overload of the function, on CUDA too: numba compiles one more function for each
    combination of types. SIMD vectors, which only the CPU has, come in many combinations, so that they are typed and
    lowered directly.
    """

    def register(code: MakesCode) -> MakesCode:
        def generic(self: AbstractTemplate, kinds: Sequence[NumbaType], keywords: object) -> Signature | None:
            return code(None, *kinds)[0] if _vector_among(*kinds) else None

        def lower(context: Context, builder: Builder, signature: Signature, args: Sequence[Value]) -> Value:
            return code(None, *signature.args)[1](context, builder, signature, args)

        template = type(f"_{function.__name__}", (AbstractTemplate,), {"key": function, "generic": generic})
        infer_global(function)(template)
        lower_builtin(function, *[types.Any] * function.__code__.co_argcount)(lower)
        return cast("MakesCode", intrinsic(code))

    return register


@_vector_meaning(fma)
def _llvm_fma(typing: Typing, a: NumbaType, b: NumbaType, c: NumbaType) -> Code:
    vector = _vector_among(a, b, c)

    def generate(context: Context, builder: Builder, signature: Signature, args: Sequence[Value]) -> Value:
        if vector is not None:
            args = [as_vector(context, builder, x, kind, vector) for x, kind in zip(args, signature.args, strict=True)]
        if element(signature.return_type) == types.float32 and not has_fma(context):
            return fma32(builder, *args)
        if vector is None:
            return builder.fma(*args)
        name = f"llvm.fma.v{vector.width}f{vector.element.bitwidth}"
        return builder.call(
            cgutils.get_or_insert_function(builder.module, ir.FunctionType(args[0].type, [args[0].type] * 3), name),
            args,
        )

    return (vector or a)(a, b, c), generate


@_vector_meaning(select)
def _llvm_select(typing: Typing, condition: NumbaType, a: NumbaType, b: NumbaType) -> Code:
    result = _vector_among(a, b)
    if result is None:
        kinds = types.unliteral(a), types.unliteral(b)
        result = _like(condition, kinds[0] if kinds[0] == kinds[1] else typing.unify_types(*kinds))

    def generate(context: Context, builder: Builder, signature: Signature, args: Sequence[Value]) -> Value:
        convert = as_vector if isinstance(result, SimdVector) else _as_scalar
        values = [
            convert(context, builder, x, kind, result) for x, kind in zip(args[1:], signature.args[1:], strict=True)
        ]
        return builder.select(args[0], *values)

    return result(condition, a, b), generate


def _as_scalar(context: Context, builder: Builder, value: Value, kind: NumbaType, result: NumbaType) -> Value:
    return context.cast(builder, value, kind, result)


def _vector_among(*kinds: NumbaType) -> SimdVector | None:
    return next((kind for kind in kinds if isinstance(kind, SimdVector)), None)


def _like(kind: NumbaType, element: NumbaType) -> NumbaType:
    """The type of as many numbers as `kind` has, each of the type `element`."""
    return SimdVector(element, kind.width) if isinstance(kind, SimdVector) else element


def element(kind: NumbaType) -> NumbaType:
    """A SIMD vector's element type, or the scalar's type itself."""
    return kind.element if isinstance(kind, SimdVector) else kind


@_vector_meaning(bits_of)
def _llvm_bits(typing: Typing, x: NumbaType) -> Code:
    integer = _like(x, types.int32 if element(x) == types.float32 else types.int64)

    def generate(context: Context, builder: Builder, signature: Signature, args: Sequence[Value]) -> Value:
        return builder.bitcast(args[0], context.get_value_type(integer))

    return integer(x), generate


@_vector_meaning(float32_of)
def _llvm_float32(typing: Typing, bits: NumbaType) -> Code:
    def generate(context: Context, builder: Builder, signature: Signature, args: Sequence[Value]) -> Value:
        low = args[0] if element(bits).bitwidth == 32 else builder.trunc(args[0], ir.IntType(32))
        return builder.bitcast(low, context.get_value_type(signature.return_type))

    return _like(bits, types.float32)(bits), generate


@_vector_meaning(float64_of)
def _llvm_float64(typing: Typing, bits: NumbaType) -> Code:
    def generate(context: Context, builder: Builder, signature: Signature, args: Sequence[Value]) -> Value:
        return builder.bitcast(args[0], context.get_value_type(signature.return_type))

    return _like(bits, types.float64)(bits), generate


@_vector_meaning(rounded32)
def _llvm_rounded32(typing: Typing, x: NumbaType) -> Code:
    def generate(context: Context, builder: Builder, signature: Signature, args: Sequence[Value]) -> Value:
        return builder.fptrunc(args[0], context.get_value_type(signature.return_type))

    return _like(x, types.float32)(x), generate


@intrinsic
def _llvm_lookup(typing: Typing, table: NumbaType, places: NumbaType) -> Code:
    """By eights: LLVM recognises a permutation, for which AVX-512 has an instruction."""

    def generate(context: Context, builder: Builder, signature: Signature, args: Sequence[Value]) -> Value:
        number = ir.IntType(32)
        entries = eight = ir.Constant(ir.VectorType(context.get_value_type(table.dtype), 8), ir.Undefined)
        for k in range(8):
            entries = builder.insert_element(entries, builder.extract_value(args[0], k), number(k))
        parts = []
        for first in range(0, places.width, 8):
            part = eight
            for k in range(8):
                place = builder.extract_element(args[1], number(first + k))
                part = builder.insert_element(part, builder.extract_element(entries, place), number(k))
            parts.append(part)
        while len(parts) > 1:
            order = list(range(2 * parts[0].type.count))
            whole = ir.Constant(ir.VectorType(number, len(order)), order)
            parts = [builder.shuffle_vector(a, b, whole) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]

    return _like(places, table.dtype)(table, places), generate


@compiles(fma)
def _fma(a: NumbaType, b: NumbaType, c: NumbaType) -> Chosen:
    return None if _vector_among(a, b, c) else (lambda a, b, c: _llvm_fma(a, b, c))


@compiles(select)
def _select(condition: NumbaType, a: NumbaType, b: NumbaType) -> Chosen:
    return None if _vector_among(condition, a, b) else (lambda condition, a, b: _llvm_select(condition, a, b))


@compiles(bits_of)
def _bits_(x: NumbaType) -> Chosen:
    return None if _vector_among(x) else (lambda x: _llvm_bits(x))


@compiles(float32_of)
def _float32_(bits: NumbaType) -> Chosen:
    return None if _vector_among(bits) else (lambda bits: _llvm_float32(bits))


@compiles(float64_of)
def _float64_(bits: NumbaType) -> Chosen:
    return None if _vector_among(bits) else (lambda bits: _llvm_float64(bits))


@compiles(number_of)
def _number_of(bits: NumbaType) -> Chosen:
    if element(bits) == types.int32:
        return lambda bits: _llvm_float32(bits)
    return lambda bits: _llvm_float64(bits)


@compiles(rounded32)
def _rounded32(x: NumbaType) -> Chosen:
    return None if _vector_among(x) else (lambda x: _llvm_rounded32(x))


@compiles(lookup)
def _lookup(table: NumbaType, i: NumbaType) -> Chosen:
    if isinstance(i, SimdVector):
        return lambda table, i: _llvm_lookup(table, i)
    return lambda table, i: table[i]


# ------------------------------------------------------------------------------------------------ exact sums, products

_ZERO = np.float64(0.0)


@formula
def two_sum(a: Number, b: Number) -> tuple[Number, Number]:
    """``a + b`` exactly, as the rounded sum and its error (Knuth, TAOCP 4.2.2)."""
    s = a + b
    b_part = s - a
    return s, (a - (s - b_part)) + (b - b_part)


@formula
def fast_two_sum(a: Number, b: Number) -> tuple[Number, Number]:
    """The same for ``|a| >= |b|`` or a = 0 (Dekker 1971)."""
    s = a + b
    return s, b - (s - a)


@formula
def two_product(a: Number, b: Number) -> tuple[Number, Number]:
    """``a * b`` exactly, as the rounded product and its error, in float64.

    The product is an fma, lest a compiler contract it with the sum that it goes into.
    """
    p = fma(a, b, _ZERO)
    return p, fma(a, b, -p)
