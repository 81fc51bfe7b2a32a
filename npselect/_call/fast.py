"""The short way: arrays that are rows x choices already, and nothing else out of the ordinary.

Small batches would spend most of their time on the questions that `npselect._call.layout` asks. Here the calls to which
the answers are known beforehand are told from all others. Those get None, and go the long way; so do wrong ones, to be
told there what is wrong.
"""

from __future__ import annotations

from functools import cache, lru_cache
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from npselect._call import on_host as _host
from npselect._call.arguments import outs
from npselect._dtypes import computed_in, is_floating
from npselect._modes import in_usual_modes
from npselect._places import on_device
from npselect._stream import Draws, Stream
from npselect.tiers import choose

__all__ = ["plain"]

Array = npt.NDArray[Any]
_INT64 = np.dtype(np.int64)
_NUMBERS = (float, np.float32, np.float64)


def plain(
    function: str,
    arrays: tuple[Any, ...],
    temp: Any,
    axis: Any,
    where: Any,
    nan_policy: Any,
    out: Any,
    backend: Any,
    noise: Any = None,
) -> Any:
    """What a row function makes of `arrays`, the last of which are the logits; None if anything is not plain.

    What arrays are plain is for those to say who know their memory: `npselect._call.on_host` and, on a GPU,
    `npselect._call.fast_on_gpu`. Noise is, if it comes from a stream.
    """
    usual = where is None and type(axis) is int and axis == -1 and nan_policy == "propagate"
    if not usual or not (noise is None or isinstance(noise, Stream)):
        return None
    memory: Any = _host
    if type(arrays[-1]) is np.ndarray:
        tier = choose(backend)
    elif on_device(arrays[-1]):
        tier = choose(backend, True)
        if backend not in (None, "cuda"):
            return None
        memory = _on_gpu()
    else:
        return None
    logits = memory.plain(arrays[-1])
    temps = None if logits is None or type(temp) not in _NUMBERS else _temps(temp, logits.dtype)
    if temps is None:
        return None
    shape, dtype = logits.shape, logits.dtype
    read = [logits]
    for values in arrays[:-1]:
        array = memory.plain(values)
        if array is None or not memory.fits(array, shape, dtype, logits):
            return None
        read.insert(-1, array)
    rows = shape if len(shape) == 2 else (logits.size // shape[-1], shape[-1])
    draws = None if noise is None else Draws.of(noise, rows, (0, 1), computed_in(dtype))
    if function == "index":
        shape, dtype = shape[:-1], _INT64
        if not shape:  # one number, which NumPy has another type for
            return None
    results: list[Any] = []
    given = outs(out, 2) if function == "double_backward" else (out,)
    for one in given:
        result = memory.new(shape, dtype, logits) if one is None else memory.plain(one)
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
        filled = [array.reshape(rows[:1] if function == "index" else rows) for array in results]
    if function in ("mask", "index"):
        memory.run(getattr(tier, function), (*read, draws, None, *filled))
    else:
        memory.run(getattr(tier, function), (*read, draws, temps, None, *filled))
    if function == "double_backward":
        return tuple(result if one is None else one for one, result in zip(given, results, strict=True))
    return results[0] if out is None else out


@cache
def _on_gpu() -> Any:
    """What `npselect._call.on_host` is, for arrays on a GPU; the tier "cuda" must have been chosen."""
    return import_module("npselect._call.fast_on_gpu")


@lru_cache(maxsize=256)
@in_usual_modes
def _temps(temp: float, dtype: Any) -> Array | None:
    """A temperature as tiers take it; None if it is not positive and finite there, or there is none for the dtype."""
    if not is_floating(dtype):
        return None
    with np.errstate(over="ignore", under="ignore"):
        temps = np.full(1, temp, computed_in(dtype))
    return temps if 0 < temps[0] < np.inf else None
