"""The CPU tier's kernels for rows of any length: serial functions over ranges of rows, free of the GIL.

Formulas as in `npselect.reference`, operations from `npselect.backends.arithmetic`. What a row yields depends on that
row alone. Each kernel takes logits first and results last, then the range and scratch memory of its own: `LANES` and
as many padded rows as it says. `npselect.backends.tiles` has the same for short rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npselect.backends.arithmetic import divided_difference, exp, prepared
from npselect.backends.packs import WIDTH, broadcast, first_largest, is_any, load, store
from npselect.backends.parts import before, clear_rows, load_part, store_part
from npselect.backends.primitives import bits_of, fma, formula, inlined, kernel, select
from npselect.backends.reductions import LANES, padded_dot, padded_total, total
from npselect.backends.storage import narrow, narrow_slots, widen, widen_slots

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
    "padded",
    "soft_rows",
    "sum_rows",
]

# ------------------------------------------------------------------------------------------------ selecting


NOTHING, POISONED = -1, -2  # no candidate offered: a row of zeros; NaN, +inf or only -inf: a row of NaN


@formula
def padded(n: Any) -> Any:
    """The entries that a row of n has in scratch memory: whole packs."""
    return (n + WIDTH - 1) // WIDTH * WIDTH


@inlined
def _choose(logits: Any, where: Any, r: Any, w: Any) -> Any:
    """Row r in its compute type into `w`, -inf at excluded entries and beyond; the selected candidate, or why none."""
    infinity, n = w.dtype.type(np.inf), logits.shape[1]
    tops, turns = broadcast(-infinity), broadcast(np.int32(0))
    unordered = tops == infinity
    offered = unordered
    for j in range(0, len(w), WIDTH):
        candidates = before(n - j)
        if len(where) > 0:
            offers = bits_of(load_part(where, r if len(where) > 1 else 0, j, w)) != 0
            offered = offered | offers
            candidates = candidates & offers
        x = select(candidates, widen_slots(load_part(logits, r, j, w), logits), -infinity)
        store(w, j, x)
        unordered = unordered | ~(x < infinity)
        better = x > tops
        turns = select(better, j // WIDTH, turns)
        tops = select(better, x, tops)
    if len(where) > 0 and not is_any(offered):
        return NOTHING
    if is_any(unordered):
        return POISONED
    m = first_largest(tops, turns)
    return m if w[m] > -infinity else POISONED


@inlined
def _scratch(scratch: Any, n: Any, k: Any) -> Any:
    """The k-th of the rows of n entries, padded, that follow the lanes."""
    size = padded(n)
    return scratch[LANES + k * size : LANES + (k + 1) * size]


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
    w = _scratch(scratch, logits.shape[1], 0)
    for r in range(start, stop):
        out[r] = max(_choose(logits, where, r, w), -1)


@kernel
def mask_rows(logits: Any, where: Any, out: Any, start: Any, stop: Any, scratch: Any) -> Any:
    """The exact one-hot of the selected candidate."""
    w = _scratch(scratch, logits.shape[1], 0)
    for r in range(start, stop):
        m = _choose(logits, where, r, w)
        clear_rows(out, r, r)
        if m >= 0:
            out[r, m] = narrow(w.dtype.type(1), out)
        elif m == POISONED:
            fill_unselected(out, r, m, w)


# ------------------------------------------------------------------------------------------------ the soft passes


@formula
def _temperature(temp: Any, r: Any) -> Any:
    return prepared(temp[r if len(temp) > 1 else 0])


@inlined
def _exponentials(w: Any, m: Any, temp: Any) -> Any:
    """``w <- e = exp((w - w_m) / temp)``, 0 at excluded entries and beyond."""
    top = w[m]
    for j in range(0, len(w), WIDTH):
        t, tail = divided_difference(load(w, j), top, temp)
        store(w, j, exp(t, tail))


@inlined
def _from_selected(cotangent: Any, r: Any, w: Any, m: Any, h: Any) -> Any:
    """``h <- g - g_m``, 0 at excluded entries and beyond: what the cotangent holds there, NaN too, is ignored."""
    selected = widen(cotangent[r, m])
    excluded, zero = w.dtype.type(-np.inf), w.dtype.type(0)
    for j in range(0, len(w), WIDTH):
        g = widen_slots(load_part(cotangent, r, j, w), cotangent)
        store(h, j, select(load(w, j) == excluded, zero, g - selected))


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


@kernel
def soft_rows(logits: Any, temp: Any, where: Any, out: Any, start: Any, stop: Any, scratch: Any) -> Any:
    """``probs = softmax(logits / temp)``."""
    w, lanes = _scratch(scratch, logits.shape[1], 0), scratch[:LANES]
    for r in range(start, stop):
        m = _choose(logits, where, r, w)
        if m < 0:
            fill_unselected(out, r, m, w)
            continue
        _exponentials(w, m, _temperature(temp, r))
        s = padded_total(w, lanes)
        for j in range(0, len(w), WIDTH):
            store_part(narrow_slots(load(w, j) / s, out), out, r, j)


@kernel
def backward_rows(
    logits: Any, grad_mask: Any, temp: Any, where: Any, out: Any, start: Any, stop: Any, scratch: Any
) -> Any:
    """The softmax's Jacobian times `grad_mask`."""
    n = logits.shape[1]
    w, h, lanes = _scratch(scratch, n, 0), _scratch(scratch, n, 1), scratch[:LANES]
    zero = scratch.dtype.type(0)
    for r in range(start, stop):
        m = _choose(logits, where, r, w)
        if m < 0:
            fill_unselected(out, r, m, w)
            continue
        tau = _temperature(temp, r)
        _from_selected(grad_mask, r, w, m, h)
        _exponentials(w, m, tau)
        s = padded_total(w, lanes)
        d = padded_dot(w, h, lanes) / s
        if not _finite(d):
            fill_candidates(out, r, logits, where, w)
            continue
        # grad_logits_i = e_i (h_i - d) / (s temp), + 0 lest a product with e_i = 0 be -0
        q = w.dtype.type(1) / (s * tau.scaled)
        for j in range(0, len(w), WIDTH):
            result = fma(load(w, j) * (load(h, j) - d) * q, tau.scale, zero)
            store_part(narrow_slots(result, out), out, r, j)


