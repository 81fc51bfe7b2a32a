"""The CUDA tier's kernels: the rows of `npselect.tiers.cpu.long_rows`, each by a team of threads, with the same bits.

Each function here makes the kernel for a `Variant`: how numbers are stored, where noise comes from, whether rows are
aligned, and how many quads a thread holds. What the kernels share is in `npselect.tiers.cuda.passes`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from npselect._arithmetic.exponential import divided_difference
from npselect._arithmetic.primitives import fma, inlined
from npselect._gpu.intrinsics import cuda, store
from npselect._gpu.launch import Launcher
from npselect.tiers.cuda.loads import narrowing, reading
from npselect.tiers.cuda.passes import NOTHING, POISONED, Parts, launcher
from npselect.tiers.cuda.variant import Variant

__all__ = ["backward", "backward_temp", "double_backward", "index", "mask", "soft", "totals"]


@inlined
def _finite(x: Any) -> Any:
    return abs(x) < np.inf


# ------------------------------------------------------------------------------------------------ selecting


@cache
def index(variant: Variant) -> Launcher:
    """Index of the selected candidate, int64, -1 where nothing is selected."""
    parts = Parts(variant)
    compute, slots, choose = parts.compute, parts.slots, parts.select

    @inlined
    def body(source: Any, operands: Any, place: Any, n: Any) -> Any:
        w = cuda.local.array(slots, compute)
        m, _ = choose(source, place, n, w)
        if n > 0 and place.lane == 0 and place.warp == 0:
            store(operands.out, place.row, np.int64, np.int64(max(m, -1)))

    return launcher(variant, body, reads=0, writes=0)


@cache
def mask(variant: Variant) -> Launcher:
    """The exact one-hot of the selected candidate."""
    parts = Parts(variant)
    compute, slots, held, steps, number = parts.compute, parts.slots, parts.held, parts.steps, parts.number
    rounds, stretch, offset, choose, write = parts.rounds, parts.stretch, parts.offset, parts.select, parts.write
    kind, narrow = parts.kind, narrowing(parts.kind)

    @inlined
    def body(source: Any, operands: Any, place: Any, n: Any) -> Any:
        w, x = cuda.local.array(slots, compute), cuda.local.array(slots, kind)
        m, _ = choose(source, place, n, w)
        one, elsewhere = narrow(compute(1)), narrow(compute(np.nan if m == POISONED else 0.0))
        for turn in range(rounds(source)):
            for step in range(steps):
                here = stretch(place, n, turn, step)
                chosen = number(m - here.first)
                for i in range(held):
                    for c in range(4):
                        x[4 * i + c] = one if m >= 0 and chosen == offset(i, c) else elsewhere
                write(operands.out, source, place, here, x)

    return launcher(variant, body, reads=0, writes=1)


# ------------------------------------------------------------------------------------------------ the soft passes


@cache
def soft(variant: Variant) -> Launcher:
    """``probs = softmax(logits / temp)``."""
    parts = Parts(variant)
    compute, slots, steps, size, again = parts.compute, parts.slots, parts.steps, parts.shared, parts.again
    rounds, stretch, choose, fetch, put = parts.rounds, parts.stretch, parts.choose, parts.fetch, parts.put
    temperature, weigh, settle = parts.temperature, parts.weigh, parts.settle
    clear, add, share, meet, pooled = parts.clear, parts.add, parts.share, parts.meet, parts.pooled
    zero, lanes_held = compute(0), parts.lanes

    @inlined
    def body(source: Any, operands: Any, place: Any, n: Any) -> Any:
        w, p, lanes = (
            cuda.local.array(slots, compute),
            cuda.local.array(slots, compute),
            cuda.local.array(lanes_held, compute),
        )
        shared = cuda.shared.array(size, compute)
        m, top = choose(source, place, n, w)
        temp = temperature(operands, place, n)
        s = zero
        for turn in range(rounds(source)):
            clear(lanes)
            for step in range(steps):
                if again:
                    fetch(source, place, stretch(place, n, turn, step), w)
                weigh(w, top, temp)
                add(lanes, w)
            part = share(lanes, place, shared, 0, turn)
            meet()
            s = pooled(s, part, shared, 0, turn)
        for turn in range(rounds(source)):
            for step in range(steps):
                here = stretch(place, n, turn, step)
                if again:
                    fetch(source, place, here, w)
                    weigh(w, top, temp)
                for k in range(slots):
                    p[k] = w[k] / s + zero  # + 0 lest an excluded entry be -0
                settle(p, w, m, True)
                put(operands.out, source, place, here, p)

    return launcher(variant, body, reads=0, writes=1)


@cache
def backward(variant: Variant) -> Launcher:
    """The softmax's Jacobian times `grad`."""
    parts = Parts(variant)
    compute, slots, steps, size, again = parts.compute, parts.slots, parts.steps, 2 * parts.shared, parts.again
    rounds, stretch, choose, fetch, put = parts.rounds, parts.stretch, parts.choose, parts.fetch, parts.put
    read, from_selected, at_selected = parts.read, parts.from_selected, parts.at_selected
    temperature, weigh, settle = parts.temperature, parts.weigh, parts.settle
    clear, add, add_products = parts.clear, parts.add, parts.add_products
    share, meet, pooled = parts.share, parts.meet, parts.pooled
    zero, one, lanes_held = compute(0), compute(1), parts.lanes

    @inlined
    def body(source: Any, operands: Any, place: Any, n: Any) -> Any:
        w, h = cuda.local.array(slots, compute), cuda.local.array(slots, compute)
        s_lanes, d_lanes = cuda.local.array(lanes_held, compute), cuda.local.array(lanes_held, compute)
        shared = cuda.shared.array(size, compute)
        if not again:
            read(operands.grad, source, place, stretch(place, n, 0, 0), h)
        m, top = choose(source, place, n, w)
        temp = temperature(operands, place, n)
        selected = at_selected(operands.grad, source, place, n, m)
        s, d = zero, zero
        for turn in range(rounds(source)):
            clear(s_lanes)
            clear(d_lanes)
            for step in range(steps):
                if again:
                    here = stretch(place, n, turn, step)
                    read(operands.grad, source, place, here, h)
                    fetch(source, place, here, w)
                from_selected(h, selected, w)
                weigh(w, top, temp)
                add(s_lanes, w)
                add_products(d_lanes, w, h)
            s_part, d_part = share(s_lanes, place, shared, 0, turn), share(d_lanes, place, shared, 1, turn)
            meet()
            s, d = pooled(s, s_part, shared, 0, turn), pooled(d, d_part, shared, 1, turn)
        d = d / s
        # grad_logits_i = e_i (h_i - d) / (s temp), + 0 lest a product with e_i = 0 be -0
        q = one / (s * temp.scaled)
        for turn in range(rounds(source)):
            for step in range(steps):
                here = stretch(place, n, turn, step)
                if again:
                    read(operands.grad, source, place, here, h)
                    fetch(source, place, here, w)
                    from_selected(h, selected, w)
                    weigh(w, top, temp)
                for k in range(slots):
                    h[k] = fma(w[k] * (h[k] - d) * q, temp.scale, zero)
                settle(h, w, m, _finite(d))
                put(operands.out, source, place, here, h)

    return launcher(variant, body, reads=1, writes=1)


