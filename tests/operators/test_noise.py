"""Noise as its users see it: known answers, one bit pattern on both tiers, the distribution, and what is refused.

Single words, formulas and their errors are in tests/arithmetic.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.stats

from npselect import noise

backends = pytest.mark.parametrize("backend", ["reference", "cpu"])
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
LAST = 2**64 - 1


# ------------------------------------------------------------------------------------------------ known answers

# Philox4x32-10 with key 0 and counter 0 yields 6627e8d5 e169c58d bc57ac4c 9b00dbd8 (Random123, kat_vectors), hence the
# words e169c58d6627e8d5 and 9b00dbd8bc57ac4c. G by mpmath: with mp.prec = 300, mpf(float(-mp.log(-mp.log(u)))).
KNOWN = [float.fromhex("0x1.07e484179cd9fp+1"), float.fromhex("0x1.611f4829410cbp-1")]


@backends
def test_known_answers(backend: str) -> None:
    assert noise.gumbel(2, 0, dtype=np.float64, backend=backend).tolist() == KNOWN
    assert noise.gumbel(2, 0, backend=backend).tolist() == np.float32(KNOWN).tolist()
    assert noise.gumbel(1, 0, offset=1, dtype=np.float64, backend=backend).tolist() == KNOWN[1:]


@backends
@dtypes
def test_every_bit_of_seed_and_offset_counts(backend: str, dtype: Any) -> None:
    seeds = [0, *(1 << i for i in range(64)), LAST]
    assert len({noise.gumbel(1, seed, dtype=np.float64, backend=backend).item() for seed in seeds}) == len(seeds)
    places = [0, *(1 << i for i in range(64)), LAST]
    drawn = [noise.gumbel((), 9, offset=place, dtype=np.float64, backend=backend).item() for place in places]
    assert len(set(drawn)) == len(places)
    wide = noise.gumbel(1, LAST, offset=LAST, dtype=np.float64, backend=backend)
    assert noise.gumbel(1, LAST, offset=LAST, dtype=dtype, backend=backend) == wide.astype(dtype)


# ------------------------------------------------------------------------------------------------ the same bits


@pytest.mark.parametrize(
    ("size", "parts"), [(100_000, 2), pytest.param(2_000_000, 4, marks=pytest.mark.slow)], ids=["few", "two million"]
)
def test_tiers_agree(size: int, parts: int) -> None:
    """Compared bit for bit; float32 against float64 rounded."""

    def same(part: int) -> bool:
        first, count = part * size // parts, size // parts
        expected = noise.gumbel(count, 2013, offset=first, dtype=np.float64, backend="reference")
        wide = noise.gumbel(count, 2013, offset=first, dtype=np.float64, backend="cpu")
        narrow = noise.gumbel(count, 2013, offset=first, backend="cpu")
        return wide.tobytes() == expected.tobytes() and narrow.tobytes() == expected.astype(np.float32).tobytes()

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(same, range(parts)))


@backends
@dtypes
@pytest.mark.parametrize("offset", [0, 1, 4095, 2**33 - 1, 2**64 - 20_000])
def test_any_part_alone(backend: str, dtype: Any, offset: int) -> None:
    """However a stream is cut: at odd places and even, into parts of 0, 1, and more than any block."""
    size = 20_000
    whole = noise.gumbel(size, 77, offset=offset, dtype=dtype, backend=backend)
    cuts = [0, 0, 1, 2, 5, 4095, 4096, 4097, 9000, 17_385, 19_999, size]
    parts = [noise.gumbel(b - a, 77, offset=offset + a, dtype=dtype, backend=backend) for a, b in pairwise(cuts)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


@dtypes
def test_any_number_of_threads(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    for threads in ("1", "2", "7"):
        monkeypatch.setenv("NPSELECT_NUM_THREADS", threads)
        drawn.append(noise.gumbel(1_000_003, 5, offset=3, dtype=dtype, backend="cpu").tobytes())
    assert drawn[0] == drawn[1] == drawn[2]


# ------------------------------------------------------------------------------------------------ the distribution


@pytest.mark.slow
@dtypes
def test_a_hundred_million_draws_are_finite(dtype: Any) -> None:
    """And lie where ``u`` from 2**-53 to 1 - 2**-53 puts them: from -log(53 log 2) to 53 log 2, rounded."""
    buffer = np.empty(10_000_000, dtype)
    for part in range(10):
        drawn = noise.gumbel(len(buffer), 1, offset=part * len(buffer), dtype=dtype, out=buffer)
        assert drawn.min() > -3.604
        assert drawn.max() < 36.74


@dtypes
def test_kolmogorov_smirnov(dtype: Any) -> None:
    """Against SciPy's distribution; a wrong sign, a shift and a scale of a hundredth are noticed."""
    drawn = noise.gumbel(1_000_000, 3, dtype=dtype).astype(np.float64)
    for part in (drawn, drawn[::2], drawn[1::2]):  # even and odd numbers come from different words
        assert scipy.stats.kstest(part, scipy.stats.gumbel_r.cdf).pvalue > 1e-4
    for wrong in (-drawn, drawn + 0.01, drawn * 1.01):
        assert scipy.stats.kstest(wrong, scipy.stats.gumbel_r.cdf).pvalue < 1e-6


