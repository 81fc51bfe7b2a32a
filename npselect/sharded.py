"""Rows that are split over machines, or over time: the parts, what they must exchange, and the bits of the unsplit call.

The candidates of each row are dealt out in shards: this one has the columns from `start` on. A shard computes from its
own logits, and from what the others send; how that is sent is the caller's business. Arrays go in and come out::

    mine = select(logits, start=start)              the shard's largest logit and where it is: a few bytes a row
    selected = merge(mine, theirs)                  ... of all shards, in any order and grouping
    mask = forward(logits, selected, start=start)   the shard's part of the one-hot

    g_m = at(grad_mask, selected, start=start)      to be added up over the shards: all but one of them have 0
    parts = sums(logits, selected, temp, grad_mask, g_m, start=start)     two numbers for each 1,024 columns of a row
    totals = total([parts of the first shard, ..., parts of the last])
    grad_logits = backward(grad_mask, logits, selected, totals, g_m, temp, start=start)

With m the selected candidate, whose logit is the row's largest, a shard's segment of 1,024 columns adds::

    e_i = exp((logits_i - logits_m) / temp)         s = sum_i e_i          d s = sum_i e_i h_i,   h_i = g_i - g_m

and the results are those of `npselect.straight_through`, whose sums run over the same segments, added up from the first
to the last. So every bit is that of the call on whole rows, however these are split, as long as each shard begins at a
multiple of 1,024 (its `start`). `npselect.gumbel_softmax` is the same, with `noise` in every call. The gradient of
`npselect.categorical` is that without noise; its choice is `select` with noise.

All of this runs on the host, on the kernels of the tier "cpu".
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple, SupportsIndex

import numpy as np
import numpy.typing as npt
from numpy.lib.array_utils import normalize_axis_index

from npselect._call import on_host
from npselect._call.arguments import broadcastable, computed_in, promoted, temperatures, whole
from npselect._dtypes import Array, DType, Shape
from npselect._modes import in_usual_modes
from npselect.tiers.cpu import shards

__all__ = ["Selected", "at", "backward", "forward", "index", "merge", "select", "soft", "sums", "total"]

SEGMENT = 1024
_NOTHING, _LOWEST, _FOUND, _INVALID = range(4)
_CODES = np.array([-1, -2, 0, -2])  # as in npselect._arithmetic.steps, but for what is found: EMPTY and INVALID


class Selected(NamedTuple):
    """What is selected in each row, of a shard or of several: arrays of the logits' shape without the axis.

    Attributes
    ----------
    value : ndarray
        The largest candidate, noise included, in the type that is computed in; -inf where there is none.
    index : ndarray of int64
        Its column in the whole row, the first of equals; -1 where there is none.
    state : ndarray of int8
        0: `where` offers nothing. 1: all candidates are -inf. 2: selected. 3: a candidate is NaN or +inf.
    """

    value: Array
    index: Array
    state: Array


class _Shard(NamedTuple):
    """A shard as rows x columns."""

    w: Array  # logits, or these and the noise in the type that both are added in
    cotangents: list[Array]
    where: Array | None
    temp: Array
    order: Shape
    shape: Shape
    dtype: DType  # of results
    start: int


@in_usual_modes
def _laid_out(
    arrays: dict[str, npt.ArrayLike], temp: npt.ArrayLike, start: SupportsIndex, axis: int, where: object, noise: object
) -> _Shard:
    read = {name: on_host.floating(values, name) for name, values in arrays.items()}
    logits = read["logits"]
    shape: Shape = logits.shape
    for name, array in read.items():
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape} and logits has shape {shape}; the two must be equal")
    own, dtype = logits.dtype.newbyteorder("="), promoted(read)
    axis = normalize_axis_index(whole(axis, "axis"), len(shape))
    first = _boundary(start)
    order = (*(i for i in range(len(shape)) if i != axis), axis)
    temps = temperatures(temp, dtype, shape, axis)
    rows = _as_rows(logits, order, own)
    if noise is not None:
        added = broadcastable(on_host.floating(noise, "noise"), "noise", shape)
        compute = computed_in(own)
        rows = rows.astype(compute) + _as_rows(np.broadcast_to(added, shape), order, compute)
    offers = None
    if where is not None:
        offered = broadcastable(on_host.bools(where, "where"), "where", shape)
        offers = _as_rows(np.broadcast_to(offered, shape), order, np.dtype(np.bool_))
    per_row = temps.reshape(1) if temps.size == 1 else _of_rows(np.broadcast_to(temps, _with(shape, axis, 1)), axis)
    others = [_as_rows(array, order, dtype) for name, array in read.items() if name != "logits"]
    return _Shard(rows, others, offers, per_row, order, shape, dtype, first)


def _boundary(start: SupportsIndex) -> int:
    first = whole(start, "start")
    if first < 0 or first % SEGMENT:
        below = max(first // SEGMENT * SEGMENT, 0)
        raise ValueError(
            f"start is {first}; shards begin at multiples of {SEGMENT}, where sums have borders too. The nearest are "
            f"{below} and {below + SEGMENT}"
        )
    return first


def _as_rows(array: Array, order: Shape, dtype: DType) -> Array:
    return on_host.as_rows(array.transpose(order), dtype)


def _with(shape: Shape, axis: int, length: int) -> Shape:
    return (*shape[:axis], length, *shape[axis + 1 :])


def _of_rows(array: Array, axis: int) -> Array:
    """What each row has one of, with length 1 along the axis, as (rows,)."""
    return np.ascontiguousarray(np.moveaxis(array, axis, -1).reshape(-1))


def _back(rows: Array, shard: _Shard) -> Array:
    """Rows x columns as an array of the logits' shape."""
    lead = tuple(shard.shape[i] for i in shard.order)
    return np.ascontiguousarray(np.moveaxis(rows.reshape(lead), -1, shard.order[-1]))


