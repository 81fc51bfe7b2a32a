"""SIMD vectors in compiled code: sixteen numbers as one value.

A `SimdVector` is a vector of LLVM's, which LLVM lowers to whatever registers a processor has. It holds a number of each
of sixteen rows, or sixteen contiguous entries of one row. The scalar formulas take it as it stands, so its lanes have
the scalars' bits. Operators work lane by lane; a scalar beside a vector is broadcast; comparisons give a vector of
bools.

A wide vector has sixty-four lanes, or thirty-two. It is for formulas that are one long dependency chain: a processor
looks ahead by a few hundred instructions, and finds enough to do in parallel only where neighbours are independent.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence

from llvmlite import ir
from numba import types
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model
from numba.np.arrayobj import populate_array

from npselect._arithmetic.aliases import Builder, Code, Context, Manager, NumbaType, Operation, Signature, Typing, Value

__all__ = [
    "EVEN",
    "ODD",
    "SimdVector",
    "WIDE",
    "WIDTH",
    "nan_mask",
    "as_vector",
    "broadcast",
    "iota",
    "first_true_lane",
    "sum_of_lanes",
    "indices",
    "any_lane",
    "lane",
    "max_lane",
    "load",
    "load_wide",
    "subarray",
    "pointer_to",
    "splat",
    "store",
    "store_interleaved",
]

Instruction = Callable[..., Value]  # takes the builder, whether numbers are floats, and the operands

WIDTH, WIDE = 16, 64
_INT32 = ir.IntType(32)
_INT64 = ir.IntType(64)
# Every other lane of two vectors.
EVEN = ir.Constant(ir.VectorType(_INT32, WIDTH), list(range(0, 2 * WIDTH, 2)))
ODD = ir.Constant(ir.VectorType(_INT32, WIDTH), list(range(1, 2 * WIDTH, 2)))


class SimdVector(types.Type):  # type: ignore[misc]
    """numba's type of `width` numbers of the type `element`."""

    def __init__(self, element: NumbaType, width: int = WIDTH) -> None:
        self.element, self.width = element, width
        super().__init__(f"SimdVector({element}, {width})")


@register_model(SimdVector)
class _SimdVectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Manager, kind: NumbaType) -> None:
        super().__init__(manager, kind, ir.VectorType(manager.lookup(kind.element).get_value_type(), kind.width))


def as_vector(context: Context, builder: Builder, value: Value, kind: NumbaType, vector: SimdVector) -> Value:
    """A value of type `kind` as a `vector`: a scalar is converted to its element type and broadcast."""
    if isinstance(kind, SimdVector):
        return value
    scalar = context.cast(builder, value, kind, vector.element)
    return splat(builder, scalar, vector.width)


def splat(builder: Builder, scalar: Value, width: int = WIDTH) -> Value:
    """LLVM's vector of `width` lanes that all hold the same number."""
    vector = ir.VectorType(scalar.type, width)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, _INT32(0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(_INT32, width), [0] * width))


# ------------------------------------------------------------------------------------------------ operators


def _define(operation: Operation, result: Callable[[SimdVector], SimdVector], instruction: Instruction) -> None:
    """An operator of one or two operands, at least one of them a vector."""

    def generic(self: AbstractTemplate, args: Sequence[NumbaType], keywords: object) -> Signature | None:
        for kind in args:
            if isinstance(kind, SimdVector):
                operands = [kind if isinstance(other, SimdVector) else other for other in args]
                return signature(result(kind), *operands)
        return None

    def lower(context: Context, builder: Builder, sig: Signature, args: Sequence[Value]) -> Value:
        vector = next(kind for kind in sig.args if isinstance(kind, SimdVector))
        operands = [
            as_vector(context, builder, value, kind, vector) for value, kind in zip(args, sig.args, strict=True)
        ]
        if operation is operator.rshift and not vector.element.signed:
            return builder.lshr(*operands)
        return instruction(builder, isinstance(vector.element, types.Float), *operands)

    infer_global(operation)(type(f"_{operation.__name__}", (AbstractTemplate,), {"key": operation, "generic": generic}))
    for operands in ((SimdVector,), (SimdVector, SimdVector), (SimdVector, types.Any), (types.Any, SimdVector)):
        lower_builtin(operation, *operands)(lower)


def _same(vector: SimdVector) -> SimdVector:
    return vector


def _bools(vector: SimdVector) -> SimdVector:
    return SimdVector(types.boolean, vector.width)


def _binary(floats: str, integers: str) -> Instruction:
    return lambda builder, is_float, a, b: getattr(builder, floats if is_float else integers)(a, b)


def _comparison(sign: str) -> Instruction:
    def instruction(builder: Builder, is_float: bool, a: Value, b: Value) -> Value:
        if not is_float:
            return builder.icmp_signed(sign, a, b)
        return builder.fcmp_unordered(sign, a, b) if sign == "!=" else builder.fcmp_ordered(sign, a, b)

    return instruction


