"""Arrays of any shape and layout -> rows x choices -> a tier -> arrays again.

`lay_out` takes what a caller gave, has it checked (`npselect._call.arguments`), and lays it out as the tiers want it
(see `npselect.tiers`); `Batch.fill` lets the tier fill the results and brings those into the caller's shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.array_utils import normalize_axis_index

from npselect._call import on_host
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
from npselect._call.choice import EMPTY, GivenIndex, Sample, choose_rows, fit_index, log_mixture
from npselect._call.draws import fit_draws, spoil
from npselect._call.memory import AnyArray, AnyMemory, Fill
from npselect._dtypes import Array, DType, Shape
from npselect._modes import in_usual_modes
from npselect._operators import INDEX, Result, RowFunction
from npselect._places import names_on_gpu
from npselect._stream import SampleNumbers, ScaledNoise, Stream, StreamNumbers, unscaled
from npselect.tiers import RowFunctions, choose

__all__ = ["Batch", "Form", "fill_results", "lay_out", "tier_and_memory"]


class Form(NamedTuple):
    """A result as its caller sees it and as a tier fills it."""

    shape: Shape
    order: Sequence[int]  # of its axes, which leads to that of the rows
    rows: Shape  # of what the tier fills
    dtype: DType


@dataclass(slots=True, eq=False)
class Batch:
    """One call's arrays as rows x choices, and what leads back."""

    tier: RowFunctions
    memory: AnyMemory
    cotangents: list[AnyArray]  # (rows, K), C-contiguous, in the results' dtype
    logits: AnyArray  # (rows, K), C-contiguous
    noise: AnyArray | StreamNumbers | ScaledNoise | None  # (rows, K) or (1, K), in the type that it is added in
    temp: Array  # (rows,) or (1,)
    where: AnyArray | None  # (rows, K) or (1, K)
    choice: AnyArray | None  # int64, (rows,): what was drawn, where the function or the caller says so
    draws: AnyArray | SampleNumbers | None  # (samples, rows, K): noise of samples given the choice
    scale: float  # what the gradient is multiplied by
    unimix: float  # of `Sample`, as the gap is
    gap: float
    shape: Shape  # of the logits as given
    order: Shape  # of the logits' axes: those of the rows, then that of the choices
    dtype: DType  # of the results
    temp_shape: Shape  # of the temperatures as given

    def form(self, result: Result) -> Form:
        """What a result is like."""
        if result is Result.INDEX:
            shape = tuple(self.shape[axis] for axis in self.order[:-1])
            return Form(shape, range(len(shape)), self.logits.shape[:1], np.dtype(np.int64))
        if result is Result.PER_TEMP:
            shape = self.temp_shape
            return Form(shape, range(len(shape)), (math.prod(shape),), self.dtype)
        return Form(self.shape, self.order, self.logits.shape, self.dtype)

    def fill(self, function: RowFunction, out: object) -> AnyArray:
        """The result of the function, or a tuple of its results; sums over no rows are 0."""
        operands = [*self.cotangents, *(getattr(self, name) for name in function.reads)]
        fill: Fill = partial(getattr(self.tier, function.name), *operands)
        if not self.logits.size:
            fill = partial(self.memory.fill_with, 0)
        elif function is INDEX and self.choice is not None:  # an index that was given, and is right
            fill = partial(self.memory.fill_with, np.maximum(self.memory.to_host(self.choice), EMPTY))
        read = [
            array
            for array in (unscaled(operand)[0] for operand in operands)
            if not (array is None or isinstance(array, float | StreamNumbers | SampleNumbers))
        ]
        forms = [self.form(result) for result in function.results]
        results = fill_results(self.memory, fill, outs(out, len(forms)), forms, read)
        return results[0] if len(results) == 1 else tuple(results)


@in_usual_modes
def fill_results(
    memory: AnyMemory, fill: Fill, outs: Sequence[object], forms: Sequence[Form], read: Sequence[AnyArray] = ()
) -> list[AnyArray]:
    """One result for each of `outs`: those themselves or, for None, new arrays.

    `fill` must not overwrite what it has yet to read: where an array of `out` may share memory with `read`, or is not
    laid out as the tiers take it, a new array is filled, and then copied.
    """
    views = [
        None if out is None else fitting(memory.writable(out), form.shape, form.dtype)
        for out, form in zip(outs, forms, strict=True)
    ]
    if len(views) > 1 and views[0] is not None and views[1] is not None and memory.shares(views[0], views[1]):
        raise ValueError("the two arrays of out share memory; each result needs its own")
    results, filled, copies = [], [], []
    for view, form in zip(views, forms, strict=True):
        result = memory.empty(form.shape, form.dtype) if view is None else view
        direct = all(i == axis for i, axis in enumerate(form.order)) and (
            view is None
            or (
                view.dtype == form.dtype
                and memory.is_contiguous(view)
                and not any(memory.may_share(view, array) for array in read)
            )
        )
        rows = result.reshape(form.rows) if direct else memory.empty(form.rows, form.dtype)
        if not direct:
            copies.append((result.transpose(form.order), rows))
        results.append(result)
        filled.append(rows)
    if all(0 not in form.shape for form in forms):
        try:
            memory.run(fill, filled)
            for moved, rows in copies:
                memory.copy_into(moved, rows)
        finally:
            memory.finish()
    return [memory.result(result) if out is None else out for result, out in zip(results, outs, strict=True)]