def _lead(shard: _Shard) -> Shape:
    return tuple(shard.shape[i] for i in shard.order[:-1])


def _flat(values: npt.ArrayLike, shard: _Shard, name: str, dtype: DType) -> Array:
    """What each row has one of, as (rows,)."""
    array = np.asarray(values)
    if array.shape != _lead(shard):
        raise ValueError(
            f"{name} has shape {array.shape}; it must have that of logits without the axis, {_lead(shard)}"
        )
    return np.ascontiguousarray(array.reshape(-1).astype(dtype, copy=False))


# ------------------------------------------------------------------------------------------------ the choice


def select(
    logits: npt.ArrayLike,
    *,
    start: SupportsIndex = 0,
    axis: int = -1,
    where: npt.ArrayLike | None = None,
    noise: npt.ArrayLike | None = None,
) -> Selected:
    """The shard's largest candidate of each row, ``argmax(w)`` with ``w = logits + noise``.

    Parameters
    ----------
    logits : array_like, shape (..., columns, ...)
        The shard's columns, along `axis`. A shard may have none.
    start : int, optional
        The place of the first of them in the whole row: a multiple of 1,024.
    axis : int, optional
        The axis of the candidates.
    where : array_like of bool, optional
        Which entries are candidates, as in `npselect.straight_through.forward`; broadcasts to `logits`.
    noise : array_like, optional
        What is added to the logits, as in `npselect.gumbel_softmax.forward`; broadcasts to `logits`.

    Returns
    -------
    Selected
        To be merged with those of the other shards.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `npselect.straight_through.forward`; ValueError also if `start` is no multiple of 1,024.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import sharded
    >>> row = np.zeros(2500, np.float32)
    >>> row[[700, 1100]] = 3.0
    >>> parts = [sharded.select(row[first : first + 1024], start=first) for first in (0, 1024, 2048)]
    >>> sharded.merge(parts[2], sharded.merge(parts[1], parts[0])).index
    array(700)
    """
    shard = _laid_out({"logits": logits}, 1.0, start, axis, where, noise)
    return _selected(shard)


