"""What a caller may give: each function checks one kind of argument, and says what was wrong, and what to do."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from npselect._call.memory import AnyArray
from npselect._dtypes import FLOATING, Array, DType, Shape, castable, common, computed_in, is_floating
from npselect._places import as_numpy_sees, refuse_lazy
from npselect._stream import Stream

__all__ = [
    "as_float64",
    "as_int64",
    "bools",
    "broadcastable",
    "check_bools",
    "check_nan_policy",
    "computed_in",
    "fitting",
    "floating",
    "gap_of",
    "integers",
    "noise_of",
    "number",
    "outs",
    "positive",
    "promoted",
    "stream_of",
    "stream_unless_given",
    "temperatures",
    "unimix_of",
    "whole",
]


def floating(values: object, name: str) -> Array:
    """An array of one of the four floating dtypes."""
    array = values if type(values) is np.ndarray else _as_array(values, name)
    return array if is_floating(array.dtype) else as_float64(array, name)


def _as_array(values: object, name: str) -> Array:
    if isinstance(values, np.ma.MaskedArray):
        how = (
            "fill it"
            if name in ("temp", "noise", "index")
            else f"give {name}.data and, as where=, ~np.ma.getmaskarray({name})"
        )
        raise TypeError(f"{name} is a masked array, whose mask would be lost; {how}")
    refuse_lazy(values, name)
    try:
        if not hasattr(values, "__array__") and hasattr(values, "__dlpack__"):
            values = np.from_dlpack(values)
        return np.asarray(as_numpy_sees(values))
    except Exception as error:
        error.add_note(f"{name}, a {type(values).__name__}, does not become a NumPy array")
        raise


def as_float64(array: AnyArray, name: str, to_host: Callable[[AnyArray], Array] = np.asarray) -> AnyArray:
    """Integers and bools in float64; TypeError for what is none of them, nor floating.

    ValueError for an integer that float64 does not hold: rounded, it could equal another, or pass it.
    """
    if array.dtype.kind in "biu":
        if array.dtype.itemsize == 8:
            _check_exact(to_host(array), name)
        return array.astype(np.dtype(np.float64))
    raise TypeError(f"{name} has dtype {array.dtype}; it takes {', '.join(FLOATING)}, integers and bools")


def _check_exact(integers: Array, name: str) -> None:
    wide = integers.astype(np.float64)
    beyond = wide >= 2.0 ** np.iinfo(integers.dtype).bits / (1 + (integers.dtype.kind == "i"))  # 2**63 or 2**64
    rounded = beyond | (np.where(beyond, 0.0, wide).astype(integers.dtype) != integers)
    if np.any(rounded):
        position = tuple(int(i) for i in np.unravel_index(np.argmax(rounded), rounded.shape))
        at = f"{name}{list(position)}" if position else name
        raise ValueError(
            f"{at} is {integers[position]}, which float64, what integers are computed in, rounds to "
            f"{int(wide[position])}; give smaller numbers (less the largest of a row, say), or float64 if that is meant"
        )


def bools(values: object, name: str) -> Array:
    """An array of plain bools."""
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; it takes plain bools, True for the candidates")
    refuse_lazy(values, name)
    array = np.asarray(as_numpy_sees(values))
    check_bools(array, name)
    return array


def check_bools(array: AnyArray, name: str) -> None:
    """TypeError for every dtype but bool."""
    if array.dtype != np.bool_:
        raise TypeError(f"{name} has dtype {array.dtype}; it takes plain bools, True for the candidates")


def integers(values: object, name: str) -> Array:
    """An array of int64. An empty sequence will do, which NumPy makes an array of float64."""
    array = _as_array(values, name)
    if not array.size and isinstance(values, (list, tuple)):
        array = array.astype(np.int64)
    return as_int64(array, name)


def as_int64(array: Array, name: str) -> Array:
    """Integers in int64; what is beyond becomes its largest number. TypeError for every other dtype."""
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} has dtype {array.dtype}; it takes integers")
    if array.dtype.kind == "u" and array.dtype.itemsize == 8:
        array = np.minimum(array, np.iinfo(np.int64).max)
    return array.astype(np.int64, copy=False)


def promoted(arrays: Mapping[str, AnyArray]) -> DType:
    """The dtype that arrays have in common."""
    try:
        return common({array.dtype.newbyteorder("=") for array in arrays.values()})
    except TypeError:
        given = " and ".join(f"{name} has dtype {array.dtype}" for name, array in arrays.items())
        raise TypeError(f"{given}: neither holds the other's numbers; cast one of them") from None


def whole(value: Any, name: str) -> int:
    """An integer of any type; a bool is none."""
    if type(value) is int:
        return value
    is_bool = isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool")
    try:
        if is_bool or isinstance(value, np.ma.MaskedArray):
            raise TypeError
        return operator.index(value)
    except TypeError:
        shown = " ".join(repr(value).split())
        raise TypeError(f"{name} is {shown}, of type {type(value).__name__}; it takes an integer") from None


_NO_NUMBER = (bool, np.bool_, str, bytes, np.ma.MaskedArray)


def number(value: Any, name: str) -> float:
    """A real number of any type; a bool is none, nor is a text of digits, nor an array."""
    if type(value) in (int, float):
        return float(value)
    try:
        if isinstance(value, _NO_NUMBER) or np.ndim(value) or np.iscomplexobj(value):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        shown = " ".join(repr(value).split())
        raise TypeError(f"{name} is {shown}, of type {type(value).__name__}; it takes a number") from None


def positive(value: object, name: str) -> float:
    """A number above 0 and below infinity."""
    found = number(value, name)
    if not 0 < found < math.inf:
        raise ValueError(f"{name} is {found}; it must be positive and finite")
    return found


_LEAST_UNIMIX = 2.0**-100  # from here on, unimix divided by the number of candidates is a normal number of any type


def unimix_of(value: object) -> float:
    """The share of the uniform distribution."""
    found = number(value, "unimix")
    if found != 0 and not _LEAST_UNIMIX <= found <= 1:
        raise ValueError(f"unimix is {found}; it must be 0, or from 2**-100 to 1")
    return found


def gap_of(value: object) -> float:
    """The gap, or 0 for "adaptive"."""
    if isinstance(value, str):
        if value != "adaptive":
            raise ValueError(f"gap is {value!r}; it takes a positive number or 'adaptive'")
        return 0.0
    return positive(value, "gap")


def stream_of(seed: object, offset: object) -> Stream:
    """The numbers of a seed's stream from `offset` on."""
    return Stream(_word(seed, "seed"), _word(offset, "offset"))


