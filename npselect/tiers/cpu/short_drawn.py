"""The CPU tier's kernels for rows of up to 128 choices whose gradient depends on what was drawn, `choice`.

See `npselect.tiers.cpu.short_rows`; weights are measured from the largest logit, cotangents from the drawn entry's.
"""

from __future__ import annotations

import numpy as np

from npselect._arithmetic.aliases import (
    Choices,
    Columns,
    Constants,
    GradMask,
    Indices,
    Logits,
    Number,
    Out,
    Row,
    Scratch,
    Tile,
    Values,
    Where,
)
from npselect._arithmetic.exponential import Temperature, exp_constants, prepared
from npselect._arithmetic.half import narrow_vector
from npselect._arithmetic.primitives import inlined, select
from npselect._arithmetic.simd import WIDTH, broadcast, lane, load, store, subarray
from npselect._arithmetic.steps import (
    ADAPTIVE,
    adaptive_gap,
    capped,
    capped_weight,
    grad_entry,
    per_weight,
    reinmax_entry,
    reinmax_selected,
    soft_entry,
)
from npselect.tiers.cpu.compile import row_kernel
from npselect.tiers.cpu.loads import gather_lanes
from npselect.tiers.cpu.short_choice import TILE, choose, drawn, store_tile
from npselect.tiers.cpu.short_passes import (
    are_near,
    dot,
    fill_from_selected,
    fill_weights,
    overwrite_degenerate,
    temperature,
    total,
)

__all__ = ["gapped_rows", "gapped_soft_rows", "reinmax_rows"]


@row_kernel(buffers=3)
def reinmax_rows(
    logits: Logits,
    grad_mask: GradMask,
    choice: Indices,
    temp: Values,
    where: Where,
    out: Out,
    start: Row,
    stop: Row,
    scratch: Scratch,
) -> None:
    """ReinMax's backward pass at each row's choice m; p are the weights at temperature 1, q those at `temp`."""
    choices = logits.shape[1]
    p, q = subarray(scratch, 0, TILE), subarray(scratch, TILE, TILE)
    h, sums = subarray(scratch, 2 * TILE, TILE), subarray(scratch, 3 * TILE, TILE)
    zero, one, half = scratch.dtype.type(0), scratch.dtype.type(1), scratch.dtype.type(0.5)
    shared, unit = prepared(broadcast(temp[0])), prepared(broadcast(one))
    constants = exp_constants(temp[0] - temp[0])
    for first in range(start, stop, WIDTH):
        last = min(first + WIDTH, stop) - 1
        state, top, least = choose(logits, where, first, last, p, sums)
        m = drawn(choice, first, last, state)
        divisor = temperature(temp, first, last, shared)
        p_near, q_near = are_near(least, top, unit), are_near(least, top, divisor)
        fill_from_selected(grad_mask, first, last, p, m, q_near, h)
        fill_weights(p, top, divisor, q_near, constants, choices, q)
        fill_weights(p, top, unit, p_near, constants, choices, p)
        p_sum, q_sum = total(p, choices, sums), total(q, choices, sums)
        a, b = dot(q, h, choices, sums) / q_sum, dot(p, h, choices, sums) / p_sum
        at_selected = select(m < 0, 0, m)
        p_m, q_m = soft_entry(gather_lanes(p, at_selected), p_sum), soft_entry(gather_lanes(q, at_selected), q_sum)
        selected = reinmax_selected(p_m, q_m, a, b, half, zero)
        for j in range(choices):
            p_j, q_j = soft_entry(load(p, j * WIDTH), p_sum), soft_entry(load(q, j * WIDTH), q_sum)
            result = reinmax_entry(p_j, q_j, load(h, j * WIDTH), a, b, half, zero)
            store(sums, j * WIDTH, narrow_vector(select(m == j, selected, result), out))
        store_tile(sums, out, first, last)
        overwrite_degenerate(out, first, last, m, a, logits, where, scratch)
        overwrite_degenerate(out, first, last, m, b, logits, where, scratch)


# ------------------------------------------------------------------------------------------------ gapped


