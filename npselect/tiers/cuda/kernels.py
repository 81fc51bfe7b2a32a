"""The CUDA tier's soft kernels: the rows of `npselect.tiers.cpu.long_rows`, each by a team, with the same bits.

As on the CPU there is a pass over a row for the selected candidate, one for the sums, and one for the results. If a
thread's entries of the row fit its registers, they stay there from pass to pass; else they are loaded again in each.

Each function here makes a kernel's body for a `Variant`: see `npselect.tiers.cuda.row_kernel`.
"""

from __future__ import annotations

import numpy as np

from npselect._arithmetic.primitives import bits_of, inlined
from npselect._arithmetic.steps import (
    EMPTY,
    INVALID,
    grad_entry,
    is_finite,
    mixture_entry,
    per_weight,
    soft_entry,
    temp_share,
    temp_term,
)
from npselect._gpu.aliases import Count, Function
from npselect._gpu.elements import store
from npselect._gpu.intrinsics import cuda
from npselect.tiers.cuda.arguments import Operands, Source
from npselect.tiers.cuda.candidates import loading_candidates
from npselect.tiers.cuda.choosing import choosing
from npselect.tiers.cuda.row_kernel import row_kernel
from npselect.tiers.cuda.storing import narrowing_and_storing, overwriting, reading_cotangents
from npselect.tiers.cuda.sums import adding, sharing_barrier, totalling
from npselect.tiers.cuda.teams import Place, chunking, counting_rounds
from npselect.tiers.cuda.variant import Variant
from npselect.tiers.cuda.weighing import at_selected, centring, temperature_of, weighing, weighing_with_exponents

__all__ = ["backward", "backward_temp", "mixture", "soft"]


@row_kernel(arrays_in_registers=1)
def soft(variant: Variant) -> Function:
    """``probs = softmax(logits / temp)``."""
    compute, slots, lane_count = variant.compute, variant.slots, variant.lanes
    steps, reload = variant.steps, variant.reload
    rounds, chunk = counting_rounds(variant.team), chunking(variant.team, variant.quads_in_registers)
    choose, load_candidates = choosing(variant), loading_candidates(variant)
    temperature, to_weights = temperature_of(variant), weighing(variant)
    (clear, add, _), barrier_if_shared = adding(variant), sharing_barrier(variant)
    size, publish_partial, total_of_warps = totalling(variant, 1)
    overwrite_degenerate, narrow_and_store = overwriting(variant), narrowing_and_storing(variant)
    zero = compute(0)

    @inlined
    def body(source: Source, operands: Operands, place: Place, n: Count) -> None:
        e, p = cuda.local.array(slots, compute), cuda.local.array(slots, compute)
        lanes = cuda.local.array(lane_count, compute)
        shared = cuda.shared.array(size, compute)
        m, top = choose(source, place, n, e)
        temp = temperature(operands, place, n)
        s = zero
        for round_ in range(rounds(source)):
            clear(lanes)
            for step in range(steps):
                if reload:
                    load_candidates(source, place, chunk(place, n, round_, step), e)
                to_weights(e, top, temp)
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
                for k in range(slots):
                    p[k] = soft_entry(e[k], s) + zero  # an excluded entry's e is -0
                overwrite_degenerate(p, e, m, True)
                narrow_and_store(operands.out, source, place, here, p)

    return body


