"""Gumbel noise, counter-based: number n of the stream of a seed is a function of the two, and of nothing else.

Philox4x32-10 (J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3",
SC 2011) turns the counter ``n // 2`` and the key ``seed`` into four words of 32 bits: two for an even n, two for an odd
one. Of the 64 bits, 52 become an odd multiple u of ``2**-53`` in (0, 1), and ``G = -log(-log(u))`` is rounded to the
nearest number of float64; as float32, that is rounded once more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from npselect.backends.logarithms import log, log_triple_word
from npselect.backends.primitives import bits_of, compiles, float64_of, formula, inlined, kernel
from npselect.backends.storage import widen

__all__ = ["add_rows", "draw", "draw_at", "gumbel", "perturb", "perturb_at", "philox", "uniform"]

_MULTIPLIER0, _MULTIPLIER1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL0, _WEYL1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW, _HALF_WORD, _DROPPED = np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(12)
_NONE, _BIT = np.uint64(0), np.uint64(1)
_BITS_OF_ONE, _ODD = np.uint64(0x3FF0000000000000), np.int64(1)
_ZERO, _ONE, _HALF_STEP = np.float64(0.0), np.float64(1.0), np.float64(2.0**-53)


@inlined
def philox(x0: Any, x1: Any, x2: Any, x3: Any, key0: Any, key1: Any) -> Any:
    """Ten rounds over four words of 32 bits, each in a uint64."""
    for _ in range(10):
        a, b = x0 * _MULTIPLIER0, x2 * _MULTIPLIER1
        x0, x1, x2, x3 = (b >> _HALF_WORD) ^ x1 ^ key0, b & _LOW, (a >> _HALF_WORD) ^ x3 ^ key1, a & _LOW
        key0, key1 = (key0 + _WEYL0) & _LOW, (key1 + _WEYL1) & _LOW
    return x0, x1, x2, x3


@inlined
def _block(counter: Any, seed: Any) -> Any:
    """The two 64-bit words of a counter, the even number's and the odd one's."""
    x0, x1, x2, x3 = philox(counter & _LOW, counter >> _HALF_WORD, _NONE, _NONE, seed & _LOW, seed >> _HALF_WORD)
    return (x1 << _HALF_WORD) | x0, (x3 << _HALF_WORD) | x2


@inlined
def uniform(word: Any) -> Any:
    """``((word >> 11) | 1) * 2**-53``, by way of the 52 high bits as the fraction of a number in [1, 2)."""
    return (float64_of((word >> _DROPPED) | _BITS_OF_ONE) - _ONE) + _HALF_STEP


# ------------------------------------------------------------------------------------------------ -log(-log(u))

# With the words of two logarithms, L = -log(u) is relatively wrong by less than 2**-103.4, so G by that and 2**-112.
# Where |G| < 1, L is above 1/e and wrong by less than 2**-112.4, so G by less than 2**-110. A G so near the middle of
# two float64 that this decides which one is taken is hardly to be expected: 0.2 times among all 2**52 uniforms.
#
# In float32 a quick G will nearly always do: its logarithms are relatively wrong by 2**-50 at most, hence G by
# 2**-50 (1 + |G|), and very little more. Where G -+ four times as much round to different float32, once in some 2**20
# numbers, it is computed with all the words. That G, rounded to float64, lies between the two, so this changes nothing
# where they round to the same.

_UNCERTAIN = np.float64(2.0**-48)


@inlined
def _rounded(a: Any, b: Any, c: Any) -> Any:
    """``a + b + c``, words that do not overlap, rounded once.

    b + c is rounded to odd: of the two numbers about it, to the one whose last bit is 1. Then a second rounding does no
    harm (S. Boldo and G. Melquiond, IEEE Transactions on Computers 57, 2008).
    """
    below = bits_of(b) - np.int64((b > _ZERO) != (c > _ZERO))
    return a + (b if c == _ZERO else float64_of(below | _ODD))


@inlined
def gumbel(u: Any) -> Any:
    """``-log(-log(u))``, wrong by less than ``2**-103``, where |G| < 1 by less than ``2**-110``, and rounded once."""
    x0, x1, x2 = log_triple_word(u, _ZERO, _ZERO)
    y0, y1, y2 = log_triple_word(-x0, -x1, -x2)
    return -_rounded(y0, y1, y2)


@formula
def _gumbels64(u: Any, out: Any) -> Any:
    for i in range(len(out)):
        out[i] = gumbel(u[i])


@formula
def _gumbels32(u: Any, out: Any) -> Any:
    doubtful = 0
    for i in range(len(out)):
        g = log(-log(u[i]))
        margin = _UNCERTAIN * (_ONE + abs(g))
        out[i] = np.float32(-g - margin)
        doubtful += out[i] != np.float32(-g + margin)
    if doubtful > 0:
        for i in range(len(out)):
            g = log(-log(u[i]))
            margin = _UNCERTAIN * (_ONE + abs(g))
            if np.float32(-g - margin) != np.float32(-g + margin):
                out[i] = np.float32(gumbel(u[i]))


def gumbels(u: Any, out: Any) -> Any:
    """The noise of each uniform in the type of `out`, float32 or float64."""
    if out.dtype == np.float32:
        _gumbels32(u, out)
    else:
        _gumbels64(u, out)


@compiles(gumbels)
def _gumbels(u: Any, out: Any) -> Any:  # noqa: ARG001
    if out.dtype == types.float32:
        return lambda u, out: _gumbels32(u, out)
    return lambda u, out: _gumbels64(u, out)


# ------------------------------------------------------------------------------------------------ draws

_BLOCK = 4096  # uniforms that are kept at a time; even


@formula
def _draw(seed: Any, number: Any, u: Any, out: Any) -> Any:
    """From even to odd, as two numbers come of one block; `u` has room for two more."""
    skipped = np.int64(number & _BIT)
    used = skipped + len(out)
    counter = number >> _BIT
    for i in range((used + 1) // 2):
        even, odd = _block(counter + np.uint64(i), seed)
        u[2 * i], u[2 * i + 1] = uniform(even), uniform(odd)
    gumbels(u[skipped:used], out)


@kernel
def draw(seed: Any, first: Any, out: Any) -> Any:
    """The numbers `first`, ``first + 1``, ... of the stream."""
    n = len(out)
    u = np.empty(min(n, _BLOCK) + 2)
    for start in range(0, n, _BLOCK):
        _draw(seed, first + np.uint64(start), u, out[start : min(start + _BLOCK, n)])


@kernel
def draw_at(seed: Any, numbers: Any, out: Any) -> Any:
    """Any numbers of the stream."""
    u = np.empty(len(out))
    for i in range(len(out)):
        even, odd = _block(numbers[i] >> _BIT, seed)
        u[i] = uniform(odd if numbers[i] & _BIT else even)
    gumbels(u, out)


@kernel
def perturb(logits: Any, seed: Any, first: Any, out: Any) -> Any:
    """``logits + noise``, in the type of the noise, which is that of `out`: the numbers from `first` on."""
    n = len(out)
    u = np.empty(min(n, _BLOCK) + 2)
    for start in range(0, n, _BLOCK):
        values, noise = logits[start : start + _BLOCK], out[start : start + _BLOCK]
        _draw(seed, first + np.uint64(start), u, noise)
        for i in range(len(noise)):
            noise[i] += widen(values[i])


@kernel
def perturb_at(logits: Any, seed: Any, numbers: Any, out: Any) -> Any:
    """The same with any numbers of the stream."""
    draw_at(seed, numbers, out)
    for i in range(len(out)):
        out[i] += widen(logits[i])


@kernel
def add_rows(logits: Any, noise: Any, out: Any) -> Any:
    """``logits + noise``, the noise given: a row for each, or one for all."""
    for r in range(len(out)):
        values, added, row = logits[r], noise[r if len(noise) > 1 else 0], out[r]
        for j in range(len(row)):
            row[j] = widen(values[j]) + added[j]
