"""Many rows, and long ones: lengths around every power of two from 2,048 to 65,536.

The rows are made of the rows of a small case, which the oracle is asked instead (`npselect.testing.case.Origin`):
repeated, permuted, or with many more of the entries that weigh next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from npselect.testing.aliases import Array, Dtype
from npselect.testing.case import Case, Origin, spread
from npselect.testing.range_cases import largest_power, reachable
from npselect.testing.tolerance import ulp

__all__ = ["long_cases"]


_TEMP = 0.75  # of all: what weighs next to nothing depends on it
_HOT, _COLD = 48, 16  # entries that count in a long row, and others that stand for the rest
_DEPTH = 48.0  # below the largest entry: at this temperature, 2**17 of the others weigh less than 2**-75 of it
_BLOCKS = [2**power for power in range(11, 17)]


def long_cases(dtype: Dtype) -> Iterator[Case]:
    """The cases."""
    rng = np.random.default_rng(20261130)

    def small(w: Array, scale: float = 1.0) -> Case:
        g = scale * rng.standard_normal(w.shape).clip(-3, 3)
        return Case("random/", "", (scale * w).astype(dtype), g.astype(dtype), scale * _TEMP)

    repeated = np.arange(65793) % 1021  # a prime number of rows: no power of two leads to the same row
    yield spread(
        "random/many rows",
        "the same for each of 65,793 rows as for any other",
        Origin(small(_distinct(rng, 1021, 3)), repeated, np.arange(3)[None]),
    )
    permuted = rng.permuted(np.tile(np.arange(2049, dtype=np.int16), (512, 1)), axis=-1)
    yield spread(
        "random/many long rows",
        "more than 2**20 entries, no candidate of which is missed, not even now and then",
        Origin(small(_distinct(rng, 3, 2049) / 4), np.arange(512) % 3, permuted),
    )
    far, scale = -reachable(dtype)[-1], 2.0 ** (largest_power(dtype) - 7)
    for block in _BLOCKS:
        last, middle = block - 1, block // 2
        for choices, offsets, tops, factor in (
            (block - 1, (-60.0, -60.0), [(last - 1,), (0, last - 1)], scale),
            (block, (20.0, -20.0), [(last,), (middle - 1, middle, last)], 1.0),
            (block + 1, (-20.0, -20.0, far), [(block,), (last, block), (middle + 7,)], 1.0),
        ):
            base = small(_peaked(rng, offsets, [len(places) for places in tops], dtype), factor)
            columns = np.stack([_places(rng, choices, places) for places in tops])
            note = f"all {choices} choices and nothing else, in blocks of any size: the first of equals, all negative"
            yield spread(f"random/K={choices}, few large", note, Origin(base, np.arange(len(tops)), columns))


def _distinct(rng: np.random.Generator, rows: int, choices: int) -> Array:
    """Random halves, but for the largest, which is 1 larger than all others."""
    w = np.round(3 * rng.standard_normal((rows, choices)).clip(-4, 4)) / 2
    top = rng.integers(0, choices, (rows, 1))
    np.put_along_axis(w, top, np.max(w, axis=-1, keepdims=True) + 1, axis=-1)
    return w


def _peaked(rng: np.random.Generator, offsets: tuple[float, ...], ties: list[int], dtype: Dtype) -> Array:
    """Rows of largest entries, so many of them and first in the row, of some that count and of others, far below."""
    largest = np.array(offsets)[:, None]
    step = np.maximum(2 * ulp(np.abs(largest) + 2 * _DEPTH, dtype), 0.125)
    below = rng.integers(2, 9, (len(offsets), _HOT + _COLD)).astype(np.float64)
    for row, count in zip(below, ties, strict=True):
        row[:count] = 0
    below[:, _HOT:] += np.ceil(_DEPTH / step)
    return np.asarray(np.round(largest / step) * step - below * step)


def _places(rng: np.random.Generator, choices: int, tops: tuple[int, ...]) -> Array:
    """Which of the entries of `_peaked` stands where: the largest at `tops`, those that count anywhere, once each."""
    columns = rng.integers(_HOT, _HOT + _COLD, choices).astype(np.int8)
    others = np.setdiff1d(rng.permutation(choices)[: 2 * _HOT], tops, assume_unique=True)
    places = [*tops, *rng.permutation(others)[: _HOT - len(tops)]]
    columns[places] = np.arange(_HOT)
    return columns
