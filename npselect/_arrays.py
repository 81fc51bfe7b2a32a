"""The one way in and out: arrays of any shape and layout -> rows x choices -> a tier -> arrays again.

`arrange` takes what a caller gave, says what is wrong with it, and lays it out as the tiers want it (see
`npselect.backends`); `Rows.deliver` lets the tier fill a result and brings that into the caller's shape.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.array_utils import normalize_axis_index

from npselect.backends import choose

__all__ = ["Rows", "arrange", "floating", "temperatures"]

Array = npt.NDArray[Any]
_COMPUTED_IN = {"float16": "float32", "bfloat16": "float32", "float32": "float32", "float64": "float64"}


@cache
def _computed_in(dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    """The type that a floating dtype is computed in; None for every other dtype."""
    compute = _COMPUTED_IN.get(dtype.name)
    return None if compute is None else np.dtype(compute)


class Rows(NamedTuple):
    """One call's arrays as rows x choices, and what leads back."""

    tier: Any  # the module of row functions
    logits: Array  # (rows, K), C-contiguous
    cotangents: list[Array]  # the same
    temp: Array  # (rows,) or (1,)
    where: Array | None  # (rows, K) or (1, K)
    shape: tuple[int, ...]  # of the logits as given
    order: tuple[int, ...]  # of the logits' axes: those of the rows, then that of the choices

    def deliver(self, fill: Callable[..., None], out: Any) -> Array:
        """A result of the logits' shape and dtype; `fill` takes an array like `Rows.logits`."""
        (result,) = self._deliver(fill, out, 1, self.shape, self.order, self.logits.shape, self.logits.dtype)
        return result

    def deliver_pair(self, fill: Callable[..., None], out: Any) -> tuple[Array, Array]:
        """Two such results; `fill` takes two arrays."""
        one, other = self._deliver(fill, out, 2, self.shape, self.order, self.logits.shape, self.logits.dtype)
        return one, other

    def deliver_index(self, fill: Callable[..., None], out: Any) -> Array:
        """One int64 a row; `fill` takes an array of shape (rows,)."""
        shape = tuple(self.shape[axis] for axis in self.order[:-1])
        order = tuple(range(len(shape)))
        (result,) = self._deliver(fill, out, 1, shape, order, self.logits.shape[:1], np.dtype(np.int64))
        return result

    def deliver_temp(self, fill: Callable[..., None], out: Any, shape: tuple[int, ...]) -> Array:
        """One number a temperature, in the logits' dtype; `fill` takes an array of shape (temps,)."""
        if self.logits.size == 0:
            fill = _zeros  # the sum over no rows
        order = tuple(range(len(shape)))
        (result,) = self._deliver(fill, out, 1, shape, order, (math.prod(shape),), self.logits.dtype)
        return result

    def _deliver(
        self,
        fill: Callable[..., None],
        out: Any,
        count: int,
        shape: tuple[int, ...],
        order: tuple[int, ...],
        rows_shape: tuple[int, ...],
        dtype: np.dtype[Any],
    ) -> list[Array]:
        outs = _outs(out, count, shape, dtype)
        results = [np.empty(shape, dtype) if out is None else out for out in outs]
        straight = all(i == axis for i, axis in enumerate(order))
        arranged = [
            result.reshape(rows_shape)
            if straight and result.dtype == dtype and _is_plain(result) and (out is None or not self._reads(out))
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
        return [result[()] if out is None else result for result, out in zip(results, outs, strict=True)]

    def _reads(self, result: Array) -> bool:
        """Whether writing `result` might change what the tier has yet to read."""
        inputs = [self.logits, *self.cotangents, self.temp, *([] if self.where is None else [self.where])]
        return any(np.may_share_memory(result, array) for array in inputs)


def arrange(
    backend: str | None,
    logits: npt.ArrayLike,
    *cotangents: npt.ArrayLike,
    temp: npt.ArrayLike = 1.0,
    axis: int = -1,
    where: npt.ArrayLike | None = None,
    nan_policy: str = "propagate",
    by_temp: bool = False,
) -> Rows:
    """Check what was given and lay it out as rows x choices.

    The last of `cotangents` is grad_mask. With `by_temp`, rows that share a temperature become neighbours, in the order
    of the temperatures.
    """
    tier = choose(backend, logits, *cotangents)
    names = ["logits", "grad_grad_logits", "grad_mask"] if len(cotangents) == 2 else ["logits", "grad_mask"]
    arrays = [floating(values, name) for values, name in zip((logits, *cotangents), names, strict=False)]
    shape = arrays[0].shape
    for array, name in zip(arrays[1:], names[1:], strict=False):
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape} and logits has shape {shape}; the two must be equal")
    dtype = np.result_type(*arrays) if len(arrays) > 1 else arrays[0].dtype.newbyteorder("=")
    try:
        axis = operator.index(axis)
    except TypeError:
        raise TypeError(f"axis is {axis!r}; it takes one integer") from None
    axis = normalize_axis_index(axis, len(shape))
    if shape[axis] == 0:
        raise ValueError(f"logits has shape {shape}: no candidates along axis {axis}; there must be at least one")
    temps = temperatures(temp, dtype, shape, axis)
    offered = None if where is None else _offered(where, shape)
    _check_nan_policy(nan_policy, arrays[0], offered)

    order = [i for i in range(len(shape)) if i != axis]
    if by_temp and temps.size > 1:
        order.sort(key=lambda i: bool(temps.shape[i] == 1))
    order.append(axis)
    rows = [_as_rows(array, order, dtype) for array in arrays]
    return Rows(
        tier,
        rows[0],
        rows[1:],
        _rows_or_one(temps, shape, order, 1)[:, 0],
        None if offered is None else _rows_or_one(offered, shape, order, shape[axis]),
        shape,
        tuple(order),
    )


