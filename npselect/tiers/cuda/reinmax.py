"""The CUDA tier's kernel of ReinMax: see `npselect.tiers.cuda.kernels`, and the steps for the formula."""

from __future__ import annotations

import numpy as np

from npselect._arithmetic.exponential import prepared
from npselect._arithmetic.primitives import inlined
from npselect._arithmetic.steps import is_finite, reinmax_entry, reinmax_selected, soft_entry
from npselect._gpu.aliases import Count, Function
from npselect._gpu.elements import load
from npselect._gpu.intrinsics import cuda
from npselect.tiers.cuda.arguments import Operands, Source
from npselect.tiers.cuda.candidates import loading_candidates
from npselect.tiers.cuda.choosing import choosing
from npselect.tiers.cuda.row_kernel import row_kernel
from npselect.tiers.cuda.storing import narrowing_and_storing, overwriting, reading_cotangents
from npselect.tiers.cuda.sums import adding, sharing_barrier, totalling
from npselect.tiers.cuda.teams import Place, chunking, counting_rounds, offset_of
from npselect.tiers.cuda.variant import Variant
from npselect.tiers.cuda.weighing import at_selected, centring, temperature_of, weighing

__all__ = ["reinmax"]


@row_kernel(arrays_in_registers=3, cotangents=1)
def reinmax(variant: Variant) -> Function:
    """ReinMax's Jacobian at each row's choice, times `grad_mask`: weights p at temperature 1, q at that of the row."""
    compute, column, slots, lane_count = variant.compute, variant.column, variant.slots, variant.lanes
    quads, steps, reload = variant.quads_in_registers, variant.steps, variant.reload
    rounds, chunk, offset = counting_rounds(variant.team), chunking(variant.team, quads), offset_of(variant.team)
    choose, load_candidates, read = choosing(variant), loading_candidates(variant), reading_cotangents(variant)
    selected_of, measure_from_selected = at_selected(variant), centring(variant)
    temperature, to_weights = temperature_of(variant), weighing(variant)
    (clear, add, add_products), barrier_if_shared = adding(variant), sharing_barrier(variant)
    size, publish_partial, total_of_warps = totalling(variant, 4)
    overwrite_degenerate, narrow_and_store = overwriting(variant), narrowing_and_storing(variant)
    zero, one, half = compute(0), compute(1), compute(0.5)

    @inlined
    def body(source: Source, operands: Operands, place: Place, n: Count) -> None:
        p, q, h = (cuda.local.array(slots, compute), cuda.local.array(slots, compute), cuda.local.array(slots, compute))
        p_lanes, q_lanes = cuda.local.array(lane_count, compute), cuda.local.array(lane_count, compute)
        a_lanes, b_lanes = cuda.local.array(lane_count, compute), cuda.local.array(lane_count, compute)
        shared = cuda.shared.array(size, compute)
        if not reload:
            read(operands.grad_mask, source, place, chunk(place, n, 0, 0), h)
        m, top = choose(source, place, n, p)
        if n > 0 and m >= 0:
            m = column(load(operands.choice, place.row, np.int64))
        temp, unit = temperature(operands, place, n), prepared(one)
        selected = selected_of(operands.grad_mask, source, place, n, m)
        p_sum, q_sum, a, b = zero, zero, zero, zero
        for round_ in range(rounds(source)):
            clear(p_lanes)
            clear(q_lanes)
            clear(a_lanes)
            clear(b_lanes)
            for step in range(steps):
                if reload:
                    here = chunk(place, n, round_, step)
                    read(operands.grad_mask, source, place, here, h)
                    load_candidates(source, place, here, p)
                measure_from_selected(h, selected, p)
                for k in range(slots):
                    q[k] = p[k]
                to_weights(p, top, unit)
                to_weights(q, top, temp)
                add(p_lanes, p)
                add(q_lanes, q)
                add_products(a_lanes, q, h)
                add_products(b_lanes, p, h)
            p_part = publish_partial(p_lanes, place, shared, 0, round_)
            q_part = publish_partial(q_lanes, place, shared, 1, round_)
            a_part = publish_partial(a_lanes, place, shared, 2, round_)
            b_part = publish_partial(b_lanes, place, shared, 3, round_)
            barrier_if_shared()
            p_sum = total_of_warps(p_sum, p_part, shared, 0, round_)
            q_sum = total_of_warps(q_sum, q_part, shared, 1, round_)
            a, b = total_of_warps(a, a_part, shared, 2, round_), total_of_warps(b, b_part, shared, 3, round_)
        a, b = a / q_sum, b / p_sum
        for round_ in range(rounds(source)):
            for step in range(steps):
                here = chunk(place, n, round_, step)
                if reload:
                    read(operands.grad_mask, source, place, here, h)
                    load_candidates(source, place, here, p)
                    measure_from_selected(h, selected, p)
                    for k in range(slots):
                        q[k] = p[k]
                    to_weights(p, top, unit)
                    to_weights(q, top, temp)
                chosen, p_m, q_m = column(m - here.first), zero, zero
                for i in range(quads):
                    for c in range(4):
                        k = 4 * i + c
                        p_k, q_k = soft_entry(p[k], p_sum), soft_entry(q[k], q_sum)
                        h[k] = reinmax_entry(p_k, q_k, h[k], a, b, half, zero)
                        if chosen == offset(i, c):
                            p_m, q_m = p_k, q_k
                at_m = reinmax_selected(p_m, q_m, a, b, half, zero)
                for i in range(quads):
                    for c in range(4):
                        k = 4 * i + c
                        h[k] = at_m if chosen == offset(i, c) else h[k]
                overwrite_degenerate(h, p, m, is_finite(a) and is_finite(b))
                narrow_and_store(operands.out, source, place, here, h)

    return body
