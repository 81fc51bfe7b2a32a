"""The reference's two kinds of numbers: `Wide`, fast and aware of its own error, and `Digits`, as exact as one asks.

Both are arrays with what the formulas of `npselect.reference` need: ``of``, +, -, *, /, ``sum``, ``exp``, ``log``,
``log1p``, ``sqrt``, ``least``, ``is_positive``, ``is_doubtful``, ``replace``, ``where`` and ``rounded``. `Wide` says
which of its results are certain; what is not is computed again with `Digits`, with more and more of them until nothing
changes. That is Ziv's strategy: A. Ziv, "Fast evaluation of elementary mathematical functions with correctly rounded
last bit", ACM TOMS 17, 1991. Nothing here is shared with the kernels.
"""

from __future__ import annotations

import decimal
from contextlib import AbstractContextManager
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from npselect._oracle.pairs import exponential_series, exponents, plus, powers, quotient, times, two_prod, two_sum

__all__ = ["Digits", "Wide"]

Array = npt.NDArray[Any]

_FORMATS = {"float16": (11, -14), "bfloat16": (8, -126), "float32": (24, -126), "float64": (53, -1022)}
_VANISHES = -200_000.0  # no factor in the formulas can lift exp(-200000) back into the range of float64


class Wide(NamedTuple):
    """Numbers ``(hi + lo) 2**exponent`` of 106 bits, off by at most ``error 2**exponent``; no overflow, no underflow.

    ``hi`` is 0 or of magnitude [1/2, 1), ``lo`` what is left, at most half a unit in the last place of ``hi``. Sums and
    products are the classical error-free transformations (Dekker 1971; Knuth, TAOCP 4.2.2); the relative errors of the
    compound operations, at most 2**-102, are those of M. Joldes, J.-M. Muller and V. Popescu, "Tight and rigorous error
    bounds for basic building blocks of double-word arithmetic", ACM TOMS 44, 2017, rounded up.
    """

    hi: Array
    lo: Array
    error: Array
    exponent: Array

    @classmethod
    def of(cls, values: npt.ArrayLike) -> Wide:
        """Exactly the given float64 values."""
        values = np.asarray(values, dtype=np.float64)
        return cls._normal(values, np.zeros_like(values), np.zeros_like(values), np.int64(0))

    @classmethod
    def _normal(cls, hi: Array, lo: Array, error: Array, exponent: Array | np.int64) -> Wide:
        """Renormalised; |lo| <= |hi| is assumed. What is 0 but for its error has the exponent of that."""
        total = hi + lo
        lo = lo - (total - hi)
        is_zero = total == 0.0
        some = bool(is_zero.any())
        shift = exponents(np.where(is_zero, error, total) if some else total)
        if shift is None:
            mantissa, shift = np.frexp(total)
            shift = np.where(is_zero, np.frexp(error)[1], shift)
            lo, error = np.ldexp(lo, -shift), np.ldexp(error, -shift)
        else:
            scale = powers(-shift)
            mantissa, lo, error = total * scale, lo * scale, error * scale
        exponent = exponent + shift
        if some:
            exponent = np.where(is_zero & (error == 0.0), _EXPONENT_OF_ZERO, exponent)
        return cls(mantissa, lo, error, exponent)

    def _aligned(self, exponent: Array) -> tuple[Array, Array, Array]:
        """Both parts and the error in units of ``2**exponent``; what is some 900 bits below counts as error."""
        shift = np.maximum(self.exponent - exponent, -1023)
        scale = powers(shift)
        hi, lo, error = self.hi * scale, self.lo * scale, self.error * scale
        if np.min(shift, initial=0) < -900:
            error = error + np.where((shift < -900) & (self.hi != 0.0), 2.0**-890, 0.0)
        return hi, lo, error

    def __neg__(self) -> Wide:
        return self._replace(hi=-self.hi, lo=-self.lo)

    def __add__(self, other: Wide) -> Wide:  # type: ignore[override]
        exponent = np.maximum(self.exponent, other.exponent)
        (a, a_lo, a_error), (b, b_lo, b_error) = self._aligned(exponent), other._aligned(exponent)
        s, s_lo = two_sum(a, b)
        t, t_lo = two_sum(a_lo, b_lo)
        s, s_lo = two_sum(s, s_lo + t)
        return Wide._normal(s, s_lo + t_lo, a_error + b_error + _roundings(s, self, other), exponent)

    def __sub__(self, other: Wide) -> Wide:
        return self + -other

    def __mul__(self, other: Wide) -> Wide:  # type: ignore[override]
        p, p_lo = two_prod(self.hi, other.hi)
        p_lo = p_lo + (self.hi * other.lo + self.lo * other.hi)
        error = np.abs(self.hi) * other.error + (np.abs(other.hi) + other.error) * self.error
        return Wide._normal(p, p_lo, 1.01 * error + _roundings(p, self, other), self.exponent + other.exponent)

    def __truediv__(self, other: Wide) -> Wide:
        """Long division: three quotient digits of 53 bits each; `other` is far from 0 in units of its error."""
        digits, more = quotient((self.hi, self.lo), (other.hi, other.lo))
        inherited = 1.01 * (self.error + np.abs(digits) * other.error) / np.abs(other.hi)
        return Wide._normal(digits, more, inherited + np.abs(digits) * _OPERATION, self.exponent - other.exponent)

    def sum(self) -> Wide:
        """Sum over the last axis, which stays with length 1; in pairs, so that the error grows with log K."""
        terms = self
        while (n := terms.hi.shape[-1]) > 1:
            pairs = Wide(*(part[..., : n // 2] for part in terms)) + Wide(*(part[..., n - n // 2 :] for part in terms))
            odd = [part[..., n // 2 : n - n // 2] for part in terms]  # the middle one, if n is odd
            terms = Wide(*(np.concatenate(both, axis=-1) for both in zip(pairs, odd, strict=True)))
        return terms

    def exp(self) -> Wide:
        """``exp(x) = 2**n exp(r)``, ``n = round(x / ln 2)``; exp(r) from exp(r / 512) by nine squarings.

        The squarings work on ``y = exp - 1``, as ``2 y + y**2``, which keeps them from losing bits. The Taylor series
        of ``y`` stops after ten terms: ``(ln 2 / 1024)**11 / 11!`` is below 2**-140.

        All of this is near 1 and needs no exponents: pairs of float64 will do. With u = 2**-53, a product of two pairs
        is off by 7 u**2 of itself and a sum by 3 u**2 (Joldes, Muller and Popescu, as above). So is the series, as its
        later terms count little, by 11 u**2. A squaring adds at most 4.3 u**2, and lets what there was grow by
        ``1 + |y| / 2``: nine, by less than 1.25. That makes 63 u**2 of ``|y| < 0.42`` and, with the last sum, less than
        31 u**2 or 2**-101 in a power of 0.7 to 1.42. An r that is off by d <= 1/4 leaves the power off by 2 d at most.
        """
        value = np.ldexp(self.hi, np.clip(self.exponent, -100, 100).astype(np.int32))
        vanishes = value < _VANISHES
        n = np.rint(np.where(vanishes, 0.0, value) / np.log(2.0))
        r = self.replace(vanishes, 0.0) - Wide.of(n) * _LN2
        scale = powers(np.clip(r.exponent, -900, 100))
        x = r.hi * scale * 2.0**-9, r.lo * scale * 2.0**-9
        y = times(x, exponential_series(x))
        for _ in range(9):
            y = plus((2.0 * y[0], 2.0 * y[1]), times(y, y))
        power, lo = plus((np.ones_like(value), np.zeros_like(value)), y)
        off = r.error * scale
        error = np.where(r.hi == 0.0, 0.0, 2.0**-100) + np.where(off <= 0.25, 2.0 * off, 2.0**1000)
        return Wide._normal(power, lo, error, n.astype(np.int64)).replace(vanishes, 0.0)

    def log(self) -> Wide:
        """``log(x) = y + log(1 + d)``, ``d = x exp(-y) - 1``, for x > 0 and a float64 y near its logarithm.

        ``|d|`` is below 2**-40, so that of ``log(1 + d)`` three terms will do: the next is below 2**-160.
        """
        y = np.log(self.hi) + self.exponent * np.log(2.0)
        d = self * Wide.of(-y).exp() - Wide.of(1.0)
        return Wide.of(y) + d * (Wide.of(1.0) + d * (Wide.of(-0.5) + d * _THIRD))

    def sqrt(self) -> Wide:
        """``sqrt(x) = y + (x - y**2) / (2 y)``, for x > 0 and a float64 y near its root: one step of Newton's.

        With y off by d of itself, the step leaves ``d**2 / 2``, which is below 2**-104.
        """
        odd = self.exponent & 1
        y = Wide.of(np.sqrt(np.ldexp(self.hi, odd.astype(np.int32))))
        y = y._replace(exponent=y.exponent + (self.exponent - odd) // 2)
        root = y + (self - y * y) / (y + y)
        return root._replace(error=root.error + np.abs(root.hi) * 2.0**-104)

    def is_doubtful(self, beside: Wide) -> Array:  # noqa: ARG002 Digits look at it
        """Where the error is so large that these numbers must not be divided by."""
        return np.asarray(np.abs(self.hi) <= self.error * 2.0**20)

    def least(self, other: Wide) -> Wide:
        """The smaller of two; where their errors leave that open, the difference is part of the error."""
        difference = self - other
        smaller = self.where(difference.hi < 0.0, other)
        apart = np.abs(difference.hi)
        certain = apart > difference.error  # which no NaN is
        doubt, zero = np.where(certain, 0.0, apart + difference.error), np.zeros_like(apart)
        return smaller + Wide(zero, zero, doubt, np.where(doubt == 0.0, _EXPONENT_OF_ZERO, difference.exponent))

    def log1p(self) -> Wide:
        """``log(1 + x)`` for x >= 0; of small x by four terms of the series, whose rest is below 2**-160 of it."""
        small = np.ldexp(self.hi, np.maximum(self.exponent, -2000).astype(np.int32)) < 2.0**-40
        series = self * (Wide.of(1.0) - self * (Wide.of(0.5) - self * (_THIRD - self * Wide.of(0.25))))
        return series.where(small, (Wide.of(1.0) + self.replace(small, 0.0)).log())

    def replace(self, condition: Array, value: float) -> Wide:
        """A copy that holds `value` wherever `condition` is true."""
        return Wide.of(value).where(condition, self)

    def where(self, condition: Array, other: Wide) -> Wide:
        """These wherever `condition` is true, the others elsewhere."""
        return Wide(*(np.where(condition, one, two) for one, two in zip(self, other, strict=True)))

    def is_positive(self) -> Array:
        """Whether a number is above 0, as far as its error lets one say."""
        return self.hi > 0.0

    def rounded(self, dtype: npt.DTypeLike) -> tuple[Array, Array]:
        """The nearest numbers of `dtype`, ties to even, as float64, and which of them are certain.

        Rounded once, subnormals included. Certain means that the error is below a thousandth of the last place.
        """
        precision, lowest = _FORMATS[np.dtype(dtype).name]
        unit = np.maximum(self.exponent, lowest + 1) - precision  # exponent of the last place
        shift = np.clip(self.exponent - unit, -2000, 2000).astype(np.int32)
        places = np.ldexp(self.hi, shift)
        below = np.floor(places)
        broken_tie = (places - below == 0.5) & (self.lo != 0.0)
        nearest = np.where(broken_tie, below + (self.lo > 0.0), np.rint(places))
        with np.errstate(over="ignore"):
            result = np.ldexp(nearest, np.clip(unit, -3000, 3000).astype(np.int32))
            return np.asarray(result), np.ldexp(self.error, shift) <= 2.0**-10


class Digits:
    """Decimal numbers with as many digits as the decimal context has."""

    def __init__(self, values: object) -> None:
        self.values = np.asarray(values, dtype=object)

    @classmethod
    def of(cls, values: npt.ArrayLike) -> Digits:
        """Exactly the given float64 values."""
        return cls(np.frompyfunc(Decimal, 1, 1)(np.asarray(values, np.float64)))

    def __neg__(self) -> Digits:
        return Digits(-self.values)

    def __add__(self, other: Digits) -> Digits:
        return Digits(self.values + other.values)

    def __sub__(self, other: Digits) -> Digits:
        return Digits(self.values - other.values)

    def __mul__(self, other: Digits) -> Digits:
        return Digits(self.values * other.values)

    def __truediv__(self, other: Digits) -> Digits:
        return Digits(self.values / other.values)

    def sum(self) -> Digits:
        """Sum over the last axis, which stays with length 1."""
        return Digits(np.sum(self.values, axis=-1, keepdims=True))

    def exp(self) -> Digits:
        """Correctly rounded by the decimal module; 0 where `Wide.exp` has 0."""
        return Digits(np.frompyfunc(lambda x: x.exp() if x >= _VANISHES else Decimal(0), 1, 1)(self.values))

    def log(self) -> Digits:
        """Of positive numbers, correctly rounded by the decimal module."""
        return Digits(np.frompyfunc(lambda x: x.ln(), 1, 1)(self.values))

    def sqrt(self) -> Digits:
        """Of positive numbers, correctly rounded by the decimal module."""
        return Digits(np.frompyfunc(lambda x: x.sqrt(), 1, 1)(self.values))

    def is_doubtful(self, beside: Digits) -> Array:
        """Where less than half the digits are left of a sum of numbers as large as `beside`."""
        least = Decimal(10) ** -(decimal.getcontext().prec // 2)
        return np.asarray(np.abs(self.values) <= np.abs(beside.values) * least, np.bool_)

    def least(self, other: Digits) -> Digits:
        """The smaller of two."""
        return self.where(self.values < other.values, other)

    def log1p(self) -> Digits:
        """``log(1 + x)`` for x >= 0, with all digits: by the series where x is small, else by more of them."""

        def log1p(x: Decimal) -> Decimal:
            digits = decimal.getcontext().prec
            if x < Decimal(10) ** -(digits // 3 + 1):
                return x * (1 - x * (Decimal(1) / 2 - x * (Decimal(1) / 3 - x / 4)))
            with Digits.precision(digits + digits // 3 + 5):
                result = (1 + x).ln()
            return +result

        return Digits(np.frompyfunc(log1p, 1, 1)(self.values))

    def replace(self, condition: Array, value: float) -> Digits:
        """A copy that holds `value` wherever `condition` is true."""
        return Digits.of(value).where(condition, self)

    def where(self, condition: Array, other: Digits) -> Digits:
        """These wherever `condition` is true, the others elsewhere."""
        return Digits(np.where(condition, self.values, other.values))

    def is_positive(self) -> Array:
        """Whether a number is above 0."""
        return np.asarray(self.values > 0, np.bool_)

    def rounded(self, dtype: npt.DTypeLike) -> tuple[Array, Array]:
        """The nearest numbers of `dtype`, ties to even, as float64; all of them as certain as the digits are many.

        NaN stays NaN, which equals nothing: the digits were too few (`is_doubtful`).
        """
        precision, lowest = _FORMATS[np.dtype(dtype).name]

        def nearest(x: Decimal) -> float:
            if not x.is_finite():
                return float("nan")
            if abs(x) < Decimal(2) ** -1200 or not x:
                return 0.0
            exact = Fraction(x)
            exponent = abs(exact.numerator).bit_length() - exact.denominator.bit_length()
            exponent += abs(exact) >= Fraction(2) ** exponent  # now 2**(exponent - 1) <= |x| < 2**exponent
            unit = Fraction(2) ** (max(exponent, lowest + 1) - precision)
            try:
                return float(round(exact / unit) * unit)
            except OverflowError:
                return float("inf") if x > 0 else float("-inf")

        result = np.frompyfunc(nearest, 1, 1)(self.values)
        return np.asarray(result, np.float64), np.ones(self.values.shape, np.bool_)

    @staticmethod
    def precision(digits: int) -> AbstractContextManager[decimal.Context]:
        """A context manager in which numbers have so many digits."""
        context = decimal.Context(prec=digits, Emin=decimal.MIN_EMIN, Emax=decimal.MAX_EMAX, traps=[])
        return decimal.localcontext(context)


# ------------------------------------------------------------------------------------------------ details of Wide

_EXPONENT_OF_ZERO = -(2**40)
_OPERATION = 2.0**-102


def _roundings(result: Array, a: Wide, b: Wide) -> Array:
    """The error of one operation: none if two float64 are added or multiplied."""
    return np.where((a.lo == 0.0) & (b.lo == 0.0), 0.0, np.abs(result) * _OPERATION)


def _constant(exact: Fraction) -> Wide:
    hi = float(exact)
    lo = float(exact - Fraction(hi))
    return Wide._normal(np.asarray(hi), np.asarray(lo), np.asarray(hi * 2.0**-105), np.int64(0))


_LN2 = _constant(Fraction(int("B17217F7D1CF79ABC9E3B39803F2F6AF40F343267298B62D", 16), 2**192))
_THIRD = _constant(Fraction(1, 3))
