"""Which sum of logit and drawn noise may be the largest: estimated, and drawn exactly only where that leaves it open.

A forward pass needs to know which sum is the largest, not what it is. With h the word's high half, u is within half of
2**-32 of (h + 1/2) 2**-32, and 1 - u within as much of (~h + 1/2) 2**-32. Where both h and ~h are 2**12 or more:

- v = 1 - u < 2**-6: L = -log(u) = v + v**2 / 2 + ... is, cut off there, relatively wrong by less than 2**-13.5, and v
  by 2**-13: together less than 2**-12.2.
- Otherwise L > 2**-6, and log2(u) is wrong by 2**-22, or by that much of itself, and by what u is relatively wrong
  by, 2**-33 / u + 2**-23: together less than 2**-15 of itself.

So G = -log(L) is wrong by less than 2**-12.1, its own logarithm included, and x + G, with the roundings of this sum
and of the exact one, by less than E = 2**-11 + 2**-22 |x + G|. What is lower than the largest estimate by more than
twice that is not the largest.
"""

from __future__ import annotations

import numpy as np

from npselect._arithmetic.aliases import Flag, Number, Word
from npselect._arithmetic.primitives import fma, inlined, select
from npselect._gpu.aliases import Function, Mask, Position, Quads
from npselect._gpu.intrinsics import rough_log2
from npselect.tiers.cuda.arguments import Source
from npselect.tiers.cuda.candidates import drawing_at, excluding
from npselect.tiers.cuda.loads import reading
from npselect.tiers.cuda.noise import high_half, words_of_quad
from npselect.tiers.cuda.teams import Chunk, Place, offset_of, start_of_row
from npselect.tiers.cuda.variant import Variant

__all__ = ["estimating", "lowest_rival"]

_UNIT32, _HALF_UNIT32, _HALF32 = np.float32(2.0**-32), np.float32(2.0**-33), np.float32(0.5)
_NEAR_ONE, _MINUS_LN2 = np.float32(2.0**-6), np.float32(-0.6931471805599453)
_ALL_ONES, _ENDS, _BETWEEN = np.uint32(0xFFFFFFFF), np.uint32(2**12), np.uint32(2**32 - 2**13)
_DOUBT, _RELATIVE_DOUBT = np.float32(2.0**-10), np.float32(2.0**-21)


@inlined
def lowest_rival(top: Number) -> Number:
    """What an estimate must reach for its sum to be the largest, if `top` is the largest estimate."""
    return top - fma(_RELATIVE_DOUBT, abs(top), _DOUBT)


@inlined
def _estimated(x: Number, word: Word) -> tuple[Number, Flag]:
    """An estimate of ``x + G``, and whether it is unreliable."""
    high = high_half(word)
    u = fma(np.float32(high), _UNIT32, _HALF_UNIT32)
    v = fma(np.float32(np.uint32(high ^ _ALL_ONES)), _UNIT32, _HALF_UNIT32)
    minus_log = select(v < _NEAR_ONE, fma(_HALF32 * v, v, v), _MINUS_LN2 * rough_log2(u))
    return fma(rough_log2(minus_log), _MINUS_LN2, x), np.uint32(high - _ENDS) >= _BETWEEN


@inlined
def _reliable(source: Source, first: Position, x: Quads) -> Flag:
    return False


def estimating(variant: Variant) -> tuple[Function, Function]:
    """``estimate(source, place, here, w)`` and ``correct(source, place, here, w, rivals)``, for logits in float32."""
    team, quads = variant.team, variant.quads_in_registers
    read, start = reading(variant.logits, team, quads, -np.inf), start_of_row(team)
    offset, slots, nothing = offset_of(team), variant.slots, variant.compute(-np.inf)
    words, group = words_of_quad(team), np.uint64(team.group)
    exclude, draw_at = excluding(variant), drawing_at(variant)

    def estimate_from(i: int) -> Function:
        """Quad after quad, by recursion, as in `npselect.tiers.cuda.candidates`."""
        rest, k = estimate_from(i + 1) if i + 1 < quads else _reliable, 4 * i

        @inlined
        def estimate(source: Source, first: Position, x: Quads) -> Flag:
            p, q, r, s = words(source.seed, source.offset + np.uint64(first + offset(i, 0)), group)
            a, a_unreliable = _estimated(x[k], p)
            b, b_unreliable = _estimated(x[k + 1], q)
            c, c_unreliable = _estimated(x[k + 2], r)
            d, d_unreliable = _estimated(x[k + 3], s)
            x[k], x[k + 1], x[k + 2], x[k + 3] = a, b, c, d
            return a_unreliable | b_unreliable | c_unreliable | d_unreliable | rest(source, first, x)

        return estimate

    add_estimates = estimate_from(0)

    @inlined
    def estimate_all(source: Source, place: Place, here: Chunk, w: Quads) -> tuple[Flag, Flag]:
        """Estimates of ``logits + noise`` into `w`; returns what `exclude` does, and whether `w` is unreliable."""
        first, at = place.row * source.choices + here.first, start(source, place) + here.first
        read(source.logits, at, here.left, w)
        unreliable = add_estimates(source, first, w)
        return exclude(source, place, here, w), unreliable

    @inlined
    def correct(source: Source, place: Place, here: Chunk, w: Quads, rivals: Mask) -> None:
        """The sums themselves where `rivals` has a bit, -inf elsewhere."""
        for k in range(slots):
            w[k] = nothing
        draw_at(source, place, here, w, rivals)
        exclude(source, place, here, w)

    return estimate_all, correct
