"""How the threads of a device share rows: which thread has which columns, and how the threads of a row combine results.

A row has a team: a `group` of threads within a warp, a power of two, or several whole warps, which are a block. A round
is as many segments of the row (`npselect._arithmetic.order.SEGMENT` columns) as the team has warps, one for each warp.
Of its warp's segment, or of a shorter row, a thread has up to eight quads, that is, fours of columns:

- contiguous columns, if rows are aligned: a quad is one load of 16 bytes, and the next is 4 * group columns on;
- contiguous columns also in short rows that are not aligned, which a block stages in shared memory (see
  `npselect.tiers.cuda.staging`);
- else every group-th column, so that loads are coalesced.

Either way each of a segment's 128 lanes belongs to one thread, and sums are taken in the order of
`npselect._arithmetic.order`. Lanes without a column are 0, which changes no sum, as no sum is ever -0.

A `Team` is constant in a kernel, so the offset of each column from a thread's first one is a constant as well.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from npselect._arithmetic.aliases import Column, Index, Number, Row
from npselect._arithmetic.order import LANES, SEGMENT
from npselect._arithmetic.primitives import inlined
from npselect._gpu.aliases import Count, Function, LaneSums, Position, Shared
from npselect._gpu.intrinsics import barrier, block, shuffle_xor, thread
from npselect.tiers.cuda.arguments import Source

__all__ = [
    "WARP",
    "Place",
    "Chunk",
    "Team",
    "agreement",
    "fold",
    "lanes_of",
    "offset_of",
    "placing",
    "totalling_warps",
    "counting_rounds",
    "start_of_row",
    "chunking",
]

WARP = 32


class Team(NamedTuple):
    """The threads that share a row."""

    aligned: bool  # every quad of it lies at a multiple of 16 bytes, or 8 for 16-bit numbers
    quads: int  # of a thread in a round, up to eight
    group: int  # threads within a warp
    warps: int
    long: bool  # whether there may be more than one round
    length: int = 0  # of rows that are staged in shared memory, for which a kernel is compiled; else 0

    @property
    def tiled(self) -> bool:
        """Whether rows are staged in shared memory."""
        return self.length > 0

    @property
    def neighbours(self) -> bool:
        """Whether a quad's columns are contiguous."""
        return self.aligned or self.tiled


class Place(NamedTuple):
    """Which row a thread works on, and which thread of the row's team it is."""

    row: Row
    local: Row  # the row's number among those of the block
    lane: Count  # the thread's number in its group
    warp: Count  # the warp's number in the team


class Chunk(NamedTuple):
    """The columns that a thread works on at a time."""

    first: Column
    left: Count  # columns from there to the end of the row, at most some number that is no less than the chunk; int32


def placing(team: Team, threads: int) -> Function:
    """``place()``: a thread's `Place`, in blocks of so many threads."""
    group, shift = team.group, team.group.bit_length() - 1
    rows = threads >> shift

    @inlined
    def among_rows() -> Place:
        local = thread() >> shift
        return Place(block() * rows + local, local, thread() & (group - 1), 0)

    @inlined
    def among_warps() -> Place:
        return Place(block(), 0, thread() & (group - 1), thread() >> shift)

    return among_warps if team.warps > 1 else among_rows


