"""The logarithms of the kernels, the noise made of them, and the generator beneath: proven bounds, and faults found."""

from __future__ import annotations

import builtins
import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import numpy.typing as npt
import pytest
from mpmath import mp, mpf
from numba import njit

from npselect import noise, reference
from npselect._arithmetic import gumbel, logarithm, simd
from npselect._oracle import philox as reference_philox
from npselect._oracle.numbers import Digits, Wide
from npselect.tiers.cpu import noise as kernels

Array = npt.NDArray[Any]
Record = Callable[[str, float], None]
SQRT_HALF = math.sqrt(0.5)


@njit
def _quick_log(x: Any, out: Any) -> None:
    for i in range(len(x)):
        out[i] = -logarithm.quick_minus_log(x[i])


@njit
def _rough_log(x: Any, out: Any) -> None:
    for i in range(len(x)):
        out[i] = logarithm.rough_log(x[i])


@njit
def _rough_log_of_vectors(x: Any, out: Any) -> None:
    for i in range(0, len(x), simd.WIDE):
        simd.store(out, i, logarithm.rough_log(simd.load_wide(x, i)))


@njit
def _words(x: Any, out: Any) -> None:
    for i in range(x.shape[1]):
        out[0, i], out[1, i], out[2, i] = logarithm.log_triple_word(x[0, i], x[1, i], x[2, i])


@njit
def _products(x: Any, out: Any) -> None:
    for i in range(x.shape[1]):
        out[0, i], out[1, i] = logarithm._product(x[0, i], x[1, i], x[2, i], x[3, i])


@njit
def _sums(x: Any, out: Any) -> None:
    for i in range(x.shape[1]):
        out[0, i], out[1, i] = logarithm._sum(x[0, i], x[1, i], x[2, i], x[3, i])


@njit
def _logs_of_one_plus(x: Any, out: Any) -> None:
    for i in range(x.shape[1]):
        out[0, i], out[1, i] = logarithm._log_of_one_plus(x[0, i], x[1, i])


@njit
def _gumbels(u: Any, out: Any) -> None:
    kernels.gumbels(u, out)


@njit
def _rounded(x: Any, out: Any) -> None:
    for i in range(x.shape[1]):
        out[i] = gumbel._rounded(x[0, i], x[1, i], x[2, i])


@njit
def _uniforms(words: Any, out: Any) -> None:
    for i in range(len(words)):
        out[i] = gumbel.uniform(words[i])


@njit
def _philox(x: Any, out: Any) -> None:
    for i in range(x.shape[1]):
        out[0, i], out[1, i], out[2, i], out[3, i] = gumbel.philox(x[0, i], x[1, i], x[2, i], x[3, i], x[4, i], x[5, i])


def compiled_log(x: Array, function: Any) -> Array:
    out = np.empty_like(x)
    function(x, out)
    return out


def compiled(function: Any, x: Array, outputs: int) -> Array:
    """Of arguments that are rows, results that are rows."""
    out = np.empty((outputs, x.shape[1]), x.dtype)
    function(x, out)
    return out


def plain(function: Callable[..., Any], x: Array) -> Array:
    """The same by the formula as Python runs it."""
    return np.array([function(*column) for column in x.T], x.dtype).T


def padded(u: Array) -> Array:
    """As many numbers as whole SIMD vectors hold."""
    return np.pad(u, (0, -len(u) % simd.WIDE), constant_values=0.5)


def gumbels(u: Array, kind: Any = np.float64) -> Array:
    out = np.empty(len(padded(u)), kind)
    _gumbels(padded(u), out[: len(u)])
    return out[: len(u)]


def equal_bits(x: Array, y: Array) -> Array:
    return x.view(f"i{x.itemsize}") == y.view(f"i{y.itemsize}")


def flipped(x: Any, bit: int) -> np.float64:
    return (np.float64(x).view(np.int64) ^ np.int64(1 << bit)).view(np.float64)


# ------------------------------------------------------------------------------------------------ arguments


