"""The CUDA tier's kernels: the rows of `npselect.backends.kernels`, each by a team of threads, with the same bits.

A kernel is made for a `Variant`: how numbers are stored, where noise comes from, whether rows are aligned, and how many
quads a thread holds (see `npselect.backends.device_teams`). It goes through a row as the CPU's kernel does: for the
selected candidate, for the sums, for the result. What a thread holds of a row that fits stays in its registers from one
to the next; a longer row is read again.

Threads of one warp may have different rows, and meet in every shuffle: nothing branches on what a row holds until its
result is written. The exponential of an excluded entry is -0, that of a candidate never.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import types

from npselect.backends.arithmetic import divided_difference, exp, prepared
from npselect.backends.device_noise import perturbing
from npselect.backends.device_primitives import Launcher, cuda, load, store
from npselect.backends.device_quads import column, computed_in, narrowing, reading, widening, writing
from npselect.backends.device_teams import OFFERED, UNORDERED, WARP, agree, first_column, fold, pool, team
from npselect.backends.primitives import bits_of, fma, inlined

__all__ = ["ARGUMENTS", "Variant", "backward", "backward_temp", "double_backward", "index", "mask", "soft", "totals"]

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


class _Parts:
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
                                flags |= np.int64(load(source.where, place.row * source.where_stride + at, np.uint8))
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


def _launcher(variant: Variant, body: Callable[..., Any]) -> Launcher:
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
        source = Source(logits, noise, noise_stride, seed, offset, where, where_stride, choices)
        body(source, Operands(temps, temp, grad, grad_grad, out, out2), place, choices if place.row < rows else 0)

    return Launcher(kernel, tuple(ARGUMENTS.values()), variant.most_threads)


@inlined
def _finite(x: Any) -> Any:
    return abs(x) < np.inf


# ------------------------------------------------------------------------------------------------ selecting


@cache
def index(variant: Variant) -> Launcher:
    """Index of the selected candidate, int64, -1 where nothing is selected."""
    parts = _Parts(variant)
    compute, slots, choose = parts.compute, parts.slots, parts.choose

    @inlined
    def body(source: Any, operands: Any, place: Any, n: Any) -> Any:
        w = cuda.local.array(slots, compute)
        m, _ = choose(source, place, n, w)
        if n > 0 and place.lane == 0 and place.warp == 0:
            store(operands.out, place.row, np.int64, max(m, -1))

    return _launcher(variant, body)


@cache
def mask(variant: Variant) -> Launcher:
    """The exact one-hot of the selected candidate."""
    parts = _Parts(variant)
    compute, slots, held, steps = parts.compute, parts.slots, parts.held, parts.steps
    choose, first_of, of_quad, put = parts.choose, parts.first_of, parts.of_quad, parts.put
    zero, one, nan = compute(0), compute(1), compute(np.nan)

    @inlined
    def body(source: Any, operands: Any, place: Any, n: Any) -> Any:
        w = cuda.local.array(slots, compute)
        m, _ = choose(source, place, n, w)
        for turn in range(place.rounds):
            for step in range(steps):
                first = first_of(place, turn, held * step)
                for i in range(held):
                    for c in range(4):
                        at = of_quad(place, first + 4 * place.group * i, c)
                        w[4 * i + c] = nan if m == POISONED else (one if at == m else zero)
                put(operands.out, place, source.choices, first, n, w)

    return _launcher(variant, body)


# ------------------------------------------------------------------------------------------------ the soft passes


@cache
def soft(variant: Variant) -> Launcher:
    """``probs = softmax(logits / temp)``."""
    parts = _Parts(variant)
    compute, slots, held, steps, size = parts.compute, parts.slots, parts.held, parts.steps, parts.shared
    choose, first_of, fetch, again, put = parts.choose, parts.first_of, parts.fetch, parts.again, parts.put
    temperature, weigh, settled = parts.temperature, parts.weigh, parts.settled
    clear, add, pooled = parts.clear, parts.add, parts.pooled
    zero = compute(0)

    @inlined
    def body(source: Any, operands: Any, place: Any, n: Any) -> Any:
        w, lanes = cuda.local.array(slots, compute), cuda.local.array(4, compute)
        shared = cuda.shared.array(size, compute)
        m, top = choose(source, place, n, w)
        temp = temperature(operands, place, n)
        s = zero
        for turn in range(place.rounds):
            clear(lanes)
            for step in range(steps):
                if again(place):
                    fetch(source, place, first_of(place, turn, held * step), n, w)
                weigh(w, top, temp)
                add(lanes, w)
            s = pooled(s, lanes, place, shared, 0, turn)
        for turn in range(place.rounds):
            for step in range(steps):
                first = first_of(place, turn, held * step)
                if again(place):
                    fetch(source, place, first, n, w)
                    weigh(w, top, temp)
                for k in range(slots):
                    w[k] = settled(w[k] / s + zero, w[k], m, True)  # + 0 lest an excluded entry be -0
                put(operands.out, place, source.choices, first, n, w)

    return _launcher(variant, body)


@cache
def backward(variant: Variant) -> Launcher:
    """The softmax's Jacobian times `grad`."""
    parts = _Parts(variant)
    compute, slots, held, steps, size = parts.compute, parts.slots, parts.held, parts.steps, parts.shared
    choose, first_of, fetch, again, put = parts.choose, parts.first_of, parts.fetch, parts.again, parts.put
    temperature, weigh, settled = parts.temperature, parts.weigh, parts.settled
    clear, add, add_products, pooled = parts.clear, parts.add, parts.add_products, parts.pooled
    from_selected, at_selected = parts.from_selected, parts.at_selected
    zero, one = compute(0), compute(1)

    @inlined
    def body(source: Any, operands: Any, place: Any, n: Any) -> Any:
        w, h = cuda.local.array(slots, compute), cuda.local.array(slots, compute)
        s_lanes, d_lanes = cuda.local.array(4, compute), cuda.local.array(4, compute)
        shared = cuda.shared.array(size, compute)
        m, top = choose(source, place, n, w)
        temp = temperature(operands, place, n)
        selected = at_selected(operands.grad, place, source.choices, n, m)
        s, d = zero, zero
        for turn in range(place.rounds):
            clear(s_lanes)
            clear(d_lanes)
            for step in range(steps):
                first = first_of(place, turn, held * step)
                if again(place):
                    fetch(source, place, first, n, w)
                from_selected(operands.grad, place, source.choices, first, n, selected, w, h)
                weigh(w, top, temp)
                add(s_lanes, w)
                add_products(d_lanes, w, h)
            s = pooled(s, s_lanes, place, shared, 0, turn)
            d = pooled(d, d_lanes, place, shared, 1, turn)
        d = d / s
        finite = _finite(d)
        # grad_logits_i = e_i (h_i - d) / (s temp), + 0 lest a product with e_i = 0 be -0
        q = one / (s * temp.scaled)
        for turn in range(place.rounds):
            for step in range(steps):
                first = first_of(place, turn, held * step)
                if again(place):
                    fetch(source, place, first, n, w)
                    from_selected(operands.grad, place, source.choices, first, n, selected, w, h)
                    weigh(w, top, temp)
                for k in range(slots):
                    h[k] = settled(fma(w[k] * (h[k] - d) * q, temp.scale, zero), w[k], m, finite)
                put(operands.out, place, source.choices, first, n, h)

    return _launcher(variant, body)


