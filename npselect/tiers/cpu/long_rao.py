"""Gumbel-Rao's kernel for rows of more than 128 choices: as in `npselect.tiers.cpu.long_rows`, sample after sample.

The buffers have a number for each entry, however long the row is.
"""

from __future__ import annotations

from npselect._arithmetic.aliases import (
    Choices,
    Column,
    Constants,
    GradMask,
    Index,
    Indices,
    Logits,
    Number,
    Out,
    Row,
    Scratch,
    Values,
    Where,
)
from npselect._arithmetic.exponential import Temperature, exp_constants, prepared
from npselect._arithmetic.half import narrow_vector, widen
from npselect._arithmetic.primitives import fma, inlined
from npselect._arithmetic.simd import WIDTH, broadcast, load, store, subarray
from npselect._arithmetic.softplus import log_two_words
from npselect._arithmetic.steps import (
    AT_SELECTED,
    conditional_distance,
    conditional_weight,
    per_weight,
    sample_entry,
    unscaled,
)
from npselect.tiers.cpu.compile import row_kernel
from npselect.tiers.cpu.fills import fill_degenerate_row, fill_nan_at_candidates
from npselect.tiers.cpu.loads import load_vector, store_vector
from npselect.tiers.cpu.long_choice import candidates, choose
from npselect.tiers.cpu.long_passes import (
    BUFFERS,
    WeightedRow,
    capacity_of,
    fill_from_selected,
    fill_weights,
    temperature,
    weighted,
)
from npselect.tiers.cpu.sums import padded_sums, padded_total

__all__ = ["gumbel_rao_rows"]


@inlined
def _fill_distances(row: WeightedRow, s: Number, m: Index, temp: Temperature, v: Values, v_tail: Values) -> None:
    """``v`` and its second words."""
    log_sum, log_sum_tail = log_two_words(s)
    n = row.logits.shape[1]
    for j in range(0, n, WIDTH):
        i = min(j, n - WIDTH)
        x = candidates(row.logits, row.where, row.r, i, v)
        distance, tail = conditional_distance(x, row.top, log_sum, log_sum_tail, temp)
        store(v, i, distance)
        store(v_tail, i, tail)
    v[m], v_tail[m] = v.dtype.type(AT_SELECTED), v.dtype.type(0)


@inlined
def _fill_sums(before: Values, start: Column, size: Choices, mean: Values) -> None:
    """The sums over the samples before; zeros, if there are none."""
    if len(before) > 0:
        for j in range(0, size, WIDTH):
            store(mean, j, load(before, start + j))
    else:
        for j in range(0, size, WIDTH):
            store(mean, j, broadcast(mean.dtype.type(0)))


@inlined
def _fill_conditional(
    v: Values,
    v_tail: Values,
    noise: Logits,
    r: Row,
    m: Index,
    temp: Temperature,
    up: Number,
    constants: Constants,
    e: Values,
) -> None:
    """Weights of a row of noise."""
    n, selected = noise.shape[1], noise[r, m]
    for j in range(0, n, WIDTH):
        i = min(j, n - WIDTH)
        g = load_vector(noise, r, i, e)
        store(e, i, conditional_weight(load(v, i), load(v_tail, i), selected, g, temp, up, constants))


@row_kernel(buffers=5)
def gumbel_rao_rows(
    logits: Logits,
    grad_mask: GradMask,
    choice: Indices,
    noise: Logits,
    apart: Row,
    samples: Number,
    temp: Values,
    where: Where,
    before: Values,
    out: Out,
    start: Row,
    stop: Row,
    scratch: Scratch,
) -> None:
    """Of `samples` samples, those with the given noise: row r of the next one is `apart` rows behind row r of the last.

    `before` has the sums over the samples before, row after row in whole vectors, and gets those with these; nothing,
    if there are no others.
    """
    n, capacity = logits.shape[1], capacity_of(scratch, 5)
    lanes, e, h = (
        subarray(scratch, 0, BUFFERS),
        subarray(scratch, BUFFERS, capacity),
        subarray(scratch, BUFFERS + capacity, capacity),
    )
    v, v_tail, mean = (
        subarray(scratch, BUFFERS + 2 * capacity, capacity),
        subarray(scratch, BUFFERS + 3 * capacity, capacity),
        subarray(scratch, BUFFERS + 4 * capacity, capacity),
    )
    zero, one = scratch.dtype.type(0), scratch.dtype.type(1)
    constants, shared, unit = exp_constants(temp[0] - temp[0]), prepared(temp[0]), prepared(one)
    for r in range(start, stop):
        state, top, least = choose(logits, where, r, scratch)
        m = state if state < 0 else choice[r]
        if m < 0:
            fill_degenerate_row(out, r, m, scratch)
            continue
        row = weighted(logits, where, r, top, least, unit, constants)
        divisor = temperature(temp, r, shared)
        up, known = one / divisor.prescale, unscaled(divisor, one)
        size = fill_weights(row, 0, n, e)
        fill_from_selected(grad_mask, row, 0, n, widen(grad_mask[r, m]), h)
        _fill_distances(row, padded_total(subarray(e, 0, size), zero, lanes), m, divisor, v, v_tail)
        _fill_sums(before, r * size, size, mean)
        for behind in range(0, len(noise), apart):
            if divisor.scale == one:
                _fill_conditional(v, v_tail, noise, behind + r, m, known, one, constants, e)
            else:
                _fill_conditional(v, v_tail, noise, behind + r, m, divisor, up, constants, e)
            s, d = padded_sums(subarray(e, 0, size), subarray(h, 0, size), zero, zero, lanes)
            d, q = d / s, per_weight(s * samples, divisor, one)
            for j in range(0, size, WIDTH):
                store(mean, j, sample_entry(load(e, j), load(h, j) - d, q, load(mean, j)))
            mean[m] += fma(d, zero, zero)  # NaN once a mean of cotangents is not finite
        if len(before) > 0:
            for j in range(0, size, WIDTH):
                store(before, r * size + j, load(mean, j))
        for j in range(0, n, WIDTH):
            i = min(j, n - WIDTH)
            store_vector(narrow_vector(fma(load(mean, i), divisor.scale, zero), out), out, r, i)
        if mean[m] != mean[m]:
            fill_nan_at_candidates(out, r, logits, where, scratch)
