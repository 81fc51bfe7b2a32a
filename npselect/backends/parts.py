"""Parts of rows in and out of packs: sixteen entries of one row, or sixteen columns of sixteen rows.

Entries beyond a row's end are masked: neither read nor written. In a pack integers and bools are the low bits of slots
as wide as the numbers that are computed with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npselect.backends.packs import EVEN, ODD, WIDTH, Pack, pointer_to, splat

__all__ = [
    "NARROW",
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


def _before(builder: Any, count: Any, width: int = WIDTH) -> Any:
    places = ir.Constant(ir.VectorType(_INT64, width), list(range(width)))
    return builder.icmp_signed("<", places, splat(builder, count, width))


class _Place:
    """Where the entries of an array of two axes are."""

    def __init__(self, context: Any, builder: Any, kind: Any, array: Any) -> None:
        self.builder = builder
        self.array = context.make_array(kind)(context, builder, array)
        self.choices = cgutils.unpack_tuple(builder, self.array.shape)[1]
        self.element = context.get_data_type(kind.dtype)
        self.size = _INT32(context.get_abi_sizeof(self.element))
        self.kind = {"float": "f32", "double": "f64"}.get(str(self.element), str(self.element))

    def before(self, column: Any, count: int = WIDTH) -> Any:
        """Which of so many entries from `column` on are of the same row."""
        return _before(self.builder, self.builder.sub(self.choices, column), count)

    def load(self, row: Any, column: Any, inside: Any, slot: Any) -> Any:
        count = inside.type.count
        vector = ir.VectorType(self.element, count)
        pointer = self._pointer(row, column, vector, 0)
        name, zeros = f"llvm.masked.load.v{count}{self.kind}.p0", ir.Constant(vector, None)
        entries = self._call(name, vector, pointer, self.size, inside, zeros)
        if isinstance(self.element, ir.IntType):
            bits = ir.IntType(slot.bitwidth)
            number = ir.FloatType() if slot.bitwidth == 32 else ir.DoubleType()
            entries = self.builder.zext(entries, ir.VectorType(bits, count))
            entries = self.builder.bitcast(entries, ir.VectorType(number, count))
        return entries

    def store(self, entries: Any, row: Any, column: Any, inside: Any) -> None:
        count = inside.type.count
        vector = ir.VectorType(self.element, count)
        pointer = self._pointer(row, column, vector, 1)
        if isinstance(self.element, ir.IntType):
            entries = self.builder.bitcast(entries, ir.VectorType(_INT32, count))
            entries = self.builder.trunc(entries, vector)
        name = f"llvm.masked.store.v{count}{self.kind}.p0"
        self._call(name, ir.VoidType(), entries, pointer, self.size, inside)

    def _pointer(self, row: Any, column: Any, vector: Any, write: int) -> Any:
        """To an entry. What lies ahead of it is fetched: that rows are gone through side by side is not foreseen."""
        place = self.builder.add(self.builder.mul(row, self.choices), column)
        pointer = self.builder.gep(self.array.data, [place])
        start = self.builder.bitcast(pointer, ir.IntType(8).as_pointer())
        for offset in range(0, vector.count * self.size.constant, _LINE):
            ahead = self.builder.gep(start, [_INT64(_AHEAD + offset)])
            self._call("llvm.prefetch.p0", ir.VoidType(), ahead, _INT32(write), _INT32(3), _INT32(1))
        return self.builder.bitcast(pointer, vector.as_pointer())

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

# Sixteen rows of c numbers, c a power of two, lie in c packs. Each pass of turning puts the even places of all before
# the odd ones: the bits of a number's place, rrrrcc, move round by one, and after log2(c) passes they are ccrrrr. Each
# pass of turning back puts the second half of all between the numbers of the first.

NARROW = 2, 4, 8  # choices: sixteen such rows are read and written as they lie in memory
_HALF = WIDTH // 2
_BOTH = ir.Constant(ir.VectorType(_INT32, WIDTH), list(range(WIDTH)))
_HALVES = [ir.Constant(ir.VectorType(_INT32, _HALF), list(range(i, i + _HALF))) for i in (0, _HALF)]
_BETWEEN = [
    ir.Constant(ir.VectorType(_INT32, WIDTH), [start + i // 2 + i % 2 * WIDTH for i in range(WIDTH)])
    for start in (0, _HALF)
]


def _at_most(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def _turned(builder: Any, packs: list[Any]) -> list[Any]:
    for _ in range(len(packs).bit_length() - 1):
        pairs = list(zip(packs[::2], packs[1::2], strict=True))
        packs = [builder.shuffle_vector(a, b, places) for places in (EVEN, ODD) for a, b in pairs]
    return packs


def _turned_back(builder: Any, packs: list[Any]) -> list[Any]:
    half = len(packs) // 2
    for _ in range(len(packs).bit_length() - 1):
        pairs = zip(packs[:half], packs[half:], strict=True)
        packs = [builder.shuffle_vector(a, b, places) for a, b in pairs for places in _BETWEEN]
    return packs


def _columns_at_once(tile: Any) -> int:
    """As many as there are registers for."""
    return _HALF if tile.dtype == types.float64 else WIDTH


def _as_they_lie(builder: Any, place: _Place, first: Any, last: Any, code: Callable[[list[Any]], None]) -> Any:
    """Code for several narrow rows, given where each of their packs starts and which of its entries are theirs.

    What is generated next is for all other rows. The block returned is where both go on.
    """
    end = builder.append_basic_block("turned")
    several = builder.icmp_signed("<", first, last)
    for choices in NARROW:
        with builder.if_then(builder.and_(several, builder.icmp_signed("==", place.choices, _INT64(choices)))):
            count = builder.mul(builder.add(builder.sub(last, first), _INT64(1)), _INT64(choices))
            offsets = [_INT64(i * WIDTH) for i in range(choices)]
            code([(offset, _before(builder, builder.sub(count, offset))) for offset in offsets])
            builder.branch(end)
    return end


@intrinsic
def load_columns(typing: Any, array: Any, first: Any, last: Any, column: Any, tile: Any) -> Any:
    """Sixteen columns from `column` on of the rows from `first` to `last` into the tile."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = _Place(context, builder, array, args[0])
        first, last, column = args[1:4]

        def put(packs: list[Any], column: Any) -> None:
            for i, entries in enumerate(_turned(builder, packs)):
                start = builder.mul(builder.add(column, _INT64(i)), _INT64(WIDTH))
                pointer = pointer_to(context, builder, tile, args[4], start)
                builder.store(entries, pointer, align=tile.dtype.bitwidth // 8)

        def narrow(packs: list[Any]) -> None:
            put([place.load(first, start, inside, tile.dtype) for start, inside in packs], _INT64(0))

        end = _as_they_lie(builder, place, first, last, narrow)
        rows = [_at_most(builder, builder.add(first, _INT64(i)), last) for i in range(WIDTH)]
        count = _columns_at_once(tile)
        for _ in range(0, WIDTH, count):
            inside = place.before(column, count)
            packs = [place.load(row, column, inside, tile.dtype) for row in rows]
            if count < WIDTH:
                packs = [builder.shuffle_vector(a, b, _BOTH) for a, b in zip(packs[::2], packs[1::2], strict=True)]
            put(packs, column)
            column = builder.add(column, _INT64(count))
        builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.none(array, types.int64, types.int64, types.int64, tile), generate


@intrinsic
def store_columns(typing: Any, tile: Any, array: Any, first: Any, last: Any, column: Any) -> Any:
    """The tile's columns from `column` on, sixteen at most, into the rows from `first` to `last`."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = _Place(context, builder, array, args[1])
        first, last, column = args[2:]

        def taken(column: Any, count: int) -> list[Any]:
            starts = [builder.mul(builder.add(column, _INT64(i)), _INT64(WIDTH)) for i in range(count)]
            pointers = [pointer_to(context, builder, tile, args[0], start) for start in starts]
            return _turned_back(builder, [builder.load(at, align=tile.dtype.bitwidth // 8) for at in pointers])

        def narrow(packs: list[Any]) -> None:
            for entries, (start, inside) in zip(taken(_INT64(0), len(packs)), packs, strict=True):
                place.store(entries, first, start, inside)

        end = _as_they_lie(builder, place, first, last, narrow)
        count = _columns_at_once(tile)
        for _ in range(0, WIDTH, count):
            inside = place.before(column, count)
            rows = taken(column, count)
            if count < WIDTH:
                rows = [builder.shuffle_vector(pack, pack, half) for pack in rows for half in _HALVES]
            for i, entries in enumerate(rows):
                row = builder.add(first, _INT64(i))
                with builder.if_then(builder.icmp_signed("<=", row, last)):
                    place.store(entries, row, column, inside)
            column = builder.add(column, _INT64(count))
        builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.none(tile, array, types.int64, types.int64, types.int64), generate
