"""The kernels' formulas of logarithms, noise and the generator, run by numba and by Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from inputs import Array
from numba import njit

from npselect._arithmetic import gumbel, logarithm, simd
from npselect.tiers.cpu import noise as kernels

Record = Callable[[str, float], None]


@njit
def quick_log(x: Any, out: Any) -> None:
    for i in range(len(x)):
        out[i] = -logarithm.quick_minus_log(x[i])


@njit
def rough_log(x: Any, out: Any) -> None:
    for i in range(len(x)):
        out[i] = logarithm.rough_log(x[i])


@njit
def rough_log_of_vectors(x: Any, out: Any) -> None:
    for i in range(0, len(x), simd.WIDE):
        simd.store(out, i, logarithm.rough_log(simd.load_wide(x, i)))


@njit
def words(x: Any, out: Any) -> None:
    for i in range(x.shape[1]):
        out[0, i], out[1, i], out[2, i] = logarithm.log_triple_word(x[0, i], x[1, i], x[2, i])


@njit
def products(x: Any, out: Any) -> None:
    for i in range(x.shape[1]):
        out[0, i], out[1, i] = logarithm._product(x[0, i], x[1, i], x[2, i], x[3, i])


@njit
def sums(x: Any, out: Any) -> None:
    for i in range(x.shape[1]):
        out[0, i], out[1, i] = logarithm._sum(x[0, i], x[1, i], x[2, i], x[3, i])


@njit
def logs_of_one_plus(x: Any, out: Any) -> None:
    for i in range(x.shape[1]):
        out[0, i], out[1, i] = logarithm._log_of_one_plus(x[0, i], x[1, i])


@njit
def _gumbels(u: Any, out: Any) -> None:
    kernels.gumbels(u, out)


@njit
def rounded(x: Any, out: Any) -> None:
    for i in range(x.shape[1]):
        out[i] = gumbel._rounded(x[0, i], x[1, i], x[2, i])


@njit
def uniforms(words: Any, out: Any) -> None:
    for i in range(len(words)):
        out[i] = gumbel.uniform(words[i])


@njit
def philox(x: Any, out: Any) -> None:
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
