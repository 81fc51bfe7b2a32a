"""The CPU tier's kernels for rows of up to 128 choices: sixteen rows at a time, each a lane of the processor's vectors.

The same operations on the same numbers, in the same order, as in `npselect.tiers.cpu.long_rows`, whose arguments these
take too, with scratch memory for as many tiles as they say. A tile holds the rows' columns one after another, sixteen
numbers each; beside the rows at the end of a range, where they are fewer, it has zeros.
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
from npselect._arithmetic.half import as_slot, from_slot, narrow, narrow_slots, widen_slots
from npselect._arithmetic.primitives import bits_of, fma, inlined, number_of, select
from npselect._arithmetic.simd import WIDTH, are_nan, broadcast, is_any, lane, load, part_of, store
from npselect.tiers.cpu.compile import kernel
from npselect.tiers.cpu.long_rows import NOTHING, POISONED, fill_candidates, fill_unselected, usual
from npselect.tiers.cpu.transpose import LEAST, clear_rows, load_entries, pick, put, turn_in, turn_out

__all__ = [
    "CHOICES",
    "TILE",
    "backward_rows",
    "backward_temp_rows",
    "double_backward_rows",
    "index_rows",
    "mask_rows",
    "soft_rows",
    "sum_rows",
]

CHOICES = 128
TILE = CHOICES * WIDTH  # numbers
_COLUMNS = 4  # choices up to which masks are made in columns; longer rows are cleared, and their ones set one by one


@inlined
def _load(array: Any, first: Any, last: Any, tile: Any) -> Any:
    """Rows of an array, or the one that is shared by the rows, as columns of a tile."""
    choices = array.shape[1]
    if len(array) == 1:
        for j in range(choices):
            store(tile, j * WIDTH, broadcast(as_slot(array[0, j], tile)))
    elif last - first == WIDTH - 1 and last * choices + LEAST <= array.size:
        turn_in(array, first, tile)
    else:
        for j in range(choices):
            store(tile, j * WIDTH, broadcast(tile.dtype.type(0)))
            for i in range(last - first + 1):
                tile[j * WIDTH + i] = as_slot(array[first + i, j], tile)


@inlined
def _store(tile: Any, out: Any, first: Any, last: Any) -> Any:
    if last - first == WIDTH - 1:
        turn_out(out, first, tile)
    else:
        for j in range(out.shape[1]):
            for i in range(last - first + 1):
                out[first + i, j] = from_slot(tile[j * WIDTH + i], out)


# ------------------------------------------------------------------------------------------------ selecting


@inlined
def _choose(logits: Any, where: Any, first: Any, last: Any, w: Any, offers: Any) -> Any:
    """Each row's selected candidate, its logit, and the least of the row, -inf if any is excluded.

    The rows are left in their compute type in `w`, -inf at excluded entries. Places are integers as wide as that type.
    """
    infinity, place = w.dtype.type(np.inf), bits_of(w.dtype.type(0))
    top, least = broadcast(-infinity), broadcast(infinity)
    m, invalid, offered = broadcast(place) + POISONED, broadcast(place), broadcast(place)
    _load(logits, first, last, w)
    if len(where) > 0:
        _load(where, first, last, offers)
    for j in range(logits.shape[1]):
        x = widen_slots(load(w, j * WIDTH), logits)
        if len(where) > 0:
            offer = bits_of(load(offers, j * WIDTH))
            offered = offered | offer
            x = select(offer != 0, x, -infinity)
        store(w, j * WIDTH, x)
        invalid = invalid | are_nan(x, x)
        better = x > top
        m = select(better, j, m)
        top = select(better, x, top)
        least = select(x < least, x, least)
    m = select((invalid != 0) | (top == infinity), POISONED, m)
    if len(where) > 0:
        m = select(offered != 0, m, NOTHING)
    return m, top, least


@inlined
def _keep(m: Any, places: Any) -> Any:
    """What is selected, where each row's can be read alone."""
    store(places, 0, number_of(m))


@inlined
def _place(places: Any, i: Any) -> Any:
    return np.int64(bits_of(places[i]))


@kernel
def index_rows(logits: Any, where: Any, out: Any, start: Any, stop: Any, scratch: Any) -> Any:
    """Index of the selected candidate, -1 where nothing is selected."""
    w, places = part_of(scratch, 0, TILE), part_of(scratch, TILE, TILE)
    for first in range(start, stop, WIDTH):
        last = min(first + WIDTH, stop) - 1
        m, _, _ = _choose(logits, where, first, last, w, places)
        _keep(m, places)
        for i in range(last - first + 1):
            out[first + i] = max(_place(places, i), -1)


