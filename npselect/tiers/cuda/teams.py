"""How the threads of a device share rows: who holds which columns, and how those who share a row agree.

A row has a team: a `group` of threads within a warp, a power of two, or several whole warps, which are a block. Its
columns come in rounds of as many segments (`npselect.tiers.cpu.sums.SEGMENT` columns) as the team has warps. Of
its warp's segment, or of a shorter row, a thread holds up to eight quads of columns:

- neighbours, where rows are aligned: one load of 16 bytes, the next quad being 4 * group columns on;
- neighbours too in short rows that are not, which a block brings through shared memory, see
  `npselect.tiers.cuda.staging`;
- else every group-th column, so that neighbouring threads load neighbouring numbers.

Either way each of a segment's 128 lanes lies in one thread, and sums are taken in the order that
`npselect.tiers.cpu.sums` states. Lanes without a column hold 0, which changes no sum, as no sum is ever -0.

All that is known of a team when its kernel is compiled: from their first column on, the threads count in constants.
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
    "Stretch",
    "Team",
    "agreement",
    "fold",
    "lanes_of",
    "offset_of",
    "placing",
    "pooling",
    "rounding",
    "start_of_row",
    "stretching",
]

WARP = 32


class Team(NamedTuple):
    """Who shares a row."""

    aligned: bool  # every quad of it lies at a multiple of 16 bytes, or 8 for 16-bit numbers
    quads: int  # that a thread holds in a round, up to eight
    group: int  # threads within a warp
    warps: int
    long: bool  # whether there may be more than one round
    length: int = 0  # of rows that come through shared memory, for which a kernel is made

    @property
    def tiled(self) -> bool:
        """Whether rows come through shared memory."""
        return self.length > 0

    @property
    def neighbours(self) -> bool:
        """Whether a quad's columns are neighbours."""
        return self.aligned or self.tiled


class Place(NamedTuple):
    """A thread's."""

    row: Row
    local: Row  # number of the row among those of the block
    lane: Count  # among the group
    warp: Count  # among the warps


class Stretch(NamedTuple):
    """What a thread holds at a time."""

    first: Column  # column
    left: Count  # columns from there to the end of the row, or some that are more than it holds; int32


def placing(team: Team, threads: int) -> Function:
    """The function that tells a thread of a block of so many its place."""
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


def rounding(team: Team) -> Function:
    """``rounds(source)``: in how many rounds a team goes through a row."""
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


def stretching(team: Team, quads: int) -> Function:
    """``stretch(place, n, turn, step)``: the step-th so many quads of a round of a row of n columns."""
    warps, apart, quads_apart, long = team.warps, 4 if team.neighbours else 1, 4 * team.group * quads, team.long
    length = team.length

    @inlined
    def stretch(place: Place, n: Count, turn: Count, step: Count) -> Stretch:
        first = (turn * warps + place.warp) * SEGMENT + quads_apart * step + apart * place.lane
        if length:  # rows beyond the last one are in shared memory, too
            return Stretch(first, np.int32(length - first))
        return Stretch(first, np.int32(min(n - first, SEGMENT) if long else n - first))

    return stretch


def offset_of(team: Team) -> Function:
    """``offset(i, c)``: from the first column of a stretch to the c-th of the i-th quad."""
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


def pooling(team: Team) -> tuple[Function, Function]:
    """``publish(segment, place, shared, first)`` and, after a barrier, ``pool(total, segment, shared, first)``.

    Together: ``total`` and the sums of the segments of a round, added in rising order. Those of several warps meet in
    `shared` from its entry `first` on, which the round after the next may overwrite.
    """
    warps = team.warps

    @inlined
    def publish(segment: Number, place: Place, shared: Shared, first: Position) -> Number:
        if warps > 1 and place.lane == 0:
            shared[first + place.warp] = segment
        return segment

    @inlined
    def pool(total: Number, segment: Number, shared: Shared, first: Position) -> Number:
        if warps == 1:
            return total + segment
        for i in range(warps):
            total += shared[first + i]
        return total

    return publish, pool


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
    half, warps, seats = team.group >> 1, team.warps, 1 << (team.warps - 1).bit_length()

    @inlined
    def agree(top: Number, column: Index, place: Place, tops: Shared, columns: Shared) -> tuple[Number, Index]:
        top, column = _agree_within(top, column, half)
        if warps > 1:
            if place.lane == 0:
                tops[place.warp], columns[place.warp] = top, column
            barrier()
            seat = place.lane & (seats - 1)
            warp = seat if seat < warps else 0
            top, column = _agree_within(tops[warp], columns[warp], seats >> 1)
        return top, column

    return agree
