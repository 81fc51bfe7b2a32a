"""The candidates of a row: logits, with their noise if there is any, and -inf where nothing is offered.

Noise is loaded, or drawn. Drawn numbers come from the quick formula first; then those that it leaves in doubt are drawn
by the exact formula, one after another: so a kernel has the code of the exact formula once, and the entries stay in
registers.
"""

from __future__ import annotations

import numpy as np

from npselect._arithmetic.aliases import Flag
from npselect._arithmetic.gumbel import gumbel, uniform
from npselect._arithmetic.primitives import fma, inlined
from npselect._gpu.aliases import Function, Mask, Position, Quads
from npselect._gpu.elements import load
from npselect._gpu.intrinsics import cuda
from npselect.tiers.cuda.arguments import Source
from npselect.tiers.cuda.loads import reading, widening
from npselect.tiers.cuda.noise import quick_number, word_of, words_of_quad
from npselect.tiers.cuda.teams import Chunk, Place, offset_of, start_of_row
from npselect.tiers.cuda.variant import Variant, computed_in

__all__ = ["drawing_at", "excluding", "loading_candidates"]


def excluding(variant: Variant) -> Function:
    """``exclude(source, place, here, w)``: ``w <- -inf`` where nothing is offered.

    It returns whether `where` offers any of them; False if there is no `where`.
    """
    quads, offset, nothing = variant.quads_in_registers, offset_of(variant.team), variant.compute(-np.inf)

    @inlined
    def exclude(source: Source, place: Place, here: Chunk, w: Quads) -> Flag:
        found = False
        if source.where != 0:
            first = place.row * source.where_stride + here.first
            for i in range(quads):
                for c in range(4):
                    at = offset(i, c)
                    if at < here.left and load(source.where, first + at, np.uint8) != 0:
                        found = True
                    else:
                        w[4 * i + c] = nothing
        return found

    return exclude


def drawing_at(variant: Variant) -> Function:
    """``draw_at(source, place, here, x, doubtful)``: ``x <- logits + noise`` where `doubtful` has a bit.

    The sum is taken in the type that the logits are computed in.
    """
    kind, added_in, slots = variant.logits, computed_in(variant.logits), variant.slots
    start, offset, widen = start_of_row(variant.team), offset_of(variant.team), widening(variant.logits)

    @inlined
    def draw_at(source: Source, place: Place, here: Chunk, x: Quads, doubtful: Mask) -> None:
        first, row = place.row * source.choices + here.first, start(source, place) + here.first
        slot = 0
        while doubtful != 0:
            at = offset(slot >> 2, slot & 3)
            if doubtful & 1 and at < here.left:
                g = gumbel(uniform(word_of(source.seed, source.offset + np.uint64(first + at))))
                perturbed = widen(load(source.logits, row + at, kind)) + added_in(g)
                for k in range(slots):
                    x[k] = perturbed if k == slot else x[k]
            doubtful >>= 1
            slot += 1

    return draw_at


@inlined
def _certain(source: Source, first: Position, x: Quads) -> Mask:
    return 0


def _adding_quick_noise(variant: Variant) -> Function:
    """``add_quick(source, first, x)``: add the quick numbers; one bit for each slot whose number is in doubt."""
    team, quads, slots = variant.team, variant.quads_in_registers, variant.slots
    offset, words, group = offset_of(team), words_of_quad(team), np.uint64(team.group)

    def quick_from(i: int) -> Function:
        """Quad after quad, by recursion: so long a loop is not unrolled, and `x` would leave the registers."""
        rest, k = quick_from(i + 1) if i + 1 < quads else _certain, 4 * i

        @inlined
        def quick(source: Source, first: Position, x: Quads) -> Mask:
            p, q, r, s = words(source.seed, source.offset + np.uint64(first + offset(i, 0)), group)
            a, a_doubtful = quick_number(p)
            b, b_doubtful = quick_number(q)
            c, c_doubtful = quick_number(r)
            d, d_doubtful = quick_number(s)
            x[k], x[k + 1], x[k + 2], x[k + 3] = x[k] + a, x[k + 1] + b, x[k + 2] + c, x[k + 3] + d
            doubtful = (a_doubtful | (b_doubtful << 1) | (c_doubtful << 2) | (d_doubtful << 3)) << k
            return doubtful | rest(source, first, x)

        return quick

    @inlined
    def none_quick(source: Source, first: Position, x: Quads) -> Mask:
        return (1 << slots) - 1

    return quick_from(0) if computed_in(variant.logits) is np.float32 else none_quick


def loading_candidates(variant: Variant) -> Function:
    """``load_candidates(source, place, here, w)``: ``w <- logits + noise``, -inf where there is no candidate.

    The sum is taken in the logits' compute type, and then converted to the results' compute type. It returns whether
    `where` offers any of them; False if there is no `where`.
    """
    team, quads, slots = variant.team, variant.quads_in_registers, variant.slots
    added_in, compute = computed_in(variant.logits), variant.compute
    zero = added_in(0)
    read, read_noise = reading(variant.logits, team, quads, -np.inf), reading(added_in, team, quads, 0.0)
    start, exclude = start_of_row(team), excluding(variant)
    add_quick, draw_at = _adding_quick_noise(variant), drawing_at(variant)

    @inlined
    def load_alone(source: Source, place: Place, here: Chunk, w: Quads) -> Flag:
        x = cuda.local.array(slots, added_in)
        read(source.logits, start(source, place) + here.first, here.left, x)
        for k in range(slots):
            w[k] = compute(x[k])
        return exclude(source, place, here, w)

    @inlined
    def load_and_add(source: Source, place: Place, here: Chunk, w: Quads) -> Flag:
        x, noise = cuda.local.array(slots, added_in), cuda.local.array(slots, added_in)
        scale = added_in(source.noise_scale)
        read(source.logits, start(source, place) + here.first, here.left, x)
        read_noise(source.noise, place.row * source.noise_stride + here.first, here.left, noise)
        for k in range(slots):
            w[k] = compute(x[k] + fma(noise[k], scale, zero))
        return exclude(source, place, here, w)

    @inlined
    def load_and_draw(source: Source, place: Place, here: Chunk, w: Quads) -> Flag:
        x = cuda.local.array(slots, added_in)
        first, at = place.row * source.choices + here.first, start(source, place) + here.first
        read(source.logits, at, here.left, x)
        draw_at(source, place, here, x, add_quick(source, first, x))
        for k in range(slots):
            w[k] = compute(x[k])
        return exclude(source, place, here, w)

    return {"none": load_alone, "array": load_and_add, "drawn": load_and_draw}[variant.noise]
