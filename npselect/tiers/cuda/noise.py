"""Noise inside the kernels of the CUDA tier: read, or drawn where it is added.

A float32 number is quick, or in doubt (see `npselect._arithmetic.gumbel`); a float64 number is always in doubt.
Doubtful numbers are drawn with all words one after another, once the quick ones are there: the long formula stands in
a kernel once, and what a thread holds can stay in registers. A forward pass estimates its noise, and draws what may be
the largest sum only where the estimates leave that open.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import types

from npselect._arithmetic.gumbel import _MARGIN, gumbel, uniform
from npselect._arithmetic.logarithm import quick_minus_log
from npselect._arithmetic.primitives import fma, inlined, select
from npselect._gpu.intrinsics import block, cuda, load, rough_log2, store, thread, wide_product
from npselect._gpu.launch import Launcher
from npselect.tiers.cuda.loads import computed_in, reading, widening
from npselect.tiers.cuda.teams import Team, offset_of

__all__ = ["PAIRS", "draw", "lowest_rival", "perturbing"]

PAIRS = 128  # of numbers, that a block of threads draws

_ONE_BIT, _HALF_WORD, _LOW_WORD = np.uint64(1), np.uint64(32), np.uint64(0xFFFFFFFF)
_MULTIPLIER0, _MULTIPLIER1 = np.uint32(0xD2511F53), np.uint32(0xCD9E8D57)
_WEYL0, _WEYL1 = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)


@inlined
def _low(word: Any) -> Any:
    return np.uint32(word & _LOW_WORD)


@inlined
def _high(word: Any) -> Any:
    return np.uint32(word >> _HALF_WORD)


@inlined
def _word_of(high: Any, low: Any) -> Any:
    return (np.uint64(high) << _HALF_WORD) | np.uint64(low)


@inlined
def _block(counter: Any, seed: Any) -> Any:
    """`npselect._arithmetic.gumbel.philox` in words of 32 bits: the 64-bit words of a counter's two numbers."""
    x0, x1, x2, x3 = _low(counter), _high(counter), np.uint32(0), np.uint32(0)
    key0, key1 = _low(seed), _high(seed)
    for _ in range(10):
        a, b = wide_product(x0, _MULTIPLIER0), wide_product(x2, _MULTIPLIER1)
        x0, x1, x2, x3 = np.uint32(_high(b) ^ x1 ^ key0), _low(b), np.uint32(_high(a) ^ x3 ^ key1), _low(a)
        key0, key1 = np.uint32(key0 + _WEYL0), np.uint32(key1 + _WEYL1)
    return _word_of(x1, x0), _word_of(x3, x2)


@inlined
def _neighbouring_words(seed: Any, number: Any, step: Any) -> Any:
    """The words of four numbers that follow each other; an odd first one makes it three blocks."""
    counter = number >> _ONE_BIT
    a, b = _block(counter, seed)
    c, d = _block(counter + _ONE_BIT, seed)
    if number & _ONE_BIT:
        e, _ = _block(counter + np.uint64(2), seed)
        return b, c, d, e
    return a, b, c, d


@inlined
def _word(seed: Any, number: Any) -> Any:
    even, odd = _block(number >> _ONE_BIT, seed)
    return odd if number & _ONE_BIT else even


@inlined
def _scattered_words(seed: Any, number: Any, step: Any) -> Any:
    return (
        _word(seed, number),
        _word(seed, number + step),
        _word(seed, number + step + step),
        _word(seed, number + step + step + step),
    )


@inlined
def _quick(word: Any) -> Any:
    """The float32 that a quick number is rounded to, and 1 if that is in doubt, else 0."""
    g = quick_minus_log(quick_minus_log(uniform(word)))
    margin = fma(_MARGIN, abs(g), _MARGIN)
    low, high = np.float32(g - margin), np.float32(g + margin)
    return low, 0 if low == high else 1


# A forward pass wants to know which sum of logit and noise is the largest. Of h, the word's high half, u is within half
# of 2**-32 of (h + 1/2) 2**-32, and 1 - u as near to (~h + 1/2) 2**-32. Where both h and ~h are 2**12 or more:
#
# - v = 1 - u < 2**-6: L = -log(u) = v + v**2 / 2 + ... is, cut off there, relatively wrong by less than 2**-13.5, and v
#   by 2**-13: together less than 2**-12.2.
# - Otherwise L > 2**-6, and log2(u) is wrong by 2**-22, or by that much of itself, and by what u is relatively wrong
#   by, 2**-33 / u + 2**-23: together less than 2**-15 of itself.
#
# So G = -log(L) is wrong by less than 2**-12.1, its own logarithm included, and x + G, with the roundings of this sum
# and of the exact one, by less than E = 2**-11 + 2**-22 |x + G|. What is lower than the largest estimate by more than
# twice that is not the largest.

