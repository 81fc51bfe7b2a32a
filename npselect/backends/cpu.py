"""The CPU tier: numba kernels over ranges of rows, serial in themselves and free of the GIL.

Formulas as in `npselect.reference`, operations from `arithmetic`. What a row yields depends on that row alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit

from npselect.backends.arithmetic import divided_difference, exp, fma, formula, prepared
from npselect.backends.reductions import LANES, dot, maximum, total
from npselect.backends.storage import compute_type, narrow, stored, widen
from npselect.backends.threads import over_rows

__all__ = ["backward", "backward_temp", "double_backward", "index", "mask", "soft"]

Array = npt.NDArray[Any]
Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(function: Function) -> Function:
    """Compile without the GIL; cache the machine code where a cache directory can be written."""
    try:
        return cast("Function", njit(nogil=True, cache=True, error_model="numpy")(function))
    except RuntimeError:  # numba: no locator available
        return cast("Function", njit(nogil=True, error_model="numpy")(function))


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

    unordered, m = 0, POISONED
    if n <= LANES:
        top = -infinity
        for j in range(n):
            unordered += not (w[j] < infinity)
            if w[j] > top:
                m, top = j, w[j]
        return POISONED if unordered > 0 else m

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
    return m


@formula
def _scratch(scratch: Any, n: Any, k: Any) -> Any:
    """The k-th of the rows of length n that follow the lanes."""
    return scratch[LANES + k * n : LANES + (k + 1) * n]


@formula
def _fill_unselected(out: Any, r: Any, m: Any, w: Any) -> Any:
    """The row as it is before, or without, a selected candidate: zeros, or NaN."""
    row = out[r]
    value = narrow(w.dtype.type(np.nan if m == POISONED else 0.0), out)
    for j in range(len(row)):
        row[j] = value


@kernel
def _index_rows(logits: Any, where: Any, out: Any, start: Any, stop: Any, scratch: Any) -> Any:
    w, lanes = _scratch(scratch, logits.shape[1], 0), scratch[:LANES]
    for r in range(start, stop):
        out[r] = max(_choose(logits, where, r, w, lanes), -1)


@kernel
def _mask_rows(logits: Any, where: Any, out: Any, start: Any, stop: Any, scratch: Any) -> Any:
    w, lanes = _scratch(scratch, logits.shape[1], 0), scratch[:LANES]
    for r in range(start, stop):
        m = _choose(logits, where, r, w, lanes)
        _fill_unselected(out, r, m, w)
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
def _fill_candidates(out: Any, r: Any, logits: Any, where: Any, w: Any) -> Any:
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
def _soft_rows(logits: Any, temp: Any, where: Any, out: Any, start: Any, stop: Any, scratch: Any) -> Any:
    w, lanes = _scratch(scratch, logits.shape[1], 0), scratch[:LANES]
    for r in range(start, stop):
        m = _choose(logits, where, r, w, lanes)
        if m < 0:
            _fill_unselected(out, r, m, w)
            continue
        _exponentials(w, m, _temperature(temp, r))
        e, s, row = w, total(w, lanes), out[r]
        for j in range(len(e)):
            row[j] = narrow(e[j] / s, out)


@kernel
def _backward_rows(
    grad_mask: Any, logits: Any, temp: Any, where: Any, out: Any, start: Any, stop: Any, scratch: Any
) -> Any:
    n = logits.shape[1]
    w, h, lanes = _scratch(scratch, n, 0), _scratch(scratch, n, 1), scratch[:LANES]
    zero = scratch.dtype.type(0)
    for r in range(start, stop):
        m = _choose(logits, where, r, w, lanes)
        if m < 0:
            _fill_unselected(out, r, m, w)
            continue
        tau = _temperature(temp, r)
        _from_selected(grad_mask, r, w, m, h)
        _exponentials(w, m, tau)
        e, s, row = w, total(w, lanes), out[r]
        d = dot(e, h, lanes) / s
        if not _finite(d):
            _fill_candidates(out, r, logits, where, w)
            continue
        # grad_logits_i = e_i (h_i - d) / (s temp), + 0 lest a product with e_i = 0 be -0
        q = w.dtype.type(1) / (s * tau.scaled)
        for j in range(n):
            row[j] = narrow(fma(e[j] * (h[j] - d) * q, tau.scale, zero), out)


@kernel
def _backward_temp_rows(
    grad_mask: Any, logits: Any, temp: Any, where: Any, out: Any, start: Any, stop: Any, scratch: Any
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
def _sum_rows(x: Any, out: Any, start: Any, stop: Any, scratch: Any) -> Any:
    for r in range(start, stop):
        out[r] = narrow(total(x[r], scratch[:LANES]), out)


@kernel
def _double_backward_rows(
    grad_grad_logits: Any,
    grad_mask: Any,
    logits: Any,
    temp: Any,
    where: Any,
    out_grad_mask: Any,
    out_logits: Any,
    start: Any,
    stop: Any,
    scratch: Any,
) -> Any:
    n = logits.shape[1]
    w, a, b, lanes = _scratch(scratch, n, 0), _scratch(scratch, n, 1), _scratch(scratch, n, 2), scratch[:LANES]
    zero = scratch.dtype.type(0)
    for r in range(start, stop):
        m = _choose(logits, where, r, w, lanes)
        if m < 0:
            _fill_unselected(out_grad_mask, r, m, w)
            _fill_unselected(out_logits, r, m, w)
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
            _fill_candidates(out_grad_mask, r, logits, where, w)
        # grad_logits_i = p_i (a_i b_i - sum_j p_j a_j b_j) / temp**2, a_i = h_i - sum_j p_j h_j
        mean = dot(e, a, lanes) / s
        for j in range(n):
            a[j] = (a[j] - mean) * b[j]
        mean = dot(e, a, lanes) / s
        row = out_logits[r]
        for j in range(n):
            row[j] = narrow(fma(e[j] * (a[j] - mean) * q * tau.scale * tau.high, tau.scale, zero), out_logits)
        if not _finite(mean):
            _fill_candidates(out_logits, r, logits, where, w)


# ------------------------------------------------------------------------------------------------ rows in, rows out

_EVERYWHERE = np.empty((0, 0), dtype=np.bool_)


def mask(logits: Array, where: Array | None, out: Array) -> None:
    """The exact one-hot of the selected candidate."""
    _run(_mask_rows, 1, logits.shape, compute_type(out), logits, where, out)


def index(logits: Array, where: Array | None, out: Array) -> None:
    """Index of the selected candidate, -1 where nothing is selected."""
    _run(_index_rows, 1, logits.shape, compute_type(logits), logits, where, out)


def soft(logits: Array, temp: Array, where: Array | None, out: Array) -> None:
    """``probs = softmax(logits / temp)``."""
    _run(_soft_rows, 1, logits.shape, compute_type(out), logits, temp, where, out)


def backward(grad_mask: Array, logits: Array, temp: Array, where: Array | None, out: Array) -> None:
    """The softmax's Jacobian times `grad_mask`."""
    _run(_backward_rows, 2, logits.shape, compute_type(out), grad_mask, logits, temp, where, out)


