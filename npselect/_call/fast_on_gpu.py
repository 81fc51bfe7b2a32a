"""Arrays on a GPU for the fast path, which a kernel can take where they are, on one device and one stream.

A `FastMemory` (see `npselect._call.memory`).
"""

from __future__ import annotations

from collections.abc import Sequence

from npselect._call.memory import AnyArray, Fill
from npselect._dtypes import DType, Shape
from npselect._gpu.array import DeviceArray
from npselect._gpu.driver import gpu
from npselect._gpu.foreign import where_it_is

__all__ = ["are_apart", "fits", "new", "run", "usable"]


def usable(values: object) -> DeviceArray | None:
    """An array that a tier can take, read and write, but for the number of its axes; None if it cannot."""
    try:
        found = where_it_is(values)
    except Exception:  # which the other path raises again, with the argument's name
        return None
    if found is None:
        return None
    view = found.view
    return view if view.c_contiguous and view.size and view.shape and not view.read_only else None


def fits(array: DeviceArray, shape: Shape, dtype: DType, beside: DeviceArray) -> bool:
    """Whether an array has a shape and a dtype, and is where another is."""
    return (
        array.dtype == dtype
        and array.shape == shape
        and array.device == beside.device
        and array.stream == beside.stream
    )


def new(shape: Shape, dtype: DType, beside: DeviceArray) -> DeviceArray:
    """A new array where another is."""
    return DeviceArray.empty(shape, dtype, beside.stream, beside.device)


def are_apart(array: DeviceArray, others: Sequence[DeviceArray]) -> bool:
    """Whether an array shares no memory with others."""
    start, stop = array.address, array.address + array.nbytes
    for other in others:  # noqa: SIM110 it takes half the time of all()
        if other.address < stop and start < other.address + other.nbytes:
            return False
    return True


def run(fill: Fill, arguments: Sequence[AnyArray]) -> None:
    """Let a tier fill the last of the arrays, and those who come after see it, as soon as it is done."""
    result = arguments[-1]
    with gpu().current(result.device):
        try:
            fill(*arguments)
        finally:
            gpu().free_after(result.stream)
