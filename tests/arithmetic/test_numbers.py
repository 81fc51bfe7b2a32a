"""The reference's numbers: right within the error that they state, and the error not overstated."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import ml_dtypes
import mpmath
import numpy as np
import pytest

from npselect import straight_through as st
from npselect._oracle.numbers import Digits, Wide

RNG = np.random.default_rng(11)
DTYPES = [np.dtype(name) for name in ("float16", ml_dtypes.bfloat16, "float32", "float64")]


def exact(number: Wide) -> list[Fraction]:
    """The values that the parts stand for."""
    hi, lo, exponent = np.broadcast_arrays(number.hi, number.lo, number.exponent)
    return [
        (Fraction(float(a)) + Fraction(float(b))) * Fraction(2) ** max(int(e), -100_000)
        for a, b, e in zip(hi.ravel(), lo.ravel(), exponent.ravel(), strict=True)
    ]


def stated(number: Wide) -> list[Fraction]:
    return [
        Fraction(float(e)) * Fraction(2) ** max(int(x), -100_000)
        for e, x in zip(number.error.ravel(), number.exponent.ravel(), strict=True)
    ]


def assert_within_stated_error(number: Wide, right: list[Fraction], relative: float | None) -> None:
    for value, error, true in zip(exact(number), stated(number), right, strict=True):
        assert abs(value - true) <= error
        if relative is not None and true != 0:
            assert error <= relative * abs(true)  # an error that is overstated would have every row done again


def floats(n: int, spread: float = 300.0) -> np.ndarray:
    return np.ldexp(RNG.uniform(-1, 1, n), RNG.integers(-spread, spread, n).astype(np.int32))


def wides(n: int, spread: float = 300.0) -> Wide:
    """Numbers of 106 bits."""
    a = floats(n, spread)
    return Wide.of(a) + Wide.of(a * RNG.uniform(-(2.0**-54), 2.0**-54, n))


def test_of_is_exact() -> None:
    values = np.concatenate([floats(100, 1000), [0.0, -0.0, 5e-324, -1.7e308]])
    number = Wide.of(values)
    assert exact(number) == [Fraction(float(value)) for value in values]
    assert not number.error.any()


def test_sums_and_products_of_floats_are_exact() -> None:
    a, b = floats(500, 1000), floats(500, 1000)
    b[:100] = -a[:100]
    b[100:200] = np.nextafter(-a[100:200], 0)
    for number, right in (
        (Wide.of(a) + Wide.of(b), [Fraction(float(x)) + Fraction(float(y)) for x, y in zip(a, b, strict=True)]),
        (Wide.of(a) * Wide.of(b), [Fraction(float(x)) * Fraction(float(y)) for x, y in zip(a, b, strict=True)]),
    ):
        for value, error, true in zip(exact(number), stated(number), right, strict=True):
            assert abs(value - true) <= error
            assert error == 0 or error <= abs(true) * Fraction(2) ** -880  # what is 900 bits below is given up


@pytest.mark.parametrize("operation", ["+", "-", "*", "/"])
def test_operations(operation: str) -> None:
    a, b = wides(1000, 40), wides(1000, 40)
    x, y = exact(a), exact(b)
    if operation == "+":
        number, right = a + b, [p + q for p, q in zip(x, y, strict=True)]
    elif operation == "-":
        near = Wide(a.hi, np.nextafter(a.lo, 1), a.error, a.exponent)  # cancels all but the last bits
        number, right = a - near, [p - q for p, q in zip(x, exact(near), strict=True)]
    elif operation == "*":
        number, right = a * b, [p * q for p, q in zip(x, y, strict=True)]
    else:
        number, right = a / b, [p / q for p, q in zip(x, y, strict=True)]
    assert_within_stated_error(number, right, None if operation in "+-" else 2.0**-100)


def test_errors_are_inherited() -> None:
    """Operands that are off by their whole error give a result that is off by no more than it states."""
    a, b = wides(500, 5), wides(500, 5)
    slack = 2.0**-60 * RNG.uniform(0.5, 1, 500)
    sign = RNG.choice([-1.0, 1.0], 500)
    vague_a, vague_b = a._replace(error=slack), b._replace(error=slack)
    x = [
        p + Fraction(float(s)) * Fraction(2) ** int(e)
        for p, s, e in zip(exact(a), slack * sign, a.exponent, strict=True)
    ]
    y = [p + Fraction(float(s)) * Fraction(2) ** int(e) for p, s, e in zip(exact(b), slack, b.exponent, strict=True)]
    for number, right in (
        (vague_a + vague_b, [p + q for p, q in zip(x, y, strict=True)]),
        (vague_a * vague_b, [p * q for p, q in zip(x, y, strict=True)]),
        (vague_a / vague_b, [p / q for p, q in zip(x, y, strict=True)]),
    ):
        assert_within_stated_error(number, right, None)


def test_sum() -> None:
    for n in (1, 2, 3, 7, 100):
        terms = Wide(*(part.reshape(20, n) for part in wides(20 * n, 30)))
        values = np.array(exact(terms), dtype=object).reshape(20, n)
        assert_within_stated_error(terms.sum(), [sum(row, Fraction(0)) for row in values], None)


def test_exp() -> None:
    x = -np.concatenate([RNG.exponential(1, 300), RNG.exponential(300, 300), [0.0, 1e-300, 1e-10, 1e5, 1.9e5]])
    number = Wide.of(x).exp()
    with mpmath.mp.workprec(400):
        parts = [mpmath.exp(mpmath.mpf(float(value))).man_exp for value in x]
    right = [Fraction(int(mantissa)) * Fraction(2) ** int(exponent) for mantissa, exponent in parts]
    hi, lo, exponent = number.hi, number.lo, number.exponent
    for a, b, error, e, true in zip(hi, lo, number.error, exponent, right, strict=True):
        scaled = true / Fraction(2) ** int(e)
        assert abs(Fraction(float(a)) + Fraction(float(b)) - scaled) <= Fraction(float(error)) + Fraction(2) ** -300
        assert error <= 2.0**-82
    assert Wide.of(-1e6).exp().hi == 0
    assert exact(Wide.of(np.zeros(1)).exp()) == [1]
    assert not Wide.of(np.zeros(1)).exp().error.any()


def test_sqrt() -> None:
    x = wides(500, 1000)
    x = Wide(np.abs(x.hi), np.where(x.hi < 0, -x.lo, x.lo), x.error, x.exponent)
    for number, error in ((x, 0.0), (x._replace(error=np.full(500, 2.0**-60)), 2.0**-60)):
        root = number.sqrt()
        off = Fraction(error) if error else Fraction(0)
        for value, stated_error, true, exponent in zip(exact(root), stated(root), exact(x), x.exponent, strict=True):
            for moved in (true - off * Fraction(2) ** int(exponent), true + off * Fraction(2) ** int(exponent)):
                assert (value - stated_error) ** 2 <= moved <= (value + stated_error) ** 2
            assert stated_error <= value * (Fraction(2) ** -100 + off * Fraction(11, 10))
    squares = Wide.of(np.array([1.0, 4.0, 2.0**-1074, 2.0**1022, 9.0])).sqrt()
    assert exact(squares) == [1, 2, Fraction(2) ** -537, Fraction(2) ** 511, 3]
    with Digits.precision(50):
        assert Digits.of([4.0, 2.25]).sqrt().values.tolist() == [2, Decimal("1.5")]


def wide_of(true: Fraction) -> tuple[Wide, Fraction]:
    """A number of 106 bits near `true`, of whatever size, and what it is exactly."""
    scale = 600 if abs(true) < 1 else -600
    scaled = true * Fraction(2) ** scale
    hi = float(scaled)
    lo = float(scaled - Fraction(hi))
    number = Wide.of(np.array([hi])) + Wide.of(np.array([lo]))
    return number._replace(exponent=number.exponent - scale), (Fraction(hi) + Fraction(lo)) / Fraction(2) ** scale


def decimal_of(true: Fraction) -> tuple[Digits, Fraction]:
    return Digits([Decimal(true.numerator) / Decimal(true.denominator)]), true


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("number_of", [wide_of, decimal_of])
def test_rounded(dtype: np.dtype, number_of: Callable[[Fraction], tuple[Wide | Digits, Fraction]]) -> None:
    """Once, to the nearest, ties to even: at, between and beside neighbouring numbers, normal and subnormal."""
    info = ml_dtypes.finfo(dtype)
    tiny, least = float(info.tiny), float(info.smallest_subnormal)
    bits = np.dtype(f"u{dtype.itemsize}")
    some = np.concatenate([RNG.standard_normal(150), RNG.uniform(0, 3, 60) * tiny, [tiny, least, 1.0, 0.0]])
    with np.errstate(under="ignore"):
        lower = some.astype(dtype)
    patterns = lower.view(bits)
    upper = (patterns + np.ones(1, bits)).view(dtype)  # the next one away from zero
    with Digits.precision(2000):
        for pattern, low, high in zip(patterns, lower.astype(np.float64), upper.astype(np.float64), strict=True):
            start = Fraction(float(low))
            gap = Fraction(float(high)) - start
            for offset in (Fraction(1, 10), Fraction(1, 4), Fraction(1, 2), Fraction(3, 4)):
                for nudge in (Fraction(0), Fraction(1, 2**40), -Fraction(1, 2**40)):
                    value, true = number_of(start + gap * (offset + nudge))
                    position = (true - start) / gap
                    up = position > Fraction(1, 2) or (position == Fraction(1, 2) and pattern % 2 == 1)
                    (result,), (certain,) = value.rounded(dtype)
                    assert certain
                    assert result == (high if up else low), (low, high, offset, nudge)


@pytest.mark.parametrize(("dtype", "precision"), list(zip(DTYPES, (11, 8, 24, 53), strict=True)), ids=str)
@pytest.mark.parametrize("number_of", [wide_of, decimal_of])
def test_rounded_beyond_the_largest_number(
    dtype: np.dtype, precision: int, number_of: Callable[[Fraction], tuple[Wide | Digits, Fraction]]
) -> None:
    top = Fraction(float(ml_dtypes.finfo(dtype).max))
    half_a_place = Fraction(2) ** (top.numerator.bit_length() - precision - 1)
    with Digits.precision(2000), np.errstate(over="ignore"):
        for sign in (1, -1):
            for distance, expected in ((Fraction(3, 4), float(top)), (Fraction(1), np.inf)):
                number, _ = number_of(sign * (top + half_a_place * distance))
                result, _ = number.rounded(dtype)
                assert result.astype(dtype).astype(np.float64) == sign * expected


def test_doubtful_results_are_found_out() -> None:
    value = Wide.of(np.array([1.0, 1.0]))._replace(error=np.array([2.0**-80, 2.0**-30]))
    _, certain = value.rounded(np.float64)
    assert certain.tolist() == [True, False]
    _, certain = value.rounded(np.float32)
    assert certain.tolist() == [True, False]
    _, certain = value.rounded(np.float16)
    assert certain.tolist() == [True, True]


def test_rows_that_cancel_are_done_again() -> None:
    """A regression: with 106 bits alone, entry 1 was wrong by 1109 units in the last place."""
    w = [0.10302313848680769, -0.8649727462818201, 0.8957830431894438]
    g = [-0.8723830716951919, 0.013552469457774254, 0.24991757985122218]
    with mpmath.mp.workprec(400):
        e = [mpmath.exp((mpmath.mpf(x) - max(w)) / mpmath.mpf(0.6)) for x in w]
        p = [x / mpmath.fsum(e) for x in e]
        mean = mpmath.fsum(a * mpmath.mpf(b) for a, b in zip(p, g, strict=True))
        expected = [float(a * (mpmath.mpf(b) - mean) / mpmath.mpf(0.6)) for a, b in zip(p, g, strict=True)]
    assert st.backward(g, w, 0.6, backend="reference").tolist() == expected
    assert abs(expected[1]) < 1e-21


def test_an_exact_zero_ends_the_search_for_digits() -> None:
    """The mean of three equal logits is the middle one's cotangent exactly; so is the total of two opposite rows."""
    w = np.array([[0.3, 0.3, 0.3, -0.1, -0.1]])
    g = np.array([[0.0, 2.0, 1.0, 1.5, 0.5]])
    assert st.backward(g, w, 0.7, backend="reference")[0, 2] == 0
    w = np.array([[0.1, 0.7, -0.4]] * 2)
    g = np.array([[0.3, -0.2, 0.9]])
    assert st.backward_temp(np.concatenate([g, -g]), w, 0.7, backend="reference") == 0