def near(x: Any, places: int = 3) -> Array:
    """The given numbers and their neighbours, so many on either side."""
    bits = np.asarray(x, np.float64).reshape(-1, 1).view(np.int64) + np.arange(-places, places + 1)
    return np.asarray(bits.view(np.float64).ravel())


def scaled(x: Array, rng: Any, low: int, high: int) -> Array:
    """Times powers of two, a few for each."""
    return np.asarray(np.ldexp(x, rng.integers(low, high, (3, len(x))).astype(np.int32)).ravel())


def arguments(low: int, high: int, count: int) -> Array:
    """From ``2**low`` to ``2**high``; about 1, where a new power of two begins, and both ends of every j."""
    rng = np.random.default_rng(3)
    ends = near(256 / (np.arange(181, 363)[:, None] + np.array([-0.5, 0.5])))
    corners = np.concatenate([near([SQRT_HALF, 2 * SQRT_HALF, 1.0], 20), ends])
    x = np.concatenate([
        corners,
        scaled(corners, rng, low + 1, high),
        1 + np.ldexp(rng.uniform(-1, 1, count), rng.integers(-54, -8, count).astype(np.int32)),
        rng.uniform(0.3, 3, count),
        np.exp2(rng.uniform(low, high, count)),
        np.exp2(np.arange(low + 1, high)),
    ])  # fmt: skip
    return x[(x >= 2.0**low) & (x <= 2.0**high)]


def triples(x0: Array) -> Array:
    """Second words up to half a place, third words up to what is allowed of them; some are 0."""
    rng = np.random.default_rng(4)
    x1 = rng.choice([0.0, 1.0, 1.0], len(x0)) * rng.uniform(-0.5, 0.5, len(x0)) * np.spacing(x0)
    x1 = np.where((x1 < 0) & (np.frexp(x0)[0] == 0.5), x1 / 2, x1)
    return np.array([x0, x1, rng.choice([0.0, 1.0, 1.0], len(x0)) * rng.uniform(-3, 3, len(x0)) * 2.0**-53 * x1])


def doubles(high: Array) -> Array:
    """Numbers with a low word, at most half a place."""
    low = np.random.default_rng(len(high)).uniform(-0.5, 0.5, len(high)) * np.spacing(np.abs(high))
    return np.array([high + low, low - ((high + low) - high)])


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
    ("function", "bound"), [(_quick_log, 2.0**-44), (_rough_log, 2.0**-43)], ids=["quick_log", "rough_log"]
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
    of_vectors = compiled_log(padded(x), _rough_log_of_vectors)[: len(x)]
    assert np.all(equal_bits(of_vectors, compiled_log(x, _rough_log)))


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


# ------------------------------------------------------------------------------------------------ three words


def relative_error(result: Array, exact: Callable[..., mpf], *arguments: Array) -> float:
    """The largest error of words that are rows, relative to the exact result of the arguments' sums."""
    found = 0.0
    with mp.workprec(400):
        for i in range(result.shape[1]):
            value = exact(*(mpmath.fsum(map(mpf, x[:, i].tolist())) for x in arguments))
            error = abs(mpmath.fsum(map(mpf, result[:, i].tolist())) - value)
            found = max(found, float(error / abs(value)) if value else math.inf * bool(error))
    return found


def test_products_and_sums(record: Record) -> None:
    rng = np.random.default_rng(6)
    a = doubles(np.concatenate([rng.uniform(1, 4, 5000), 1 + rng.uniform(0, 2.0**-40, 3000), near(2.0, 20)]))
    b = doubles(rng.permuted(a[0]) * rng.choice([-1, 1], a.shape[1]))
    found = relative_error(compiled(_products, np.concatenate([a, b]), 2), lambda x, y: x * y, a, b)
    record("product of double words, of its bound", found * 2**102)
    assert found < 2.0**-102
    b = doubles(-a[0] / 2 * np.where(rng.random(a.shape[1]) < 0.5, 1 - 2.0**-51, rng.uniform(-1, 1, a.shape[1])))
    found = relative_error(compiled(_sums, np.concatenate([a, b]), 2), lambda x, y: x + y, a, b)
    record("sum of double words, of its bound", found * 2**103)
    assert found < 2.0**-103
    b[:, :] = np.ldexp(b, 2)  # |a| < 2 |b|, so that it may cancel
    found = relative_error(compiled(_sums, np.concatenate([a, b]), 2), lambda x, y: x + y, a, b)
    assert found > 2.0**-103


