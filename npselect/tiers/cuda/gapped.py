"""The CUDA tier's kernels of GST: see `npselect.tiers.cuda.kernels`, and the steps for the formula."""

from __future__ import annotations

import numpy as np

from npselect._arithmetic.aliases import Index, Number
from npselect._arithmetic.exponential import Temperature, prepared
from npselect._arithmetic.primitives import inlined
from npselect._arithmetic.steps import (
    ADAPTIVE,
    adaptive_gap,
    capped,
    capped_weight,
    grad_entry,
    is_finite,
    per_weight,
    soft_entry,
    weight,
)
from npselect._gpu.aliases import Count, Function, Quads, Shared
from npselect._gpu.elements import load
from npselect._gpu.intrinsics import cuda
from npselect.tiers.cuda.arguments import Operands, Source
from npselect.tiers.cuda.candidates import loading_candidates
from npselect.tiers.cuda.choosing import choosing
from npselect.tiers.cuda.loads import widening
from npselect.tiers.cuda.row_kernel import row_kernel
from npselect.tiers.cuda.storing import narrowing_and_storing, overwriting, reading_cotangents
from npselect.tiers.cuda.sums import adding, sharing_barrier, totalling
from npselect.tiers.cuda.teams import Chunk, Place, chunking, counting_rounds, offset_of, start_of_row
from npselect.tiers.cuda.variant import Variant
from npselect.tiers.cuda.weighing import at_selected, centring, temperature_of, weighing

__all__ = ["gapped", "gapped_soft"]


def _replacing_drawn(variant: Variant) -> Function:
    """``replace_drawn(e, here, m, value)``: at the drawn entry, if it is in the chunk."""
    quads, column, offset = variant.quads_in_registers, variant.column, offset_of(variant.team)

    @inlined
    def replace_drawn(e: Quads, here: Chunk, m: Index, value: Number) -> None:
        drawn = column(m - here.first)
        for i in range(quads):
            for c in range(4):
                if m >= 0 and drawn == offset(i, c):
                    e[4 * i + c] = value

    return replace_drawn


def _capping(variant: Variant, which: int) -> tuple[Function, Function]:
    """``cap_of(source, operands, place, n, m, top, temp, w, shared)`` and ``cap_weights(e, here, m, cap)``.

    `w` has the candidates of the last chunk, and keeps them; `which` is the sum in shared memory.
    """
    compute, slots, lane_count = variant.compute, variant.slots, variant.lanes
    steps, reload = variant.steps, variant.reload
    rounds, chunk = counting_rounds(variant.team), chunking(variant.team, variant.quads_in_registers)
    load_candidates, to_weights, replace_drawn = (
        loading_candidates(variant),
        weighing(variant),
        _replacing_drawn(variant),
    )
    (clear, add, _), barrier_if_shared = adding(variant), sharing_barrier(variant)
    _, publish_partial, total_of_warps = totalling(variant, which + 1)
    kind, widen, start = variant.logits, widening(variant.logits), start_of_row(variant.team)
    zero, one = compute(0), compute(1)

    @inlined
    def cap_of(
        source: Source,
        operands: Operands,
        place: Place,
        n: Count,
        m: Index,
        top: Number,
        temp: Temperature,
        w: Quads,
        shared: Shared,
    ) -> Number:
        gap = operands.gap
        if gap == ADAPTIVE:
            e, lanes = cuda.local.array(slots, compute), cuda.local.array(lane_count, compute)
            unit, rest, own = prepared(one), zero, zero
            for round_ in range(rounds(source)):
                clear(lanes)
                for step in range(steps):
                    here = chunk(place, n, round_, step)
                    if reload:
                        load_candidates(source, place, here, w)
                    for k in range(slots):
                        e[k] = w[k]
                    to_weights(e, top, unit)
                    replace_drawn(e, here, m, zero)
                    add(lanes, e)
                part = publish_partial(lanes, place, shared, which, round_)
                barrier_if_shared()
                rest = total_of_warps(rest, part, shared, which, round_)
            if n > 0 and m >= 0:
                own = weight(compute(widen(load(source.logits, start(source, place) + m, kind))), top, unit)
            gap = adaptive_gap(own, rest)
        high = compute(gap)
        return capped_weight(high, compute(gap - np.float64(high)), temp)

    @inlined
    def cap_weights(e: Quads, here: Chunk, m: Index, cap: Number) -> None:
        for k in range(slots):
            e[k] = capped(e[k], cap)
        replace_drawn(e, here, m, one)

    return cap_of, cap_weights


def _drawing(variant: Variant) -> Function:
    """``drawn(operands, place, n, state)``: what was drawn of the row, or why nothing is."""
    column = variant.column

    @inlined
    def drawn(operands: Operands, place: Place, n: Count, state: Index) -> Index:
        return column(load(operands.choice, place.row, np.int64)) if n > 0 and state >= 0 else state

    return drawn


