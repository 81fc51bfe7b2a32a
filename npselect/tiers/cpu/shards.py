"""Kernels over a shard, some columns of long rows: what it adds to the sums of a row, and its part of the results.

A shard begins at a multiple of `SEGMENT`, so its segments are the whole row's, and so are their sums. Of the row, a
shard is told the largest logit, the selected candidate (or why there is none) and that one's cotangent. The formulas
are those of `npselect._arithmetic.steps`. Rows have `WIDTH` columns at least: `as_shard` adds excluded ones.
"""

from __future__ import annotations

import numpy as np

from npselect._arithmetic.aliases import Array, GradMask, Indices, Logits, Out, Row, Scratch, Values, Where
from npselect._arithmetic.exponential import exp_constants, prepared
from npselect._arithmetic.half import narrow, narrow_vector, stored
from npselect._arithmetic.order import SEGMENT
from npselect._arithmetic.simd import WIDTH, load, store, subarray
from npselect._arithmetic.steps import (
    EMPTY,
    canonical_nan,
    grad_entry,
    is_finite,
    per_weight,
    reinmax_entry,
    reinmax_selected,
    soft_entry,
    temp_share,
    temp_term,
    weight,
)
from npselect._threads import over_rows
from npselect.tiers.cpu.compile import RowKernel, row_kernel
from npselect.tiers.cpu.fills import fill_degenerate_row, fill_nan_at_candidates
from npselect.tiers.cpu.loads import store_vector
from npselect.tiers.cpu.long_passes import (
    BUFFERS,
    capacity_of,
    end_of,
    fill_exponents,
    fill_from_selected,
    fill_weights,
    scratch_size,
    steps_of,
    temperature,
    weighted,
)
from npselect.tiers.cpu.long_rows import sum_rows
from npselect.tiers.cpu.sums import padded_dot, padded_sums, padded_total

__all__ = [
    "added_up",
    "as_shard",
    "backward",
    "reinmax",
    "segments_of",
    "soft",
    "sums",
    "temp_shares",
    "temp_sums",
    "totals",
]

_EVERYWHERE = np.empty((0, 0), dtype=np.bool_)


