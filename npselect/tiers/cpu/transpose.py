"""Parts of rows in and out of packs: sixteen entries of one row, or all columns of sixteen rows.

Nothing is masked: the last pack of a row that is no whole number of packs overlaps the one before. In a pack integers
and bools are the low bits of slots as wide as the numbers that are computed with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npselect._arithmetic.processor import has_wide_registers
from npselect._arithmetic.simd import EVEN, ODD, WIDTH, Pack, indices, pointer_to

__all__ = [
    "LEAST",
    "clear_rows",
    "fetch",
    "load_entries",
    "load_part",
    "pick",
    "put",
    "store_part",
    "turn_in",
    "turn_out",
]

LEAST = 8  # entries that must be there from the start of a row on, its own or not, for `turn_in`
_INT8 = ir.IntType(8)
_INT32 = ir.IntType(32)
_INT64 = ir.IntType(64)
_AHEAD = 8192  # bytes: the widest tile, in float32
_LINE = 64  # bytes of a cache's line


class _Rows:
    """Where the entries of an array of two axes are."""

    def __init__(self, context: Any, builder: Any, kind: Any, array: Any) -> None:
        self.builder = builder
        self.array = context.make_array(kind)(context, builder, array)
        self.choices = cgutils.unpack_tuple(builder, self.array.shape)[1]
        self.element = context.get_data_type(kind.dtype)
        self.size = context.get_abi_sizeof(self.element)

    def pointer(self, row: Any, column: Any) -> Any:
        place = self.builder.add(self.builder.mul(row, self.choices), column)
        return self.builder.gep(self.array.data, [place])

    def load(self, at: Any, count: int, slot: Any) -> Any:
        """So many entries as slots."""
        vector = ir.VectorType(self.element, count)
        pointer = self.builder.bitcast(at, vector.as_pointer())
        entries = self.builder.load(pointer, align=self.size)
        if isinstance(self.element, ir.IntType):
            number = ir.FloatType() if slot.bitwidth == 32 else ir.DoubleType()
            entries = self.builder.zext(entries, ir.VectorType(ir.IntType(slot.bitwidth), count))
            entries = self.builder.bitcast(entries, ir.VectorType(number, count))
        return entries

    def stored(self, slots: Any) -> Any:
        """Slots as the entries that they stand for."""
        if not isinstance(self.element, ir.IntType):
            return slots
        count = slots.type.count
        bits = self.builder.bitcast(slots, ir.VectorType(_INT32, count))
        return self.builder.trunc(bits, ir.VectorType(self.element, count))

    def store(self, slots: Any, at: Any) -> None:
        entries = self.stored(slots)
        pointer = self.builder.bitcast(at, entries.type.as_pointer())
        self.builder.store(entries, pointer, align=self.size)

    def store_some(self, slots: Any, at: Any, count: Any) -> None:
        """The first `count` of them alone."""
        entries = self.stored(slots)
        kept = cgutils.alloca_once(self.builder, entries.type)
        self.builder.store(entries, kept)
        cgutils.raw_memcpy(self.builder, at, kept, count, self.size)

    def fetch(self, at: Any, count: int, write: int) -> None:
        """What lies ahead of so many entries: that rows are gone through side by side no processor foresees."""
        start = self.builder.bitcast(at, _INT8.as_pointer())
        kinds = [_INT8.as_pointer(), _INT32, _INT32, _INT32]
        prefetch = cgutils.get_or_insert_function(
            self.builder.module, ir.FunctionType(ir.VoidType(), kinds), "llvm.prefetch.p0"
        )
        for offset in range(0, count * self.size, _LINE):
            ahead = self.builder.gep(start, [_INT64(_AHEAD + offset)])
            self.builder.call(prefetch, [ahead, _INT32(write), _INT32(3), _INT32(1)])


# ------------------------------------------------------------------------------------------------ along a row


@intrinsic
def load_part(typing: Any, array: Any, row: Any, column: Any, slots: Any) -> Any:
    """Sixteen entries of a row from `column` on; as wide as those of the array `slots`."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        rows = _Rows(context, builder, array, args[0])
        return rows.load(rows.pointer(args[1], args[2]), WIDTH, slots.dtype)

    return Pack(slots.dtype)(array, types.int64, types.int64, slots), generate