def tier_and_memory(
    backend: str | None, arrays: Mapping[str, object], beside: Mapping[str, object], on_gpu: list[str]
) -> tuple[RowFunctions, AnyMemory]:
    """The tier that was named, or that is for where the arrays are; and their memory.

    All of `arrays` must be on the same side. What is `beside` them may be on the host where they are on a GPU. `on_gpu`
    names those of either that are on a GPU.
    """
    tier = choose(backend, bool(on_gpu))
    if not on_gpu:
        return tier, on_host
    if backend in ("reference", "cpu"):
        raise TypeError(f"{on_gpu[0]} lives on a GPU; copy it to the host, or leave the choice of backend to the data")
    from npselect._call.on_gpu import OnGpu  # which loads numba-cuda

    return tier, OnGpu.of(arrays, beside, on_gpu)


@in_usual_modes
def lay_out(
    function: RowFunction,
    arrays: tuple[object, ...],
    temp: npt.ArrayLike,
    noise: object,
    axis: int,
    where: object,
    nan_policy: str,
    backend: str | None,
    logits_on_gpu: bool,
) -> Batch:
    """Check what was given and lay it out as rows x choices.

    If the function sums over the rows that share a temperature, those rows become neighbours, in the order of the
    temperatures. Where noise is added, the logits keep their own dtype, and the sum has its compute type: the choice
    must not depend on the dtype of a cotangent.
    """
    sample = noise if isinstance(noise, Sample) else Sample(noise)
    noise = sample.drawn
    stream = noise if isinstance(noise, Stream) else None
    index = noise.values if isinstance(noise, GivenIndex) else None
    noise = None if stream is not None or index is not None else noise
    data = {"logits": arrays[-1], **dict(zip(function.cotangents, arrays[:-1], strict=True))}
    beside = {"noise": noise, "where": where, "temp": temp, "index": index}
    others = {name: values for name, values in {**data, **beside}.items() if name != "logits"}
    on_gpu = ["logits"] * logits_on_gpu + names_on_gpu(others)
    tier, memory = tier_and_memory(backend, data, beside, on_gpu)
    read = {name: memory.floating(values, name) for name, values in data.items()}
    logits = read["logits"]
    shape: Shape = logits.shape
    for name, array in read.items():
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape} and logits has shape {shape}; the two must be equal")
    own = logits.dtype.newbyteorder("=")
    dtype = promoted(read) if function.cotangents else own
    axis = normalize_axis_index(whole(axis, "axis"), len(shape))
    if shape[axis] == 0:
        raise ValueError(f"logits has shape {shape}: no candidates along axis {axis}; there must be at least one")
    temps = temperatures(memory.to_host(temp), dtype, shape, axis, sample.forward_temp)
    offers = None if where is None else broadcastable(memory.bools(where, "where"), "where", shape)
    noises = None
    if noise is not None:
        noises = memory.floating(noise, "noise").astype(computed_in(own), copy=False)
        noises = broadcastable(noises, "noise", shape)
    indices = None if index is None else fit_index(memory, index, shape, axis)
    check_nan_policy(nan_policy, logits, noises, offers, to_host=memory.to_host)

    lead = [i for i in range(len(shape)) if i != axis]
    if function.per_temp and temps.size > 1:
        lead.sort(key=lambda i: bool(temps.shape[i] == 1))
    order = (*lead, axis)
    added: AnyArray | StreamNumbers | ScaledNoise | None = None
    if stream is not None:
        added = StreamNumbers.of(stream, shape, order, computed_in(own))
    elif noises is not None:
        added = _rows_or_one(memory, noises, shape, order, shape[axis])
    if added is not None and sample.forward_temp != 1 and not sample.unimix:
        added = ScaledNoise(added, sample.forward_temp)
    weighed = added if sample.is_weighed and not function.takes_choice else None
    row_dtype = dtype if weighed is None else own
    rows = memory.as_rows(logits.transpose(order), row_dtype)
    rows_where = None if offers is None else _rows_or_one(memory, offers, shape, order, shape[axis])
    draws = fit_draws(memory, sample, shape, order, computed_in(own))
    choice = None
    if function.takes_choice or indices is not None or (function is INDEX and sample.unimix):
        choose_from = rows if own == row_dtype else memory.as_rows(logits.transpose(order), own)
        if sample.unimix and indices is None:
            mixed = sample.forward_temp, sample.unimix, rows_where, computed_in(own)
            choose_from = log_mixture(tier, memory, choose_from, *mixed)
        lead_shape = tuple(shape[i] for i in lead)
        choice = choose_rows(tier, memory, choose_from, added, indices, rows_where, lead_shape)
        if draws is not None and not isinstance(draws, SampleNumbers):
            spoil(choice, draws, choose_from, rows_where, nan_policy)
    return Batch(
        tier,
        memory,
        [memory.as_rows(read[name].transpose(order), dtype) for name in function.cotangents],
        rows,
        weighed,
        _rows_or_one(on_host, temps, shape, order, 1)[:, 0],
        rows_where,
        choice,
        draws,
        (1.0 - sample.unimix) * (sample.forward_temp if function.per_temp else 1.0),
        sample.unimix,
        sample.gap,
        shape,
        order,
        dtype,
        np.shape(temp),
    )


def _rows_or_one(memory: AnyMemory, array: AnyArray, shape: Shape, order: Shape, choices: int) -> AnyArray:
    """An array that broadcasts to `shape`, `choices` along the last of `order`, as (rows, choices) or (1, choices)."""
    if array.size == 1:
        return memory.full((1, choices), array)
    moved = array.transpose(order)
    shared = all(n == 1 for n in moved.shape[:-1])
    lead = (1,) * (len(order) - 1) if shared else tuple(shape[i] for i in order[:-1])
    return memory.as_rows(memory.broadcast_to(moved, (*lead, choices)), array.dtype)
