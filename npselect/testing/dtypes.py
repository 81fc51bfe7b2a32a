"""The dtypes that may be asked for: NumPy's, their names, and those of frameworks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from npselect._dtypes import dtype_name, ml_dtypes_bfloat16
from npselect.testing.aliases import Dtype

__all__ = ["DTYPES", "floating_dtype", "rounded", "times"]

DTYPES = ("float16", "bfloat16", "float32", "float64")


def floating_dtype(dtype: npt.DTypeLike) -> Dtype:
    """The dtype of `DTYPES` that is meant, by its name, as NumPy's or as a framework's, such as ``torch.float32``.

    Raises
    ------
    ValueError
        It is none of them.
    ModuleNotFoundError
        bfloat16 is asked for, and the package ml_dtypes is missing.
    """
    name = dtype_name(dtype)
    if name not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; it takes one of {', '.join(map(repr, DTYPES))}")
    return ml_dtypes_bfloat16() if name == "bfloat16" else np.dtype(name)


def rounded(temp: float, dtype: Dtype) -> float:
    """The number of `dtype` that `temp` means there, so that nobody computes with another one."""
    with np.errstate(all="ignore"):
        return float(np.asarray(temp, np.float64).astype(dtype))


def times(factor: float, temp: float, dtype: Dtype) -> float:
    """Another temperature: so many times as large or, at the end of the range, as small."""
    other = rounded(factor * temp, dtype)
    return other if 0 < other < np.inf else rounded(temp / factor, dtype)
