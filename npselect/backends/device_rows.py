"""What the CUDA tier's kernels are made of: a variant, its arguments, and the passes over a row that kernels share.

A row is gone through as by the CPU's kernels: for the selected candidate, for the sums, for the result. What a thread
holds of a row that fits stays in its registers from one to the next; a longer row is read again.

Threads of one warp may have different rows, and meet in every shuffle: nothing branches on what a row holds until its
result is written. The exponential of an excluded entry is -0, that of a candidate never.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import types

from npselect.backends.arithmetic import divided_difference, exp, prepared
from npselect.backends.device_launch import Launcher
from npselect.backends.device_noise import perturbing
from npselect.backends.device_primitives import cuda, load
from npselect.backends.device_quads import column, computed_in, reading, widening, writing
from npselect.backends.device_teams import OFFERED, UNORDERED, WARP, agree, first_column, fold, pool, team
from npselect.backends.primitives import bits_of, fma, inlined

__all__ = ["ARGUMENTS", "NOTHING", "POISONED", "Operands", "Parts", "Source", "Variant", "launcher"]

NOTHING, POISONED = -1, -2  # as in the CPU's kernels

ARGUMENTS = {
    "logits": types.int64,  # an address, as all that have no other comment; 0: none
    "noise": types.int64,
    "noise_stride": types.int64,  # from row to row; 0: all rows share one
    "seed": types.uint64,
    "offset": types.uint64,
    "where": types.int64,
    "where_stride": types.int64,
    "temps": types.int64,
    "temp": types.float64,  # if there is no address of temps
    "grad": types.int64,
    "grad_grad": types.int64,
    "out": types.int64,
    "out2": types.int64,
    "rows": types.int64,
    "choices": types.int64,
    "rows_a_block": types.int64,
    "shift": types.int64,  # of the team, see `team`
    "warps": types.int64,
    "rounds": types.int64,
}


@dataclass(frozen=True)
class Variant:
    """What a kernel is made for."""

    kind: Any  # of cotangents and results
    logits: Any  # kind of the logits
    noise: str  # "none", "array" or "drawn"
    aligned: bool
    quads: int  # that a thread holds in a round: 1, 2, 4 or 8
    resident: bool  # whether in registers, all at a time
    most_threads: int  # of a block


class Source(NamedTuple):
    """Where candidates come from."""

    logits: Any
    noise: Any
    noise_stride: Any
    seed: Any
    offset: Any
    where: Any
    where_stride: Any
    choices: Any


class Operands(NamedTuple):
    """What else a kernel reads, and where it writes."""

    temps: Any
    temp: Any
    grad: Any
    grad_grad: Any
    out: Any
    out2: Any


class Parts:
    """The device functions that the kernels of a variant are made of."""

    def __init__(self, variant: Variant) -> None:
        kind, aligned = variant.kind, variant.aligned
        held = variant.quads if variant.resident else 1
        steps = variant.quads // held
        compute = computed_in(kind)
        most_warps = max(variant.most_threads // WARP, 1)
        first_of, folded, of_quad = first_column(aligned), fold(aligned), column(aligned)
        fetch = perturbing(variant.logits, kind, variant.noise, aligned, held)
        read, write, widen = reading(kind, aligned), writing(kind, aligned), widening(kind)
        infinity, zero, excluded, nan = compute(np.inf), compute(0.0), compute(-0.0), compute(np.nan)

        @inlined
        def choose(source: Any, place: Any, n: Any, w: Any) -> Any:
            """The selected candidate's index, or why none, and its w; `w` keeps the last of what was read."""
            tops = cuda.shared.array(most_warps, compute)
            columns = cuda.shared.array(most_warps, np.int64)
            all_flags = cuda.shared.array(most_warps, np.int64)
            top, m, flags = -infinity, NOTHING, OFFERED if source.where == 0 else 0
            for turn in range(place.rounds):
                for step in range(steps):
                    first = first_of(place, turn, held * step)
                    fetch(source, place, first, n, w)
                    for i in range(held):
                        for c in range(4):
                            at, x = of_quad(place, first + 4 * place.group * i, c), w[4 * i + c]
                            if not (x < infinity):
                                flags |= UNORDERED
                            if x > top:
                                top, m = x, at
                            if source.where != 0 and at < n:
                                offered = load(source.where, place.row * source.where_stride + at, np.uint8)
                                flags |= OFFERED if offered != 0 else 0
            top, m, flags = agree(top, m, flags, place, tops, columns, all_flags)
            if flags & OFFERED == 0:
                m = NOTHING
            elif flags & UNORDERED != 0 or top == -infinity:
                m = POISONED
            return m, top

        @inlined
        def again(place: Any) -> Any:
            """Whether a row must be read again for each pass."""
            return steps > 1 or place.rounds > 1

        @inlined
        def weight(w: Any, t: Any, tail: Any) -> Any:
            """``e = exp(t + tail)``, -0 at excluded entries."""
            return excluded if w == -infinity else exp(t, tail)

        @inlined
        def weigh(w: Any, top: Any, temp: Any) -> Any:
            """``w <- e = exp((w - top) / temp)``."""
            for k in range(4 * held):
                t, tail = divided_difference(w[k], top, temp)
                w[k] = weight(w[k], t, tail)

        @inlined
        def from_selected(
            grad: Any, place: Any, choices: Any, first: Any, n: Any, selected: Any, w: Any, h: Any
        ) -> Any:
            """``h <- g - g_m``, 0 at excluded entries."""
            for i in range(held):
                k = 4 * i
                a, b, c, d = read(grad, place.row * choices, place, first + 4 * place.group * i, n, zero)
                h[k] = zero if w[k] == -infinity else a - selected
                h[k + 1] = zero if w[k + 1] == -infinity else b - selected
                h[k + 2] = zero if w[k + 2] == -infinity else c - selected
                h[k + 3] = zero if w[k + 3] == -infinity else d - selected

        @inlined
        def at_selected(grad: Any, place: Any, choices: Any, n: Any, m: Any) -> Any:
            """g_m; 0 where nothing is selected."""
            return widen(load(grad, place.row * choices + m, kind)) if n > 0 and m >= 0 else zero

        @inlined
        def temperature(operands: Any, place: Any, n: Any) -> Any:
            one = operands.temps == 0 or n == 0
            return prepared(compute(operands.temp) if one else load(operands.temps, place.row, compute))

        @inlined
        def clear(lanes: Any) -> Any:
            for c in range(4):
                lanes[c] = zero

        @inlined
        def add(lanes: Any, x: Any) -> Any:
            for i in range(held):
                for c in range(4):
                    lanes[c] = lanes[c] + x[4 * i + c]

        @inlined
        def add_products(lanes: Any, x: Any, y: Any) -> Any:
            for i in range(held):
                for c in range(4):
                    lanes[c] = fma(x[4 * i + c], y[4 * i + c], lanes[c])

        @inlined
        def pooled(total: Any, lanes: Any, place: Any, shared: Any, which: Any, turn: Any) -> Any:
            """`total`, the `which`-th of a kernel's sums, and what the lanes of this round come to."""
            segment = folded(lanes[0], lanes[1], lanes[2], lanes[3], place)
            return pool(total, segment, place, shared, most_warps * (2 * which + (turn & 1)))

        @inlined
        def settled(x: Any, e: Any, m: Any, finite: Any) -> Any:
            """A result, unless nothing is selected, or its row's cotangent is not finite."""
            if m == NOTHING or (m >= 0 and not finite and bits_of(e) < 0):
                return zero
            return x if m >= 0 and finite else nan

        @inlined
        def put(out: Any, place: Any, choices: Any, first: Any, n: Any, x: Any) -> Any:
            for i in range(held):
                k, at = 4 * i, first + 4 * place.group * i
                write(out, place.row * choices, place, at, n, x[k], x[k + 1], x[k + 2], x[k + 3])

        self.kind, self.compute, self.held, self.steps, self.slots = kind, compute, held, steps, 4 * held
        self.shared = 8 * most_warps
        self.first_of, self.of_quad, self.fetch, self.read, self.write = first_of, of_quad, fetch, read, write
        self.choose, self.again, self.weight, self.weigh = choose, again, weight, weigh
        self.from_selected = from_selected
        self.at_selected, self.temperature, self.settled, self.put = at_selected, temperature, settled, put
        self.clear, self.add, self.add_products, self.pooled = clear, add, add_products, pooled


def launcher(variant: Variant, body: Callable[..., Any]) -> Launcher:
    """A kernel whose threads run ``body(source, operands, place, n)``, n being 0 beyond the last row."""

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
        rows_a_block: Any,
        shift: Any,
        warps: Any,
        rounds: Any,
    ) -> None:
        place = team(rows_a_block, shift, warps, rounds)
        # n must be there before the call: Python 3.12 and newer end `body(..., a if b else c)` in two calls, one for
        # either case, and the threads of a warp would meet in the shuffles of different ones
        n = choices if place.row < rows else 0
        source = Source(logits, noise, noise_stride, seed, offset, where, where_stride, choices)
        body(source, Operands(temps, temp, grad, grad_grad, out, out2), place, n)

    return Launcher(kernel, tuple(ARGUMENTS.values()), variant.most_threads)