@intrinsic
def store_part(typing: Any, pack: Any, array: Any, row: Any, column: Any) -> Any:
    """The same, written; what lies ahead is fetched."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        rows = _Rows(context, builder, array, args[1])
        at = rows.pointer(args[2], args[3])
        rows.fetch(at, WIDTH, 1)
        rows.store(args[0], at)
        return context.get_dummy_value()

    return types.none(pack, array, types.int64, types.int64), generate


@intrinsic
def fetch(typing: Any, array: Any, row: Any, column: Any) -> Any:
    """Have what lies ahead of sixteen entries brought near, to be read."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        rows = _Rows(context, builder, array, args[0])
        rows.fetch(rows.pointer(args[1], args[2]), WIDTH, 0)
        return context.get_dummy_value()

    return types.none(array, types.int64, types.int64), generate


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
            place = builder.add(args[1], _INT64(i))
            place = builder.select(builder.icmp_signed("<", place, args[2]), place, args[2])
            vector = builder.insert_element(vector, builder.load(builder.gep(data, [place])), _INT32(i))
        return vector

    return Pack(array.dtype)(array, types.int64, types.int64), generate


# ------------------------------------------------------------------------------------------------ an entry of each row


def _lanes(context: Any, builder: Any, pack: Any) -> list[Any]:
    """The integers of a pack, each as one of 64 bits."""
    return [builder.sext(builder.extract_element(pack, _INT32(i)), _INT64) for i in range(WIDTH)]


@intrinsic
def pick(typing: Any, tile: Any, places: Any) -> Any:
    """Of each of a tile's rows the entry in the column that `places`, a pack, has for it."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = context.make_array(tile)(context, builder, args[0]).data
        vector = ir.Constant(ir.VectorType(context.get_value_type(tile.dtype), WIDTH), ir.Undefined)
        for i, column in enumerate(_lanes(context, builder, args[1])):
            at = builder.add(builder.mul(column, _INT64(WIDTH)), _INT64(i))
            vector = builder.insert_element(vector, builder.load(builder.gep(data, [at])), _INT32(i))
        return vector

    return Pack(tile.dtype)(tile, places), generate


@intrinsic
def put(typing: Any, array: Any, first: Any, places: Any, value: Any) -> Any:
    """A value into each of the sixteen rows from `first` on, in the column that `places`, a pack, has for it."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        rows = _Rows(context, builder, array, args[0])
        base = rows.pointer(args[1], _INT64(0))
        for i, column in enumerate(_lanes(context, builder, args[2])):
            start = builder.gep(base, [builder.mul(rows.choices, _INT64(i))])
            builder.store(args[3], builder.gep(start, [column]))
        return context.get_dummy_value()

    return types.none(array, types.int64, places, array.dtype), generate


# ------------------------------------------------------------------------------------------------ rows as columns

# Sixteen rows become columns of a tile. What registers hold is turned at a time: blocks of 8 x 8 numbers of 32 bits or
# 4 x 4 of 64 bits; where a register holds sixteen, blocks of 16 or 8 columns of all sixteen rows. The last block of a
# row overlaps the one before; that of a row shorter than a block reads on into the next rows, and what it writes there
# those overwrite.
#
# Sixteen rows of c numbers, c a power of two, lie in c packs. Each pass of turning puts the even places of all before
# the odd ones: the bits of a number's place, rrrrcc, move round by one, and after log2(c) passes they are ccrrrr. Each
# pass of turning back puts the second half of all between the numbers of the first.


