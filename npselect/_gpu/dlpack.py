"""DLPack capsules of GPU memory, read and made: the C structures of https://dmlc.github.io/dlpack, by ctypes.

A capsule that is read is kept, not consumed: what it stands for lives as long as it does, and no deleter is called.
"""

from __future__ import annotations

import atexit
import ctypes
import itertools
import math
from typing import NamedTuple

import numpy as np

from npselect._dtypes import bfloat16
from npselect._gpu.aliases import DType, Unknown

__all__ = ["CUDA", "Description", "make", "read"]

CUDA = 2
_READ_ONLY = 1
_NAMES = b"dltensor", b"dltensor_versioned"
_BFLOAT, _BOOL = 4, 6
_CODES = {"i": 0, "u": 1, "f": 2, "b": _BOOL}


class Description(NamedTuple):
    """An array on a GPU."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in bytes
    dtype: DType
    device: int
    read_only: bool | None  # None if that was not said


class _Device(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_int32), ("number", ctypes.c_int32)]


class _DType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class _Managed(ctypes.Structure):
    _fields_ = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


class _Versioned(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    ]


_api = ctypes.pythonapi
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(("PyCapsule_New", _api))
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_raw_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_raw_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))


# ------------------------------------------------------------------------------------------------ read


def read(capsule: Unknown) -> Description:
    """What a capsule describes, which must be kept for as long as that is used."""
    name = next((name for name in _NAMES if _is_valid(capsule, name)), None)
    if name is None:
        raise TypeError(f"__dlpack__ returned a {type(capsule).__name__} that is no DLPack capsule")
    versioned = name == _NAMES[1]
    managed = (_Versioned if versioned else _Managed).from_address(_pointer(capsule, name))
    if versioned and managed.major != 1:
        raise BufferError(f"DLPack {managed.major}.{managed.minor} is not known here; 0 and 1 are")
    tensor = managed.tensor
    dtype = _dtype(tensor.dtype)
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    if tensor.strides:
        strides = tuple(dtype.itemsize * tensor.strides[i] for i in range(tensor.ndim))
    else:
        strides = tuple(dtype.itemsize * math.prod(shape[i + 1 :]) for i in range(tensor.ndim))
    read_only = bool(managed.flags & _READ_ONLY) if versioned else None
    address = (tensor.data or 0) + tensor.byte_offset
    return Description(address, shape, strides, dtype, tensor.device.number, read_only)


def _dtype(given: _DType) -> DType:
    if given.lanes == 1 and (given.code, given.bits) == (_BFLOAT, 16):
        return bfloat16()
    kind = next((kind for kind, code in _CODES.items() if code == given.code), None)
    if kind is None or given.lanes != 1 or given.bits % 8:
        raise TypeError(f"DLPack's dtype {given.code} of {given.bits} bits is none that npselect takes")
    return np.dtype(f"{kind}{given.bits // 8}")


# ------------------------------------------------------------------------------------------------ make

_exported: dict[int, tuple[Unknown, ...]] = {}  # by the number in a structure's context: what lives until it is deleted
_numbers = itertools.count(1)


def _delete(managed: int) -> None:
    _exported.pop(_Managed.from_address(managed).context, None)


def _delete_versioned(managed: int) -> None:
    _exported.pop(_Versioned.from_address(managed).context, None)


def _discard(capsule: int) -> None:
    """Of a capsule that nobody has consumed; a consumer renames it."""
    for name, structure in zip(_NAMES, (_Managed, _Versioned), strict=True):
        if _raw_is_valid(capsule, name):
            _exported.pop(structure.from_address(_raw_pointer(capsule, name)).context, None)


@atexit.register
def _let_go() -> None:
    """Keep what consumers still have when the interpreter ends, without a deleter: none could be called any more."""
    for kept in _exported.values():
        kept[0].deleter = None
        _api.Py_IncRef(ctypes.py_object(kept))


_callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_DELETERS = _callback(_delete), _callback(_delete_versioned)
_DISCARD = _callback(_discard)


def make(array: Description, owner: object, versioned: bool) -> Unknown:
    """A capsule; `owner` lives until its consumer is done."""
    ndim, itemsize = len(array.shape), array.dtype.itemsize
    lengths = ctypes.c_int64 * ndim
    shape, strides = lengths(*array.shape), lengths(*(stride // itemsize for stride in array.strides))
    code = _BFLOAT if array.dtype.name == "bfloat16" else _CODES[array.dtype.kind]
    managed = _Versioned() if versioned else _Managed()
    managed.tensor = _Tensor(
        array.address or None,
        _Device(CUDA, array.device),
        ndim,
        _DType(code, 8 * itemsize, 1),
        ctypes.cast(shape, ctypes.POINTER(ctypes.c_int64)),
        ctypes.cast(strides, ctypes.POINTER(ctypes.c_int64)),
        0,
    )
    managed.context = next(_numbers)
    managed.deleter = ctypes.cast(_DELETERS[versioned], ctypes.c_void_p).value
    if isinstance(managed, _Versioned):
        managed.major, managed.minor, managed.flags = 1, 0, _READ_ONLY if array.read_only else 0
    _exported[managed.context] = managed, shape, strides, owner
    return _new(ctypes.addressof(managed), _NAMES[versioned], ctypes.cast(_DISCARD, ctypes.c_void_p))
