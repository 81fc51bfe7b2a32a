"""``log(1 + exp(u))``, for numbers of two words, and the two words of a logarithm: written once for every target.

As in `npselect._arithmetic.exponential`, no library function is called.
"""

from __future__ import annotations

import numpy as np
from numba import types

from npselect._arithmetic.aliases import Chosen, Constants, NumbaType, Number
from npselect._arithmetic.exponential import exp_normal
from npselect._arithmetic.logarithm import log_triple_word
from npselect._arithmetic.primitives import (
    bits_of,
    compiles,
    element,
    fast_two_sum,
    float32_of,
    float64_of,
    fma,
    formula,
    rounded32,
    select,
)

__all__ = ["log1p", "log_two_words", "softplus"]

# ------------------------------------------------------------------------------------------------ log(1 + x)

# log(1 + x) = x + x**2 r(x), r the minimax polynomial for x in [0, 1]. Its error, relative to log(1 + x), is below
# 2**-27.4 for float32 and 2**-55.2 for float64: 0.1 and 0.22 in units of u, which is 2**-24 and 2**-53. The last fma
# rounds once, which costs u. |x**2 r| is at most 0.443 log(1 + x), at x = 1; relative to itself, x**2 costs it u, and r
# 2 u: Horner's last step u, what it adds to c0 is at most 0.39 |r|, and was rounded likewise. Together less than
# (1 + 0.443 * 3 + 0.22) u < 2.6 u.

_C32 = tuple(
    np.float32(float.fromhex(digits))
    for digits in (
        "-0x1.ffffd2p-2",
        "0x1.554ddp-2",
        "-0x1.ff23e6p-3",
        "0x1.934b54p-3",
        "-0x1.3a435ep-3",
        "0x1.b4ae08p-4",
        "-0x1.d6b08cp-5",
        "0x1.4917cep-6",
        "-0x1.af49cep-9",
    )
)
_C64 = tuple(
    np.float64(float.fromhex(digits))
    for digits in (
        "-0x1.fffffffffff9fp-2",
        "0x1.5555555551051p-2",
        "-0x1.fffffffdd49c3p-3",
        "0x1.99999951fa118p-3",
        "-0x1.55554fbe55fb4p-3",
        "0x1.2491fed9378eap-3",
        "-0x1.fffa8bc7ab8fep-4",
        "0x1.c6f6a811ad376p-4",
        "-0x1.98d2961ea0d17p-4",
        "0x1.712df4691ea7cp-4",
        "-0x1.4b021d09ab4bbp-4",
        "0x1.202dec7cad703p-4",
        "-0x1.d71148c50eac4p-5",
        "0x1.5a89233bb15e4p-5",
        "-0x1.b632796d2b308p-6",
        "0x1.c57efc392d33cp-7",
        "-0x1.6b4e6ec79c36fp-8",
        "0x1.a25c1514935e3p-10",
        "-0x1.31f8fa40fa936p-12",
        "0x1.a906d85549852p-16",
    )
)
_ZERO32, _ZERO64 = np.float32(0.0), np.float64(0.0)


@formula
def _log1p32(x: Number) -> Number:
    c0, c1, c2, c3, c4, c5, c6, c7, c8 = _C32
    r = fma(fma(fma(fma(c8, x, c7), x, c6), x, c5), x, c4)
    r = fma(fma(fma(fma(r, x, c3), x, c2), x, c1), x, c0)
    return fma(x * x, r, x)


@formula
def _log1p64(x: Number) -> Number:
    c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13, c14, c15, c16, c17, c18, c19 = _C64
    r = fma(fma(fma(fma(fma(c19, x, c18), x, c17), x, c16), x, c15), x, c14)
    r = fma(fma(fma(fma(fma(r, x, c13), x, c12), x, c11), x, c10), x, c9)
    r = fma(fma(fma(fma(fma(r, x, c8), x, c7), x, c6), x, c5), x, c4)
    r = fma(fma(fma(fma(r, x, c3), x, c2), x, c1), x, c0)
    return fma(x * x, r, x)


def log1p(x: Number) -> Number:
    """``log(1 + x)`` for x in [0, 1], relatively within 2.6 u."""
    return _log1p32(x) if isinstance(x, np.float32) else _log1p64(x)


