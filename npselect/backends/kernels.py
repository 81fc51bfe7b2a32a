"""The CPU tier's kernels for rows of any length: serial functions over ranges of rows, free of the GIL.

Formulas as in `npselect.reference`, operations from `npselect.backends.arithmetic`. What a row yields depends on that
row alone. Each kernel takes logits first and results last, then the range and scratch memory of its own: `LANES` and
as many spans as it says. `npselect.backends.tiles` has the same for short rows.

A row is gone through span by span: for the selected candidate, for the sums, for the results. What scratch memory holds
of a row that is one span stays there from one to the next; a longer row is read, and its exponentials are taken, again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npselect.backends.arithmetic import divided_difference, exp, prepared
from npselect.backends.packs import WIDTH, broadcast, first_largest, is_any, load, store
from npselect.backends.parts import before, clear_rows, load_part, store_part
from npselect.backends.primitives import bits_of, fma, formula, inlined, kernel, select
from npselect.backends.reductions import LANES, SEGMENT, padded_dot, padded_total, total
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
    "soft_rows",
    "span",
    "sum_rows",
    "usual",
]

# ------------------------------------------------------------------------------------------------ selecting


NOTHING, POISONED = -1, -2  # no candidate offered: a row of zeros; NaN, +inf or only -inf: a row of NaN


def span(choices: int, spans: int, itemsize: int, room: int) -> int:
    """The entries of each of so many spans: those of a row in whole packs if there is room for them, else a segment."""
    size = -(-choices // WIDTH) * WIDTH
    return size if spans * size * itemsize <= room else min(size, SEGMENT)


@inlined
def _span(scratch: Any, k: Any, spans: Any) -> Any:
    """The k-th of the spans that follow the lanes."""
    size = (len(scratch) - LANES) // spans
    return scratch[LANES + k * size : LANES + (k + 1) * size]


@inlined
def _candidates(logits: Any, where: Any, r: Any, j: Any, w: Any) -> Any:
    """Which of sixteen entries of row r from column j on are offered, and they in the compute type; else -inf."""
    offers = before(logits.shape[1] - j)
    if len(where) > 0:
        offers = offers & (bits_of(load_part(where, r if len(where) > 1 else 0, j, w)) != 0)
    return offers, select(offers, widen_slots(load_part(logits, r, j, w), logits), w.dtype.type(-np.inf))


@inlined
def _choose(logits: Any, where: Any, r: Any, w: Any) -> Any:
    """Row r's selected candidate, or why none, and its logit; `w` keeps the row, if that is one span."""
    infinity, n = w.dtype.type(np.inf), logits.shape[1]
    tops, turns = broadcast(-infinity), broadcast(np.int32(0))
    unordered = tops == infinity
    offered = unordered
    kept = 1 if n <= len(w) else 0
    for j in range(0, n, WIDTH):
        offers, x = _candidates(logits, where, r, j, w)
        if len(where) > 0:
            offered = offered | offers
        store(w, kept * j, x)
        unordered = unordered | ~(x < infinity)
        better = x > tops
        turns = select(better, j // WIDTH, turns)
        tops = select(better, x, tops)
    if len(where) > 0 and not is_any(offered):
        return NOTHING, infinity
    if is_any(unordered) or not is_any(tops > -infinity):
        return POISONED, infinity
    m = first_largest(tops, turns)
    return m, widen(logits[r, m])


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
    w = _span(scratch, 0, 1)
    for r in range(start, stop):
        m, _ = _choose(logits, where, r, w)
        out[r] = max(m, -1)


@kernel
def mask_rows(logits: Any, where: Any, out: Any, start: Any, stop: Any, scratch: Any) -> Any:
    """The exact one-hot of the selected candidate."""
    w = _span(scratch, 0, 1)
    for r in range(start, stop):
        m, _ = _choose(logits, where, r, w)
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
def _exponentials(w: Any, top: Any, temp: Any) -> Any:
    """``w <- e = exp((w - w_m) / temp)``, 0 at excluded entries and beyond."""
    for j in range(0, len(w), WIDTH):
        t, tail = divided_difference(load(w, j), top, temp)
        store(w, j, exp(t, tail))


@inlined
def _from_selected(cotangent: Any, r: Any, first: Any, selected: Any, w: Any, h: Any) -> Any:
    """``h <- g - g_m``, 0 at excluded entries and beyond: what the cotangent holds there, NaN too, is ignored."""
    excluded, zero = w.dtype.type(-np.inf), w.dtype.type(0)
    for j in range(0, len(w), WIDTH):
        g = widen_slots(load_part(cotangent, r, first + j, w), cotangent)
        store(h, j, select(load(w, j) == excluded, zero, g - selected))


@inlined
def _differences(w: Any, top: Any, temp: Any, t: Any) -> Any:
    """``t <- (w - w_m) / temp``."""
    for j in range(0, len(w), WIDTH):
        difference, _ = divided_difference(load(w, j), top, temp)
        store(t, j, difference)


# Functions of their own for what a longer row needs again: as parts of the kernels they would slow down all others.


@formula
def _read(logits: Any, where: Any, r: Any, first: Any, w: Any) -> Any:
    """The span of row r from column `first` on in its compute type into `w`, -inf at excluded entries and beyond."""
    for j in range(0, len(w), WIDTH):
        _, x = _candidates(logits, where, r, first + j, w)
        store(w, j, x)


@formula
def _exponentials_again(w: Any, top: Any, temp: Any) -> Any:
    _exponentials(w, top, temp)


@formula
def _from_selected_again(cotangent: Any, r: Any, first: Any, selected: Any, w: Any, h: Any) -> Any:
    _from_selected(cotangent, r, first, selected, w, h)


@formula
def _differences_again(w: Any, top: Any, temp: Any, t: Any) -> Any:
    _differences(w, top, temp, t)


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
    w, lanes = _span(scratch, 0, 1), scratch[:LANES]
    again = n > len(w)
    for r in range(start, stop):
        m, top = _choose(logits, where, r, w)
        if m < 0:
            fill_unselected(out, r, m, w)
            continue
        tau = _temperature(temp, r)
        s = w.dtype.type(0)
        for first in range(0, n, len(w)):
            if again:
                _read(logits, where, r, first, w)
            _exponentials(w, top, tau)
            s = padded_total(w, s, lanes)
        for first in range(0, n, len(w)):
            if again:
                _read(logits, where, r, first, w)
                _exponentials_again(w, top, tau)
            for j in range(0, len(w), WIDTH):
                store_part(narrow_slots(load(w, j) / s, out), out, r, first + j)


@kernel
def backward_rows(
    logits: Any, grad_mask: Any, temp: Any, where: Any, out: Any, start: Any, stop: Any, scratch: Any
) -> Any:
    """The softmax's Jacobian times `grad_mask`."""
    n = logits.shape[1]
    w, h, lanes = _span(scratch, 0, 2), _span(scratch, 1, 2), scratch[:LANES]
    again, zero = n > len(w), scratch.dtype.type(0)
    for r in range(start, stop):
        m, top = _choose(logits, where, r, w)
        if m < 0:
            fill_unselected(out, r, m, w)
            continue
        tau = _temperature(temp, r)
        selected = widen(grad_mask[r, m])
        s, d = zero, zero
        for first in range(0, n, len(w)):
            if again:
                _read(logits, where, r, first, w)
            _from_selected(grad_mask, r, first, selected, w, h)
            _exponentials(w, top, tau)
            s = padded_total(w, s, lanes)
            d = padded_dot(w, h, d, lanes)
        d = d / s
        if not _finite(d):
            fill_candidates(out, r, logits, where, w)
            continue
        # grad_logits_i = e_i (h_i - d) / (s temp), + 0 lest a product with e_i = 0 be -0
        q = w.dtype.type(1) / (s * tau.scaled)
        for first in range(0, n, len(w)):
            if again:
                _read(logits, where, r, first, w)
                _from_selected_again(grad_mask, r, first, selected, w, h)
                _exponentials_again(w, top, tau)
            for j in range(0, len(w), WIDTH):
                result = fma(load(w, j) * (load(h, j) - d) * q, tau.scale, zero)
                store_part(narrow_slots(result, out), out, r, first + j)


@kernel
def backward_temp_rows(
    logits: Any, grad_mask: Any, temp: Any, where: Any, out: Any, start: Any, stop: Any, scratch: Any
) -> Any:
    """Each row's share, in the compute type: ``-sum_i grad_logits_i t_i``."""
    n = logits.shape[1]
    w, h, t, lanes = _span(scratch, 0, 3), _span(scratch, 1, 3), _span(scratch, 2, 3), scratch[:LANES]
    again, zero, nan = n > len(w), scratch.dtype.type(0), scratch.dtype.type(np.nan)
    for r in range(start, stop):
        m, top = _choose(logits, where, r, w)
        if m < 0:
            out[r] = 0 if m == NOTHING else nan
            continue
        tau = _temperature(temp, r)
        selected = widen(grad_mask[r, m])
        s, d, share = zero, zero, zero
        for first in range(0, n, len(w)):
            if again:
                _read(logits, where, r, first, w)
            _from_selected(grad_mask, r, first, selected, w, h)
            _differences(w, top, tau, t)
            _exponentials(w, top, tau)
            s = padded_total(w, s, lanes)
            d = padded_dot(w, h, d, lanes)
        d = d / s
        for first in range(0, n, len(w)):
            if again:
                _read(logits, where, r, first, w)
                _from_selected_again(grad_mask, r, first, selected, w, h)
                _differences_again(w, top, tau, t)
                _exponentials_again(w, top, tau)
            for j in range(0, len(w), WIDTH):
                e = load(w, j)
                store(t, j, select(e > 0, load(t, j), e))  # an infinite t belongs to e = 0
                store(h, j, e * (load(h, j) - d))
            share = padded_dot(h, t, share, lanes)
        out[r] = usual(-share / (s * tau.scaled) * tau.scale, nan)


@kernel
def sum_rows(x: Any, out: Any, start: Any, stop: Any, scratch: Any) -> Any:
    """Each row added up."""
    for r in range(start, stop):
        out[r] = narrow(usual(total(x[r], scratch[:LANES]), scratch.dtype.type(np.nan)), out)


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
    w, a, b, lanes = _span(scratch, 0, 3), _span(scratch, 1, 3), _span(scratch, 2, 3), scratch[:LANES]
    again, zero = n > len(w), scratch.dtype.type(0)
    for r in range(start, stop):
        m, top = _choose(logits, where, r, w)
        if m < 0:
            fill_unselected(out_grad_mask, r, m, w)
            fill_unselected(out_logits, r, m, w)
            continue
        tau = _temperature(temp, r)
        a_selected, b_selected = widen(grad_mask[r, m]), widen(grad_grad_logits[r, m])
        s, a_mean, b_mean, mean = zero, zero, zero, zero
        for first in range(0, n, len(w)):
            if again:
                _read(logits, where, r, first, w)
            _from_selected(grad_mask, r, first, a_selected, w, a)
            _from_selected(grad_grad_logits, r, first, b_selected, w, b)
            _exponentials(w, top, tau)
            s = padded_total(w, s, lanes)
            a_mean, b_mean = padded_dot(w, a, a_mean, lanes), padded_dot(w, b, b_mean, lanes)
        q = w.dtype.type(1) / (s * tau.scaled)
        a_mean, b_mean = a_mean / s, b_mean / s
        # grad_grad_mask_i = p_i b_i / temp, b_i = k_i - sum_j p_j k_j
        for first in range(0, n, len(w)):
            if again:
                _read(logits, where, r, first, w)
                _from_selected_again(grad_mask, r, first, a_selected, w, a)
                _from_selected_again(grad_grad_logits, r, first, b_selected, w, b)
                _exponentials_again(w, top, tau)
            for j in range(0, len(w), WIDTH):
                difference = load(b, j) - b_mean
                result = fma(load(w, j) * difference * q, tau.scale, zero)
                store_part(narrow_slots(result, out_grad_mask), out_grad_mask, r, first + j)
                store(a, j, (load(a, j) - a_mean) * difference)
            mean = padded_dot(w, a, mean, lanes)
        if not _finite(b_mean):
            fill_candidates(out_grad_mask, r, logits, where, w)
        # grad_logits_i = p_i (a_i b_i - sum_j p_j a_j b_j) / temp**2, a_i = h_i - sum_j p_j h_j
        mean = mean / s
        for first in range(0, n, len(w)):
            if again:
                _read(logits, where, r, first, w)
                _from_selected_again(grad_mask, r, first, a_selected, w, a)
                _from_selected_again(grad_grad_logits, r, first, b_selected, w, b)
                _exponentials_again(w, top, tau)
                for j in range(0, len(w), WIDTH):
                    store(a, j, (load(a, j) - a_mean) * (load(b, j) - b_mean))
            for j in range(0, len(w), WIDTH):
                result = fma(load(w, j) * (load(a, j) - mean) * q * tau.scale * tau.high, tau.scale, zero)
                store_part(narrow_slots(result, out_logits), out_logits, r, first + j)
        if not _finite(mean):
            fill_candidates(out_logits, r, logits, where, w)
