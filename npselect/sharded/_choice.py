"""Which candidate is selected, of a shard and of several."""

from __future__ import annotations

from typing import NamedTuple, SupportsIndex

import numpy as np
import numpy.typing as npt

from npselect._call.arguments import computed_in
from npselect._dtypes import Array
from npselect._modes import in_usual_modes
from npselect.sharded._layout import Shard, laid_out, per_row, unrows

__all__ = ["FOUND", "Selected", "at", "forward", "index", "merge", "select"]

NOTHING, LOWEST, FOUND, INVALID = range(4)
"""What `Selected.state` holds."""


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
    index: Array  # type: ignore[assignment]  # a tuple has a method of that name, which nobody misses here
    state: Array


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
    shard = laid_out({"logits": logits}, 1.0, start, axis, where, noise)
    return _selected(shard)


@in_usual_modes
def _selected(shard: Shard) -> Selected:
    w, offers = shard.w.astype(computed_in(shard.w.dtype), copy=False), shard.where
    candidates = w if offers is None else np.where(offers, w, -np.inf)
    if w.shape[1] == 0:
        lead, none = shard.lead, np.zeros(len(w), np.int8)
        return Selected(np.full(lead, -np.inf, w.dtype), np.full(lead, -1, np.int64), none.reshape(lead))
    place = np.argmax(candidates, axis=1)  # of NaN, the first
    value = np.take_along_axis(candidates, place[:, None], axis=1)[:, 0]
    state = np.where(value < np.inf, np.where(value > -np.inf, FOUND, LOWEST), INVALID)
    if offers is not None:
        state = np.where(offers.any(axis=1), state, NOTHING)
    found = state == FOUND
    value = np.where(found, value, np.where(state == INVALID, np.nan, -np.inf)).astype(w.dtype)
    index = np.where(found, place + shard.start, -1)
    return Selected(*(array.reshape(shard.lead) for array in (value, index, state.astype(np.int8))))


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


def forward(logits: npt.ArrayLike, selected: Selected, *, start: SupportsIndex = 0, axis: int = -1) -> Array:
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
    shard = laid_out({"logits": logits}, 1.0, start, axis, None, None)
    place = per_row(selected.index, shard, "selected", np.dtype(np.int64)) - shard.start
    state = per_row(selected.state, shard, "selected", np.dtype(np.int8))
    mask = (np.arange(shard.w.shape[1]) == place[:, None]).astype(shard.dtype)
    mask[(state == LOWEST) | (state == INVALID)] = np.nan
    return unrows(mask, shard)


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
    shard = laid_out({"logits": grad_mask}, 1.0, start, axis, None, None)
    place = per_row(selected.index, shard, "selected", np.dtype(np.int64)) - shard.start
    columns = shard.w.shape[1]
    owned = (place >= 0) & (place < columns)
    if columns == 0:
        return np.zeros(shard.lead, shard.dtype)
    values = np.take_along_axis(shard.w, np.clip(place, 0, columns - 1)[:, None], axis=1)[:, 0]
    return np.asarray(np.where(owned, values, values.dtype.type(0)).reshape(shard.lead))