@cache
def backward_temp(variant: Variant) -> Launcher:
    """Each row's share, in the compute type: ``-sum_i grad_logits_i t_i``."""
    parts = Parts(variant)
    compute, slots, steps, size, again = parts.compute, parts.slots, parts.steps, 3 * parts.shared, parts.again
    rounds, stretch, choose, fetch = parts.rounds, parts.stretch, parts.choose, parts.fetch
    read, from_selected, at_selected = parts.read, parts.from_selected, parts.at_selected
    temperature, weight = parts.temperature, parts.weight
    clear, add, add_products = parts.clear, parts.add, parts.add_products
    share, meet, pooled = parts.share, parts.meet, parts.pooled
    zero, nan, lanes_held = compute(0), compute(np.nan), parts.lanes

    @inlined
    def weigh(w: Any, top: Any, temp: Any, t: Any) -> Any:
        for k in range(slots):
            t[k], tail = divided_difference(w[k], top, temp)
            w[k] = weight(w[k], t[k], tail)

    @inlined
    def body(source: Any, operands: Any, place: Any, n: Any) -> Any:
        w, h, t = (cuda.local.array(slots, compute), cuda.local.array(slots, compute), cuda.local.array(slots, compute))
        s_lanes, d_lanes = cuda.local.array(lanes_held, compute), cuda.local.array(lanes_held, compute)
        shared = cuda.shared.array(size, compute)
        if not again:
            read(operands.grad, source, place, stretch(place, n, 0, 0), h)
        m, top = choose(source, place, n, w)
        temp = temperature(operands, place, n)
        selected = at_selected(operands.grad, source, place, n, m)
        s, d, total = zero, zero, zero
        for turn in range(rounds(source)):
            clear(s_lanes)
            clear(d_lanes)
            for step in range(steps):
                if again:
                    here = stretch(place, n, turn, step)
                    read(operands.grad, source, place, here, h)
                    fetch(source, place, here, w)
                from_selected(h, selected, w)
                weigh(w, top, temp, t)
                add(s_lanes, w)
                add_products(d_lanes, w, h)
            s_part, d_part = share(s_lanes, place, shared, 0, turn), share(d_lanes, place, shared, 1, turn)
            meet()
            s, d = pooled(s, s_part, shared, 0, turn), pooled(d, d_part, shared, 1, turn)
        d = d / s
        for turn in range(rounds(source)):
            clear(d_lanes)
            for step in range(steps):
                if again:
                    here = stretch(place, n, turn, step)
                    read(operands.grad, source, place, here, h)
                    fetch(source, place, here, w)
                    from_selected(h, selected, w)
                    weigh(w, top, temp, t)
                for k in range(slots):
                    t[k] = t[k] if w[k] > 0 else zero  # an infinite t belongs to e = 0
                    h[k] = w[k] * (h[k] - d)
                add_products(d_lanes, h, t)
            part = share(d_lanes, place, shared, 2, turn)
            meet()
            total = pooled(total, part, shared, 2, turn)
        if n > 0 and place.lane == 0 and place.warp == 0:
            total = -total / (s * temp.scaled) * temp.scale
            store(operands.out, place.row, compute, zero if m == NOTHING else (nan if m == POISONED else total))

    return launcher(variant, body, reads=1, writes=0)


