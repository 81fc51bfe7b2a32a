"""The CPU tier's kernels for rows of up to 128 choices: sixteen rows at a time, each a lane of SIMD vectors.

The same operations on the same numbers, in the same order, as in `npselect.tiers.cpu.long_rows`, with the same
arguments. Scratch memory has a tile for each buffer that a kernel declares, and one more for sums and for results.
"""

from __future__ import annotations

import numpy as np

from npselect._arithmetic.aliases import (
    GradMask,
    Logits,
    Out,
    Row,
    Scratch,
    Values,
    Where,
)
from npselect._arithmetic.exponential import exp_constants, prepared
from npselect._arithmetic.half import narrow, narrow_vector
from npselect._arithmetic.primitives import select
from npselect._arithmetic.simd import WIDTH, broadcast, lane, load, store, subarray
from npselect._arithmetic.steps import (
    EMPTY,
    canonical_nan,
    curvature,
    double_entry,
    exponent,
    grad_entry,
    mixture_entry,
    per_weight,
    soft_entry,
    temp_share,
    temp_term,
)
from npselect.tiers.cpu.compile import row_kernel
from npselect.tiers.cpu.long_choice import log_rows, mask_at_rows
from npselect.tiers.cpu.short_choice import (
    MAX_SHORT_ROW,
    TILE,
    choice_rows,
    choose,
    index_rows,
    load_tile,
    mask_rows,
    scratch_size,
    store_tile,
)
from npselect.tiers.cpu.short_drawn import gapped_rows, gapped_soft_rows, reinmax_rows
from npselect.tiers.cpu.short_passes import (
    are_near,
    dot,
    fill_from_selected,
    fill_weights,
    overwrite_degenerate,
    pad,
    temperature,
    total,
)
from npselect.tiers.cpu.short_rao import gumbel_rao_rows

__all__ = [
    "MAX_SHORT_ROW",
    "TILE",
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
    "scratch_size",
    "soft_rows",
    "sum_rows",
]


@row_kernel(buffers=1)
def sum_rows(x: Logits, out: Out, start: Row, stop: Row, scratch: Scratch) -> None:
    """Each row added up."""
    choices, nan = x.shape[1], scratch.dtype.type(np.nan)
    tile, sums = subarray(scratch, 0, TILE), subarray(scratch, TILE, TILE)
    for first in range(start, stop, WIDTH):
        last = min(first + WIDTH, stop) - 1
        load_tile(x, first, last, tile)
        pad(tile, choices)
        s = total(tile, choices, sums)
        for i in range(last - first + 1):
            out[first + i] = narrow(canonical_nan(lane(s, i), nan), out)


@row_kernel(buffers=1)
def soft_rows(logits: Logits, temp: Values, where: Where, out: Out, start: Row, stop: Row, scratch: Scratch) -> None:
    """``probs = softmax(logits / temp)``."""
    choices = logits.shape[1]
    e, sums = subarray(scratch, 0, TILE), subarray(scratch, TILE, TILE)
    shared, constants = prepared(broadcast(temp[0])), exp_constants(temp[0] - temp[0])
    for first in range(start, stop, WIDTH):
        last = min(first + WIDTH, stop) - 1
        m, top, least = choose(logits, where, first, last, e, sums)
        divisor = temperature(temp, first, last, shared)
        fill_weights(e, top, divisor, are_near(least, top, divisor), constants, choices, e)
        s = total(e, choices, sums)
        for j in range(choices):
            store(e, j * WIDTH, narrow_vector(soft_entry(load(e, j * WIDTH), s), out))
        store_tile(e, out, first, last)
        overwrite_degenerate(out, first, last, m, top, logits, where, scratch)


