"""Logarithms in float64, written once for every target: two quick ones, and one to three words.

As in `npselect._arithmetic.exponential`, no library function is called.
"""

from __future__ import annotations

from decimal import Context, Decimal
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from npselect._arithmetic.aliases import Bits, Number, Table
from npselect._arithmetic.primitives import (
    bits_of,
    fast_two_sum,
    float64_of,
    fma,
    inlined,
    lookup,
    select,
    two_product,
    two_sum,
)

__all__ = ["log_triple_word", "quick_minus_log", "rough_log"]

_LN2 = np.float64(0.6931471805599453)
_SQRT_HALF = np.int64(0x3FE6A09E667F3BCD)
_ZERO, _ONE, _MINUS_HALF, _ROUND = np.float64(0.0), np.float64(1.0), np.float64(-0.5), np.float64(1.5 * 2.0**52)
_BITS_OF_ONE, _EXPONENT = np.int64(0x3FF0000000000000), np.int64(0x7FF0000000000000)
_BITS_OF_2_52, _FROM_BIASED = np.int64(0x4330000000000000), np.float64(2.0**52 + 1023)


def _exact_log(numerator: int, denominator: int = 1) -> Fraction:
    """To 60 digits."""
    digits = Context(prec=60)
    return Fraction(digits.ln(digits.divide(Decimal(numerator), Decimal(denominator))))


@inlined
def _power_of_two(x: Number) -> Bits:
    """The bits of ``2**e``, biased as an exponent is, for the e that brings ``x / 2**e`` to [sqrt(1/2), sqrt(2))."""
    return (bits_of(x) + (_BITS_OF_ONE - _SQRT_HALF)) & _EXPONENT


@inlined
def _exponent(power: Bits) -> Number:
    """The e of `_power_of_two`, as a float64; bits below the exponent do not matter."""
    return float64_of((power >> 52) | _BITS_OF_2_52) - _FROM_BIASED


# ------------------------------------------------------------------------------------------------ quick, by two ranges

# x = 2**e m with 1 - 11/64 <= m < 2 - 11/32. From 1 + 11/64 on, r is 181/256, else 1:
#
#     log x = e ln 2 - log(r) + log(1 + z),        z = m r - 1,        |z| <= 11/64
#
# log(1 + z) is z p(z), where p is the minimax polynomial; its error, relative to log(1 + z), is below 2**-45. The
# roundings of p and of the product with z cost less than 8 in units of 2**-53 |log(1 + z)|.
#
# - e = 0 and r = 1: z = m - 1 is exact and log x = log(1 + z), wrong by no more than these.
# - Otherwise |log x| > 0.158, and |log(1 + z)| < 1.19 |log x|, which is most for m = 1 + 11/64 and e = 0. The rest is
#   e ln 2 - log(r), in which ln 2, log(r) and the fma are wrong by 1.5 in units of 2**-53 (|log x| + 0.35), and z, by
#   2**-56: together less than 2**-48 |log x|.
#
# 1.19 times 2**-45 and 2**-50, and 2**-48 are less than 2**-44.

# All this is minus the logarithm's when it is computed, and of x the high word decides.

_LOW_WORD, _WORD = np.uint64(0xFFFFFFFF), np.uint64(32)
_DOWN, _UPPER = np.uint32(11 << 15), np.uint32(33 << 14)
_HIGH_FRACTION, _HIGH_ONE, _HIGH_EXPONENT = np.uint32(0xFFFFF), np.uint32(0x3FF00000 - (11 << 15)), np.uint32(20)
_HIGH_OF_2_52 = np.uint64(0x4330000000000000)
_UPPER_RECIPROCAL, _UPPER_LOG = np.float64(181 / 256), np.float64(float(_exact_log(181, 256)))
_A0, _A1, _A2, _A3, _A4, _A5, _A6, _A7, _A8, _A9, _A10, _A11 = (
    np.float64(float.fromhex(digits))
    for digits in (
        "0x1.fffffffffff0bp-1",
        "-0x1.ffffffffff523p-2",
        "0x1.5555555677beep-2",
        "-0x1.000000028e721p-2",
        "0x1.9999961c8052cp-3",
        "-0x1.55554fddda5a7p-3",
        "0x1.24943e8e1faadp-3",
        "-0x1.00027e1259387p-3",
        "0x1.c61ec73712e3bp-4",
        "-0x1.988060ab4ffdcp-4",
        "0x1.91b2e0f0758e5p-4",
        "-0x1.72c67326eef2fp-4",
    )
)