@in_usual_modes
def _selected(shard: _Shard) -> Selected:
    w, offers = shard.w.astype(computed_in(shard.w.dtype), copy=False), shard.where
    candidates = w if offers is None else np.where(offers, w, -np.inf)
    if w.shape[1] == 0:
        lead, none = _lead(shard), np.zeros(len(w), np.int8)
        return Selected(np.full(lead, -np.inf, w.dtype), np.full(lead, -1, np.int64), none.reshape(lead))
    place = np.argmax(candidates, axis=1)  # of NaN, the first
    value = np.take_along_axis(candidates, place[:, None], axis=1)[:, 0]
    state = np.where(value < np.inf, np.where(value > -np.inf, _FOUND, _LOWEST), _INVALID)
    if offers is not None:
        state = np.where(offers.any(axis=1), state, _NOTHING)
    found = state == _FOUND
    value = np.where(found, value, np.where(state == _INVALID, np.nan, -np.inf)).astype(w.dtype)
    index = np.where(found, place + shard.start, -1)
    return Selected(*(array.reshape(_lead(shard)) for array in (value, index, state.astype(np.int8))))


def merge(a: Selected, b: Selected) -> Selected:
    """What is selected among the candidates of both: exact, associative and commutative.

    The lowest index wins among equals (-0 equals +0). A NaN or +inf on either side makes the row NaN. Where one side
    has nothing to offer, the result is the other.

    Parameters
    ----------
    a, b : Selected
        Of the same shape.

    Returns
    -------
    Selected

    Raises
    ------
    ValueError
        They have different shapes.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import sharded
    >>> a = sharded.select(np.array([[0.0, 2.0], [1.0, np.nan]]))
    >>> b = sharded.select(np.array([[5.0], [3.0]]), start=1024)
    >>> sharded.merge(a, b).index
    array([1024,   -1])
    """
    a, b = (Selected(*map(np.asarray, one)) for one in (a, b))
    if a.state.shape != b.state.shape:
        raise ValueError(f"a has shape {a.state.shape} and b has shape {b.state.shape}; the two must be equal")
    before = (b.value > a.value) | ((b.value == a.value) & (b.index < a.index))
    second = (b.state > a.state) | ((b.state == a.state) & before)
    return Selected(*(np.where(second, theirs, ours) for ours, theirs in zip(a, b, strict=True)))


def forward(
    logits: npt.ArrayLike, selected: Selected, *, start: SupportsIndex = 0, axis: int = -1
) -> Array:
    """The shard's part of the mask: ``mask = one_hot(argmax(w))``.

    Parameters
    ----------
    logits : array_like
        As in `select`; its shape and dtype are those of the result.
    selected : Selected
        Of all shards, merged.
    start, axis
        As in `select`.

    Returns
    -------
    ndarray, shape and dtype of `logits`
        Zeros and NaN rows as in `npselect.straight_through.forward`.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `select`; ValueError also if `selected` has another shape than `logits` without the axis.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import sharded
    >>> logits = np.array([[0.0, 2.0, 1.0]], np.float32)
    >>> sharded.forward(logits, sharded.select(logits))
    array([[0., 1., 0.]], dtype=float32)
    """
    shard = _laid_out({"logits": logits}, 1.0, start, axis, None, None)
    return _back(_mask(shard, _flat(selected.index, shard, "selected", np.int64), selected), shard)


def _mask(shard: _Shard, index: Array, selected: Selected) -> Array:
    mask = (np.arange(shard.w.shape[1]) + shard.start == index[:, None]).astype(shard.dtype)
    mask[_flat(selected.state, shard, "selected", np.int8) % 2 == 1] = np.nan
    return mask


def index(selected: Selected) -> Array:
    """The index of the selected candidate in the whole row, -1 where nothing is selected: ``index = argmax(w)``.

    Parameters
    ----------
    selected : Selected
        Of all shards, merged.

    Returns
    -------
    ndarray of int64

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import sharded
    >>> sharded.index(sharded.select(np.array([[0.0, 2.0], [np.nan, 0.0]])))
    array([ 1, -1])
    """
    return np.asarray(selected.index)


# ------------------------------------------------------------------------------------------------ sums and results


