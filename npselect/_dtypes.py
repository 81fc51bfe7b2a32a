"""The dtypes that npselect computes with.

NumPy has no bfloat16 of its own: arrays of it have the dtype of `ml_dtypes`. npselect imports that package only for a
caller who asks for bfloat16 by name, or gives a tensor of it, of PyTorch on the host. An array on a GPU may be bfloat16
in a process that has not imported it; there `BFloat16` stands in for the dtype.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from functools import cache
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "Array",
    "BFloat16",
    "DType",
    "FLOATING",
    "Shape",
    "bfloat16",
    "castable",
    "common",
    "computed_in",
    "dtype_name",
    "is_floating",
    "ml_dtypes_bfloat16",
]

Array: TypeAlias = npt.NDArray[Any]
DType: TypeAlias = Any  # numpy.dtype; on a GPU BFloat16, too
Shape: TypeAlias = tuple[int, ...]

_COMPUTED_IN = {"float16": "float32", "bfloat16": "float32", "float32": "float32", "float64": "float64"}
FLOATING = tuple(_COMPUTED_IN)


class BFloat16:
    """The dtype bfloat16, as far as npselect looks at dtypes; equal to every other that is named so."""

    name = "bfloat16"
    kind = "V"  # as in ml_dtypes
    itemsize = 2
    isnative = True

    def newbyteorder(self, order: str) -> BFloat16:  # noqa: ARG002
        return self

    def __eq__(self, other: object) -> bool:
        return getattr(other, "name", None) == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return self.name


def bfloat16() -> DType:
    """That of ml_dtypes, if somebody has imported it."""
    loaded = sys.modules.get("ml_dtypes")
    return BFloat16() if loaded is None else np.dtype(loaded.bfloat16)


def ml_dtypes_bfloat16() -> DType:
    """That of ml_dtypes, imported for somebody who needs it; ModuleNotFoundError if it is missing."""
    try:
        return np.dtype(import_module("ml_dtypes").bfloat16)
    except ImportError:
        raise ModuleNotFoundError("dtype 'bfloat16' needs the package ml_dtypes: pip install ml_dtypes") from None


def dtype_name(dtype: DType) -> str:
    """What a dtype is called, be it NumPy's, its name or a framework's: "float32" for ``torch.float32``, too."""
    try:
        return str(np.dtype(dtype).name)
    except (TypeError, ValueError):  # str(torch.float32) is "torch.float32"; tf.float32 has a name
        return str(getattr(dtype, "name", dtype)).rpartition(".")[-1]


@cache
def is_floating(dtype: DType) -> bool:
    """Whether a dtype is one of the four that are computed with."""
    return dtype.name in FLOATING


@cache
def computed_in(dtype: DType) -> DType:
    """The type that a floating dtype is computed in; KeyError for every other dtype."""
    return np.dtype(_COMPUTED_IN[dtype.name])


def common(dtypes: Collection[DType]) -> DType:
    """The dtype that floating dtypes of this machine's byte order have in common; TypeError where there is none."""
    different = set(dtypes)
    if len(different) == 1 or len({dtype.name for dtype in different}) == 1:
        return different.pop()
    if any(isinstance(dtype, BFloat16) for dtype in different):
        wide = {dtype for dtype in different if dtype.itemsize > 2}
        if not wide or "float16" in {dtype.name for dtype in different}:
            raise TypeError("float16 and bfloat16 have no dtype in common")
        different = wide
    return np.result_type(*different)


def castable(dtype: DType, other: DType) -> bool:
    """Whether NumPy would cast numbers of one dtype to the other, of the same kind, when it assigns them."""
    if isinstance(other, BFloat16):
        return True
    if isinstance(dtype, BFloat16):
        return other.name in ("bfloat16", "float32", "float64")
    return np.can_cast(dtype, other, "same_kind")