@cache
def double_backward(variant: Variant) -> Launcher:
    """The gradient of `backward`: of `grad` to `out`, of the logits to `out2`."""
    parts = Parts(variant)
    compute, slots, steps, size, again = parts.compute, parts.slots, parts.steps, 4 * parts.shared, parts.again
    rounds, stretch, choose, fetch, put = parts.rounds, parts.stretch, parts.choose, parts.fetch, parts.put
    read, from_selected, at_selected = parts.read, parts.from_selected, parts.at_selected
    temperature, weigh, settle = parts.temperature, parts.weigh, parts.settle
    clear, add, add_products = parts.clear, parts.add, parts.add_products
    share, meet, pooled = parts.share, parts.meet, parts.pooled
    zero, one, lanes_held = compute(0), compute(1), parts.lanes

    @inlined
    def read_both(source: Any, operands: Any, place: Any, here: Any, a: Any, b: Any) -> Any:
        read(operands.grad, source, place, here, a)
        read(operands.grad_grad, source, place, here, b)

    @inlined
    def weigh_all(top: Any, temp: Any, at: Any, w: Any, a: Any, b: Any) -> Any:
        from_selected(a, at[0], w)
        from_selected(b, at[1], w)
        weigh(w, top, temp)

    @inlined
    def body(source: Any, operands: Any, place: Any, n: Any) -> Any:
        w, a, b = (cuda.local.array(slots, compute), cuda.local.array(slots, compute), cuda.local.array(slots, compute))
        s_lanes, a_lanes, b_lanes = (
            cuda.local.array(lanes_held, compute),
            cuda.local.array(lanes_held, compute),
            cuda.local.array(lanes_held, compute),
        )
        shared = cuda.shared.array(size, compute)
        if not again:
            read_both(source, operands, place, stretch(place, n, 0, 0), a, b)
        m, top = choose(source, place, n, w)
        temp = temperature(operands, place, n)
        at = (
            at_selected(operands.grad, source, place, n, m),
            at_selected(operands.grad_grad, source, place, n, m),
        )
        s, a_mean, b_mean, mean = zero, zero, zero, zero
        for turn in range(rounds(source)):
            clear(s_lanes)
            clear(a_lanes)
            clear(b_lanes)
            for step in range(steps):
                if again:
                    here = stretch(place, n, turn, step)
                    read_both(source, operands, place, here, a, b)
                    fetch(source, place, here, w)
                weigh_all(top, temp, at, w, a, b)
                add(s_lanes, w)
                add_products(a_lanes, w, a)
                add_products(b_lanes, w, b)
            s_part = share(s_lanes, place, shared, 0, turn)
            a_part, b_part = share(a_lanes, place, shared, 1, turn), share(b_lanes, place, shared, 2, turn)
            meet()
            s = pooled(s, s_part, shared, 0, turn)
            a_mean, b_mean = pooled(a_mean, a_part, shared, 1, turn), pooled(b_mean, b_part, shared, 2, turn)
        q = one / (s * temp.scaled)
        a_mean, b_mean = a_mean / s, b_mean / s
        # grad_grad_mask_i = p_i b_i / temp, b_i = k_i - sum_j p_j k_j
        for turn in range(rounds(source)):
            clear(a_lanes)
            for step in range(steps):
                here = stretch(place, n, turn, step)
                if again:
                    read_both(source, operands, place, here, a, b)
                    fetch(source, place, here, w)
                    weigh_all(top, temp, at, w, a, b)
                for k in range(slots):
                    b[k] = b[k] - b_mean
                    a[k] = fma(a[k] - a_mean, b[k], zero)  # a product that meets a sum
                    b[k] = fma(w[k] * b[k] * q, temp.scale, zero)
                settle(b, w, m, _finite(b_mean))
                put(operands.out, source, place, here, b)
                add_products(a_lanes, w, a)
            part = share(a_lanes, place, shared, 3, turn)
            meet()
            mean = pooled(mean, part, shared, 3, turn)
        # grad_logits_i = p_i (a_i b_i - sum_j p_j a_j b_j) / temp**2, a_i = h_i - sum_j p_j h_j
        mean = mean / s
        for turn in range(rounds(source)):
            for step in range(steps):
                here = stretch(place, n, turn, step)
                if again:
                    read_both(source, operands, place, here, a, b)
                    fetch(source, place, here, w)
                    weigh_all(top, temp, at, w, a, b)
                    for k in range(slots):
                        a[k] = fma(a[k] - a_mean, b[k] - b_mean, zero)
                for k in range(slots):
                    a[k] = fma(w[k] * (a[k] - mean) * q * temp.scale * temp.reciprocal_hi, temp.scale, zero)
                settle(a, w, m, _finite(mean))
                put(operands.out2, source, place, here, a)

    return launcher(variant, body, reads=2, writes=2)


