"""The fast path: arrays that are rows x choices already, and nothing else out of the ordinary.

A small batch would spend most of its time on the questions that `npselect._call.layout` asks. The fast path takes the
calls to which the answers are known beforehand. For any other call it returns None, and `npselect._call.layout` takes
that: also a wrong one, of which it says what is wrong.
"""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np

from npselect._call import on_host
from npselect._call.arguments import outs
from npselect._call.memory import AnyArray, AnyFastMemory
from npselect._dtypes import Array, DType, computed_in, is_floating
from npselect._modes import in_usual_modes
from npselect._operators import Result, RowFunction
from npselect._stream import Stream, StreamNumbers
from npselect._tuning import TEMPS_KEPT
from npselect.tiers import choose

__all__ = ["fast_call"]

_INDEX, _PER_TEMP = Result.INDEX, Result.PER_TEMP
_INT64 = np.dtype(np.int64)
_NUMBERS = (float, np.float32, np.float64)


def fast_call(
    function: RowFunction,
    arrays: tuple[object, ...],
    temp: object,
    noise: object,
    axis: object,
    where: object,
    nan_policy: object,
    out: object,
    backend: str | None,
    on_gpu: bool,
) -> AnyArray | None:
    """The result or results of `arrays`, the last of which are the logits; None if anything is out of the ordinary.

    Which arrays it takes, `npselect._call.on_host` says and, on a GPU, `npselect._call.fast_on_gpu`. Of noise it takes
    a stream's numbers alone.
    """
    usual = where is None and type(axis) is int and axis == -1 and nan_policy == "propagate"
    if not usual or not (noise is None or type(noise) is Stream):
        return None
    forms = function.results
    form = forms[0]
    if form is _PER_TEMP or "noise" not in function.reads:
        return None
    memory: AnyFastMemory = on_host
    tier = choose(backend, on_gpu)
    if on_gpu:
        if backend not in (None, "cuda"):
            return None
        memory = _on_gpu()
    logits = memory.usable(arrays[-1])
    if logits is None or type(temp) not in _NUMBERS:
        return None
    temps = _temps(temp, logits.dtype)
    if temps is None:
        return None
    shape, dtype = logits.shape, logits.dtype
    read = [logits]
    for values in arrays[:-1]:
        array = memory.usable(values)
        if array is None or not memory.fits(array, shape, dtype, logits):
            return None
        read.insert(-1, array)
    rows = shape if len(shape) == 2 else (logits.size // shape[-1], shape[-1])
    numbers = None if noise is None else StreamNumbers.of(noise, rows, (0, 1), computed_in(dtype))
    filled_rows = rows
    if form is _INDEX:
        shape, dtype, filled_rows = shape[:-1], _INT64, rows[:1]
        if not shape:  # one number, which NumPy has another type for
            return None
    results: list[AnyArray] = []
    given = (out,) if len(forms) == 1 else outs(out, len(forms))
    for one in given:
        result = memory.new(shape, dtype, logits) if one is None else memory.usable(one)
        if one is not None and (
            result is None
            or not memory.fits(result, shape, dtype, logits)
            or not memory.are_apart(result, read)
            or not memory.are_apart(result, results)
        ):
            return None
        results.append(result)
    filled = results
    if len(logits.shape) != 2:
        read = [array.reshape(rows) for array in read]
        filled = [array.reshape(filled_rows) for array in results]
    fill = getattr(tier, function.name)
    if function.takes_temp:
        memory.run(fill, (*read, numbers, temps, None, *function.neutral, *filled))
    else:
        memory.run(fill, (*read, numbers, None, *filled))
    if len(forms) == 1:
        return results[0] if out is None else out
    return tuple(result if one is None else one for one, result in zip(given, results, strict=True))


@cache
def _on_gpu() -> AnyFastMemory:
    """For arrays on a GPU; the tier "cuda" must have been chosen."""
    from npselect._call import fast_on_gpu  # which loads numba-cuda

    return fast_on_gpu


@lru_cache(maxsize=TEMPS_KEPT)
@in_usual_modes
def _temps(temp: float, dtype: DType) -> Array | None:
    """A temperature as tiers take it; None if it is not positive and finite there, or there is none for the dtype."""
    if not is_floating(dtype):
        return None
    temps = np.full(1, temp, computed_in(dtype))
    return temps if 0 < temps[0] < np.inf else None
