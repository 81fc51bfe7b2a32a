"""The CUDA tier's kernels: the rows of `npselect.backends.kernels`, each by a team of threads, with the same bits.

Each function here makes the kernel for a `Variant`: how numbers are stored, where noise comes from, whether rows are
aligned, and how many quads a thread holds. What the kernels share is in `npselect.backends.device_rows`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from npselect.backends.arithmetic import divided_difference
from npselect.backends.device_launch import Launcher
from npselect.backends.device_primitives import cuda, store
from npselect.backends.device_quads import narrowing, reading
from npselect.backends.device_rows import NOTHING, POISONED, Parts, Variant, launcher
from npselect.backends.primitives import fma, inlined

__all__ = ["backward", "backward_temp", "double_backward", "index", "mask", "soft", "totals"]


@inlined
def _finite(x: Any) -> Any:
    return abs(x) < np.inf


# ------------------------------------------------------------------------------------------------ selecting


@cache
def index(variant: Variant) -> Launcher:
    """Index of the selected candidate, int64, -1 where nothing is selected."""
    parts = Parts(variant)
    compute, slots, choose = parts.compute, parts.slots, parts.choose

    @inlined
    def body(source: Any, operands: Any, place: Any, n: Any) -> Any:
        w = cuda.local.array(slots, compute)
        m, _ = choose(source, place, n, w)
        if n > 0 and place.lane == 0 and place.warp == 0:
            store(operands.out, place.row, np.int64, max(m, -1))

    return launcher(variant, body)


@cache
def mask(variant: Variant) -> Launcher:
    """The exact one-hot of the selected candidate."""
    parts = Parts(variant)
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

    return launcher(variant, body)


# ------------------------------------------------------------------------------------------------ the soft passes


@cache
def soft(variant: Variant) -> Launcher:
    """``probs = softmax(logits / temp)``."""
    parts = Parts(variant)
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

    return launcher(variant, body)


@cache
def backward(variant: Variant) -> Launcher:
    """The softmax's Jacobian times `grad`."""
    parts = Parts(variant)
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

    return launcher(variant, body)


@cache
def backward_temp(variant: Variant) -> Launcher:
    """Each row's share, in the compute type: ``-sum_i grad_logits_i t_i``."""
    parts = Parts(variant)
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

    return launcher(variant, body)


@cache
def double_backward(variant: Variant) -> Launcher:
    """The gradient of `backward`: of `grad` to `out`, of the logits to `out2`."""
    parts = Parts(variant)
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

    return launcher(variant, body)


@cache
def totals(variant: Variant) -> Launcher:
    """Each row of numbers in the compute type added up; `variant.logits` is that type, `variant.kind` the result's."""
    parts = Parts(variant)
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

    return launcher(variant, body)