@inlined
def quick_minus_log(x: Number) -> Number:
    """``-log(x)`` of a normal, positive float64, within ``2**-44 |log x|``; without a table."""
    bits = np.uint64(bits_of(x))
    moved = np.uint32(np.uint32(bits >> _WORD) + _DOWN)
    fraction = np.uint32(moved & _HIGH_FRACTION)
    upper = fraction >= _UPPER
    m = float64_of((np.uint64(np.uint32(fraction + _HIGH_ONE)) << _WORD) | (bits & _LOW_WORD))
    e = float64_of(_HIGH_OF_2_52 | np.uint64(np.uint32(moved >> _HIGH_EXPONENT))) - _FROM_BIASED
    z = fma(m, select(upper, _UPPER_RECIPROCAL, _ONE), -_ONE)
    p = fma(fma(fma(fma(fma(fma(_A11, z, _A10), z, _A9), z, _A8), z, _A7), z, _A6), z, _A5)
    p = fma(fma(fma(fma(fma(p, z, _A4), z, _A3), z, _A2), z, _A1), z, _A0)
    return fma(-z, p, fma(e, -_LN2, select(upper, _UPPER_LOG, _ZERO)))


# ------------------------------------------------------------------------------------------------ quick, by a table

# x = 2**e m with 1 - 9/256 <= m < 2 - 9/128. The eighths of [1, 2), moved down by 9/128, are eight ranges of m, and
# r is 1 over the middle of m's; for the first, which goes on below 1, it is 1:
#
#     log x = e ln 2 - log(r) + log(1 + z),        z = m r - 1,        |z| < 0.05595
#
# log(1 + z) is z p(z), where p is the minimax polynomial; its error, relative to log(1 + z), is below 2**-43.4. The
# roundings of p and of the product with z cost less than 8 in units of 2**-53 |log(1 + z)|.
#
# - e = 0 in the first range: z = m - 1 is exact and log x = log(1 + z), wrong by no more than these.
# - Otherwise |log x| > 0.035, and |log(1 + z)| < 1.09 |log x|: in the second range with e = 0, where that is most,
#   log(1 + z) >= -0.0576 and log x >= 0.0532; in the eighth with e = -1, |log(1 + z)| < 0.0341 and log x < -0.0358. The
#   rest is e ln 2 - log(r), in which ln 2, the table's number and the fma are wrong by 1.5 in units of
#   2**-53 (|log x| + 0.7), and z, by 2**-57: together less than 2**-47 |log x|.
#
# 1.09 times 2**-43.4 and 2**-47 are less than 2**-43.

_MOVED = np.int64(9 << 45)
_FRACTION, _EIGHTHS = np.int64(0x000FFFFFFFFFFFFF), np.int64(49)
_MIDDLES = [Fraction(1), *(1 + Fraction(2 * j + 1, 16) - Fraction(9, 128) for j in range(1, 8))]
_RECIPROCALS = tuple(np.float64(float(1 / middle)) for middle in _MIDDLES)
_MINUS_LOGS = tuple(np.float64(float(_exact_log(middle.numerator, middle.denominator))) for middle in _MIDDLES)
_C0, _C1, _C2, _C3, _C4, _C5, _C6, _C7 = (
    np.float64(float.fromhex(digits))
    for digits in (
        "0x1.ffffffffffd0dp-1",
        "-0x1.fffffffffea2ep-2",
        "0x1.555555640b254p-2",
        "-0x1.000000178c22bp-2",
        "0x1.9998e21de2635p-3",
        "-0x1.55547cb9db078p-3",
        "0x1.26003fd3e6f94p-3",
        "-0x1.016e16f6a79ebp-3",
    )
)


