"""The CPU tier's kernels for rows of 32 choices and more: serial functions over ranges of rows, free of the GIL.

Formulas as in `npselect.reference`, operations from `npselect._arithmetic.exponential`. What a row yields depends on
that row alone. Each kernel takes logits first and results last, then the range and scratch memory of its own: twice
`LANES` and as many spans as it says. `npselect.tiers.cpu.short_rows` has the same for short rows.

A row is gone through for the selected candidate, for the sums, for the results: in packs of sixteen, the last of which
overlaps the one before, so that none is masked. Between the last two, scratch memory holds the row. If there is no room
for it, it holds a span at a time, whose exponentials are taken again for the results.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npselect._arithmetic.exponential import (
    divided_difference,
    exp,
    exp_constants,
    exp_normal,
    is_near,
    near_difference,
    prepared,
)
from npselect._arithmetic.half import narrow, narrow_slots, widen, widen_slots
from npselect._arithmetic.order import LANES, SEGMENT
from npselect._arithmetic.primitives import bits_of, fma, formula, inlined, select
from npselect._arithmetic.simd import (
    WIDTH,
    are_nan,
    broadcast,
    first_true,
    is_any,
    largest,
    load,
    part_of,
    store,
)
from npselect.tiers.cpu.compile import kernel
from npselect.tiers.cpu.sums import padded_dot, padded_sums, padded_total, total
from npselect.tiers.cpu.transpose import clear_rows, fetch, load_part, store_part

__all__ = [
    "NOTHING",
    "POISONED",
    "backward_rows",
    "backward_temp_rows",
    "double_backward_rows",
    "fill_candidates",
    "fill_unselected",
    "index_rows",
    "mask_rows",
    "soft_rows",
    "span",
    "sum_rows",
    "usual",
]

# ------------------------------------------------------------------------------------------------ selecting


NOTHING, POISONED = -1, -2  # no candidate offered: a row of zeros; NaN, +inf or only -inf: a row of NaN
_BLOCK = 512  # columns whose largest number is known before the next ones are looked at


@inlined
def _candidates(logits: Any, where: Any, r: Any, j: Any, w: Any) -> Any:
    """Sixteen entries of row r from column j on in the compute type, -inf where they are excluded."""
    x = widen_slots(load_part(logits, r, j, w), logits)
    if len(where) > 0:
        x = select(_offers(where, r, j, w) != 0, x, w.dtype.type(-np.inf))
    return x


@inlined
def _offers(where: Any, r: Any, j: Any, w: Any) -> Any:
    return bits_of(load_part(where, r if len(where) > 1 else 0, j, w))


@inlined
def _choose(logits: Any, where: Any, r: Any, w: Any) -> Any:
    """Row r's selected candidate, or why none, its logit, and the least of the row, -inf if any is excluded.

    The largest of a block is compared with that of the blocks before; the selected one is looked for in its block.
    """
    infinity, n = w.dtype.type(np.inf), logits.shape[1]
    lows = broadcast(infinity)
    invalid = are_nan(lows, lows)
    offered = invalid
    top, block = -infinity, 0
    for start in range(0, n, _BLOCK):
        a, b = broadcast(-infinity), broadcast(-infinity)
        for j in range(start, min(start + _BLOCK, n), 2 * WIDTH):
            i = min(j, n - 2 * WIDTH)
            fetch(logits, r, i)
            fetch(logits, r, i + WIDTH)
            x, y = _candidates(logits, where, r, i, w), _candidates(logits, where, r, i + WIDTH, w)
            if len(where) > 0:
                offered = offered | _offers(where, r, i, w) | _offers(where, r, i + WIDTH, w)
            invalid = invalid | are_nan(x, y)
            a, b = select(x > a, x, a), select(y > b, y, b)
            lows = select(x < lows, x, lows)
            lows = select(y < lows, y, lows)
        found = largest(select(a > b, a, b))
        if found > top:
            top, block = found, start
    if len(where) > 0 and not is_any(offered != 0):
        return NOTHING, infinity, infinity
    if is_any(invalid != 0) or not abs(top) < infinity:
        return POISONED, infinity, infinity
    while block < n and not is_any(_candidates(logits, where, r, min(block, n - WIDTH), w) == top):
        block += WIDTH
    i = min(block, n - WIDTH)
    m = min(i + first_true(_candidates(logits, where, r, i, w) == top), n - 1)  # if others write to the row meanwhile
    return m, widen(logits[r, m]), -largest(-lows)


@formula
def fill_unselected(out: Any, r: Any, m: Any, w: Any) -> Any:
    """The row as it is before, or without, a selected candidate: zeros, or NaN."""
    row = out[r]
    value = narrow(w.dtype.type(np.nan if m == POISONED else 0.0), out)
    for j in range(len(row)):
        row[j] = value


@kernel
def index_rows(logits: Any, where: Any, out: Any, start: Any, stop: Any, scratch: Any) -> Any:
    """Index of the selected candidate, -1 where nothing is selected."""
    for r in range(start, stop):
        m, _, _ = _choose(logits, where, r, scratch)
        out[r] = max(m, -1)


@kernel
def mask_rows(logits: Any, where: Any, out: Any, start: Any, stop: Any, scratch: Any) -> Any:
    """The exact one-hot of the selected candidate."""
    for r in range(start, stop):
        m, _, _ = _choose(logits, where, r, scratch)
        clear_rows(out, r, r)
        if m >= 0:
            out[r, m] = narrow(scratch.dtype.type(1), out)
        elif m == POISONED:
            fill_unselected(out, r, m, scratch)


# ------------------------------------------------------------------------------------------------ spans


def span(choices: int, spans: int, itemsize: int, room: int) -> int:
    """The room for each of so many spans: a row in whole packs, or else a segment and less than a pack."""
    size = -(-choices // WIDTH) * WIDTH
    return size if spans * size * itemsize <= room else min(size, SEGMENT + WIDTH)


@inlined
def _room(scratch: Any, spans: Any) -> Any:
    """The entries of each of the spans that follow the lanes."""
    return (len(scratch) - 2 * LANES) // spans


@inlined
def _steps(n: Any, room: Any) -> Any:
    """In how many spans a row of n entries is gone through; the last takes less than a pack more than a segment."""
    return 1 if n <= room else (n - WIDTH) // SEGMENT + 1


@inlined
def _last(n: Any, step: Any, steps: Any) -> Any:
    """Where a step's columns, from ``step * SEGMENT`` on, end."""
    return n if step == steps - 1 else (step + 1) * SEGMENT