_UNIT32, _HALF_UNIT32, _HALF32 = np.float32(2.0**-32), np.float32(2.0**-33), np.float32(0.5)
_NEAR_ONE, _MINUS_LN2 = np.float32(2.0**-6), np.float32(-0.6931471805599453)
_ALL_ONES, _ENDS, _BETWEEN = np.uint32(0xFFFFFFFF), np.uint32(2**12), np.uint32(2**32 - 2**13)
_DOUBT, _RELATIVE_DOUBT = np.float32(2.0**-10), np.float32(2.0**-21)


@inlined
def lowest_rival(top: Any) -> Any:
    """What an estimate must reach for its sum to be the largest, if `top` is the largest estimate."""
    return top - fma(_RELATIVE_DOUBT, abs(top), _DOUBT)


@inlined
def _estimated(x: Any, word: Any) -> Any:
    """About ``x + G``, and whether that is not to be relied on."""
    high = _high(word)
    u = fma(np.float32(high), _UNIT32, _HALF_UNIT32)
    v = fma(np.float32(np.uint32(high ^ _ALL_ONES)), _UNIT32, _HALF_UNIT32)
    minus_log = select(v < _NEAR_ONE, fma(_HALF32 * v, v, v), _MINUS_LN2 * rough_log2(u))
    return fma(rough_log2(minus_log), _MINUS_LN2, x), np.uint32(high - _ENDS) >= _BETWEEN


@inlined
def _certain(source: Any, first: Any, x: Any) -> Any:
    return 0


@inlined
def _reliable(source: Any, first: Any, x: Any) -> Any:
    return False


class Perturbing(NamedTuple):
    """Device functions: logits with their noise, an estimate of that, and a correction of the estimate."""

    fetch: Callable[..., Any]
    estimate: Callable[..., Any]
    correct: Callable[..., Any]