@inlined
def rough_log(x: Number) -> Number:
    """``log(x)`` of a normal, positive float64, within ``2**-43 |log x|``; it takes SIMD vectors, too."""
    moved = bits_of(x) + _MOVED
    m = float64_of((moved & _FRACTION) + (_BITS_OF_ONE - _MOVED))
    j = (moved >> _EIGHTHS) & 7
    z = fma(m, lookup(_RECIPROCALS, j), -_ONE)
    w = z * z
    low, high = fma(fma(_C3, z, _C2), w, fma(_C1, z, _C0)), fma(fma(_C7, z, _C6), w, fma(_C5, z, _C4))
    return fma(z, fma(high, w * w, low), fma(_exponent(moved), _LN2, lookup(_MINUS_LOGS, j)))


# ------------------------------------------------------------------------------------------------ three words

# x = x0 + x1 + x2 (N. Fabiano, J.-M. Muller and J. Picot, "Algorithms for triple-word arithmetic", IEEE Transactions on
# Computers 68, 2019) is brought near 1 by a number of few bits, j / 256 with j = round(256 / m), so that
#
#     log x = e ln 2 - log(j / 256) + log(1 + z),        z = x j / 256 / 2**e - 1,        |z| < 2**-8.49
#
# where z comes out exactly from x0, and to two words from the rest. ln 2 and the logarithms in the table are cut into
# multiples of 2**-40, multiples of 2**-80, and a rest: of the sums of these, the first two are exact. log(1 + z) is
# Taylor's series, z - z**2/2 + z**3 (1/3 - z/4 + ...), the terms up to z**6 to two words.
#
# How wrong that is, with u = 2**-53 and |a_low| <= u |a| in every double word; terms of u**3 beside u**2 are left out.
#
# - `_product`, in u**2 |a b|: a_low b_low, left out, 1; a_low b, 1; cross, 2; the other fma, at most 3 u |a b| large,
#   3; the last sum, 1; together 8.
# - `_sum`, in u**2: a_low + b_low, |a| + |b|; the sum with s_low, as much and |a + b|. For |b| <= |a| / 2 that is at
#   most 7 |a + b|.
# - `_log_of_one_plus`, in u**2 |z|: its last sum, where |b| < 2**-9.4 |a|, 3.01; what is wrong with that b, below
#   20 u**2 |b|, 0.03; z**7, to one word, wrong by u / 8 for T7 and u / 8 for the last fma, 1.01; the end of the series,
#   z**14 / 14, 0.01; together 4.1. For |z| <= 2**-8.99, z**7 costs 0.14, and all 3.2.
# - m j / 256 - 1 is exact. j is within 1/2 + 2**-45 of 256 / m, so it is at most 2**-8.5 and, for m < 1, at most
#   2**-9 (1 + 2**-44). It is a multiple of 2**-60 and, for m < 1, of 2**-61.
# - e = 0 and j = 256: x2 r is exact, and |x1| <= |z|, nearly. z_low + x2 costs u (u + 3 u) |z|. The sums after z are
#   exact, and the third word is 0. So log x is wrong by 7.2 u**2 |z|, and by 3.2 u**2 |z| if x is x0.
# - Otherwise |log x| > 2**-9.01, and z costs u**2 |z|. (The fma in it costs 4 u**3. Where x is so near 2**e 256 / j
#   that |z| is less than what fast_two_sum adds to it, that costs some u**3.) The sums are exact but for those of the
#   third word, each of which costs u (|e| + 1) 2**-81; so does the last fast_two_sum, where |b| happens to be less than
#   what it adds: below 2**-120 in all. So log x is wrong by 5.1 u**2 2**-8.49, and by 4.1 u**2 2**-8.49 if x is x0.
#
# Either way that is less than 2**-112 and less than 2**-103 |log x|; if x is x0, 2**-112.4 and 2**-103.4 |log x|.


class _Words(NamedTuple):
    first: Table  # multiples of 2**-40
    second: Table  # multiples of 2**-80
    third: Table  # the rest


def _words(values: list[Fraction]) -> _Words:
    firsts = [Fraction(round(value * 2**40), 2**40) for value in values]
    seconds = [Fraction(round((value - first) * 2**80), 2**80) for value, first in zip(values, firsts, strict=True)]
    thirds = [value - first - second for value, first, second in zip(values, firsts, seconds, strict=True)]
    return _Words(*(np.array([float(word) for word in words]) for words in (firsts, seconds, thirds)))


def _two_words(value: Fraction) -> tuple[np.float64, np.float64]:
    high = np.float64(float(value))
    return high, np.float64(float(value - Fraction(float(high))))


