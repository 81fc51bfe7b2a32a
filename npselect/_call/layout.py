"""The one way in and out: arrays of any shape and layout -> rows x choices -> a tier -> arrays again.

`arrange` takes what a caller gave, has it checked (`npselect._call.arguments`), and lays it out as the tiers want it
(see `npselect.tiers`); the functions of `Rows` let the tier fill a result and bring that into the caller's shape.
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

from npselect._call import on_host as _host
from npselect._call.arguments import (
    broadcastable,
    check_nan_policy,
    computed_in,
    fitting,
    outs,
    promoted,
    temperatures,
    whole,
)
from npselect._modes import in_usual_modes
from npselect._places import on_device
from npselect._stream import Draws, Stream
from npselect.tiers import choose

__all__ = ["Rows", "arrange", "deliver", "place"]

Array = npt.NDArray[Any]


@dataclass(slots=True, eq=False)
class Rows:
    """One call's arrays as rows x choices, and what leads back; its functions are the operators' results."""

    tier: Any  # the module of row functions
    memory: Any  # where the arrays are: `npselect._call.on_host`, or the same functions for a GPU
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
        of_no_rows = partial(self.memory.fill_with, 0)
        fill = partial(self.tier.backward_temp, *arguments) if self.logits.size else of_no_rows
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
        read = [array for array in inputs if array is not None and not isinstance(array, Draws)]
        return deliver(self.memory, fill, outs(out, count), shape, order, rows_shape, dtype, read)


@in_usual_modes
def deliver(
    memory: Any,
    fill: Callable[..., None],
    outs: Sequence[Any],
    shape: tuple[int, ...],
    order: Sequence[int],
    rows_shape: tuple[int, ...],
    dtype: Any,
    read: Sequence[Any] = (),
) -> list[Any]:
    """One result for each of `outs`, those themselves or, for None, new arrays of some shape and dtype.

    `fill` takes as many arrays of that dtype and of shape `rows_shape`, which is that of the transposed result's rows;
    what it has yet to read must not be overwritten.
    """
    views = [None if out is None else fitting(memory.writable(out), shape, dtype) for out in outs]
    if len(views) > 1 and views[0] is not None and views[1] is not None and memory.shares(*views):
        raise ValueError("the two arrays of out share memory; each result needs its own")
    straight = all(i == axis for i, axis in enumerate(order))
    results, arranged, moves = [], [], []
    for out in views:
        result = memory.empty(shape, dtype) if out is None else out
        usable = out is None or (
            out.dtype == dtype and memory.is_plain(out) and not any(memory.may_share(out, array) for array in read)
        )
        rows = result.reshape(rows_shape) if straight and usable else memory.empty(rows_shape, dtype)
        if not (straight and usable):
            moves.append((result, rows))
        results.append(result)
        arranged.append(rows)
    if 0 not in shape:
        try:
            memory.run(fill, arranged)
            for result, rows in moves:
                memory.copy_into(result.transpose(order), rows)
        finally:
            memory.finish()
    return [memory.result(result) if out is None else out for result, out in zip(results, outs, strict=True)]


def place(backend: str | None, arrays: Mapping[str, Any], beside: Mapping[str, Any]) -> tuple[Any, Any]:
    """The tier that was named or that the arrays call for, and where they are: all of `arrays` must be there.

    What is `beside` them is small, and may be on the host where they are on a GPU.
    """
    on_gpu = any(map(on_device, (*arrays.values(), *beside.values())))
    tier = choose(backend, on_gpu)
    if not on_gpu or backend in ("reference", "cpu"):
        return tier, _host
    from npselect._call.on_gpu import OnDevice  # which loads numba-cuda

    return tier, OnDevice.of(arrays, beside)


@in_usual_modes
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
    data: dict[str, Any] = {"logits": logits, **cotangents}
    tier, memory = place(backend, data, {"noise": given, "where": where, "temp": temp})
    arrays = {name: memory.floating(values, name) for name, values in data.items()}
    given_logits = arrays["logits"]
    shape = given_logits.shape
    for name, array in arrays.items():
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape} and logits has shape {shape}; the two must be equal")
    own = given_logits.dtype.newbyteorder("=")
    dtype = promoted(arrays) if cotangents else own
    axis = normalize_axis_index(whole(axis, "axis"), len(shape))
    if shape[axis] == 0:
        raise ValueError(f"logits has shape {shape}: no candidates along axis {axis}; there must be at least one")
    temps = temperatures(memory.to_host(temp), dtype, shape, axis)
    offers = None if where is None else broadcastable(memory.bools(where, "where"), "where", shape)
    noises = None
    if given is not None:
        noises = memory.floating(given, "noise").astype(computed_in(own), copy=False)
        noises = broadcastable(noises, "noise", shape)
    check_nan_policy(nan_policy, given_logits, noises, offers, to_host=memory.to_host)

    order = [i for i in range(len(shape)) if i != axis]
    if by_temp and temps.size > 1:
        order.sort(key=lambda i: bool(temps.shape[i] == 1))
    order.append(axis)
    added: Any = None
    if stream is not None:
        added = Draws.of(stream, shape, tuple(order), computed_in(own))
    elif noises is not None:
        added = _rows_or_one(memory, noises, shape, order, shape[axis])
    return Rows(
        tier,
        memory,
        memory.as_rows(given_logits.transpose(order), dtype if noise is None else own),
        added,
        [memory.as_rows(arrays[name].transpose(order), dtype) for name in cotangents],
        _rows_or_one(_host, temps, shape, order, 1)[:, 0],
        None if offers is None else _rows_or_one(memory, offers, shape, order, shape[axis]),
        shape,
        tuple(order),
        dtype,
    )


def _rows_or_one(memory: Any, array: Any, shape: tuple[int, ...], order: Sequence[int], choices: int) -> Any:
    """An array that broadcasts to `shape`, `choices` along the last of `order`, as (rows, choices) or (1, choices)."""
    if array.size == 1:
        return memory.full((1, choices), array)
    moved = array.transpose(order)
    shared = all(n == 1 for n in moved.shape[:-1])
    lead = (1,) * (len(order) - 1) if shared else tuple(shape[i] for i in order[:-1])
    return memory.as_rows(memory.broadcast_to(moved, (*lead, choices)), array.dtype)
