"""What a caller may give: each function checks one kind of argument, and says what was wrong, and what to do."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "check_nan_policy",
    "computed_in",
    "floating",
    "noise_array",
    "offered",
    "outs",
    "promoted",
    "temperatures",
    "whole",
]

Array = npt.NDArray[Any]
_COMPUTED_IN = {"float16": "float32", "bfloat16": "float32", "float32": "float32", "float64": "float64"}


@cache
def computed_in(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type that a floating dtype is computed in; KeyError for every other dtype."""
    return np.dtype(_COMPUTED_IN[dtype.name])


def floating(values: Any, name: str) -> Array:
    """An array of one of the four floating dtypes."""
    if isinstance(values, np.ma.MaskedArray):
        how = (
            "fill it" if name in ("temp", "noise") else f"give {name}.data and, as where=, ~np.ma.getmaskarray({name})"
        )
        raise TypeError(f"{name} is a masked array, whose mask would be lost; {how}")
    if hasattr(values, "__cuda_array_interface__"):
        raise TypeError(f"{name} lives on a GPU; copy it to the host, or leave the choice of backend to the data")
    try:
        if not hasattr(values, "__array__") and hasattr(values, "__dlpack__"):
            values = np.from_dlpack(values)
        array = np.asarray(values)
    except Exception as error:
        error.add_note(f"{name}, a {type(values).__name__}, does not become a NumPy array")
        raise
    if array.dtype.kind in "biu":
        return array.astype(np.float64)
    try:
        computed_in(array.dtype)
    except KeyError:
        takes = f"{', '.join(_COMPUTED_IN)}, integers and bools"
        raise TypeError(f"{name} has dtype {array.dtype}; it takes {takes}") from None
    return array


def promoted(arrays: dict[str, Array]) -> np.dtype[Any]:
    """The dtype that arrays have in common."""
    try:
        return np.result_type(*arrays.values())
    except TypeError:
        given = " and ".join(f"{name} has dtype {array.dtype}" for name, array in arrays.items())
        raise TypeError(f"{given}: neither holds the other's numbers; cast one of them") from None


def whole(value: Any, name: str) -> int:
    """An integer of any type; a bool is none."""
    is_bool = isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool")
    try:
        if is_bool or isinstance(value, np.ma.MaskedArray):
            raise TypeError
        return operator.index(value)
    except TypeError:
        shown = " ".join(repr(value).split())
        raise TypeError(f"{name} is {shown}, of type {type(value).__name__}; it takes an integer") from None


def temperatures(temp: Any, dtype: np.dtype[Any], shape: tuple[int, ...], axis: int) -> Array:
    """The temperatures in the type they are used in: a single one, or an array with the logits' number of axes."""
    given = floating(temp, "temp")
    compute = computed_in(dtype)
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


def offered(where: Any, shape: tuple[int, ...]) -> Array:
    """`where` with as many axes as the logits."""
    given = np.asarray(where)
    if isinstance(where, np.ma.MaskedArray):
        raise TypeError("where is a masked array; it takes plain bools, True for the candidates")
    if given.dtype != np.bool_:
        raise TypeError(f"where has dtype {given.dtype}; it takes plain bools, True for the candidates")
    return _broadcastable(given, "where", shape)


def noise_array(noise: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """`noise` in the type that it is added in, with as many axes as the logits."""
    given = floating(noise, "noise")
    with np.errstate(over="ignore", under="ignore"):
        return _broadcastable(given.astype(dtype, copy=False), "noise", shape)


def _broadcastable(array: Array, name: str, shape: tuple[int, ...]) -> Array:
    padded = _padded(array, shape)
    if padded is None:
        raise ValueError(
            f"{name} has shape {array.shape} and logits has shape {shape}; {name} must broadcast to logits"
        )
    return padded


def check_nan_policy(nan_policy: str, logits: Array, noise: Array | None, offers: Array | None) -> None:
    """Under "raise", that no candidate's logit, noise included, is NaN or +inf."""
    if nan_policy not in ("propagate", "raise"):
        raise ValueError(f"nan_policy is {nan_policy!r}; it takes 'propagate' or 'raise'")
    if nan_policy == "raise":
        with np.errstate(all="ignore"):
            w, name = (logits, "logits") if noise is None else (logits.astype(noise.dtype) + noise, "(logits + noise)")
        bad = ~(w < np.inf)
        if offers is not None:
            bad &= offers
        if np.any(bad):
            position = tuple(int(i) for i in np.unravel_index(np.argmax(bad), w.shape))
            raise ValueError(f"{name}{list(position)} is {w[position]}, and nan_policy is 'raise'")


def outs(out: Any, count: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Sequence[Array | None]:
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
