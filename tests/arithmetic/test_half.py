"""16-bit numbers in and out of the kernels: every pattern, every midpoint, compiled and as run in Python."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numba import njit

from npselect._arithmetic import half


@njit
def _widen(stored: Any, out: Any) -> None:
    for i in range(len(stored)):
        out[i] = half.widen(stored[i])


@njit
def _narrow(x: Any, out: Any) -> None:
    for i in range(len(x)):
        out[i] = half.narrow(x[i], out)


formats = pytest.mark.parametrize(
    ("dtype", "bits"), [(np.dtype(np.float16), np.uint16), (np.dtype(ml_dtypes.bfloat16), np.int16)], ids=str
)


@formats
def test_widen_every_pattern(dtype: Any, bits: Any) -> None:
    patterns = np.arange(65536).astype(np.uint16).view(bits)
    with np.errstate(invalid="ignore"):
        expected = patterns.view(dtype).astype(np.float32)
    compiled = np.empty(65536, np.float32)
    _widen(patterns, compiled)
    plain = np.array([half.widen(pattern) for pattern in patterns])
    assert plain.dtype == np.float32
    np.testing.assert_array_equal(
        compiled.view(np.uint32)[~np.isnan(expected)], expected.view(np.uint32)[~np.isnan(expected)]
    )
    assert np.array_equal(np.isnan(compiled), np.isnan(expected))
    np.testing.assert_array_equal(plain.view(np.uint32), compiled.view(np.uint32))


@formats
def test_narrow_every_midpoint(dtype: Any, bits: Any) -> None:
    """Every number, every midpoint of two neighbours, and the float32 next to each, of both signs."""
    infinity = int(np.array(np.inf, dtype).view(np.uint16))
    numbers = np.arange(infinity).astype(np.uint16).view(dtype).astype(np.float64)
    beyond = 2 * numbers[-1] - numbers[-2]  # what would follow the largest number
    midpoints = (numbers + np.append(numbers[1:], beyond)) / 2
    x = np.concatenate([numbers, midpoints]).astype(np.float32)
    assert np.array_equal(x.astype(np.float64)[infinity:], midpoints)
    with np.errstate(over="ignore"):
        x = np.concatenate([x, np.nextafter(x, np.float32(0)), np.nextafter(x, np.float32(np.inf))])
        x = np.append(x, np.array([np.inf, np.nan, 3.4e38, 1e-45, 1e-38], np.float32))
        x = np.concatenate([x, -x])
        expected = x.astype(dtype)
    compiled = np.empty(len(x), bits)
    _narrow(x, compiled)
    compiled_numbers = compiled.view(dtype)
    assert np.array_equal(np.isnan(compiled_numbers), np.isnan(x))
    right = (compiled == expected.view(bits)) | np.isnan(x)
    assert np.all(right), x[~right][:3]
    some = np.random.default_rng(0).choice(len(x), 20000, replace=False)
    some = np.append(some, np.flatnonzero(~np.isfinite(x)))
    with np.errstate(over="ignore", invalid="ignore"):
        plain = np.array([half.narrow(value, compiled) for value in x[some]])
    assert np.array_equal(plain, compiled[some])