def test_log_of_one_plus(record: Record) -> None:
    rng = np.random.default_rng(9)
    sizes = np.concatenate([rng.uniform(-8.6, -8.49, 4000), rng.uniform(-60, -8.49, 4000)])
    z = doubles(np.exp2(sizes) * rng.choice([-1, 1], 8000))
    found = relative_error(compiled(_logs_of_one_plus, z, 2), lambda x: mpmath.log(1 + x), z)
    record("log(1 + z), of its bound", found * 2**103)
    assert found < 2.0**-103


def triple_error(x: Array, result: Array, precision: int = 300) -> tuple[float, float]:
    """The largest error in units of ``2**-112`` and of ``2**-103 |log x|``."""
    absolute = relative = 0.0
    with mp.workprec(precision):
        for argument, words in zip(x.T.tolist(), result.T.tolist(), strict=True):
            value = mpmath.log(mpmath.fsum(map(mpf, argument)))
            error = abs(mpmath.fsum(map(mpf, words)) - value)
            absolute = max(absolute, float(error * 2**112))
            relative = max(relative, float(error / abs(value) * 2**103) if value else math.inf * bool(error))
    return absolute, relative


def triple_arguments() -> dict[str, tuple[Array, int]]:
    """Triple words, and the bits that their sums and logarithms take."""
    rng = np.random.default_rng(10)
    tiny = np.exp2(rng.uniform(-300, -53, 500)) * rng.choice([-0.5, 1], 500)
    tiny = np.array([np.ones(500), tiny, tiny * rng.uniform(-(2.0**-53), 2.0**-53, 500)])
    u = (2 * rng.integers(0, 2**52, 20_000) + 1) * 2.0**-53
    return {
        "everywhere": (triples(arguments(-1022, 1022, 3000)), 300),
        "of L": (triples(arguments(-53, 5, 8000)), 300),
        "of u": (np.array([u, 0 * u, 0 * u]), 300),
        "about 1": (triples(near(1.0, 1000)), 300),
        "1 and little": (tiny, 1000),
    }


@pytest.mark.parametrize("where", triple_arguments())
def test_log_triple_word(where: str, record: Record) -> None:
    """Within the bounds that are derived beside it; and words that the next logarithm may take."""
    x, precision = triple_arguments()[where]
    result = compiled(_words, x, 3)
    found = triple_error(x, result, precision)
    record(f"log_triple_word {where}, of 2**-112", found[0])
    record(f"log_triple_word {where}, of 2**-103 |log x|", found[1])
    assert max(found) < 1
    size = np.abs(result)
    assert np.all(size[1] <= size[0] * 2.0**-53 * (1 + 2.0**-12))
    assert np.all(size[2] <= size[1] * 3 * 2.0**-53)


def test_log_triple_word_of_one() -> None:
    assert compiled(_words, np.array([[1.0], [0.0], [0.0]]), 3).tolist() == [[0.0]] * 3


