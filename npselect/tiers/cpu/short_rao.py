"""Gumbel-Rao's kernel for rows of up to 128 choices: as in `npselect.tiers.cpu.short_rows`, sample after sample."""

from __future__ import annotations

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
from npselect._arithmetic.primitives import fma, inlined, select
from npselect._arithmetic.simd import WIDTH, any_lane, broadcast, lane, load, store, subarray
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
from npselect.tiers.cpu.loads import gather_lanes
from npselect.tiers.cpu.short_choice import TILE, choose, drawn, load_tile, store_tile
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

__all__ = ["gumbel_rao_rows"]


@inlined
def _fill_distances(
    x: Tile, top: Number, s: Number, m: Columns, temp: Temperature, choices: Choices, tails: Tile, logs: Tile
) -> None:
    """``v`` in the place of the logits x, and its second words."""
    zero, one, at_selected = x.dtype.type(0), x.dtype.type(1), x.dtype.type(AT_SELECTED)
    s = select(m < 0, one, s)
    for i in range(WIDTH):
        logs[i], logs[WIDTH + i] = log_two_words(lane(s, i))
    log_sum, log_sum_tail = load(logs, 0), load(logs, WIDTH)
    for j in range(choices):
        v, v_tail = conditional_distance(load(x, j * WIDTH), top, log_sum, log_sum_tail, temp)
        store(x, j * WIDTH, select(m == j, at_selected, v))
        store(tails, j * WIDTH, select(m == j, zero, v_tail))


@inlined
def _fill_conditional(
    v: Tile,
    v_tail: Tile,
    selected: Number,
    temp: Temperature,
    up: Number,
    constants: Constants,
    choices: Choices,
    e: Tile,
) -> None:
    """Weights in the place of the noise e."""
    for j in range(choices):
        i = j * WIDTH
        store(e, i, conditional_weight(load(v, i), load(v_tail, i), selected, load(e, i), temp, up, constants))


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

    `before` has the sums over the samples before, tile after tile, and gets those with these; nothing, if there are no
    others.
    """
    choices = logits.shape[1]
    v, v_tail, h = subarray(scratch, 0, TILE), subarray(scratch, TILE, TILE), subarray(scratch, 2 * TILE, TILE)
    e, mean, sums = (
        subarray(scratch, 3 * TILE, TILE),
        subarray(scratch, 4 * TILE, TILE),
        subarray(scratch, 5 * TILE, TILE),
    )
    zero, one = scratch.dtype.type(0), scratch.dtype.type(1)
    shared, unit = prepared(broadcast(temp[0])), prepared(broadcast(one))
    constants = exp_constants(temp[0] - temp[0])
    for first in range(start, stop, WIDTH):
        last = min(first + WIDTH, stop) - 1
        state, top, least = choose(logits, where, first, last, v, sums)
        m = drawn(choice, first, last, state)
        at_selected = select(m < 0, 0, m)
        near = are_near(least, top, unit)
        fill_from_selected(grad_mask, first, last, v, m, near, h)
        fill_weights(v, top, unit, near, constants, choices, e)
        divisor = temperature(temp, first, last, shared)
        up, plain, known = one / divisor.prescale, not any_lane(divisor.scale != one), unscaled(divisor, one)
        _fill_distances(v, top, total(e, choices, sums), m, divisor, choices, v_tail, sums)
        if len(before) > 0:
            for j in range(choices):
                store(mean, j * WIDTH, load(before, first * choices + j * WIDTH))
        else:
            for j in range(choices):
                store(mean, j * WIDTH, broadcast(zero))
        spoilt = broadcast(zero)  # NaN once a mean of cotangents is not finite
        for behind in range(0, len(noise), apart):
            load_tile(noise, behind + first, behind + last, e)
            selected = gather_lanes(e, at_selected)
            if plain:
                _fill_conditional(v, v_tail, selected, known, one, constants, choices, e)
            else:
                _fill_conditional(v, v_tail, selected, divisor, up, constants, choices, e)
            pad(e, choices)
            s = total(e, choices, sums)
            d = dot(e, h, choices, sums) / s
            q = per_weight(s * samples, divisor, one)
            spoilt = fma(d, zero, spoilt)
            for j in range(choices):
                i = j * WIDTH
                store(mean, i, sample_entry(load(e, i), load(h, i) - d, q, load(mean, i)))
        for j in range(choices):
            entry = load(mean, j * WIDTH)
            entry = select(m == j, entry + spoilt, entry)
            store(mean, j * WIDTH, entry)
            store(e, j * WIDTH, narrow_vector(fma(entry, divisor.scale, zero), out))
        if len(before) > 0:
            for j in range(choices):
                store(before, first * choices + j * WIDTH, load(mean, j * WIDTH))
        store_tile(e, out, first, last)
        entry = gather_lanes(mean, at_selected)
        overwrite_degenerate(out, first, last, m, select(entry == entry, zero, entry), logits, where, scratch)