@inlined
def _padded(first: Any, last: Any, x: Any) -> Any:
    """The entries of a span that these columns take in whole packs; beyond them it has zeros."""
    size = (last - first + WIDTH - 1) // WIDTH * WIDTH
    store(x, size - WIDTH, broadcast(x.dtype.type(0)))
    return size


# ------------------------------------------------------------------------------------------------ the soft passes


@inlined
def _temperature(temp: Any, r: Any, shared: Any) -> Any:
    """That of the row, or the one that is shared by all."""
    return shared if len(temp) == 1 else prepared(temp[r])


@inlined
def _weights(
    logits: Any, where: Any, r: Any, first: Any, last: Any, top: Any, tau: Any, near: Any, c: Any, w: Any
) -> Any:
    """``w <- e = exp((logits - top) / temp)``, 0 at excluded entries."""
    if near:
        for j in range(first, last, WIDTH):
            i = min(j, last - WIDTH)
            x = widen_slots(load_part(logits, r, i, w), logits)
            t, tail = near_difference(x, top, tau)
            store(w, i - first, exp_normal(t, tail, c))
        return
    for j in range(first, last, WIDTH):
        i = min(j, last - WIDTH)
        t, tail = divided_difference(_candidates(logits, where, r, i, w), top, tau)
        store(w, i - first, exp(t, tail))


