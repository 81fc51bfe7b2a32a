"""``exp((logit - top) / temp)``, written once for every target: the same operations, hence the same bits, everywhere.

No library function is called: `exp` is written out over `npselect._arithmetic.primitives`, and so are the logarithms in
`npselect._arithmetic.logarithm`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import types

from npselect._arithmetic.aliases import Bits, Chosen, Constants, Flag, NumbaType, Number
from npselect._arithmetic.primitives import (
    bits_of,
    compiles,
    element,
    float32_of,
    float64_of,
    fma,
    formula,
    select,
    two_sum,
)

__all__ = [
    "Temperature",
    "divided",
    "divided_difference",
    "exp",
    "exp_constants",
    "exp_normal",
    "exp_sooner",
    "is_near",
    "near_difference",
    "prepared",
]

# ------------------------------------------------------------------------------------------------ exp

# exp(t + tail) = 2**n exp(r), n = round(t / ln 2), r = t + tail - n ln 2 (Cody and Waite 1980; ln 2 in two parts), and
# exp(r) = 1 + (r + r**2 q(r)), q the minimax polynomial for |r| <= ln(2) / 2. Its error, relative to exp(r), is below
# 8e-9 for float32 (0.13 units of 2**-24) and 2e-17 for float64 (0.12 units of 2**-53). r = exact + rest: the first part
# carries no rounding error, so only the two last sums and the polynomial count, and the result stays within 1 ULP.
# 2**n is applied in two halves, each a normal number, so that a subnormal result is rounded once, by the last product.
# n comes from adding 1.5 * 2**(p - 1), whose last place is 1; of the sum's bits, only low ones that are n's stay when
# they are shifted to the exponent's place.

_LOWEST32, _LOWEST64 = np.float32(-104.0), np.float64(-745.25)  # exp is below half the smallest subnormal
_NEAR = -87  # from here on, exp is a normal number in either type
_PER_LN2_32, _PER_LN2_64 = np.float32(1.4426950408889634), np.float64(1.4426950408889634)
_ROUND32, _ROUND64 = np.float32(1.5 * 2.0**23), np.float64(1.5 * 2.0**52)
_LN2_HIGH32, _LN2_LOW32 = np.float32(float.fromhex("0x1.62e43p-1")), np.float32(float.fromhex("-0x1.05c61p-29"))
_LN2_HIGH64 = np.float64(float.fromhex("0x1.62e42fefa39efp-1"))
_LN2_LOW64 = np.float64(float.fromhex("0x1.abc9e3b39803fp-56"))
_ZERO32, _ONE32, _ZERO64, _ONE64 = np.float32(0.0), np.float32(1.0), np.float64(0.0), np.float64(1.0)

_Q32 = tuple(
    np.float32(float.fromhex(digits))
    for digits in ("0x1p-1", "0x1.5554dcp-3", "0x1.55551ap-5", "0x1.120b6ep-7", "0x1.6d110ap-10")
)
_Q64 = tuple(
    np.float64(float.fromhex(digits))
    for digits in (
        "0x1.0000000000001p-1",
        "0x1.5555555555556p-3",
        "0x1.5555555553d63p-5",
        "0x1.11111111109b3p-7",
        "0x1.6c16c1788bd90p-10",
        "0x1.a01a01a7c41d5p-13",
        "0x1.a019b90d2ae7ap-16",
        "0x1.71de0dae63bb3p-19",
        "0x1.289185613a3d6p-22",
        "0x1.af38a9b0ec855p-26",
    )
)
_CONSTANTS32 = (_PER_LN2_32, _ROUND32, _LN2_HIGH32, _LN2_LOW32, _ONE32, *_Q32)
_CONSTANTS64 = (_PER_LN2_64, _ROUND64, _LN2_HIGH64, _LN2_LOW64, _ONE64, *_Q64)


@formula
def _power32(t: Number, tail: Number, c: Constants) -> tuple[Number, Bits]:
    """exp(r), and a number whose low bits are n's."""
    per_ln2, round_, ln2_high, ln2_low, one, q0, q1, q2, q3, q4 = c
    shifted = fma(t, per_ln2, round_)
    n = shifted - round_
    exact, rest = fma(-n, ln2_high, t), fma(-n, ln2_low, tail)
    r = exact + rest
    q = fma(fma(fma(fma(q4, r, q3), r, q2), r, q1), r, q0)
    return one + (exact + fma(r * r, q, rest)), bits_of(shifted)


