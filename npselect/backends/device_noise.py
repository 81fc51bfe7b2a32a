"""Noise inside the kernels of the CUDA tier: read, or drawn where it is added.

A float32 number is quick, or in doubt (see `npselect.backends.gumbel`); a float64 number is always taken for doubtful.
Doubtful numbers are drawn with all words one after another, once the quick ones are there: the long formula stands in
a kernel once, and what a thread holds can stay in registers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import types

from npselect.backends.device_launch import Launcher
from npselect.backends.device_primitives import block, load, store, thread
from npselect.backends.device_quads import column, computed_in, reading, widening
from npselect.backends.gumbel import _UNCERTAIN, _block, gumbel, uniform
from npselect.backends.logarithms import log
from npselect.backends.primitives import fma, inlined

__all__ = ["PAIRS", "draw", "perturbing"]

PAIRS = 128  # of numbers, that a block of threads draws

_ONE_BIT, _ONE = np.uint64(1), np.float64(1.0)


@inlined
def _neighbouring_words(seed: Any, number: Any, step: Any) -> Any:
    """The words of four numbers that follow each other; an odd first one makes it three blocks."""
    counter = number >> _ONE_BIT
    a, b = _block(counter, seed)
    c, d = _block(counter + _ONE_BIT, seed)
    if number & _ONE_BIT:
        e, _ = _block(counter + np.uint64(2), seed)
        return b, c, d, e
    return a, b, c, d


@inlined
def _word(seed: Any, number: Any) -> Any:
    even, odd = _block(number >> _ONE_BIT, seed)
    return odd if number & _ONE_BIT else even


@inlined
def _scattered_words(seed: Any, number: Any, step: Any) -> Any:
    return (
        _word(seed, number),
        _word(seed, number + step),
        _word(seed, number + step + step),
        _word(seed, number + step + step + step),
    )


def _words_of(aligned: bool) -> Callable[..., Any]:
    return _neighbouring_words if aligned else _scattered_words


@inlined
def _quick(word: Any) -> Any:
    """The float32 that a quick number is rounded to, and 1 if that is in doubt, else 0."""
    g = log(-log(uniform(word)))
    size = _ONE + abs(g)
    low, high = np.float32(fma(-_UNCERTAIN, size, -g)), np.float32(fma(_UNCERTAIN, size, -g))
    return low, 0 if low == high else 1


@inlined
def _certain(source: Any, place: Any, first: Any, n: Any, w: Any) -> Any:
    return 0


def perturbing(kind: Any, result: Any, noise: str, aligned: bool, held: int) -> Callable[..., Any]:
    """``fetch(source, place, first, n, w)``: ``w <- logits + noise``, -inf where there is no candidate.

    It reads `held` quads, the first from column `first` on. The sum is taken in the type that the logits' kind is
    computed in, and then brought into that of the result's.
    """
    read, of_quad = reading(kind, aligned), column(aligned)
    added_in, compute = computed_in(kind), computed_in(result)
    pad, nothing = added_in(-np.inf), added_in(0)

    @inlined
    def settled(source: Any, place: Any, at: Any, n: Any, x: Any) -> Any:
        if source.where != 0 and at < n and load(source.where, place.row * source.where_stride + at, np.uint8) == 0:
            return compute(-np.inf)
        return compute(x)

    @inlined
    def put(source: Any, place: Any, at: Any, n: Any, w: Any, k: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
        w[k] = settled(source, place, of_quad(place, at, 0), n, a)
        w[k + 1] = settled(source, place, of_quad(place, at, 1), n, b)
        w[k + 2] = settled(source, place, of_quad(place, at, 2), n, c)
        w[k + 3] = settled(source, place, of_quad(place, at, 3), n, d)

    @inlined
    def fetch_alone(source: Any, place: Any, first: Any, n: Any, w: Any) -> Any:
        base = place.row * source.choices
        for i in range(held):
            at = first + 4 * place.group * i
            a, b, c, d = read(source.logits, base, place, at, n, pad)
            put(source, place, at, n, w, 4 * i, a, b, c, d)

    read_noise = reading(added_in, aligned)

    @inlined
    def fetch_and_add(source: Any, place: Any, first: Any, n: Any, w: Any) -> Any:
        base, noise_base = place.row * source.choices, place.row * source.noise_stride
        for i in range(held):
            at = first + 4 * place.group * i
            a, b, c, d = read(source.logits, base, place, at, n, pad)
            e, f, g, h = read_noise(source.noise, noise_base, place, at, n, nothing)
            put(source, place, at, n, w, 4 * i, a + e, b + f, c + g, d + h)

    words, widen = _words_of(aligned), widening(kind)

    @inlined
    def quick_quad(source: Any, place: Any, at: Any, n: Any, w: Any, k: Any) -> Any:
        """The quick numbers of a quad, and one bit for each slot of `w` whose number is in doubt."""
        base = place.row * source.choices
        a, b, c, d = read(source.logits, base, place, at, n, pad)
        p, q, r, s = words(source.seed, source.offset + np.uint64(base + at), np.uint64(place.group))
        e, e_doubtful = _quick(p)
        f, f_doubtful = _quick(q)
        g, g_doubtful = _quick(r)
        h, h_doubtful = _quick(s)
        put(source, place, at, n, w, k, a + e, b + f, c + g, d + h)
        return (e_doubtful | (f_doubtful << 1) | (g_doubtful << 2) | (h_doubtful << 3)) << k

    def quick_from(i: int) -> Callable[..., Any]:
        """Quad after quad, written out: a loop that long would not be unrolled, and `w` leave the registers."""
        rest = quick_from(i + 1) if i + 1 < held else _certain

        @inlined
        def quick(source: Any, place: Any, first: Any, n: Any, w: Any) -> Any:
            doubtful = quick_quad(source, place, first + 4 * place.group * i, n, w, 4 * i)
            return doubtful | rest(source, place, first, n, w)

        return quick

    @inlined
    def none_quick(source: Any, place: Any, first: Any, n: Any, w: Any) -> Any:
        for k in range(4 * held):
            w[k] = compute(-np.inf)
        return (1 << (4 * held)) - 1

    start = quick_from(0) if added_in is np.float32 else none_quick

    @inlined
    def fetch_and_draw(source: Any, place: Any, first: Any, n: Any, w: Any) -> Any:
        base, slot = place.row * source.choices, 0
        doubtful = start(source, place, first, n, w)
        while doubtful != 0:
            at = of_quad(place, first + 4 * place.group * (slot >> 2), slot & 3)
            if doubtful & 1 and at < n:
                g = gumbel(uniform(_word(source.seed, source.offset + np.uint64(base + at))))
                x = settled(source, place, at, n, widen(load(source.logits, base + at, kind)) + added_in(g))
                for k in range(4 * held):
                    w[k] = x if k == slot else w[k]
            doubtful >>= 1
            slot += 1

    return {"none": fetch_alone, "array": fetch_and_add, "drawn": fetch_and_draw}[noise]


# ------------------------------------------------------------------------------------------------ noise alone


@cache
def draw(kind: Any) -> Launcher:
    """``(seed, first, out, n)``: the numbers from `first` on, by pairs of an even one and the odd one after it."""

    @inlined
    def put(word: Any, out: Any, place: Any, n: Any) -> Any:
        if 0 <= place < n:
            if kind is np.float32:
                x, doubtful = _quick(word)
                if doubtful != 0:
                    x = np.float32(gumbel(uniform(word)))
                store(out, place, kind, x)
            else:
                store(out, place, kind, gumbel(uniform(word)))

    def kernel(seed: Any, first: Any, out: Any, n: Any) -> None:
        pair = block() * PAIRS + thread()
        place = 2 * pair - np.int64(first & _ONE_BIT)
        even, odd = _block((first >> _ONE_BIT) + np.uint64(pair), seed)
        put(even, out, place, n)
        put(odd, out, place + 1, n)

    return Launcher(kernel, (types.uint64, types.uint64, types.int64, types.int64), PAIRS)
