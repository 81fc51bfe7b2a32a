"""The CUDA tier's kernel of the second order: see `npselect.tiers.cuda.kernels`."""

from __future__ import annotations

from npselect._arithmetic.aliases import Number
from npselect._arithmetic.exponential import Temperature
from npselect._arithmetic.primitives import inlined
from npselect._arithmetic.steps import curvature, double_entry, grad_entry, is_finite, per_weight
from npselect._gpu.aliases import Count, Function, Quads
from npselect._gpu.intrinsics import cuda
from npselect.tiers.cuda.arguments import Operands, Source
from npselect.tiers.cuda.candidates import loading_candidates
from npselect.tiers.cuda.choosing import choosing
from npselect.tiers.cuda.row_kernel import row_kernel
from npselect.tiers.cuda.storing import narrowing_and_storing, overwriting, reading_cotangents
from npselect.tiers.cuda.sums import adding, sharing_barrier, totalling
from npselect.tiers.cuda.teams import Chunk, Place, chunking, counting_rounds
from npselect.tiers.cuda.variant import Variant
from npselect.tiers.cuda.weighing import at_selected, centring, temperature_of, weighing

__all__ = ["double_backward"]


@row_kernel(arrays_in_registers=3, cotangents=2, results=2)
def double_backward(variant: Variant) -> Function:
    """The gradient of `backward`: of `grad_mask` to `out`, of the logits to `out_logits`."""
    compute, slots, lane_count = variant.compute, variant.slots, variant.lanes
    steps, reload = variant.steps, variant.reload
    rounds, chunk = counting_rounds(variant.team), chunking(variant.team, variant.quads_in_registers)
    choose, load_candidates, read = choosing(variant), loading_candidates(variant), reading_cotangents(variant)
    selected_of, measure_from_selected = at_selected(variant), centring(variant)
    temperature, to_weights = temperature_of(variant), weighing(variant)
    (clear, add, add_products), barrier_if_shared = adding(variant), sharing_barrier(variant)
    size, publish_partial, total_of_warps = totalling(variant, 4)
    overwrite_degenerate, narrow_and_store = overwriting(variant), narrowing_and_storing(variant)
    zero = compute(0)

    @inlined
    def read_both(source: Source, operands: Operands, place: Place, here: Chunk, h: Quads, k: Quads) -> None:
        read(operands.grad_mask, source, place, here, h)
        read(operands.grad_grad_logits, source, place, here, k)

    @inlined
    def weigh_all(top: Number, temp: Temperature, at: tuple[Number, Number], e: Quads, h: Quads, k: Quads) -> None:
        measure_from_selected(h, at[0], e)
        measure_from_selected(k, at[1], e)
        to_weights(e, top, temp)

    @inlined
    def body(source: Source, operands: Operands, place: Place, n: Count) -> None:
        e, h, k = (cuda.local.array(slots, compute), cuda.local.array(slots, compute), cuda.local.array(slots, compute))
        s_lanes, h_lanes, k_lanes = (
            cuda.local.array(lane_count, compute),
            cuda.local.array(lane_count, compute),
            cuda.local.array(lane_count, compute),
        )
        shared = cuda.shared.array(size, compute)
        if not reload:
            read_both(source, operands, place, chunk(place, n, 0, 0), h, k)
        m, top = choose(source, place, n, e)
        temp = temperature(operands, place, n)
        at = (
            selected_of(operands.grad_mask, source, place, n, m),
            selected_of(operands.grad_grad_logits, source, place, n, m),
        )
        s, h_mean, k_mean, mean = zero, zero, zero, zero
        for round_ in range(rounds(source)):
            clear(s_lanes)
            clear(h_lanes)
            clear(k_lanes)
            for step in range(steps):
                if reload:
                    here = chunk(place, n, round_, step)
                    read_both(source, operands, place, here, h, k)
                    load_candidates(source, place, here, e)
                weigh_all(top, temp, at, e, h, k)
                add(s_lanes, e)
                add_products(h_lanes, e, h)
                add_products(k_lanes, e, k)
            s_part = publish_partial(s_lanes, place, shared, 0, round_)
            h_part = publish_partial(h_lanes, place, shared, 1, round_)
            k_part = publish_partial(k_lanes, place, shared, 2, round_)
            barrier_if_shared()
            s = total_of_warps(s, s_part, shared, 0, round_)
            h_mean = total_of_warps(h_mean, h_part, shared, 1, round_)
            k_mean = total_of_warps(k_mean, k_part, shared, 2, round_)
        q = per_weight(s, temp, compute(operands.scale))
        h_mean, k_mean = h_mean / s, k_mean / s
        for round_ in range(rounds(source)):
            clear(h_lanes)
            for step in range(steps):
                here = chunk(place, n, round_, step)
                if reload:
                    read_both(source, operands, place, here, h, k)
                    load_candidates(source, place, here, e)
                    weigh_all(top, temp, at, e, h, k)
                for i in range(slots):
                    k[i] = k[i] - k_mean
                    h[i] = curvature(h[i] - h_mean, k[i], zero)
                    k[i] = grad_entry(e[i], k[i], q, temp, zero)
                overwrite_degenerate(k, e, m, is_finite(k_mean))
                narrow_and_store(operands.out, source, place, here, k)
                add_products(h_lanes, e, h)
            part = publish_partial(h_lanes, place, shared, 3, round_)
            barrier_if_shared()
            mean = total_of_warps(mean, part, shared, 3, round_)
        mean = mean / s
        for round_ in range(rounds(source)):
            for step in range(steps):
                here = chunk(place, n, round_, step)
                if reload:
                    read_both(source, operands, place, here, h, k)
                    load_candidates(source, place, here, e)
                    weigh_all(top, temp, at, e, h, k)
                    for i in range(slots):
                        h[i] = curvature(h[i] - h_mean, k[i] - k_mean, zero)
                for i in range(slots):
                    h[i] = double_entry(e[i], h[i] - mean, q, temp, zero)
                overwrite_degenerate(h, e, m, is_finite(mean))
                narrow_and_store(operands.out_logits, source, place, here, h)

    return body