def perturbing(kind: Any, result: Any, noise: str, team: Team, held: int) -> Perturbing:
    """``fetch(source, place, stretch, w)``: ``w <- logits + noise``, -inf where there is no candidate.

    It reads `held` quads. The sum is taken in the type that the logits' kind is computed in, and then brought into that
    of the result's. What it returns is whether any of them is a candidate, if there is a `where`.
    """
    added_in, compute = computed_in(kind), computed_in(result)
    read, read_noise = reading(kind, team, held, -np.inf), reading(added_in, team, held, 0.0)
    offset, size, nothing, tiled = offset_of(team), 4 * held, compute(-np.inf), team.tiled

    @inlined
    def start(source: Any, place: Any) -> Any:
        return (place.local if tiled else place.row) * source.choices

    @inlined
    def exclude(source: Any, place: Any, stretch: Any, w: Any) -> Any:
        found = False
        if source.where != 0:
            first = place.row * source.where_stride + stretch.first
            for i in range(held):
                for c in range(4):
                    at = offset(i, c)
                    if at < stretch.left and load(source.where, first + at, np.uint8) != 0:
                        found = True
                    else:
                        w[4 * i + c] = nothing
        return found

    @inlined
    def fetch_alone(source: Any, place: Any, stretch: Any, w: Any) -> Any:
        x = cuda.local.array(size, added_in)
        read(source.logits, start(source, place) + stretch.first, stretch.left, x)
        for k in range(size):
            w[k] = compute(x[k])
        return exclude(source, place, stretch, w)

    @inlined
    def fetch_and_add(source: Any, place: Any, stretch: Any, w: Any) -> Any:
        x, noise = cuda.local.array(size, added_in), cuda.local.array(size, added_in)
        read(source.logits, start(source, place) + stretch.first, stretch.left, x)
        read_noise(source.noise, place.row * source.noise_stride + stretch.first, stretch.left, noise)
        for k in range(size):
            w[k] = compute(x[k] + noise[k])
        return exclude(source, place, stretch, w)

    words = _neighbouring_words if team.neighbours else _scattered_words
    group = np.uint64(team.group)

    def quick_from(i: int) -> Callable[..., Any]:
        """Quad after quad, written out: a loop that long would not be unrolled, and `x` leave the registers."""
        rest, k = quick_from(i + 1) if i + 1 < held else _certain, 4 * i

        @inlined
        def quick(source: Any, first: Any, x: Any) -> Any:
            """Add the quick numbers; one bit for each slot whose number is in doubt."""
            p, q, r, s = words(source.seed, source.offset + np.uint64(first + offset(i, 0)), group)
            a, a_doubtful = _quick(p)
            b, b_doubtful = _quick(q)
            c, c_doubtful = _quick(r)
            d, d_doubtful = _quick(s)
            x[k], x[k + 1], x[k + 2], x[k + 3] = x[k] + a, x[k + 1] + b, x[k + 2] + c, x[k + 3] + d
            doubtful = (a_doubtful | (b_doubtful << 1) | (c_doubtful << 2) | (d_doubtful << 3)) << k
            return doubtful | rest(source, first, x)

        return quick

    @inlined
    def none_quick(source: Any, first: Any, x: Any) -> Any:
        return (1 << size) - 1

    def estimate_from(i: int) -> Callable[..., Any]:
        rest, k = estimate_from(i + 1) if i + 1 < held else _reliable, 4 * i

        @inlined
        def estimate(source: Any, first: Any, x: Any) -> Any:
            p, q, r, s = words(source.seed, source.offset + np.uint64(first + offset(i, 0)), group)
            a, a_wild = _estimated(x[k], p)
            b, b_wild = _estimated(x[k + 1], q)
            c, c_wild = _estimated(x[k + 2], r)
            d, d_wild = _estimated(x[k + 3], s)
            x[k], x[k + 1], x[k + 2], x[k + 3] = a, b, c, d
            return a_wild | b_wild | c_wild | d_wild | rest(source, first, x)

        return estimate

    add_estimates = estimate_from(0)

    @inlined
    def estimate_all(source: Any, place: Any, stretch: Any, w: Any) -> Any:
        """About ``logits + noise`` into `w`; what `fetch` returns; whether that is not to be relied on."""
        first, here = place.row * source.choices + stretch.first, start(source, place) + stretch.first
        read(source.logits, here, stretch.left, w)
        wild = add_estimates(source, first, w)
        return exclude(source, place, stretch, w), wild

    @inlined
    def correct(source: Any, place: Any, stretch: Any, w: Any, rivals: Any) -> Any:
        """The sums themselves where `rivals` has a bit, -inf elsewhere."""
        for k in range(size):
            w[k] = nothing
        draw_again(source, place, stretch, w, rivals)
        exclude(source, place, stretch, w)

    add_quick, widen = quick_from(0) if added_in is np.float32 else none_quick, widening(kind)

    @inlined
    def draw_again(source: Any, place: Any, stretch: Any, x: Any, doubtful: Any) -> Any:
        first, here = place.row * source.choices + stretch.first, start(source, place) + stretch.first
        slot = 0
        while doubtful != 0:
            at = offset(slot >> 2, slot & 3)
            if doubtful & 1 and at < stretch.left:
                g = gumbel(uniform(_word(source.seed, source.offset + np.uint64(first + at))))
                perturbed = widen(load(source.logits, here + at, kind)) + added_in(g)
                for k in range(size):
                    x[k] = perturbed if k == slot else x[k]
            doubtful >>= 1
            slot += 1

    @inlined
    def fetch_and_draw(source: Any, place: Any, stretch: Any, w: Any) -> Any:
        x = cuda.local.array(size, added_in)
        first, here = place.row * source.choices + stretch.first, start(source, place) + stretch.first
        read(source.logits, here, stretch.left, x)
        draw_again(source, place, stretch, x, add_quick(source, first, x))
        for k in range(size):
            w[k] = compute(x[k])
        return exclude(source, place, stretch, w)

    fetch = {"none": fetch_alone, "array": fetch_and_add, "drawn": fetch_and_draw}[noise]
    return Perturbing(fetch, estimate_all, correct)


# ------------------------------------------------------------------------------------------------ noise alone


@cache
def draw(kind: Any) -> Launcher:
    """``(seed, first, out, n)``: the numbers from `first` on, by pairs of an even one and the odd one after it."""

    @inlined
    def put(word: Any, out: Any, place: Any, n: Any) -> Any:
        if 0 <= place < n:
            if kind is np.float32:
                x, doubtful = _quick(word)
                if doubtful != 0:
                    x = np.float32(gumbel(uniform(word)))
                store(out, place, kind, x)
            else:
                store(out, place, kind, gumbel(uniform(word)))

    def kernel(seed: Any, first: Any, out: Any, n: Any) -> None:
        pair = block() * PAIRS + thread()
        place = 2 * pair - np.int64(first & _ONE_BIT)
        even, odd = _block((first >> _ONE_BIT) + np.uint64(pair), seed)
        put(even, out, place, n)
        put(odd, out, place + 1, n)

    return Launcher(kernel, (types.uint64, types.uint64, types.int64, types.int64), PAIRS)
