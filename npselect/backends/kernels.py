"""The CPU tier's kernels for rows of any length: serial functions over ranges of rows, free of the GIL.

Formulas as in `npselect.reference`, operations from `npselect.backends.arithmetic`. What a row yields depends on that
row alone. Each kernel takes logits first and results last, then the range and scratch memory of its own: `LANES` and
as many rows as it says.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npselect.backends.arithmetic import divided_difference, exp, prepared
from npselect.backends.primitives import fma, formula, kernel
from npselect.backends.reductions import LANES, dot, maximum, total
from npselect.backends.storage import narrow, widen

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
    "sum_rows",
]

# ------------------------------------------------------------------------------------------------ selecting

NOTHING, POISONED = -1, -2  # no candidate offered: a row of zeros; NaN, +inf or only -inf: a row of NaN


@formula
def _choose(logits: Any, where: Any, r: Any, w: Any, lanes: Any) -> Any:
    """Row r in its compute type into `w`, -inf at excluded entries; the selected candidate's index, or why none."""
    infinity = w.dtype.type(np.inf)
    n = len(w)
    row = logits[r]
    for j in range(n):
        w[j] = widen(row[j])
    if len(where) > 0:
        offers = where[r if len(where) > 1 else 0]
        offered = 0
        for j in range(n):
            w[j] = w[j] if offers[j] else -infinity
            offered += offers[j]
        if offered == 0:
            return NOTHING

    unordered = 0
    for j in range(n):
        unordered += not (w[j] < infinity)
    top = maximum(w, lanes)
    if unordered > 0 or top == -infinity:
        return POISONED
    for base in range(0, n, LANES):  # the first entry that equals the maximum: its block, then its place there
        block = w[base : min(base + LANES, n)]
        here = 0
        for j in range(len(block)):
            here += block[j] == top
        if here > 0:
            for j in range(len(block)):
                if block[j] == top:
                    return base + j
    return POISONED


@formula
def _scratch(scratch: Any, n: Any, k: Any) -> Any:
    """The k-th of the rows of length n that follow the lanes."""
    return scratch[LANES + k * n : LANES + (k + 1) * n]


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
    w, lanes = _scratch(scratch, logits.shape[1], 0), scratch[:LANES]
    for r in range(start, stop):
        out[r] = max(_choose(logits, where, r, w, lanes), -1)


@kernel
def mask_rows(logits: Any, where: Any, out: Any, start: Any, stop: Any, scratch: Any) -> Any:
    """The exact one-hot of the selected candidate."""
    w, lanes = _scratch(scratch, logits.shape[1], 0), scratch[:LANES]
    for r in range(start, stop):
        m = _choose(logits, where, r, w, lanes)
        fill_unselected(out, r, m, w)
        if m >= 0:
            out[r, m] = narrow(w.dtype.type(1), out)


# ------------------------------------------------------------------------------------------------ the soft passes


@formula
def _temperature(temp: Any, r: Any) -> Any:
    return prepared(temp[r if len(temp) > 1 else 0])


@formula
def _exponentials(w: Any, m: Any, temp: Any) -> Any:
    """``w <- e = exp((w - w_m) / temp)``, 0 at excluded entries."""
    top = w[m]
    for j in range(len(w)):
        t, tail = divided_difference(w[j], top, temp)
        w[j] = exp(t, tail)


@formula
def _from_selected(cotangent: Any, r: Any, w: Any, m: Any, h: Any) -> Any:
    """``h <- g - g_m``, 0 at excluded entries: what the cotangent holds there, NaN too, is ignored."""
    row = cotangent[r]
    selected = widen(row[m])
    excluded, zero = w.dtype.type(-np.inf), w.dtype.type(0)
    for j in range(len(w)):
        h[j] = zero if w[j] == excluded else widen(row[j]) - selected


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
        m = _choose(logits, where, r, w, lanes)
        if m < 0:
            fill_unselected(out, r, m, w)
            continue
        _exponentials(w, m, _temperature(temp, r))
        e, s, row = w, total(w, lanes), out[r]
        for j in range(len(e)):
            row[j] = narrow(e[j] / s, out)