@inlined
def _caps(
    x: Tile,
    m: Columns,
    top: Number,
    least: Number,
    divisor: Temperature,
    gap: Values,
    constants: Constants,
    choices: Choices,
    e: Tile,
    sums: Tile,
) -> Number:
    """Each row's largest weight beside the drawn one's. The memory of `e` is free after the call."""
    high, low = broadcast(gap[0]), broadcast(gap[1])
    if gap[0] == ADAPTIVE:
        one, zero = e.dtype.type(1), e.dtype.type(0)
        unit = prepared(broadcast(one))
        fill_weights(x, top, unit, are_near(least, top, unit), constants, choices, e)
        own = gather_lanes(e, select(m < 0, 0, m))
        for j in range(choices):
            store(e, j * WIDTH, select(m == j, zero, load(e, j * WIDTH)))
        rest = total(e, choices, sums)
        for i in range(WIDTH):
            exact = adaptive_gap(lane(own, i), lane(rest, i))
            e[i] = e.dtype.type(exact)
            e[WIDTH + i] = e.dtype.type(exact - np.float64(e[i]))
        high, low = load(e, 0), load(e, WIDTH)
    return capped_weight(high, low, divisor)


@inlined
def _cap_weights(e: Tile, m: Columns, cap: Number, choices: Choices) -> None:
    """1 for the drawn entry, and no more than the cap for the others."""
    one = e.dtype.type(1)
    for j in range(choices):
        store(e, j * WIDTH, select(m == j, one, capped(load(e, j * WIDTH), cap)))


@row_kernel(buffers=2)
def gapped_rows(
    logits: Logits,
    grad_mask: GradMask,
    choice: Indices,
    temp: Values,
    where: Where,
    gap: Values,
    out: Out,
    start: Row,
    stop: Row,
    scratch: Scratch,
) -> None:
    """GST's backward pass at each row's choice; `gap` in two words."""
    choices = logits.shape[1]
    e, h, sums = subarray(scratch, 0, TILE), subarray(scratch, TILE, TILE), subarray(scratch, 2 * TILE, TILE)
    one, zero = scratch.dtype.type(1), scratch.dtype.type(0)
    shared, constants = prepared(broadcast(temp[0])), exp_constants(temp[0] - temp[0])
    for first in range(start, stop, WIDTH):
        last = min(first + WIDTH, stop) - 1
        state, top, least = choose(logits, where, first, last, e, sums)
        m = drawn(choice, first, last, state)
        divisor = temperature(temp, first, last, shared)
        near = are_near(least, top, divisor)
        cap = _caps(e, m, top, least, divisor, gap, constants, choices, h, sums)
        fill_from_selected(grad_mask, first, last, e, m, near, h)
        fill_weights(e, top, divisor, near, constants, choices, e)
        _cap_weights(e, m, cap, choices)
        s = total(e, choices, sums)
        d = dot(e, h, choices, sums) / s
        q = per_weight(s, divisor, one)
        for j in range(choices):
            result = grad_entry(load(e, j * WIDTH), load(h, j * WIDTH) - d, q, divisor, zero)
            store(e, j * WIDTH, narrow_vector(result, out))
        store_tile(e, out, first, last)
        overwrite_degenerate(out, first, last, m, d, logits, where, scratch)


@row_kernel(buffers=2)
def gapped_soft_rows(
    logits: Logits,
    choice: Indices,
    temp: Values,
    where: Where,
    gap: Values,
    out: Out,
    start: Row,
    stop: Row,
    scratch: Scratch,
) -> None:
    """The probabilities of GST's backward pass."""
    choices = logits.shape[1]
    x, e, sums = subarray(scratch, 0, TILE), subarray(scratch, TILE, TILE), subarray(scratch, 2 * TILE, TILE)
    shared, constants = prepared(broadcast(temp[0])), exp_constants(temp[0] - temp[0])
    for first in range(start, stop, WIDTH):
        last = min(first + WIDTH, stop) - 1
        state, top, least = choose(logits, where, first, last, x, sums)
        m = drawn(choice, first, last, state)
        divisor = temperature(temp, first, last, shared)
        cap = _caps(x, m, top, least, divisor, gap, constants, choices, e, sums)
        fill_weights(x, top, divisor, are_near(least, top, divisor), constants, choices, e)
        _cap_weights(e, m, cap, choices)
        s = total(e, choices, sums)
        for j in range(choices):
            store(e, j * WIDTH, narrow_vector(soft_entry(load(e, j * WIDTH), s), out))
        store_tile(e, out, first, last)
        overwrite_degenerate(out, first, last, m, top, logits, where, scratch)
