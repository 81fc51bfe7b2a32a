"""Sixteen numbers as one value of compiled code: the scalar formulas take them as they stand, and so the same bits.

A `Vector` is LLVM's vector, which LLVM lowers for whatever registers a processor has. It holds a number of each of
sixteen rows, or sixteen neighbours in memory. Operators work on each number by itself; a scalar beside a vector stands
for sixteen of the vector's type, and comparisons give a vector of bools.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model

__all__ = [
    "WIDTH",
    "Vector",
    "as_vector",
    "broadcast",
    "clear_rows",
    "is_any",
    "lane",
    "load",
    "load_columns",
    "load_entries",
    "store",
    "store_columns",
]

WIDTH = 16
_INT32 = ir.IntType(32)
_INT64 = ir.IntType(64)


class Vector(types.Type):  # type: ignore[misc]
    """numba's type of sixteen numbers of the type `element`."""

    def __init__(self, element: Any) -> None:
        self.element = element
        super().__init__(f"Vector({element})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, vector: Any) -> None:
        super().__init__(manager, vector, ir.VectorType(manager.lookup(vector.element).get_value_type(), WIDTH))


def as_vector(context: Any, builder: Any, value: Any, kind: Any, vector: Any) -> Any:
    """A vector as it is; a scalar, converted to the vector's type, sixteen times."""
    if isinstance(kind, Vector):
        return value
    scalar = context.cast(builder, value, kind, vector.element)
    return _splat(builder, scalar)


def _splat(builder: Any, scalar: Any) -> Any:
    vector = ir.VectorType(scalar.type, WIDTH)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, _INT32(0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(_INT32, WIDTH), [0] * WIDTH))


# ------------------------------------------------------------------------------------------------ operators


def _define(operation: Any, result: Callable[[Any], Any], instruction: Callable[..., Any]) -> None:
    """An operator of one or two operands, at least one of them a vector."""

    def generic(self: Any, args: Any, keywords: Any) -> Any:
        for kind in args:
            if isinstance(kind, Vector):
                operands = [kind if isinstance(other, Vector) else other for other in args]
                return signature(result(kind), *operands)
        return None

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = next(kind for kind in sig.args if isinstance(kind, Vector))
        operands = [
            as_vector(context, builder, value, kind, vector) for value, kind in zip(args, sig.args, strict=True)
        ]
        return instruction(builder, isinstance(vector.element, types.Float), *operands)

    infer_global(operation)(type(f"_{operation.__name__}", (AbstractTemplate,), {"key": operation, "generic": generic}))
    for operands in ((Vector,), (Vector, Vector), (Vector, types.Any), (types.Any, Vector)):
        lower_builtin(operation, *operands)(lower)


def _same(vector: Any) -> Any:
    return vector


def _bools(vector: Any) -> Any:
    return Vector(types.boolean)


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
def broadcast(typing: Any, scalar: Any) -> Any:
    """Sixteen times the same number."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _splat(builder, args[0])

    return Vector(scalar)(scalar), generate


@intrinsic
def is_any(typing: Any, bools: Any) -> Any:
    """Whether any of sixteen bools is true."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], ir.IntType(WIDTH))
        return builder.icmp_unsigned("!=", bits, bits.type(0))

    return types.boolean(bools), generate


@intrinsic
def lane(typing: Any, vector: Any, i: Any) -> Any:
    """Number i of the sixteen."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.extract_element(*args)

    return vector.element(vector, types.int64), generate


def _pointer(context: Any, builder: Any, kind: Any, array: Any, i: Any, element: Any) -> Any:
    """To entry i, in C order, of an array, as to a vector of `element`."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [i]), ir.VectorType(element, WIDTH).as_pointer())


