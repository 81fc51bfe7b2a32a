"""Arrays on a GPU, for one call: a `Memory` (see `npselect._call.memory`).

All that a call reads and writes is on one device, and is used on one stream: that of the first array that has one. If
another array comes with another stream, the call's stream waits for that one first, and that one waits for the call's
stream afterwards. Memory that is borrowed by DLPack may be taken back as soon as the call returns, so such a call waits
until its work is done.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from npselect._call import arguments as _arguments
from npselect._call.memory import AnyArray, Fill
from npselect._dtypes import Array, DType, Shape, is_floating
from npselect._gpu.array import DeviceArray
from npselect._gpu.driver import LEGACY, gpu
from npselect._gpu.foreign import Foreign, from_foreign
from npselect._places import on_device
from npselect.tiers.cuda import gather

__all__ = ["OnGpu"]


class OnGpu:
    """Where the arrays of one call are."""

    vectors = gather

    def __init__(self, device: int, stream: int, asked: Mapping[int, bool]) -> None:
        self.device, self.stream = device, stream
        self._asked = asked  # by the id of what was given: whether it is on a GPU
        self._others: list[int] = []  # streams of arrays that came with one of their own
        self._borrowed = False
        self._views: dict[int, tuple[object, DeviceArray]] = {}  # by the id of what was given, which they keep

    @classmethod
    def of(cls, arrays: Mapping[str, object], beside: Mapping[str, object], on_gpu: Sequence[str]) -> OnGpu:
        """That of the arrays, all of which must be on one GPU; so must be those beside them that are on any."""
        every = {**arrays, **beside}
        for name in arrays:
            if name not in on_gpu:
                where = f"{on_gpu[0]} lives on a GPU and {name} on the host"
                raise TypeError(f"{where}; copy {name} to the GPU, or {on_gpu[0]} to the host")
        found: dict[str, Foreign] = {}
        stream: int | None = None
        for name in on_gpu:
            found[name] = from_foreign(every[name], name, stream or LEGACY)
            stream = stream or found[name].stream
        asked = {id(values): name in on_gpu for name, values in every.items()}
        memory = cls(found[on_gpu[0]].view.device, stream or LEGACY, asked)
        for name, foreign in found.items():
            memory._take(every[name], foreign, name)
        return memory

    def _is_on_gpu(self, values: object) -> bool:
        known = self._asked.get(id(values))
        return on_device(values) if known is None else known

    def _view(self, values: object, name: str) -> DeviceArray:
        known = self._views.get(id(values))
        return self._take(values, from_foreign(values, name, self.stream), name) if known is None else known[1]

    def _take(self, values: object, foreign: Foreign, name: str) -> DeviceArray:
        view = foreign.view
        if view.device != self.device:
            raise ValueError(
                f"{name} is on CUDA device {view.device} and another array of this call on device {self.device}; "
                "copy one of them"
            )
        if view.stream != self.stream:
            with gpu().current(self.device):
                gpu().wait(self.stream, view.stream)
            if view.stream not in self._others:
                self._others.append(view.stream)
        self._borrowed = self._borrowed or foreign.borrowed
        self._views[id(values)] = values, view.on(self.stream)
        return self._views[id(values)][1]

    # ---------------------------------------------------------------------------------------- what comes in

    def floating(self, values: object, name: str) -> DeviceArray:
        """An array of one of the four floating dtypes."""
        if not self._is_on_gpu(values):
            return self._upload(_arguments.floating(values, name))
        view = self._view(values, name)
        return view if is_floating(view.dtype) else _arguments.as_float64(view, name, DeviceArray.to_host)

    def bools(self, values: object, name: str) -> DeviceArray:
        """An array of plain bools."""
        if not self._is_on_gpu(values):
            return self._upload(_arguments.bools(values, name))
        view = self._view(values, name)
        _arguments.check_bools(view, name)
        return view

    def integers(self, values: object, name: str) -> DeviceArray:
        """An array of int64."""
        if not self._is_on_gpu(values):
            return self._upload(_arguments.integers(values, name))
        view = self._view(values, name)
        if view.dtype.kind == "i":
            return view.astype(np.dtype(np.int64), copy=False)
        return self._upload(_arguments.as_int64(view.to_host(), name))

    def to_host(self, values: AnyArray) -> AnyArray:
        """The numbers where NumPy can look at them; bfloat16, which it does not know, in float32."""
        if not self._is_on_gpu(values):
            return values
        view = self._view(values, "temp")
        return (view.astype(np.dtype(np.float32)) if view.dtype.name == "bfloat16" else view).to_host()

    def writable(self, out: object) -> DeviceArray:
        """`out`, which must be on the same device."""
        if not self._is_on_gpu(out):
            raise TypeError(f"out is a {type(out).__name__}; it takes an array on the GPU, as the other arrays are")
        view = self._view(out, "out")
        if view.read_only:
            raise ValueError("out is read-only")
        return view

    def _upload(self, values: Array) -> DeviceArray:
        return DeviceArray.from_host(values, self.stream, self.device)

    # ---------------------------------------------------------------------------------------- layouts

    def empty(self, shape: Shape, dtype: DType) -> DeviceArray:
        """A new array."""
        return DeviceArray.empty(shape, dtype, self.stream, self.device)

    def full(self, shape: Shape, one: DeviceArray) -> DeviceArray:
        """An array all of whose elements are the one that was given."""
        return one.reshape(()).broadcast_to(shape).copy()

    def broadcast_to(self, array: DeviceArray, shape: Shape) -> DeviceArray:
        """A larger shape, in which elements are repeated."""
        return array.broadcast_to(shape)

    def as_rows(self, moved: DeviceArray, dtype: DType) -> DeviceArray:
        """Shape (rows, K), C-contiguous, in a dtype; a view wherever that can be had."""
        whole = moved if moved.dtype == dtype and moved.c_contiguous else moved.astype(dtype)
        return whole.reshape((math.prod(moved.shape[:-1]), moved.shape[-1]))

    def is_contiguous(self, array: DeviceArray) -> bool:
        """Whether elements lie as the tiers take them."""
        return array.c_contiguous

    def may_share(self, one: DeviceArray, other: DeviceArray | Array) -> bool:
        """Whether the memory between the first and the last elements of two arrays overlaps."""
        if not isinstance(other, DeviceArray) or not (one.size and other.size):
            return False
        (start, stop), (other_start, other_stop) = _bounds(one), _bounds(other)
        return start < other_stop and other_start < stop

    def shares(self, one: DeviceArray, other: DeviceArray) -> bool:
        """Whether two arrays have an element in common."""
        return self.may_share(one, other) and bool(np.shares_memory(_outline(one), _outline(other)))

    # ---------------------------------------------------------------------------------------- results

    def run(self, fill: Fill, arguments: Sequence[AnyArray]) -> None:
        """Let a tier fill the last of the arrays."""
        with gpu().current(self.device):
            fill(*arguments)

    def fill_with(self, value: int | Array, *arrays: DeviceArray) -> None:
        """Write a number, or the host's numbers, everywhere."""
        for array in arrays:
            array.assign(self._upload(np.array(value)).broadcast_to(array.shape))

    def copy_into(self, moved: DeviceArray, rows: DeviceArray) -> None:
        """Write rows into an array whose axes are those of the rows, then that of the choices."""
        moved.assign(rows.reshape(moved.shape))

    def result(self, array: DeviceArray) -> DeviceArray:
        """A new array as callers get it."""
        return array

    def finish(self) -> None:
        """Let those who come after see what was done, as soon as it is."""
        with gpu().current(self.device):
            for stream in self._others:
                gpu().wait(stream, self.stream)
            gpu().free_after(self.stream)
            if self._borrowed:
                gpu().synchronize(self.stream)


def _bounds(array: DeviceArray) -> tuple[int, int]:
    if array.c_contiguous:
        return array.address, array.address + array.nbytes
    reaches = [(length - 1) * stride for length, stride in zip(array.shape, array.strides, strict=True)]
    start = array.address + sum(reach for reach in reaches if reach < 0)
    stop = array.address + sum(reach for reach in reaches if reach > 0) + array.dtype.itemsize
    return start, stop


class _Outline:
    """What NumPy is told of an array on a GPU, to compare addresses; nothing may be read through it."""

    def __init__(self, array: DeviceArray) -> None:
        self.__array_interface__ = {
            "data": (array.address, False),
            "shape": array.shape,
            "strides": array.strides,
            "typestr": f"|V{array.dtype.itemsize}",
            "version": 3,
        }


def _outline(array: DeviceArray) -> Array:
    return np.asarray(_Outline(array))
