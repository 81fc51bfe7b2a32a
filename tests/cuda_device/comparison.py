"""Two arrays, bit for bit: as integers, NaN being equal to NaN, and poison to nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from cuda_device import Counts
from npselect.bench.devices.arrays import POISON
from npselect.testing.aliases import Array

__all__ = ["compare", "count"]

_INFINITY = {"float16": 0x7C00, "bfloat16": 0x7F80, "float32": 0x7F800000, "float64": 0x7FF0000000000000}
SHOWN = 4


def compare(actual: Array, expected: Array) -> Counts:
    """How many elements differ, how, and the first of them.

    Parameters
    ----------
    actual, expected : ndarray
        Of one of the four floating dtypes, or int64; `actual` was filled with poison before it was written to.

    Returns
    -------
    dict
        The counts `elements`, `differing` and, of those that differ, `unwritten` (still poison), `nan` (NaN in one of
        the two), `zeros` (of unequal signs); and `first`, their positions with both bit patterns.

    Raises
    ------
    ValueError
        The shapes or dtypes are not equal.
    """
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        of = (f"{array.dtype} of shape {array.shape}" for array in (actual, expected))
        raise ValueError("{}; expected {}".format(*of))
    a, b = _bits(actual), _bits(expected)
    name = expected.dtype.name
    unwritten = a == POISON[name]
    differing = (a != b) | unwritten
    found: Counts = {"elements": int(b.size), "differing": int(np.count_nonzero(differing))}
    if found["differing"] and name in _INFINITY:
        nan, other = _is_nan(a, name), _is_nan(b, name)
        differing &= ~(nan & other) | unwritten
        found["differing"] = int(np.count_nonzero(differing))
    if not found["differing"]:
        return found
    found["unwritten"] = int(np.count_nonzero(unwritten))
    if name in _INFINITY:
        found["nan"] = int(np.count_nonzero(differing & (nan != other)))
        sign = a.dtype.type(1) << a.dtype.type(8 * a.dtype.itemsize - 1)
        found["zeros"] = int(np.count_nonzero(differing & ((a | b | sign) == sign)))
    where = np.flatnonzero(differing.reshape(-1))[:SHOWN]
    found["first"] = [_shown(actual, expected, int(place)) for place in where]
    return found


def count(total: Counts, found: Counts, case: str, row: int = 0) -> None:
    """Add one comparison, of rows from `row` on, to the counts of many, of which the first that differs is shown."""
    total["elements"] += found["elements"]
    total["differing"] += found["differing"]
    if found["differing"]:
        for key in ("unwritten", "nan", "zeros"):
            total[key] = total.get(key, 0) + found.get(key, 0)
        for shown in found["first"] if row else ():
            shown["at"] = (shown["at"][0] + row, *shown["at"][1:])
        total.setdefault("case", case)
        total.setdefault("first", found["first"])


def _bits(array: Array) -> Array:
    return np.require(array, None, ["C"]).view(f"u{array.dtype.itemsize}")


def _is_nan(bits: Array, name: str) -> Array:
    kind = bits.dtype.type
    magnitude = bits & kind(2 ** (8 * bits.dtype.itemsize - 1) - 1)
    return np.asarray(magnitude > kind(_INFINITY[name]))


def _shown(actual: Array, expected: Array, place: int) -> dict[str, Any]:
    at = tuple(int(i) for i in np.unravel_index(place, expected.shape))
    shown: dict[str, Any] = {"at": at}
    for name, array in (("is", actual), ("expected", expected)):
        value = array[at]
        bits = int(_bits(np.asarray(value)).reshape(()))
        shown[name] = f"{value} ({bits:0{2 * array.dtype.itemsize}x})"
    return shown
