"""Rows of up to 128 choices, sixteen at a time: in and out of tiles, and which candidate is selected.

A tile holds the columns of sixteen rows one after another: each row is a lane. At the end of a range, where there are
fewer rows, the other lanes are zeros.
"""

from __future__ import annotations

import numpy as np

from npselect._arithmetic.aliases import (
    Array,
    Choices,
    Column,
    Columns,
    Flag,
    Index,
    Indices,
    Logits,
    Number,
    Out,
    Row,
    Scratch,
    Tile,
    Where,
)
from npselect._arithmetic.half import from_lane, narrow, narrow_vector, to_lane, widen_vector
from npselect._arithmetic.primitives import bits_of, inlined, number_of, select
from npselect._arithmetic.simd import WIDTH, any_lane, broadcast, load, nan_mask, store, subarray
from npselect._arithmetic.steps import EMPTY, INVALID, checked_index
from npselect.tiers.cpu.compile import row_kernel
from npselect.tiers.cpu.fills import fill_degenerate_row
from npselect.tiers.cpu.loads import clear_rows, gather_lanes, load_clamped, scatter
from npselect.tiers.cpu.transpose import READABLE, load_transposed, store_transposed

__all__ = [
    "MAX_SHORT_ROW",
    "TILE",
    "choice_rows",
    "choose",
    "drawn",
    "index_rows",
    "load_tile",
    "mask_rows",
    "scratch_size",
    "store_tile",
]

MAX_SHORT_ROW = 128
TILE = MAX_SHORT_ROW * WIDTH  # numbers
_MASKED_BY_COLUMN = 4  # choices up to which masks are computed in tiles; longer rows are cleared, their ones scattered


def scratch_size(buffers: int) -> int:
    """The numbers that a kernel's scratch memory has: a tile for each buffer, and one for sums."""
    return (buffers + 1) * TILE


@inlined
def load_tile(array: Array, first: Row, last: Row, tile: Tile) -> None:
    """Rows of an array, or the one row that all share, into the columns of a tile."""
    choices = array.shape[1]
    if len(array) == 1:
        for j in range(choices):
            store(tile, j * WIDTH, broadcast(to_lane(array[0, j], tile)))
    elif last - first == WIDTH - 1 and last * choices + READABLE <= array.size:
        load_transposed(array, first, tile)
    else:
        for j in range(choices):
            store(tile, j * WIDTH, broadcast(tile.dtype.type(0)))
            for i in range(last - first + 1):
                tile[j * WIDTH + i] = to_lane(array[first + i, j], tile)


@inlined
def store_tile(tile: Tile, out: Out, first: Row, last: Row) -> None:
    """The columns of a tile into rows of an array."""
    if last - first == WIDTH - 1:
        store_transposed(out, first, tile)
    else:
        for j in range(out.shape[1]):
            for i in range(last - first + 1):
                out[first + i, j] = from_lane(tile[j * WIDTH + i], out)


@inlined
def choose(
    logits: Logits, where: Where, first: Row, last: Row, x: Tile, offers: Tile
) -> tuple[Columns, Number, Number]:
    """Of each row: the selected candidate's index, or EMPTY, or INVALID; its logit; the row's least logit.

    The logits are left in `x` in the compute type, -inf at excluded entries. Indices are integers as wide as that type.
    """
    infinity, zero = x.dtype.type(np.inf), bits_of(x.dtype.type(0))
    top, least = broadcast(-infinity), broadcast(infinity)
    m, invalid, offered = broadcast(zero) + INVALID, broadcast(zero), broadcast(zero)
    load_tile(logits, first, last, x)
    if len(where) > 0:
        load_tile(where, first, last, offers)
    for j in range(logits.shape[1]):
        column = widen_vector(load(x, j * WIDTH), logits)
        if len(where) > 0:
            offer = bits_of(load(offers, j * WIDTH))
            offered = offered | offer
            column = select(offer != 0, column, -infinity)
        store(x, j * WIDTH, column)
        invalid = invalid | nan_mask(column, column)
        better = column > top
        m = select(better, j, m)
        top = select(better, column, top)
        least = select(column < least, column, least)
    m = select((invalid != 0) | (top == infinity), INVALID, m)
    if len(where) > 0:
        m = select(offered != 0, m, EMPTY)
    return m, top, least