@formula
def _power64(t: Number, tail: Number, c: Constants) -> tuple[Number, Bits]:
    per_ln2, round_, ln2_high, ln2_low, one, q0, q1, q2, q3, q4, q5, q6, q7, q8, q9 = c
    shifted = fma(t, per_ln2, round_)
    n = shifted - round_
    exact, rest = fma(-n, ln2_high, t), fma(-n, ln2_low, tail)
    r = exact + rest
    q = fma(fma(fma(fma(fma(q9, r, q8), r, q7), r, q6), r, q5), r, q4)
    q = fma(fma(fma(fma(q, r, q3), r, q2), r, q1), r, q0)
    return one + (exact + fma(r * r, q, rest)), bits_of(shifted)


@formula
def _exp32(t: Number, tail: Number) -> Number:
    power, exponent = _power32(t, tail, _CONSTANTS32)
    half = exponent >> 1
    result = power * float32_of((half + 127) << 23) * float32_of((exponent - half + 127) << 23)
    return select(t >= _LOWEST32, result, _ZERO32)


@formula
def _exp64(t: Number, tail: Number) -> Number:
    power, exponent = _power64(t, tail, _CONSTANTS64)
    half = exponent >> 1
    result = power * float64_of((half + 1023) << 52) * float64_of((exponent - half + 1023) << 52)
    return select(t >= _LOWEST64, result, _ZERO64)


@formula
def _exp_normal32(t: Number, tail: Number, constants: Constants) -> Number:
    power, exponent = _power32(t, tail, constants)
    return float32_of(bits_of(power) + (exponent << 23))


@formula
def _exp_normal64(t: Number, tail: Number, constants: Constants) -> Number:
    power, exponent = _power64(t, tail, constants)
    return float64_of(bits_of(power) + (exponent << 52))


def exp(t: Number, tail: Number) -> Number:
    """``exp(t + tail)`` for t <= 0 and |tail| <= 2 ulp(t); within 1 ULP; 0 for t = -inf, whatever the tail."""
    return _exp32(t, tail) if isinstance(t, np.float32) else _exp64(t, tail)


@compiles(exp)
def _exp(t: NumbaType, tail: NumbaType) -> Chosen:
    if element(t) == types.float32:
        return lambda t, tail: _exp32(t, tail)
    return lambda t, tail: _exp64(t, tail)


def exp_normal(t: Number, tail: Number, constants: Constants) -> Number:
    """The bits of ``exp(t, tail)`` where that is a normal number: n is added to the exponent. For t in [-87, 0].

    The constants are those of `exp_constants`, for the type of t.
    """
    return _exp_normal32(t, tail, constants) if isinstance(t, np.float32) else _exp_normal64(t, tail, constants)


@compiles(exp_normal)
def _exp_normal(t: NumbaType, tail: NumbaType, constants: NumbaType) -> Chosen:
    if element(t) == types.float32:
        return lambda t, tail, constants: _exp_normal32(t, tail, constants)
    return lambda t, tail, constants: _exp_normal64(t, tail, constants)


# With n, a power of two is added to the exponent, so that the number is normal. A product takes it out again: exactly,
# or it rounds a subnormal result once, as the last product of `exp` does.

_LIFT32, _LIFT64, _UNLIFT32, _UNLIFT64 = 24 << 23, 54 << 52, np.float32(2.0**-24), np.float64(2.0**-54)


@formula
def _exp_sooner32(t: Number, tail: Number, constants: Constants) -> Number:
    power, exponent = _power32(t, tail, constants)
    result = float32_of((bits_of(power) + _LIFT32) + (exponent << 23)) * _UNLIFT32
    return select(t >= _LOWEST32, result, _ZERO32)


@formula
def _exp_sooner64(t: Number, tail: Number, constants: Constants) -> Number:
    power, exponent = _power64(t, tail, constants)
    result = float64_of((bits_of(power) + _LIFT64) + (exponent << 52)) * _UNLIFT64
    return select(t >= _LOWEST64, result, _ZERO64)


def exp_sooner(t: Number, tail: Number, constants: Constants) -> Number:
    """The bits of ``exp(t, tail)``, with fewer operations; 0 for NaN. The constants are those of `exp_constants`."""
    return _exp_sooner32(t, tail, constants) if isinstance(t, np.float32) else _exp_sooner64(t, tail, constants)


@compiles(exp_sooner)
def _exp_sooner(t: NumbaType, tail: NumbaType, constants: NumbaType) -> Chosen:
    if element(t) == types.float32:
        return lambda t, tail, constants: _exp_sooner32(t, tail, constants)
    return lambda t, tail, constants: _exp_sooner64(t, tail, constants)


@formula
def _plus32(z: Number) -> Constants:
    a, b, c, d, e, f, g, h, i, j = _CONSTANTS32
    return a + z, b + z, c + z, d + z, e + z, f + z, g + z, h + z, i + z, j + z


@formula
def _plus64(z: Number) -> Constants:
    a, b, c, d, e, f, g, h, i, j, k, m, n, o, p = _CONSTANTS64
    return (
        *(a + z, b + z, c + z, d + z, e + z, f + z, g + z, h + z),
        *(i + z, j + z, k + z, m + z, n + z, o + z, p + z),
    )


