"""The CPU tier's kernels for rows of up to 128 choices: sixteen rows at a time, each a lane of SIMD vectors.

The same operations on the same numbers, in the same order, as in `npselect.tiers.cpu.long_rows`, with the same
arguments. Scratch memory has a tile for each span that a kernel declares, and one more for sums and for results.
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
from npselect._arithmetic.exponential import Temperature, exp_constants, is_near, prepared
from npselect._arithmetic.half import narrow, narrow_vector, widen_vector
from npselect._arithmetic.primitives import fma, inlined, select
from npselect._arithmetic.simd import WIDTH, any_lane, broadcast, lane, load, store, subarray
from npselect._arithmetic.steps import (
    EMPTY,
    canonical_nan,
    curvature,
    double_entry,
    exponent,
    from_selected,
    grad_entry,
    is_finite,
    near_weight,
    per_weight,
    soft_entry,
    temp_share,
    temp_term,
    weight,
)
from npselect.tiers.cpu.compile import row_kernel
from npselect.tiers.cpu.fills import fill_degenerate_row, fill_nan_at_candidates
from npselect.tiers.cpu.loads import gather_lanes, load_clamped
from npselect.tiers.cpu.short_choice import (
    MAX_SHORT_ROW,
    TILE,
    choose,
    index_rows,
    load_tile,
    mask_rows,
    scratch_size,
    store_tile,
)

__all__ = [
    "MAX_SHORT_ROW",
    "TILE",
    "backward_rows",
    "backward_temp_rows",
    "double_backward_rows",
    "index_rows",
    "mask_rows",
    "scratch_size",
    "soft_rows",
    "sum_rows",
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
def _pad(x: Tile, choices: Choices) -> None:
    """Zeros up to a multiple of four columns."""
    for j in range(choices, (choices + 3) // 4 * 4):
        store(x, j * WIDTH, broadcast(x.dtype.type(0)))


@inlined
def _total(x: Tile, choices: Choices, sums: Tile) -> Number:
    """``sum_j x_j``."""
    for j in range(0, choices, 4):
        i = j * WIDTH
        even = load(x, i) + load(x, i + 2 * WIDTH)
        store(sums, i // 4, even + (load(x, i + WIDTH) + load(x, i + 3 * WIDTH)))
    return _fold(sums, choices)


@inlined
def _dot(x: Tile, y: Tile, choices: Choices, sums: Tile) -> Number:
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


@row_kernel(spans=1)
def sum_rows(x: Logits, out: Out, start: Row, stop: Row, scratch: Scratch) -> None:
    """Each row added up."""
    choices, nan = x.shape[1], scratch.dtype.type(np.nan)
    tile, sums = subarray(scratch, 0, TILE), subarray(scratch, TILE, TILE)
    for first in range(start, stop, WIDTH):
        last = min(first + WIDTH, stop) - 1
        load_tile(x, first, last, tile)
        _pad(tile, choices)
        s = _total(tile, choices, sums)
        for i in range(last - first + 1):
            out[first + i] = narrow(canonical_nan(lane(s, i), nan), out)


# ------------------------------------------------------------------------------------------------ a tile's numbers


@inlined
def _temperature(temp: Values, first: Row, last: Row, shared: Temperature) -> Temperature:
    """Those of the rows, or the one that all share."""
    return shared if len(temp) == 1 else prepared(load_clamped(temp, first, last))


@inlined
def _are_near(least: Number, top: Number, temp: Temperature) -> Flag:
    """Whether `near_weight` serves for all rows."""
    return not any_lane(~is_near(least, top, temp))


@inlined
def _fill_weights(
    x: Tile, top: Number, temp: Temperature, near: Flag, constants: Constants, choices: Choices, e: Tile
) -> None:
    """``e = exp((x - top) / temp)``, 0 at excluded entries; `e` may be `x`."""
    if near:
        for j in range(choices):
            store(e, j * WIDTH, near_weight(load(x, j * WIDTH), top, temp, constants))
    else:
        for j in range(choices):
            store(e, j * WIDTH, weight(load(x, j * WIDTH), top, temp))
    _pad(e, choices)


@inlined
def _fill_from_selected(cotangent: GradMask, first: Row, last: Row, x: Tile, m: Columns, near: Flag, h: Tile) -> None:
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
    _pad(h, choices)


@inlined
def _overwrite_degenerate(
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


# ------------------------------------------------------------------------------------------------ the soft passes


@row_kernel(spans=1)
def soft_rows(logits: Logits, temp: Values, where: Where, out: Out, start: Row, stop: Row, scratch: Scratch) -> None:
    """``probs = softmax(logits / temp)``."""
    choices = logits.shape[1]
    e, sums = subarray(scratch, 0, TILE), subarray(scratch, TILE, TILE)
    shared, constants = prepared(broadcast(temp[0])), exp_constants(temp[0] - temp[0])
    for first in range(start, stop, WIDTH):
        last = min(first + WIDTH, stop) - 1
        m, top, least = choose(logits, where, first, last, e, sums)
        divisor = _temperature(temp, first, last, shared)
        _fill_weights(e, top, divisor, _are_near(least, top, divisor), constants, choices, e)
        s = _total(e, choices, sums)
        for j in range(choices):
            store(e, j * WIDTH, narrow_vector(soft_entry(load(e, j * WIDTH), s), out))
        store_tile(e, out, first, last)
        _overwrite_degenerate(out, first, last, m, top, logits, where, scratch)


@row_kernel(spans=2)
def backward_rows(
    logits: Logits,
    grad_mask: GradMask,
    temp: Values,
    where: Where,
    out: Out,
    start: Row,
    stop: Row,
    scratch: Scratch,
) -> None:
    """The softmax's Jacobian times `grad_mask`."""
    choices = logits.shape[1]
    e, h, sums = subarray(scratch, 0, TILE), subarray(scratch, TILE, TILE), subarray(scratch, 2 * TILE, TILE)
    one, zero = scratch.dtype.type(1), scratch.dtype.type(0)
    shared, constants = prepared(broadcast(temp[0])), exp_constants(temp[0] - temp[0])
    for first in range(start, stop, WIDTH):
        last = min(first + WIDTH, stop) - 1
        m, top, least = choose(logits, where, first, last, e, sums)
        divisor = _temperature(temp, first, last, shared)
        near = _are_near(least, top, divisor)
        _fill_from_selected(grad_mask, first, last, e, m, near, h)
        _fill_weights(e, top, divisor, near, constants, choices, e)
        s = _total(e, choices, sums)
        d = _dot(e, h, choices, sums) / s
        q = per_weight(s, divisor, one)
        for j in range(choices):
            result = grad_entry(load(e, j * WIDTH), load(h, j * WIDTH) - d, q, divisor, zero)
            store(e, j * WIDTH, narrow_vector(result, out))
        store_tile(e, out, first, last)
        _overwrite_degenerate(out, first, last, m, d, logits, where, scratch)