# ------------------------------------------------------------------------------------------------ what may come in


def floating(values: Any, name: str) -> Array:
    """An array of one of the four floating dtypes."""
    if isinstance(values, np.ma.MaskedArray):
        how = "give its data" if name == "temp" else f"give {name}.data and, as where=, ~np.ma.getmaskarray({name})"
        raise TypeError(f"{name} is a masked array, whose mask would be lost; {how}")
    if hasattr(values, "__cuda_array_interface__"):
        raise TypeError(f"{name} lives on a GPU; copy it to the host, or leave the choice of backend to the data")
    if not hasattr(values, "__array__") and hasattr(values, "__dlpack__"):
        values = np.from_dlpack(values)
    array = np.asarray(values)
    if array.dtype.kind in "biu":
        return array.astype(np.float64)
    if _computed_in(array.dtype) is None:
        raise TypeError(f"{name} has dtype {array.dtype}; it takes {', '.join(_COMPUTED_IN)}, integers and bools")
    return array


def temperatures(temp: Any, dtype: np.dtype[Any], shape: tuple[int, ...], axis: int) -> Array:
    """The temperatures in the type they are used in: a single one, or an array with the logits' number of axes."""
    given = floating(temp, "temp")
    compute = _computed_in(dtype)
    with np.errstate(over="ignore", under="ignore"):
        temps = given.astype(compute)
    usable = (temps > 0) & (temps < np.inf)
    if not usable.all():
        value, rounded = given[~usable][0], temps[~usable][0]
        if 0 < value < np.inf:
            raise ValueError(
                f"temp is {value}, which is {rounded} in {temps.dtype}, what {dtype} logits are computed in"
            )
        raise ValueError(f"temp is {value}; it must be positive and finite")
    if temps.size == 1 and temps.ndim <= len(shape):
        return temps
    padded = _padded(temps, shape)
    if padded is None or padded.shape[axis] != 1:
        raise ValueError(
            f"temp has shape {temps.shape} and logits has shape {shape}; temp must be a scalar or broadcast against "
            f"logits with length 1 along axis {axis}"
        )
    return padded


def _padded(array: Array, shape: tuple[int, ...]) -> Array | None:
    """With leading axes of length 1, as many axes as `shape`; None if it does not broadcast to that."""
    padded = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
    fits = padded.ndim == len(shape) and all(n in (1, m) for n, m in zip(padded.shape, shape, strict=True))
    return padded if fits else None


def _offered(where: Any, shape: tuple[int, ...]) -> Array:
    """`where` with as many axes as the logits."""
    offered = np.asarray(where)
    if isinstance(where, np.ma.MaskedArray):
        raise TypeError("where is a masked array; it takes plain bools, True for the candidates")
    if offered.dtype != np.bool_:
        raise TypeError(f"where has dtype {offered.dtype}; it takes plain bools, True for the candidates")
    padded = _padded(offered, shape)
    if padded is None:
        raise ValueError(
            f"where has shape {offered.shape} and logits has shape {shape}; where must broadcast to logits"
        )
    return padded


def _check_nan_policy(nan_policy: str, logits: Array, offered: Array | None) -> None:
    if nan_policy not in ("propagate", "raise"):
        raise ValueError(f"nan_policy is {nan_policy!r}; it takes 'propagate' or 'raise'")
    if nan_policy == "raise":
        bad = ~(logits < np.inf)
        if offered is not None:
            bad &= offered
        if np.any(bad):
            position = tuple(int(i) for i in np.unravel_index(np.argmax(bad), logits.shape))
            raise ValueError(f"logits{list(position)} is {logits[position]}, and nan_policy is 'raise'")


def _outs(out: Any, count: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Sequence[Array | None]:
    """`out` as NumPy has it: None, an array, or a tuple of as many of either as there are results."""
    if not isinstance(out, tuple):
        if out is not None and count > 1:
            raise TypeError(f"out is a {type(out).__name__}; it takes a tuple of {count} arrays, one a result")
        out = (out,) * count
    if len(out) != count:
        raise ValueError(f"out holds {len(out)} arrays; there are {count} results")
    for array in out:
        if array is None:
            continue
        if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
            raise TypeError(f"out is a {type(array).__name__}; it takes a NumPy array")
        if array.shape != shape:
            raise ValueError(f"out has shape {array.shape} and the result has shape {shape}; the two must be equal")
        if not np.can_cast(dtype, array.dtype, "same_kind"):
            raise TypeError(f"out has dtype {array.dtype}, to which a result of dtype {dtype} cannot be cast")
        if not array.flags.writeable:
            raise ValueError("out is read-only")
    if count > 1 and out[0] is not None and out[1] is not None and np.shares_memory(out[0], out[1]):
        raise ValueError("the two arrays of out share memory; each result needs its own")
    return list(out)


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