def exp_constants(zero: Number) -> Constants:
    """The constants of `exp_normal`, as numbers that the compiler does not know to be constants: ``c + zero``.

    They are kept on the stack, from where an instruction takes its operand. There are not enough registers for them as
    constants: each would be loaded in every iteration of a loop, and its address before it.
    """
    return _plus32(zero) if isinstance(zero, np.float32) else _plus64(zero)


@compiles(exp_constants)
def _exp_constants(zero: NumbaType) -> Chosen:
    if element(zero) == types.float32:
        return lambda zero: _plus32(zero)
    return lambda zero: _plus64(zero)


# ------------------------------------------------------------------------------------------------ z / temp

# 1 / temp is kept as (reciprocal_hi + reciprocal_lo) * scale: two numbers of the compute type, and a power of two that
# keeps the reciprocal of a temperature near the ends of the range from overflowing or losing bits. A huge temperature
# shrinks the logits before they are subtracted (their difference might overflow), a tiny one enlarges the difference.


class Temperature(NamedTuple):
    """A row's temperature, ready to divide by; numbers, or SIMD vectors with one for each of sixteen rows."""

    scaled: Number  # temp * scale
    scale: Number  # a power of two: prescale * postscale
    prescale: Number  # what logits are multiplied with
    postscale: Number  # what their difference is multiplied with
    reciprocal_hi: Number  # 1 / scaled to twice the precision
    reciprocal_lo: Number
    zero: Number


_UP32, _DOWN32 = np.float32(2.0**64), np.float32(2.0**-64)
_UP64, _DOWN64 = np.float64(2.0**512), np.float64(2.0**-512)


@formula
def _prepared(temp: Number, up: Number, down: Number, one: Number) -> Temperature:
    prescale = select(temp >= up, down, one)
    postscale = select(temp < down, up, one)
    scale = prescale * postscale
    scaled = temp * scale
    reciprocal_hi = one / scaled
    reciprocal_lo = reciprocal_hi * fma(-reciprocal_hi, scaled, one)
    return Temperature(scaled, scale, prescale, postscale, reciprocal_hi, reciprocal_lo, temp - temp)


def prepared(temp: Number) -> Temperature:
    """The `Temperature` of a positive, finite float32 or float64."""
    if isinstance(temp, np.float32):
        return _prepared(temp, _UP32, _DOWN32, _ONE32)
    return _prepared(temp, _UP64, _DOWN64, _ONE64)


@compiles(prepared)
def _prepared_(temp: NumbaType) -> Chosen:
    if element(temp) == types.float32:
        return lambda temp: _prepared(temp, _UP32, _DOWN32, _ONE32)
    return lambda temp: _prepared(temp, _UP64, _DOWN64, _ONE64)


@formula
def divided_difference(logit: Number, top: Number, temp: Temperature) -> tuple[Number, Number]:
    """``t + tail = (logit - top) / temp`` to twice the precision, so that exp(t) does not feel the size of t.

    The difference by `two_sum`, the quotient by the two-part reciprocal of the `Temperature`.
    """
    a, b = fma(logit, temp.prescale, temp.zero), fma(top, temp.prescale, temp.zero)  # products that meet sums
    z, z_tail = two_sum(a, -b)
    return divided(z, z_tail, temp)


@formula
def divided(z: Number, z_tail: Number, temp: Temperature) -> tuple[Number, Number]:
    """``t + tail = (z + z_tail) / temp`` likewise, of numbers that were multiplied with the temperature's prescale."""
    return _divided(z * temp.postscale, z_tail * temp.postscale, temp)


@formula
def _divided(z: Number, z_tail: Number, temp: Temperature) -> tuple[Number, Number]:
    t = z * temp.reciprocal_hi
    return t, fma(z, temp.reciprocal_hi, -t) + fma(z, temp.reciprocal_lo, z_tail * temp.reciprocal_hi)


# Most rows need neither power of two, and have no weight that is subnormal, or 0: no entry is excluded, that is -inf.
# For such a row, and for a tile of such rows, there is a fast path to the same bits.


@formula
def is_near(least: Number, top: Number, temp: Temperature) -> Flag:
    """Whether `near_difference` and `exp_normal` serve for all logits from `least` to `top`."""
    return (temp.scale == 1) & ((least - top) * temp.reciprocal_hi >= _NEAR)


@formula
def near_difference(logit: Number, top: Number, temp: Temperature) -> tuple[Number, Number]:
    """The bits of `divided_difference`, but for the sign of a zero t, where the temperature's scale is 1."""
    z, z_tail = two_sum(logit, -top)
    return _divided(z, z_tail, temp)
