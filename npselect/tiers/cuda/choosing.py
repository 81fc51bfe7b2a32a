"""The selected candidate of a row, found by its team.

The threads of a warp may have different rows, and every shuffle needs all of them: so there is no branch on a row's
entries around a shuffle.
"""

from __future__ import annotations

import numpy as np

from npselect._arithmetic.aliases import Flag, Index, Number
from npselect._arithmetic.primitives import inlined
from npselect._arithmetic.steps import EMPTY, INVALID
from npselect._gpu.aliases import Count, Function, Quads, Shared
from npselect._gpu.intrinsics import barrier, cuda, shuffle_xor
from npselect.tiers.cuda.arguments import Source
from npselect.tiers.cuda.candidates import loading_candidates
from npselect.tiers.cuda.estimates import estimating, lowest_rival
from npselect.tiers.cuda.teams import WARP, Chunk, Place, agreement, chunking, counting_rounds, offset_of
from npselect.tiers.cuda.variant import Variant, computed_in

__all__ = ["choosing", "selecting"]


def _arg_maximum(variant: Variant) -> Function:
    """``running_argmax(here, w, top, m, ordered)``."""
    quads, column = variant.quads_in_registers, variant.column
    offset, infinity = offset_of(variant.team), variant.compute(np.inf)

    @inlined
    def running_argmax(here: Chunk, w: Quads, top: Number, m: Index, ordered: Flag) -> tuple[Number, Index, Flag]:
        """The largest entry so far, its column, and whether all entries are ordered numbers below +inf."""
        slot = np.int32(-1)
        for i in range(quads):
            for c in range(4):
                x = w[4 * i + c]
                ordered = ordered & (x < infinity)
                if x > top:
                    top, slot = x, np.int32(offset(i, c))
        return top, column(here.first + slot) if slot >= 0 else m, ordered

    return running_argmax


def choosing(variant: Variant) -> Function:
    """``choose(source, place, n, w)``: the selected candidate's column, or why none, and its w.

    `w` keeps the entries of the last chunk. For a row without a choice the column is INVALID or EMPTY; INVALID, where
    threads differ.
    """
    team, compute, column, steps = variant.team, variant.compute, variant.column, variant.steps
    warps, infinity = team.warps, compute(np.inf)
    rounds, chunk = counting_rounds(team), chunking(team, variant.quads_in_registers)
    load_candidates, running_argmax, agree = loading_candidates(variant), _arg_maximum(variant), agreement(team)

    @inlined
    def choose(source: Source, place: Place, n: Count, w: Quads) -> tuple[Index, Number]:
        tops = cuda.shared.array(warps, compute)
        columns = cuda.shared.array(warps, column)
        top, m = -infinity, column(EMPTY if source.where != 0 else INVALID)
        ordered = True
        for round_ in range(rounds(source)):
            for step in range(steps):
                here = chunk(place, n, round_, step)
                if load_candidates(source, place, here, w) and m == EMPTY:
                    m = column(INVALID)
                top, m, ordered = running_argmax(here, w, top, m, ordered)
        if not ordered:
            top = infinity
        top, m = agree(top, m, place, tops, columns)
        if top == infinity:
            m = column(INVALID)
        return m, top

    return choose


def selecting(variant: Variant) -> Function:
    """`choosing`, for a kernel that only chooses: where possible, drawn noise is estimated first."""
    drawn_in_float32 = variant.noise == "drawn" and computed_in(variant.logits) is variant.compute is np.float32
    return _choosing_by_estimates(variant) if drawn_in_float32 and not variant.reload else choosing(variant)


def _choosing_by_estimates(variant: Variant) -> Function:
    """The same for drawn noise, which is drawn exactly only where an estimate does not decide."""
    team, compute, column, slots = variant.team, variant.compute, variant.column, variant.slots
    warps, infinity = team.warps, compute(np.inf)
    chunk = chunking(team, variant.quads_in_registers)
    running_argmax, agree = _arg_maximum(variant), agreement(team)
    estimate, correct = estimating(variant)
    rival_of = lowest_rival

    @inlined
    def any_thread(flag: Flag, place: Place, flags: Shared) -> Flag:
        """Whether the flag is set in any thread of the team, or of another row of the warp."""
        up, distance = np.int32(flag), WARP >> 1
        while distance > 0:
            up = np.int32(up | shuffle_xor(up, distance))
            distance >>= 1
        if warps > 1:
            if place.lane == 0:
                flags[place.warp] = up
            barrier()
            for i in range(warps):
                up = np.int32(up | flags[i])
        return up != 0

    @inlined
    def choose(source: Source, place: Place, n: Count, w: Quads) -> tuple[Index, Number]:
        tops = cuda.shared.array(warps, compute)
        columns = cuda.shared.array(warps, column)
        flags = cuda.shared.array(warps, np.int32)
        here, none = chunk(place, n, 0, 0), column(EMPTY if source.where != 0 else INVALID)
        found, unreliable = estimate(source, place, here, w)
        if found:
            none = column(INVALID)
        if unreliable:
            for k in range(slots):
                w[k] = -infinity
        top, mine, ordered = running_argmax(here, w, -infinity, none, True)
        if not ordered:
            top = infinity
        top, m = agree(top, mine, place, tops, columns)
        least, rivals = rival_of(top), (1 << slots) - 1 if unreliable else 0
        for k in range(slots):
            rivals |= (1 << k) if w[k] >= least else 0
        several = rivals != 0 and (mine != m or rivals & (rivals - 1) != 0)
        if any_thread(unreliable or (top > -infinity and several), place, flags):
            correct(source, place, here, w, rivals)
            top, m, ordered = running_argmax(here, w, -infinity, none, ordered)
            if not ordered:
                top = infinity
            top, m = agree(top, m, place, tops, columns)
        if top == infinity:
            m = column(INVALID)
        return m, top

    return choose
