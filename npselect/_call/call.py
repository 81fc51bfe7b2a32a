"""The way in and out of every operator: checked operands, a tier's row function, results as the caller wants them."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import numpy.typing as npt

from npselect._call.choice import GivenIndex, Sample
from npselect._call.fast import fast_call
from npselect._call.layout import lay_out
from npselect._dtypes import Array
from npselect._operators import MASK, MASK_AT, RowFunction
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
    """What a row function makes of `arrays`, its cotangents and the logits.

    `noise` is None, an array, a `Stream` or a `GivenIndex`, or a `Sample` of one of them.
    """
    if function is MASK_AT and not _is_chosen_before(noise):
        function = MASK
    logits = arrays[-1]
    on_gpu = type(logits) is not np.ndarray and on_device(logits)
    result: Array | None = fast_call(function, arrays, temp, noise, axis, where, nan_policy, out, backend, on_gpu)
    if result is None:
        batch = lay_out(function, arrays, temp, noise, axis, where, nan_policy, backend, on_gpu)
        result = batch.fill(function, out)
    return result


def _is_chosen_before(noise: object) -> bool:
    """Whether the largest of logits and noise is not what is selected."""
    if isinstance(noise, Sample):
        return bool(noise.unimix) or isinstance(noise.drawn, GivenIndex)
    return isinstance(noise, GivenIndex)


call_for_two = cast(Callable[..., tuple[Array, Array]], call)
"""`call`, of a row function that has two results."""