_FIRST_J = np.int64(181)  # round(256 / sqrt(2)); the last is round(256 sqrt(2)) = 362
_TABLE1, _TABLE2, _TABLE3 = _words([-_exact_log(j, 256) for j in range(181, 363)])
(_LN2_1,), (_LN2_2,), (_LN2_3,) = _words([_exact_log(2)])
_STEPS, _PER_STEP = np.float64(256.0), np.float64(1.0 / 256.0)
_T3, _T3_LOW = _two_words(Fraction(1, 3))
_T4, _T4_LOW = np.float64(-0.25), _ZERO
_T5, _T5_LOW = _two_words(Fraction(1, 5))
_T6, _T6_LOW = _two_words(Fraction(-1, 6))
_T7, _T8, _T9, _T10, _T11, _T12, _T13 = (np.float64((-1.0) ** (k + 1) / k) for k in range(7, 14))


@inlined
def _product(a: Number, a_low: Number, b: Number, b_low: Number) -> tuple[Number, Number]:
    """Of two double words, relatively within ``2**-102``."""
    cross = fma(a, b_low, fma(a_low, b, _ZERO))
    p = fma(a, b, cross)
    return p, fma(a, b, -p) + cross


@inlined
def _sum(a: Number, a_low: Number, b: Number, b_low: Number) -> tuple[Number, Number]:
    """Of two double words, ``|a| >= 2 |b|`` or a = 0, relatively within ``2**-103``."""
    s, s_low = fast_two_sum(a, b)
    return fast_two_sum(s, s_low + (a_low + b_low))


@inlined
def _log_of_one_plus(z: Number, z_low: Number) -> tuple[Number, Number]:
    """``log(1 + z + z_low)`` as a double word, for ``|z| < 2**-8.49``; relatively within ``2**-103``."""
    q = fma(fma(fma(fma(fma(fma(_T13, z, _T12), z, _T11), z, _T10), z, _T9), z, _T8), z, _T7)
    q, q_low = _sum(_T6, _T6_LOW, *_product(q, _ZERO, z, z_low))
    q, q_low = _sum(_T5, _T5_LOW, *_product(q, q_low, z, z_low))
    q, q_low = _sum(_T4, _T4_LOW, *_product(q, q_low, z, z_low))
    q, q_low = _sum(_T3, _T3_LOW, *_product(q, q_low, z, z_low))
    q, q_low = _sum(_MINUS_HALF, _ZERO, *_product(q, q_low, z, z_low))
    square, square_low = _product(z, z_low, z, z_low)
    return _sum(z, z_low, *_product(q, q_low, square, square_low))


@inlined
def log_triple_word(x0: Number, x1: Number, x2: Number) -> tuple[Number, Number, Number]:
    """``log(x0 + x1 + x2)`` as three words, wrong by less than ``2**-112``, and by less than ``2**-103 |log x|``.

    x0 is from ``2**-1022`` to ``2**1022``. Of x, as of the result, ``|x1| <= 2**-53 |x0|``, or very little more, and
    ``|x2| <= 3 * 2**-53 |x1|``; no word is so small that its product with another may be subnormal.
    """
    power = _power_of_two(x0)
    scale = float64_of(_BITS_OF_ONE - power + _BITS_OF_ONE)
    m = x0 * scale
    shifted = _STEPS / m + _ROUND
    r = (shifted - _ROUND) * _PER_STEP
    j = bits_of(shifted) - bits_of(_ROUND) - _FIRST_J
    p, p_low = two_product(x1 * scale, r)
    z, z_low = two_sum(fma(m, r, -_ONE), p)
    z, z_low = fast_two_sum(z, z_low + fma(x2 * scale, r, p_low))
    y, y_low = _log_of_one_plus(z, z_low)
    e = _exponent(power)
    a, a_low = two_sum(fma(e, _LN2_1, _TABLE1[j]), y)
    b, b_low = two_sum(fma(e, _LN2_2, _TABLE2[j]), y_low)
    b, rest = two_sum(a_low, b)
    a, b = fast_two_sum(a, b)
    b, c = fast_two_sum(b, rest + (b_low + fma(e, _LN2_3, _TABLE3[j])))
    return a, b, c