def segments_of(choices: int) -> int:
    """How many segments a shard of so many columns has."""
    return -(-choices // SEGMENT)


def as_shard(array: Array, filler: float) -> Array:
    """The columns, and as many of `filler` as make a SIMD vector of them."""
    missing = WIDTH - array.shape[1]
    if missing <= 0:
        return array
    added = np.full((len(array), missing), filler, array.dtype)
    return np.concatenate([array, added], axis=1)


# ------------------------------------------------------------------------------------------------ kernels


@row_kernel(buffers=1)
def _total_rows(
    logits: Logits, choice: Indices, top: Values, temp: Values, where: Where, out: Out, start: Row, stop: Row,
    scratch: Scratch,
) -> None:  # fmt: skip
    """Of each segment, ``sum_i e_i``."""
    n, capacity = logits.shape[1], capacity_of(scratch, 1)
    lanes, e = subarray(scratch, 0, BUFFERS), subarray(scratch, BUFFERS, capacity)
    steps, zero, lowest = steps_of(n, capacity), scratch.dtype.type(0), scratch.dtype.type(-np.inf)
    constants, shared = exp_constants(temp[0] - temp[0]), prepared(temp[0])
    for r in range(start, stop):
        for segment in range(out.shape[1]):
            out[r, segment, 0] = zero
        if choice[r] < 0:
            continue
        row = weighted(logits, where, r, top[r], lowest, temperature(temp, r, shared), constants)
        for step in range(steps):
            first, end = step * SEGMENT, end_of(n, step, steps)
            size = fill_weights(row, first, end, e)
            for j in range(0, end - first, SEGMENT):
                part = subarray(e, j, min(SEGMENT, size - j))
                out[r, step + j // SEGMENT, 0] = padded_total(part, zero, lanes)


@row_kernel(buffers=2)
def _sum_rows(
    logits: Logits, grad_mask: GradMask, choice: Indices, top: Values, selected: Values, temp: Values, where: Where,
    out: Out, start: Row, stop: Row, scratch: Scratch,
) -> None:  # fmt: skip
    """Of each segment, ``sum_i e_i`` and ``sum_i e_i h_i``."""
    n, capacity = logits.shape[1], capacity_of(scratch, 2)
    lanes, e, h = (
        subarray(scratch, 0, BUFFERS),
        subarray(scratch, BUFFERS, capacity),
        subarray(scratch, BUFFERS + capacity, capacity),
    )
    steps, zero, lowest = steps_of(n, capacity), scratch.dtype.type(0), scratch.dtype.type(-np.inf)
    constants, shared = exp_constants(temp[0] - temp[0]), prepared(temp[0])
    for r in range(start, stop):
        for segment in range(out.shape[1]):
            out[r, segment, 0], out[r, segment, 1] = zero, zero
        if choice[r] < 0:
            continue
        row = weighted(logits, where, r, top[r], lowest, temperature(temp, r, shared), constants)
        for step in range(steps):
            first, end = step * SEGMENT, end_of(n, step, steps)
            size = fill_weights(row, first, end, e)
            fill_from_selected(grad_mask, row, first, end, selected[r], h)
            for j in range(0, end - first, SEGMENT):
                length = min(SEGMENT, size - j)
                s, d = padded_sums(subarray(e, j, length), subarray(h, j, length), zero, zero, lanes)
                out[r, step + j // SEGMENT, 0], out[r, step + j // SEGMENT, 1] = s, d


@row_kernel(buffers=1)
def _soft_rows(
    logits: Logits, choice: Indices, top: Values, sums: Values, temp: Values, where: Where, out: Out, start: Row,
    stop: Row, scratch: Scratch,
) -> None:  # fmt: skip
    """``p_i = e_i / s``."""
    n, capacity = logits.shape[1], capacity_of(scratch, 1)
    e, steps, lowest = subarray(scratch, BUFFERS, capacity), steps_of(n, capacity), scratch.dtype.type(-np.inf)
    constants, shared = exp_constants(temp[0] - temp[0]), prepared(temp[0])
    for r in range(start, stop):
        if choice[r] < 0:
            fill_degenerate_row(out, r, choice[r], scratch)
            continue
        row, s = weighted(logits, where, r, top[r], lowest, temperature(temp, r, shared), constants), sums[r, 0]
        for step in range(steps):
            first, end = step * SEGMENT, end_of(n, step, steps)
            fill_weights(row, first, end, e)
            for j in range(first, end, WIDTH):
                i = min(j, end - WIDTH)
                store_vector(narrow_vector(soft_entry(load(e, i - first), s), out), out, r, i)


@row_kernel(buffers=2)
def _backward_rows(
    logits: Logits, grad_mask: GradMask, choice: Indices, top: Values, selected: Values, sums: Values, temp: Values,
    where: Where, scale: Values, out: Out, start: Row, stop: Row, scratch: Scratch,
) -> None:  # fmt: skip
    """``grad_logits_i = p_i (h_i - d) / temp``, times `scale`."""
    n, capacity = logits.shape[1], capacity_of(scratch, 2)
    e, h = subarray(scratch, BUFFERS, capacity), subarray(scratch, BUFFERS + capacity, capacity)
    steps, zero, lowest = steps_of(n, capacity), scratch.dtype.type(0), scratch.dtype.type(-np.inf)
    constants, shared = exp_constants(temp[0] - temp[0]), prepared(temp[0])
    for r in range(start, stop):
        if choice[r] < 0:
            fill_degenerate_row(out, r, choice[r], scratch)
            continue
        row = weighted(logits, where, r, top[r], lowest, temperature(temp, r, shared), constants)
        d, q = sums[r, 1] / sums[r, 0], per_weight(sums[r, 0], row.temp, scale[0])
        for step in range(steps):
            first, end = step * SEGMENT, end_of(n, step, steps)
            fill_weights(row, first, end, e)
            fill_from_selected(grad_mask, row, first, end, selected[r], h)
            for j in range(first, end, WIDTH):
                i = min(j, end - WIDTH)
                result = grad_entry(load(e, i - first), load(h, i - first) - d, q, row.temp, zero)
                store_vector(narrow_vector(result, out), out, r, i)
        if not is_finite(d):
            fill_nan_at_candidates(out, r, logits, where, scratch)


@row_kernel(buffers=3)
def _temp_sum_rows(
    logits: Logits, grad_mask: GradMask, choice: Indices, top: Values, selected: Values, sums: Values, temp: Values,
    where: Where, out: Out, start: Row, stop: Row, scratch: Scratch,
) -> None:  # fmt: skip
    """Of each segment, ``sum_i e_i (h_i - d) t_i``."""
    n, capacity = logits.shape[1], capacity_of(scratch, 3)
    lanes, e, h, t = (
        subarray(scratch, 0, BUFFERS),
        subarray(scratch, BUFFERS, capacity),
        subarray(scratch, BUFFERS + capacity, capacity),
        subarray(scratch, BUFFERS + 2 * capacity, capacity),
    )
    steps, zero, lowest = steps_of(n, capacity), scratch.dtype.type(0), scratch.dtype.type(-np.inf)
    constants, shared = exp_constants(temp[0] - temp[0]), prepared(temp[0])
    for r in range(start, stop):
        for segment in range(out.shape[1]):
            out[r, segment, 0] = zero
        if choice[r] < 0:
            continue
        row = weighted(logits, where, r, top[r], lowest, temperature(temp, r, shared), constants)
        d = sums[r, 1] / sums[r, 0]
        for step in range(steps):
            first, end = step * SEGMENT, end_of(n, step, steps)
            size = fill_weights(row, first, end, e)
            fill_from_selected(grad_mask, row, first, end, selected[r], h)
            fill_exponents(row, first, end, t)
            for j in range(0, size, WIDTH):
                gradient, factor = temp_term(load(e, j), load(t, j), load(h, j) - d)
                store(h, j, gradient)
                store(t, j, factor)
            for j in range(0, end - first, SEGMENT):
                length = min(SEGMENT, size - j)
                found = padded_dot(subarray(h, j, length), subarray(t, j, length), zero, lanes)
                out[r, step + j // SEGMENT, 0] = found


@row_kernel(buffers=3)
def _reinmax_rows(
    logits: Logits, grad_mask: GradMask, choice: Indices, top: Values, selected: Values, own: Values, place: Indices,
    p_sums: Values, q_sums: Values, temp: Values, where: Where, out: Out, start: Row, stop: Row, scratch: Scratch,
) -> None:  # fmt: skip
    """ReinMax's gradient; what was drawn has the logit `own`, the cotangent `selected`, and `place` in the shard."""
    n, capacity = logits.shape[1], capacity_of(scratch, 3)
    p, q, h = (
        subarray(scratch, BUFFERS, capacity),
        subarray(scratch, BUFFERS + capacity, capacity),
        subarray(scratch, BUFFERS + 2 * capacity, capacity),
    )
    steps, zero, half = steps_of(n, capacity), scratch.dtype.type(0), scratch.dtype.type(0.5)
    lowest, constants = scratch.dtype.type(-np.inf), exp_constants(temp[0] - temp[0])
    shared, unit = prepared(temp[0]), prepared(scratch.dtype.type(1))
    for r in range(start, stop):
        if choice[r] < 0:
            fill_degenerate_row(out, r, choice[r], scratch)
            continue
        p_row = weighted(logits, where, r, top[r], lowest, unit, constants)
        q_row = weighted(logits, where, r, top[r], lowest, temperature(temp, r, shared), constants)
        p_sum, q_sum = p_sums[r, 0], q_sums[r, 0]
        a, b = q_sums[r, 1] / q_sum, p_sums[r, 1] / p_sum
        for step in range(steps):
            first, end = step * SEGMENT, end_of(n, step, steps)
            fill_weights(p_row, first, end, p)
            fill_weights(q_row, first, end, q)
            fill_from_selected(grad_mask, q_row, first, end, selected[r], h)
            for j in range(first, end, WIDTH):
                i = min(j, end - WIDTH)
                p_i, q_i = soft_entry(load(p, i - first), p_sum), soft_entry(load(q, i - first), q_sum)
                result = reinmax_entry(p_i, q_i, load(h, i - first), a, b, half, zero)
                store_vector(narrow_vector(result, out), out, r, i)
        if 0 <= place[r] < n:
            p_m = soft_entry(weight(own[r], top[r], unit), p_sum)
            q_m = soft_entry(weight(own[r], top[r], q_row.temp), q_sum)
            out[r, place[r]] = narrow(reinmax_selected(p_m, q_m, a, b, half, zero), out)
        if not (is_finite(a) and is_finite(b)):
            fill_nan_at_candidates(out, r, logits, where, scratch)


@row_kernel(buffers=0)
def _temp_share_rows(
    total: Values, choice: Indices, sums: Values, temp: Values, scale: Values, out: Out, start: Row, stop: Row,
    scratch: Scratch,
) -> None:  # fmt: skip
    """A row's share of grad_temp, of the sum of its segments."""
    nan, shared = scratch.dtype.type(np.nan), prepared(temp[0])
    for r in range(start, stop):
        if choice[r] < 0:
            out[r] = 0 if choice[r] == EMPTY else nan
            continue
        out[r] = canonical_nan(temp_share(total[r], sums[r, 0], temperature(temp, r, shared), scale[0]), nan)


# ------------------------------------------------------------------------------------------------ over all rows

# Logits and cotangents have one dtype, (rows, columns); choice is (rows,), as `npselect._arithmetic.steps` has it. What
# else rows have is (rows,) or (rows, n), in the compute type; temp may be (1,), where (1, columns) or None.


def totals(logits: Array, choice: Array, top: Array, temp: Array, where: Array | None, out: Array) -> None:
    """Each segment's ``sum_i e_i``, (rows, segments, 1)."""
    _run(_total_rows, out.dtype, [logits, choice, top, temp], where, out)


def sums(
    logits: Array,
    grad_mask: Array,
    choice: Array,
    top: Array,
    selected: Array,
    temp: Array,
    where: Array | None,
    out: Array,
) -> None:
    """Each segment's ``sum_i e_i`` and ``sum_i e_i h_i``, (rows, segments, 2)."""
    _run(_sum_rows, out.dtype, [logits, grad_mask, choice, top, selected, temp], where, out)


def soft(logits: Array, choice: Array, top: Array, sums: Array, temp: Array, where: Array | None, out: Array) -> None:
    """The probabilities of the shard's columns."""
    _run(_soft_rows, sums.dtype, [logits, choice, top, sums, temp], where, out)


def backward(
    logits: Array,
    grad_mask: Array,
    choice: Array,
    top: Array,
    selected: Array,
    sums: Array,
    temp: Array,
    where: Array | None,
    out: Array,
) -> None:
    """The gradient of the shard's columns."""
    scale = np.ones(1, sums.dtype)
    _run(_backward_rows, sums.dtype, [logits, grad_mask, choice, top, selected, sums, temp], where, out, scale)


def temp_sums(
    logits: Array,
    grad_mask: Array,
    choice: Array,
    top: Array,
    selected: Array,
    sums: Array,
    temp: Array,
    where: Array | None,
    out: Array,
) -> None:
    """Each segment's ``sum_i e_i (h_i - d) t_i``, (rows, segments, 1)."""
    _run(_temp_sum_rows, out.dtype, [logits, grad_mask, choice, top, selected, sums, temp], where, out)


def reinmax(
    logits: Array,
    grad_mask: Array,
    choice: Array,
    top: Array,
    selected: Array,
    own: Array,
    place: Array,
    p_sums: Array,
    q_sums: Array,
    temp: Array,
    where: Array | None,
    out: Array,
) -> None:
    """ReinMax's gradient of the shard's columns."""
    arrays = [logits, grad_mask, choice, top, selected, own, place, p_sums, q_sums, temp]
    _run(_reinmax_rows, top.dtype, arrays, where, out)


def temp_shares(total: Array, choice: Array, sums: Array, temp: Array, out: Array) -> None:
    """Each row's share of grad_temp, in the compute type."""
    scale = np.ones(1, out.dtype)
    _temp_share_rows(total, choice, sums, temp, scale, out, 0, len(out), np.empty(0, out.dtype))


def added_up(rows: Array, out: Array) -> None:
    """Each row added up, in the order of every sum over a row."""
    sum_rows(rows, stored(out), 0, len(rows), np.empty(scratch_size(SEGMENT, 1, rows.itemsize, 0), rows.dtype))


def _run(
    kernel: RowKernel, compute: object, arrays: list[Array], where: Array | None, out: Array, *more: Array
) -> None:
    choices, size = arrays[0].shape[1], np.dtype(compute)  # type: ignore[call-overload]
    needed = scratch_size(choices, kernel.buffers, size.itemsize, 0)
    inputs = [*map(stored, arrays), _EVERYWHERE if where is None else stored(where), *more]

    def run_range(start: int, stop: int) -> None:
        kernel(*inputs, stored(out), start, stop, np.empty(needed, size))

    over_rows(run_range, *arrays[0].shape)