FAULTS = {
    "bit of a first word": ("_TABLE1", 33),
    "bit of a second word": ("_TABLE2", 25),
    "bit of a third word": ("_TABLE3", 52),
    "bit of ln 2": ("_LN2_2", 35),
    "rotated table": ("_TABLE2", None),
    "coefficient": ("_T7", 20),
    "low coefficient": ("_T3_LOW", 50),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_log_triple_word_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    u = (2 * np.random.default_rng(2).integers(0, 2**52, 300) + 1) * 2.0**-53
    x = np.array([u, 0 * u, 0 * u])
    assert max(triple_error(x, plain(logarithm.log_triple_word, x))) < 1
    name, bit = FAULTS[fault]
    right = getattr(logarithm, name)
    if bit is None:
        wrong = np.roll(right, 1)
    else:
        wrong = flipped(right, bit) if right.ndim == 0 else np.array([flipped(word, bit) for word in right])
    monkeypatch.setattr(logarithm, name, wrong)
    assert max(triple_error(x, plain(logarithm.log_triple_word, x))) > 1


# ------------------------------------------------------------------------------------------------ noise in float64


def uniforms(words: Any) -> Array:
    """As the page says: ``((word >> 11) | 1) 2**-53``."""
    return np.array([((int(word) >> 11) | 1) * 2.0**-53 for word in words])


def odd(k: Any) -> Array:
    """The uniforms ``(2 k + 1) 2**-53``, those of them that lie in (0, 1)."""
    k = np.unique(np.clip(np.asarray(k, np.int64).ravel(), 0, 2**52 - 1))
    return np.asarray((2 * k + 1) * 2.0**-53)


def inverse(g: Array) -> Array:
    """The k whose uniform is nearest to ``exp(-exp(-g))``, or nearly; exact to the last places on both sides."""
    below_one = np.rint(-np.expm1(-np.exp(-g)) * 2.0**52 - 0.5).astype(np.int64)
    return np.where(g > 0.3, 2**52 - 1 - below_one, np.rint(np.exp(-np.exp(-g)) * 2.0**52 - 0.5).astype(np.int64))


# Found by search, G being nearly linear in u over some 2**16 neighbours, in 2**43 uniforms: those whose G is within
# 2**-40.2 of a unit in the last place from the middle of two float64. No other test is as hard on the last bits.
HARD = """
    046f9cdb8d9ec1 016c0a8f34ae35 09bd6c563cb45b 101c0617060853 0fa9d668718755 1828416037157f 151e79feebc94b
    02f519290ebb17 05ddd0ae795dc1 1a9cbe64de07ed 12e7069dee1dad 11fb0affb227d5 0aa74823ecd253 0e8a29d1f52673
    0e71c64fec45b1 1bd6680b515cd3 129bc7d4fed3e1 0cd19a52b9c821 07bdd56fa4f9d9 0cb5278eaef165 0fd399887a96c3
    155571ead3bcf9 0bcd4bbe44a401 1db75283f88175 012184d998e6fd 1320491c725da7 0e41a7326c8eef
"""


def hard_uniforms() -> Array:
    return np.array([int(numerator, 16) * 2.0**-53 for numerator in HARD.split()])


def extreme_words() -> list[int]:
    """The first and the last, powers of two, and their neighbours."""
    powers = [0, *(1 << i for i in range(65))]
    return sorted({w for p in powers for step in (0, 1, 2048, 4096) for w in (p - step, p + step) if 0 <= w < 2**64})


def zero_of_g() -> int:
    """The k of the last uniform below 1/e."""
    with mp.workprec(100):
        return int(mpmath.floor((mpmath.exp(-1) * 2**53 - 1) / 2))


class Verdict:
    """On float64 noise, by mpmath."""

    def __init__(self, u: Array, g: Array) -> None:
        self.wrong = 0  # numbers that are not the nearest ones
        self.off = 0.0  # the largest error in units of 2**-51 max(1, |G|)
        self.distance = 1.0  # from the middle of two float64, the smallest, in units in the last place
        self.doubt = 0.0  # the largest proven error in units of that distance
        with mp.workprec(200):
            for argument, result in zip(u.tolist(), g.tolist(), strict=True):
                value = -mpmath.log(-mpmath.log(mpf(argument)))
                sign, mantissa, exponent, bits = value._mpf_
                half = 1 << (bits - 54)
                middle = abs((mantissa & (2 * half - 1)) - half) / (2 * half)
                place = exponent + bits - 53
                nearest = math.ldexp((mantissa + half) >> (bits - 53), place)
                self.wrong += result != (-nearest if sign else nearest)
                self.off = max(self.off, float(abs(value - result) * 2**51 / max(1, abs(value))))
                self.distance = min(self.distance, middle)
                bound = 2.0**-110 if abs(value) < 1 else 2.0**-103
                self.doubt = max(self.doubt, bound / math.ldexp(middle, place))


def gumbel_arguments() -> dict[str, Array]:
    rng = np.random.default_rng(12)
    return {
        "extreme": uniforms(extreme_words()),
        "about 0": odd(zero_of_g() + np.arange(-3000, 3001)),
        "u about 0": odd(np.arange(3000)),
        "u about 1": odd(2**52 - 1 - np.arange(3000)),
        "L about 1": odd(inverse(np.ldexp(rng.uniform(-1, 1, 5000), rng.integers(-45, 0, 5000).astype(np.int32)))),
        "binades": odd(inverse(np.array([-2.0, -1, -0.5, 0.5, 1, 2, 4, 8, 16, 32]))[:, None] + np.arange(-200, 201)),
        "hard": hard_uniforms(),
        "random": uniforms(rng.integers(0, 2**64, 100_000, np.uint64)),
    }


@pytest.mark.parametrize("where", gumbel_arguments())
def test_gumbel_is_the_nearest_float64(where: str, record: Record) -> None:
    u = gumbel_arguments()[where]
    verdict = Verdict(u, gumbels(u))
    record(f"gumbel {where}, of 2**-51 max(1, |G|)", verdict.off)
    record(f"gumbel {where}, -log2 of the distance to a middle", -math.log2(verdict.distance))
    record(f"gumbel {where}, proven error by that distance", verdict.doubt)
    assert verdict.wrong == 0
    assert verdict.off < 1
    assert verdict.doubt < 1  # so nearest by proof, too
    if where == "about 0":
        assert np.abs(gumbels(u)).min() < 2.0**-51


def test_gumbel_known_answers() -> None:
    answers = {
        0xE169C58D6627E8D5: "0x1.07e484179cd9fp+1",
        0x9B00DBD8BC57AC4C: "0x1.611f4829410cbp-1",
        0x41C83B0E408F276D: "-0x1.39fb707d06cd6p-2",
        0x6D5451FDA20BC7C6: "0x1.4ae1ead21622bp-3",
        0x94FDCCEBD16CFE09: "0x1.3a444bd6bcd28p-1",
        0x24126EA15001E420: "-0x1.587578bcf95abp-1",
        0x0000000000000000: "-0x1.cd48a14a68f37p+1",
        0xFFFFFFFFFFFFFFFF: "0x1.25e4f7b2737fap+5",
        0x5E2D58D8B3BCDF1A: "-0x1.34fd2133ea7d4p-52",
    }
    expected = [float.fromhex(digits) for digits in answers.values()]
    words = np.array(list(answers), np.uint64)
    u = np.empty(len(words))
    _uniforms(words, u)
    assert gumbels(u).tolist() == expected
    assert reference._gumbel(words).tolist() == expected


def test_gumbel_in_the_reference() -> None:
    k = np.concatenate([(hard_uniforms() * 2.0**52).astype(np.int64), zero_of_g() + np.arange(-20, 21)])
    words = np.concatenate([k.astype(np.uint64) << np.uint64(12), np.array(extreme_words(), np.uint64)])
    assert np.array_equal(reference._gumbel(words), gumbels(uniforms(words)))


def test_gumbel_faults_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """One place off; and, at hard uniforms, sums without the third words."""
    u = hard_uniforms()
    g = gumbels(u)
    g[3] = np.nextafter(g[3], 9)
    assert Verdict(u, g).wrong == 1
    monkeypatch.setattr(logarithm, "_TABLE3", np.zeros(182))
    monkeypatch.setattr(logarithm, "_LN2_3", np.float64(0.0))
    assert Verdict(u, plain(gumbel.gumbel, u[None])).wrong > 5
    v = odd(np.random.default_rng(1).integers(0, 2**52, 100))
    assert Verdict(v, plain(gumbel.gumbel, v[None])).wrong == 0  # what random uniforms do not find


def words_to_round() -> Array:
    """Three words whose sum is very near the middle of two float64, and others."""
    rng = np.random.default_rng(13)
    a = np.repeat(np.concatenate([rng.uniform(1, 2, 200), [1.0, np.nextafter(2.0, 0), 1.5]]), 15)
    b = np.resize([2.0**-53, -(2.0**-53), 2.0**-54, -(2.0**-54), 0.75 * 2.0**-53], len(a))
    c = np.resize(np.repeat([0.0, 1.0, -1.0], 5), len(a)) * np.exp2(rng.uniform(-140, -108.1, len(a)))
    return np.concatenate([np.array([a, b, c]), -np.array([a, b, c]), triples(rng.uniform(1, 4, 1000))], axis=1)


def test_rounded_once() -> None:
    x = words_to_round()
    out = np.empty(x.shape[1])
    _rounded(x, out)
    exact = [float(sum(map(Fraction, column))) for column in x.T.tolist()]  # correctly rounded
    assert out.tolist() == exact
    assert np.count_nonzero(x[0] + (x[1] + x[2]) != exact) > 500
    assert np.array_equal(plain(gumbel._rounded, x), out)


# ------------------------------------------------------------------------------------------------ noise in float32


def near_middles(count: int) -> Array:
    """Uniforms whose G is as near the middle of two float32 as can be, and their neighbours."""
    rng = np.random.default_rng(14)
    g = np.concatenate([rng.gumbel(size=count), rng.uniform(-3.6, 15, count), np.ldexp(rng.uniform(-1, 1, count), -10)])
    g = g[(g > -3.6) & (g < 36)].astype(np.float32)
    middles = g + np.spacing(g).astype(np.float64) / 2
    return odd(inverse(middles)[:, None] + np.arange(-4, 5))


def quick(u: Array, log: Any = _rough_log) -> Array:
    return -compiled_log(-compiled_log(u, log), log)


def doubtful(u: Array) -> Array:
    """Which numbers the quick way leaves open."""
    return np.isnan(plain(gumbel.quick_gumbel, u[None]))


@pytest.mark.parametrize(("log", "bound", "margin"), [
    (_rough_log, 2.0**-43, gumbel.MARGIN),
    (_quick_log, 2.0**-44, gumbel.MARGIN),
], ids=["rough_log", "quick_log"])  # fmt: skip
def test_quick_noise(log: Any, bound: float, margin: float, record: Record) -> None:
    rng = np.random.default_rng(15)
    u = np.concatenate([near_middles(25_000), uniforms(rng.integers(0, 2**64, 400_000, np.uint64))])
    assert len(u) > 900_000
    g = gumbels(u)
    found = np.max(np.abs(quick(u, log) - g) / (1.01 * bound * (1 + np.abs(g)) + 2.0**-53 * np.abs(g)))
    record(f"quick G by {log.__name__}, of its bound", found)
    assert found < 1
    assert margin >= 2 * bound


def test_float32_is_float64_rounded_once() -> None:
    rng = np.random.default_rng(15)
    hard = near_middles(25_000)
    easy = uniforms(rng.integers(0, 2**64, 400_000, np.uint64))
    for u in (hard, easy, hard_uniforms(), odd(zero_of_g() + np.arange(-3000, 3001)), uniforms(extreme_words())):
        assert np.all(equal_bits(gumbels(u, np.float32), gumbels(u).astype(np.float32)))
    assert np.count_nonzero(quick(hard).astype(np.float32) != gumbels(hard).astype(np.float32)) > 1000


def test_float32_doubts() -> None:
    """Doubt where the quick way goes wrong, and seldom elsewhere; what there is no doubt of is right."""
    rng = np.random.default_rng(19)
    hard = near_middles(400)
    some = np.concatenate([hard, uniforms(rng.integers(0, 2**64, 2000, np.uint64)), uniforms(extreme_words())])
    open_questions = doubtful(some)
    assert np.count_nonzero(open_questions) > len(hard) / 2
    assert np.mean(open_questions[len(hard) :]) < 0.02
    assert np.array_equal(
        plain(gumbel.quick_gumbel, some[None]).astype(np.float32)[~open_questions],
        gumbels(some, np.float32)[~open_questions],
    )


def test_float32_margin_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    u = near_middles(400)
    monkeypatch.setattr(gumbel, "MARGIN", np.float64(0.0))
    assert not np.any(doubtful(u))
    assert np.count_nonzero(plain(gumbel.quick_gumbel, u[None]).astype(np.float32) != gumbels(u, np.float32)) > 10


# ------------------------------------------------------------------------------------------------ Python and compiled


def test_plain_python_has_the_same_bits() -> None:
    rng = np.random.default_rng(16)
    x = rng.choice(arguments(-1022, 1023, 300), 400)
    assert np.all(equal_bits(plain(logarithm.quick_minus_log, x[None]), -compiled_log(x, _quick_log)))
    assert np.all(equal_bits(plain(logarithm.rough_log, x[None]), compiled_log(x, _rough_log)))
    x = np.concatenate([rng.choice(x, 100, axis=1) for x, _ in triple_arguments().values()], axis=1)
    assert np.all(equal_bits(plain(logarithm.log_triple_word, x), compiled(_words, x, 3)))
    a, b, z = (doubles(rng.normal(size=300) * scale) for scale in (1.0, 0.1, 2.0**-11))
    four = np.concatenate([a, b])
    assert np.all(equal_bits(plain(logarithm._product, four), compiled(_products, four, 2)))
    assert np.all(equal_bits(plain(logarithm._sum, four), compiled(_sums, four, 2)))
    assert np.all(equal_bits(plain(logarithm._log_of_one_plus, z), compiled(_logs_of_one_plus, z, 2)))
    u = np.concatenate([rng.choice(u, min(60, len(u)), replace=False) for u in gumbel_arguments().values()])
    assert np.all(equal_bits(plain(gumbel.gumbel, u[None]), gumbels(u)))
    words = np.concatenate([np.array(extreme_words(), np.uint64), rng.integers(0, 2**64, 300, np.uint64)])
    u = np.empty(len(words))
    _uniforms(words, u)
    assert np.array_equal(u, uniforms(words))
    assert np.array_equal(u, [gumbel.uniform(word) for word in words])
    x = rng.integers(0, 2**32, (6, 300), np.uint64)
    assert np.array_equal(plain(gumbel.philox, x), compiled(_philox, x, 4))


# ------------------------------------------------------------------------------------------------ Philox

PHILOX_4X32 = [  # counter, key, output: the known answers of Random123
    ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
CONSTANTS_32 = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85)
CONSTANTS_64 = (0xD2E7470EE14C6C93, 0xCA5A826395121157), (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)


@pytest.mark.parametrize(("counter", "key", "output"), PHILOX_4X32)
def test_philox_known_answers(counter: Any, key: Any, output: Any) -> None:
    x = np.array([[*counter, *key]], np.uint64).T
    assert compiled(_philox, x, 4)[:, 0].tolist() == list(output)
    assert plain(gumbel.philox, x)[:, 0].tolist() == list(output)
    assert reference_philox.philox(counter, key, *CONSTANTS_32, 32) == output
    assert [int(word[0]) for word in reference_philox.philox(x[:4], x[4:], *CONSTANTS_32, 32)] == list(output)


def split(number: int, count: int) -> tuple[int, ...]:
    """Words of 64 bits, the lowest first."""
    return tuple(number >> 64 * i & (2**64 - 1) for i in range(count))


def test_philox_with_64_bits_is_that_of_numpy() -> None:
    rng = np.random.default_rng(17)
    counters = [0, 2**64 - 1, 2**64 - 2, 2**128 - 1, 2**192 - 1, 2**256 - 1, 2**255, int.from_bytes(rng.bytes(32))]
    keys = [0, 1, 2**64 - 1, 2**64, 2**128 - 1, int.from_bytes(rng.bytes(16))]
    for counter in counters:
        for key in keys:
            drawn = np.random.Philox(counter=counter, key=key).random_raw(12).tolist()
            blocks = [split((counter + i) % 2**256, 4) for i in (1, 2, 3)]  # NumPy increments before use
            expected = [x for block in blocks for x in reference_philox.philox(block, split(key, 2), *CONSTANTS_64, 64)]
            assert drawn == expected


PHILOX_FAULTS = {
    "nine rounds": ("range", lambda _: builtins.range(9)),
    "eleven rounds": ("range", lambda _: builtins.range(11)),
    "half a word of 33 bits": ("_HALF_WORD", np.uint64(33)),
    "one multiplier for both": ("_MULTIPLIER0", gumbel._MULTIPLIER1),
    "bit of a multiplier": ("_MULTIPLIER1", gumbel._MULTIPLIER1 ^ np.uint64(2)),
    "bit of an increment": ("_WEYL0", gumbel._WEYL0 ^ np.uint64(1 << 31)),
}


@pytest.mark.parametrize("fault", PHILOX_FAULTS)
def test_philox_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gumbel, *PHILOX_FAULTS[fault], raising=False)
    for counter, key, output in PHILOX_4X32:
        words = plain(gumbel.philox, np.array([[*counter, *key]], np.uint64).T)[:, 0].tolist()
        assert words != list(output)