@pytest.mark.slow
def test_tails() -> None:
    """Counts beyond thresholds are binomial: 100 million draws, down to probabilities of 1e-7."""
    size, thresholds = 100_000_000, [-2.7, -2.5, 10.0, 13.0, 16.0]
    buffer, below, above = np.empty(10_000_000, np.float32), np.zeros(2, int), np.zeros(3, int)
    for part in range(10):
        drawn = noise.gumbel(len(buffer), 6, offset=part * len(buffer), out=buffer)
        below += [np.count_nonzero(drawn < limit) for limit in thresholds[:2]]
        above += [np.count_nonzero(drawn > limit) for limit in thresholds[2:]]
    probabilities = [*scipy.stats.gumbel_r.cdf(thresholds[:2]), *scipy.stats.gumbel_r.sf(thresholds[2:])]
    for count, probability in zip([*below, *above], probabilities, strict=True):
        assert scipy.stats.binomtest(int(count), size, probability).pvalue > 1e-5


@dtypes
def test_streams_are_uncorrelated(dtype: Any) -> None:
    """Neighbouring numbers, and the same numbers of neighbouring seeds: correlations of about n**-1/2."""
    size = 1_000_000
    one, other = (noise.gumbel(size, seed, dtype=dtype).astype(np.float64) for seed in (11, 12))
    for x, y in [(one[1:], one[:-1]), (one[2:], one[:-2]), (one, other), (one[1:], other[:-1])]:
        assert abs(np.corrcoef(x, y)[0, 1]) < 5 * size**-0.5
        assert abs(np.corrcoef(x**2, y**2)[0, 1]) < 5 * size**-0.5


@pytest.mark.slow
def test_no_tie_at_the_maximum() -> None:
    """131,072 equal logits in 3,000 rows: in none is the largest noise, in float32, there twice."""
    rows, choices = 100, 131_072
    buffer = np.empty((rows, choices), np.float32)
    for part in range(30):
        drawn = noise.gumbel(buffer.shape, 8, offset=part * buffer.size, out=buffer)
        assert np.count_nonzero(drawn == drawn.max(axis=1, keepdims=True)) == rows


# ------------------------------------------------------------------------------------------------ arguments


@backends
@dtypes
def test_shapes(backend: str, dtype: Any) -> None:
    flat = noise.gumbel(24, 4, dtype=dtype, backend=backend)
    for shape in [24, (24,), [2, 12], (2, 3, 4), np.array([4, 6]), (np.int8(1), 24)]:
        drawn = noise.gumbel(shape, 4, dtype=dtype, backend=backend)
        assert drawn.shape == (tuple(shape) if np.iterable(shape) else (shape,))
        assert drawn.dtype == dtype
        assert drawn.tobytes() == flat.tobytes()
    single = noise.gumbel((), 4, dtype=dtype, backend=backend)
    assert isinstance(single, dtype)
    assert single == flat[0]
    for shape in [0, (3, 0), (0, 2)]:
        assert noise.gumbel(shape, 4, offset=LAST, dtype=dtype, backend=backend).shape == np.empty(shape).shape


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@backends
def test_out(backend: str) -> None:
    expected = noise.gumbel((3, 4), 4, backend=backend)
    for out in [
        np.empty((3, 4), np.float32),
        np.empty((4, 3), np.float32).T,
        np.empty((3, 8), np.float32)[:, ::2],
        np.empty((3, 4), ">f4"),
        np.matrix(np.empty((3, 4), np.float32)),
    ]:
        assert noise.gumbel((3, 4), 4, out=out, backend=backend) is out
        assert np.array_equal(out, expected)
    read_only = np.empty((3, 4), np.float32)
    read_only.flags.writeable = False
    for wrong, error in [
        (np.empty((4, 3), np.float32), ValueError),
        (read_only, ValueError),
        (np.empty((3, 4), np.int64), TypeError),
        (np.empty((3, 4), np.float64), TypeError),  # as NumPy's generators: float32 noise is no float64 noise
        ([0.0] * 12, TypeError),
    ]:
        with pytest.raises(error, match="out"):
            noise.gumbel((3, 4), 4, out=wrong, backend=backend)  # type: ignore[arg-type]


