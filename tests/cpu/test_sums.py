"""Sums in their fixed order: padding changes nothing, the sign of zero included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba import njit

from npselect.tiers.cpu import sums

types = pytest.mark.parametrize("kind", [np.float32, np.float64])
LENGTHS = [1, 2, 3, 4, 5, 7, 8, 33, 63, 100, 127, 128, 129, 200, 1023, 1024, 1025, 3000]


@njit
def _total(x: Any, lanes: Any) -> Any:
    return sums.total(x, lanes)


@njit
def _padded_total(x: Any, before: Any, lanes: Any) -> Any:
    return sums.padded_total(x, before, lanes)


@njit
def _padded_dot(x: Any, y: Any, before: Any, lanes: Any) -> Any:
    return sums.padded_dot(x, y, before, lanes)


@njit
def _padded_sums(x: Any, y: Any, x_before: Any, before: Any, lanes: Any) -> Any:
    return sums.padded_sums(x, y, x_before, before, lanes)


def padded(x: Any) -> Any:
    return np.append(x, np.zeros(-len(x) % 16, x.dtype))


def in_order(terms: Any) -> Any:
    """The sum as the page has it, every lane taking part."""
    result = terms.dtype.type(0)
    for start in range(0, len(terms), 1024):
        padded = np.zeros(1024, terms.dtype)
        padded[: len(terms[start : start + 1024])] = terms[start : start + 1024]
        lanes = np.zeros(128, terms.dtype)
        for term in padded.reshape(8, 128):
            lanes += term
        lanes = (lanes[::4] + lanes[2::4]) + (lanes[1::4] + lanes[3::4])
        for width in (16, 8, 4, 2, 1):
            lanes = lanes[:width] + lanes[width : 2 * width]
        result += lanes[0]
    return result


@types
@pytest.mark.parametrize("n", LENGTHS)
def test_order(kind: Any, n: int) -> None:
    x = np.random.default_rng(n).normal(size=n).astype(kind)
    lanes = np.full(2 * sums.LANES, np.nan, kind)
    for function in (_total, sums.total):
        found = function(x, lanes)
        assert type(found) is kind or isinstance(found, float)
        assert found == in_order(x)
    two = np.full(n, kind(2.0))
    for size in (1024, 2048, 4096):  # the columns before are carried
        separate = together = kind(0), kind(0)
        for first in range(0, n, size):
            part, twos = padded(x[first : first + size]), padded(two[first : first + size])
            separate = kind(_padded_total(part, separate[0], lanes)), kind(_padded_dot(part, twos, separate[1], lanes))
            together = _padded_sums(part, twos, kind(together[0]), kind(together[1]), lanes)
        assert separate == together == (in_order(x), in_order(two * x))


@types
@pytest.mark.parametrize("n", LENGTHS)
def test_no_sum_is_negative_zero(kind: Any, n: int) -> None:
    lanes = np.empty(2 * sums.LANES, kind)
    zeros = np.full(n, -0.0, kind)
    tiny = np.full(n, np.finfo(kind).smallest_subnormal)
    for function in (_total, sums.total):
        assert not np.signbit(function(zeros, lanes))
    assert not np.signbit(_padded_total(padded(zeros), kind(0), lanes))
    assert not np.signbit(_padded_sums(padded(tiny), padded(np.full(n, kind(-0.25))), kind(0), kind(0), lanes)).any()
    assert not np.signbit(_padded_dot(padded(tiny), padded(np.full(n, kind(-0.25))), kind(0), lanes))