@row_kernel(arrays_in_registers=1)
def mixture(variant: Variant) -> Function:
    """``(1 - unimix) softmax(logits / temp) + unimix / n`` of n candidates."""
    compute, slots, lane_count = variant.compute, variant.slots, variant.lanes
    steps, reload = variant.steps, variant.reload
    rounds, chunk = counting_rounds(variant.team), chunking(variant.team, variant.quads_in_registers)
    choose, load_candidates = choosing(variant), loading_candidates(variant)
    temperature, to_weights = temperature_of(variant), weighing(variant)
    (clear, add, _), barrier_if_shared = adding(variant), sharing_barrier(variant)
    size, publish_partial, total_of_warps = totalling(variant, 2)
    overwrite_degenerate, narrow_and_store = overwriting(variant), narrowing_and_storing(variant)
    zero, one = compute(0), compute(1)

    @inlined
    def body(source: Source, operands: Operands, place: Place, n: Count) -> None:
        e, p = cuda.local.array(slots, compute), cuda.local.array(slots, compute)
        s_lanes, n_lanes = cuda.local.array(lane_count, compute), cuda.local.array(lane_count, compute)
        shared = cuda.shared.array(size, compute)
        m, top = choose(source, place, n, e)
        temp = temperature(operands, place, n)
        kept = compute(np.float64(1) - operands.unimix)
        s, candidates = zero, zero
        for round_ in range(rounds(source)):
            clear(s_lanes)
            clear(n_lanes)
            for step in range(steps):
                if reload:
                    load_candidates(source, place, chunk(place, n, round_, step), e)
                to_weights(e, top, temp)
                for k in range(slots):
                    p[k] = zero if bits_of(e[k]) < 0 else one
                add(s_lanes, e)
                add(n_lanes, p)
            s_part = publish_partial(s_lanes, place, shared, 0, round_)
            n_part = publish_partial(n_lanes, place, shared, 1, round_)
            barrier_if_shared()
            s = total_of_warps(s, s_part, shared, 0, round_)
            candidates = total_of_warps(candidates, n_part, shared, 1, round_)
        share = compute(operands.unimix) / candidates
        for round_ in range(rounds(source)):
            for step in range(steps):
                here = chunk(place, n, round_, step)
                if reload:
                    load_candidates(source, place, here, e)
                    to_weights(e, top, temp)
                for k in range(slots):
                    p[k] = zero if bits_of(e[k]) < 0 else mixture_entry(e[k], s, kept, share)
                overwrite_degenerate(p, e, m, True)
                narrow_and_store(operands.out, source, place, here, p)

    return body


@row_kernel(arrays_in_registers=2, cotangents=1)
def backward(variant: Variant) -> Function:
    """The softmax's Jacobian times `grad_mask`."""
    compute, slots, lane_count = variant.compute, variant.slots, variant.lanes
    steps, reload = variant.steps, variant.reload
    rounds, chunk = counting_rounds(variant.team), chunking(variant.team, variant.quads_in_registers)
    choose, load_candidates, read = choosing(variant), loading_candidates(variant), reading_cotangents(variant)
    selected_of, measure_from_selected = at_selected(variant), centring(variant)
    temperature, to_weights = temperature_of(variant), weighing(variant)
    (clear, add, add_products), barrier_if_shared = adding(variant), sharing_barrier(variant)
    size, publish_partial, total_of_warps = totalling(variant, 2)
    overwrite_degenerate, narrow_and_store = overwriting(variant), narrowing_and_storing(variant)
    zero = compute(0)

    @inlined
    def body(source: Source, operands: Operands, place: Place, n: Count) -> None:
        e, h = cuda.local.array(slots, compute), cuda.local.array(slots, compute)
        s_lanes, d_lanes = cuda.local.array(lane_count, compute), cuda.local.array(lane_count, compute)
        shared = cuda.shared.array(size, compute)
        if not reload:
            read(operands.grad_mask, source, place, chunk(place, n, 0, 0), h)
        m, top = choose(source, place, n, e)
        temp = temperature(operands, place, n)
        selected = selected_of(operands.grad_mask, source, place, n, m)
        s, d = zero, zero
        for round_ in range(rounds(source)):
            clear(s_lanes)
            clear(d_lanes)
            for step in range(steps):
                if reload:
                    here = chunk(place, n, round_, step)
                    read(operands.grad_mask, source, place, here, h)
                    load_candidates(source, place, here, e)
                measure_from_selected(h, selected, e)
                to_weights(e, top, temp)
                add(s_lanes, e)
                add_products(d_lanes, e, h)
            s_part = publish_partial(s_lanes, place, shared, 0, round_)
            d_part = publish_partial(d_lanes, place, shared, 1, round_)
            barrier_if_shared()
            s, d = total_of_warps(s, s_part, shared, 0, round_), total_of_warps(d, d_part, shared, 1, round_)
        d = d / s
        q = per_weight(s, temp, compute(operands.scale))
        for round_ in range(rounds(source)):
            for step in range(steps):
                here = chunk(place, n, round_, step)
                if reload:
                    read(operands.grad_mask, source, place, here, h)
                    load_candidates(source, place, here, e)
                    measure_from_selected(h, selected, e)
                    to_weights(e, top, temp)
                for k in range(slots):
                    h[k] = grad_entry(e[k], h[k] - d, q, temp, zero)
                overwrite_degenerate(h, e, m, is_finite(d))
                narrow_and_store(operands.out, source, place, here, h)

    return body


