"""What the kernels for short rows share: sums over the columns of a tile, and the numbers that tiles are filled with.

The order of the sums is that of `npselect._arithmetic.order`, for each of the sixteen rows alike.
"""

from __future__ import annotations

import numpy as np

from npselect._arithmetic.aliases import (
    Choices,
    Columns,
    Constants,
    Flag,
    GradMask,
    Logits,
    Number,
    Out,
    Row,
    Scratch,
    Tile,
    Values,
    Where,
)
from npselect._arithmetic.exponential import Temperature, is_near, prepared
from npselect._arithmetic.half import widen_vector
from npselect._arithmetic.primitives import fma, inlined, select
from npselect._arithmetic.simd import WIDTH, any_lane, broadcast, lane, load, store
from npselect._arithmetic.steps import from_selected, is_finite, near_weight, weight
from npselect.tiers.cpu.fills import fill_degenerate_row, fill_nan_at_candidates
from npselect.tiers.cpu.loads import gather_lanes, load_clamped
from npselect.tiers.cpu.short_choice import load_tile

__all__ = [
    "are_near",
    "dot",
    "fill_from_selected",
    "fill_weights",
    "overwrite_degenerate",
    "pad",
    "temperature",
    "total",
]

# ------------------------------------------------------------------------------------------------ sums


@inlined
def _fold(sums: Tile, choices: Choices) -> Number:
    """The sums of four columns each added up by halves."""
    zero = broadcast(sums.dtype.type(0))
    quads = (choices + 3) // 4
    width = 16
    while width >= quads:
        width //= 2
    for i in range(quads, 2 * width):
        store(sums, i * WIDTH, zero)
    while width > 0:
        for i in range(width):
            store(sums, i * WIDTH, load(sums, i * WIDTH) + load(sums, (i + width) * WIDTH))
        width //= 2
    return load(sums, 0) + zero


@inlined
def pad(x: Tile, choices: Choices) -> None:
    """Zeros up to a multiple of four columns."""
    for j in range(choices, (choices + 3) // 4 * 4):
        store(x, j * WIDTH, broadcast(x.dtype.type(0)))


@inlined
def total(x: Tile, choices: Choices, sums: Tile) -> Number:
    """``sum_j x_j``."""
    for j in range(0, choices, 4):
        i = j * WIDTH
        even = load(x, i) + load(x, i + 2 * WIDTH)
        store(sums, i // 4, even + (load(x, i + WIDTH) + load(x, i + 3 * WIDTH)))
    return _fold(sums, choices)


@inlined
def dot(x: Tile, y: Tile, choices: Choices, sums: Tile) -> Number:
    """``sum_j x_j y_j``."""
    zero = broadcast(x.dtype.type(0))
    for j in range(0, choices, 4):
        i = j * WIDTH
        a = fma(load(x, i), load(y, i), zero)
        b = fma(load(x, i + WIDTH), load(y, i + WIDTH), zero)
        c = fma(load(x, i + 2 * WIDTH), load(y, i + 2 * WIDTH), zero)
        d = fma(load(x, i + 3 * WIDTH), load(y, i + 3 * WIDTH), zero)
        store(sums, i // 4, (a + c) + (b + d))
    return _fold(sums, choices)


# ------------------------------------------------------------------------------------------------ a tile's numbers


@inlined
def temperature(temp: Values, first: Row, last: Row, shared: Temperature) -> Temperature:
    """Those of the rows, or the one that all share."""
    return shared if len(temp) == 1 else prepared(load_clamped(temp, first, last))


@inlined
def are_near(least: Number, top: Number, temp: Temperature) -> Flag:
    """Whether `near_weight` serves for all rows."""
    return not any_lane(~is_near(least, top, temp))


@inlined
def fill_weights(
    x: Tile, top: Number, temp: Temperature, near: Flag, constants: Constants, choices: Choices, e: Tile
) -> None:
    """``e = exp((x - top) / temp)``, 0 at excluded entries; `e` may be `x`."""
    if near:
        for j in range(choices):
            store(e, j * WIDTH, near_weight(load(x, j * WIDTH), top, temp, constants))
    else:
        for j in range(choices):
            store(e, j * WIDTH, weight(load(x, j * WIDTH), top, temp))
    pad(e, choices)


@inlined
def fill_from_selected(cotangent: GradMask, first: Row, last: Row, x: Tile, m: Columns, near: Flag, h: Tile) -> None:
    """``h = g - g_m``, 0 at excluded entries, where the cotangent may hold anything, NaN too."""
    zero = x.dtype.type(0)
    choices = cotangent.shape[1]
    load_tile(cotangent, first, last, h)
    selected = widen_vector(gather_lanes(h, select(m < 0, 0, m)), cotangent)
    for j in range(choices):
        difference = from_selected(widen_vector(load(h, j * WIDTH), cotangent), selected)
        if not near:
            difference = select(load(x, j * WIDTH) == x.dtype.type(-np.inf), zero, difference)
        store(h, j * WIDTH, difference)
    pad(h, choices)


@inlined
def overwrite_degenerate(
    out: Out, first: Row, last: Row, m: Columns, mean: Number, logits: Logits, where: Where, scratch: Scratch
) -> None:
    """Rows with nothing selected, and rows whose `mean` is not finite."""
    if not any_lane((m < 0) | ~((mean < np.inf) & (mean > -np.inf))):
        return
    for i in range(last - first + 1):
        if lane(m, i) < 0:
            fill_degenerate_row(out, first + i, lane(m, i), scratch)
        elif not is_finite(lane(mean, i)):
            fill_nan_at_candidates(out, first + i, logits, where, scratch)
