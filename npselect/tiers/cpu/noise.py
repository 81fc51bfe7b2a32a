"""Gumbel noise for whole arrays: drawn, or added to logits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from npselect._arithmetic.gumbel import gumbel, quick_gumbel, uniform, words_of
from npselect._arithmetic.half import widen
from npselect._arithmetic.primitives import compiles, formula, inlined
from npselect._arithmetic.simd import WIDE, counted, is_any, load_wide, store, store_in_turn
from npselect.tiers.cpu.compile import allocating_kernel

__all__ = ["add_rows", "draw", "draw_at", "perturb", "perturb_at"]

_BIT = np.uint64(1)


@formula
def _gumbels32(u: Any, out: Any) -> Any:
    """By wide packs, and then those in doubt."""
    for first in range(0, len(out), WIDE):
        store(out, first, quick_gumbel(load_wide(u, first)))
    for first in range(0, len(out), WIDE):
        quick = load_wide(out, first)
        if is_any(quick != quick):
            for i in range(first, min(first + WIDE, len(out))):
                if out[i] != out[i]:
                    out[i] = np.float32(gumbel(u[i]))


@formula
def _gumbels64(u: Any, out: Any) -> Any:
    for i in range(len(out)):
        out[i] = gumbel(u[i])


def gumbels(u: Any, out: Any) -> Any:
    """The noise of each uniform in the type of `out`, float32 or float64.

    In float32, a multiple of `WIDE` numbers is read and written, whatever the length of `out`.
    """
    raise NotImplementedError("packs are for compiled code alone")


@compiles(gumbels)
def _gumbels(u: Any, out: Any) -> Any:
    if out.dtype == types.float32:
        return lambda u, out: _gumbels32(u, out)
    return lambda u, out: _gumbels64(u, out)


_BLOCK = 2048  # numbers that are drawn at a time; a multiple of WIDE


@inlined
def _room(n: Any, out: Any) -> Any:
    """For the uniforms and the noise of n numbers, or of a block."""
    size = min((n + WIDE - 1) // WIDE * WIDE, _BLOCK)
    return np.empty(size), np.empty(size, out.dtype)


@formula
def _draw(seed: Any, counter: Any, u: Any, noise: Any) -> Any:
    for i in range(0, len(noise), WIDE):
        even, odd = words_of(counted(counter + np.uint64(i >> 1)), seed)
        store_in_turn(u, i, uniform(even), uniform(odd))
    gumbels(u, noise)


@allocating_kernel
def draw(seed: Any, first: Any, out: Any) -> Any:
    """The numbers `first`, ``first + 1``, ... of the stream."""
    skipped: Any = np.int64(first & _BIT)  # from even to odd, as two numbers come of one block
    n = skipped + len(out)
    u, noise = _room(n, out)
    for start in range(0, n, _BLOCK):
        stop, begin = min(start + _BLOCK, n), max(start, skipped)
        _draw(seed, (first >> _BIT) + np.uint64(start >> 1), u, noise[: stop - start])
        drawn, some = noise[begin - start :], out[begin - skipped : stop - skipped]
        for i in range(len(some)):
            some[i] = drawn[i]


@allocating_kernel
def draw_at(seed: Any, numbers: Any, out: Any) -> Any:
    """Any numbers of the stream."""
    u, noise = _room(len(out), out)
    for start in range(0, len(out), _BLOCK):
        places, some = numbers[start : start + _BLOCK], out[start : start + _BLOCK]
        for i in range(len(some)):
            even, odd = words_of(places[i] >> _BIT, seed)
            u[i] = uniform(odd if places[i] & _BIT else even)
        gumbels(u, noise[: len(some)])
        for i in range(len(some)):
            some[i] = noise[i]


@allocating_kernel
def perturb(logits: Any, seed: Any, first: Any, out: Any) -> Any:
    """``logits + noise``, in the type of the noise, which is that of `out`: the numbers from `first` on."""
    skipped: Any = np.int64(first & _BIT)
    n = skipped + len(out)
    u, noise = _room(n, out)
    for start in range(0, n, _BLOCK):
        stop, begin = min(start + _BLOCK, n), max(start, skipped)
        _draw(seed, (first >> _BIT) + np.uint64(start >> 1), u, noise[: stop - start])
        drawn, some = noise[begin - start :], out[begin - skipped : stop - skipped]
        values = logits[begin - skipped : stop - skipped]
        for i in range(len(some)):
            some[i] = drawn[i] + widen(values[i])


@allocating_kernel
def perturb_at(logits: Any, seed: Any, numbers: Any, out: Any) -> Any:
    """The same with any numbers of the stream."""
    draw_at(seed, numbers, out)
    for i in range(len(out)):
        out[i] += widen(logits[i])


@allocating_kernel
def add_rows(logits: Any, noise: Any, out: Any) -> Any:
    """``logits + noise``, the noise given: a row for each, or one for all."""
    for r in range(len(out)):
        values, added, row = logits[r], noise[r if len(noise) > 1 else 0], out[r]
        for j in range(len(row)):
            row[j] = widen(values[j]) + added[j]
