"""The gradient of the temperature, of rows that are split."""

from __future__ import annotations

import math
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt
from numpy.lib.array_utils import normalize_axis_index

from npselect._call.arguments import temperatures
from npselect._dtypes import Array, dtype_name, ml_dtypes_bfloat16
from npselect.sharded._choice import Selected
from npselect.sharded._layout import kernels, laid_out, per_row
from npselect.sharded._results import codes_of, cotangent, operands, padded_where, totals_of_two

__all__ = ["backward_temp", "temp_sums"]


def temp_sums(
    grad_mask: npt.ArrayLike,
    logits: npt.ArrayLike,
    selected: Selected,
    totals: npt.ArrayLike,
    g_selected: npt.ArrayLike,
    temp: npt.ArrayLike = 0.6,
    *,
    start: SupportsIndex = 0,
    axis: int = -1,
    where: npt.ArrayLike | None = None,
    noise: npt.ArrayLike | None = None,
) -> Array:
    """What each segment adds to the gradient of the temperature: ``sum_i e_i (h_i - d) t_i``, t_i the exponents.

    Parameters
    ----------
    grad_mask, logits, selected, totals, g_selected, temp, start, axis, where, noise
        As in `backward`.

    Returns
    -------
    ndarray, shape (..., segments, 1)
        For `total`, and then `backward_temp`.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `backward`.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import sharded
    >>> logits, g = np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]])
    >>> selected = sharded.select(logits)
    >>> g_m = sharded.at(g, selected)
    >>> totals = sharded.total([sharded.sums(logits, selected, 1.0, g, g_m)])
    >>> sharded.temp_sums(g, logits, selected, totals, g_m, 1.0).shape
    (1, 1, 1)
    """
    shard = laid_out({"logits": logits, "grad_mask": grad_mask}, temp, start, axis, where, noise)
    (w, choice, top), compute = operands(shard, selected)
    given = totals_of_two(totals, shard, compute)
    out = np.zeros((len(shard.w), kernels().segments_of(shard.w.shape[1]), 1), compute)
    if out.size:
        g = per_row(np.asarray(g_selected), shard, "g_selected", compute)
        kernels().temp_sums(w, cotangent(shard), choice, top, g, given, shard.temp, padded_where(shard), out)
    return out.reshape((*shard.lead, *out.shape[1:]))


def backward_temp(
    selected: Selected,
    totals: npt.ArrayLike,
    temp_totals: npt.ArrayLike,
    temp: npt.ArrayLike = 0.6,
    *,
    axis: int = -1,
    dtype: npt.DTypeLike | None = None,
) -> Array:
    """The gradient of the temperature, summed over the rows that share one: ``grad_temp = -sum_i grad_logits_i t_i``.

    Parameters
    ----------
    selected : Selected
        Of all shards, merged.
    totals : array_like, shape (..., 2)
        What `total` returned, of `sums` with the cotangent.
    temp_totals : array_like, shape (..., 1)
        What `total` returned, of `temp_sums`.
    temp : array_like, optional
        The temperature: a number, or an array that broadcasts against the logits with length 1 along `axis`.
    axis : int, optional
        The axis of the candidates.
    dtype : dtype, optional
        Of the result: that of the logits and the cotangent. By default it is that of `totals`.

    Returns
    -------
    ndarray, shape of `temp`
        With the bits of `npselect.straight_through.backward_temp` or, with noise, of `npselect.gumbel_softmax`'s.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `backward`.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import sharded, straight_through
    >>> logits, g = np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]])
    >>> selected = sharded.select(logits)
    >>> g_m = sharded.at(g, selected)
    >>> totals = sharded.total([sharded.sums(logits, selected, 1.0, g, g_m)])
    >>> temp_totals = sharded.total([sharded.temp_sums(g, logits, selected, totals, g_m, 1.0)])
    >>> grad_temp = sharded.backward_temp(selected, totals, temp_totals, 1.0)
    >>> bool(grad_temp == straight_through.backward_temp(g, logits, 1.0))
    True
    """
    both, last = np.asarray(totals), np.asarray(temp_totals)
    lead = np.shape(selected.state)
    if both.shape != (*lead, 2) or last.shape != (*lead, 1):
        raise ValueError(
            f"totals has shape {both.shape}, temp_totals {last.shape} and the rows have {lead}; the first must have "
            "that and 2, the second that and 1: they are what total() returned of sums() and of temp_sums()"
        )
    axis = normalize_axis_index(axis, len(lead) + 1)
    shape = (*lead[:axis], 1, *lead[axis:])
    compute = both.dtype
    form = compute if dtype is None else _dtype(dtype)
    temps = temperatures(temp, form, shape, axis)
    per_row_temps = temps.reshape(1) if temps.size == 1 else np.broadcast_to(temps, shape).reshape(-1).copy()
    shares = np.empty(math.prod(lead), compute)
    out = np.zeros(np.shape(temp), form)
    if not shares.size:
        return out
    kernels().temp_shares(last.reshape(-1), codes_of(selected).reshape(-1), both.reshape(-1, 2), per_row_temps, shares)
    order = sorted(range(len(shape)), key=lambda i: temps.size > 1 and temps.shape[i] == 1)
    rows = np.ascontiguousarray(shares.reshape(shape).transpose(order)).reshape(out.size, -1)
    kernels().added_up(rows, out.reshape(-1))
    return out


def _dtype(dtype: npt.DTypeLike) -> np.dtype[np.generic]:
    return ml_dtypes_bfloat16() if dtype_name(dtype) == "bfloat16" else np.dtype(dtype_name(dtype))
