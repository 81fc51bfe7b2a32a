"""What a benchmark asks of arrays on a device, whichever framework has them.

A class for each framework (`npselect.bench.devices.frameworks`) has these methods. What a framework cannot do raises
where it is asked for.
"""

from __future__ import annotations

import math
import time
from typing import Any, Protocol

import numpy as np

from npselect.testing.aliases import Array, Dtype
from npselect.testing.dtypes import DTYPES, floating_dtype

__all__ = ["POISON", "Arrays", "DeviceArray", "Event", "Host", "Shape", "host_dtype", "poisoned"]

DeviceArray = Any  # of the framework
Event = Any  # a point in a stream, with a time
Shape = tuple[int, ...]

# Bits that no result has: NaN with a payload, and a number that is no index.
POISON = {"float16": 0x7EA5, "bfloat16": 0x7FE5, "float32": 0x7FE5A5A5, "float64": 0x7FFDA5A5A5A5A5A5}
POISON["int64"] = 0x5A5A5A5A5A5A5A5A


def host_dtype(name: str) -> Dtype:
    """The NumPy dtype of that name; of bfloat16, that of ml_dtypes."""
    return floating_dtype(name) if name in DTYPES else np.dtype(name)


def poisoned(shape: Shape, dtype: str) -> Array:
    """A NumPy array of poison."""
    form = host_dtype(dtype)
    return np.full(shape, POISON[dtype], np.dtype(f"u{form.itemsize}")).view(form)


class Arrays(Protocol):
    """A framework's arrays.

    Attributes
    ----------
    name : str
        Of the framework.
    backend : str or None
        The tier that npselect is asked for, or None if the arrays themselves say it.
    """

    name: str
    backend: str | None

    def from_host(self, array: Array, skew: int = 0) -> DeviceArray:
        """A copy on the device, `skew` elements after the start of its memory."""

    def to_host(self, array: DeviceArray) -> Array:
        """A NumPy array of the same numbers."""

    def empty(self, shape: Shape, dtype: str, skew: int = 0) -> DeviceArray:
        """An array, `skew` elements after the start of its memory."""

    def poison(self, array: DeviceArray) -> None:
        """Fill it with bits that no result has."""

    def random(self, size: int, dtype: str, seed: int) -> DeviceArray:
        """Normal numbers, one axis."""

    def copy(self, to: DeviceArray, source: DeviceArray) -> None:
        """Copy one array into another."""

    def event(self) -> Event:
        """Record an event in the current stream."""

    def seconds(self, first: Event, second: Event) -> float:
        """The time between two events that have both happened."""

    def synchronize(self) -> None:
        """Wait for the device."""

    def alive(self) -> bool:
        """Whether a number goes to the device and comes back."""
        try:
            self.synchronize()
            return bool(self.to_host(self.from_host(np.full(3, 7, np.float32)))[2] == 7)
        except Exception:
            return False


class Host(Arrays):
    """NumPy arrays, with the tier by name: for machines without a framework, and for tests."""

    name = "numpy"

    def __init__(self, backend: str = "cuda") -> None:
        self.backend = backend

    def from_host(self, array: Array, skew: int = 0) -> Array:
        result = self.empty(array.shape, array.dtype.name, skew)
        result[...] = array
        return result

    def to_host(self, array: DeviceArray) -> Array:
        return np.asarray(array)

    def empty(self, shape: Shape, dtype: str, skew: int = 0) -> Array:
        return np.empty(math.prod(shape) + skew, host_dtype(dtype))[skew:].reshape(shape)

    def poison(self, array: Array) -> None:
        array[...] = poisoned(array.shape, array.dtype.name)

    def random(self, size: int, dtype: str, seed: int) -> Array:
        return np.random.default_rng(seed).standard_normal(size, np.float32).astype(host_dtype(dtype))

    def copy(self, to: Array, source: Array) -> None:
        to[...] = source

    def event(self) -> float:
        return time.perf_counter()

    def seconds(self, first: float, second: float) -> float:
        return second - first

    def synchronize(self) -> None:
        """Calls on arrays of the host return when they are done."""