@kernel
def mask_rows(logits: Any, where: Any, out: Any, start: Any, stop: Any, scratch: Any) -> Any:
    """The exact one-hot of the selected candidate."""
    w, places, choices = part_of(scratch, 0, TILE), part_of(scratch, TILE, TILE), out.shape[1]
    one, zero, nan = scratch.dtype.type(1), scratch.dtype.type(0), scratch.dtype.type(np.nan)
    for first in range(start, stop, WIDTH):
        last = min(first + WIDTH, stop) - 1
        m, _, _ = _choose(logits, where, first, last, w, places)
        if choices <= _COLUMNS:
            for j in range(choices):
                store(w, j * WIDTH, narrow_slots(select(m == j, one, select(m == POISONED, nan, zero)), out))
            _store(w, out, first, last)
            continue
        clear_rows(out, first, last)
        if last - first == WIDTH - 1 and not is_any(m < 0):
            put(out, first, m, narrow(one, out))
            continue
        _keep(m, places)
        for i in range(last - first + 1):
            selected = _place(places, i)
            if selected >= 0:
                out[first + i, selected] = narrow(one, out)
            elif selected == POISONED:
                fill_unselected(out, first + i, selected, scratch)


# ------------------------------------------------------------------------------------------------ sums


@inlined
def _fold(sums: Any, choices: Any) -> Any:
    """What is left of the sums of four columns each, by halves."""
    zero = broadcast(sums.dtype.type(0))
    quads = (choices + 3) // 4
    width = 16
    while width >= quads:
        width //= 2
    for i in range(quads, 2 * width):
        store(sums, i * WIDTH, zero)
    while width > 0:
        for i in range(width):
            store(sums, i * WIDTH, load(sums, i * WIDTH) + load(sums, (i + width) * WIDTH))
        width //= 2
    return load(sums, 0) + zero


