"""The CPU tier's kernels for rows of 32 choices and more whose gradient depends on what was drawn, `choice`.

See `npselect.tiers.cpu.long_rows`; weights are measured from the largest logit, cotangents from the drawn entry's.
"""

from __future__ import annotations

import numpy as np

from npselect._arithmetic.aliases import (
    Choices,
    Column,
    GradMask,
    Index,
    Indices,
    Lanes,
    Logits,
    Number,
    Out,
    Row,
    Scratch,
    Values,
    Where,
)
from npselect._arithmetic.exponential import exp_constants, prepared
from npselect._arithmetic.half import narrow, narrow_vector, widen
from npselect._arithmetic.order import SEGMENT
from npselect._arithmetic.primitives import inlined
from npselect._arithmetic.simd import WIDTH, load, store, subarray
from npselect._arithmetic.steps import (
    ADAPTIVE,
    adaptive_gap,
    capped,
    capped_weight,
    grad_entry,
    is_finite,
    per_weight,
    reinmax_entry,
    reinmax_selected,
    soft_entry,
    weight,
)
from npselect.tiers.cpu.compile import row_kernel
from npselect.tiers.cpu.fills import fill_degenerate_row, fill_nan_at_candidates
from npselect.tiers.cpu.loads import store_vector
from npselect.tiers.cpu.long_choice import choose
from npselect.tiers.cpu.long_passes import (
    BUFFERS,
    WeightedRow,
    capacity_of,
    end_of,
    fill_from_selected,
    fill_weights,
    steps_of,
    temperature,
    weighted,
)
from npselect.tiers.cpu.sums import padded_sums, padded_total

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
    n, capacity = logits.shape[1], capacity_of(scratch, 3)
    lanes, p = subarray(scratch, 0, BUFFERS), subarray(scratch, BUFFERS, capacity)
    q, h = subarray(scratch, BUFFERS + capacity, capacity), subarray(scratch, BUFFERS + 2 * capacity, capacity)
    steps, zero, one, half = (
        steps_of(n, capacity),
        scratch.dtype.type(0),
        scratch.dtype.type(1),
        scratch.dtype.type(0.5),
    )
    constants, shared, unit = exp_constants(temp[0] - temp[0]), prepared(temp[0]), prepared(one)
    for r in range(start, stop):
        state, top, least = choose(logits, where, r, scratch)
        m = state if state < 0 else choice[r]
        if m < 0:
            fill_degenerate_row(out, r, m, scratch)
            continue
        p_row = weighted(logits, where, r, top, least, unit, constants)
        q_row = weighted(logits, where, r, top, least, temperature(temp, r, shared), constants)
        selected = widen(grad_mask[r, m])
        p_sum, q_sum, a, b = zero, zero, zero, zero
        for phase in range(1 if steps == 1 else 2):
            for step in range(steps):
                first, end = step * SEGMENT, end_of(n, step, steps)
                size = fill_weights(p_row, first, end, p)
                fill_weights(q_row, first, end, q)
                fill_from_selected(grad_mask, q_row, first, end, selected, h)
                if phase == 0:
                    p_sum, b = padded_sums(subarray(p, 0, size), subarray(h, 0, size), p_sum, b, lanes)
                    q_sum, a = padded_sums(subarray(q, 0, size), subarray(h, 0, size), q_sum, a, lanes)
                if phase == 0 and step == steps - 1:
                    a, b = a / q_sum, b / p_sum
                if phase == 1 or steps == 1:
                    for j in range(first, end, WIDTH):
                        i = min(j, end - WIDTH)
                        p_i, q_i = soft_entry(load(p, i - first), p_sum), soft_entry(load(q, i - first), q_sum)
                        result = reinmax_entry(p_i, q_i, load(h, i - first), a, b, half, zero)
                        store_vector(narrow_vector(result, out), out, r, i)
        x = widen(logits[r, m])
        p_m, q_m = soft_entry(weight(x, top, unit), p_sum), soft_entry(weight(x, top, q_row.temp), q_sum)
        out[r, m] = narrow(reinmax_selected(p_m, q_m, a, b, half, zero), out)
        if not (is_finite(a) and is_finite(b)):
            fill_nan_at_candidates(out, r, logits, where, scratch)


# ------------------------------------------------------------------------------------------------ gapped


