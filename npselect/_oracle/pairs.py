"""What `Wide` is made of: pairs of float64, whose sum is one number of 106 bits, and float64 taken apart.

Sums and products are the classical error-free transformations (Dekker 1971; Knuth, TAOCP 4.2.2), and the algorithms 6
and 10 of M. Joldes, J.-M. Muller and V. Popescu, "Tight and rigorous error bounds for basic building blocks of
double-word arithmetic", ACM TOMS 44, 2017: with u = 2**-53, off by at most 3 u**2 and 7 u**2 of the result.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["exponential_series", "exponents", "plus", "powers", "quotient", "times", "two_prod", "two_sum"]

Array = npt.NDArray[Any]
Pair: TypeAlias = tuple[Array, Array]


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """``a + b = s + error`` exactly."""
    s = a + b
    b_part = s - a
    return s, (a - (s - b_part)) + (b - b_part)


def two_prod(a: Array, b: Array) -> tuple[Array, Array]:
    """``a * b = p + error`` exactly, for mantissas: Veltkamp's split cannot overflow there."""
    p = a * b
    (a1, a2), (b1, b2) = _split(a), _split(b)
    return p, ((a1 * b1 - p) + a1 * b2 + a2 * b1) + a2 * b2


def _split(a: Array) -> tuple[Array, Array]:
    scaled = 134217729.0 * a  # 2**27 + 1
    high = scaled - (scaled - a)
    return high, a - high


def exponents(values: Array) -> Array | None:
    """As of `numpy.frexp`, which is slower: 0 of 0, None if any value is not finite, subnormal or near the largest."""
    biased = (np.asarray(values).view(np.int64) >> 52) & 0x7FF
    if biased.min(initial=1) > 0 and biased.max(initial=1) <= 2040:
        return biased - 1022
    if np.any((biased > 2040) | ((biased == 0) & (values != 0.0))):
        return None
    return np.where(biased == 0, 0, biased - 1022)


def powers(exponents: Array | np.int64) -> Array:
    """``2.0**exponents``, of exponents between -1022 and 1023; of -1023, 0."""
    return ((np.asarray(exponents, np.int64) + 1023) << 52).view(np.float64)


def times(a: Pair, b: Pair) -> Pair:
    """Without the product of the lower parts."""
    p, p_lo = two_prod(a[0], b[0])
    return quick_two_sum(p, p_lo + (a[0] * b[1] + a[1] * b[0]))


def plus(a: Pair, b: Pair) -> Pair:
    """Where the first is the larger."""
    s, s_lo = quick_two_sum(a[0], b[0])
    t, t_lo = two_sum(a[1], b[1])
    s, s_lo = quick_two_sum(s, s_lo + t)
    return quick_two_sum(s, s_lo + t_lo)


def quotient(a: Pair, b: Pair) -> Pair:
    """Long division; what rests after the first of three digits is a pair."""
    first = a[0] / b[0]
    p, p_lo = two_prod(first, b[0])
    t, t_lo = two_prod(first, b[1])
    v, v_lo = two_sum(a[0] - p, -p_lo)
    w, w_lo = two_sum(a[1], -t)
    rest, rest_lo = two_sum(v, w)
    rest, rest_lo = quick_two_sum(rest, rest_lo + (v_lo + w_lo - t_lo))
    second = rest / b[0]
    p, p_lo = two_prod(second, b[0])
    third = ((rest - p) - p_lo + rest_lo - second * b[1]) / b[0]
    hi, lo = quick_two_sum(first, second)
    return hi, lo + third


def quick_two_sum(a: Array, b: Array) -> Pair:
    """As `two_sum`, where the first is the larger."""
    s = a + b
    return s, b - (s - a)


def exponential_series(x: Pair) -> Pair:
    """``(exp(x) - 1) / x = 1 + x / 2 + x**2 / 6 + ...`` for |x| < 2**-10, ten terms; float64 from ``x**5 / 720`` on."""
    tail = np.zeros_like(x[0])
    for coefficient in _SMALL_TERMS:
        tail = (tail + coefficient) * x[0]
    terms = plus(_TERMS[0], (tail, np.zeros_like(tail)))
    for term in _TERMS[1:]:
        terms = plus(term, times(x, terms))
    return terms


def _pair(exact: Fraction) -> Pair:
    hi = float(exact)
    return np.asarray(hi), np.asarray(float(exact - Fraction(hi)))


_SMALL_TERMS = [1 / factorial for factorial in (3628800, 362880, 40320, 5040, 720)]
_TERMS = [_pair(Fraction(1, factorial)) for factorial in (120, 24, 6, 2, 1)]
