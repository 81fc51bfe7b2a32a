"""The random stream on a GPU: its words, in 32-bit arithmetic; numbers by the quick formula; noise by itself.

A float32 number is quick, or in doubt (see `npselect._arithmetic.gumbel`); a float64 number is always in doubt.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import types

from npselect._arithmetic.aliases import Flag, Number, Word
from npselect._arithmetic.gumbel import MARGIN, gumbel, uniform
from npselect._arithmetic.logarithm import quick_minus_log
from npselect._arithmetic.primitives import fma, inlined
from npselect._gpu.aliases import Address, Count, Function, Kind, Position
from npselect._gpu.elements import store
from npselect._gpu.intrinsics import block, thread, wide_product
from npselect._gpu.launch import Kernel
from npselect.tiers.cuda.teams import Team

__all__ = ["PAIRS", "draw", "high_half", "quick_number", "word_of", "words_of_quad"]

PAIRS = 128  # of numbers, that a block of threads draws

_ONE_BIT, _HALF_WORD, _LOW_WORD = np.uint64(1), np.uint64(32), np.uint64(0xFFFFFFFF)
_MULTIPLIER0, _MULTIPLIER1 = np.uint32(0xD2511F53), np.uint32(0xCD9E8D57)
_WEYL0, _WEYL1 = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)


@inlined
def _low_half(word: Word) -> Word:
    return np.uint32(word & _LOW_WORD)


@inlined
def high_half(word: Word) -> Word:
    """The high 32 bits of a word."""
    return np.uint32(word >> _HALF_WORD)


@inlined
def _join(high: Word, low: Word) -> Word:
    return (np.uint64(high) << _HALF_WORD) | np.uint64(low)


@inlined
def _philox(counter: Word, seed: Word) -> tuple[Word, Word]:
    """`npselect._arithmetic.gumbel.philox` in words of 32 bits: the 64-bit words of a counter's two numbers."""
    x0, x1, x2, x3 = _low_half(counter), high_half(counter), np.uint32(0), np.uint32(0)
    key0, key1 = _low_half(seed), high_half(seed)
    for _ in range(10):
        a, b = wide_product(x0, _MULTIPLIER0), wide_product(x2, _MULTIPLIER1)
        x0, x1, x2, x3 = (
            np.uint32(high_half(b) ^ x1 ^ key0),
            _low_half(b),
            np.uint32(high_half(a) ^ x3 ^ key1),
            _low_half(a),
        )
        key0, key1 = np.uint32(key0 + _WEYL0), np.uint32(key1 + _WEYL1)
    return _join(x1, x0), _join(x3, x2)


@inlined
def _contiguous_words(seed: Word, number: Word, step: Word) -> tuple[Word, Word, Word, Word]:
    """The words of four successive numbers: of two counters, or of three if the first number is odd."""
    counter = number >> _ONE_BIT
    a, b = _philox(counter, seed)
    c, d = _philox(counter + _ONE_BIT, seed)
    if number & _ONE_BIT:
        e, _ = _philox(counter + np.uint64(2), seed)
        return b, c, d, e
    return a, b, c, d


@inlined
def word_of(seed: Word, number: Word) -> Word:
    """The word of one number of the stream."""
    even, odd = _philox(number >> _ONE_BIT, seed)
    return odd if number & _ONE_BIT else even


@inlined
def _scattered_words(seed: Word, number: Word, step: Word) -> tuple[Word, Word, Word, Word]:
    return (
        word_of(seed, number),
        word_of(seed, number + step),
        word_of(seed, number + step + step),
        word_of(seed, number + step + step + step),
    )


@inlined
def quick_number(word: Word) -> tuple[Number, Flag]:
    """The float32 that a word's number is rounded to, and 1 if that is in doubt, else 0."""
    g = quick_minus_log(quick_minus_log(uniform(word)))
    margin = fma(MARGIN, abs(g), MARGIN)
    low, high = np.float32(g - margin), np.float32(g + margin)
    return low, 0 if low == high else 1


def words_of_quad(team: Team) -> Function:
    """``words(seed, number, step)``: those of a quad's four numbers, `number` being the first."""
    return _contiguous_words if team.neighbours else _scattered_words


# ------------------------------------------------------------------------------------------------ noise alone


@cache
def draw(kind: Kind) -> Kernel:
    """``(seed, first, out, n)``: the numbers from `first` on, by pairs of an even one and the odd one after it."""

    @inlined
    def draw_one(word: Word, out: Address, at: Position, n: Count) -> None:
        if 0 <= at < n:
            if kind is np.float32:
                x, doubtful = quick_number(word)
                if doubtful != 0:
                    x = np.float32(gumbel(uniform(word)))
                store(out, at, kind, x)
            else:
                store(out, at, kind, gumbel(uniform(word)))

    def kernel(seed: Word, first: Word, out: Address, n: Count) -> None:
        pair = block() * PAIRS + thread()
        at = 2 * pair - np.int64(first & _ONE_BIT)
        even, odd = _philox((first >> _ONE_BIT) + np.uint64(pair), seed)
        draw_one(even, out, at, n)
        draw_one(odd, out, at + 1, n)

    return Kernel(kernel, (types.uint64, types.uint64, types.int64, types.int64), PAIRS)
