"""The reference's logarithms: right within the error that they state, or in all of their digits."""

from __future__ import annotations

import math
from decimal import Decimal

import mpmath
import numpy as np
from formulas import Record
from hard_numbers import arguments, extreme_words, near, uniforms
from mpmath import mp, mpf

from npselect._oracle.numbers import Digits, Wide


def wide_arguments() -> Wide:
    """Positive numbers of 106 bits, of all sizes and about 1; exact, and with an error of their own."""
    rng = np.random.default_rng(18)
    x = np.concatenate([arguments(-1022, 1023, 300)[::4], near(1.0, 50), uniforms(extreme_words())])
    number = Wide.of(x) + Wide.of(x * rng.uniform(-(2.0**-54), 2.0**-54, len(x)) * (rng.random(len(x)) < 0.5))
    vague = rng.choice([0.0, 2.0**-60, 2.0**-100], len(x))
    return number._replace(error=number.error + vague)


def in_wide(number: Wide, i: int, by: int = 0) -> mpf:
    """Entry i's value, moved by so many times its stated error."""
    value = mpf(float(number.hi[i])) + mpf(float(number.lo[i])) + by * mpf(float(number.error[i]))
    return mpmath.ldexp(value, max(int(number.exponent[i]), -(2**20)))


def wide_doubt(x: Wide, result: Wide) -> float:
    """The largest error in units of the stated one; the argument may be off by what it states."""
    found = 0.0
    with mp.workprec(400):
        for i in range(len(x.hi)):
            stated = in_wide(result, i, 1) - in_wide(result, i)
            for by in (-1, 0, 1):
                error = abs(in_wide(result, i) - mpmath.log(in_wide(x, i, by)))
                found = max(found, float(error / stated) if stated else math.inf * bool(error))
    return found


def test_wide_log(record: Record) -> None:
    x = wide_arguments()
    result = x.log()
    found = wide_doubt(x, result)
    record("Wide.log, of its stated error", found)
    assert found <= 1
    sharp = x.error <= np.ldexp(x.hi, -101)
    stated = np.ldexp(result.error, np.maximum(result.exponent, -1000).astype(np.int32))[sharp]
    size = np.abs(np.ldexp(result.hi, np.maximum(result.exponent, -1000).astype(np.int32)))[sharp]
    assert np.all(stated <= 2.0**-92 * np.maximum(size, 1))  # overstated, it would have all rows done again


def test_wide_log_fault_is_found() -> None:
    x = wide_arguments()
    result = x.log()
    lo = result.lo.copy()
    lo[7] += 4 * result.error[7]
    assert wide_doubt(x, result._replace(lo=lo)) > 1


def test_digits_log() -> None:
    """Half a unit in the last of so many digits."""
    x = np.concatenate([arguments(-1022, 1023, 100)[::10], near(1.0, 20), uniforms(extreme_words())])
    for digits in (50, 200):
        with Digits.precision(digits):
            results = Digits.of(x).log().values
        with mp.workdps(digits + 50):
            for argument, result in zip(x.tolist(), results, strict=True):
                value = mpmath.log(mpf(argument))
                assert abs(mpf(str(result)) - value) <= abs(value) * mpf(10) ** (1 - digits) / 2
    with Digits.precision(50):
        assert Digits([Decimal(1)]).log().values[0] == 0
