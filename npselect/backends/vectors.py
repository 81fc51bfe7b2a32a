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
    "before",
    "broadcast",
    "clear_rows",
    "is_any",
    "lane",
    "load",
    "load_columns",
    "load_entries",
    "load_part",
    "store",
    "store_columns",
    "store_part",
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


def _pointer(context: Any, builder: Any, kind: Any, array: Any, i: Any) -> Any:
    """To a vector from entry i on of an array of one axis."""
    data = context.make_array(kind)(context, builder, array).data
    vector = ir.VectorType(context.get_value_type(kind.dtype), WIDTH)
    return builder.bitcast(builder.gep(data, [i]), vector.as_pointer())


@intrinsic
def load(typing: Any, array: Any, i: Any) -> Any:
    """Sixteen entries from entry i on of an array of one axis, in which they lie close together."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(_pointer(context, builder, array, *args), align=array.dtype.bitwidth // 8)

    return Vector(array.dtype)(array, types.int64), generate


@intrinsic
def store(typing: Any, array: Any, i: Any, vector: Any) -> Any:
    """The same, written."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, array, args[0], args[1])
        builder.store(args[2], pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(array, types.int64, vector), generate


# ------------------------------------------------------------------------------------------------ parts of rows

# Entries beyond a row's end are masked: neither read nor written. In a vector integers and bools are the low bits of
# slots as wide as the numbers that are computed with.

_PLACES = ir.Constant(ir.VectorType(_INT64, WIDTH), list(range(WIDTH)))
_AHEAD = 8192  # bytes: the widest tile, in float32


def _before(builder: Any, count: Any) -> Any:
    return builder.icmp_signed("<", _PLACES, _splat(builder, count))


class _Place:
    """Where the entries of an array of two axes are."""

    def __init__(self, context: Any, builder: Any, kind: Any, array: Any) -> None:
        self.builder = builder
        self.array = context.make_array(kind)(context, builder, array)
        self.choices = cgutils.unpack_tuple(builder, self.array.shape)[1]
        self.element = context.get_data_type(kind.dtype)
        self.vector = ir.VectorType(self.element, WIDTH)
        self.size = _INT32(context.get_abi_sizeof(self.element))
        suffix = {"float": "f32", "double": "f64"}.get(str(self.element), str(self.element))
        self.suffix = f"v{WIDTH}{suffix}.p0"

    def before(self, column: Any) -> Any:
        """Which of sixteen entries from `column` on are of the same row."""
        return _before(self.builder, self.builder.sub(self.choices, column))

    def load(self, row: Any, column: Any, inside: Any, slot: Any) -> Any:
        pointer = self._pointer(row, column, 0)
        zeros = ir.Constant(self.vector, None)
        entries = self._call("llvm.masked.load." + self.suffix, self.vector, pointer, self.size, inside, zeros)
        if isinstance(self.element, ir.IntType):
            bits = ir.IntType(slot.bitwidth)
            number = ir.FloatType() if slot.bitwidth == 32 else ir.DoubleType()
            entries = self.builder.zext(entries, ir.VectorType(bits, WIDTH))
            entries = self.builder.bitcast(entries, ir.VectorType(number, WIDTH))
        return entries

    def store(self, entries: Any, row: Any, column: Any, inside: Any) -> None:
        pointer = self._pointer(row, column, 1)
        if isinstance(self.element, ir.IntType):
            entries = self.builder.bitcast(entries, ir.VectorType(_INT32, WIDTH))
            entries = self.builder.trunc(entries, self.vector)
        self._call("llvm.masked.store." + self.suffix, ir.VoidType(), entries, pointer, self.size, inside)

    def _pointer(self, row: Any, column: Any, write: int) -> Any:
        """To an entry. What lies ahead of it is fetched: that rows are gone through side by side is not foreseen."""
        place = self.builder.add(self.builder.mul(row, self.choices), column)
        pointer = self.builder.gep(self.array.data, [place])
        ahead = self.builder.gep(self.builder.bitcast(pointer, ir.IntType(8).as_pointer()), [_INT64(_AHEAD)])
        self._call("llvm.prefetch.p0", ir.VoidType(), ahead, _INT32(write), _INT32(3), _INT32(1))
        return self.builder.bitcast(pointer, self.vector.as_pointer())

    def _call(self, name: str, result: Any, *args: Any) -> Any:
        function_type = ir.FunctionType(result, [arg.type for arg in args])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, function_type, name), args)


