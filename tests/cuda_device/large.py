"""Arrays of more than 2**31 elements: the rows at both ends, about 2**31 elements and about 2**32 bytes from the start.

What these rows hold is drawn on the device; the CPU tier is given the same rows, and Gumbel noise their place.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cuda_device import Counts, Log
from cuda_device.comparison import compare, count
from npselect.bench.devices import Arrays, Torch, function
from npselect.bench.devices.arrays import POISON, host_dtype

__all__ = ["ELEMENTS", "UNITS", "bytes_of", "check_large", "places"]

ELEMENTS = (1 << 31) + (1 << 20) + 7
UNITS = (
    ("straight_through.backward", "float32", 1024),
    ("gumbel_softmax.forward seed", "float32", 1024),
    ("straight_through.backward", "bfloat16", 10),
    ("straight_through.forward", "float16", 131072),
    ("straight_through.index", "float16", 2),
    ("straight_through.backward", "float32", 4097),
    ("gumbel_softmax.backward seed", "float32", 10),
    ("straight_through.forward", "float32", 33),
)


def bytes_of(name: str, dtype: str, choices: int, elements: int) -> int:
    """What the arrays of a unit take of the device's memory, at the most."""
    return (2 + function(name).cotangents) * elements * host_dtype(dtype).itemsize


def check_large(report: Log, arrays: Arrays, name: str, dtype: str, choices: int, elements: int) -> None:
    """One function on an array of so many elements, in whole rows."""
    each, rows = function(name), -(-elements // choices)
    shape = rows, choices
    *cotangents, logits = [arrays.random(rows * choices, dtype, i).reshape(shape) for i in range(each.cotangents + 1)]
    ((out_shape, out_dtype),) = each.outs(shape, -1, (), dtype)
    out = arrays.empty(out_shape, out_dtype)
    arrays.poison(out)
    each(cotangents, logits, 0.6, out=out)
    total: Counts = {"calls": 1, "elements": 0, "differing": 0}
    for first, last in places(rows, choices):
        given = [arrays.to_host(array[first:last]) for array in (*cotangents, logits)]
        offset: dict[str, Any] = {"offset": first * choices} if each.noise else {}
        expected = np.asarray(each(given[:-1], given[-1], 0.6, **offset))
        count(total, compare(arrays.to_host(out[first:last]), expected), f"rows from {first}", first)
    report.line("check", what=name, dtype=dtype, choices=choices, array=f"{rows} x {choices}", **total)
    if isinstance(arrays, Torch):
        bits = out.view(getattr(arrays.torch, f"int{8 * out.element_size()}")).reshape(-1)
        step = 1 << 28
        left = sum(int((bits[i : i + step] == POISON[out_dtype]).sum()) for i in range(0, len(bits), step))
        report.line("check", what=f"{name}, written", dtype=dtype, choices=choices, elements=len(bits), differing=left)


def places(rows: int, choices: int, each: int = 200_000) -> list[tuple[int, int]]:
    """Ranges of rows about the places where a 32-bit number or offset ends; `each` elements or a few rows of each."""
    some = max(2, each // choices)
    middles = [0, rows, *((1 << power) // choices for power in (29, 30, 31))]
    ranges = [(max(0, middle - some), min(rows, middle + some)) for middle in middles]
    return [(first, last) for first, last in dict.fromkeys(ranges) if first < last]