for _operation, _floats, _integers in (
    (operator.add, "fadd", "add"),
    (operator.sub, "fsub", "sub"),
    (operator.mul, "fmul", "mul"),
    (operator.truediv, "fdiv", ""),
    (operator.and_, "", "and_"),
    (operator.or_, "", "or_"),
    (operator.xor, "", "xor"),
    (operator.lshift, "", "shl"),
    (operator.rshift, "", "ashr"),
):
    _define(_operation, _same, _binary(_floats, _integers))
for _operation, _sign in (
    (operator.lt, "<"),
    (operator.le, "<="),
    (operator.gt, ">"),
    (operator.ge, ">="),
    (operator.eq, "=="),
    (operator.ne, "!="),
):
    _define(_operation, _bools, _comparison(_sign))
_define(operator.neg, _same, lambda builder, is_float, a: builder.fneg(a) if is_float else builder.neg(a))
_define(operator.invert, _same, lambda builder, is_float, a: builder.not_(a))


# ------------------------------------------------------------------------------------------------ in and out of vectors


@intrinsic
def broadcast(typing: Typing, scalar: NumbaType) -> Code:
    """A vector of sixteen lanes that all hold the same number."""

    def generate(context: Context, builder: Builder, sig: Signature, args: Sequence[Value]) -> Value:
        return splat(builder, args[0])

    return SimdVector(scalar)(scalar), generate


