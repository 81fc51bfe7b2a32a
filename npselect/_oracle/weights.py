"""What the formulas of the reference are made of: a softmax's weights, and cotangents measured from an entry."""

from __future__ import annotations

from typing import TypeVar

from npselect._oracle.numbers import Digits, Wide
from npselect._oracle.rows import Array, Rows

__all__ = ["Number", "exponentials", "from_selected"]

Number = TypeVar("Number", Wide, Digits)


def exponentials(number: type[Number], rows: Rows) -> tuple[Number, Number, Number]:
    """``z = w - w_m``, ``e = exp(z / temp)`` (0 at excluded entries) and ``s = sum(e)``."""
    z = number.of(rows.w) - number.of(rows.selected(rows.w))
    e = (z / number.of(rows.temp)).exp().replace(~rows.candidates, 0.0)
    return z, e, e.sum().replace(rows.index < 0, 1.0)


def from_selected(number: type[Number], rows: Rows, cotangent: Array) -> Number:
    """``h = g - g_m``, 0 at excluded entries."""
    return (number.of(cotangent) - number.of(rows.selected(cotangent))).replace(~rows.candidates, 0.0)
