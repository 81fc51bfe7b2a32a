"""Sixteen numbers as one value of compiled code: the scalar formulas take them as they stand, and so the same bits.

A `Pack` is a vector of LLVM's, which lowers it for whatever registers a processor has. It holds a number of each of
sixteen rows, or sixteen neighbours in memory. Operators work on each number by itself; a scalar beside a pack stands
for sixteen of the pack's type, and comparisons give a pack of bools.

A wide pack is the same with sixty-four numbers, or half of that, for formulas that are one long chain: processors look
ahead by a few hundred instructions, and find enough to do at a time only where neighbours do not wait for each other.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model
from numba.np.arrayobj import populate_array

__all__ = [
    "EVEN",
    "ODD",
    "Pack",
    "WIDE",
    "WIDTH",
    "are_nan",
    "as_pack",
    "broadcast",
    "counted",
    "first_true",
    "fold_lanes",
    "indices",
    "is_any",
    "lane",
    "largest",
    "load",
    "load_wide",
    "part_of",
    "pointer_to",
    "splat",
    "store",
    "store_in_turn",
]

WIDTH, WIDE = 16, 64
_INT32 = ir.IntType(32)
_INT64 = ir.IntType(64)
# Every other number of two packs.
EVEN = ir.Constant(ir.VectorType(_INT32, WIDTH), list(range(0, 2 * WIDTH, 2)))
ODD = ir.Constant(ir.VectorType(_INT32, WIDTH), list(range(1, 2 * WIDTH, 2)))


class Pack(types.Type):  # type: ignore[misc]
    """numba's type of sixteen numbers of the type `element`, or of another number of them."""

    def __init__(self, element: Any, width: int = WIDTH) -> None:
        self.element, self.width = element, width
        super().__init__(f"Pack({element}, {width})")


@register_model(Pack)
class _PackModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, pack: Any) -> None:
        super().__init__(manager, pack, ir.VectorType(manager.lookup(pack.element).get_value_type(), pack.width))


def as_pack(context: Any, builder: Any, value: Any, kind: Any, pack: Any) -> Any:
    """A pack as it is; a scalar, converted to the pack's type, as often as it has numbers."""
    if isinstance(kind, Pack):
        return value
    scalar = context.cast(builder, value, kind, pack.element)
    return splat(builder, scalar, pack.width)


def splat(builder: Any, scalar: Any, width: int = WIDTH) -> Any:
    """LLVM's vector of sixteen times the same number, or of so many."""
    vector = ir.VectorType(scalar.type, width)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, _INT32(0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(_INT32, width), [0] * width))


# ------------------------------------------------------------------------------------------------ operators


def _define(operation: Any, result: Callable[[Any], Any], instruction: Callable[..., Any]) -> None:
    """An operator of one or two operands, at least one of them a pack."""

    def generic(self: Any, args: Any, keywords: Any) -> Any:
        for kind in args:
            if isinstance(kind, Pack):
                operands = [kind if isinstance(other, Pack) else other for other in args]
                return signature(result(kind), *operands)
        return None

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pack = next(kind for kind in sig.args if isinstance(kind, Pack))
        operands = [as_pack(context, builder, value, kind, pack) for value, kind in zip(args, sig.args, strict=True)]
        if operation is operator.rshift and not pack.element.signed:
            return builder.lshr(*operands)
        return instruction(builder, isinstance(pack.element, types.Float), *operands)

    infer_global(operation)(type(f"_{operation.__name__}", (AbstractTemplate,), {"key": operation, "generic": generic}))
    for operands in ((Pack,), (Pack, Pack), (Pack, types.Any), (types.Any, Pack)):
        lower_builtin(operation, *operands)(lower)


def _same(pack: Any) -> Any:
    return pack


def _bools(pack: Any) -> Any:
    return Pack(types.boolean, pack.width)


def _binary(floats: str, integers: str) -> Callable[..., Any]:
    return lambda builder, is_float, a, b: getattr(builder, floats if is_float else integers)(a, b)


def _comparison(sign: str) -> Callable[..., Any]:
    def instruction(builder: Any, is_float: bool, a: Any, b: Any) -> Any:
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


# ------------------------------------------------------------------------------------------------ in and out of packs


