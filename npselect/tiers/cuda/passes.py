"""What the CUDA tier's kernels are made of: the passes over a row that they share, for a `Variant`.

A row is gone through as by the CPU's kernels: for the selected candidate, for the sums, for the result. What a thread
holds of a row that fits stays in its registers from one to the next; a longer row is read again.

Threads of one warp may have different rows, and meet in every shuffle: nothing branches on what a row holds until its
result is written. The exponential of an excluded entry is -0, that of a candidate never.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from npselect._arithmetic.exponential import divided_difference, exp, prepared
from npselect._arithmetic.order import SEGMENT
from npselect._arithmetic.primitives import bits_of, fma, inlined, select
from npselect._gpu.intrinsics import barrier, cuda, load, shuffle_xor
from npselect._gpu.launch import Launcher
from npselect.tiers.cuda.loads import computed_in, narrowing, reading, widening, writing
from npselect.tiers.cuda.noise import lowest_rival, perturbing
from npselect.tiers.cuda.staging import through_tiles
from npselect.tiers.cuda.teams import WARP, agreement, fold, lanes_of, offset_of, placing, pooling, stretching
from npselect.tiers.cuda.variant import ARGUMENTS, Operands, Source, Variant

__all__ = ["NOTHING", "POISONED", "Parts", "launcher"]

NOTHING, POISONED = -1, -2  # as in the CPU's kernels


class Parts:
    """The device functions that the kernels of a variant are made of."""

    def __init__(self, variant: Variant) -> None:
        kind, team = variant.kind, variant.team
        held = team.quads if variant.resident else 1
        steps, slots = team.quads // held, 4 * held
        compute, number = computed_in(kind), np.int64 if team.long else np.int32
        warps, warps_a_round, tiled = team.warps, team.warps * SEGMENT, team.tiled
        size = lanes_of(team, held)
        meeting = warps > 1 or (tiled and team.group > 1)  # in a tile others read what results then take the place of
        stretch, offset, folded = stretching(team, held), offset_of(team), fold(team, size)
        agree, (share_segment, pool) = agreement(team), pooling(team)
        fetch, estimate, correct = perturbing(variant.logits, kind, variant.noise, team, held)
        read, write = reading(kind, team, held, 0.0), writing(kind, team, held)
        widen, narrow = widening(kind), narrowing(kind)
        infinity, zero, excluded, nan = compute(np.inf), compute(0.0), compute(-0.0), compute(np.nan)

        @inlined
        def rounds(source: Any) -> Any:
            return -(-source.choices // warps_a_round) if team.long else 1

        @inlined
        def scan(here: Any, w: Any, top: Any, m: Any, ordered: Any) -> Any:
            """The largest entry so far, its column, and whether all entries are ordered numbers below +inf."""
            slot = np.int32(-1)
            for i in range(held):
                for c in range(4):
                    x = w[4 * i + c]
                    ordered = ordered & (x < infinity)
                    if x > top:
                        top, slot = x, np.int32(offset(i, c))
            return top, number(here.first + slot) if slot >= 0 else m, ordered

        @inlined
        def choose(source: Any, place: Any, n: Any, w: Any) -> Any:
            """The selected candidate's index, or why none, and its w; `w` keeps the last of what was read.

            Of a row without any finite entry, the column says why: POISONED comes before NOTHING.
            """
            tops = cuda.shared.array(warps, compute)
            columns = cuda.shared.array(warps, number)
            top, m = -infinity, number(NOTHING if source.where != 0 else POISONED)
            ordered = True
            for turn in range(rounds(source)):
                for step in range(steps):
                    here = stretch(place, n, turn, step)
                    if fetch(source, place, here, w) and m == NOTHING:
                        m = number(POISONED)
                    top, m, ordered = scan(here, w, top, m, ordered)
            if not ordered:
                top = infinity
            top, m = agree(top, m, place, tops, columns)
            if top == infinity:
                m = number(POISONED)
            return m, top

        @inlined
        def anyone(flag: Any, place: Any, flags: Any) -> Any:
            """Whether a flag is up, for this row or another of the warp's."""
            up, distance = np.int32(flag), WARP >> 1
            while distance > 0:
                up = np.int32(up | shuffle_xor(up, distance))
                distance >>= 1
            if warps > 1:
                if place.lane == 0:
                    flags[place.warp] = up
                barrier()
                for i in range(warps):
                    up = np.int32(up | flags[i])
            return up != 0

        @inlined
        def choose_by_estimates(source: Any, place: Any, n: Any, w: Any) -> Any:
            """The same where noise is drawn: exactly only where an estimate leaves it open."""
            tops = cuda.shared.array(warps, compute)
            columns = cuda.shared.array(warps, number)
            flags = cuda.shared.array(warps, np.int32)
            here, none = stretch(place, n, 0, 0), number(NOTHING if source.where != 0 else POISONED)
            found, wild = estimate(source, place, here, w)
            if found:
                none = number(POISONED)
            if wild:
                for k in range(slots):
                    w[k] = -infinity
            top, mine, ordered = scan(here, w, -infinity, none, True)
            if not ordered:
                top = infinity
            top, m = agree(top, mine, place, tops, columns)
            least, rivals = lowest_rival(top), (1 << slots) - 1 if wild else 0
            for k in range(slots):
                rivals |= (1 << k) if w[k] >= least else 0
            several = rivals != 0 and (mine != m or rivals & (rivals - 1) != 0)
            if anyone(wild or (top > -infinity and several), place, flags):
                correct(source, place, here, w, rivals)
                top, m, ordered = scan(here, w, -infinity, none, ordered)
                if not ordered:
                    top = infinity
                top, m = agree(top, m, place, tops, columns)
            if top == infinity:
                m = number(POISONED)
            return m, top

        @inlined
        def weight(w: Any, t: Any, tail: Any) -> Any:
            """``e = exp(t + tail)``, -0 at excluded entries."""
            return select(w == -infinity, excluded, exp(t, tail))

        @inlined
        def weigh(w: Any, top: Any, temp: Any) -> Any:
            """``w <- e = exp((w - top) / temp)``."""
            for k in range(slots):
                t, tail = divided_difference(w[k], top, temp)
                w[k] = weight(w[k], t, tail)

        @inlined
        def start(source: Any, place: Any) -> Any:
            return (place.local if tiled else place.row) * source.choices

        @inlined
        def read_row(address: Any, source: Any, place: Any, here: Any, x: Any) -> Any:
            read(address, start(source, place) + here.first, here.left, x)

        @inlined
        def from_selected(g: Any, selected: Any, w: Any) -> Any:
            """``g <- h = g - g_m``, 0 at excluded entries."""
            for k in range(slots):
                g[k] = zero if w[k] == -infinity else g[k] - selected

        @inlined
        def at_selected(grad: Any, source: Any, place: Any, n: Any, m: Any) -> Any:
            """g_m; 0 where nothing is selected."""
            return widen(load(grad, start(source, place) + m, kind)) if n > 0 and m >= 0 else zero

        @inlined
        def temperature(operands: Any, place: Any, n: Any) -> Any:
            one = operands.temps == 0 or n == 0
            return prepared(compute(operands.temp) if one else load(operands.temps, place.row, compute))

        @inlined
        def clear(lanes: Any) -> Any:
            for k in range(size):
                lanes[k] = zero

        @inlined
        def add(lanes: Any, x: Any) -> Any:
            for k in range(slots):
                lanes[k % size] = lanes[k % size] + x[k]

        @inlined
        def add_products(lanes: Any, x: Any, y: Any) -> Any:
            for k in range(slots):
                lanes[k % size] = fma(x[k], y[k], lanes[k % size])

        @inlined
        def share(lanes: Any, place: Any, shared: Any, which: Any, turn: Any) -> Any:
            """What the lanes of this round come to, put where `pooled` finds it after `meet`: a kernel's `which`-th."""
            return share_segment(folded(lanes), place, shared, warps * (2 * which + (turn & 1)))

        @inlined
        def meet() -> Any:
            if meeting:
                barrier()

        @inlined
        def pooled(total: Any, segment: Any, shared: Any, which: Any, turn: Any) -> Any:
            return pool(total, segment, shared, warps * (2 * which + (turn & 1)))

        @inlined
        def settle(x: Any, e: Any, m: Any, finite: Any) -> Any:
            """Results where nothing is selected, or the row's cotangent is not finite."""
            if m < 0 or not finite:
                for k in range(slots):
                    x[k] = zero if m == NOTHING or (m >= 0 and bits_of(e[k]) < 0) else nan

        @inlined
        def write_row(out: Any, source: Any, place: Any, here: Any, x: Any) -> Any:
            write(out, start(source, place) + here.first, here.left, x)

        @inlined
        def put(out: Any, source: Any, place: Any, here: Any, x: Any) -> Any:
            narrowed = cuda.local.array(slots, kind)
            for k in range(slots):
                narrowed[k] = narrow(x[k])
            write_row(out, source, place, here, narrowed)

        self.kind, self.compute, self.held, self.steps, self.slots = kind, compute, held, steps, slots
        self.number, self.lanes, self.start = number, size, start
        self.shared, self.again = 2 * warps, steps > 1 or team.long  # again: a row is read again for each pass
        self.rounds, self.stretch, self.offset, self.fetch, self.write = rounds, stretch, offset, fetch, write_row
        estimable = variant.noise == "drawn" and computed_in(variant.logits) is compute is np.float32
        self.select = choose_by_estimates if estimable and not self.again else choose
        self.choose, self.weight, self.weigh, self.read, self.put = choose, weight, weigh, read_row, put
        self.from_selected, self.at_selected, self.temperature = from_selected, at_selected, temperature
        self.clear, self.add, self.add_products, self.settle = clear, add, add_products, settle
        self.share, self.meet, self.pooled = share, meet, pooled


def launcher(variant: Variant, body: Callable[..., Any], reads: int, writes: int) -> Launcher:
    """A kernel whose threads run ``body(source, operands, place, n)``, n being 0 beyond the last row.

    It `reads` so many cotangents, and `writes` so many results that have the logits' shape.
    """
    placed = placing(variant.team, variant.threads)
    body = through_tiles(variant, body, reads, writes) if variant.team.tiled else body

    def kernel(
        logits: Any,
        noise: Any,
        noise_stride: Any,
        seed: Any,
        offset: Any,
        where: Any,
        where_stride: Any,
        temps: Any,
        temp: Any,
        grad: Any,
        grad_grad: Any,
        out: Any,
        out2: Any,
        rows: Any,
        choices: Any,
    ) -> None:
        place = placed()
        # n must be there before the call: Python 3.12 and newer end `body(..., a if b else c)` in two calls, one for
        # either case, and the threads of a warp would meet in the shuffles of different ones
        n = choices if place.row < rows else 0
        source = Source(logits, noise, noise_stride, seed, offset, where, where_stride, rows, choices)
        body(source, Operands(temps, temp, grad, grad_grad, out, out2), place, n)

    return Launcher(kernel, tuple(ARGUMENTS.values()), variant.threads)
