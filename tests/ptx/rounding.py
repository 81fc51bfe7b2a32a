"""What fractions are rounded to, by the definition of the formats."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

__all__ = ["is_nearest", "nearest"]

_FORMATS = {  # precision, lowest exponent of normal numbers, highest
    "float16": (11, -14, 15),
    "bfloat16": (8, -126, 127),
    "float32": (24, -126, 127),
    "float64": (53, -1022, 1023),
}


def nearest(value: Fraction, dtype: str) -> Fraction | float:
    """The number of a format that is nearest to a fraction other than 0, ties to even; or infinity."""
    precision, lowest, highest = _FORMATS[dtype]
    exponent = abs(value.numerator).bit_length() - value.denominator.bit_length()
    exponent -= abs(value) < Fraction(2) ** exponent
    place = Fraction(2) ** (max(exponent, lowest) - precision + 1)
    rounded = round(value / place) * place  # Python rounds fractions that are halfway to even
    return rounded if abs(rounded) < Fraction(2) ** (highest + 1) else math.inf if rounded > 0 else -math.inf


def is_nearest(result: Any, exact: Fraction) -> bool:
    """Whether a NumPy number is what an exact value other than 0 is rounded to; the sign counts where that is 0."""
    wanted = nearest(exact, result.dtype.name)
    if wanted == 0:
        return float(result) == 0 and bool(np.signbit(result)) == (exact < 0)
    return float(result) == wanted  # Python compares floats with fractions exactly
