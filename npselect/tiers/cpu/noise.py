"""Gumbel noise for whole arrays: drawn, or added to logits."""

from __future__ import annotations

import numpy as np
from numba import types

from npselect._arithmetic.aliases import Array, Chosen, Logits, NumbaType, Number, Out, Row, Values, Word
from npselect._arithmetic.gumbel import gumbel, quick_gumbel, uniform, words_of
from npselect._arithmetic.half import widen
from npselect._arithmetic.primitives import compiles, formula, inlined
from npselect._arithmetic.simd import WIDE, any_lane, iota, load_wide, store, store_interleaved
from npselect.tiers.cpu.compile import allocating_kernel

__all__ = ["add_rows", "draw", "draw_at", "perturb", "perturb_at"]

_BIT = np.uint64(1)


@formula
def _gumbels32(u: Values, out: Out) -> None:
    """By the quick formula in wide vectors, then by the exact one where the quick one is in doubt."""
    for first in range(0, len(out), WIDE):
        store(out, first, quick_gumbel(load_wide(u, first)))
    for first in range(0, len(out), WIDE):
        quick = load_wide(out, first)
        if any_lane(quick != quick):
            for i in range(first, min(first + WIDE, len(out))):
                if out[i] != out[i]:
                    out[i] = np.float32(gumbel(u[i]))


@formula
def _gumbels64(u: Values, out: Out) -> None:
    for i in range(len(out)):
        out[i] = gumbel(u[i])


def gumbels(u: Values, out: Out) -> None:
    """The noise of each uniform in the type of `out`, float32 or float64.

    In float32, a multiple of `WIDE` numbers is read and written, whatever the length of `out`.
    """
    raise NotImplementedError("SIMD vectors exist in compiled code alone")


@compiles(gumbels)
def _gumbels(u: NumbaType, out: NumbaType) -> Chosen:
    if out.dtype == types.float32:
        return lambda u, out: _gumbels32(u, out)
    return lambda u, out: _gumbels64(u, out)


_BLOCK = 2048  # numbers that are drawn at a time; a multiple of WIDE


@inlined
def _buffers(n: Row, out: Out) -> tuple[Values, Values]:
    """Memory for the uniforms and the noise of n numbers, or of a block."""
    size = min((n + WIDE - 1) // WIDE * WIDE, _BLOCK)
    return np.empty(size), np.empty(size, out.dtype)


@formula
def _draw(seed: Word, counter: Word, u: Values, noise: Values) -> None:
    for i in range(0, len(noise), WIDE):
        even, odd = words_of(iota(counter + np.uint64(i >> 1)), seed)
        store_interleaved(u, i, uniform(even), uniform(odd))
    gumbels(u, noise)


@allocating_kernel
def draw(seed: Word, first: Word, out: Out) -> None:
    """The numbers `first`, ``first + 1``, ... of the stream."""
    skipped: Row = np.int64(first & _BIT)  # a counter gives an even number and an odd one
    n = skipped + len(out)
    u, noise = _buffers(n, out)
    for start in range(0, n, _BLOCK):
        stop, begin = min(start + _BLOCK, n), max(start, skipped)
        _draw(seed, (first >> _BIT) + np.uint64(start >> 1), u, noise[: stop - start])
        drawn, some = noise[begin - start :], out[begin - skipped : stop - skipped]
        for i in range(len(some)):
            some[i] = drawn[i]


@allocating_kernel
def draw_at(seed: Word, numbers: Array, out: Out) -> None:
    """Any numbers of the stream."""
    u, noise = _buffers(len(out), out)
    for start in range(0, len(out), _BLOCK):
        wanted, some = numbers[start : start + _BLOCK], out[start : start + _BLOCK]
        for i in range(len(some)):
            even, odd = words_of(wanted[i] >> _BIT, seed)
            u[i] = uniform(odd if wanted[i] & _BIT else even)
        gumbels(u, noise[: len(some)])
        for i in range(len(some)):
            some[i] = noise[i]


@allocating_kernel
def perturb(logits: Logits, seed: Word, first: Word, scale: Number, out: Out) -> None:
    """``logits + scale noise``, in the type of the noise, which is that of `out`: the numbers from `first` on."""
    skipped: Row = np.int64(first & _BIT)
    n = skipped + len(out)
    u, noise = _buffers(n, out)
    for start in range(0, n, _BLOCK):
        stop, begin = min(start + _BLOCK, n), max(start, skipped)
        _draw(seed, (first >> _BIT) + np.uint64(start >> 1), u, noise[: stop - start])
        drawn, some = noise[begin - start :], out[begin - skipped : stop - skipped]
        values = logits[begin - skipped : stop - skipped]
        for i in range(len(some)):
            some[i] = scale * drawn[i] + widen(values[i])


@allocating_kernel
def perturb_at(logits: Logits, seed: Word, numbers: Array, scale: Number, out: Out) -> None:
    """The same with any numbers of the stream."""
    draw_at(seed, numbers, out)
    for i in range(len(out)):
        out[i] = scale * out[i] + widen(logits[i])


@allocating_kernel
def add_rows(logits: Logits, noise: Values, scale: Number, out: Out) -> None:
    """``logits + scale noise``, the noise given: a row for each, or one for all."""
    for r in range(len(out)):
        values, added, row = logits[r], noise[r if len(noise) > 1 else 0], out[r]
        for j in range(len(row)):
            row[j] = widen(values[j]) + scale * added[j]
