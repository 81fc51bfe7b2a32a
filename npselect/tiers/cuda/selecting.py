"""The CUDA tier's kernels that only select; and those that sum rows, and take logarithms."""

from __future__ import annotations

import numpy as np

from npselect._arithmetic.aliases import Index
from npselect._arithmetic.primitives import inlined
from npselect._arithmetic.steps import EMPTY, INVALID, checked_index
from npselect._arithmetic.steps import log as logarithm
from npselect._gpu.aliases import Count, Function, Quads
from npselect._gpu.elements import load, store
from npselect._gpu.intrinsics import cuda
from npselect.tiers.cuda.arguments import Operands, Source
from npselect.tiers.cuda.choosing import selecting
from npselect.tiers.cuda.loads import narrowing, reading, widening
from npselect.tiers.cuda.row_kernel import row_kernel
from npselect.tiers.cuda.storing import narrowing_and_storing, storing
from npselect.tiers.cuda.sums import adding, sharing_barrier, totalling
from npselect.tiers.cuda.teams import Place, chunking, counting_rounds, offset_of, start_of_row
from npselect.tiers.cuda.variant import Variant, computed_in

__all__ = ["choice", "index", "log", "mask", "mask_at", "totals"]


@row_kernel(arrays_in_registers=1, results=0)
def index(variant: Variant) -> Function:
    """Index of the selected candidate, int64, -1 where nothing is selected."""
    compute, slots, choose = variant.compute, variant.slots, selecting(variant)

    @inlined
    def body(source: Source, operands: Operands, place: Place, n: Count) -> None:
        w = cuda.local.array(slots, compute)
        m, _ = choose(source, place, n, w)
        if n > 0 and place.lane == 0 and place.warp == 0:
            store(operands.out, place.row, np.int64, np.int64(max(m, -1)))

    return body


def _storing_one_hot(variant: Variant) -> Function:
    """``store_one_hot(source, operands, place, n, m, x)``: zeros for EMPTY, NaN for INVALID."""
    compute, column, narrow = variant.compute, variant.column, narrowing(variant.kind)
    quads, steps, write = variant.quads_in_registers, variant.steps, storing(variant)
    rounds, chunk, offset = counting_rounds(variant.team), chunking(variant.team, quads), offset_of(variant.team)

    @inlined
    def store_one_hot(source: Source, operands: Operands, place: Place, n: Count, m: Index, x: Quads) -> None:
        one, elsewhere = narrow(compute(1)), narrow(compute(np.nan if m == INVALID else 0.0))
        for round_ in range(rounds(source)):
            for step in range(steps):
                here = chunk(place, n, round_, step)
                chosen = column(m - here.first)
                for i in range(quads):
                    for c in range(4):
                        x[4 * i + c] = one if m >= 0 and chosen == offset(i, c) else elsewhere
                write(operands.out, source, place, here, x)

    return store_one_hot


@row_kernel(arrays_in_registers=1)
def mask(variant: Variant) -> Function:
    """The exact one-hot of the selected candidate."""
    compute, kind, slots = variant.compute, variant.kind, variant.slots
    choose, store_one_hot = selecting(variant), _storing_one_hot(variant)

    @inlined
    def body(source: Source, operands: Operands, place: Place, n: Count) -> None:
        w, x = cuda.local.array(slots, compute), cuda.local.array(slots, kind)
        m, _ = choose(source, place, n, w)
        store_one_hot(source, operands, place, n, m, x)

    return body


@row_kernel(arrays_in_registers=1, results=0)
def choice(variant: Variant) -> Function:
    """The selected candidate's index, EMPTY or INVALID; with an index for each row, that one, checked."""
    compute, slots, choose = variant.compute, variant.slots, selecting(variant)
    logits_kind, widen, start = variant.logits, widening(variant.logits), start_of_row(variant.team)
    lowest = computed_in(variant.logits)(-np.inf)

    @inlined
    def body(source: Source, operands: Operands, place: Place, n: Count) -> None:
        w = cuda.local.array(slots, compute)
        found, _ = choose(source, place, n, w)
        if n > 0 and place.lane == 0 and place.warp == 0:
            m = np.int64(found)
            if operands.choice != 0:
                given = load(operands.choice, place.row, np.int64)
                j = min(max(given, 0), n - 1)
                is_candidate = widen(load(source.logits, start(source, place) + j, logits_kind)) > lowest
                if source.where != 0 and load(source.where, place.row * source.where_stride + j, np.uint8) == 0:
                    is_candidate = False
                m = np.int64(checked_index(given, n, m, is_candidate))
            store(operands.out, place.row, np.int64, m)

    return body


@row_kernel(arrays_in_registers=1, reads_logits=False)
def mask_at(variant: Variant) -> Function:
    """The exact one-hot of each row's choice."""
    kind, slots, store_one_hot = variant.kind, variant.slots, _storing_one_hot(variant)

    @inlined
    def body(source: Source, operands: Operands, place: Place, n: Count) -> None:
        x = cuda.local.array(slots, kind)
        m = load(operands.choice, place.row, np.int64) if n > 0 else np.int64(EMPTY)
        store_one_hot(source, operands, place, n, m, x)

    return body


@row_kernel(arrays_in_registers=0, results=0)
def totals(variant: Variant) -> Function:
    """Each row of numbers in the compute type added up; `variant.logits` is that type, `variant.kind` the result's."""
    compute, slots, steps, lane_count = variant.compute, variant.slots, variant.steps, variant.lanes
    kind, narrow = variant.kind, narrowing(variant.kind)
    quads, start = variant.quads_in_registers, start_of_row(variant.team)
    rounds, chunk, read = (
        counting_rounds(variant.team),
        chunking(variant.team, quads),
        reading(compute, variant.team, quads, 0.0),
    )
    (clear, add, _), barrier_if_shared = adding(variant), sharing_barrier(variant)
    size, publish_partial, total_of_warps = totalling(variant, 1)

    @inlined
    def body(source: Source, operands: Operands, place: Place, n: Count) -> None:
        x, lanes = cuda.local.array(slots, compute), cuda.local.array(lane_count, compute)
        shared = cuda.shared.array(size, compute)
        total = compute(0)
        for round_ in range(rounds(source)):
            clear(lanes)
            for step in range(steps):
                here = chunk(place, n, round_, step)
                read(source.logits, start(source, place) + here.first, here.left, x)
                add(lanes, x)
            part = publish_partial(lanes, place, shared, 0, round_)
            barrier_if_shared()
            total = total_of_warps(total, part, shared, 0, round_)
        if n > 0 and place.lane == 0 and place.warp == 0:
            store(operands.out, place.row, kind, narrow(total))

    return body


@row_kernel(arrays_in_registers=1)
def log(variant: Variant) -> Function:
    """The logarithm of each entry, of float64, in the type of the results."""
    compute, slots, quads, steps = variant.compute, variant.slots, variant.quads_in_registers, variant.steps
    rounds, chunk, start = counting_rounds(variant.team), chunking(variant.team, quads), start_of_row(variant.team)
    read, narrow_and_store = reading(variant.logits, variant.team, quads, 0.0), narrowing_and_storing(variant)

    @inlined
    def body(source: Source, operands: Operands, place: Place, n: Count) -> None:
        x, logs = cuda.local.array(slots, np.float64), cuda.local.array(slots, compute)
        for round_ in range(rounds(source)):
            for step in range(steps):
                here = chunk(place, n, round_, step)
                read(source.logits, start(source, place) + here.first, here.left, x)
                for k in range(slots):
                    logs[k] = compute(logarithm(x[k]))
                narrow_and_store(operands.out, source, place, here, logs)

    return body