@inlined
def _from_selected(
    cotangent: Any, logits: Any, where: Any, r: Any, first: Any, last: Any, selected: Any, near: Any, h: Any
) -> Any:
    """``h <- g - g_m``, 0 at excluded entries: what the cotangent holds there, NaN too, is ignored."""
    excluded, zero = h.dtype.type(-np.inf), h.dtype.type(0)
    if near:
        for j in range(first, last, WIDTH):
            i = min(j, last - WIDTH)
            fetch(cotangent, r, i)
            store(h, i - first, widen_slots(load_part(cotangent, r, i, h), cotangent) - selected)
        return
    for j in range(first, last, WIDTH):
        i = min(j, last - WIDTH)
        fetch(cotangent, r, i)
        g = widen_slots(load_part(cotangent, r, i, h), cotangent)
        store(h, i - first, select(_candidates(logits, where, r, i, h) == excluded, zero, g - selected))


@inlined
def _differences(logits: Any, where: Any, r: Any, first: Any, last: Any, top: Any, tau: Any, t: Any) -> Any:
    """``t <- (logits - top) / temp``."""
    for j in range(first, last, WIDTH):
        i = min(j, last - WIDTH)
        difference, _ = divided_difference(_candidates(logits, where, r, i, t), top, tau)
        store(t, i - first, difference)


@formula
def fill_candidates(out: Any, r: Any, logits: Any, where: Any, w: Any) -> Any:
    """NaN at the candidates, 0 at excluded entries: a row whose cotangent is not finite."""
    row, values = out[r], logits[r]
    for j in range(len(row)):
        excluded = widen(values[j]) == -np.inf
        if len(where) > 0:
            excluded = excluded or not where[r if len(where) > 1 else 0, j]
        row[j] = narrow(w.dtype.type(0.0 if excluded else np.nan), out)


@formula
def _finite(x: Any) -> Any:
    return abs(x) < np.inf


@formula
def usual(x: Any, nan: Any) -> Any:
    """x, or the usual NaN: which sign another has depends on the order in which a compiler takes its operands."""
    return x if x == x else nan


@kernel
def soft_rows(logits: Any, temp: Any, where: Any, out: Any, start: Any, stop: Any, scratch: Any) -> Any:
    """``probs = softmax(logits / temp)``."""
    n = logits.shape[1]
    room = _room(scratch, 1)
    lanes, w = part_of(scratch, 0, 2 * LANES), part_of(scratch, 2 * LANES, room)
    steps, zero = _steps(n, room), scratch.dtype.type(0)
    c, shared = exp_constants(temp[0] - temp[0]), prepared(temp[0])
    for r in range(start, stop):
        m, top, least = _choose(logits, where, r, scratch)
        if m < 0:
            fill_unselected(out, r, m, scratch)
            continue
        tau = _temperature(temp, r, shared)
        near = is_near(least, top, tau)
        s = zero
        for phase in range(1 if steps == 1 else 2):
            for step in range(steps):
                first, last = step * SEGMENT, _last(n, step, steps)
                size = _padded(first, last, w)
                _weights(logits, where, r, first, last, top, tau, near, c, w)
                if phase == 0:
                    s = padded_total(part_of(w, 0, size), s, lanes)
                if phase == 1 or steps == 1:
                    for j in range(first, last, WIDTH):
                        i = min(j, last - WIDTH)
                        store_part(narrow_slots(load(w, i - first) / s, out), out, r, i)


