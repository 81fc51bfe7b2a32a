"""The way in and out of every operator: checked operands, a tier's row function, results as the caller wants them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from npselect._call.fast import fast_call
from npselect._call.layout import lay_out
from npselect._call.memory import AnyArray
from npselect._dtypes import Array
from npselect._operators import RowFunction
from npselect._places import on_device

__all__ = ["call", "call_for_two"]


def call(
    function: RowFunction,
    arrays: tuple[object, ...],
    temp: npt.ArrayLike,
    noise: object,
    axis: int,
    where: object,
    nan_policy: str,
    out: object,
    backend: str | None,
) -> Array:
    """The one result of a row function; `arrays` are its cotangents and the logits.

    `noise` is None, an array or a `Stream`.
    """
    result: Array = _results(function, arrays, temp, noise, axis, where, nan_policy, out, backend)[0]
    return result


def call_for_two(
    function: RowFunction,
    arrays: tuple[object, ...],
    temp: npt.ArrayLike,
    noise: object,
    axis: int,
    where: object,
    nan_policy: str,
    out: object,
    backend: str | None,
) -> tuple[Array, Array]:
    """The two results of a row function that has two."""
    first, second = _results(function, arrays, temp, noise, axis, where, nan_policy, out, backend)
    return first, second


def _results(
    function: RowFunction,
    arrays: tuple[object, ...],
    temp: npt.ArrayLike,
    noise: object,
    axis: int,
    where: object,
    nan_policy: str,
    out: object,
    backend: str | None,
) -> Sequence[AnyArray]:
    logits = arrays[-1]
    on_gpu = type(logits) is not np.ndarray and on_device(logits)
    results = fast_call(function, arrays, temp, noise, axis, where, nan_policy, out, backend, on_gpu)
    if results is None:
        batch = lay_out(function, arrays, temp, noise, axis, where, nan_policy, backend, on_gpu)
        results = batch.results(function, out)
    return results