def backward_temp(grad_mask: Array, logits: Array, temp: Array, where: Array | None, out: Array) -> None:
    """The gradient of each temperature, summed like a row over the ``rows // temps`` rows that share it."""
    compute = compute_type(out)
    per_row = np.empty(len(logits), compute)
    _run(_backward_temp_rows, 3, logits.shape, compute, grad_mask, logits, temp, where, per_row)
    groups = per_row.reshape(len(out), -1)
    _run(_sum_rows, 0, groups.shape, compute, groups, out)


def double_backward(
    grad_grad_logits: Array,
    grad_mask: Array,
    logits: Array,
    temp: Array,
    where: Array | None,
    out_grad_mask: Array,
    out_logits: Array,
) -> None:
    """The gradient of `backward`."""
    arrays = grad_grad_logits, grad_mask, logits, temp, where, out_grad_mask, out_logits
    _run(_double_backward_rows, 3, logits.shape, compute_type(logits), *arrays)


def _run(
    rows: Callable[..., None],
    scratch_rows: int,
    shape: tuple[int, ...],
    compute: type[np.floating[Any]],
    *arrays: Array | None,
) -> None:
    """A kernel over all rows; each call of it gets scratch memory of its own."""
    inputs = [_EVERYWHERE if array is None else stored(array) for array in arrays]

    def part(start: int, stop: int) -> None:
        rows(*inputs, start, stop, np.empty(LANES + scratch_rows * shape[1], compute))

    over_rows(part, *shape)
