"""Sums over a row, by its team, in the order of `npselect._arithmetic.order`."""

from __future__ import annotations

from npselect._arithmetic.aliases import Number
from npselect._arithmetic.primitives import fma, inlined
from npselect._gpu.aliases import Count, Function, LaneSums, Quads, Shared
from npselect._gpu.intrinsics import barrier
from npselect.tiers.cuda.teams import Place, fold, totalling_warps
from npselect.tiers.cuda.variant import Variant

__all__ = ["adding", "sharing_barrier", "totalling"]


def adding(variant: Variant) -> tuple[Function, Function, Function]:
    """``clear(lanes)``, ``add(lanes, x)`` and ``add_products(lanes, x, y)``: a thread's share of a round."""
    slots, lane_count, zero = variant.slots, variant.lanes, variant.compute(0.0)

    @inlined
    def clear(lanes: LaneSums) -> None:
        for k in range(lane_count):
            lanes[k] = zero

    @inlined
    def add(lanes: LaneSums, x: Quads) -> None:
        for k in range(slots):
            lanes[k % lane_count] = lanes[k % lane_count] + x[k]

    @inlined
    def add_products(lanes: LaneSums, x: Quads, y: Quads) -> None:
        for k in range(slots):
            lanes[k % lane_count] = fma(x[k], y[k], lanes[k % lane_count])

    return clear, add, add_products


def sharing_barrier(variant: Variant) -> Function:
    """``barrier_if_shared()``: a barrier, if others read what a thread has published, or overwrite what it has read."""
    team = variant.team
    shared = team.warps > 1 or (team.tiled and team.group > 1)  # a tile's results overwrite its cotangents

    @inlined
    def barrier_if_shared() -> None:
        if shared:
            barrier()

    return barrier_if_shared


def totalling(variant: Variant, sums: int) -> tuple[int, Function, Function]:
    """The numbers of shared memory for so many sums; and what makes a sum of lanes, before and after a barrier.

    ``part = publish_partial(lanes, place, shared, which, round_)``; ``barrier_if_shared()``; ``total =
    total_of_warps(total, part, shared, which, round_)``. Two successive rounds use different entries, so one barrier a
    round is enough.
    """
    warps, folded = variant.team.warps, fold(variant.team, variant.lanes)
    publish, add_warps = totalling_warps(variant.team)

    @inlined
    def publish_partial(lanes: LaneSums, place: Place, shared: Shared, which: Count, round_: Count) -> Number:
        return publish(folded(lanes), place, shared, warps * (2 * which + (round_ & 1)))

    @inlined
    def total_of_warps(total: Number, segment: Number, shared: Shared, which: Count, round_: Count) -> Number:
        return add_warps(total, segment, shared, warps * (2 * which + (round_ & 1)))

    return 2 * warps * sums, publish_partial, total_of_warps