@cache
def backward_temp(variant: Variant) -> Launcher:
    """Each row's share, in the compute type: ``-sum_i grad_logits_i t_i``."""
    parts = _Parts(variant)
    compute, slots, held, steps, size = parts.compute, parts.slots, parts.held, parts.steps, parts.shared
    choose, first_of, fetch, again = parts.choose, parts.first_of, parts.fetch, parts.again
    temperature, weight = parts.temperature, parts.weight
    clear, add, add_products, pooled = parts.clear, parts.add, parts.add_products, parts.pooled
    from_selected, at_selected = parts.from_selected, parts.at_selected
    zero, nan = compute(0), compute(np.nan)

    @inlined
    def body(source: Any, operands: Any, place: Any, n: Any) -> Any:
        w, h, t = (cuda.local.array(slots, compute), cuda.local.array(slots, compute), cuda.local.array(slots, compute))
        s_lanes, d_lanes = cuda.local.array(4, compute), cuda.local.array(4, compute)
        shared = cuda.shared.array(size, compute)
        m, top = choose(source, place, n, w)
        temp = temperature(operands, place, n)
        selected = at_selected(operands.grad, place, source.choices, n, m)
        s, d, share = zero, zero, zero
        for turn in range(place.rounds):
            clear(s_lanes)
            clear(d_lanes)
            for step in range(steps):
                first = first_of(place, turn, held * step)
                if again(place):
                    fetch(source, place, first, n, w)
                from_selected(operands.grad, place, source.choices, first, n, selected, w, h)
                for k in range(slots):
                    t[k], tail = divided_difference(w[k], top, temp)
                    w[k] = weight(w[k], t[k], tail)
                add(s_lanes, w)
                add_products(d_lanes, w, h)
            s = pooled(s, s_lanes, place, shared, 0, turn)
            d = pooled(d, d_lanes, place, shared, 1, turn)
        d = d / s
        for turn in range(place.rounds):
            clear(d_lanes)
            for step in range(steps):
                if again(place):
                    first = first_of(place, turn, held * step)
                    fetch(source, place, first, n, w)
                    from_selected(operands.grad, place, source.choices, first, n, selected, w, h)
                    for k in range(slots):
                        t[k], tail = divided_difference(w[k], top, temp)
                        w[k] = weight(w[k], t[k], tail)
                for k in range(slots):
                    t[k] = t[k] if w[k] > 0 else zero  # an infinite t belongs to e = 0
                    h[k] = w[k] * (h[k] - d)
                add_products(d_lanes, h, t)
            share = pooled(share, d_lanes, place, shared, 2, turn)
        if n > 0 and place.lane == 0 and place.warp == 0:
            share = -share / (s * temp.scaled) * temp.scale
            store(operands.out, place.row, compute, zero if m == NOTHING else (nan if m == POISONED else share))

    return _launcher(variant, body)


