"""A shard's arrays as rows x columns, checked, and the way back."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
import numpy.typing as npt
from numpy.lib.array_utils import normalize_axis_index

from npselect._call import on_host
from npselect._call.arguments import broadcastable, computed_in, promoted, temperatures, whole
from npselect._dtypes import Array, DType, Shape
from npselect._modes import in_usual_modes

__all__ = ["SEGMENT", "Shard", "kernels", "laid_out", "per_row", "unrows"]

SEGMENT = 1024  # as in npselect._arithmetic.order


@cache
def kernels() -> Any:
    """The module of the kernels, when it is first needed: it loads numba."""
    from npselect.tiers.cpu import shards

    return shards


class Shard(NamedTuple):
    """A shard as rows x columns."""

    w: Array  # logits, or these and the noise in the type that both are added in
    cotangents: list[Array]
    where: Array | None
    temp: Array
    order: Shape
    shape: Shape
    dtype: DType  # of results
    start: int

    @property
    def lead(self) -> Shape:
        """The logits' shape without the axis."""
        return tuple(self.shape[i] for i in self.order[:-1])


@in_usual_modes
def laid_out(
    arrays: dict[str, npt.ArrayLike], temp: npt.ArrayLike, start: SupportsIndex, axis: int, where: object, noise: object
) -> Shard:
    """Check what was given, of which "logits" come first, and lay it out."""
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
    temp_rows = temps.reshape(1) if temps.size == 1 else _of_rows(np.broadcast_to(temps, _with(shape, axis, 1)), axis)
    others = [_as_rows(array, order, dtype) for name, array in read.items() if name != "logits"]
    return Shard(rows, others, offers, temp_rows, order, shape, dtype, first)


def _boundary(start: SupportsIndex) -> int:
    """The first column, which must be the first of a segment."""
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
    """The shape with another length along the axis."""
    return (*shape[:axis], length, *shape[axis + 1 :])


def _of_rows(array: Array, axis: int) -> Array:
    """What each row has one of, with length 1 along the axis, as (rows,)."""
    return np.ascontiguousarray(np.moveaxis(array, axis, -1).reshape(-1))


def unrows(rows: Array, shard: Shard) -> Array:
    """Rows x columns as an array of the logits' shape."""
    lead = tuple(shard.shape[i] for i in shard.order)
    return np.ascontiguousarray(np.moveaxis(rows.reshape(lead), -1, shard.order[-1]))


def per_row(values: npt.ArrayLike, shard: Shard, name: str, dtype: DType) -> Array:
    """What each row has one of, as (rows,)."""
    array = np.asarray(values)
    if array.shape != shard.lead:
        raise ValueError(f"{name} has shape {array.shape}; it must have that of logits without the axis, {shard.lead}")
    return np.ascontiguousarray(array.reshape(-1).astype(dtype, copy=False))