@row_kernel(arrays_in_registers=2, cotangents=1)
def gapped(variant: Variant) -> Function:
    """GST's Jacobian at each row's choice, times `grad_mask`."""
    compute, slots, lane_count = variant.compute, variant.slots, variant.lanes
    steps, reload = variant.steps, variant.reload
    rounds, chunk = counting_rounds(variant.team), chunking(variant.team, variant.quads_in_registers)
    choose, load_candidates, read = choosing(variant), loading_candidates(variant), reading_cotangents(variant)
    selected_of, measure_from_selected = at_selected(variant), centring(variant)
    temperature, to_weights, drawn = temperature_of(variant), weighing(variant), _drawing(variant)
    (clear, add, add_products), barrier_if_shared = adding(variant), sharing_barrier(variant)
    size, publish_partial, total_of_warps = totalling(variant, 3)
    cap_of, cap_weights = _capping(variant, 2)
    overwrite_degenerate, narrow_and_store = overwriting(variant), narrowing_and_storing(variant)
    zero, one = compute(0), compute(1)

    @inlined
    def body(source: Source, operands: Operands, place: Place, n: Count) -> None:
        e, h = cuda.local.array(slots, compute), cuda.local.array(slots, compute)
        s_lanes, d_lanes = cuda.local.array(lane_count, compute), cuda.local.array(lane_count, compute)
        shared = cuda.shared.array(size, compute)
        if not reload:
            read(operands.grad_mask, source, place, chunk(place, n, 0, 0), h)
        state, top = choose(source, place, n, e)
        m, temp = drawn(operands, place, n, state), temperature(operands, place, n)
        cap = cap_of(source, operands, place, n, m, top, temp, e, shared)
        selected = selected_of(operands.grad_mask, source, place, n, m)
        s, d = zero, zero
        for round_ in range(rounds(source)):
            clear(s_lanes)
            clear(d_lanes)
            for step in range(steps):
                here = chunk(place, n, round_, step)
                if reload:
                    read(operands.grad_mask, source, place, here, h)
                    load_candidates(source, place, here, e)
                measure_from_selected(h, selected, e)
                to_weights(e, top, temp)
                cap_weights(e, here, m, cap)
                add(s_lanes, e)
                add_products(d_lanes, e, h)
            s_part = publish_partial(s_lanes, place, shared, 0, round_)
            d_part = publish_partial(d_lanes, place, shared, 1, round_)
            barrier_if_shared()
            s, d = total_of_warps(s, s_part, shared, 0, round_), total_of_warps(d, d_part, shared, 1, round_)
        d = d / s
        q = per_weight(s, temp, one)
        for round_ in range(rounds(source)):
            for step in range(steps):
                here = chunk(place, n, round_, step)
                if reload:
                    read(operands.grad_mask, source, place, here, h)
                    load_candidates(source, place, here, e)
                    measure_from_selected(h, selected, e)
                    to_weights(e, top, temp)
                    cap_weights(e, here, m, cap)
                for k in range(slots):
                    h[k] = grad_entry(e[k], h[k] - d, q, temp, zero)
                overwrite_degenerate(h, e, m, is_finite(d))
                narrow_and_store(operands.out, source, place, here, h)

    return body


@row_kernel(arrays_in_registers=1)
def gapped_soft(variant: Variant) -> Function:
    """GST's probabilities at each row's choice."""
    compute, slots, lane_count = variant.compute, variant.slots, variant.lanes
    steps, reload = variant.steps, variant.reload
    rounds, chunk = counting_rounds(variant.team), chunking(variant.team, variant.quads_in_registers)
    choose, load_candidates = choosing(variant), loading_candidates(variant)
    temperature, to_weights, drawn = temperature_of(variant), weighing(variant), _drawing(variant)
    (clear, add, _), barrier_if_shared = adding(variant), sharing_barrier(variant)
    size, publish_partial, total_of_warps = totalling(variant, 2)
    cap_of, cap_weights = _capping(variant, 1)
    overwrite_degenerate, narrow_and_store = overwriting(variant), narrowing_and_storing(variant)
    zero = compute(0)

    @inlined
    def body(source: Source, operands: Operands, place: Place, n: Count) -> None:
        e, p = cuda.local.array(slots, compute), cuda.local.array(slots, compute)
        lanes = cuda.local.array(lane_count, compute)
        shared = cuda.shared.array(size, compute)
        state, top = choose(source, place, n, e)
        m, temp = drawn(operands, place, n, state), temperature(operands, place, n)
        cap = cap_of(source, operands, place, n, m, top, temp, e, shared)
        s = zero
        for round_ in range(rounds(source)):
            clear(lanes)
            for step in range(steps):
                here = chunk(place, n, round_, step)
                if reload:
                    load_candidates(source, place, here, e)
                to_weights(e, top, temp)
                cap_weights(e, here, m, cap)
                add(lanes, e)
            part = publish_partial(lanes, place, shared, 0, round_)
            barrier_if_shared()
            s = total_of_warps(s, part, shared, 0, round_)
        for round_ in range(rounds(source)):
            for step in range(steps):
                here = chunk(place, n, round_, step)
                if reload:
                    load_candidates(source, place, here, e)
                    to_weights(e, top, temp)
                    cap_weights(e, here, m, cap)
                for k in range(slots):
                    p[k] = soft_entry(e[k], s) + zero  # an excluded entry's e is -0
                overwrite_degenerate(p, e, m, True)
                narrow_and_store(operands.out, source, place, here, p)

    return body
