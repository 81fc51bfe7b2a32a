"""The logarithms of one word, and the tables and coefficients of all: proven bounds, and faults found."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

import formulas
import mpmath
import numpy as np
import pytest
from formulas import Record, compiled_log, equal_bits, flipped, padded
from hard_numbers import SQRT_HALF, arguments, near, odd
from inputs import Array
from mpmath import mp, mpf

from npselect._arithmetic import logarithm

# ------------------------------------------------------------------------------------------------ the quick logarithm


def log_error(x: Iterable[float], result: Iterable[float]) -> float:
    """The largest error relative to ``log x``."""
    found = 0.0
    with mp.workprec(150):
        for argument, y in zip(x, result, strict=True):
            value = mpmath.log(mpf(float(argument)))
            error = abs(mpf(float(y)) - value)
            found = max(found, float(error / abs(value)) if value else math.inf * bool(error))
    return found


def edges_of_ranges() -> Array:
    """Where `rough_log` takes the next of its eight ranges, `quick_minus_log` of its two, and the neighbours."""
    edges = np.concatenate([1 + np.arange(8) / 8 - 9 / 128, [1 - 11 / 64, 1 + 11 / 64, 2 - 11 / 32]])
    return near(np.ldexp(edges, np.arange(-1, 3)[:, None].astype(np.int32)), 20)


@pytest.mark.parametrize(
    ("function", "bound"),
    [(formulas.quick_log, 2.0**-44), (formulas.rough_log, 2.0**-43)],
    ids=["quick_log", "rough_log"],
)
def test_log(function: Any, bound: float, record: Record) -> None:
    x = np.concatenate([
        arguments(-1022, 1023, 15_000),
        near(2.0**1023, 0),
        [np.finfo(np.float64).max],
        edges_of_ranges(),
        odd(np.concatenate([np.arange(500), 2**52 - 1 - np.arange(500)])),
    ])  # fmt: skip
    found = log_error(x, compiled_log(x, function)) / bound
    record(f"{function.__name__}, of its bound", found)
    assert found < 1
    assert compiled_log(np.ones(1), function)[0] == 0


def test_rough_log_of_vectors() -> None:
    x = np.concatenate([arguments(-1022, 1023, 15_000), edges_of_ranges()])
    of_vectors = compiled_log(padded(x), formulas.rough_log_of_vectors)[: len(x)]
    assert np.all(equal_bits(of_vectors, compiled_log(x, formulas.rough_log)))


def polynomial_error(coefficients: Sequence[float], end: float = 0.05595) -> float:
    """The largest error of ``z p(z)``, relative to ``log(1 + z)``, up to ``|z| = end``."""
    with mp.workprec(150):
        largest = mpf(end)
        found = mpf(0)
        for i in range(-1000, 1001):
            z = largest * (i or mpf("1e-9")) / 1000
            p = mpmath.fsum(mpf(float(c)) * z**power for power, c in enumerate(coefficients))
            found = max(found, abs(z * p / mpmath.log1p(z) - 1))
        return float(found)


def test_rough_polynomial() -> None:
    coefficients = [getattr(logarithm, f"_C{i}") for i in range(8)]
    assert polynomial_error(coefficients) < 2.0**-43.4
    for i, bit in enumerate((8, 13, 17, 21, 25, 29, 34, 38)):
        wrong = coefficients.copy()
        wrong[i] = flipped(wrong[i], bit)
        assert polynomial_error(wrong) > 2.0**-43.4


def test_rough_tables(record: Record) -> None:
    """1 over the middles of the ranges, and minus its logarithms; and what the bound takes z and log(1 + z) for."""
    largest = ratio = 0.0
    for j in range(8):
        low, high = (mpf(1) + mpf(k) / 8 - mpf(9) / 128 for k in (j, j + 1))
        r = logarithm._RECIPROCALS[j]
        assert r == (1 if j == 0 else float(2 / (low + high)))
        assert logarithm._MINUS_LOGS[j] == float(mpmath.log((low + high) / 2) if j else 0)
        low = 1 - mpf(9) / 256 if j == 0 else low
        for m in (low, high):
            z = m * r - 1
            largest = max(largest, float(abs(z)))
            for e in (-1, 0, 1):
                if (j, e) != (0, 0):
                    ratio = max(ratio, float(abs(mpmath.log1p(z)) / abs(mpmath.log(m) + e * mpmath.log(2))))
    record("rough |z|, of its bound", largest / 0.05595)
    assert largest < 0.05595
    assert ratio < 1.09


def test_quick_polynomial() -> None:
    coefficients = [getattr(logarithm, f"_A{i}") for i in range(12)]
    assert polynomial_error(coefficients, 11 / 64) < 2.0**-45
    for i in range(12):
        wrong = coefficients.copy()
        wrong[i] = flipped(wrong[i], 8 + 3 * i)
        assert polynomial_error(wrong, 11 / 64) > 2.0**-45


def test_quick_ranges(record: Record) -> None:
    """What the bound takes z and log(1 + z) for."""
    assert float(mpmath.log(mpf(181) / 256)) == logarithm._UPPER_LOG
    largest = ratio = 0.0
    for r, *ends in ((1, 1 - mpf(11) / 64, 1 + mpf(11) / 64), (mpf(181) / 256, 1 + mpf(11) / 64, 2 - mpf(11) / 32)):
        for m in ends:
            z = m * r - 1
            largest = max(largest, float(abs(z)))
            for e in (-1, 0, 1):
                if (r, e) != (1, 0):
                    ratio = max(ratio, float(abs(mpmath.log1p(z)) / abs(mpmath.log(m) + e * mpmath.log(2))))
    assert largest == 11 / 64
    record("quick |log(1 + z)|, of its bound", ratio / 1.19)
    assert ratio < 1.19


# ------------------------------------------------------------------------------------------------ tables


def misplaced(words: Sequence[Array], exact_logs: Sequence[mpf]) -> int:
    """How many words are not what they should be: multiples of ``2**-40``, of ``2**-80``, and the rest."""
    wrong = 0
    with mp.workprec(300):
        for first, second, third, exact in zip(*words, exact_logs, strict=True):
            expected_first = mpmath.nint(exact * 2**40) / 2**40
            expected_second = mpmath.nint((exact - expected_first) * 2**80) / 2**80
            wrong += expected_first != mpf(float(first))
            wrong += expected_second != mpf(float(second))
            wrong += float(exact - expected_first - expected_second) != third
    return wrong


def tables() -> tuple[list[Array], list[mpf]]:
    words = [
        np.append(getattr(logarithm, f"_TABLE{i}"), getattr(logarithm, f"_LN2_{i}")).astype(np.float64)
        for i in (1, 2, 3)
    ]
    with mp.workprec(300):
        return words, [-mpmath.log(mpf(j) / 256) for j in range(181, 363)] + [mpmath.log(2)]


def test_tables() -> None:
    words, exact_logs = tables()
    assert misplaced(words, exact_logs) == 0
    for i, bit in ((0, 30), (0, 51), (1, 25), (1, 55), (2, 0), (2, 55)):
        for j in (0, 120, 182):
            wrong = [word.copy() for word in words]
            wrong[i][j] = flipped(wrong[i][j], bit)
            assert misplaced(wrong, exact_logs) == 1
    assert misplaced([words[1], words[0], words[2]], exact_logs) > 300


def test_sums_of_words_are_exact() -> None:
    """``e ln 2 - log(j / 256)``, for all e and j: as integers, below ``2**53``."""
    (first, second, _), _ = tables()
    for words, unit in ((first, 2.0**40), (second, 2.0**80)):
        integers = words * unit
        assert np.array_equal(integers, np.rint(integers))
        e = np.arange(-1074, 1025)[:, None]
        assert np.abs(e * int(integers[-1]) + integers[:-1].astype(np.int64)).max() < 2**53


def test_first_step_is_exact(record: Record) -> None:
    """``m j / 256 - 1``, for m with its 53 bits: as an integer, below ``2**53``; and j is in the table."""
    rng = np.random.default_rng(8)
    ends = near(256 / (np.arange(181, 363)[:, None] + np.array([-0.5, 0.5])), 50)
    m = np.concatenate([rng.uniform(SQRT_HALF, 2 * SQRT_HALF, 1_000_000), near([SQRT_HALF, 2 * SQRT_HALF], 50), ends])
    m = m[(m >= np.int64(logarithm._SQRT_HALF).view(np.float64)) & (m < 2 * SQRT_HALF)]
    j = np.rint(256 / m).astype(np.int64)
    assert (j.min(), j.max()) == (181, 362)
    assert len(logarithm._TABLE1) == 182
    z = (m * 2.0**53).astype(np.int64) * j - 2**61
    assert np.all(np.abs(np.where(m >= 1, z >> 1, z)) < 2**53)
    assert not np.any(z[m >= 1] & 1)
    largest = np.abs(z).max() * 2.0**-61
    record("|z|, of its bound", largest * 2.0**8.49)
    assert largest < 2.0**-8.49


def test_coefficients() -> None:
    for k in range(3, 7):
        exact = Fraction((-1) ** (k + 1), k)
        high, low = float(getattr(logarithm, f"_T{k}")), float(getattr(logarithm, f"_T{k}_LOW"))
        assert high == float(exact)
        assert low == float(exact - Fraction(high))
    for k in range(7, 14):
        assert float(getattr(logarithm, f"_T{k}")) == float(Fraction((-1) ** (k + 1), k))