@cache
def totals(variant: Variant) -> Launcher:
    """Each row of numbers in the compute type added up; `variant.logits` is that type, `variant.kind` the result's."""
    parts = Parts(variant)
    compute, slots, steps, size = parts.compute, parts.slots, parts.steps, parts.shared
    rounds, stretch, clear, add = parts.rounds, parts.stretch, parts.clear, parts.add
    share, meet, pooled = parts.share, parts.meet, parts.pooled
    read = reading(compute, variant.team, parts.held, 0.0)
    narrow, kind, lanes_held, start = narrowing(variant.kind), variant.kind, parts.lanes, parts.start

    @inlined
    def body(source: Any, operands: Any, place: Any, n: Any) -> Any:
        x, lanes = cuda.local.array(slots, compute), cuda.local.array(lanes_held, compute)
        shared = cuda.shared.array(size, compute)
        total = compute(0)
        for turn in range(rounds(source)):
            clear(lanes)
            for step in range(steps):
                here = stretch(place, n, turn, step)
                read(source.logits, start(source, place) + here.first, here.left, x)
                add(lanes, x)
            part = share(lanes, place, shared, 0, turn)
            meet()
            total = pooled(total, part, shared, 0, turn)
        if n > 0 and place.lane == 0 and place.warp == 0:
            store(operands.out, place.row, kind, narrow(total))

    return launcher(variant, body, reads=0, writes=0)