@row_kernel(buffers=2)
def mixture_rows(
    logits: Logits, temp: Values, where: Where, mix: Values, out: Out, start: Row, stop: Row, scratch: Scratch
) -> None:
    """``(1 - unimix) softmax(logits / temp) + unimix / n`` of n candidates; `mix` has ``1 - unimix`` and unimix."""
    choices = logits.shape[1]
    x, e, sums = subarray(scratch, 0, TILE), subarray(scratch, TILE, TILE), subarray(scratch, 2 * TILE, TILE)
    excluded, one, zero = scratch.dtype.type(-np.inf), scratch.dtype.type(1), scratch.dtype.type(0)
    shared, constants = prepared(broadcast(temp[0])), exp_constants(temp[0] - temp[0])
    for first in range(start, stop, WIDTH):
        last = min(first + WIDTH, stop) - 1
        m, top, least = choose(logits, where, first, last, x, sums)
        divisor = temperature(temp, first, last, shared)
        fill_weights(x, top, divisor, are_near(least, top, divisor), constants, choices, e)
        s = total(e, choices, sums)
        n = broadcast(zero)
        for j in range(choices):
            n = n + select(load(x, j * WIDTH) == excluded, zero, one)
        share = mix[1] / n
        for j in range(choices):
            mixed = mixture_entry(load(e, j * WIDTH), s, mix[0], share)
            store(e, j * WIDTH, narrow_vector(select(load(x, j * WIDTH) == excluded, zero, mixed), out))
        store_tile(e, out, first, last)
        overwrite_degenerate(out, first, last, m, top, logits, where, scratch)


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
    choices = logits.shape[1]
    e, h, sums = subarray(scratch, 0, TILE), subarray(scratch, TILE, TILE), subarray(scratch, 2 * TILE, TILE)
    zero = scratch.dtype.type(0)
    shared, constants = prepared(broadcast(temp[0])), exp_constants(temp[0] - temp[0])
    for first in range(start, stop, WIDTH):
        last = min(first + WIDTH, stop) - 1
        m, top, least = choose(logits, where, first, last, e, sums)
        divisor = temperature(temp, first, last, shared)
        near = are_near(least, top, divisor)
        fill_from_selected(grad_mask, first, last, e, m, near, h)
        fill_weights(e, top, divisor, near, constants, choices, e)
        s = total(e, choices, sums)
        d = dot(e, h, choices, sums) / s
        q = per_weight(s, divisor, scale[0])
        for j in range(choices):
            result = grad_entry(load(e, j * WIDTH), load(h, j * WIDTH) - d, q, divisor, zero)
            store(e, j * WIDTH, narrow_vector(result, out))
        store_tile(e, out, first, last)
        overwrite_degenerate(out, first, last, m, d, logits, where, scratch)


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
        divisor = temperature(temp, first, last, shared)
        near = are_near(least, top, divisor)
        fill_from_selected(grad_mask, first, last, e, m, near, h)
        for j in range(choices):
            store(t, j * WIDTH, exponent(load(e, j * WIDTH), top, divisor))
        fill_weights(e, top, divisor, near, constants, choices, e)
        s = total(e, choices, sums)
        d = dot(e, h, choices, sums) / s
        for j in range(choices):
            gradient, factor = temp_term(load(e, j * WIDTH), load(t, j * WIDTH), load(h, j * WIDTH) - d)
            store(h, j * WIDTH, gradient)
            store(t, j * WIDTH, factor)
        pad(t, choices)
        share = temp_share(dot(h, t, choices, sums), s, divisor, scale[0])
        for i in range(last - first + 1):
            selected = lane(m, i)
            if selected >= 0:
                out[first + i] = canonical_nan(lane(share, i), nan)
            else:
                out[first + i] = 0 if selected == EMPTY else nan


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
    choices = logits.shape[1]
    e, h, k, sums = (
        subarray(scratch, 0, TILE),
        subarray(scratch, TILE, TILE),
        subarray(scratch, 2 * TILE, TILE),
        subarray(scratch, 3 * TILE, TILE),
    )
    zero = scratch.dtype.type(0)
    shared, constants = prepared(broadcast(temp[0])), exp_constants(temp[0] - temp[0])
    for first in range(start, stop, WIDTH):
        last = min(first + WIDTH, stop) - 1
        m, top, least = choose(logits, where, first, last, e, sums)
        divisor = temperature(temp, first, last, shared)
        near = are_near(least, top, divisor)
        fill_from_selected(grad_mask, first, last, e, m, near, h)
        fill_from_selected(grad_grad_logits, first, last, e, m, near, k)
        fill_weights(e, top, divisor, near, constants, choices, e)
        s = total(e, choices, sums)
        q = per_weight(s, divisor, scale[0])
        mean = dot(e, k, choices, sums) / s
        for j in range(choices):
            centred = load(k, j * WIDTH) - mean
            store(k, j * WIDTH, centred)
            result = grad_entry(load(e, j * WIDTH), centred, q, divisor, zero)
            store(sums, j * WIDTH, narrow_vector(result, out_grad_mask))
        store_tile(sums, out_grad_mask, first, last)
        overwrite_degenerate(out_grad_mask, first, last, m, mean, logits, where, scratch)
        mean = dot(e, h, choices, sums) / s
        for j in range(choices):
            store(h, j * WIDTH, curvature(load(h, j * WIDTH) - mean, load(k, j * WIDTH), zero))
        pad(h, choices)
        mean = dot(e, h, choices, sums) / s
        for j in range(choices):
            result = double_entry(load(e, j * WIDTH), load(h, j * WIDTH) - mean, q, divisor, zero)
            store(sums, j * WIDTH, narrow_vector(result, out_logits))
        store_tile(sums, out_logits, first, last)
        overwrite_degenerate(out_logits, first, last, m, mean, logits, where, scratch)