@row_kernel(arrays_in_registers=3, cotangents=1, results=0)
def backward_temp(variant: Variant) -> Function:
    """Each row's share, in the compute type: ``-sum_i grad_logits_i t_i``."""
    compute, slots, lane_count = variant.compute, variant.slots, variant.lanes
    steps, reload = variant.steps, variant.reload
    rounds, chunk = counting_rounds(variant.team), chunking(variant.team, variant.quads_in_registers)
    choose, load_candidates, read = choosing(variant), loading_candidates(variant), reading_cotangents(variant)
    selected_of, measure_from_selected = at_selected(variant), centring(variant)
    temperature, to_weights = temperature_of(variant), weighing_with_exponents(variant)
    (clear, add, add_products), barrier_if_shared = adding(variant), sharing_barrier(variant)
    size, publish_partial, total_of_warps = totalling(variant, 3)
    zero, nan = compute(0), compute(np.nan)

    @inlined
    def body(source: Source, operands: Operands, place: Place, n: Count) -> None:
        e, h, t = (cuda.local.array(slots, compute), cuda.local.array(slots, compute), cuda.local.array(slots, compute))
        s_lanes, d_lanes = cuda.local.array(lane_count, compute), cuda.local.array(lane_count, compute)
        shared = cuda.shared.array(size, compute)
        if not reload:
            read(operands.grad_mask, source, place, chunk(place, n, 0, 0), h)
        m, top = choose(source, place, n, e)
        temp = temperature(operands, place, n)
        selected = selected_of(operands.grad_mask, source, place, n, m)
        s, d, total = zero, zero, zero
        for round_ in range(rounds(source)):
            clear(s_lanes)
            clear(d_lanes)
            for step in range(steps):
                if reload:
                    here = chunk(place, n, round_, step)
                    read(operands.grad_mask, source, place, here, h)
                    load_candidates(source, place, here, e)
                measure_from_selected(h, selected, e)
                to_weights(e, top, temp, t)
                add(s_lanes, e)
                add_products(d_lanes, e, h)
            s_part = publish_partial(s_lanes, place, shared, 0, round_)
            d_part = publish_partial(d_lanes, place, shared, 1, round_)
            barrier_if_shared()
            s, d = total_of_warps(s, s_part, shared, 0, round_), total_of_warps(d, d_part, shared, 1, round_)
        d = d / s
        for round_ in range(rounds(source)):
            clear(d_lanes)
            for step in range(steps):
                if reload:
                    here = chunk(place, n, round_, step)
                    read(operands.grad_mask, source, place, here, h)
                    load_candidates(source, place, here, e)
                    measure_from_selected(h, selected, e)
                    to_weights(e, top, temp, t)
                for k in range(slots):
                    h[k], t[k] = temp_term(e[k], t[k], h[k] - d)
                add_products(d_lanes, h, t)
            part = publish_partial(d_lanes, place, shared, 2, round_)
            barrier_if_shared()
            total = total_of_warps(total, part, shared, 2, round_)
        if n > 0 and place.lane == 0 and place.warp == 0:
            share = temp_share(total, s, temp, compute(operands.scale))
            store(operands.out, place.row, compute, zero if m == EMPTY else (nan if m == INVALID else share))

    return body
