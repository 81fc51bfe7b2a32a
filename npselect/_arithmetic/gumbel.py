"""Gumbel noise, counter-based: number n of the stream of a seed is a function of the two, and of nothing else.

Philox4x32-10 (J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3",
SC 2011) turns the counter ``n // 2`` and the key ``seed`` into four words of 32 bits: two for an even n, two for an odd
one. Of the 64 bits, 52 become an odd multiple u of ``2**-53`` in (0, 1), and ``G = -log(-log(u))`` is rounded to the
nearest number of float64; as float32, that is rounded once more.
"""

from __future__ import annotations

import numpy as np

from npselect._arithmetic.aliases import Number, Word
from npselect._arithmetic.logarithm import log_triple_word, rough_log
from npselect._arithmetic.primitives import bits_of, float64_of, fma, inlined, rounded32, select

__all__ = ["MARGIN", "gumbel", "philox", "quick_gumbel", "uniform", "words_of"]

_MULTIPLIER0, _MULTIPLIER1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL0, _WEYL1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW, _HALF_WORD, _DROPPED = np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(12)
_NONE, _BIT = np.uint64(0), np.uint64(1)
_BITS_OF_ONE, _ODD = np.uint64(0x3FF0000000000000), np.int64(1)
_ZERO, _BELOW_ONE = np.float64(0.0), np.float64(1.0 - 2.0**-53)


@inlined
def philox(x0: Word, x1: Word, x2: Word, x3: Word, key0: Word, key1: Word) -> tuple[Word, Word, Word, Word]:
    """Ten rounds over four words of 32 bits, each in a uint64."""
    for _ in range(10):
        a, b = x0 * _MULTIPLIER0, x2 * _MULTIPLIER1
        x0, x1, x2, x3 = (b >> _HALF_WORD) ^ x1 ^ key0, b & _LOW, (a >> _HALF_WORD) ^ x3 ^ key1, a & _LOW
        key0, key1 = (key0 + _WEYL0) & _LOW, (key1 + _WEYL1) & _LOW
    return x0, x1, x2, x3


@inlined
def words_of(counter: Word, seed: Word) -> tuple[Word, Word]:
    """The two 64-bit words of a counter, the even number's and the odd one's; of many, if they are a SIMD vector."""
    none = counter & _NONE
    x0, x1, x2, x3 = philox(counter & _LOW, counter >> _HALF_WORD, none, none, seed & _LOW, seed >> _HALF_WORD)
    return (x1 << _HALF_WORD) | x0, (x3 << _HALF_WORD) | x2


@inlined
def uniform(word: Word) -> Number:
    """``((word >> 11) | 1) * 2**-53``, by way of the 52 high bits as the fraction of a number in [1, 2)."""
    return float64_of((word >> _DROPPED) | _BITS_OF_ONE) - _BELOW_ONE


# ------------------------------------------------------------------------------------------------ -log(-log(u))

# With the words of two logarithms, L = -log(u) is relatively wrong by less than 2**-103.4, so G by that and 2**-112.
# Where |G| < 1, L is above 1/e and wrong by less than 2**-112.4, so G by less than 2**-110. A G so near the middle of
# two float64 that this decides which one is taken is hardly to be expected: 0.2 times among all 2**52 uniforms.
#
# In float32 a quick G will nearly always do. Its logarithms are relatively wrong by less than d, hence L by d |L|, and
# G by d + d (1 + d) |G|, and very little more: less than 1.01 d (1 + |G|). Where G -+ twice as much round to different
# float32, it is computed with all the words. That G, rounded to float64, lies between the two, so this changes nothing
# where they round to the same. With `rough_log`, d = 2**-43, that is once in some 20,000 numbers. The CUDA tier takes
# the same margin, though with `quick_minus_log` d = 2**-44.

MARGIN = np.float64(2.0**-42)
_MAGNITUDE, _DOUBT = np.int64(0x7FFFFFFFFFFFFFFF), np.float32(np.nan)


@inlined
def _rounded(a: Number, b: Number, c: Number) -> Number:
    """``a + b + c``, words that do not overlap, rounded once.

    b + c is rounded to odd: of the two numbers about it, to the one whose last bit is 1. Then a second rounding does no
    harm (S. Boldo and G. Melquiond, IEEE Transactions on Computers 57, 2008).
    """
    below = bits_of(b) - np.int64((b > _ZERO) != (c > _ZERO))
    return a + (b if c == _ZERO else float64_of(below | _ODD))


@inlined
def gumbel(u: Number) -> Number:
    """``-log(-log(u))``, wrong by less than ``2**-103``, where |G| < 1 by less than ``2**-110``, and rounded once."""
    x0, x1, x2 = log_triple_word(u, _ZERO, _ZERO)
    y0, y1, y2 = log_triple_word(-x0, -x1, -x2)
    return -_rounded(y0, y1, y2)


@inlined
def quick_gumbel(u: Number) -> Number:
    """The float32 noise of a uniform, or of a SIMD vector of them; NaN where it is in doubt."""
    g = rough_log(-rough_log(u))
    margin = fma(MARGIN, float64_of(bits_of(g) & _MAGNITUDE), MARGIN)
    low, high = rounded32(-g - margin), rounded32(margin - g)
    return select(low == high, low, _DOUBT)