@kernel
def backward_temp_rows(
    logits: Any, grad_mask: Any, temp: Any, where: Any, out: Any, start: Any, stop: Any, scratch: Any
) -> Any:
    """Each row's share, in the compute type: ``-sum_i grad_logits_i t_i``."""
    n = logits.shape[1]
    w, h, t, lanes = _scratch(scratch, n, 0), _scratch(scratch, n, 1), _scratch(scratch, n, 2), scratch[:LANES]
    for r in range(start, stop):
        m = _choose(logits, where, r, w)
        if m < 0:
            out[r] = 0 if m == NOTHING else np.nan
            continue
        tau = _temperature(temp, r)
        _from_selected(grad_mask, r, w, m, h)
        top = w[m]
        for j in range(0, len(w), WIDTH):
            difference, _ = divided_difference(load(w, j), top, tau)
            store(t, j, difference)
        _exponentials(w, m, tau)
        s = padded_total(w, lanes)
        d = padded_dot(w, h, lanes) / s
        for j in range(0, len(w), WIDTH):
            e = load(w, j)
            store(t, j, select(e > 0, load(t, j), e))  # an infinite t belongs to e = 0
            store(h, j, e * (load(h, j) - d))
        out[r] = -padded_dot(h, t, lanes) / (s * tau.scaled) * tau.scale


@kernel
def sum_rows(x: Any, out: Any, start: Any, stop: Any, scratch: Any) -> Any:
    """Each row added up."""
    for r in range(start, stop):
        out[r] = narrow(total(x[r], scratch[:LANES]), out)


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
    w, a, b, lanes = _scratch(scratch, n, 0), _scratch(scratch, n, 1), _scratch(scratch, n, 2), scratch[:LANES]
    zero = scratch.dtype.type(0)
    for r in range(start, stop):
        m = _choose(logits, where, r, w)
        if m < 0:
            fill_unselected(out_grad_mask, r, m, w)
            fill_unselected(out_logits, r, m, w)
            continue
        tau = _temperature(temp, r)
        _from_selected(grad_mask, r, w, m, a)
        _from_selected(grad_grad_logits, r, w, m, b)
        _exponentials(w, m, tau)
        s = padded_total(w, lanes)
        q = w.dtype.type(1) / (s * tau.scaled)
        # grad_grad_mask_i = p_i b_i / temp, b_i = k_i - sum_j p_j k_j
        mean = padded_dot(w, b, lanes) / s
        for j in range(0, len(w), WIDTH):
            difference = load(b, j) - mean
            store(b, j, difference)
            result = fma(load(w, j) * difference * q, tau.scale, zero)
            store_part(narrow_slots(result, out_grad_mask), out_grad_mask, r, j)
        if not _finite(mean):
            fill_candidates(out_grad_mask, r, logits, where, w)
        # grad_logits_i = p_i (a_i b_i - sum_j p_j a_j b_j) / temp**2, a_i = h_i - sum_j p_j h_j
        mean = padded_dot(w, a, lanes) / s
        for j in range(0, len(w), WIDTH):
            store(a, j, (load(a, j) - mean) * load(b, j))
        mean = padded_dot(w, a, lanes) / s
        for j in range(0, len(w), WIDTH):
            result = fma(load(w, j) * (load(a, j) - mean) * q * tau.scale * tau.high, tau.scale, zero)
            store_part(narrow_slots(result, out_logits), out_logits, r, j)
        if not _finite(mean):
            fill_candidates(out_logits, r, logits, where, w)