def at(grad_mask: npt.ArrayLike, selected: Selected, *, start: SupportsIndex = 0, axis: int = -1) -> Array:
    """The cotangent of the selected candidate, ``g_m``, where this shard has it; else 0. To be added up over shards.

    Parameters
    ----------
    grad_mask : array_like, shape of the shard's logits
        The cotangent of the mask.
    selected : Selected
        Of all shards, merged.
    start, axis
        As in `select`.

    Returns
    -------
    ndarray, shape of `grad_mask` without the axis

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `forward`.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import sharded
    >>> selected = sharded.select(np.array([[0.0, 2.0, 1.0]]))
    >>> sharded.at(np.array([[5.0, 7.0, 9.0]]), selected), sharded.at(np.array([[3.0]]), selected, start=1024)
    (array([7.]), array([0.]))
    """
    shard = _laid_out({"logits": grad_mask}, 1.0, start, axis, None, None)
    place = _flat(selected.index, shard, "selected", np.int64) - shard.start
    columns = shard.w.shape[1]
    owned = (place >= 0) & (place < columns)
    if columns == 0:
        return np.zeros(_lead(shard), shard.dtype)
    values = np.take_along_axis(shard.w, np.clip(place, 0, columns - 1)[:, None], axis=1)[:, 0]
    return np.where(owned, values, values.dtype.type(0)).reshape(_lead(shard))


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
    shard = _laid_out(arrays, temp, start, axis, where, noise)
    operands, compute = _operands(shard, selected)
    out = np.zeros((len(shard.w), shards.segments_of(shard.w.shape[1]), len(arrays)), compute)
    if out.size and grad_mask is None:
        shards.totals(*operands, shard.temp, _padded_where(shard), out)
    elif out.size:
        logits_rows, *choice = operands
        g_rows = shards.as_shard(shard.cotangents[0], 0.0)
        g = _flat(np.asarray(g_selected), shard, "g_selected", compute)
        shards.sums(logits_rows, g_rows, *choice, g, shard.temp, _padded_where(shard), out)
    return out.reshape((*_lead(shard), *out.shape[1:]))


def _operands(shard: _Shard, selected: Selected) -> tuple[list[Array], DType]:
    """The logits, the choice and the largest logits as kernels take them, and the type that is computed in."""
    compute = computed_in(shard.dtype)
    noisy = shard.w.dtype != shard.dtype
    w = shard.w.astype(compute if noisy else shard.dtype, copy=False)
    state = _flat(selected.state, shard, "selected", np.int8)
    index = _flat(selected.index, shard, "selected", np.int64)
    choice = np.where(state == _FOUND, index, _CODES[state])
    return [shards.as_shard(w, -np.inf), choice, _flat(selected.value, shard, "selected", compute)], compute


def _padded_where(shard: _Shard) -> Array | None:
    return None if shard.where is None else shards.as_shard(shard.where, False)


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
    return reduce(np.add, segments, zero)


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
    shard = _laid_out({"logits": logits}, temp, start, axis, where, noise)
    operands, compute = _operands(shard, selected)
    out = np.empty(operands[0].shape, shard.dtype)
    if shard.w.size:
        shards.soft(*operands, _totals(totals, shard, compute), shard.temp, _padded_where(shard), out)
    return _back(out[:, : shard.w.shape[1]], shard)


def _totals(totals: npt.ArrayLike, shard: _Shard, compute: DType) -> Array:
    array = np.asarray(totals)
    if array.shape[:-1] != _lead(shard):
        raise ValueError(
            f"totals has shape {array.shape}; it must have that of logits without the axis, {_lead(shard)}, and one "
            "more: it is what total() returns"
        )
    return np.ascontiguousarray(array.reshape(len(shard.w), -1).astype(compute, copy=False))


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
    shard = _laid_out({"logits": logits, "grad_mask": grad_mask}, temp, start, axis, where, noise)
    (w, choice, top), compute = _operands(shard, selected)
    given = _totals(totals, shard, compute)
    if given.shape[1] != 2:
        raise ValueError("totals has one number a row; backward takes those of sums() with grad_mask, which are two")
    out = np.empty(w.shape, shard.dtype)
    if shard.w.size:
        g_rows = shards.as_shard(shard.cotangents[0], 0.0)
        g = _flat(np.asarray(g_selected), shard, "g_selected", compute)
        shards.backward(w, g_rows, choice, top, g, given, shard.temp, _padded_where(shard), out)
    return _back(out[:, : shard.w.shape[1]], shard)