@pytest.mark.parametrize("order", ["x2, x3, x0, x1", "x1, x2, x3, x0", "x0, x3, x2, x1"])
def test_philox_with_words_rotated_is_found(order: str) -> None:
    source = inspect.getsource(gumbel.philox)
    left = "x0, x1, x2, x3 = (b"
    assert left in source
    names = dict(vars(gumbel))
    exec(source.replace(left, f"{order} = (b"), names)
    x = np.array([[*counter, *key] for counter, key, _ in PHILOX_4X32], np.uint64).T
    for words, (_, _, output) in zip(plain(names["philox"], x).T.tolist(), PHILOX_4X32, strict=True):
        assert words != list(output)


def word_of(number: int, seed: int) -> int:
    """Number n's 64 bits, as the page has them."""
    counter, key = (number // 2 % 2**32, number // 2 >> 32, 0, 0), (seed % 2**32, seed >> 32)
    x = reference_philox.philox(counter, key, *CONSTANTS_32, 32)
    return x[2 * (number % 2) + 1] << 32 | x[2 * (number % 2)]


@pytest.mark.parametrize("seed", [0, 2**32 - 1, 2**32, 0x0123456789ABCDEF, 2**64 - 1])
def test_numbers_are_where_they_belong(seed: int) -> None:
    """From even and odd numbers, within and across blocks of 64 and 2048, up to the stream's last."""
    for offset in (0, 1, 4095, 4096, 2**33 - 3, 2**33 - 2, 2**63 - 1, 2**64 - 8194, 2**64 - 8193):
        for size in (0, 1, 2, 3, 63, 64, 65, 2047, 2048, 2049, 4095, 4096, 4097):
            drawn = noise.gumbel(size, seed, offset=offset, dtype=np.float64)
            some = sorted(
                {
                    i
                    for i in (0, 1, 2, 62, 63, 64, 65, 2046, 2047, 2048, 2049, 4095, size - 2, size - 1)
                    if 0 <= i < size
                }
            )
            assert np.array_equal(drawn[some], gumbels(uniforms(word_of(offset + i, seed) for i in some)))
            at = np.empty(len(some))
            kernels.draw_at(np.uint64(seed), np.array([offset + i for i in some], np.uint64), at)
            assert np.array_equal(drawn[some], at)
    last = noise.gumbel(3, seed, offset=2**64 - 3, dtype=np.float64)
    assert np.array_equal(last, gumbels(uniforms(word_of(2**64 - 3 + i, seed) for i in range(3))))


# ------------------------------------------------------------------------------------------------ the reference's


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
