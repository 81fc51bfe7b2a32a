"""The CPU tier's kernels for rows of 32 choices and more: serial functions over ranges of rows, free of the GIL.

A row's results depend on that row alone. A kernel takes the logits first, then cotangents, the temperature, `where`,
the results, the range of rows, and scratch memory, of which each thread has its own. `npselect.tiers.cpu.short_rows`
has the same kernels for short rows; the formulas are those of `npselect._arithmetic.steps`.

Each row is read for the selected candidate (`npselect.tiers.cpu.long_choice`), for the sums, and for the results. A row
that fits the buffers takes one step: sums and results are one phase, and the row is read twice. A longer row takes a
step for each segment, and each phase goes through all steps, and computes the numbers of each segment again.
"""

from __future__ import annotations

import numpy as np

from npselect._arithmetic.aliases import GradMask, Logits, Out, Row, Scratch, Values, Where
from npselect._arithmetic.exponential import exp_constants, prepared
from npselect._arithmetic.half import narrow, narrow_vector, widen
from npselect._arithmetic.order import SEGMENT
from npselect._arithmetic.primitives import select
from npselect._arithmetic.simd import WIDTH, load, store, subarray
from npselect._arithmetic.steps import (
    EMPTY,
    canonical_nan,
    curvature,
    double_entry,
    grad_entry,
    is_finite,
    mixture_entry,
    per_weight,
    soft_entry,
    temp_share,
    temp_term,
)
from npselect.tiers.cpu.compile import row_kernel
from npselect.tiers.cpu.fills import fill_degenerate_row, fill_nan_at_candidates
from npselect.tiers.cpu.loads import store_vector
from npselect.tiers.cpu.long_choice import (
    candidates,
    choice_rows,
    choose,
    count_candidates,
    index_rows,
    log_rows,
    mask_at_rows,
    mask_rows,
)
from npselect.tiers.cpu.long_drawn import gapped_rows, gapped_soft_rows, reinmax_rows
from npselect.tiers.cpu.long_passes import (
    BUFFERS,
    capacity_of,
    end_of,
    fill_exponents,
    fill_from_selected,
    fill_weights,
    steps_of,
    temperature,
    weighted,
)
from npselect.tiers.cpu.long_rao import gumbel_rao_rows
from npselect.tiers.cpu.sums import padded_dot, padded_sums, padded_total, total

__all__ = [
    "backward_rows",
    "backward_temp_rows",
    "choice_rows",
    "double_backward_rows",
    "gapped_rows",
    "gapped_soft_rows",
    "gumbel_rao_rows",
    "index_rows",
    "log_rows",
    "mask_at_rows",
    "mask_rows",
    "mixture_rows",
    "reinmax_rows",
    "soft_rows",
    "sum_rows",
]


@row_kernel(buffers=1)
def soft_rows(logits: Logits, temp: Values, where: Where, out: Out, start: Row, stop: Row, scratch: Scratch) -> None:
    """``probs = softmax(logits / temp)``."""
    n, capacity = logits.shape[1], capacity_of(scratch, 1)
    lanes, e = subarray(scratch, 0, BUFFERS), subarray(scratch, BUFFERS, capacity)
    steps, zero = steps_of(n, capacity), scratch.dtype.type(0)
    constants, shared = exp_constants(temp[0] - temp[0]), prepared(temp[0])
    for r in range(start, stop):
        m, top, least = choose(logits, where, r, scratch)
        if m < 0:
            fill_degenerate_row(out, r, m, scratch)
            continue
        row = weighted(logits, where, r, top, least, temperature(temp, r, shared), constants)
        s = zero
        for phase in range(1 if steps == 1 else 2):
            for step in range(steps):
                first, end = step * SEGMENT, end_of(n, step, steps)
                size = fill_weights(row, first, end, e)
                if phase == 0:
                    s = padded_total(subarray(e, 0, size), s, lanes)
                if phase == 1 or steps == 1:
                    for j in range(first, end, WIDTH):
                        i = min(j, end - WIDTH)
                        store_vector(narrow_vector(soft_entry(load(e, i - first), s), out), out, r, i)


