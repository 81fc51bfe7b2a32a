"""What a shard adds to the sums of a row, and its part of the results."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from npselect._call.arguments import computed_in
from npselect._dtypes import Array, DType
from npselect.sharded._choice import FOUND, Selected
from npselect.sharded._layout import Shard, kernels, laid_out, per_row, unrows

__all__ = [
    "backward",
    "codes_of",
    "cotangent",
    "operands",
    "padded_where",
    "reinmax",
    "soft",
    "sums",
    "total",
    "totals_of_two",
]

_CODES = np.array([-1, -2, 0, -2])  # as in npselect._arithmetic.steps, but for what is found: EMPTY and INVALID


def sums(
    logits: npt.ArrayLike,
    selected: Selected,
    temp: npt.ArrayLike = 0.6,
    grad_mask: npt.ArrayLike | None = None,
    g_selected: npt.ArrayLike | None = None,
    *,
    start: SupportsIndex = 0,
    axis: int = -1,
    where: npt.ArrayLike | None = None,
    noise: npt.ArrayLike | None = None,
) -> Array:
    """What each segment of 1,024 columns adds to the sums of its row: ``sum_i e_i`` and, with a cotangent, of e_i h_i.

    Parameters
    ----------
    logits, start, axis, where, noise
        As in `select`.
    selected : Selected
        Of all shards, merged: by the same `where` and `noise`.
    temp : array_like, optional
        Temperature, as in `npselect.straight_through.forward`.
    grad_mask : array_like, shape of `logits`, optional
        The cotangent of the mask.
    g_selected : array_like, shape of `logits` without the axis, optional
        What `at` returns, added up over the shards. It is given if `grad_mask` is.

    Returns
    -------
    ndarray, shape (..., segments, 1), with a cotangent (..., segments, 2)
        In the type that is computed in: float64 if an array is of float64, else float32. In front are the axes of
        `logits` without that of the candidates.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `forward`; ValueError also for a temperature that is none, TypeError if only one of the two is given.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import sharded
    >>> logits = np.zeros((1, 2500), np.float32)
    >>> sharded.sums(logits, sharded.select(logits))[..., 0]
    array([[1024., 1024.,  452.]], dtype=float32)
    """
    if (grad_mask is None) != (g_selected is None):
        raise TypeError("grad_mask and g_selected go together: give both, or neither")
    arrays = {"logits": logits} if grad_mask is None else {"logits": logits, "grad_mask": grad_mask}
    shard = laid_out(arrays, temp, start, axis, where, noise)
    (w, choice, top), compute = operands(shard, selected)
    out = np.zeros((len(shard.w), kernels().segments_of(shard.w.shape[1]), len(arrays)), compute)
    if out.size and grad_mask is None:
        kernels().totals(w, choice, top, shard.temp, padded_where(shard), out)
    elif out.size:
        g = per_row(np.asarray(g_selected), shard, "g_selected", compute)
        kernels().sums(w, cotangent(shard), choice, top, g, shard.temp, padded_where(shard), out)
    return out.reshape((*shard.lead, *out.shape[1:]))


def operands(shard: Shard, selected: Selected) -> tuple[tuple[Array, Array, Array], DType]:
    """The logits, the choice and the largest logits as kernels take them, and the type that is computed in."""
    compute = computed_in(shard.dtype)
    noisy = shard.w.dtype != shard.dtype
    w = shard.w.astype(compute if noisy else shard.dtype, copy=False)
    per_row(selected.state, shard, "selected", np.dtype(np.int8))
    choice = codes_of(selected).reshape(-1)
    top = per_row(selected.value, shard, "selected", compute)
    return (kernels().as_shard(w, -np.inf), choice, top), compute


def codes_of(selected: Selected) -> Array:
    """The index, or why there is none, as kernels take it."""
    return np.asarray(np.where(selected.state == FOUND, selected.index, _CODES[selected.state]))


def cotangent(shard: Shard) -> Array:
    """That of the mask, with zeros where columns were added."""
    return np.asarray(kernels().as_shard(shard.cotangents[0], 0.0))


def padded_where(shard: Shard) -> Array | None:
    """Which columns are candidates, those that were added not among them."""
    return None if shard.where is None else kernels().as_shard(shard.where, False)


def total(parts: Sequence[npt.ArrayLike]) -> Array:
    """The sums of whole rows, of those of all shards in the order of their columns: one segment after the other.

    Parameters
    ----------
    parts : sequence of array_like
        What `sums` has returned for each shard, from the first to the last.

    Returns
    -------
    ndarray, shape (..., 1) or (..., 2)

    Raises
    ------
    ValueError
        There are none.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import sharded
    >>> sharded.total([np.ones((3, 2, 1)), np.ones((3, 1, 1))])
    array([[3.],
           [3.],
           [3.]])
    """
    arrays = [np.asarray(part) for part in parts]
    if not arrays:
        raise ValueError("parts is empty; it takes what sums() returned for each shard")
    segments = [array[..., k, :] for array in arrays for k in range(array.shape[-2])]
    zero = np.zeros_like(arrays[0], shape=(*arrays[0].shape[:-2], arrays[0].shape[-1]))
    return np.asarray(reduce(np.add, segments, zero))


def soft(
    logits: npt.ArrayLike,
    selected: Selected,
    totals: npt.ArrayLike,
    temp: npt.ArrayLike = 0.6,
    *,
    start: SupportsIndex = 0,
    axis: int = -1,
    where: npt.ArrayLike | None = None,
    noise: npt.ArrayLike | None = None,
) -> Array:
    """The shard's part of the probabilities: ``p_i = e_i / s``.

    Parameters
    ----------
    logits, selected, temp, start, axis, where, noise
        As in `sums`.
    totals : array_like
        What `total` returned, of sums without a cotangent or with one.

    Returns
    -------
    ndarray, shape and dtype of `logits`
        With the bits of `npselect.straight_through.soft` or, with noise, of `npselect.gumbel_softmax.soft`.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `sums`.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import sharded
    >>> logits = np.zeros((1, 4))
    >>> selected = sharded.select(logits)
    >>> sharded.soft(logits, selected, sharded.total([sharded.sums(logits, selected)]))
    array([[0.25, 0.25, 0.25, 0.25]])
    """
    shard = laid_out({"logits": logits}, temp, start, axis, where, noise)
    (w, choice, top), compute = operands(shard, selected)
    out = np.empty(w.shape, shard.dtype)
    if shard.w.size:
        kernels().soft(w, choice, top, _totals(totals, shard, compute), shard.temp, padded_where(shard), out)
    return unrows(out[:, : shard.w.shape[1]], shard)


def _totals(totals: npt.ArrayLike, shard: Shard, compute: DType) -> Array:
    array = np.asarray(totals)
    if array.shape[:-1] != shard.lead:
        raise ValueError(
            f"totals has shape {array.shape}; it must have that of logits without the axis, {shard.lead}, and one "
            "more: it is what total() returns"
        )
    return np.ascontiguousarray(array.reshape(len(shard.w), -1).astype(compute, copy=False))


def totals_of_two(totals: npt.ArrayLike, shard: Shard, compute: DType, name: str = "totals") -> Array:
    """What `total` returned of sums with a cotangent, (rows, 2)."""
    given = _totals(totals, shard, compute)
    if given.shape[1] != 2:
        raise ValueError(f"{name} has {given.shape[1]} numbers a row; it takes those of sums() with grad_mask, two")
    return given


def backward(
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
    """The shard's part of the gradient: ``grad_logits_i = p_i (h_i - d) / temp``.

    Parameters
    ----------
    grad_mask : array_like, shape of `logits`
        The cotangent of the mask.
    logits, selected, g_selected, temp, start, axis, where, noise
        As in `sums`.
    totals : array_like, shape (..., 2)
        What `total` returned, of sums with the cotangent.

    Returns
    -------
    ndarray, shape of `logits`
        With the bits of `npselect.straight_through.backward` or, with noise, of `npselect.gumbel_softmax.backward`.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `sums`; ValueError also if `totals` are those of sums without a cotangent.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import sharded
    >>> logits, g = np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]])
    >>> selected = sharded.select(logits)
    >>> g_m = sharded.at(g, selected)
    >>> totals = sharded.total([sharded.sums(logits, selected, 1.0, g, g_m)])
    >>> sharded.backward(g, logits, selected, totals, g_m, 1.0)
    array([[ 0.19661193, -0.19661193]])
    """
    shard = laid_out({"logits": logits, "grad_mask": grad_mask}, temp, start, axis, where, noise)
    (w, choice, top), compute = operands(shard, selected)
    given = totals_of_two(totals, shard, compute)
    out = np.empty(w.shape, shard.dtype)
    if shard.w.size:
        g = per_row(np.asarray(g_selected), shard, "g_selected", compute)
        kernels().backward(w, cotangent(shard), choice, top, g, given, shard.temp, padded_where(shard), out)
    return unrows(out[:, : shard.w.shape[1]], shard)


def reinmax(
    grad_mask: npt.ArrayLike,
    logits: npt.ArrayLike,
    selected: Selected,
    drawn: Selected,
    totals_at_1: npt.ArrayLike,
    totals: npt.ArrayLike,
    g_drawn: npt.ArrayLike,
    temp: npt.ArrayLike = 1.0,
    *,
    start: SupportsIndex = 0,
    axis: int = -1,
    where: npt.ArrayLike | None = None,
) -> Array:
    """The shard's part of ReinMax's gradient, ``grad_logits_i = ((2 q_i - p_i) h_i - (q_i a - p_i b) - D_i a) / 2``.

    Parameters
    ----------
    grad_mask : array_like, shape of `logits`
        The cotangent of the mask.
    logits, start, axis, where
        As in `select`.
    selected : Selected
        The largest logits of all shards, merged: `select` without noise.
    drawn : Selected
        What was sampled, merged: `select` with noise. Its rows select where those of `selected` do.
    totals_at_1, totals : array_like, shape (..., 2)
        What `total` returned of ``sums(logits, selected, 1.0, grad_mask, g_drawn)``, and of those at `temp`.
    g_drawn : array_like, shape of `logits` without the axis
        What `at` returns of `drawn`, added up over the shards.
    temp : array_like, optional
        Temperature, as in `npselect.reinmax.backward`.

    Returns
    -------
    ndarray, shape of `logits`
        With the bits of `npselect.reinmax.backward`.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `backward`.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import reinmax, sharded
    >>> logits, g = np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]])
    >>> selected, drawn = sharded.select(logits), sharded.select(logits, noise=[[2.0, 0.0]])
    >>> g_d = sharded.at(g, drawn)
    >>> at_1 = sharded.total([sharded.sums(logits, selected, 1.0, g, g_d)])
    >>> found = sharded.reinmax(g, logits, selected, drawn, at_1, at_1, g_d)
    >>> bool((found == reinmax.backward(g, logits, index=[0])).all())
    True
    """
    shard = laid_out({"logits": logits, "grad_mask": grad_mask}, temp, start, axis, where, None)
    (w, choice, top), compute = operands(shard, selected)
    p_sums = totals_of_two(totals_at_1, shard, compute, "totals_at_1")
    q_sums = totals_of_two(totals, shard, compute)
    place = per_row(drawn.index, shard, "drawn", np.dtype(np.int64)) - shard.start
    g = per_row(np.asarray(g_drawn), shard, "g_drawn", compute)
    out = np.empty(w.shape, shard.dtype)
    if shard.w.size:
        here = np.clip(place, 0, shard.w.shape[1] - 1)
        own = np.take_along_axis(shard.w, here[:, None], axis=1)[:, 0].astype(compute)
        kernels().reinmax(
            w, cotangent(shard), choice, top, g, own, place, p_sums, q_sums, shard.temp, padded_where(shard), out
        )
    return unrows(out[:, : shard.w.shape[1]], shard)