@inlined
def _pad(x: Any, choices: Any) -> Any:
    """Zeros up to a number of columns that is divisible by four."""
    for j in range(choices, (choices + 3) // 4 * 4):
        store(x, j * WIDTH, broadcast(x.dtype.type(0)))


@inlined
def _total(x: Any, choices: Any, sums: Any) -> Any:
    """``sum_j x_j``."""
    for j in range(0, choices, 4):
        i = j * WIDTH
        even = load(x, i) + load(x, i + 2 * WIDTH)
        store(sums, i // 4, even + (load(x, i + WIDTH) + load(x, i + 3 * WIDTH)))
    return _fold(sums, choices)


@inlined
def _dot(x: Any, y: Any, choices: Any, sums: Any) -> Any:
    """``sum_j x_j y_j``."""
    zero = broadcast(x.dtype.type(0))
    for j in range(0, choices, 4):
        i = j * WIDTH
        a = fma(load(x, i), load(y, i), zero)
        b = fma(load(x, i + WIDTH), load(y, i + WIDTH), zero)
        c = fma(load(x, i + 2 * WIDTH), load(y, i + 2 * WIDTH), zero)
        d = fma(load(x, i + 3 * WIDTH), load(y, i + 3 * WIDTH), zero)
        store(sums, i // 4, (a + c) + (b + d))
    return _fold(sums, choices)


@kernel
def sum_rows(x: Any, out: Any, start: Any, stop: Any, scratch: Any) -> Any:
    """Each row added up."""
    choices, nan = x.shape[1], scratch.dtype.type(np.nan)
    tile, sums = part_of(scratch, 0, TILE), part_of(scratch, TILE, TILE)
    for first in range(start, stop, WIDTH):
        last = min(first + WIDTH, stop) - 1
        _load(x, first, last, tile)
        _pad(tile, choices)
        s = _total(tile, choices, sums)
        for i in range(last - first + 1):
            out[first + i] = narrow(usual(lane(s, i), nan), out)


# ------------------------------------------------------------------------------------------------ the soft passes


@inlined
def _temperature(temp: Any, first: Any, last: Any, shared: Any) -> Any:
    """Those of the rows, or the one that is shared by all."""
    return shared if len(temp) == 1 else prepared(load_entries(temp, first, last))


@inlined
def _are_near(least: Any, top: Any, tau: Any) -> Any:
    return not is_any(~is_near(least, top, tau))


@inlined
def _exponentials(w: Any, top: Any, tau: Any, near: Any, c: Any, choices: Any) -> Any:
    """``w <- e = exp((w - w_m) / temp)``, 0 at excluded entries."""
    if near:
        for j in range(choices):
            t, tail = near_difference(load(w, j * WIDTH), top, tau)
            store(w, j * WIDTH, exp_normal(t, tail, c))
    else:
        for j in range(choices):
            t, tail = divided_difference(load(w, j * WIDTH), top, tau)
            store(w, j * WIDTH, exp(t, tail))
    _pad(w, choices)


@inlined
def _from_selected(cotangent: Any, first: Any, last: Any, w: Any, m: Any, near: Any, h: Any) -> Any:
    """``h <- g - g_m``, 0 at excluded entries: what the cotangent holds there, NaN too, is ignored."""
    zero = w.dtype.type(0)
    choices = cotangent.shape[1]
    _load(cotangent, first, last, h)
    selected = widen_slots(pick(h, select(m < 0, 0, m)), cotangent)
    for j in range(choices):
        difference = widen_slots(load(h, j * WIDTH), cotangent) - selected
        if not near:
            difference = select(load(w, j * WIDTH) == w.dtype.type(-np.inf), zero, difference)
        store(h, j * WIDTH, difference)
    _pad(h, choices)


@inlined
def _unfinished(m: Any, x: Any) -> Any:
    """Whether a row has nothing selected, or its `x` is not finite."""
    return (m < 0) | ~((x < np.inf) & (x > -np.inf))


@inlined
def _finish(out: Any, first: Any, last: Any, m: Any, x: Any, logits: Any, where: Any, scratch: Any) -> Any:
    """The rows of which `_unfinished` speaks, as they have to be."""
    if not is_any(_unfinished(m, x)):
        return
    for i in range(last - first + 1):
        if lane(m, i) < 0:
            fill_unselected(out, first + i, lane(m, i), scratch)
        elif not abs(lane(x, i)) < np.inf:
            fill_candidates(out, first + i, logits, where, scratch)


@kernel
def soft_rows(logits: Any, temp: Any, where: Any, out: Any, start: Any, stop: Any, scratch: Any) -> Any:
    """``probs = softmax(logits / temp)``."""
    choices = logits.shape[1]
    w, sums = part_of(scratch, 0, TILE), part_of(scratch, TILE, TILE)
    shared, c = prepared(broadcast(temp[0])), exp_constants(temp[0] - temp[0])
    for first in range(start, stop, WIDTH):
        last = min(first + WIDTH, stop) - 1
        m, top, least = _choose(logits, where, first, last, w, sums)
        tau = _temperature(temp, first, last, shared)
        _exponentials(w, top, tau, _are_near(least, top, tau), c, choices)
        s = _total(w, choices, sums)
        for j in range(choices):
            store(w, j * WIDTH, narrow_slots(load(w, j * WIDTH) / s, out))
        _store(w, out, first, last)
        _finish(out, first, last, m, top, logits, where, scratch)


@kernel
def backward_rows(
    logits: Any, grad_mask: Any, temp: Any, where: Any, out: Any, start: Any, stop: Any, scratch: Any
) -> Any:
    """The softmax's Jacobian times `grad_mask`."""
    choices = logits.shape[1]
    w, h, sums = part_of(scratch, 0, TILE), part_of(scratch, TILE, TILE), part_of(scratch, 2 * TILE, TILE)
    one, zero = scratch.dtype.type(1), scratch.dtype.type(0)
    shared, c = prepared(broadcast(temp[0])), exp_constants(temp[0] - temp[0])
    for first in range(start, stop, WIDTH):
        last = min(first + WIDTH, stop) - 1
        m, top, least = _choose(logits, where, first, last, w, sums)
        tau = _temperature(temp, first, last, shared)
        near = _are_near(least, top, tau)
        _from_selected(grad_mask, first, last, w, m, near, h)
        _exponentials(w, top, tau, near, c, choices)
        s = _total(w, choices, sums)
        d = _dot(w, h, choices, sums) / s
        # grad_logits_i = e_i (h_i - d) / (s temp), + 0 lest a product with e_i = 0 be -0
        q = one / (s * tau.scaled)
        for j in range(choices):
            e, difference = load(w, j * WIDTH), load(h, j * WIDTH) - d
            store(w, j * WIDTH, narrow_slots(fma(e * difference * q, tau.scale, zero), out))
        _store(w, out, first, last)
        _finish(out, first, last, m, d, logits, where, scratch)


@kernel
def backward_temp_rows(
    logits: Any, grad_mask: Any, temp: Any, where: Any, out: Any, start: Any, stop: Any, scratch: Any
) -> Any:
    """Each row's share, in the compute type: ``-sum_i grad_logits_i t_i``."""
    choices = logits.shape[1]
    w, h, t, sums = (
        part_of(scratch, 0, TILE),
        part_of(scratch, TILE, TILE),
        part_of(scratch, 2 * TILE, TILE),
        part_of(scratch, 3 * TILE, TILE),
    )
    nan = scratch.dtype.type(np.nan)
    shared, c = prepared(broadcast(temp[0])), exp_constants(temp[0] - temp[0])
    for first in range(start, stop, WIDTH):
        last = min(first + WIDTH, stop) - 1
        m, top, least = _choose(logits, where, first, last, w, sums)
        tau = _temperature(temp, first, last, shared)
        near = _are_near(least, top, tau)
        _from_selected(grad_mask, first, last, w, m, near, h)
        for j in range(choices):
            difference, _ = divided_difference(load(w, j * WIDTH), top, tau)
            store(t, j * WIDTH, difference)
        _exponentials(w, top, tau, near, c, choices)
        s = _total(w, choices, sums)
        d = _dot(w, h, choices, sums) / s
        for j in range(choices):
            e = load(w, j * WIDTH)
            store(t, j * WIDTH, select(e > 0, load(t, j * WIDTH), e))  # an infinite t belongs to e = 0
            store(h, j * WIDTH, e * (load(h, j * WIDTH) - d))
        _pad(t, choices)
        share = -_dot(h, t, choices, sums) / (s * tau.scaled) * tau.scale
        for i in range(last - first + 1):
            selected = lane(m, i)
            out[first + i] = usual(lane(share, i), nan) if selected >= 0 else (0 if selected == NOTHING else nan)


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
    choices = logits.shape[1]
    w, a, b, sums = (
        part_of(scratch, 0, TILE),
        part_of(scratch, TILE, TILE),
        part_of(scratch, 2 * TILE, TILE),
        part_of(scratch, 3 * TILE, TILE),
    )
    one, zero = scratch.dtype.type(1), scratch.dtype.type(0)
    shared, c = prepared(broadcast(temp[0])), exp_constants(temp[0] - temp[0])
    for first in range(start, stop, WIDTH):
        last = min(first + WIDTH, stop) - 1
        m, top, least = _choose(logits, where, first, last, w, sums)
        tau = _temperature(temp, first, last, shared)
        near = _are_near(least, top, tau)
        _from_selected(grad_mask, first, last, w, m, near, a)
        _from_selected(grad_grad_logits, first, last, w, m, near, b)
        _exponentials(w, top, tau, near, c, choices)
        s = _total(w, choices, sums)
        q = one / (s * tau.scaled)
        # grad_grad_mask_i = p_i b_i / temp, b_i = k_i - sum_j p_j k_j
        mean = _dot(w, b, choices, sums) / s
        for j in range(choices):
            difference = load(b, j * WIDTH) - mean
            store(b, j * WIDTH, difference)
            result = fma(load(w, j * WIDTH) * difference * q, tau.scale, zero)
            store(sums, j * WIDTH, narrow_slots(result, out_grad_mask))
        _store(sums, out_grad_mask, first, last)
        _finish(out_grad_mask, first, last, m, mean, logits, where, scratch)
        # grad_logits_i = p_i (a_i b_i - sum_j p_j a_j b_j) / temp**2, a_i = h_i - sum_j p_j h_j
        mean = _dot(w, a, choices, sums) / s
        for j in range(choices):
            store(a, j * WIDTH, (load(a, j * WIDTH) - mean) * load(b, j * WIDTH))
        _pad(a, choices)
        mean = _dot(w, a, choices, sums) / s
        for j in range(choices):
            e, difference = load(w, j * WIDTH), load(a, j * WIDTH) - mean
            result = fma(e * difference * q * tau.scale * tau.reciprocal_hi, tau.scale, zero)
            store(sums, j * WIDTH, narrow_slots(result, out_logits))
        _store(sums, out_logits, first, last)
        _finish(out_logits, first, last, m, mean, logits, where, scratch)
