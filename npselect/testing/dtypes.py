"""The dtypes that may be asked for; bfloat16 by its name."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["DTYPES", "floating_dtype", "rounded", "times"]

DTYPES = ("float16", "bfloat16", "float32", "float64")


def floating_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """The dtype of `DTYPES` that is meant.

    Raises
    ------
    ValueError
        It is none of them.
    ModuleNotFoundError
        bfloat16 is asked for by name, and the package ml_dtypes is missing.
    """
    if isinstance(dtype, str) and dtype == "bfloat16":
        try:
            bfloat16: np.dtype[Any] = np.dtype(import_module("ml_dtypes").bfloat16)
            return bfloat16
        except ImportError:
            raise ModuleNotFoundError("dtype 'bfloat16' needs the package ml_dtypes: pip install ml_dtypes") from None
    try:
        form: np.dtype[Any] | None = np.dtype(dtype)
    except TypeError:
        form = None
    if form is None or form.name not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; it takes one of {', '.join(map(repr, DTYPES))}")
    return form


def rounded(temp: float, dtype: np.dtype[Any]) -> float:
    """The number of `dtype` that `temp` means there, so that nobody computes with another one."""
    with np.errstate(over="ignore"):
        return float(np.asarray(temp, np.float64).astype(dtype))


def times(factor: float, temp: float, dtype: np.dtype[Any]) -> float:
    """Another temperature: so many times as large or, at the end of the range, as small."""
    other = rounded(factor * temp, dtype)
    return other if 0 < other < np.inf else rounded(temp / factor, dtype)