@cache
def double_backward(variant: Variant) -> Launcher:
    """The gradient of `backward`: of `grad` to `out`, of the logits to `out2`."""
    parts = _Parts(variant)
    compute, slots, held, steps, size = parts.compute, parts.slots, parts.held, parts.steps, parts.shared
    choose, first_of, fetch, again, put = parts.choose, parts.first_of, parts.fetch, parts.again, parts.put
    temperature, weigh, settled = parts.temperature, parts.weigh, parts.settled
    clear, add, add_products, pooled = parts.clear, parts.add, parts.add_products, parts.pooled
    from_selected, at_selected = parts.from_selected, parts.at_selected
    zero, one = compute(0), compute(1)

    @inlined
    def recall(
        source: Any, operands: Any, place: Any, first: Any, n: Any, top: Any, temp: Any, at: Any, w: Any, a: Any, b: Any
    ) -> Any:
        from_selected(operands.grad, place, source.choices, first, n, at[0], w, a)
        from_selected(operands.grad_grad, place, source.choices, first, n, at[1], w, b)
        weigh(w, top, temp)

    @inlined
    def body(source: Any, operands: Any, place: Any, n: Any) -> Any:
        w, a, b = (cuda.local.array(slots, compute), cuda.local.array(slots, compute), cuda.local.array(slots, compute))
        s_lanes, a_lanes, b_lanes = (
            cuda.local.array(4, compute),
            cuda.local.array(4, compute),
            cuda.local.array(4, compute),
        )
        shared = cuda.shared.array(size, compute)
        m, top = choose(source, place, n, w)
        temp = temperature(operands, place, n)
        at = (
            at_selected(operands.grad, place, source.choices, n, m),
            at_selected(operands.grad_grad, place, source.choices, n, m),
        )
        s, a_mean, b_mean, mean = zero, zero, zero, zero
        for turn in range(place.rounds):
            clear(s_lanes)
            clear(a_lanes)
            clear(b_lanes)
            for step in range(steps):
                first = first_of(place, turn, held * step)
                if again(place):
                    fetch(source, place, first, n, w)
                recall(source, operands, place, first, n, top, temp, at, w, a, b)
                add(s_lanes, w)
                add_products(a_lanes, w, a)
                add_products(b_lanes, w, b)
            s = pooled(s, s_lanes, place, shared, 0, turn)
            a_mean = pooled(a_mean, a_lanes, place, shared, 1, turn)
            b_mean = pooled(b_mean, b_lanes, place, shared, 2, turn)
        q = one / (s * temp.scaled)
        a_mean, b_mean = a_mean / s, b_mean / s
        # grad_grad_mask_i = p_i b_i / temp, b_i = k_i - sum_j p_j k_j
        for turn in range(place.rounds):
            clear(a_lanes)
            for step in range(steps):
                first = first_of(place, turn, held * step)
                if again(place):
                    fetch(source, place, first, n, w)
                    recall(source, operands, place, first, n, top, temp, at, w, a, b)
                for k in range(slots):
                    b[k] = b[k] - b_mean
                    a[k] = fma(a[k] - a_mean, b[k], zero)  # a product that meets a sum
                    b[k] = settled(fma(w[k] * b[k] * q, temp.scale, zero), w[k], m, _finite(b_mean))
                put(operands.out, place, source.choices, first, n, b)
                add_products(a_lanes, w, a)
            mean = pooled(mean, a_lanes, place, shared, 3, turn)
        # grad_logits_i = p_i (a_i b_i - sum_j p_j a_j b_j) / temp**2, a_i = h_i - sum_j p_j h_j
        mean = mean / s
        for turn in range(place.rounds):
            for step in range(steps):
                first = first_of(place, turn, held * step)
                if again(place):
                    fetch(source, place, first, n, w)
                    recall(source, operands, place, first, n, top, temp, at, w, a, b)
                    for k in range(slots):
                        a[k] = fma(a[k] - a_mean, b[k] - b_mean, zero)
                for k in range(slots):
                    x = fma(w[k] * (a[k] - mean) * q * temp.scale * temp.high, temp.scale, zero)
                    a[k] = settled(x, w[k], m, _finite(mean))
                put(operands.out2, place, source.choices, first, n, a)

    return _launcher(variant, body)


@cache
def totals(variant: Variant) -> Launcher:
    """Each row of numbers in the compute type added up; `variant.logits` is that type, `variant.kind` the result's."""
    parts = _Parts(variant)
    compute, held, steps, size = parts.compute, parts.held, parts.steps, parts.shared
    first_of, clear, pooled = parts.first_of, parts.clear, parts.pooled
    read, narrow, kind = reading(compute, variant.aligned), narrowing(variant.kind), variant.kind

    @inlined
    def body(source: Any, operands: Any, place: Any, n: Any) -> Any:
        lanes = cuda.local.array(4, compute)
        shared = cuda.shared.array(size, compute)
        total = compute(0)
        for turn in range(place.rounds):
            clear(lanes)
            for quad in range(held * steps):
                first = first_of(place, turn, quad)
                a, b, c, d = read(source.logits, place.row * source.choices, place, first, n, compute(0))
                lanes[0], lanes[1], lanes[2], lanes[3] = lanes[0] + a, lanes[1] + b, lanes[2] + c, lanes[3] + d
            total = pooled(total, lanes, place, shared, 0, turn)
        if n > 0 and place.lane == 0 and place.warp == 0:
            store(operands.out, place.row, kind, narrow(total))

    return _launcher(variant, body)
