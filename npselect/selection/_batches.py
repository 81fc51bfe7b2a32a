"""What a selection reads: arrays and their batch, which vector each row selects, and the dot products.

See `npselect.selection`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from npselect._call import on_host
from npselect._call.arguments import computed_in, promoted, temperatures
from npselect._call.layout import tier_and_memory
from npselect._call.memory import AnyArray, AnyMemory
from npselect._dtypes import Array, Shape
from npselect._places import names_on_gpu
from npselect.selection._operator import options_for
from npselect.tiers.cpu.gather import Selected

__all__ = ["batch_of", "cotangent_of_mask", "read", "selected_by", "shape_of_chosen", "temperatures_of"]


def read(
    arrays: Mapping[str, object], beside: Mapping[str, object], backend: str | None
) -> tuple[AnyMemory, dict[str, AnyArray]]:
    """Where arrays are, all of which must be on one side, and what they are there."""
    memory: AnyMemory = on_host
    if on_gpu := names_on_gpu({**arrays, **beside}):
        _, memory = tier_and_memory(backend, arrays, beside, on_gpu)
    return memory, {name: memory.floating(values, name) for name, values in arrays.items()}


def temperatures_of(memory: AnyMemory, temp: object, arrays: dict[str, AnyArray]) -> Array:
    """The temperatures in the type that what the arrays have in common is computed in."""
    logits = arrays["logits"]
    return temperatures(memory.to_host(temp), promoted(arrays), logits.shape, logits.ndim - 1)


def selected_by(
    memory: AnyMemory,
    arrays: dict[str, AnyArray],
    where: npt.ArrayLike | None,
    operator: Any,
    options: dict[str, Any],
    batch: Shape,
    reduce: bool,
) -> Selected:
    """Which vector each row selects, as the operator's index says."""
    x_shape, logits = arrays["x"].shape, arrays["logits"]
    given = options_for(operator, "index", options)
    index = np.asarray(memory.to_host(operator.index(logits, where=where, **given)))
    if index.shape != logits.shape[:-1] or index.dtype.kind not in "iu" or np.any(index >= logits.shape[-1]):
        expected = f"integers below {logits.shape[-1]}, of shape {logits.shape[:-1]}"
        raise ValueError(f"operator.index returned {index.dtype} of shape {index.shape}; expected {expected}")
    spoilt = index < 0
    if where is not None and np.any(spoilt):
        spoilt = spoilt & np.any(np.broadcast_to(memory.to_host(where), logits.shape), axis=-1)
    *x_batch, choices, _ = x_shape
    items = np.broadcast_to(np.arange(math.prod(x_batch)).reshape(x_batch), batch)
    index, spoilt = np.broadcast_to(index, batch), np.broadcast_to(spoilt, batch)
    selects = index >= 0
    m, rows = index[selects], np.flatnonzero(selects)
    return Selected(items[selects] * choices + m, rows if reduce else rows * choices + m, items, spoilt)


def cotangent_of_mask(memory: AnyMemory, arrays: dict[str, AnyArray], reduce: bool, backend: str | None) -> AnyArray:
    """``g_j = <grad_chosen, x_j>`` of every candidate, in the shape of the logits."""
    x, logits, grad = arrays["x"], arrays["logits"], arrays["grad_chosen"]
    compute = np.dtype(np.float64 if backend == "reference" else computed_in(promoted(arrays)))
    dot = partial(memory.vectors.batched_dot, compute=compute)
    if reduce:
        return _dots(dot, grad, x, logits.shape)
    apart = x.reshape((*x.shape[:-1], 1, x.shape[-1]))
    return _dots(dot, grad, apart, (*logits.shape, 1)).reshape(logits.shape)


def _dots(dot: Callable[..., AnyArray], grad: AnyArray, x: AnyArray, logits_shape: Shape) -> AnyArray:
    """``g_j = <grad_chosen, x_j>``, summed over the batch axes that the logits lack.

    One matrix product for each item that neither `x` nor the logits lack: what shares an `x` are the rows of it, and
    what shares a row of the logits lengthens the vectors.
    """
    *batch, features = grad.shape
    axes, choices = len(batch), logits_shape[-1]
    x = x.reshape((1,) * (axes + 2 - x.ndim) + x.shape)
    logits_batch = (1,) * (axes + 1 - len(logits_shape)) + logits_shape[:-1]
    sharing_x = [i for i in range(axes) if x.shape[i] != batch[i]]
    sharing_logits = [i for i in range(axes) if logits_batch[i] != batch[i]]
    each = [i for i in range(axes) if x.shape[i] == logits_batch[i] == batch[i]]
    order = [*each, *sharing_x, *sharing_logits]
    items, rows, length = (math.prod(batch[i] for i in part) for part in (each, sharing_x, sharing_logits))
    left = grad.transpose((*order, axes)).reshape((items, rows, length * features))
    right = x.transpose((*each, *sharing_x, axes, *sharing_logits, axes + 1))
    g = dot(left, right.reshape((items, choices, length * features)))
    g = g.reshape((*(logits_batch[i] for i in order), choices))
    return g.transpose((*(int(i) for i in np.argsort(order)), axes)).reshape(logits_shape)


def batch_of(x: Shape, logits: Shape) -> Shape:
    """The shape of the batch, given the shapes of `x` and the logits."""
    shapes = f"x has shape {x} and logits has shape {logits}"
    if len(x) < 2 or len(logits) < 1 or x[-2] != logits[-1]:
        raise ValueError(f"{shapes}; x takes (..., K, D) and logits (..., K), with the same K")
    try:
        return np.broadcast_shapes(x[:-2], logits[:-1])
    except ValueError:
        raise ValueError(f"{shapes}; {x[:-2]} and {logits[:-1]}, what is before K, must broadcast") from None


def shape_of_chosen(batch: Shape, x: Shape, reduce: bool) -> Shape:
    """What `forward` returns, given the shapes of the batch and of `x`."""
    return (*batch, x[-1]) if reduce else (*batch, *x[-2:])
