"""Sixteen rows into the columns of a tile, and back.

A tile has the rows' columns one after another, sixteen numbers each. A block that fits the registers is transposed at
a time: 8 x 8 numbers of 32 bits or 4 x 4 of 64 bits; where one register holds sixteen numbers, 16 or 8 columns of all
sixteen rows. The last block of a row overlaps the one before. If a row is shorter than a block, a load reads on into
the next rows, and a store writes into them what their own stores overwrite afterwards.

Sixteen rows of c numbers, c a power of two, lie in c vectors. Each pass puts the even lanes of all vectors before the
odd ones: the bits of a number's position, rrrrcc, rotate by one, and after log2(c) passes they are ccrrrr. A pass back
interleaves the second half of the vectors with the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npselect._arithmetic.aliases import Builder, Code, Context, NumbaType, Signature, Typing, Value
from npselect._arithmetic.processor import has_wide_registers
from npselect._arithmetic.simd import EVEN, ODD, WIDTH, indices, pointer_to
from npselect.tiers.cpu.loads import Matrix

__all__ = ["READABLE", "load_transposed", "store_transposed"]

READABLE = 8  # entries that memory must hold from the start of a row on, the row's own or not, for `load_transposed`

_INT64 = ir.IntType(64)

_HALF = WIDTH // 2
_BOTH = indices(*range(WIDTH))
_HALVES = [indices(*range(i, i + _HALF)) for i in (0, _HALF)]
_BETWEEN = [indices(*(start + i // 2 + i % 2 * WIDTH for i in range(WIDTH))) for start in (0, _HALF)]

# Pairs of rows at a distance, and the shuffles that make the new pair of them. Until the last pass they stay within
# 128 bits; each is one instruction.
_PASSES: dict[int, list[tuple[int, Value, Value]]] = {
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


def _transposed_square(builder: Builder, rows: list[Value]) -> list[Value]:
    """The columns of as many rows as each row has entries."""
    vectors = list(rows)
    for distance, low, high in _PASSES[len(rows)]:
        for i in range(len(rows)):
            if not i & distance:
                a, b = vectors[i], vectors[i + distance]
                vectors[i], vectors[i + distance] = (builder.shuffle_vector(a, b, places) for places in (low, high))
    return [vectors[place] for place in _COLUMNS[len(rows)]]


def _transposed(builder: Builder, vectors: list[Value]) -> list[Value]:
    for _ in range(len(vectors).bit_length() - 1):
        pairs = list(zip(vectors[::2], vectors[1::2], strict=True))
        vectors = [builder.shuffle_vector(a, b, places) for places in (EVEN, ODD) for a, b in pairs]
    return vectors


def _transposed_back(builder: Builder, vectors: list[Value]) -> list[Value]:
    half = len(vectors) // 2
    for _ in range(len(vectors).bit_length() - 1):
        pairs = zip(vectors[:half], vectors[half:], strict=True)
        vectors = [builder.shuffle_vector(a, b, places) for a, b in pairs for places in _BETWEEN]
    return vectors


class _Transposition:
    """Sixteen rows from `first` on of an array, and a tile of their columns."""

    def __init__(self, context: Context, builder: Builder, sig: Signature, args: Sequence[Value]) -> None:
        kind, _, tile = sig.args
        self.context, self.builder, self.first = context, builder, args[1]
        self.matrix = Matrix(context, builder, kind, args[0])
        self.tile_type, self.tile = tile, args[2]
        self.wide = has_wide_registers(context)

    def generate(self, whole: Callable[[int], None], block: Callable[[Value, int], None]) -> Value:
        """Code for rows of `count` columns, a power of two, and for blocks of `count` columns of other rows."""
        builder, choices = self.builder, self.matrix.choices
        double = self.tile_type.dtype == types.float64
        end = builder.append_basic_block("transposed")
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

    def _blocks(self, block: Callable[[Value, int], None], count: int) -> None:
        builder, zero = self.builder, _INT64(0)
        last = builder.sub(self.matrix.choices, _INT64(count))
        last = builder.select(builder.icmp_signed("<", last, zero), zero, last)
        with cgutils.for_range_slice(builder, zero, self.matrix.choices, _INT64(count), _INT64) as (column, _):
            block(builder.select(builder.icmp_signed("<", column, last), column, last), count)

    def starts(self, column: Value, lane: int, count: int) -> list[Value]:
        """Pointers to a column of `count` rows from row `lane` on, all computed from the first one."""
        base = self.matrix.pointer(self.builder.add(self.first, _INT64(lane)), column)
        return [self.builder.gep(base, [self.builder.mul(self.matrix.choices, _INT64(i))]) for i in range(count)]

    def vectors(self, count: int) -> list[Value]:
        """Pointers to `count` vectors of whole rows."""
        return [self.matrix.pointer(self.first, _INT64(i * WIDTH)) for i in range(count)]

    def pointer(self, column: Value, lane: int, count: int) -> Value:
        """To `count` lanes of a column of the tile."""
        start = self.builder.add(self.builder.mul(column, _INT64(WIDTH)), _INT64(lane))
        return pointer_to(self.context, self.builder, self.tile_type, self.tile, start, count)

    def write_columns(self, columns: list[Value], column: Value, lane: int = 0) -> None:
        for i, entries in enumerate(columns):
            pointer = self.pointer(self.builder.add(column, _INT64(i)), lane, entries.type.count)
            self.builder.store(entries, pointer, align=self.tile_type.dtype.bitwidth // 8)

    def read_columns(self, column: Value, columns: int, lane: int = 0, count: int = WIDTH) -> list[Value]:
        pointers = [self.pointer(self.builder.add(column, _INT64(i)), lane, count) for i in range(columns)]
        return [self.builder.load(pointer, align=self.tile_type.dtype.bitwidth // 8) for pointer in pointers]


@intrinsic
def load_transposed(typing: Typing, array: NumbaType, first: NumbaType, tile: NumbaType) -> Code:
    """All columns of the sixteen rows from `first` on into the tile; reads `READABLE` entries from each row's start."""

    def generate(context: Context, builder: Builder, sig: Signature, args: Sequence[Value]) -> Value:
        transposition = _Transposition(context, builder, sig, args)
        matrix, lane_type = transposition.matrix, tile.dtype

        def whole(count: int) -> None:
            starts = transposition.vectors(count)
            for at in starts:
                matrix.prefetch(at, WIDTH, 0)
            transposition.write_columns(
                _transposed(builder, [matrix.load(at, WIDTH, lane_type) for at in starts]), _INT64(0)
            )

        def block(column: Value, count: int) -> None:
            size = WIDTH if transposition.wide else count
            for lane in range(0, WIDTH, size):
                starts = transposition.starts(column, lane, size)
                for at in starts:
                    matrix.prefetch(at, count, 0)
                parts = [matrix.load(at, count, lane_type) for at in starts]
                if not transposition.wide:
                    parts = _transposed_square(builder, parts)
                elif count == WIDTH:
                    parts = _transposed(builder, parts)
                else:
                    pairs = zip(parts[::2], parts[1::2], strict=True)
                    parts = _transposed(builder, [builder.shuffle_vector(a, b, _BOTH) for a, b in pairs])
                transposition.write_columns(parts, column, lane)

        return transposition.generate(whole, block)

    return types.none(array, types.int64, tile), generate