@compiles(log1p)
def _log1p(x: NumbaType) -> Chosen:
    if element(x) == types.float32:
        return lambda x: _log1p32(x)
    return lambda x: _log1p64(x)


# ------------------------------------------------------------------------------------------------ softplus

# With x = exp(-|u|), log(1 + exp(u)) is log(1 + x), and u more where u > 0; the second is exact in the two words of u.
# x is wrong by one unit in the last place, 2 u x at most, and log(1 + x) by 2 u x / (1 + x), at most 2 u log(1 + x).
# So log(1 + x) is wrong by 4.6 u, relative to itself, and very little more; adding u to it costs at most u of it, where
# u is the smaller of the two (else `fast_two_sum` is exact), and the sum of the low words u**2. Together softplus is
# wrong by less than 6 u log(1 + exp(-|u|)).
#
# Below `_LEAST`, x would be subnormal: it is 0 there, and softplus is wrong by less than the smallest normal number.
# What is not a number has the softplus NaN.

_LEAST32, _LEAST64 = np.float32(-87.0), np.float64(-708.0)
_SIGN32, _SIGN64 = np.int32(-(2**31)), np.int64(-(2**63))


@formula
def _softplus32(u: Number, tail: Number, down: Number, up: Number, constants: Constants) -> tuple[Number, Number]:
    bits, is_negative = bits_of(u), u <= _ZERO32
    t = float32_of(bits | _SIGN32) * up
    t_tail = float32_of(bits_of(tail) ^ (~bits & _SIGN32)) * up
    x = select(t >= _LEAST32, exp_normal(t, t_tail, constants), _ZERO32)
    s, low = fast_two_sum(select(is_negative, _ZERO32, u), _log1p32(x) * down)
    return s, low + select(is_negative, _ZERO32, tail)


@formula
def _softplus64(u: Number, tail: Number, down: Number, up: Number, constants: Constants) -> tuple[Number, Number]:
    bits, is_negative = bits_of(u), u <= _ZERO64
    t = float64_of(bits | _SIGN64) * up
    t_tail = float64_of(bits_of(tail) ^ (~bits & _SIGN64)) * up
    x = select(t >= _LEAST64, exp_normal(t, t_tail, constants), _ZERO64)
    s, low = fast_two_sum(select(is_negative, _ZERO64, u), _log1p64(x) * down)
    return s, low + select(is_negative, _ZERO64, tail)


def softplus(u: Number, tail: Number, down: Number, up: Number, constants: Constants) -> tuple[Number, Number]:
    """``down * log(1 + exp((u + tail) / down))`` as two words, within 6 u; `down` is a power of two.

    ``up = 1 / down``. |tail| is at most half a unit in the last place of u. The constants are those of `exp_constants`.
    """
    if isinstance(u, np.float32):
        return _softplus32(u, tail, down, up, constants)
    return _softplus64(u, tail, down, up, constants)


@compiles(softplus)
def _softplus(u: NumbaType, tail: NumbaType, down: NumbaType, up: NumbaType, constants: NumbaType) -> Chosen:
    if element(u) == types.float32:
        return lambda u, tail, down, up, constants: _softplus32(u, tail, down, up, constants)
    return lambda u, tail, down, up, constants: _softplus64(u, tail, down, up, constants)


# ------------------------------------------------------------------------------------------------ log, in two words


@formula
def _log_two_words32(x: Number) -> tuple[Number, Number]:
    y, _, _ = log_triple_word(np.float64(x), _ZERO64, _ZERO64)
    high = rounded32(y)
    return high, rounded32(y - np.float64(high))


@formula
def _log_two_words64(x: Number) -> tuple[Number, Number]:
    high, low, _ = log_triple_word(x, _ZERO64, _ZERO64)
    return high, low


def log_two_words(x: Number) -> tuple[Number, Number]:
    """``log(x)`` of a number from 1 on as two words, relatively within u**2; 0 of 1. A scalar."""
    return _log_two_words32(x) if isinstance(x, np.float32) else _log_two_words64(x)


@compiles(log_two_words)
def _log_two_words(x: NumbaType) -> Chosen:
    if x == types.float32:
        return lambda x: _log_two_words32(x)
    return lambda x: _log_two_words64(x)
