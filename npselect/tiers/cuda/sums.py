"""Sums over a row, by its team, in the order of `npselect._arithmetic.order`."""

from __future__ import annotations

from npselect._arithmetic.aliases import Number
from npselect._arithmetic.primitives import fma, inlined
from npselect._gpu.aliases import Count, Function, LaneSums, Quads, Shared
from npselect._gpu.intrinsics import barrier
from npselect.tiers.cuda.teams import Place, fold, pooling
from npselect.tiers.cuda.variant import Variant

__all__ = ["adding", "meeting", "totalling"]


def adding(variant: Variant) -> tuple[Function, Function, Function]:
    """``clear(lanes)``, ``add(lanes, x)`` and ``add_products(lanes, x, y)``: a thread's share of a round."""
    slots, lanes_held, zero = variant.slots, variant.lanes, variant.compute(0.0)

    @inlined
    def clear(lanes: LaneSums) -> None:
        for k in range(lanes_held):
            lanes[k] = zero

    @inlined
    def add(lanes: LaneSums, x: Quads) -> None:
        for k in range(slots):
            lanes[k % lanes_held] = lanes[k % lanes_held] + x[k]

    @inlined
    def add_products(lanes: LaneSums, x: Quads, y: Quads) -> None:
        for k in range(slots):
            lanes[k % lanes_held] = fma(x[k], y[k], lanes[k % lanes_held])

    return clear, add, add_products


def meeting(variant: Variant) -> Function:
    """``barrier_if_shared()``: where others read what a thread has published, or has read from a tile."""
    team = variant.team
    shared = team.warps > 1 or (team.tiled and team.group > 1)  # results take the place of a tile's cotangents

    @inlined
    def barrier_if_shared() -> None:
        if shared:
            barrier()

    return barrier_if_shared


def totalling(variant: Variant, sums: int) -> tuple[int, Function, Function]:
    """How many numbers of shared memory so many sums need; and what makes a sum of lanes, before and after a barrier.

    ``part = publish_partial(lanes, place, shared, which, turn)``; ``barrier_if_shared()``; ``total =
    total_of_warps(total, part, shared, which, turn)``. Two rounds that follow each other use different entries, so that
    one barrier a round is enough.
    """
    warps, folded = variant.team.warps, fold(variant.team, variant.lanes)
    publish, pool = pooling(variant.team)

    @inlined
    def publish_partial(lanes: LaneSums, place: Place, shared: Shared, which: Count, turn: Count) -> Number:
        return publish(folded(lanes), place, shared, warps * (2 * which + (turn & 1)))

    @inlined
    def total_of_warps(total: Number, segment: Number, shared: Shared, which: Count, turn: Count) -> Number:
        return pool(total, segment, shared, warps * (2 * which + (turn & 1)))

    return 2 * warps * sums, publish_partial, total_of_warps
