"""The scalar formulas of the kernels: right, and the same bits compiled as run in Python."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import exact
import mpmath
import numpy as np
import pytest
from mpmath import mp, mpf
from numba import njit

from npselect._arithmetic import exponential, primitives

types = pytest.mark.parametrize("kind", [np.float32, np.float64])
BITS = {np.float32: np.int32, np.float64: np.int64}
UNIT = {np.float32: 2.0**-24, np.float64: 2.0**-53}


@njit
def _exp(t: Any, tail: Any, out: Any) -> None:
    for i in range(len(t)):
        out[i] = exponential.exp(t[i], tail[i])


@njit
def _fma(a: Any, b: Any, c: Any, out: Any) -> None:
    for i in range(len(a)):
        out[i] = primitives.fma(a[i], b[i], c[i])


@njit
def _divided(w: Any, top: Any, temp: Any, t: Any, tail: Any) -> None:
    for i in range(len(w)):
        t[i], tail[i] = exponential.divided_difference(w[i], top[i], exponential.prepared(temp[i]))


def compiled_exp(t: Any, tail: Any) -> Any:
    out = np.empty_like(t)
    _exp(t, tail, out)
    return out


def same_bits(x: Any, y: Any) -> Any:
    """Equal bits, or both NaN."""
    integer = BITS[x.dtype.type]
    return (x.view(integer) == y.view(integer)) | (np.isnan(x) & np.isnan(y))


# ------------------------------------------------------------------------------------------------ fma


def hard_fma(kind: Any) -> Any:
    """Halfway cases, cancellation, subnormal results, overflow, infinities, NaN and zeros of both signs."""
    rng = np.random.default_rng(2)
    info = np.finfo(kind)
    u, least, tiny, largest = UNIT[kind], float(info.smallest_subnormal), float(info.tiny), float(info.max)
    special = [0.0, -0.0, 1.0, -1.0, 1 + 2 * u, 1 - u, least, -least, tiny, largest, -largest, np.inf, -np.inf, np.nan]
    cube = [(a, b, c) for a in special for b in special for c in special]
    for i in range(1, 40):  # halfway: 1 + k u, plus or minus a trace far below
        for trace in (0.0, least, -least, u**2, -(u**2)):
            cube.append((i * u, 1.0, 1.0))
            cube.append((trace, 1.0, 1 + 2 * i * u))
            cube.append(((1 + 2 * u) * (1 - u), 1 + 2 * i * u, -1.0))
            cube.append(((2 * i + 1) * u, 1 + u * 2, 1.0 + trace))
            cube.append((math.sqrt(least) * i, math.sqrt(least) * 1.5, trace))
            cube.append((math.sqrt(tiny) * i, math.sqrt(tiny) * (1 + 6 * u), -i * tiny))
            cube.append((math.sqrt(largest), math.sqrt(largest) * (1 + 2 * i * u), -largest * u * i))
    a, b, c = np.array(cube).astype(kind).T.copy()
    x, y = (rng.normal(size=(2, 2000)) * np.exp(rng.normal(size=(2, 2000)) * 12)).astype(kind)
    z = -(x * y)  # what is left is the product's rounding error
    with np.errstate(all="ignore"):
        z[::2] = np.nextafter(z[::2], kind(0))
        z[1::4] = (rng.normal(size=500) * 1e-3).astype(kind)
    return np.append(a, x), np.append(b, y), np.append(c, z)


@types
def test_fma_is_rounded_once(kind: Any) -> None:
    a, b, c = hard_fma(kind)
    out = np.empty_like(a)
    _fma(a, b, c, out)
    checked = 0
    for x, y, z, result in zip(a.tolist(), b.tolist(), c.tolist(), out.tolist(), strict=True):
        if not all(map(math.isfinite, (x, y, z))):
            product = x * y if not (math.isfinite(x) and math.isfinite(y)) else 0.0  # finite, hence beside an infinity
            expected = product + z
            assert result == expected or (math.isnan(result) and math.isnan(expected))
            continue
        value = Fraction(x) * Fraction(y) + Fraction(z)
        with mp.workprec(6000):
            expected = exact.rounded(mpf(value.numerator) / value.denominator, kind.__name__)
        assert result == expected, (x, y, z)
        checked += 1
    assert checked > 3000


@types
def test_fma_in_python(kind: Any) -> None:
    a, b, c = hard_fma(kind)
    out = np.empty_like(a)
    _fma(a, b, c, out)
    with np.errstate(all="ignore"):
        plain = np.array([primitives.fma(*abc) for abc in zip(a, b, c, strict=True)])
    assert plain.dtype == kind
    wrong = np.flatnonzero(~same_bits(plain, out))
    assert len(wrong) == 0, (a[wrong[0]], b[wrong[0]], c[wrong[0]], plain[wrong[0]], out[wrong[0]])


# ------------------------------------------------------------------------------------------------ exp


def exponents(kind: Any, count: int) -> Any:
    """Arguments of all sizes down to where exp vanishes, and tails up to two units in the last place of each."""
    rng = np.random.default_rng(7)
    lowest = -104.0 if kind is np.float32 else -745.25
    half_ln2 = np.arange(1, int(-lowest / 0.34)) * -math.log(2) / 2
    around = np.concatenate([np.nextafter(half_ln2.astype(kind), kind(x)) for x in (-np.inf, np.inf)])
    t = np.concatenate([
        np.linspace(lowest, 0, count),
        -np.exp(rng.uniform(-60, np.log(-lowest), count)),
        np.linspace(lowest, 0.83 * lowest, count // 2),  # subnormal results
        around,
        [0.0, -0.0, lowest, np.nextafter(kind(lowest), kind(0))],
    ]).astype(kind)  # fmt: skip
    tail = np.where(rng.random(len(t)) < 0.3, 0, rng.uniform(-2, 2, len(t)) * np.spacing(np.abs(t)))
    return t, np.where(t == 0, 0, tail).astype(kind)


def exp_error(kind: Any, t: Any, tail: Any, result: Any, indices: Any) -> float:
    """The worst error in ULP at some of the arguments, by mpmath."""
    found = 0.0
    for i in indices:

        def compute(i: int = i) -> tuple[list[mpf], list[mpf]]:
            value = [mpmath.exp(mpf(float(t[i])) + mpf(float(tail[i])))]
            return value, value

        found = max(found, exact.error(float(result[i]), exact.settle(kind.__name__, compute)[0], kind.__name__))
    return found


def rough_error(t: Any, tail: Any, result: Any) -> Any:
    """The error in ULP as a wider type sees it: good for finding the worst arguments."""
    wider = np.float64 if t.dtype == np.float32 else np.longdouble
    with np.errstate(under="ignore"):
        value = np.exp(t.astype(wider) + tail.astype(wider))
        place = np.spacing(value.astype(t.dtype)).astype(wider)
    return np.abs(result.astype(wider) - value) / place


@types
def test_exp(kind: Any, record: Callable[[str, float], None]) -> None:
    """At most 1 ULP, at two million arguments; judged by mpmath at a random sample and at the worst."""
    t, tail = exponents(kind, 800_000)
    result = compiled_exp(t, tail)
    sample = np.random.default_rng(1).choice(len(t), 3000, replace=False)
    by_error = np.argsort(rough_error(t, tail, result))
    found = exp_error(kind, t, tail, result, np.concatenate([sample, by_error[-1000:]]))
    record(f"exp {kind.__name__}", found)
    assert found <= 1


@types
def test_exp_fault_is_found(kind: Any) -> None:
    t, tail = exponents(kind, 1000)
    result = compiled_exp(t, tail)
    result[500] = np.nextafter(np.nextafter(result[500], kind(1)), kind(1))
    assert exp_error(kind, t, tail, result, range(490, 510)) > 1


@types
def test_exp_at_the_ends(kind: Any) -> None:
    zero, infinity = kind(0), kind(np.inf)
    for tail in (zero, kind(-1), infinity, -infinity, kind(np.nan)):
        assert compiled_exp(np.array([-infinity]), np.array([tail]))[0] == 0
    t = np.array([0.0, -0.0, -1e30, -745.3, -np.finfo(kind).max], kind)
    assert compiled_exp(t, np.zeros_like(t)).tolist() == [1, 1, 0, 0, 0]


@types
def test_exp_in_python(kind: Any) -> None:
    t, tail = exponents(kind, 700)
    t, tail = np.append(t, [kind(-np.inf), kind(-1e30)]), np.append(tail, [kind(np.nan), kind(0)])
    with np.errstate(all="ignore"):
        plain = np.array([exponential.exp(*pair) for pair in zip(t, tail, strict=True)])
    assert plain.dtype == kind
    assert np.all(same_bits(plain, compiled_exp(t, tail)))


# ------------------------------------------------------------------------------------------------ z / temp


def differences(kind: Any) -> Any:
    """Logits, larger logits and temperatures: moderate, mixed over the whole range, and at its ends."""
    rng = np.random.default_rng(3)
    info = np.finfo(kind)
    low, high = np.log(float(info.smallest_subnormal)), np.log(float(info.max))
    temps = [
        np.exp(rng.uniform(-3, 3, 3000)),
        np.exp(rng.uniform(low, high, 3000)),
        rng.choice([float(info.smallest_subnormal), float(info.tiny), float(info.max), 2.0**64, 2.0**-64], 1000),
        rng.choice([1e30, 1e-30, 2.0**100, 2.0**-100, float(np.nextafter(kind(2.0**-64), kind(0)))], 1000),
    ]
    with np.errstate(all="ignore"):
        temp = np.concatenate(temps).astype(kind)
        temp = np.where(temp > 0, temp, info.smallest_subnormal)
        size = np.where(rng.random(len(temp)) < 0.7, temp, np.exp(rng.uniform(low, high, len(temp))))
        x, y = np.clip(rng.normal(size=(2, len(temp))) * size * 3, -info.max, info.max).astype(kind)
        y[::5] = (x[::5].astype(np.float64) * (1 + 4 * UNIT[kind])).astype(kind)  # neighbours: exact differences
    y = np.where(np.isfinite(y), y, x)
    return np.minimum(x, y), np.maximum(x, y), temp


@types
def test_divided_difference(kind: Any, record: Callable[[str, float], None]) -> None:
    """t + tail is (w - top) / temp to nine units of u**2, but for what underflows; |tail| <= 2 ulp(t).

    With 1 / temp = high (1 + r + r**2 ..), |r| <= u: r**2 + u r for the reciprocal, u**2 for the product of both low
    parts, which is left out, u**2 for z_tail high, 2 u**2 for the fma, 3 u**2 for the last sum. What underflows is
    wrong by the smallest subnormal: two logits that a huge temperature scales down, two products and an fma.
    """
    w, top, temp = differences(kind)
    t, tail = np.empty_like(w), np.empty_like(w)
    _divided(w, top, temp, t, tail)
    least, u = float(np.finfo(kind).smallest_subnormal), UNIT[kind]
    worst = worst_tail = 0.0
    for values in zip(*(x.tolist() for x in (w, top, temp, t, tail)), strict=True):
        with mp.workprec(3000):
            a, b, tau, high, low = map(mpf, values)
            quotient = (a - b) / tau
            if quotient < -(10**6):
                assert values[3] < -(10**5)
                continue
            wrong = float(abs(high + low - quotient) / (9 * u**2 * abs(quotient) + 6 * mpf(least)))
            size = float(abs(low) / (mpmath.ldexp(1, exact.FORMATS[kind.__name__].place(high))))
        worst, worst_tail = max(worst, wrong), max(worst_tail, size)
        assert wrong <= 1, values
    record(f"divided_difference {kind.__name__}", worst)
    record(f"tail {kind.__name__}", worst_tail)
    assert worst_tail <= 2


@types
def test_divided_difference_in_python(kind: Any) -> None:
    w, top, temp = (x[::7].copy() for x in differences(kind))
    t, tail = np.empty_like(w), np.empty_like(w)
    _divided(w, top, temp, t, tail)
    with np.errstate(all="ignore"):
        temps = [exponential.prepared(x) for x in temp]
        plain = [exponential.divided_difference(*values) for values in zip(w, top, temps, strict=True)]
    plain_t, plain_tail = np.array(plain).T.copy()
    assert plain_t.dtype == kind
    assert np.all(same_bits(plain_t, t))
    assert np.all(same_bits(plain_tail, tail))
