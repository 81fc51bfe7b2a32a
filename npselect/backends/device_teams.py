"""How the threads of a device share rows: who holds which columns, and how those who share a row agree.

A row has a team: a `group` of threads within a warp, a power of two, or `warps` whole warps, which are a block. Its
columns come in rounds of as many segments (`npselect.backends.reductions.SEGMENT` columns) as the team has warps. Of
its warp's segment, or of a shorter row, a thread holds up to eight quads of columns:

- neighbours, where rows are aligned: one load of 16 bytes, the next quad being 4 * group columns on;
- else every group-th column, so that neighbouring threads load neighbouring numbers.

Either way each of a segment's 128 lanes lies in one thread, and sums are taken in the order that
`npselect.backends.reductions` states. Lanes without a column hold 0, which changes no sum, as no sum is ever -0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from npselect.backends.device_primitives import barrier, block, shuffle_xor, thread
from npselect.backends.primitives import inlined
from npselect.backends.reductions import SEGMENT

__all__ = ["OFFERED", "UNORDERED", "WARP", "Team", "agree", "first_column", "fold", "pool", "team"]

WARP = 32
OFFERED, UNORDERED = 1, 2  # flags of a row: `where` offers a candidate; NaN or +inf is among them


class Team(NamedTuple):
    """A thread's place, and its team's size."""

    row: Any
    lane: Any  # among the group
    group: Any
    warp: Any  # among the warps
    warps: Any
    rounds: Any


@inlined
def team(rows: Any, shift: Any, warps: Any, rounds: Any) -> Any:
    """The place of this thread: one of ``2**shift`` to a row, `rows` to a block; or of a block of `warps` to a row."""
    group = 1 << shift
    lane = thread() & (group - 1)
    if warps > 1:
        return Team(block(), lane, group, thread() // WARP, warps, rounds)
    return Team(block() * rows + (thread() >> shift), lane, group, 0, warps, rounds)


@inlined
def _segment(place: Any, turn: Any) -> Any:
    """The first column of the segment that this warp holds in a round."""
    return (turn * place.warps + place.warp) * SEGMENT


@inlined
def _first_of_neighbours(place: Any, turn: Any, quad: Any) -> Any:
    return _segment(place, turn) + 4 * place.group * quad + 4 * place.lane


@inlined
def _first_of_scattered(place: Any, turn: Any, quad: Any) -> Any:
    return _segment(place, turn) + 4 * place.group * quad + place.lane


def first_column(aligned: bool) -> Callable[..., Any]:
    """The function that tells the first column of a thread's quad, by team, round and quad."""
    return _first_of_neighbours if aligned else _first_of_scattered


# ------------------------------------------------------------------------------------------------ sums


@inlined
def _fold_neighbours(a: Any, b: Any, c: Any, d: Any, place: Any) -> Any:
    x = (a + c) + (b + d)
    distance = place.group >> 1
    while distance > 0:
        x += shuffle_xor(x, distance)
        distance >>= 1
    return x


@inlined
def _four_threads(x: Any) -> Any:
    x += shuffle_xor(x, 2)
    return x + shuffle_xor(x, 1)


@inlined
def _fold_scattered(a: Any, b: Any, c: Any, d: Any, place: Any) -> Any:
    x = (_four_threads(a) + _four_threads(c)) + (_four_threads(b) + _four_threads(d))
    distance = place.group >> 1
    while distance > 2:
        x += shuffle_xor(x, distance)
        distance >>= 1
    return x


def fold(aligned: bool) -> Callable[..., Any]:
    """The function that adds the lanes of a segment: in fours, (0 + 2) + (1 + 3), then by halves."""
    return _fold_neighbours if aligned else _fold_scattered


@inlined
def pool(total: Any, segment: Any, place: Any, shared: Any, first: Any) -> Any:
    """``total`` and the sums of the segments of a round, added in rising order.

    With several warps they meet in `shared` from its entry `first` on: one for each warp, which the round after the
    next may overwrite.
    """
    if place.warps == 1:
        return total + segment
    if place.lane == 0:
        shared[first + place.warp] = segment
    barrier()
    for i in range(place.warps):
        total += shared[first + i]
    return total


# ------------------------------------------------------------------------------------------------ choices


@inlined
def _first_of(top: Any, column: Any, other: Any, other_column: Any) -> Any:
    """The larger of two entries; of equals, the first."""
    if other > top or (other == top and other_column < column):
        return other, other_column
    return top, column


@inlined
def agree(top: Any, column: Any, flags: Any, place: Any, tops: Any, columns: Any, all_flags: Any) -> Any:
    """The largest entry of the whole row, its column, and all its flags, from what each thread has seen."""
    distance = place.group >> 1
    while distance > 0:
        other, other_column = shuffle_xor(top, distance), shuffle_xor(column, distance)
        flags |= shuffle_xor(flags, distance)
        top, column = _first_of(top, column, other, other_column)
        distance >>= 1
    if place.warps > 1:
        if place.lane == 0:
            tops[place.warp], columns[place.warp], all_flags[place.warp] = top, column, flags
        barrier()
        for i in range(place.warps):
            top, column = _first_of(top, column, tops[i], columns[i])
            flags |= all_flags[i]
    return top, column, flags