@intrinsic
def load(typing: Any, array: Any, i: Any) -> Any:
    """Sixteen entries from entry i on of an array of one axis, in which they lie close together."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        element = context.get_value_type(array.dtype)
        return builder.load(_pointer(context, builder, array, args[0], args[1], element), align=array.dtype.bitwidth // 8)

    return Vector(array.dtype)(array, types.int64), generate


@intrinsic
def store(typing: Any, array: Any, i: Any, vector: Any) -> Any:
    """The same, written."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        element = context.get_value_type(array.dtype)
        pointer = _pointer(context, builder, array, args[0], args[1], element)
        builder.store(args[2], pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(array, types.int64, vector), generate


@intrinsic
def clear_rows(typing: Any, array: Any, first: Any, last: Any) -> Any:
    """Zeros in the rows from `first` to `last`."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        rows = context.make_array(array)(context, builder, args[0])
        choices = cgutils.unpack_tuple(builder, rows.shape)[1]
        count = builder.mul(builder.add(builder.sub(args[2], args[1]), _INT64(1)), choices)
        pointer = builder.gep(rows.data, [builder.mul(args[1], choices)])
        cgutils.memset(builder, pointer, builder.mul(count, _INT64(array.dtype.bitwidth // 8)), 0)
        return context.get_dummy_value()

    return types.none(array, types.int64, types.int64), generate


@intrinsic
def load_entries(typing: Any, array: Any, first: Any, last: Any) -> Any:
    """Entries `first`, ``first + 1``, ... of an array of one axis; that at `last` again for those beyond it."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = context.make_array(array)(context, builder, args[0]).data
        vector = ir.Constant(ir.VectorType(context.get_value_type(array.dtype), WIDTH), ir.Undefined)
        for i in range(WIDTH):
            place = _at_most(builder, builder.add(args[1], _INT64(i)), args[2])
            vector = builder.insert_element(vector, builder.load(builder.gep(data, [place])), _INT32(i))
        return vector

    return Vector(array.dtype)(array, types.int64, types.int64), generate


# ------------------------------------------------------------------------------------------------ rows as columns

# Sixteen rows of sixteen numbers are turned by four passes, each of which puts the even places of all 256 before the odd
# ones: the bits of a number's place, rrrrcccc, move round by one, and after four passes they are ccccrrrr.
# A tile holds them turned, in numbers as wide as it computes in: integers and bools as the bits of such a number.

_EVEN = ir.Constant(ir.VectorType(_INT32, WIDTH), list(range(0, 2 * WIDTH, 2)))
_ODD = ir.Constant(ir.VectorType(_INT32, WIDTH), list(range(1, 2 * WIDTH, 2)))
_PLACES = ir.Constant(ir.VectorType(_INT64, WIDTH), list(range(WIDTH)))


def _at_most(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def _turned(builder: Any, vectors: list[Any]) -> list[Any]:
    for _ in range(4):
        pairs = list(zip(vectors[::2], vectors[1::2], strict=True))
        vectors = [builder.shuffle_vector(a, b, places) for places in (_EVEN, _ODD) for a, b in pairs]
    return vectors


def _masked(context: Any, builder: Any, name: str, result: Any, vector: Any, args: list[Any]) -> Any:
    element = str(vector.element).replace("float", "f32").replace("double", "f64")
    function_type = ir.FunctionType(result, [arg.type for arg in args])
    function = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.masked.{name}.v{WIDTH}{element}.p0")
    return builder.call(function, args)


_AHEAD = 8192  # bytes: the widest tile, in float32


def _prefetch(builder: Any, pointer: Any, write: int) -> None:
    """Into the cache with what lies ahead: processors do not foresee that rows are read or written side by side."""
    bytes_ = builder.bitcast(pointer, ir.IntType(8).as_pointer())
    function_type = ir.FunctionType(ir.VoidType(), [bytes_.type, _INT32, _INT32, _INT32])
    function = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0")
    builder.call(function, [builder.gep(bytes_, [_INT64(_AHEAD)]), _INT32(write), _INT32(3), _INT32(1)])


@intrinsic
def load_columns(typing: Any, array: Any, first: Any, last: Any, column: Any, tile: Any) -> Any:
    """Sixteen columns from `column` on of the rows from `first` on into the tile; `last` again for rows beyond it."""
    stored, slot = array.dtype, tile.dtype
    size = 1 if stored == types.boolean else stored.bitwidth // 8

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        rows = context.make_array(array)(context, builder, args[0])
        choices = cgutils.unpack_tuple(builder, rows.shape)[1]
        element = context.get_data_type(stored)
        vector = ir.VectorType(element, WIDTH)
        mask = builder.icmp_signed("<", _PLACES, _splat(builder, builder.sub(choices, args[3])))
        turned = []
        for i in range(WIDTH):
            row = _at_most(builder, builder.add(args[1], _INT64(i)), args[2])
            place = builder.add(builder.mul(row, choices), args[3])
            pointer = builder.bitcast(builder.gep(rows.data, [place]), vector.as_pointer())
            _prefetch(builder, pointer, 0)
            arguments = [pointer, _INT32(size), mask, ir.Constant(vector, None)]
            turned.append(_slots(context, builder, _masked(context, builder, "load", vector, vector, arguments), slot))
        for i, entries in enumerate(_turned(builder, turned)):
            place = builder.mul(builder.add(args[3], _INT64(i)), _INT64(WIDTH))
            pointer = _pointer(context, builder, tile, args[4], place, entries.type.element)
            builder.store(entries, pointer, align=slot.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(array, types.int64, types.int64, types.int64, tile), generate


@intrinsic
def store_columns(typing: Any, tile: Any, array: Any, first: Any, last: Any, column: Any) -> Any:
    """The tile's columns from `column` on, sixteen at most, into the rows from `first` to `last`."""
    size = array.dtype.bitwidth // 8

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        rows = context.make_array(array)(context, builder, args[1])
        choices = cgutils.unpack_tuple(builder, rows.shape)[1]
        element = context.get_value_type(array.dtype)
        vector = ir.VectorType(element, WIDTH)
        slot = context.get_value_type(tile.dtype)
        columns = []
        for i in range(WIDTH):
            place = builder.mul(builder.add(args[4], _INT64(i)), _INT64(WIDTH))
            pointer = _pointer(context, builder, tile, args[0], place, slot)
            columns.append(builder.load(pointer, align=tile.dtype.bitwidth // 8))
        mask = builder.icmp_signed("<", _PLACES, _splat(builder, builder.sub(choices, args[4])))
        for i, entries in enumerate(_turned(builder, columns)):
            row = builder.add(args[2], _INT64(i))
            place = builder.add(builder.mul(row, choices), args[4])
            pointer = builder.bitcast(builder.gep(rows.data, [place]), vector.as_pointer())
            _prefetch(builder, pointer, 1)
            if isinstance(array.dtype, types.Integer):
                bits = builder.bitcast(entries, ir.VectorType(_INT32, WIDTH))
                entries = builder.trunc(bits, vector)
            with builder.if_then(builder.icmp_signed("<=", row, args[3])):
                _masked(context, builder, "store", ir.VoidType(), vector, [entries, pointer, _INT32(size), mask])
        return context.get_dummy_value()

    return types.none(tile, array, types.int64, types.int64, types.int64), generate


def _slots(context: Any, builder: Any, entries: Any, slot: Any) -> Any:
    """Integers and bools as the bits of numbers as wide as a tile's."""
    vector = ir.VectorType(context.get_value_type(slot), WIDTH)
    if entries.type == vector:
        return entries
    return builder.bitcast(builder.zext(entries, ir.VectorType(ir.IntType(slot.bitwidth), WIDTH)), vector)
