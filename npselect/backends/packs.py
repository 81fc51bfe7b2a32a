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

__all__ = [
    "EVEN",
    "ODD",
    "Pack",
    "WIDE",
    "WIDTH",
    "as_pack",
    "broadcast",
    "counted",
    "first_largest",
    "fold",
    "fold_fours",
    "is_any",
    "lane",
    "load",
    "load_wide",
    "pointer_to",
    "splat",
    "store",
    "store_in_turn",
]

WIDTH, WIDE = 16, 64
_INT32 = ir.IntType(32)
_INT64 = ir.IntType(64)
_PLACES = ir.Constant(ir.VectorType(_INT64, WIDTH), list(range(WIDTH)))
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


def _folded(builder: Any, vector: Any, combine: Callable[[Any, Any], Any]) -> Any:
    """What is left of sixteen numbers, folded by halves."""
    width = WIDTH // 2
    while width > 0:
        places = ir.Constant(ir.VectorType(_INT32, width), list(range(width)))
        beyond = ir.Constant(ir.VectorType(_INT32, width), list(range(width, 2 * width)))
        vector = combine(*(builder.shuffle_vector(vector, vector, half) for half in (places, beyond)))
        width //= 2
    return builder.extract_element(vector, _INT32(0))


@intrinsic
def fold(typing: Any, pack: Any) -> Any:
    """The sum of sixteen numbers by halves: number i and number i + 8, and so on."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _folded(builder, args[0], builder.fadd)

    return pack.element(pack), generate


@intrinsic
def fold_fours(typing: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """The sums of four neighbours each in the 64 numbers of four packs, (0 + 2) + (1 + 3)."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        sums = []
        for places in (EVEN, ODD):
            ab, cd = (builder.shuffle_vector(*pair, places) for pair in (args[:2], args[2:]))
            sums.append(builder.fadd(*(builder.shuffle_vector(ab, cd, other) for other in (EVEN, ODD))))
        return builder.fadd(*sums)

    return a(a, b, c, d), generate


@intrinsic
def first_largest(typing: Any, pack: Any, turns: Any) -> Any:
    """The least ``16 * turn + lane`` of the lanes in which the largest number is; no number is NaN."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        largest = _folded(builder, args[0], lambda a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))
        places = builder.zext(args[1], _PLACES.type)
        places = builder.add(builder.mul(places, splat(builder, _INT64(WIDTH))), _PLACES)
        among = builder.fcmp_ordered("==", args[0], splat(builder, largest))
        places = builder.select(among, places, splat(builder, _INT64((1 << 63) - 1)))
        return _folded(builder, places, lambda a, b: builder.select(builder.icmp_signed("<", a, b), a, b))

    return types.int64(pack, turns), generate