@backends
@dtypes
@pytest.mark.parametrize("whole", [(), (7,), (4, 5), (3, 4, 5), (2, 3, 1, 4)])
def test_any_block_of_an_array(backend: str, dtype: Any, whole: tuple[int, ...]) -> None:
    rng = np.random.default_rng(len(whole))
    full = noise.gumbel(whole, 9, offset=2**63, dtype=dtype, backend=backend)
    for _ in range(20):
        start = tuple(int(rng.integers(0, n + 1)) for n in whole)
        shape = tuple(int(rng.integers(0, n - first + 1)) for n, first in zip(whole, start, strict=True))
        out = np.full(shape, np.nan, dtype)
        found = noise.gumbel(shape, 9, offset=2**63, dtype=dtype, within=(whole, start), out=out, backend=backend)
        assert found is out
        block = tuple(slice(first, first + n) for first, n in zip(start, shape, strict=True))
        np.testing.assert_array_equal(out, full[block])


def test_what_is_no_block() -> None:
    for within, error, message in (
        ((3,), TypeError, r"within is \(3,\); it takes a tuple"),
        (((3, 4), (0, 0.5)), TypeError, r"within\[1\] is \(0, 0.5\)"),
        (((3, 4), (-1, 0)), ValueError, r"within\[1\] is \(-1, 0\); no length may be negative"),
        (((3,), (1,)), ValueError, r"shape \(2, 4\) that starts at \(1,\) does not lie within .* shape \(3,\)"),
        (((3, 4), (2, 0)), ValueError, r"starts at \(2, 0\) does not lie within an array of shape \(3, 4\)"),
        (((2**33, 2**31), (0, 0)), ValueError, "2\\*\\*64"),
    ):
        with pytest.raises(error, match=message):
            noise.gumbel((2, 4), 1, offset=1, within=within)


@backends
def test_integers_of_any_type(backend: str) -> None:
    expected = noise.gumbel(2, 200, offset=7, backend=backend)
    for kind in (np.uint8, np.int16, np.int64, np.uint64):
        assert np.array_equal(noise.gumbel(kind(2), kind(200), offset=kind(7), backend=backend), expected)


@pytest.mark.parametrize("name", ["seed", "offset"])
def test_what_is_no_seed_or_offset(name: str) -> None:
    masked, boolean = np.ma.masked_array(3, mask=True), np.array(True)
    for wrong in (True, np.False_, 1.0, np.float64(2), "3", [4], np.array([1, 2]), 1j, masked, boolean):
        with pytest.raises(TypeError, match=f"{name} is .*integer"):
            noise.gumbel(**{"shape": 2, "seed": 1, name: wrong})
    for wrong in (-1, 2**64, np.int64(-5), 10**30):
        with pytest.raises(ValueError, match=rf"{name} is {wrong}; it must be at least 0 and less than 2\*\*64"):
            noise.gumbel(**{"shape": 2, "seed": 1, name: wrong})
    with pytest.raises(TypeError, match=r"seed is None"):
        noise.gumbel(2, None)  # type: ignore[arg-type]


@backends
def test_the_end_of_the_stream(backend: str) -> None:
    assert noise.gumbel(3, 1, offset=2**64 - 3, backend=backend).shape == (3,)
    with pytest.raises(ValueError, match=r"offset is 18446744073709551614 and 3 numbers .* 2\*\*64"):
        noise.gumbel(3, 1, offset=2**64 - 2, backend=backend)


def test_other_wrong_arguments() -> None:
    for dtype in (np.float16, np.int64, "complex128", np.longdouble if np.longdouble != np.float64 else "f2"):
        with pytest.raises(TypeError, match=r"dtype is .*; noise is drawn in float32 or float64"):
            noise.gumbel(2, 1, dtype=dtype)
    for shape in (1.5, "ab", b"12", "", (2, 1.0), None, True, (2, True)):
        with pytest.raises(TypeError, match=r"shape is .*integer"):
            noise.gumbel(shape, 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"shape is \(2, -1\); no length may be negative"):
        noise.gumbel((2, -1), 1)
    with pytest.raises(ValueError, match="backend is 'gpu'"):
        noise.gumbel(2, 1, backend="gpu")
    assert noise.gumbel(2, 1, dtype=None).dtype == np.float32
    with pytest.raises(RuntimeError, match="'cuda' does not run here"):
        noise.gumbel(2, 1, backend="cuda")