@row_kernel(spans=3)
def backward_temp_rows(
    logits: Logits,
    grad_mask: GradMask,
    temp: Values,
    where: Where,
    out: Out,
    start: Row,
    stop: Row,
    scratch: Scratch,
) -> None:
    """Each row's share of grad_temp, in the compute type: ``-sum_i grad_logits_i t_i``."""
    choices = logits.shape[1]
    e, h, t, sums = (
        subarray(scratch, 0, TILE),
        subarray(scratch, TILE, TILE),
        subarray(scratch, 2 * TILE, TILE),
        subarray(scratch, 3 * TILE, TILE),
    )
    nan = scratch.dtype.type(np.nan)
    shared, constants = prepared(broadcast(temp[0])), exp_constants(temp[0] - temp[0])
    for first in range(start, stop, WIDTH):
        last = min(first + WIDTH, stop) - 1
        m, top, least = choose(logits, where, first, last, e, sums)
        divisor = _temperature(temp, first, last, shared)
        near = _are_near(least, top, divisor)
        _fill_from_selected(grad_mask, first, last, e, m, near, h)
        for j in range(choices):
            store(t, j * WIDTH, exponent(load(e, j * WIDTH), top, divisor))
        _fill_weights(e, top, divisor, near, constants, choices, e)
        s = _total(e, choices, sums)
        d = _dot(e, h, choices, sums) / s
        for j in range(choices):
            gradient, factor = temp_term(load(e, j * WIDTH), load(t, j * WIDTH), load(h, j * WIDTH) - d)
            store(h, j * WIDTH, gradient)
            store(t, j * WIDTH, factor)
        _pad(t, choices)
        share = temp_share(_dot(h, t, choices, sums), s, divisor)
        for i in range(last - first + 1):
            selected = lane(m, i)
            if selected >= 0:
                out[first + i] = canonical_nan(lane(share, i), nan)
            else:
                out[first + i] = 0 if selected == EMPTY else nan


@row_kernel(spans=3)
def double_backward_rows(
    logits: Logits,
    grad_grad_logits: GradMask,
    grad_mask: GradMask,
    temp: Values,
    where: Where,
    out_grad_mask: Out,
    out_logits: Out,
    start: Row,
    stop: Row,
    scratch: Scratch,
) -> None:
    """The gradient of `backward_rows`: grad_grad_mask_i = p_i (k_i - k_mean) / temp, and `double_entry`."""
    choices = logits.shape[1]
    e, h, k, sums = (
        subarray(scratch, 0, TILE),
        subarray(scratch, TILE, TILE),
        subarray(scratch, 2 * TILE, TILE),
        subarray(scratch, 3 * TILE, TILE),
    )
    one, zero = scratch.dtype.type(1), scratch.dtype.type(0)
    shared, constants = prepared(broadcast(temp[0])), exp_constants(temp[0] - temp[0])
    for first in range(start, stop, WIDTH):
        last = min(first + WIDTH, stop) - 1
        m, top, least = choose(logits, where, first, last, e, sums)
        divisor = _temperature(temp, first, last, shared)
        near = _are_near(least, top, divisor)
        _fill_from_selected(grad_mask, first, last, e, m, near, h)
        _fill_from_selected(grad_grad_logits, first, last, e, m, near, k)
        _fill_weights(e, top, divisor, near, constants, choices, e)
        s = _total(e, choices, sums)
        q = per_weight(s, divisor, one)
        mean = _dot(e, k, choices, sums) / s
        for j in range(choices):
            centred = load(k, j * WIDTH) - mean
            store(k, j * WIDTH, centred)
            result = grad_entry(load(e, j * WIDTH), centred, q, divisor, zero)
            store(sums, j * WIDTH, narrow_vector(result, out_grad_mask))
        store_tile(sums, out_grad_mask, first, last)
        _overwrite_degenerate(out_grad_mask, first, last, m, mean, logits, where, scratch)
        mean = _dot(e, h, choices, sums) / s
        for j in range(choices):
            store(h, j * WIDTH, curvature(load(h, j * WIDTH) - mean, load(k, j * WIDTH), zero))
        _pad(h, choices)
        mean = _dot(e, h, choices, sums) / s
        for j in range(choices):
            result = double_entry(load(e, j * WIDTH), load(h, j * WIDTH) - mean, q, divisor, zero)
            store(sums, j * WIDTH, narrow_vector(result, out_logits))
        store_tile(sums, out_logits, first, last)
        _overwrite_degenerate(out_logits, first, last, m, mean, logits, where, scratch)
