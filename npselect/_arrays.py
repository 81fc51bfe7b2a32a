"""The one way in and out: arrays of any shape and layout -> rows x choices -> a tier -> arrays again.

`arrange` takes what a caller gave, has it checked (`npselect._arguments`), and lays it out as the tiers want it (see
`npselect.backends`); the functions of `Rows` let the tier fill a result and bring that into the caller's shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.array_utils import normalize_axis_index

from npselect._arguments import (
    check_nan_policy,
    computed_in,
    floating,
    noise_array,
    offered,
    outs,
    promoted,
    temperatures,
    whole,
)
from npselect._draws import Draws, Stream
from npselect.backends import choose

__all__ = ["Rows", "arrange"]

Array = npt.NDArray[Any]


@dataclass(slots=True, eq=False)
class Rows:
    """One call's arrays as rows x choices, and what leads back; its functions are the operators' results."""

    tier: Any  # the module of row functions
    logits: Array  # (rows, K), C-contiguous
    noise: Array | Draws | None  # (rows, K) or (1, K), in the type that it is added in; or how to draw that
    cotangents: list[Array]  # (rows, K), C-contiguous, in the results' dtype
    temp: Array  # (rows,) or (1,)
    where: Array | None  # (rows, K) or (1, K)
    shape: tuple[int, ...]  # of the logits as given
    order: tuple[int, ...]  # of the logits' axes: those of the rows, then that of the choices
    dtype: np.dtype[Any]  # of the results

    def mask(self, out: Any) -> Array:
        (mask,) = self._like_logits(partial(self.tier.mask, self.logits, self.noise, self.where), out, 1)
        return mask

    def soft(self, out: Any) -> Array:
        (probs,) = self._like_logits(partial(self.tier.soft, self.logits, self.noise, self.temp, self.where), out, 1)
        return probs

    def index(self, out: Any) -> Array:
        fill = partial(self.tier.index, self.logits, self.noise, self.where)
        shape = tuple(self.shape[axis] for axis in self.order[:-1])
        (index,) = self._deliver(fill, out, 1, shape, range(len(shape)), self.logits.shape[:1], np.dtype(np.int64))
        return index

    def backward(self, out: Any) -> Array:
        arguments = *self.cotangents, self.logits, self.noise, self.temp, self.where
        (grad_logits,) = self._like_logits(partial(self.tier.backward, *arguments), out, 1)
        return grad_logits

    def backward_temp(self, out: Any, shape: tuple[int, ...]) -> Array:
        """One number a temperature, in their shape; `arrange` was told `by_temp`."""
        arguments = *self.cotangents, self.logits, self.noise, self.temp, self.where
        fill = partial(self.tier.backward_temp, *arguments) if self.logits.size else _zeros  # the sum over no rows
        (grad_temp,) = self._deliver(fill, out, 1, shape, range(len(shape)), (math.prod(shape),), self.dtype)
        return grad_temp

    def double_backward(self, out: Any) -> tuple[Array, Array]:
        arguments = *self.cotangents, self.logits, self.noise, self.temp, self.where
        grad_grad_mask, grad_logits = self._like_logits(partial(self.tier.double_backward, *arguments), out, 2)
        return grad_grad_mask, grad_logits

    def _like_logits(self, fill: Callable[..., None], out: Any, count: int) -> list[Array]:
        return self._deliver(fill, out, count, self.shape, self.order, self.logits.shape, self.dtype)

    def _deliver(
        self,
        fill: Callable[..., None],
        out: Any,
        count: int,
        shape: tuple[int, ...],
        order: Sequence[int],
        rows_shape: tuple[int, ...],
        dtype: np.dtype[Any],
    ) -> list[Array]:
        inputs = [self.logits, self.noise, *self.cotangents, self.temp, self.where]
        read = [array for array in inputs if isinstance(array, np.ndarray)]
        return deliver(fill, outs(out, count, shape, dtype), shape, order, rows_shape, dtype, read)


def deliver(
    fill: Callable[..., None],
    outs: Sequence[Array | None],
    shape: tuple[int, ...],
    order: Sequence[int],
    rows_shape: tuple[int, ...],
    dtype: np.dtype[Any],
    read: Sequence[Array] = (),
) -> list[Array]:
    """One result for each of `outs`, those themselves or, for None, new arrays of some shape and dtype.

    `fill` takes as many arrays of that dtype and of shape `rows_shape`, which is that of the transposed result's rows;
    what it has yet to read must not be overwritten.
    """
    results = [np.empty(shape, dtype) if out is None else np.asarray(out) for out in outs]  # of no subclass
    straight = all(i == axis for i, axis in enumerate(order))
    arranged = [
        result.reshape(rows_shape)
        if straight
        and result.dtype == dtype
        and _is_plain(result)
        and (out is None or not any(np.may_share_memory(out, array) for array in read))
        else np.empty(rows_shape, dtype)
        for result, out in zip(results, outs, strict=True)
    ]
    if 0 not in shape:
        fill(*arranged)
    for result, rows in zip(results, arranged, strict=True):
        if not np.may_share_memory(result, rows):
            moved = result.transpose(order)
            with np.errstate(over="ignore"):
                np.copyto(moved, rows.reshape(moved.shape), casting="same_kind")
    return [result[()] if out is None else out for result, out in zip(results, outs, strict=True)]


def arrange(
    backend: str | None,
    logits: npt.ArrayLike,
    cotangents: Mapping[str, npt.ArrayLike] = MappingProxyType({}),
    *,
    noise: Stream | npt.ArrayLike | None = None,
    temp: npt.ArrayLike = 1.0,
    axis: int = -1,
    where: npt.ArrayLike | None = None,
    nan_policy: str = "propagate",
    by_temp: bool = False,
) -> Rows:
    """Check what was given and lay it out as rows x choices.

    `cotangents` are what the tier takes before the logits, in its order, by the names that the caller knows. With
    `by_temp`, rows that share a temperature become neighbours, in the order of the temperatures. Logits that noise is
    added to keep their own dtype, and so does the sum: the choice must not depend on what dtype a cotangent has.
    """
    stream = noise if isinstance(noise, Stream) else None
    given = None if stream is not None else noise
    tier = choose(backend, logits, *cotangents.values(), *([] if given is None else [given]))
    arrays = {name: floating(values, name) for name, values in {"logits": logits, **cotangents}.items()}
    logits = arrays["logits"]
    shape = logits.shape
    for name, array in arrays.items():
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape} and logits has shape {shape}; the two must be equal")
    own = logits.dtype.newbyteorder("=")
    dtype = promoted(arrays) if cotangents else own
    axis = normalize_axis_index(whole(axis, "axis"), len(shape))
    if shape[axis] == 0:
        raise ValueError(f"logits has shape {shape}: no candidates along axis {axis}; there must be at least one")
    temps = temperatures(temp, dtype, shape, axis)
    offers = None if where is None else offered(where, shape)
    noises = None if given is None else noise_array(given, computed_in(own), shape)
    check_nan_policy(nan_policy, logits, noises, offers)

    order = [i for i in range(len(shape)) if i != axis]
    if by_temp and temps.size > 1:
        order.sort(key=lambda i: bool(temps.shape[i] == 1))
    order.append(axis)
    added: Array | Draws | None = None
    if stream is not None:
        added = Draws.of(stream, shape, tuple(order), computed_in(own))
    elif noises is not None:
        added = _rows_or_one(noises, shape, order, shape[axis])
    return Rows(
        tier,
        _as_rows(logits, order, dtype if noise is None else own),
        added,
        [_as_rows(arrays[name], order, dtype) for name in cotangents],
        _rows_or_one(temps, shape, order, 1)[:, 0],
        None if offers is None else _rows_or_one(offers, shape, order, shape[axis]),
        shape,
        tuple(order),
        dtype,
    )


# ------------------------------------------------------------------------------------------------ rows x choices


def _is_plain(array: Array) -> bool:
    return array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative


def _as_rows(array: Array, order: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """Shape (rows, K), C-contiguous; a view wherever that can be had."""
    moved = array.transpose(order)
    rows = moved.reshape(math.prod(moved.shape[:-1]), moved.shape[-1])
    return rows if rows.dtype == dtype and _is_plain(rows) else np.require(rows, dtype, ["C", "A"])


def _rows_or_one(array: Array, shape: tuple[int, ...], order: Sequence[int], choices: int) -> Array:
    """An array that broadcasts to `shape`, `choices` along the last of `order`, as (rows, choices) or (1, choices)."""
    if array.size == 1:
        return np.full((1, choices), array.reshape(()), array.dtype)
    moved = array.transpose(order)
    shared = all(n == 1 for n in moved.shape[:-1])
    lead = (1,) * (len(order) - 1) if shared else tuple(shape[i] for i in order[:-1])
    return _as_rows(np.broadcast_to(moved, (*lead, choices)), range(len(order)), array.dtype)


def _zeros(*outs: Array) -> None:
    for out in outs:
        out[...] = 0