def test_what_cancels_and_its_quotients_are_known_to_be_uncertain() -> None:
    """0, give or take 2**-107: nothing is known of it, and a small divisor must not hide that."""
    almost = Wide.of(np.array([1.0]))._replace(error=np.array([2.0**-108]))
    nothing = almost - Wide.of(np.array([1.0]))
    assert exact(nothing) == [0]
    assert not nothing.rounded("float64")[1].any()
    for small in (2.0**-113, 1.0, 2.0**900):
        quotient = nothing / Wide.of(np.array([small]))
        assert_within_stated_error(quotient, [-(Fraction(2) ** -107) / Fraction(small)], None)
        assert not quotient.rounded("float64")[1].any()
    assert (nothing / Wide.of(np.array([2.0**1000]))).rounded("float32")[1].all()  # where 0 is right


def test_exp_inherits_the_error() -> None:
    """Of arguments that are off by their whole error; what is off by more than a quarter is not known at all."""
    x = Wide.of(np.concatenate([-RNG.exponential(20, 200), RNG.uniform(-0.4, 0.4, 200), [0.0, -1e-300]]))
    off = np.resize([2.0**-60, 2.0**-90, 0.2], 402)
    vague = x + Wide(np.zeros(402), np.zeros(402), off, np.zeros(402, np.int64))
    number = vague.exp()
    with mpmath.mp.workprec(400):
        for value, error, middle, by in zip(exact(number), stated(number), exact(vague), stated(vague), strict=True):
            for true in (middle - by, middle + by):
                power = mpmath.exp(mpmath.mpf(true.numerator) / true.denominator)
                apart = abs(mpmath.mpf(value.numerator) / value.denominator - power)
                assert apart <= mpmath.mpf(error.numerator) / error.denominator
    far = Wide.of(np.full(1, -3.0))._replace(error=np.full(1, 0.3))
    assert far.exp().error[0] > 2.0**900


def test_what_is_subnormal_or_as_large_as_may_be_is_taken_apart_alike() -> None:
    """By another way, which all of the array goes."""
    values = np.concatenate([floats(50, 1000), [0.0, 1.0]])
    for odd in (5e-324, 1.7e308):
        number, beside = Wide.of(values), Wide.of(np.append(values, odd))
        for part, other in zip(number, beside, strict=True):
            np.testing.assert_array_equal(part, other[:-1])