@intrinsic
def broadcast(typing: Any, scalar: Any) -> Any:
    """Sixteen times the same number."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return splat(builder, args[0])

    return Pack(scalar)(scalar), generate


@intrinsic
def counted(typing: Any, first: Any) -> Any:
    """Half a wide pack, of the integers from `first` on."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        firsts = splat(builder, args[0], WIDE // 2)
        return builder.add(firsts, ir.Constant(firsts.type, list(range(WIDE // 2))))

    return Pack(first, WIDE // 2)(first), generate


@intrinsic
def is_any(typing: Any, bools: Any) -> Any:
    """Whether any of a pack's bools is true."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], ir.IntType(bools.width))
        return builder.icmp_unsigned("!=", bits, bits.type(0))

    return types.boolean(bools), generate


@intrinsic
def lane(typing: Any, pack: Any, i: Any) -> Any:
    """Number i of the sixteen."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.extract_element(*args)

    return pack.element(pack, types.int64), generate


def pointer_to(context: Any, builder: Any, kind: Any, array: Any, i: Any, width: int = WIDTH) -> Any:
    """To a pack from entry i on of an array of one axis."""
    data = context.make_array(kind)(context, builder, array).data
    vector = ir.VectorType(context.get_value_type(kind.dtype), width)
    return builder.bitcast(builder.gep(data, [i]), vector.as_pointer())


@intrinsic
def part_of(typing: Any, array: Any, start: Any, size: Any) -> Any:
    """``array[start : start + size]``, whose memory others own: no reference to it is counted."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
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
def load(typing: Any, array: Any, i: Any) -> Any:
    """Sixteen entries from entry i on of an array of one axis, in which they lie close together."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(pointer_to(context, builder, array, *args), align=array.dtype.bitwidth // 8)

    return Pack(array.dtype)(array, types.int64), generate


@intrinsic
def load_wide(typing: Any, array: Any, i: Any) -> Any:
    """Sixty-four of them."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(
            pointer_to(context, builder, array, args[0], args[1], WIDE), align=array.dtype.bitwidth // 8
        )

    return Pack(array.dtype, WIDE)(array, types.int64), generate


@intrinsic
def store(typing: Any, array: Any, i: Any, pack: Any) -> Any:
    """The same, written; wide ones too."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = pointer_to(context, builder, array, args[0], args[1], pack.width)
        builder.store(args[2], pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(array, types.int64, pack), generate


@intrinsic
def store_in_turn(typing: Any, array: Any, i: Any, even: Any, odd: Any) -> Any:
    """Two packs from entry i on, a number of either in turn."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        width = even.width
        places = ir.Constant(ir.VectorType(_INT32, 2 * width), [k // 2 + k % 2 * width for k in range(2 * width)])
        pointer = pointer_to(context, builder, array, args[0], args[1], 2 * width)
        builder.store(builder.shuffle_vector(args[2], args[3], places), pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(array, types.int64, even, odd), generate


# ------------------------------------------------------------------------------------------------ across a pack


def indices(*places: int) -> Any:
    """What LLVM's shuffle takes: the places in two vectors, one behind the other, of the entries of a new one."""
    return ir.Constant(ir.VectorType(_INT32, len(places)), list(places))


def _in_fours(a: int, b: int, c: int, d: int) -> Any:
    """The same places in every four neighbours of two packs; 0 to 3 are the first's, 4 to 7 the second's."""
    return indices(*(four + place % 4 + place // 4 * WIDTH for four in range(0, WIDTH, 4) for place in (a, b, c, d)))


# Every shuffle but the last stays in registers of 128 bits, where it is one instruction on any processor.
_FIRST_TWO, _LAST_TWO = _in_fours(0, 1, 4, 5), _in_fours(2, 3, 6, 7)
_EVENS, _ODDS = _in_fours(0, 2, 4, 6), _in_fours(1, 3, 5, 7)
_UPPER, _SECOND = _in_fours(2, 3, 2, 3), _in_fours(1, 1, 1, 1)
_LOWER_HALF, _UPPER_HALF = indices(*range(WIDTH // 2)), indices(*range(WIDTH // 2, WIDTH))


def _added(builder: Any, a: Any, b: Any, *places: Any) -> Any:
    return builder.fadd(*(builder.shuffle_vector(a, b, some) for some in places))


def _fours(builder: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """The sums of four neighbours each, (0 + 2) + (1 + 3): place 4 i + k has that of the i-th four of pack k."""
    ab, cd = (_added(builder, *pair, _FIRST_TWO, _LAST_TWO) for pair in ((a, b), (c, d)))
    return _added(builder, ab, cd, _EVENS, _ODDS)


@intrinsic
def fold_lanes(typing: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any) -> Any:
    """The sum of 128 numbers in eight packs: in fours, (0 + 2) + (1 + 3), then by halves."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        sums = builder.fadd(_fours(builder, *args[:4]), _fours(builder, *args[4:]))
        sums = builder.fadd(sums, builder.shuffle_vector(sums, sums, _UPPER))
        sums = builder.fadd(sums, builder.shuffle_vector(sums, sums, _SECOND))
        sums = _added(builder, sums, sums, _LOWER_HALF, _UPPER_HALF)
        return builder.fadd(*(builder.extract_element(sums, _INT32(i)) for i in (0, 4)))

    return a.element(a, b, c, d, e, f, g, h), generate


@intrinsic
def largest(typing: Any, pack: Any) -> Any:
    """The largest of sixteen numbers, none of which is NaN; either zero, if that is 0."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector, width = args[0], WIDTH
        while width > 1:
            width //= 2
            halves = (indices(*range(first, first + width)) for first in (0, width))
            a, b = (builder.shuffle_vector(vector, vector, half) for half in halves)
            vector = builder.select(builder.fcmp_ordered(">", a, b), a, b)
        return builder.extract_element(vector, _INT32(0))

    return pack.element(pack), generate


@intrinsic
def first_true(typing: Any, bools: Any) -> Any:
    """The place of the first of a pack's bools that is true; behind the last, if none is."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], ir.IntType(bools.width))
        return builder.zext(builder.cttz(bits, ir.Constant(ir.IntType(1), 0)), _INT64)

    return types.int64(bools), generate


@intrinsic
def are_nan(typing: Any, a: Any, b: Any) -> Any:
    """All bits of an integer where a number of one pack or the other is NaN, else none.

    What a loop carries is integers, as bools have no register of their own on most processors.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        unordered = builder.fcmp_unordered("uno", *args)
        return builder.sext(unordered, context.get_value_type(sig.return_type))

    return Pack(types.Integer.from_bitwidth(a.element.bitwidth))(a, b), generate
