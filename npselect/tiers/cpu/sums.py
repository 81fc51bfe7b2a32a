"""Sums over a row, in the order of `npselect._arithmetic.order`.

The scratch memory `lanes` has `LANES` numbers of the compute type.
"""

from __future__ import annotations

from npselect._arithmetic.aliases import Column, Lanes, Number, Values
from npselect._arithmetic.order import LANES, SEGMENT
from npselect._arithmetic.primitives import fma, formula, inlined
from npselect._arithmetic.simd import WIDTH, broadcast, load, store, sum_of_lanes

__all__ = ["padded_dot", "padded_sums", "padded_total", "total"]


@formula
def _fold(lanes: Lanes) -> Number:
    """The sum of the lanes, in fours, then by halves; never -0."""
    quads = LANES // 4
    for i in range(quads):
        lanes[i] = (lanes[4 * i] + lanes[4 * i + 2]) + (lanes[4 * i + 1] + lanes[4 * i + 3])
    width = quads // 2
    while width > 0:
        for i in range(width):
            lanes[i] += lanes[i + width]
        width //= 2
    return lanes[0] + lanes.dtype.type(0)


@formula
def total(x: Values, lanes: Lanes) -> Number:
    """``sum_j x_j``."""
    n, result = len(x), lanes.dtype.type(0)
    for start in range(0, n, SEGMENT):
        stop = min(start + SEGMENT, n)
        whole = start + (stop - start) // LANES * LANES
        for lane in range(LANES):
            lanes[lane] = 0
        for base in range(start, whole, LANES):  # slices of a known length are vectorised
            a = x[base : base + LANES]
            for lane in range(LANES):
                lanes[lane] += a[lane]
        a = x[whole:stop]
        for lane in range(len(a)):
            lanes[lane] += a[lane]
        result += _fold(lanes)
    return result


# The same for buffers, which are padded with zeros to whole vectors. Here `lanes` has twice as many numbers.


@inlined
def _fold_vectors(lanes: Lanes, i: Column) -> Number:
    a, b, c, d = load(lanes, i), load(lanes, i + WIDTH), load(lanes, i + 2 * WIDTH), load(lanes, i + 3 * WIDTH)
    i += 4 * WIDTH
    e, f, g, h = load(lanes, i), load(lanes, i + WIDTH), load(lanes, i + 2 * WIDTH), load(lanes, i + 3 * WIDTH)
    return sum_of_lanes(a, b, c, d, e, f, g, h) + lanes.dtype.type(0)


@inlined
def _first_visit(start: Column, stop: Column, lanes: Lanes) -> Column:
    """The end of the columns that are the first of their lanes, and are stored, not added; the other lanes become 0."""
    for lane in range(stop - start, LANES, WIDTH):
        store(lanes, lane, broadcast(lanes.dtype.type(0)))
        store(lanes, LANES + lane, broadcast(lanes.dtype.type(0)))
    return min(start + LANES, stop)


@inlined
def padded_sums(x: Values, y: Values, x_before: Number, before: Number, lanes: Lanes) -> tuple[Number, Number]:
    """``x_before + sum_j x_j`` and ``before + sum_j x_j y_j``, the sums before being those of whole segments."""
    zero = lanes.dtype.type(0)
    for start in range(0, len(x), SEGMENT):
        stop = min(start + SEGMENT, len(x))
        first = _first_visit(start, stop, lanes)
        for j in range(start, first, WIDTH):
            some = load(x, j)
            store(lanes, j - start, some)
            store(lanes, LANES + j - start, fma(some, load(y, j), zero))
        for j in range(first, stop, WIDTH):
            some, lane = load(x, j), (j - start) & (LANES - 1)
            store(lanes, lane, load(lanes, lane) + some)
            store(lanes, LANES + lane, fma(some, load(y, j), load(lanes, LANES + lane)))
        x_before += _fold_vectors(lanes, 0)
        before += _fold_vectors(lanes, LANES)
    return x_before, before


@inlined
def padded_dot(x: Values, y: Values, before: Number, lanes: Lanes) -> Number:
    """``before + sum_j x_j y_j`` alone."""
    zero = lanes.dtype.type(0)
    for start in range(0, len(x), SEGMENT):
        stop = min(start + SEGMENT, len(x))
        first = _first_visit(start, stop, lanes)
        for j in range(start, first, WIDTH):
            store(lanes, j - start, fma(load(x, j), load(y, j), zero))
        for j in range(first, stop, WIDTH):
            lane = (j - start) & (LANES - 1)
            store(lanes, lane, fma(load(x, j), load(y, j), load(lanes, lane)))
        before += _fold_vectors(lanes, 0)
    return before


@inlined
def padded_total(x: Values, before: Number, lanes: Lanes) -> Number:
    """``before + sum_j x_j`` alone."""
    for start in range(0, len(x), SEGMENT):
        stop = min(start + SEGMENT, len(x))
        first = _first_visit(start, stop, lanes)
        for j in range(start, first, WIDTH):
            store(lanes, j - start, load(x, j))
        for j in range(first, stop, WIDTH):
            lane = (j - start) & (LANES - 1)
            store(lanes, lane, load(lanes, lane) + load(x, j))
        before += _fold_vectors(lanes, 0)
    return before