@intrinsic
def store_transposed(typing: Typing, array: NumbaType, first: NumbaType, tile: NumbaType) -> Code:
    """The tile's columns into the sixteen rows from `first` on; nothing else is written."""

    def generate(context: Context, builder: Builder, sig: Signature, args: Sequence[Value]) -> Value:
        transposition = _Transposition(context, builder, sig, args)
        matrix = transposition.matrix

        def whole(count: int) -> None:
            for entries, at in zip(
                _transposed_back(builder, transposition.read_columns(_INT64(0), count)),
                transposition.vectors(count),
                strict=True,
            ):
                matrix.prefetch(at, WIDTH, 1)
                matrix.store(entries, at)

        def store(entries: Value, i: int, at: Value) -> None:
            """A part of a row; of the last two rows no more than is theirs, since no other rows follow them."""
            if i < WIDTH - 2:
                matrix.store(entries, at)
                return
            enough = builder.icmp_signed(">=", matrix.choices, _INT64(entries.type.count))
            with builder.if_else(enough) as (then, otherwise):
                with then:
                    matrix.store(entries, at)
                with otherwise:
                    matrix.store_first(entries, at, matrix.choices)

        def block(column: Value, count: int) -> None:
            size = WIDTH if transposition.wide else count
            for lane in range(0, WIDTH, size):
                starts = transposition.starts(column, lane, size)
                for at in starts:
                    matrix.prefetch(at, count, 1)
                parts = transposition.read_columns(column, count, lane, size)
                parts = _transposed_back(builder, parts) if transposition.wide else _transposed_square(builder, parts)
                if transposition.wide and count < WIDTH:
                    parts = [builder.shuffle_vector(vector, vector, half) for vector in parts for half in _HALVES]
                for i, (entries, at) in enumerate(zip(parts, starts, strict=True)):
                    store(entries, lane + i, at)

        return transposition.generate(whole, block)

    return types.none(array, types.int64, tile), generate
