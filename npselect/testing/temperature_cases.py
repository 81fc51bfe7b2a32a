"""Questions of a temperature that is learned, or that each row has for itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from npselect.testing.aliases import Dtype
from npselect.testing.case import Case

__all__ = ["temperature_cases"]


def temperature_cases(dtype: Dtype, temp: float) -> Iterator[Case]:
    """With a temperature for each row or, without `row_temp`, such that the gradient of one does not cancel."""
    rng = np.random.default_rng(20161103)

    @np.errstate(all="ignore")
    def case(name: str, note: str, shape: tuple[int, ...], temps: tuple[int, ...] | None = None, **more: Any) -> Case:
        if more.pop("one_sign", False):  # and small logits, hence few roundings: 16 bits see it too
            w = g = rng.uniform(-1, 1, shape)
            octaves = (0, 2)
        else:
            w, g, octaves = 2 * rng.standard_normal(shape), rng.standard_normal(shape), (-2, 2)
        row_temp = None if temps is None else (temp * 2.0 ** rng.uniform(*octaves, temps)).astype(dtype)
        return Case(f"temp/{name}", note, w.astype(dtype), g.astype(dtype), temp, **more, row_temp=row_temp)

    one_sign = "the gradient of temp, in which nothing cancels"
    yield case("one sign", one_sign, (12, 4), one_sign=True)
    yield case("one row", one_sign, (1, 3), one_sign=True)
    yield case("many rows", "the gradient of temp is summed over all rows", (700, 5), one_sign=True)
    yield case("of a row", "every row by its own temperature", (64, 10), (64, 1))
    yield case("of a row, one sign", one_sign, (24, 4), (24, 1), one_sign=True)
    yield case("as many rows as choices", "temperatures of rows: the other axis has the same length", (16, 16), (16, 1))
    yield case("one in an array", "a temperature of shape (1, 1) is that of all rows", (12, 7), (1, 1), one_sign=True)
    yield case("of one row", "one row, one temperature", (1, 8), (1, 1), one_sign=True)
    yield case("of a row, again", "results depend on the arguments alone", (16, 6), (16, 1), flags=("again",))
    yield case("of a column", "temperatures along the axis of the rows", (9, 20), (1, 20), axis=0, one_sign=True)
    yield case("of both axes", "a temperature for each row of either axis", (4, 9, 5), (4, 1, 5), axis=1)
    shared = "a temperature that is shared along one axis, and its gradient summed along it"
    yield case("shared along the first axis", shared, (6, 5, 4), (1, 1, 4), axis=1, one_sign=True)
    yield case("shared along a middle axis", shared, (3, 6, 5), (3, 1, 1), axis=2, one_sign=True)
    offered = rng.random((32, 8)) < 0.6
    offered[:, 2] = True
    yield case("where=", "what is no candidate has no share", (32, 8), (32, 1), where=offered, one_sign=True)
    offered = offered[:10]
    yield case("where=, one temp", "what is no candidate has no share", (10, 8), where=offered, one_sign=True)