@inlined
def drawn(choice: Indices, first: Row, last: Row, state: Columns) -> Columns:
    """What was drawn of each row, or why nothing is."""
    m = load_clamped(choice, first, last)
    return select(state == EMPTY, EMPTY, select(state == INVALID, INVALID, m))


@inlined
def _spill(m: Columns, memory: Tile) -> None:
    """The indices into memory, from where each row's is read alone."""
    store(memory, 0, number_of(m))


@inlined
def _spilled(memory: Tile, i: Column) -> Index:
    return np.int64(bits_of(memory[i]))


@row_kernel(buffers=1)
def index_rows(logits: Logits, where: Where, out: Out, start: Row, stop: Row, scratch: Scratch) -> None:
    """Index of the selected candidate, -1 where nothing is selected."""
    x, memory = subarray(scratch, 0, TILE), subarray(scratch, TILE, TILE)
    for first in range(start, stop, WIDTH):
        last = min(first + WIDTH, stop) - 1
        m, _, _ = choose(logits, where, first, last, x, memory)
        _spill(m, memory)
        for i in range(last - first + 1):
            out[first + i] = max(_spilled(memory, i), -1)


@row_kernel(buffers=1)
def mask_rows(logits: Logits, where: Where, out: Out, start: Row, stop: Row, scratch: Scratch) -> None:
    """The exact one-hot of the selected candidate."""
    x, memory, choices = subarray(scratch, 0, TILE), subarray(scratch, TILE, TILE), out.shape[1]
    one, zero, nan = scratch.dtype.type(1), scratch.dtype.type(0), scratch.dtype.type(np.nan)
    for first in range(start, stop, WIDTH):
        last = min(first + WIDTH, stop) - 1
        m, _, _ = choose(logits, where, first, last, x, memory)
        if choices <= _MASKED_BY_COLUMN:
            for j in range(choices):
                store(x, j * WIDTH, narrow_vector(select(m == j, one, select(m == INVALID, nan, zero)), out))
            store_tile(x, out, first, last)
            continue
        clear_rows(out, first, last)
        if last - first == WIDTH - 1 and not any_lane(m < 0):
            scatter(out, first, m, narrow(one, out))
            continue
        _spill(m, memory)
        for i in range(last - first + 1):
            selected = _spilled(memory, i)
            if selected >= 0:
                out[first + i, selected] = narrow(one, out)
            elif selected == INVALID:
                fill_degenerate_row(out, first + i, selected, scratch)


@inlined
def _all_candidates(index: Indices, first: Row, last: Row, n: Choices, m: Columns, x: Tile) -> Flag:
    """Whether each of the given indices names a candidate of its row, and each row has a choice."""
    for r in range(first, last + 1):
        if index[r] < 0 or index[r] >= n:
            return False
    given = gather_lanes(x, load_clamped(index, first, last))
    return not any_lane((m < 0) | ~(given > x.dtype.type(-np.inf)))


@row_kernel(buffers=1)
def choice_rows(
    logits: Logits, index: Indices, where: Where, out: Indices, start: Row, stop: Row, scratch: Scratch
) -> None:
    """The selected candidate's index, EMPTY or INVALID; with an `index` for each row, that one, checked."""
    x, memory, n = subarray(scratch, 0, TILE), subarray(scratch, TILE, TILE), logits.shape[1]
    for first in range(start, stop, WIDTH):
        last = min(first + WIDTH, stop) - 1
        m, _, _ = choose(logits, where, first, last, x, memory)
        if len(index) > 0 and _all_candidates(index, first, last, n, m, x):
            for r in range(first, last + 1):
                out[r] = index[r]
            continue
        _spill(m, memory)
        for i in range(last - first + 1):
            selected = _spilled(memory, i)
            if len(index) > 0:
                j = min(max(index[first + i], 0), n - 1)
                selected = checked_index(index[first + i], n, selected, x[j * WIDTH + i] > -np.inf)
            out[first + i] = selected
