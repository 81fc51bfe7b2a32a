"""Arrays of other libraries on a GPU, seen as `DeviceArray` without a copy, and the streams that they are used on.

=====================  ==========================  ====================================================
the array              what it is read by          the caller's stream
=====================  ==========================  ====================================================
DeviceArray            itself                      its own
torch.Tensor           its attributes              torch's current one on that device
CuPy, numba, ...       __cuda_array_interface__ 3  the one that the interface names, if it names one
JAX, ...               DLPack                      unknown: the producer is told which one is used here
others                 __cuda_array_interface__ 2  unknown; ready on the legacy default stream
=====================  ==========================  ====================================================

A tensor that requires grad is read as its `detach()` would be: npselect records nothing for anybody's autograd.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from npselect._dtypes import bfloat16
from npselect._gpu import dlpack
from npselect._gpu.aliases import DType, ForeignArray, Unknown
from npselect._gpu.array import DeviceArray
from npselect._gpu.driver import LEGACY, Allocation, gpu

__all__ = ["Foreign", "from_foreign", "where_it_is"]


class Foreign(NamedTuple):
    """What was found of an array."""

    view: DeviceArray
    stream: int | None  # the caller's, where the array says or implies one
    borrowed: bool  # whether its producer may take the memory back as soon as the array is let go of


def from_foreign(values: ForeignArray, name: str, stream: int = LEGACY) -> Foreign:
    """An array on a GPU, of whatever library; `stream` is where it will be used, for those that ask."""
    try:
        return where_it_is(values) or _from_dlpack(values, stream)
    except Exception as error:
        error.add_note(f"{name}, a {type(values).__name__}, cannot be read as an array on a GPU")
        raise


def where_it_is(values: ForeignArray) -> Foreign | None:
    """An array that tells where it is; None for one that is only lent, by DLPack."""
    if isinstance(values, DeviceArray):
        if isinstance(values.owner, Allocation):
            values.owner.check()
        return Foreign(values, values.stream, False)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(values, torch.Tensor):
        return _from_torch(torch, values)
    interface = _interface(values)
    if interface is not None and (interface["version"] >= 3 or not hasattr(values, "__dlpack__")):
        return _from_interface(interface, values)
    return None


def _from_torch(torch: Unknown, tensor: ForeignArray) -> Foreign:
    if tensor.layout != torch.strided or tensor.is_neg():
        raise TypeError("a torch tensor must be dense, without a negative bit; use .to_dense() or .resolve_neg()")
    dtype = _named(_torch_name(tensor.dtype))
    device = tensor.get_device()
    stream = _torch_stream(torch)(device) or LEGACY
    strides = None if tensor.is_contiguous() else tuple(dtype.itemsize * step for step in tensor.stride())
    return Foreign(
        DeviceArray(tensor.data_ptr(), tuple(tensor.shape), strides, dtype, tensor, stream, device), stream, False
    )


@cache
def _torch_name(dtype: DType) -> str:
    return str(dtype).removeprefix("torch.")


@cache
def _torch_stream(torch: Unknown) -> Callable[[int], int]:
    """What tells torch's current stream on a device; the first is what Triton asks, and makes no object of it."""
    quick = getattr(torch._C, "_cuda_getCurrentRawStream", None)
    return quick or (lambda device: int(torch.cuda.current_stream(device).cuda_stream))


def _interface(values: ForeignArray) -> Unknown:
    """`__cuda_array_interface__`, where the array has one and its numbers have a name there."""
    try:
        return values.__cuda_array_interface__
    except Exception:
        if hasattr(values, "__dlpack__"):  # JAX has no name for bfloat16
            return None
        raise


def _from_interface(interface: Unknown, values: ForeignArray) -> Foreign:
    if interface.get("mask") is not None:
        raise TypeError("an array with a mask would lose it; give the array without, and where=")
    typestr = interface["typestr"]
    dtype = bfloat16() if _is_bfloat16(typestr, values) else _dtype(typestr)
    if not dtype.isnative:
        raise TypeError(f"dtype {typestr} is of another byte order than the GPU's")
    shape, strides = tuple(interface["shape"]), interface.get("strides")
    strides = None if strides is None else tuple(strides)
    address, read_only = interface["data"]
    stream = interface.get("stream")
    if stream is not None:
        stream = int(stream) or LEGACY
    device = gpu().device_of(address) if address else _number(values)
    view = DeviceArray(address, shape, strides, dtype, (values, interface), stream or LEGACY, device, bool(read_only))
    return Foreign(view, stream, False)


@cache
def _dtype(typestr: str) -> DType:
    return np.dtype(typestr)


def _from_dlpack(values: ForeignArray, stream: int) -> Foreign:
    interface = _interface(values)
    _, number = values.__dlpack_device__()
    with gpu().current(number):
        try:
            capsule = values.__dlpack__(stream=stream, max_version=(1, 0))
        except TypeError:  # a producer from before DLPack had versions
            capsule = values.__dlpack__(stream=stream)
    found = dlpack.read(capsule)
    read_only = interface["data"][1] if interface is not None else found.read_only
    view = DeviceArray(
        found.address,
        found.shape,
        found.strides,
        found.dtype,
        (values, capsule),
        stream,
        number,
        read_only is not False,  # the first DLPack did not say, and JAX's arrays must not be written to
    )
    return Foreign(view, None, True)


def _is_bfloat16(typestr: str, values: ForeignArray) -> bool:
    return typestr.endswith("V2") and str(getattr(values, "dtype", "")).endswith("bfloat16")


def _named(name: str) -> DType:
    return bfloat16() if name == "bfloat16" else np.dtype(name)


def _number(values: ForeignArray) -> int:
    """The device of an array without an address: an empty one."""
    asked = getattr(values, "__dlpack_device__", None)
    return int(asked()[1]) if asked is not None else 0