@kernel
def backward_rows(
    logits: Any, grad_mask: Any, temp: Any, where: Any, out: Any, start: Any, stop: Any, scratch: Any
) -> Any:
    """The softmax's Jacobian times `grad_mask`."""
    n = logits.shape[1]
    room = _room(scratch, 2)
    lanes, w = part_of(scratch, 0, 2 * LANES), part_of(scratch, 2 * LANES, room)
    h = part_of(scratch, 2 * LANES + room, room)
    steps, zero = _steps(n, room), scratch.dtype.type(0)
    c, shared = exp_constants(temp[0] - temp[0]), prepared(temp[0])
    for r in range(start, stop):
        m, top, least = _choose(logits, where, r, scratch)
        if m < 0:
            fill_unselected(out, r, m, scratch)
            continue
        tau = _temperature(temp, r, shared)
        near = is_near(least, top, tau)
        selected = widen(grad_mask[r, m])
        s, d, q = zero, zero, zero
        for phase in range(1 if steps == 1 else 2):
            for step in range(steps):
                first, last = step * SEGMENT, _last(n, step, steps)
                size = _padded(first, last, w)
                _padded(first, last, h)
                _weights(logits, where, r, first, last, top, tau, near, c, w)
                _from_selected(grad_mask, logits, where, r, first, last, selected, near, h)
                if phase == 0:
                    s, d = padded_sums(part_of(w, 0, size), part_of(h, 0, size), s, d, lanes)
                if phase == 0 and step == steps - 1:
                    d = d / s
                    q = scratch.dtype.type(1) / (s * tau.scaled)
                if phase == 1 or steps == 1:
                    # grad_logits_i = e_i (h_i - d) / (s temp), + 0 lest a product with e_i = 0 be -0
                    for j in range(first, last, WIDTH):
                        i = min(j, last - WIDTH)
                        result = fma(load(w, i - first) * (load(h, i - first) - d) * q, tau.scale, zero)
                        store_part(narrow_slots(result, out), out, r, i)
        if not _finite(d):
            fill_candidates(out, r, logits, where, scratch)


@kernel
def backward_temp_rows(
    logits: Any, grad_mask: Any, temp: Any, where: Any, out: Any, start: Any, stop: Any, scratch: Any
) -> Any:
    """Each row's share, in the compute type: ``-sum_i grad_logits_i t_i``."""
    n = logits.shape[1]
    room = _room(scratch, 3)
    lanes, w = part_of(scratch, 0, 2 * LANES), part_of(scratch, 2 * LANES, room)
    h, t = part_of(scratch, 2 * LANES + room, room), part_of(scratch, 2 * LANES + 2 * room, room)
    steps, zero, nan = _steps(n, room), scratch.dtype.type(0), scratch.dtype.type(np.nan)
    c, shared = exp_constants(temp[0] - temp[0]), prepared(temp[0])
    for r in range(start, stop):
        m, top, least = _choose(logits, where, r, scratch)
        if m < 0:
            out[r] = 0 if m == NOTHING else nan
            continue
        tau = _temperature(temp, r, shared)
        near = is_near(least, top, tau)
        selected = widen(grad_mask[r, m])
        s, d, share = zero, zero, zero
        for phase in range(1 if steps == 1 else 2):
            for step in range(steps):
                first, last = step * SEGMENT, _last(n, step, steps)
                size = _padded(first, last, w)
                _padded(first, last, h)
                _weights(logits, where, r, first, last, top, tau, near, c, w)
                _from_selected(grad_mask, logits, where, r, first, last, selected, near, h)
                if phase == 0:
                    s, d = padded_sums(part_of(w, 0, size), part_of(h, 0, size), s, d, lanes)
                if phase == 0 and step == steps - 1:
                    d = d / s
                if phase == 1 or steps == 1:
                    _padded(first, last, t)
                    _differences(logits, where, r, first, last, top, tau, t)
                    for j in range(0, size, WIDTH):
                        e = load(w, j)
                        store(t, j, select(e > 0, load(t, j), e))  # an infinite t belongs to e = 0
                        store(h, j, e * (load(h, j) - d))
                    share = padded_dot(part_of(h, 0, size), part_of(t, 0, size), share, lanes)
        out[r] = usual(-share / (s * tau.scaled) * tau.scale, nan)