@intrinsic
def before(typing: Any, count: Any) -> Any:
    """Which of the sixteen places come before place `count`."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _before(builder, args[0])

    return Vector(types.boolean)(types.int64), generate


@intrinsic
def load_part(typing: Any, array: Any, row: Any, column: Any, slots: Any) -> Any:
    """Sixteen entries of a row from `column` on, 0 beyond its end; as wide as those of the array `slots`."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = _Place(context, builder, array, args[0])
        return place.load(args[1], args[2], place.before(args[2]), slots.dtype)

    return Vector(slots.dtype)(array, types.int64, types.int64, slots), generate


@intrinsic
def store_part(typing: Any, vector: Any, array: Any, row: Any, column: Any) -> Any:
    """The same, written, as far as the row goes."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = _Place(context, builder, array, args[1])
        place.store(args[0], args[2], args[3], place.before(args[3]))
        return context.get_dummy_value()

    return types.none(vector, array, types.int64, types.int64), generate


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

# Sixteen rows of sixteen numbers are turned by four passes, each of which puts the even places of all before the odd
# ones: the bits of a number's place, rrrrcccc, move round by one, and after four passes they are ccccrrrr.

_EVEN = ir.Constant(ir.VectorType(_INT32, WIDTH), list(range(0, 2 * WIDTH, 2)))
_ODD = ir.Constant(ir.VectorType(_INT32, WIDTH), list(range(1, 2 * WIDTH, 2)))


def _at_most(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def _turned(builder: Any, vectors: list[Any]) -> list[Any]:
    for _ in range(4):
        pairs = list(zip(vectors[::2], vectors[1::2], strict=True))
        vectors = [builder.shuffle_vector(a, b, places) for places in (_EVEN, _ODD) for a, b in pairs]
    return vectors


@intrinsic
def load_columns(typing: Any, array: Any, first: Any, last: Any, column: Any, tile: Any) -> Any:
    """Sixteen columns from `column` on of the rows from `first` on into the tile; `last` again for rows beyond it."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = _Place(context, builder, array, args[0])
        inside = place.before(args[3])
        rows = [_at_most(builder, builder.add(args[1], _INT64(i)), args[2]) for i in range(WIDTH)]
        loaded = [place.load(row, args[3], inside, tile.dtype) for row in rows]
        for i, entries in enumerate(_turned(builder, loaded)):
            start = builder.mul(builder.add(args[3], _INT64(i)), _INT64(WIDTH))
            pointer = _pointer(context, builder, tile, args[4], start)
            builder.store(entries, pointer, align=tile.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(array, types.int64, types.int64, types.int64, tile), generate


@intrinsic
def store_columns(typing: Any, tile: Any, array: Any, first: Any, last: Any, column: Any) -> Any:
    """The tile's columns from `column` on, sixteen at most, into the rows from `first` to `last`."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = _Place(context, builder, array, args[1])
        inside = place.before(args[4])
        starts = [builder.mul(builder.add(args[4], _INT64(i)), _INT64(WIDTH)) for i in range(WIDTH)]
        pointers = [_pointer(context, builder, tile, args[0], start) for start in starts]
        columns = [builder.load(pointer, align=tile.dtype.bitwidth // 8) for pointer in pointers]
        for i, entries in enumerate(_turned(builder, columns)):
            row = builder.add(args[2], _INT64(i))
            with builder.if_then(builder.icmp_signed("<=", row, args[3])):
                place.store(entries, row, args[4], inside)
        return context.get_dummy_value()

    return types.none(tile, array, types.int64, types.int64, types.int64), generate
