"""Parts of rows in and out of packs: sixteen entries of one row, or sixteen columns of sixteen rows.

Entries beyond a row's end are masked: neither read nor written. In a pack integers and bools are the low bits of slots
as wide as the numbers that are computed with.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npselect.backends.packs import EVEN, ODD, PLACES, WIDTH, Pack, pointer_to, splat

__all__ = [
    "before",
    "clear_rows",
    "load_columns",
    "load_entries",
    "load_part",
    "store_columns",
    "store_part",
]

_INT32 = ir.IntType(32)
_INT64 = ir.IntType(64)
_AHEAD = 8192  # bytes: the widest tile, in float32
_LINE = 64  # bytes of a cache's line


def _before(builder: Any, count: Any) -> Any:
    return builder.icmp_signed("<", PLACES, splat(builder, count))


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
        start = self.builder.bitcast(pointer, ir.IntType(8).as_pointer())
        for offset in range(0, WIDTH * self.size.constant, _LINE):
            ahead = self.builder.gep(start, [_INT64(_AHEAD + offset)])
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

    return Pack(types.boolean)(types.int64), generate


@intrinsic
def load_part(typing: Any, array: Any, row: Any, column: Any, slots: Any) -> Any:
    """Sixteen entries of a row from `column` on, 0 beyond its end; as wide as those of the array `slots`."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = _Place(context, builder, array, args[0])
        return place.load(args[1], args[2], place.before(args[2]), slots.dtype)

    return Pack(slots.dtype)(array, types.int64, types.int64, slots), generate


@intrinsic
def store_part(typing: Any, pack: Any, array: Any, row: Any, column: Any) -> Any:
    """The same, written, as far as the row goes."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = _Place(context, builder, array, args[1])
        place.store(args[0], args[2], args[3], place.before(args[3]))
        return context.get_dummy_value()

    return types.none(pack, array, types.int64, types.int64), generate


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

    return Pack(array.dtype)(array, types.int64, types.int64), generate


# ------------------------------------------------------------------------------------------------ rows as columns

# Sixteen rows of sixteen numbers are turned by four passes, each of which puts the even places of all before the odd
# ones: the bits of a number's place, rrrrcccc, move round by one, and after four passes they are ccccrrrr.


def _at_most(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def _turned(builder: Any, packs: list[Any]) -> list[Any]:
    for _ in range(4):
        pairs = list(zip(packs[::2], packs[1::2], strict=True))
        packs = [builder.shuffle_vector(a, b, places) for places in (EVEN, ODD) for a, b in pairs]
    return packs


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
            pointer = pointer_to(context, builder, tile, args[4], start)
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
        pointers = [pointer_to(context, builder, tile, args[0], start) for start in starts]
        columns = [builder.load(pointer, align=tile.dtype.bitwidth // 8) for pointer in pointers]
        for i, entries in enumerate(_turned(builder, columns)):
            row = builder.add(args[2], _INT64(i))
            with builder.if_then(builder.icmp_signed("<=", row, args[3])):
                place.store(entries, row, args[4], inside)
        return context.get_dummy_value()

    return types.none(tile, array, types.int64, types.int64, types.int64), generate