@kernel
def sum_rows(x: Any, out: Any, start: Any, stop: Any, scratch: Any) -> Any:
    """Each row added up."""
    for r in range(start, stop):
        out[r] = narrow(usual(total(x[r], scratch), scratch.dtype.type(np.nan)), out)


@kernel
def double_backward_rows(
    logits: Any,
    grad_grad_logits: Any,
    grad_mask: Any,
    temp: Any,
    where: Any,
    out_grad_mask: Any,
    out_logits: Any,
    start: Any,
    stop: Any,
    scratch: Any,
) -> Any:
    """The gradient of `backward_rows`."""
    n = logits.shape[1]
    room = _room(scratch, 3)
    lanes, w = part_of(scratch, 0, 2 * LANES), part_of(scratch, 2 * LANES, room)
    a, b = part_of(scratch, 2 * LANES + room, room), part_of(scratch, 2 * LANES + 2 * room, room)
    steps, zero = _steps(n, room), scratch.dtype.type(0)
    c, shared = exp_constants(temp[0] - temp[0]), prepared(temp[0])
    for r in range(start, stop):
        m, top, least = _choose(logits, where, r, scratch)
        if m < 0:
            fill_unselected(out_grad_mask, r, m, scratch)
            fill_unselected(out_logits, r, m, scratch)
            continue
        tau = _temperature(temp, r, shared)
        near = is_near(least, top, tau)
        a_selected, b_selected = widen(grad_mask[r, m]), widen(grad_grad_logits[r, m])
        s, a_mean, b_mean, mean, q = zero, zero, zero, zero, zero
        for phase in range(1 if steps == 1 else 3):
            for step in range(steps):
                first, last = step * SEGMENT, _last(n, step, steps)
                size = _padded(first, last, w)
                _padded(first, last, a)
                _padded(first, last, b)
                _weights(logits, where, r, first, last, top, tau, near, c, w)
                _from_selected(grad_mask, logits, where, r, first, last, a_selected, near, a)
                _from_selected(grad_grad_logits, logits, where, r, first, last, b_selected, near, b)
                if phase == 0:
                    s, a_mean = padded_sums(part_of(w, 0, size), part_of(a, 0, size), s, a_mean, lanes)
                    b_mean = padded_dot(part_of(w, 0, size), part_of(b, 0, size), b_mean, lanes)
                if phase == 0 and step == steps - 1:
                    q = scratch.dtype.type(1) / (s * tau.scaled)
                    a_mean, b_mean = a_mean / s, b_mean / s
                if phase > 0 or steps == 1:
                    for j in range(0, size, WIDTH):
                        difference = load(b, j) - b_mean
                        store(b, j, difference)
                        store(a, j, (load(a, j) - a_mean) * difference)
                # grad_grad_mask_i = p_i b_i / temp, b_i = k_i - sum_j p_j k_j
                if phase == 1 or steps == 1:
                    for j in range(first, last, WIDTH):
                        i = min(j, last - WIDTH)
                        result = fma(load(w, i - first) * load(b, i - first) * q, tau.scale, zero)
                        store_part(narrow_slots(result, out_grad_mask), out_grad_mask, r, i)
                    mean = padded_dot(part_of(w, 0, size), part_of(a, 0, size), mean, lanes)
                if (phase == 1 or steps == 1) and step == steps - 1:
                    mean = mean / s
                # grad_logits_i = p_i (a_i b_i - sum_j p_j a_j b_j) / temp**2, a_i = h_i - sum_j p_j h_j
                if phase == 2 or steps == 1:
                    for j in range(first, last, WIDTH):
                        i = min(j, last - WIDTH)
                        product = load(w, i - first) * (load(a, i - first) - mean)
                        result = fma(product * q * tau.scale * tau.reciprocal_hi, tau.scale, zero)
                        store_part(narrow_slots(result, out_logits), out_logits, r, i)
        if not _finite(b_mean):
            fill_candidates(out_grad_mask, r, logits, where, scratch)
        if not _finite(mean):
            fill_candidates(out_logits, r, logits, where, scratch)
