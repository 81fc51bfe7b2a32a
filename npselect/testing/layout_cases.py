"""Cases whose arrays come in every order in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from npselect.testing.aliases import Array, Dtype
from npselect.testing.case import Case
from npselect.testing.layouts import laid_out

__all__ = ["layout_cases"]


def layout_cases(dtype: Dtype, temp: float) -> Iterator[Case]:
    """Cases whose arrays lie otherwise than in C order; in others, they are as numbers are."""
    rows, choices = 32, 12
    rng = np.random.default_rng(64529)
    logits, grad_mask = (scale * rng.standard_normal((rows, choices)) for scale in (3.0, 1.0))
    c_order, columns = (choices, 1), (1, rows)

    def case(name: str, note: str, w: tuple[int, int], g: tuple[int, int]) -> Case:
        def array(values: Array, strides: tuple[int, int]) -> Array:
            same = tuple(slice(1) if stride == 0 else slice(None) for stride in strides)
            return laid_out(np.broadcast_to(values[same], values.shape).astype(dtype), strides)

        return Case(f"layout/{name}", note, array(logits, w), array(grad_mask, g), temp)

    yield case("transposed logits", "logits in Fortran order, grad_mask in C order", columns, c_order)
    yield case("transposed cotangent", "grad_mask in Fortran order, as of a transposed mask", c_order, columns)
    yield case("one row for all", "grad_mask is broadcast along the rows: of a stride of 0", c_order, (0, 1))
    yield case("one number a row", "grad_mask is broadcast along the choices, as of a sum", c_order, (1, 0))
    yield case("one number", "grad_mask is one number in memory, as of the sum of all", c_order, (0, 0))
    yield case("one row of logits", "logits are broadcast along the rows", (0, 1), c_order)
    yield case("cut out", "columns of larger arrays, as of concatenating", (choices + 3, 1), (choices + 5, 1))
    yield case("every other", "every other number of every other row", (4 * choices, 2), (6 * choices, 3))
    backwards = case("backwards", "negative strides", (-choices, -1), (choices, -1))
    yield replace(backwards, flags=("numpy",))