_HALF = WIDTH // 2
_BOTH = indices(*range(WIDTH))
_HALVES = [indices(*range(i, i + _HALF)) for i in (0, _HALF)]
_BETWEEN = [indices(*(start + i // 2 + i % 2 * WIDTH for i in range(WIDTH))) for start in (0, _HALF)]

# Pairs of rows at a distance, and which entries of the two each of the new pair takes; registers of 128 bits by
# themselves until the last pass, and one instruction for each.
_PASSES: dict[int, list[tuple[int, Any, Any]]] = {
    8: [
        (1, indices(0, 8, 1, 9, 4, 12, 5, 13), indices(2, 10, 3, 11, 6, 14, 7, 15)),
        (2, indices(0, 1, 8, 9, 4, 5, 12, 13), indices(2, 3, 10, 11, 6, 7, 14, 15)),
        (4, indices(0, 1, 2, 3, 8, 9, 10, 11), indices(4, 5, 6, 7, 12, 13, 14, 15)),
    ],
    4: [
        (1, indices(0, 4, 2, 6), indices(1, 5, 3, 7)),
        (2, indices(0, 1, 4, 5), indices(2, 3, 6, 7)),
    ],
}
# Where the passes leave the columns: column k is vector _COLUMNS[count][k].
_COLUMNS = {8: (0, 2, 1, 3, 4, 6, 5, 7), 4: (0, 1, 2, 3)}


def _turned_square(builder: Any, rows: list[Any]) -> list[Any]:
    """The columns of as many rows as each has entries."""
    vectors = list(rows)
    for distance, low, high in _PASSES[len(rows)]:
        for i in range(len(rows)):
            if not i & distance:
                a, b = vectors[i], vectors[i + distance]
                vectors[i], vectors[i + distance] = (builder.shuffle_vector(a, b, places) for places in (low, high))
    return [vectors[place] for place in _COLUMNS[len(rows)]]


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


class _Turning:
    """Sixteen rows from `first` on of an array, and a tile of their columns."""

    def __init__(self, context: Any, builder: Any, sig: Any, args: Any) -> None:
        kind, _, tile = sig.args
        self.context, self.builder, self.first = context, builder, args[1]
        self.rows = _Rows(context, builder, kind, args[0])
        self.tile_kind, self.tile = tile, args[2]
        self.wide = has_wide_registers(context)

    def generate(self, whole: Callable[[int], None], block: Callable[[Any, int], None]) -> Any:
        """Code for rows that are whole packs as they lie; for blocks of so many columns of others."""
        builder, choices = self.builder, self.rows.choices
        double = self.tile_kind.dtype == types.float64
        end = builder.append_basic_block("turned")
        for count in (1, 2, 4, 8) if self.wide else (1, 2, 4):
            with builder.if_then(builder.icmp_signed("==", choices, _INT64(count))):
                whole(count)
                builder.branch(end)
        if self.wide and not double:
            with builder.if_then(builder.icmp_signed(">=", choices, _INT64(WIDTH))):
                self._blocks(block, WIDTH)
                builder.branch(end)
        self._blocks(block, 4 if double and not self.wide else 8)
        builder.branch(end)
        builder.position_at_end(end)
        return self.context.get_dummy_value()

    def _blocks(self, block: Callable[[Any, int], None], count: int) -> None:
        builder, zero = self.builder, _INT64(0)
        last = builder.sub(self.rows.choices, _INT64(count))
        last = builder.select(builder.icmp_signed("<", last, zero), zero, last)
        with cgutils.for_range_slice(builder, zero, self.rows.choices, _INT64(count), _INT64) as (column, _):
            block(builder.select(builder.icmp_signed("<", column, last), column, last), count)

    def starts(self, column: Any, lane: int, count: int) -> list[Any]:
        """Where so many rows from `lane` on have that column, all measured from the first of them."""
        base = self.rows.pointer(self.builder.add(self.first, _INT64(lane)), column)
        return [self.builder.gep(base, [self.builder.mul(self.rows.choices, _INT64(i))]) for i in range(count)]

    def packs(self, count: int) -> list[Any]:
        """Where so many packs of whole rows lie."""
        return [self.rows.pointer(self.first, _INT64(i * WIDTH)) for i in range(count)]

    def pointer(self, column: Any, lane: int, count: int) -> Any:
        """To so many lanes of a tile's column."""
        start = self.builder.add(self.builder.mul(column, _INT64(WIDTH)), _INT64(lane))
        return pointer_to(self.context, self.builder, self.tile_kind, self.tile, start, count)

    def put(self, columns: list[Any], column: Any, lane: int = 0) -> None:
        for i, entries in enumerate(columns):
            pointer = self.pointer(self.builder.add(column, _INT64(i)), lane, entries.type.count)
            self.builder.store(entries, pointer, align=self.tile_kind.dtype.bitwidth // 8)

    def take(self, column: Any, columns: int, lane: int = 0, count: int = WIDTH) -> list[Any]:
        pointers = [self.pointer(self.builder.add(column, _INT64(i)), lane, count) for i in range(columns)]
        return [self.builder.load(pointer, align=self.tile_kind.dtype.bitwidth // 8) for pointer in pointers]


@intrinsic
def turn_in(typing: Any, array: Any, first: Any, tile: Any) -> Any:
    """All columns of the sixteen rows from `first` on into the tile; `LEAST` entries from each row's start are read."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        turning = _Turning(context, builder, sig, args)
        rows, slot = turning.rows, tile.dtype

        def whole(count: int) -> None:
            starts = turning.packs(count)
            for at in starts:
                rows.fetch(at, WIDTH, 0)
            turning.put(_turned(builder, [rows.load(at, WIDTH, slot) for at in starts]), _INT64(0))

        def block(column: Any, count: int) -> None:
            size = WIDTH if turning.wide else count
            for lane in range(0, WIDTH, size):
                starts = turning.starts(column, lane, size)
                for at in starts:
                    rows.fetch(at, count, 0)
                parts = [rows.load(at, count, slot) for at in starts]
                if not turning.wide:
                    parts = _turned_square(builder, parts)
                elif count == WIDTH:
                    parts = _turned(builder, parts)
                else:
                    pairs = zip(parts[::2], parts[1::2], strict=True)
                    parts = _turned(builder, [builder.shuffle_vector(a, b, _BOTH) for a, b in pairs])
                turning.put(parts, column, lane)

        return turning.generate(whole, block)

    return types.none(array, types.int64, tile), generate


@intrinsic
def turn_out(typing: Any, array: Any, first: Any, tile: Any) -> Any:
    """The tile's columns into the sixteen rows from `first` on, and nowhere else."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        turning = _Turning(context, builder, sig, args)
        rows = turning.rows

        def whole(count: int) -> None:
            for entries, at in zip(
                _turned_back(builder, turning.take(_INT64(0), count)), turning.packs(count), strict=True
            ):
                rows.fetch(at, WIDTH, 1)
                rows.store(entries, at)

        def store(entries: Any, i: int, at: Any) -> None:
            """A row's part; of the last two no more than is theirs, as they have no other rows behind them."""
            if i < WIDTH - 2:
                rows.store(entries, at)
                return
            enough = builder.icmp_signed(">=", rows.choices, _INT64(entries.type.count))
            with builder.if_else(enough) as (then, otherwise):
                with then:
                    rows.store(entries, at)
                with otherwise:
                    rows.store_some(entries, at, rows.choices)

        def block(column: Any, count: int) -> None:
            size = WIDTH if turning.wide else count
            for lane in range(0, WIDTH, size):
                starts = turning.starts(column, lane, size)
                for at in starts:
                    rows.fetch(at, count, 1)
                parts = turning.take(column, count, lane, size)
                parts = _turned_back(builder, parts) if turning.wide else _turned_square(builder, parts)
                if turning.wide and count < WIDTH:
                    parts = [builder.shuffle_vector(pack, pack, half) for pack in parts for half in _HALVES]
                for i, (entries, at) in enumerate(zip(parts, starts, strict=True)):
                    store(entries, lane + i, at)

        return turning.generate(whole, block)

    return types.none(array, types.int64, tile), generate