@inlined
def _cap(row: WeightedRow, unit: WeightedRow, m: Index, gap: Values, e: Values, lanes: Lanes) -> Number:
    """The largest weight beside the drawn one's; `unit` is the row at temperature 1. `e` is free after the call."""
    high, low, n = gap[0], gap[1], row.logits.shape[1]
    if high == ADAPTIVE:
        steps, rest = steps_of(n, len(e)), e.dtype.type(0)
        for step in range(steps):
            first, end = step * SEGMENT, end_of(n, step, steps)
            size = fill_weights(unit, first, end, e)
            if first <= m < end:
                e[m - first] = 0
            rest = padded_total(subarray(e, 0, size), rest, lanes)
        exact = adaptive_gap(weight(widen(row.logits[row.r, m]), row.top, unit.temp), rest)
        high = e.dtype.type(exact)
        low = e.dtype.type(exact - np.float64(high))
    return capped_weight(high, low, row.temp)


@inlined
def _fill_capped_weights(row: WeightedRow, first: Column, end: Column, m: Index, cap: Number, e: Values) -> Choices:
    """1 for the drawn entry, and no more than the cap for the others; returns the buffer's padded size."""
    size = fill_weights(row, first, end, e)
    for j in range(0, size, WIDTH):
        store(e, j, capped(load(e, j), cap))
    if first <= m < end:
        e[m - first] = 1
    return size


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
    n, capacity = logits.shape[1], capacity_of(scratch, 2)
    lanes, e, h = (
        subarray(scratch, 0, BUFFERS),
        subarray(scratch, BUFFERS, capacity),
        subarray(scratch, BUFFERS + capacity, capacity),
    )
    steps, zero, one = steps_of(n, capacity), scratch.dtype.type(0), scratch.dtype.type(1)
    constants, shared, unit = exp_constants(temp[0] - temp[0]), prepared(temp[0]), prepared(one)
    for r in range(start, stop):
        state, top, least = choose(logits, where, r, scratch)
        m = state if state < 0 else choice[r]
        if m < 0:
            fill_degenerate_row(out, r, m, scratch)
            continue
        row = weighted(logits, where, r, top, least, temperature(temp, r, shared), constants)
        cap = _cap(row, weighted(logits, where, r, top, least, unit, constants), m, gap, e, lanes)
        selected = widen(grad_mask[r, m])
        s, d, q = zero, zero, zero
        for phase in range(1 if steps == 1 else 2):
            for step in range(steps):
                first, end = step * SEGMENT, end_of(n, step, steps)
                size = _fill_capped_weights(row, first, end, m, cap, e)
                fill_from_selected(grad_mask, row, first, end, selected, h)
                if phase == 0:
                    s, d = padded_sums(subarray(e, 0, size), subarray(h, 0, size), s, d, lanes)
                if phase == 0 and step == steps - 1:
                    d, q = d / s, per_weight(s, row.temp, one)
                if phase == 1 or steps == 1:
                    for j in range(first, end, WIDTH):
                        i = min(j, end - WIDTH)
                        result = grad_entry(load(e, i - first), load(h, i - first) - d, q, row.temp, zero)
                        store_vector(narrow_vector(result, out), out, r, i)
        if not is_finite(d):
            fill_nan_at_candidates(out, r, logits, where, scratch)


@row_kernel(buffers=1)
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
    n, capacity = logits.shape[1], capacity_of(scratch, 1)
    lanes, e = subarray(scratch, 0, BUFFERS), subarray(scratch, BUFFERS, capacity)
    steps, zero = steps_of(n, capacity), scratch.dtype.type(0)
    constants, shared, unit = (
        exp_constants(temp[0] - temp[0]),
        prepared(temp[0]),
        prepared(scratch.dtype.type(1)),
    )
    for r in range(start, stop):
        state, top, least = choose(logits, where, r, scratch)
        m = state if state < 0 else choice[r]
        if m < 0:
            fill_degenerate_row(out, r, m, scratch)
            continue
        row = weighted(logits, where, r, top, least, temperature(temp, r, shared), constants)
        cap = _cap(row, weighted(logits, where, r, top, least, unit, constants), m, gap, e, lanes)
        s = zero
        for phase in range(1 if steps == 1 else 2):
            for step in range(steps):
                first, end = step * SEGMENT, end_of(n, step, steps)
                size = _fill_capped_weights(row, first, end, m, cap, e)
                if phase == 0:
                    s = padded_total(subarray(e, 0, size), s, lanes)
                if phase == 1 or steps == 1:
                    for j in range(first, end, WIDTH):
                        i = min(j, end - WIDTH)
                        store_vector(narrow_vector(soft_entry(load(e, i - first), s), out), out, r, i)
