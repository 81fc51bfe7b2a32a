"""Vectors of D numbers on the host: gathered, scattered and multiplied, for `npselect.selection`.

`npselect.tiers.cuda.gather` has the same functions, under the same names, for arrays on a GPU.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from npselect._dtypes import Array, DType, Shape

__all__ = ["Selected", "batched_dot", "gather", "rounded", "scatter_add"]


class Selected(NamedTuple):
    """The positions of the selected vectors in `x` and in what is chosen, both seen as lists of vectors."""

    x: Array  # (selected,), in the order of the batch
    chosen: Array  # (selected,)
    items: Array  # (*batch,): which item of x's own batch each row of the batch reads
    spoilt: Array  # (*batch,): bool, whether its mask is NaN


def gather(x: Array, selected: Selected, shape: Shape) -> Array:
    """What is chosen of `x`; 0 elsewhere, NaN in spoilt rows."""
    chosen = np.zeros(shape, x.dtype.newbyteorder("="))
    _vectors(chosen)[selected.chosen] = x[np.unravel_index(selected.x, x.shape[:-1])]
    chosen[selected.spoilt] = np.nan
    return chosen


def scatter_add(grad: Array, x: Array, selected: Selected, dtype: DType) -> Array:
    """``grad_chosen`` at ``m``, summed over the rows that share an item of `x`."""
    grad_x = np.zeros(x.shape, dtype)
    vectors, cotangents = _vectors(grad_x), _vectors(grad)[selected.chosen]
    *x_batch, choices, features = x.shape
    if selected.items.size == math.prod(x_batch):
        vectors[selected.x] = cotangents
    else:
        taken, which = np.unique(selected.x, return_inverse=True)
        for d in range(features):  # bincount adds one after another, in float64
            sums = np.bincount(which, cotangents[:, d].astype(np.float64), len(taken))
            vectors[taken, d] = rounded(sums, grad_x.dtype)
    spoilt = np.unique(selected.items[selected.spoilt])
    grad_x.reshape(math.prod(x_batch), choices, features)[spoilt] = np.nan
    return grad_x


def batched_dot(left: Array, right: Array, compute: DType) -> Array:
    """Of items (R, L) and (K, L), the dot products: (R, K)."""
    return np.asarray(np.ascontiguousarray(left, compute) @ np.ascontiguousarray(right, compute).mT)


def rounded(values: Array, dtype: DType) -> Array:
    """In the dtype, rounded once: float64 becomes 16 bits by way of float32, where it is rounded to odd."""
    if values.dtype != np.float64 or dtype.itemsize > 2:
        return values.astype(dtype, copy=False)
    near = values.astype(np.float32)
    toward_zero = np.where(np.abs(near) > np.abs(values), np.nextafter(near, np.float32(0)), near)
    odd = (toward_zero.view(np.uint32) | 1).view(np.float32)
    return np.where((near == values) | ~np.isfinite(near), near, odd).astype(dtype)


def _vectors(array: Array) -> Array:
    """Any number of axes before the last as one; a view wherever that can be had."""
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])
