"""Arrays on a GPU: a view of what a caller gave, or a result, which every library can take without a copy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from npselect._dtypes import BFloat16
from npselect._gpu import dlpack
from npselect._gpu.aliases import DType, HostArray, Unknown
from npselect._gpu.copy import copy
from npselect._gpu.driver import LEGACY, gpu

__all__ = ["DeviceArray", "contiguous"]


class DeviceArray:
    """A view of memory on a GPU, with strides.

    PyTorch, CuPy, JAX and numba take it without a copy: ``torch.from_dlpack(a)``, ``torch.as_tensor(a)``,
    ``cupy.asarray(a)``, ``jax.dlpack.from_dlpack(a)``, ``numba.cuda.as_cuda_array(a)``. Nothing is copied to the host
    unless `to_host` is called.

    Attributes
    ----------
    address : int
        Of the first element.
    shape, strides : tuple of int
        As in NumPy; the strides are bytes.
    size : int
        Number of elements.
    dtype : numpy.dtype
        As in NumPy; bfloat16 is that of ml_dtypes if that was imported, else an object of the same name.
    owner : object
        What keeps the memory.
    stream : int
        The CUDA stream on which the memory is, or will have been, written: 1 for the legacy default stream.
    device : int
        The number of the GPU.
    read_only : bool
        Whether it may not be written to.
    """

    __slots__ = (
        *("_contiguous", "_strides", "address", "device", "dtype", "owner", "read_only", "shape", "size", "stream"),
    )

    def __init__(
        self,
        address: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...] | None,
        dtype: DType,
        owner: object,
        stream: int,
        device: int,
        read_only: bool = False,
    ) -> None:
        """Strides that are None are those of an array in C order."""
        self.address, self.shape, self._strides, self.dtype = address, shape, strides, dtype
        self.owner, self.stream, self.device, self.read_only = owner, stream, device, read_only
        self.size = math.prod(shape)
        self._contiguous = address % dtype.itemsize == 0 if strides is None else None

    @classmethod
    def empty(cls, shape: Sequence[int], dtype: DType, stream: int, device: int | None = None) -> DeviceArray:
        """A new array, C-contiguous; on the current device if none is named."""
        shape = tuple(shape)
        device = gpu().current_device() if device is None else device
        with gpu().current(device):
            owner = gpu().allocate(math.prod(shape) * dtype.itemsize, stream)
        return cls(owner.address, shape, None, dtype, owner, stream, device)

    @classmethod
    def from_host(cls, values: HostArray, stream: int, device: int | None = None) -> DeviceArray:
        """A copy of a NumPy array, which may be changed when this returns."""
        result = cls.empty(values.shape, values.dtype.newbyteorder("="), stream, device)
        with gpu().current(result.device):
            gpu().upload(result.address, np.require(values, result.dtype, ["C", "A"]), stream)
        return result

    # ---------------------------------------------------------------------------------------- as in NumPy

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes from element to element along each axis."""
        if self._strides is None:
            self._strides = contiguous(self.shape, self.dtype.itemsize)
        return self._strides

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return self.size * int(self.dtype.itemsize)

    @property
    def c_contiguous(self) -> bool:
        """Whether the elements lie one after another in C order, at a multiple of their size."""
        if self._contiguous is None:
            size = self.dtype.itemsize
            fits = all(
                n == 1 or stride == expected
                for n, stride, expected in zip(self.shape, self.strides, contiguous(self.shape, size), strict=True)
            )
            self._contiguous = self.address % size == 0 and (fits or not self.size)
        return self._contiguous

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of an array without axes")
        return self.shape[0]

    def __repr__(self) -> str:
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype}, device={self.device})"

    def transpose(self, order: Sequence[int]) -> DeviceArray:
        """The axes in another order."""
        if all(i == axis for i, axis in enumerate(order)):
            return self
        return self._view(tuple(self.shape[i] for i in order), tuple(self.strides[i] for i in order))

    def reshape(self, shape: Sequence[int]) -> DeviceArray:
        """Another shape of as many elements; a view, which only a C-contiguous array has, or else a copy."""
        shape = tuple(shape)
        if shape == self.shape and self.c_contiguous:
            return self
        if math.prod(shape) != self.size:
            raise ValueError(f"an array of shape {self.shape} has no shape {shape}")
        whole = self if self.c_contiguous else self.astype(self.dtype)
        return whole._view(shape, None)

    def broadcast_to(self, shape: Sequence[int]) -> DeviceArray:
        """A larger shape, in which elements are repeated."""
        shape, lead = tuple(shape), len(shape) - len(self.shape)
        if lead < 0 or any(n not in (1, m) for n, m in zip(self.shape, shape[lead:], strict=True)):
            raise ValueError(f"an array of shape {self.shape} does not broadcast to {shape}")
        axes = zip(self.shape, self.strides, shape[lead:], strict=True)
        return self._view(shape, (0,) * lead + tuple(stride if n == m else 0 for n, stride, m in axes))

    def astype(self, dtype: DType, copy: bool = True) -> DeviceArray:
        """A new C-contiguous array of a dtype; without `copy`, this array if it has that dtype."""
        if not copy and self.dtype == dtype:
            return self
        result = DeviceArray.empty(self.shape, dtype, self.stream, self.device)
        result.assign(self)
        return result

    def copy(self) -> DeviceArray:
        """A new C-contiguous array of the same elements."""
        return self.astype(self.dtype)

    def assign(self, other: DeviceArray) -> None:
        """Write the elements of another array of this shape, which shares no memory with this one; in this dtype."""
        if self.shape != other.shape:
            raise ValueError(f"an array of shape {other.shape} cannot be assigned to one of shape {self.shape}")
        if not self.size:
            return
        with gpu().current(self.device):
            source, target = other._elements(), self._elements()
            if source is None or target is None:
                _assign_bytes(self, other)
            else:
                copy(self.shape, source, target, self.stream)

    def to_host(self) -> HostArray:
        """A copy as a NumPy array; waits for what the array's stream has to do before.

        Raises
        ------
        TypeError
            NumPy knows no bfloat16 before ml_dtypes was imported.
        """
        if isinstance(self.dtype, BFloat16):
            raise TypeError(
                "NumPy has no bfloat16 of its own: import ml_dtypes first, or take .astype(np.float32).to_host()"
            )
        result = np.empty(self.shape, self.dtype)
        with gpu().current(self.device):
            whole = self if self.c_contiguous else self.astype(self.dtype)
            gpu().download(result, whole.address, self.stream)
        return result

    def on(self, stream: int) -> DeviceArray:
        """The same memory, to be used on another stream; nothing is waited for."""
        if stream == self.stream:
            return self
        view = self._view(self.shape, self._strides)
        view.stream = stream
        return view

    # ---------------------------------------------------------------------------------------- as others see it

    def __array__(self, *_: object, **__: object) -> HostArray:
        raise TypeError("a DeviceArray lives on a GPU and is not copied to the host unasked; use .to_host()")

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if self.dtype.name == "bfloat16":
            raise AttributeError(
                "__cuda_array_interface__ has no name for bfloat16; take it by DLPack, as in torch.from_dlpack(a)"
            )
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address if self.size else 0, self.read_only),
            "strides": None if self.c_contiguous else self.strides,
            "stream": self.stream,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self.device

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Unknown:
        if dl_device is not None and tuple(dl_device) != self.__dlpack_device__():
            raise BufferError(f"the array is on CUDA device {self.device}; use .to_host() for a copy on the host")
        if stream == 0:
            raise ValueError("stream is 0, which DLPack forbids: 1 is the legacy default stream, 2 the thread's")
        array = self.copy() if copy else self
        with gpu().current(self.device):
            if stream != -1:
                gpu().wait(LEGACY if stream is None else stream, self.stream)
        versioned = max_version is not None and max_version[0] >= 1
        if self.read_only and not versioned:
            raise BufferError("a read-only array needs DLPack 1.0 or newer; give max_version")
        return dlpack.make(array._description(), array, versioned)

    # ----------------------------------------------------------------------------------------

    def _view(self, shape: tuple[int, ...], strides: tuple[int, ...] | None) -> DeviceArray:
        return DeviceArray(
            self.address, shape, strides, self.dtype, self.owner, self.stream, self.device, self.read_only
        )

    def _description(self) -> dlpack.Description:
        return dlpack.Description(self.address, self.shape, self.strides, self.dtype, self.device, self.read_only)

    def _elements(self) -> tuple[int, tuple[int, ...], str] | None:
        """As `copy` takes it; None if some element is not at a multiple of its size."""
        size = self.dtype.itemsize
        if self.address % size or any(stride % size for stride in self.strides):
            return None
        return self.address, tuple(stride // size for stride in self.strides), self.dtype.name


def contiguous(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Strides in bytes of an array in C order."""
    strides = []
    for length in reversed(shape):
        strides.append(itemsize)
        itemsize *= length
    return tuple(reversed(strides))


def _assign_bytes(target: DeviceArray, source: DeviceArray) -> None:
    """`assign`, where elements are not at multiples of their size: byte after byte, converted by way of a copy."""
    if source.dtype != target.dtype:
        aligned = DeviceArray.empty(source.shape, source.dtype, target.stream, target.device)
        _copy_bytes(aligned, source, target.stream)
        source = aligned.astype(target.dtype)
    _copy_bytes(target, source, target.stream)


def _copy_bytes(target: DeviceArray, source: DeviceArray, stream: int) -> None:
    sides = [(array.address, (*array.strides, 1), "uint8") for array in (source, target)]
    copy((*source.shape, source.dtype.itemsize), sides[0], sides[1], stream)