@intrinsic
def iota(typing: Typing, first: NumbaType) -> Code:
    """Thirty-two integers from `first` on."""

    def generate(context: Context, builder: Builder, sig: Signature, args: Sequence[Value]) -> Value:
        firsts = splat(builder, args[0], WIDE // 2)
        return builder.add(firsts, ir.Constant(firsts.type, list(range(WIDE // 2))))

    return SimdVector(first, WIDE // 2)(first), generate


@intrinsic
def any_lane(typing: Typing, bools: NumbaType) -> Code:
    """Whether any lane is true."""

    def generate(context: Context, builder: Builder, sig: Signature, args: Sequence[Value]) -> Value:
        bits = builder.bitcast(args[0], ir.IntType(bools.width))
        return builder.icmp_unsigned("!=", bits, bits.type(0))

    return types.boolean(bools), generate


@intrinsic
def lane(typing: Typing, vector: NumbaType, i: NumbaType) -> Code:
    """The number in lane i."""

    def generate(context: Context, builder: Builder, sig: Signature, args: Sequence[Value]) -> Value:
        return builder.extract_element(*args)

    return vector.element(vector, types.int64), generate


def pointer_to(
    context: Context, builder: Builder, kind: NumbaType, array: Value, i: Value, width: int = WIDTH
) -> Value:
    """A pointer to the vector that starts at entry i of an array of one axis."""
    data = context.make_array(kind)(context, builder, array).data
    vector = ir.VectorType(context.get_value_type(kind.dtype), width)
    return builder.bitcast(builder.gep(data, [i]), vector.as_pointer())


@intrinsic
def subarray(typing: Typing, array: NumbaType, start: NumbaType, size: NumbaType) -> Code:
    """``array[start : start + size]``, without a counted reference to its memory: the caller keeps that alive."""

    def generate(context: Context, builder: Builder, sig: Signature, args: Sequence[Value]) -> Value:
        whole = context.make_array(array)(context, builder, args[0])
        part = context.make_array(array)(context, builder)
        populate_array(
            part,
            data=builder.gep(whole.data, [args[1]]),
            shape=[args[2]],
            strides=whole.strides,
            itemsize=whole.itemsize,
            meminfo=None,
        )
        return part._getvalue()

    return array(array, types.int64, types.int64), generate


@intrinsic
def load(typing: Typing, array: NumbaType, i: NumbaType) -> Code:
    """Sixteen entries from entry i on of a contiguous array of one axis."""

    def generate(context: Context, builder: Builder, sig: Signature, args: Sequence[Value]) -> Value:
        return builder.load(pointer_to(context, builder, array, *args), align=array.dtype.bitwidth // 8)

    return SimdVector(array.dtype)(array, types.int64), generate


@intrinsic
def load_wide(typing: Typing, array: NumbaType, i: NumbaType) -> Code:
    """Sixty-four entries from entry i on."""

    def generate(context: Context, builder: Builder, sig: Signature, args: Sequence[Value]) -> Value:
        return builder.load(
            pointer_to(context, builder, array, args[0], args[1], WIDE), align=array.dtype.bitwidth // 8
        )

    return SimdVector(array.dtype, WIDE)(array, types.int64), generate


@intrinsic
def store(typing: Typing, array: NumbaType, i: NumbaType, vector: NumbaType) -> Code:
    """Write a vector, of any width, from entry i on."""

    def generate(context: Context, builder: Builder, sig: Signature, args: Sequence[Value]) -> Value:
        pointer = pointer_to(context, builder, array, args[0], args[1], vector.width)
        builder.store(args[2], pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(array, types.int64, vector), generate


@intrinsic
def store_interleaved(typing: Typing, array: NumbaType, i: NumbaType, even: NumbaType, odd: NumbaType) -> Code:
    """Write two vectors interleaved from entry i on: even[0], odd[0], even[1], ..."""

    def generate(context: Context, builder: Builder, sig: Signature, args: Sequence[Value]) -> Value:
        width = even.width
        places = ir.Constant(ir.VectorType(_INT32, 2 * width), [k // 2 + k % 2 * width for k in range(2 * width)])
        pointer = pointer_to(context, builder, array, args[0], args[1], 2 * width)
        builder.store(builder.shuffle_vector(args[2], args[3], places), pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(array, types.int64, even, odd), generate


# ------------------------------------------------------------------------------------------------ across a vector


def indices(*places: int) -> Value:
    """The mask of LLVM's shuffle: for each lane of the result, a lane of two vectors, one behind the other."""
    return ir.Constant(ir.VectorType(_INT32, len(places)), list(places))


def _in_fours(a: int, b: int, c: int, d: int) -> Value:
    """The same shuffle in every four neighbours of two vectors; 0 to 3 are the first's lanes, 4 to 7 the second's."""
    return indices(*(four + place % 4 + place // 4 * WIDTH for four in range(0, WIDTH, 4) for place in (a, b, c, d)))


# Every shuffle but the last stays in registers of 128 bits, where it is one instruction on any processor.
_FIRST_TWO, _LAST_TWO = _in_fours(0, 1, 4, 5), _in_fours(2, 3, 6, 7)
_EVENS, _ODDS = _in_fours(0, 2, 4, 6), _in_fours(1, 3, 5, 7)
_UPPER, _SECOND = _in_fours(2, 3, 2, 3), _in_fours(1, 1, 1, 1)
_LOWER_HALF, _UPPER_HALF = indices(*range(WIDTH // 2)), indices(*range(WIDTH // 2, WIDTH))


def _added(builder: Builder, a: Value, b: Value, *places: Value) -> Value:
    return builder.fadd(*(builder.shuffle_vector(a, b, some) for some in places))


def _sums_of_fours(builder: Builder, a: Value, b: Value, c: Value, d: Value) -> Value:
    """Sums of four neighbours, (0 + 2) + (1 + 3): lane 4 i + k has that of the i-th four of vector k."""
    ab, cd = (_added(builder, *pair, _FIRST_TWO, _LAST_TWO) for pair in ((a, b), (c, d)))
    return _added(builder, ab, cd, _EVENS, _ODDS)


@intrinsic
def sum_of_lanes(
    typing: Typing,
    a: NumbaType,
    b: NumbaType,
    c: NumbaType,
    d: NumbaType,
    e: NumbaType,
    f: NumbaType,
    g: NumbaType,
    h: NumbaType,
) -> Code:
    """The sum of the 128 lanes in eight vectors: in fours, (0 + 2) + (1 + 3), then by halves."""

    def generate(context: Context, builder: Builder, sig: Signature, args: Sequence[Value]) -> Value:
        sums = builder.fadd(_sums_of_fours(builder, *args[:4]), _sums_of_fours(builder, *args[4:]))
        sums = builder.fadd(sums, builder.shuffle_vector(sums, sums, _UPPER))
        sums = builder.fadd(sums, builder.shuffle_vector(sums, sums, _SECOND))
        sums = _added(builder, sums, sums, _LOWER_HALF, _UPPER_HALF)
        return builder.fadd(*(builder.extract_element(sums, _INT32(i)) for i in (0, 4)))

    return a.element(a, b, c, d, e, f, g, h), generate


@intrinsic
def max_lane(typing: Typing, vector: NumbaType) -> Code:
    """The largest of sixteen numbers, none of which is NaN; a zero's sign is not specified."""

    def generate(context: Context, builder: Builder, sig: Signature, args: Sequence[Value]) -> Value:
        lanes, width = args[0], WIDTH
        while width > 1:
            width //= 2
            halves = (indices(*range(first, first + width)) for first in (0, width))
            a, b = (builder.shuffle_vector(lanes, lanes, half) for half in halves)
            lanes = builder.select(builder.fcmp_ordered(">", a, b), a, b)
        return builder.extract_element(lanes, _INT32(0))

    return vector.element(vector), generate


@intrinsic
def first_true_lane(typing: Typing, bools: NumbaType) -> Code:
    """The first lane that is true; the width, if none is."""

    def generate(context: Context, builder: Builder, sig: Signature, args: Sequence[Value]) -> Value:
        bits = builder.bitcast(args[0], ir.IntType(bools.width))
        return builder.zext(builder.cttz(bits, ir.Constant(ir.IntType(1), 0)), _INT64)

    return types.int64(bools), generate


@intrinsic
def nan_mask(typing: Typing, a: NumbaType, b: NumbaType) -> Code:
    """All bits of an integer where a lane of `a` or `b` is NaN, else none.

    Loops carry integers, since bools have no register of their own on most processors.
    """

    def generate(context: Context, builder: Builder, sig: Signature, args: Sequence[Value]) -> Value:
        unordered = builder.fcmp_unordered("uno", *args)
        return builder.sext(unordered, context.get_value_type(sig.return_type))

    return SimdVector(types.Integer.from_bitwidth(a.element.bitwidth))(a, b), generate