def counting_rounds(team: Team) -> Function:
    """``rounds(source)``: how many rounds a row has."""
    columns, long = team.warps * SEGMENT, team.long

    @inlined
    def rounds(source: Source) -> Count:
        return -(-source.choices // columns) if long else 1

    return rounds


def start_of_row(team: Team) -> Function:
    """``start(source, place)``: a row's first element, among those of the batch or of a tile."""
    tiled = team.tiled

    @inlined
    def start(source: Source, place: Place) -> Position:
        return (place.local if tiled else place.row) * source.choices

    return start


def chunking(team: Team, quads: int) -> Function:
    """``chunk(place, n, round_, step)``: the step-th chunk, of so many quads, of a round of a row of n columns."""
    warps, apart, quads_apart, long = team.warps, 4 if team.neighbours else 1, 4 * team.group * quads, team.long
    length = team.length

    @inlined
    def chunk(place: Place, n: Count, round_: Count, step: Count) -> Chunk:
        first = (round_ * warps + place.warp) * SEGMENT + quads_apart * step + apart * place.lane
        if length:  # shared memory has entries for rows beyond the last one, too
            return Chunk(first, np.int32(length - first))
        return Chunk(first, np.int32(min(n - first, SEGMENT) if long else n - first))

    return chunk


def offset_of(team: Team) -> Function:
    """``offset(i, c)``: from the first column of a chunk to the c-th of the i-th quad."""
    group, step = team.group, 1 if team.neighbours else team.group

    @inlined
    def offset(i: Count, c: Count) -> Column:
        return 4 * group * i + step * c

    return offset


# ------------------------------------------------------------------------------------------------ sums


def lanes_of(team: Team, quads: int) -> int:
    """How many lanes of a segment a thread adds up."""
    return 4 * quads if team.group * team.quads <= LANES // 4 else 4


def fold(team: Team, lanes: int) -> Function:
    """``fold(x)``: the sum of the lanes of a segment: in fours, (0 + 2) + (1 + 3), then by halves."""
    sums, half = lanes // 4, team.group >> 1
    half_of_sums = 1 << (sums - 1).bit_length() >> 1

    @inlined
    def fold_neighbours(x: LaneSums) -> Number:
        for i in range(sums):
            x[i] = (x[4 * i] + x[4 * i + 2]) + (x[4 * i + 1] + x[4 * i + 3])
        distance = half_of_sums
        while distance > 0:
            for i in range(min(distance, sums - distance)):
                x[i] = x[i] + x[i + distance]
            distance >>= 1
        total, distance = x[0], half
        while distance > 0:
            total += shuffle_xor(total, distance)
            distance >>= 1
        return total

    @inlined
    def four_threads(x: Number) -> Number:
        x += shuffle_xor(x, 2)
        return x + shuffle_xor(x, 1)

    @inlined
    def fold_scattered(x: LaneSums) -> Number:
        total = (four_threads(x[0]) + four_threads(x[2])) + (four_threads(x[1]) + four_threads(x[3]))
        distance = half
        while distance > 2:
            total += shuffle_xor(total, distance)
            distance >>= 1
        return total

    return fold_neighbours if team.neighbours else fold_scattered


def totalling_warps(team: Team) -> tuple[Function, Function]:
    """``publish(segment, place, shared, first)`` and, after a barrier, ``add_warps(total, segment, shared, first)``.

    Together they add to `total` the sums of a round's segments, in rising order. Several warps write theirs to
    `shared`, from its entry `first` on; the round after the next may overwrite them.
    """
    warps = team.warps

    @inlined
    def publish(segment: Number, place: Place, shared: Shared, first: Position) -> Number:
        if warps > 1 and place.lane == 0:
            shared[first + place.warp] = segment
        return segment

    @inlined
    def add_warps(total: Number, segment: Number, shared: Shared, first: Position) -> Number:
        if warps == 1:
            return total + segment
        for i in range(warps):
            total += shared[first + i]
        return total

    return publish, add_warps


# ------------------------------------------------------------------------------------------------ choices


@inlined
def _first_of(top: Number, column: Index, other: Number, other_column: Index) -> tuple[Number, Index]:
    """The larger of two entries; of equals, the first."""
    if other > top or (other == top and other_column < column):
        return other, other_column
    return top, column


@inlined
def _agree_within(top: Number, column: Index, distance: Count) -> tuple[Number, Index]:
    while distance > 0:
        top, column = _first_of(top, column, shuffle_xor(top, distance), shuffle_xor(column, distance))
        distance >>= 1
    return top, column


def agreement(team: Team) -> Function:
    """``agree(top, column, place, tops, columns)``: the largest entry of the whole row and its column."""
    half, warps, width = team.group >> 1, team.warps, 1 << (team.warps - 1).bit_length()

    @inlined
    def agree(top: Number, column: Index, place: Place, tops: Shared, columns: Shared) -> tuple[Number, Index]:
        top, column = _agree_within(top, column, half)
        if warps > 1:
            if place.lane == 0:
                tops[place.warp], columns[place.warp] = top, column
            barrier()
            slot = place.lane & (width - 1)
            warp = slot if slot < warps else 0
            top, column = _agree_within(tops[warp], columns[warp], width >> 1)
        return top, column

    return agree
