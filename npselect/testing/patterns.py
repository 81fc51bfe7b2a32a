"""Floats as text that keeps every bit: ``"f32:3f800000"``."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from npselect.testing.aliases import Array, Dtype, Json

__all__ = ["patterns", "values"]


class _Pattern(NamedTuple):
    """How the floats of a dtype are written: a prefix and hexadecimal digits; infinity, and the NaN of results."""

    prefix: str
    digits: int
    infinity: int
    nan: int

    @property
    def unsigned(self) -> Dtype:
        return np.dtype(f"u{self.digits // 2}")


_PATTERNS = {
    "float16": _Pattern("f16:", 4, 0x7C00, 0x7E00),
    "bfloat16": _Pattern("bf16:", 4, 0x7F80, 0x7FC0),
    "float32": _Pattern("f32:", 8, 0x7F800000, 0x7FC00000),
    "float64": _Pattern("f64:", 16, 0x7FF0000000000000, 0x7FF8000000000000),
}


def patterns(array: Array, *, canonical: bool = False) -> list[str]:
    """The bit patterns of an array, flat, in C order.

    Parameters
    ----------
    array : ndarray
        Of one of the four dtypes.
    canonical : bool
        Whether every NaN is written as the positive quiet one without a payload.

    Returns
    -------
    list of str

    Examples
    --------
    >>> import numpy as np
    >>> from npselect.testing.patterns import patterns
    >>> patterns(np.array([1.0, -0.0], np.float32))
    ['f32:3f800000', 'f32:80000000']
    """
    form = _PATTERNS[array.dtype.name]
    bits = np.ascontiguousarray(array).reshape(-1).view(form.unsigned)
    if canonical:
        without_sign = bits & (~bits.dtype.type(0) >> 1)
        bits = np.where(without_sign > form.infinity, bits.dtype.type(form.nan), bits)
    return [f"{form.prefix}{number:0{form.digits}x}" for number in bits.tolist()]


def values(written: list[Json], dtype: Dtype) -> Array:
    """The array, of one dimension, whose bit patterns these are.

    Parameters
    ----------
    written : list of str
        As `patterns` returns it.
    dtype : dtype
        That they must have.

    Returns
    -------
    ndarray

    Raises
    ------
    ValueError
        One of them is no pattern of that dtype.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect.testing.patterns import values
    >>> values(["f16:3c00", "f16:fc00"], np.dtype(np.float16))
    array([  1., -inf], dtype=float16)
    """
    form = _PATTERNS[dtype.name]
    fits = re.compile(f"{form.prefix}[0-9a-f]{{{form.digits}}}").fullmatch
    for place, item in enumerate(written):
        if not isinstance(item, str) or fits(item) is None:
            raise ValueError(f"[{place}] is {item!r}; expected '{form.prefix}' and {form.digits} digits of 0-9a-f")
    digits = "".join(item[len(form.prefix) :] for item in written)
    return np.frombuffer(bytes.fromhex(digits), form.unsigned.newbyteorder(">")).astype(form.unsigned).view(dtype)