@kernel
def backward_rows(
    logits: Any, grad_mask: Any, temp: Any, where: Any, out: Any, start: Any, stop: Any, scratch: Any
) -> Any:
    """The softmax's Jacobian times `grad_mask`."""
    n = logits.shape[1]
    w, h, lanes = _scratch(scratch, n, 0), _scratch(scratch, n, 1), scratch[:LANES]
    zero = scratch.dtype.type(0)
    for r in range(start, stop):
        m = _choose(logits, where, r, w, lanes)
        if m < 0:
            fill_unselected(out, r, m, w)
            continue
        tau = _temperature(temp, r)
        _from_selected(grad_mask, r, w, m, h)
        _exponentials(w, m, tau)
        e, s, row = w, total(w, lanes), out[r]
        d = dot(e, h, lanes) / s
        if not _finite(d):
            fill_candidates(out, r, logits, where, w)
            continue
        # grad_logits_i = e_i (h_i - d) / (s temp), + 0 lest a product with e_i = 0 be -0
        q = w.dtype.type(1) / (s * tau.scaled)
        for j in range(n):
            row[j] = narrow(fma(e[j] * (h[j] - d) * q, tau.scale, zero), out)


@kernel
def backward_temp_rows(
    logits: Any, grad_mask: Any, temp: Any, where: Any, out: Any, start: Any, stop: Any, scratch: Any
) -> Any:
    """Each row's share, in the compute type: ``-sum_i grad_logits_i t_i``."""
    n = logits.shape[1]
    w, h, t, lanes = _scratch(scratch, n, 0), _scratch(scratch, n, 1), _scratch(scratch, n, 2), scratch[:LANES]
    for r in range(start, stop):
        m = _choose(logits, where, r, w, lanes)
        if m < 0:
            out[r] = 0 if m == NOTHING else np.nan
            continue
        tau = _temperature(temp, r)
        _from_selected(grad_mask, r, w, m, h)
        for j in range(n):
            t[j], _ = divided_difference(w[j], w[m], tau)
        _exponentials(w, m, tau)
        e, s = w, total(w, lanes)
        d = dot(e, h, lanes) / s
        for j in range(n):
            t[j] = t[j] if e[j] > 0 else e[j]  # an infinite t belongs to e = 0
            h[j] = e[j] * (h[j] - d)
        out[r] = -dot(h, t, lanes) / (s * tau.scaled) * tau.scale


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
        m = _choose(logits, where, r, w, lanes)
        if m < 0:
            fill_unselected(out_grad_mask, r, m, w)
            fill_unselected(out_logits, r, m, w)
            continue
        tau = _temperature(temp, r)
        _from_selected(grad_mask, r, w, m, a)
        _from_selected(grad_grad_logits, r, w, m, b)
        _exponentials(w, m, tau)
        e, s = w, total(w, lanes)
        q = w.dtype.type(1) / (s * tau.scaled)
        # grad_grad_mask_i = p_i b_i / temp, b_i = k_i - sum_j p_j k_j
        mean = dot(e, b, lanes) / s
        row = out_grad_mask[r]
        for j in range(n):
            b[j] = b[j] - mean
            row[j] = narrow(fma(e[j] * b[j] * q, tau.scale, zero), out_grad_mask)
        if not _finite(mean):
            fill_candidates(out_grad_mask, r, logits, where, w)
        # grad_logits_i = p_i (a_i b_i - sum_j p_j a_j b_j) / temp**2, a_i = h_i - sum_j p_j h_j
        mean = dot(e, a, lanes) / s
        for j in range(n):
            a[j] = (a[j] - mean) * b[j]
        mean = dot(e, a, lanes) / s
        row = out_logits[r]
        for j in range(n):
            row[j] = narrow(fma(e[j] * (a[j] - mean) * q * tau.scale * tau.high, tau.scale, zero), out_logits)
        if not _finite(mean):
            fill_candidates(out_logits, r, logits, where, w)