@row_kernel(buffers=1)
def mixture_rows(
    logits: Logits, temp: Values, where: Where, mix: Values, out: Out, start: Row, stop: Row, scratch: Scratch
) -> None:
    """``(1 - unimix) softmax(logits / temp) + unimix / n`` of n candidates; `mix` has ``1 - unimix`` and unimix."""
    n, capacity = logits.shape[1], capacity_of(scratch, 1)
    lanes, e = subarray(scratch, 0, BUFFERS), subarray(scratch, BUFFERS, capacity)
    steps, zero, excluded = steps_of(n, capacity), scratch.dtype.type(0), scratch.dtype.type(-np.inf)
    constants, shared = exp_constants(temp[0] - temp[0]), prepared(temp[0])
    for r in range(start, stop):
        m, top, least = choose(logits, where, r, scratch)
        if m < 0:
            fill_degenerate_row(out, r, m, scratch)
            continue
        row = weighted(logits, where, r, top, least, temperature(temp, r, shared), constants)
        share = mix[1] / scratch.dtype.type(n if least > excluded else count_candidates(logits, where, r))
        s = zero
        for phase in range(1 if steps == 1 else 2):
            for step in range(steps):
                first, end = step * SEGMENT, end_of(n, step, steps)
                size = fill_weights(row, first, end, e)
                if phase == 0:
                    s = padded_total(subarray(e, 0, size), s, lanes)
                if phase == 1 or steps == 1:
                    for j in range(first, end, WIDTH):
                        i = min(j, end - WIDTH)
                        mixed = mixture_entry(load(e, i - first), s, mix[0], share)
                        mixed = select(candidates(logits, where, r, i, e) == excluded, zero, mixed)
                        store_vector(narrow_vector(mixed, out), out, r, i)


@row_kernel(buffers=2)
def backward_rows(
    logits: Logits,
    grad_mask: GradMask,
    temp: Values,
    where: Where,
    scale: Values,
    out: Out,
    start: Row,
    stop: Row,
    scratch: Scratch,
) -> None:
    """The softmax's Jacobian times `grad_mask`."""
    n, capacity = logits.shape[1], capacity_of(scratch, 2)
    lanes, e, h = (
        subarray(scratch, 0, BUFFERS),
        subarray(scratch, BUFFERS, capacity),
        subarray(scratch, BUFFERS + capacity, capacity),
    )
    steps, zero = steps_of(n, capacity), scratch.dtype.type(0)
    constants, shared = exp_constants(temp[0] - temp[0]), prepared(temp[0])
    for r in range(start, stop):
        m, top, least = choose(logits, where, r, scratch)
        if m < 0:
            fill_degenerate_row(out, r, m, scratch)
            continue
        row = weighted(logits, where, r, top, least, temperature(temp, r, shared), constants)
        selected = widen(grad_mask[r, m])
        s, d, q = zero, zero, zero
        for phase in range(1 if steps == 1 else 2):
            for step in range(steps):
                first, end = step * SEGMENT, end_of(n, step, steps)
                size = fill_weights(row, first, end, e)
                fill_from_selected(grad_mask, row, first, end, selected, h)
                if phase == 0:
                    s, d = padded_sums(subarray(e, 0, size), subarray(h, 0, size), s, d, lanes)
                if phase == 0 and step == steps - 1:
                    d, q = d / s, per_weight(s, row.temp, scale[0])
                if phase == 1 or steps == 1:
                    for j in range(first, end, WIDTH):
                        i = min(j, end - WIDTH)
                        result = grad_entry(load(e, i - first), load(h, i - first) - d, q, row.temp, zero)
                        store_vector(narrow_vector(result, out), out, r, i)
        if not is_finite(d):
            fill_nan_at_candidates(out, r, logits, where, scratch)


@row_kernel(buffers=3)
def backward_temp_rows(
    logits: Logits,
    grad_mask: GradMask,
    temp: Values,
    where: Where,
    scale: Values,
    out: Out,
    start: Row,
    stop: Row,
    scratch: Scratch,
) -> None:
    """Each row's share of grad_temp, in the compute type: ``-sum_i grad_logits_i t_i``."""
    n, capacity = logits.shape[1], capacity_of(scratch, 3)
    lanes, e, h, t = (
        subarray(scratch, 0, BUFFERS),
        subarray(scratch, BUFFERS, capacity),
        subarray(scratch, BUFFERS + capacity, capacity),
        subarray(scratch, BUFFERS + 2 * capacity, capacity),
    )
    steps, zero, nan = steps_of(n, capacity), scratch.dtype.type(0), scratch.dtype.type(np.nan)
    constants, shared = exp_constants(temp[0] - temp[0]), prepared(temp[0])
    for r in range(start, stop):
        m, top, least = choose(logits, where, r, scratch)
        if m < 0:
            out[r] = 0 if m == EMPTY else nan
            continue
        row = weighted(logits, where, r, top, least, temperature(temp, r, shared), constants)
        selected = widen(grad_mask[r, m])
        s, d, share = zero, zero, zero
        for phase in range(1 if steps == 1 else 2):
            for step in range(steps):
                first, end = step * SEGMENT, end_of(n, step, steps)
                size = fill_weights(row, first, end, e)
                fill_from_selected(grad_mask, row, first, end, selected, h)
                if phase == 0:
                    s, d = padded_sums(subarray(e, 0, size), subarray(h, 0, size), s, d, lanes)
                if phase == 0 and step == steps - 1:
                    d = d / s
                if phase == 1 or steps == 1:
                    fill_exponents(row, first, end, t)
                    for j in range(0, size, WIDTH):
                        gradient, factor = temp_term(load(e, j), load(t, j), load(h, j) - d)
                        store(h, j, gradient)
                        store(t, j, factor)
                    share = padded_dot(subarray(h, 0, size), subarray(t, 0, size), share, lanes)
        out[r] = canonical_nan(temp_share(share, s, row.temp, scale[0]), nan)