def noise_of(seed: object, noise: object, offset: object) -> object:
    """What is added to the logits: exactly one of the numbers of a seed's stream and an array."""
    if (seed is None) == (noise is None):
        given = "neither was" if seed is None else "both were"
        raise TypeError(f"exactly one of seed= and noise= must be given; {given}")
    stream = stream_unless_given(seed, offset, "noise=")
    return noise if stream is None else stream


def stream_unless_given(seed: object, offset: object, instead: str) -> Stream | None:
    """The numbers of a seed's stream; None if there is no seed but the option `instead`, which takes no offset."""
    stream = stream_of(0 if seed is None else seed, offset)
    if seed is not None:
        return stream
    if stream.offset != 0:
        raise TypeError(f"offset is {offset}, a place in the stream of a seed; it does not go with {instead}")
    return None


def _word(value: object, name: str) -> int:
    number = whole(value, name)
    if not 0 <= number < 2**64:
        raise ValueError(f"{name} is {number}; it must be at least 0 and less than 2**64")
    return number


def temperatures(temp: object, dtype: DType, shape: Shape, axis: int, forward_temp: float = 1.0) -> Array:
    """``forward_temp * temp`` in the type it is used in: a single one, or an array with the logits' number of axes."""
    given, name = floating(temp, "temp"), "temp"
    if forward_temp != 1:
        given, name = given.astype(np.float64) * forward_temp, f"{forward_temp} times temp"
    compute = computed_in(dtype)
    temps = given.astype(compute)
    usable = (temps > 0) & (temps < np.inf)
    if not usable.all():
        value, rounded = given[~usable][0], temps[~usable][0]
        if 0 < value < np.inf:
            raise ValueError(
                f"{name} is {value}, which is {rounded} in {temps.dtype}, what {dtype} logits are computed in"
            )
        raise ValueError(f"{name} is {value}; it must be positive and finite")
    if temps.size == 1 and temps.ndim <= len(shape):
        return temps
    padded: Array | None = _padded(temps, shape)
    if padded is None or padded.shape[axis] != 1:
        raise ValueError(
            f"temp has shape {temps.shape} and logits has shape {shape}; temp must be a scalar or broadcast against "
            f"logits with length 1 along axis {axis}"
        )
    return padded


def _padded(array: AnyArray, shape: Shape) -> AnyArray | None:
    """With leading axes of length 1, as many axes as `shape`; None if it does not broadcast to that."""
    padded = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
    fits = padded.ndim == len(shape) and all(n in (1, m) for n, m in zip(padded.shape, shape, strict=True))
    return padded if fits else None


def broadcastable(array: AnyArray, name: str, shape: Shape) -> AnyArray:
    """With as many axes as the logits."""
    padded = _padded(array, shape)
    if padded is None:
        raise ValueError(
            f"{name} has shape {array.shape} and logits has shape {shape}; {name} must broadcast to logits"
        )
    return padded


def check_nan_policy(nan_policy: str, *arrays: AnyArray, to_host: Callable[[AnyArray], AnyArray]) -> None:
    """Under "raise", that no candidate's logit, noise included, is NaN or +inf; `arrays` are those and where."""
    if nan_policy not in ("propagate", "raise"):
        raise ValueError(f"nan_policy is {nan_policy!r}; it takes 'propagate' or 'raise'")
    if nan_policy == "raise":
        logits, noise, offers = map(to_host, arrays)
        w, name = (logits, "logits") if noise is None else (logits.astype(noise.dtype) + noise, "(logits + noise)")
        bad = ~(w < np.inf)
        if offers is not None:
            bad &= offers
        if np.any(bad):
            position = tuple(int(i) for i in np.unravel_index(np.argmax(bad), w.shape))
            raise ValueError(f"{name}{list(position)} is {w[position]}, and nan_policy is 'raise'")


def outs(out: object, count: int) -> tuple[object, ...]:
    """`out` as NumPy has it: None, an array, or a tuple of as many of either as there are results."""
    if not isinstance(out, tuple):
        if out is not None and count > 1:
            raise TypeError(f"out is a {type(out).__name__}; it takes a tuple of {count} arrays, one a result")
        return (out,) * count
    if len(out) != count:
        raise ValueError(f"out holds {len(out)} arrays; there are {count} results")
    return out


def fitting(array: AnyArray, shape: Shape, dtype: DType) -> AnyArray:
    """An array of `out`, which must have the result's shape and be able to hold its numbers."""
    if array.shape != shape:
        raise ValueError(f"out has shape {array.shape} and the result has shape {shape}; the two must be equal")
    if not castable(dtype, array.dtype):
        raise TypeError(f"out has dtype {array.dtype}, to which a result of dtype {dtype} cannot be cast")
    return array