@row_kernel(buffers=1)
def sum_rows(x: Logits, out: Out, start: Row, stop: Row, scratch: Scratch) -> None:
    """Each row added up."""
    for r in range(start, stop):
        out[r] = narrow(canonical_nan(total(x[r], scratch), scratch.dtype.type(np.nan)), out)


@row_kernel(buffers=3)
def double_backward_rows(
    logits: Logits,
    grad_grad_logits: GradMask,
    grad_mask: GradMask,
    temp: Values,
    where: Where,
    scale: Values,
    out_grad_mask: Out,
    out_logits: Out,
    start: Row,
    stop: Row,
    scratch: Scratch,
) -> None:
    """The gradient of `backward_rows`: grad_grad_mask_i = p_i (k_i - k_mean) / temp, and `double_entry`."""
    n, capacity = logits.shape[1], capacity_of(scratch, 3)
    lanes, e, h, k = (
        subarray(scratch, 0, BUFFERS),
        subarray(scratch, BUFFERS, capacity),
        subarray(scratch, BUFFERS + capacity, capacity),
        subarray(scratch, BUFFERS + 2 * capacity, capacity),
    )
    steps, zero = steps_of(n, capacity), scratch.dtype.type(0)
    constants, shared = exp_constants(temp[0] - temp[0]), prepared(temp[0])
    for r in range(start, stop):
        m, top, least = choose(logits, where, r, scratch)
        if m < 0:
            fill_degenerate_row(out_grad_mask, r, m, scratch)
            fill_degenerate_row(out_logits, r, m, scratch)
            continue
        row = weighted(logits, where, r, top, least, temperature(temp, r, shared), constants)
        h_selected, k_selected = widen(grad_mask[r, m]), widen(grad_grad_logits[r, m])
        s, h_mean, k_mean, mean, q = zero, zero, zero, zero, zero
        for phase in range(1 if steps == 1 else 3):
            for step in range(steps):
                first, end = step * SEGMENT, end_of(n, step, steps)
                size = fill_weights(row, first, end, e)
                fill_from_selected(grad_mask, row, first, end, h_selected, h)
                fill_from_selected(grad_grad_logits, row, first, end, k_selected, k)
                if phase == 0:
                    s, h_mean = padded_sums(subarray(e, 0, size), subarray(h, 0, size), s, h_mean, lanes)
                    k_mean = padded_dot(subarray(e, 0, size), subarray(k, 0, size), k_mean, lanes)
                if phase == 0 and step == steps - 1:
                    q = per_weight(s, row.temp, scale[0])
                    h_mean, k_mean = h_mean / s, k_mean / s
                if phase > 0 or steps == 1:
                    for j in range(0, size, WIDTH):
                        centred = load(k, j) - k_mean
                        store(k, j, centred)
                        store(h, j, curvature(load(h, j) - h_mean, centred, zero))
                if phase == 1 or steps == 1:
                    for j in range(first, end, WIDTH):
                        i = min(j, end - WIDTH)
                        result = grad_entry(load(e, i - first), load(k, i - first), q, row.temp, zero)
                        store_vector(narrow_vector(result, out_grad_mask), out_grad_mask, r, i)
                    mean = padded_dot(subarray(e, 0, size), subarray(h, 0, size), mean, lanes)
                if (phase == 1 or steps == 1) and step == steps - 1:
                    mean = mean / s
                if phase == 2 or steps == 1:
                    for j in range(first, end, WIDTH):
                        i = min(j, end - WIDTH)
                        result = double_entry(load(e, i - first), load(h, i - first) - mean, q, row.temp, zero)
                        store_vector(narrow_vector(result, out_logits), out_logits, r, i)
        if not is_finite(k_mean):
            fill_nan_at_candidates(out_grad_mask, r, logits, where, scratch)
        if not is_finite(mean):
            fill_nan_at_candidates(out_logits, r, logits, where, scratch)
