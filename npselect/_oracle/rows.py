"""A row before the formulas and after them: what takes part, what is selected, and what a row without a choice holds.

The states of a row without a choice are declared here once more, as numbers that every tier writes: nothing is shared
with the kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["EMPTY", "INVALID", "REFUSED", "Indices", "Rows", "choose", "cotangent", "finish", "given"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]

EMPTY = -1  # `where` offers nothing: a row of zeros
INVALID = -2  # NaN or +inf among the candidates, or nothing but -inf: a row of NaN
REFUSED = -3  # an index that names no candidate


@dataclass(frozen=True)
class Rows:
    """Rows after the choice, in float64; what is not a candidate no longer matters."""

    w: Floats  # (rows, K); w_m stands in at excluded entries and in rows without a choice
    candidates: Bools  # (rows, K): entries that take part
    index: Indices  # (rows, 1): m, or EMPTY or INVALID
    temp: Floats  # (rows, 1)

    def __getitem__(self, rows: slice) -> Rows:
        return Rows(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def selected(self, values: Array) -> Array:
        """The selected entry of each row, shape (rows, 1)."""
        return np.take_along_axis(values, np.maximum(self.index, 0), axis=-1)


def choose(logits: Array, where: Array | None, temp: Array | None = None) -> Rows:
    """The rows with their candidates, and the largest of each, the first of equals."""
    w = logits.astype(np.float64)
    rows = len(w)
    if where is not None:
        w = np.where(where, w, -np.inf)
    empty = np.zeros((rows, 1), np.bool_) | (False if where is None else ~np.any(where, axis=-1, keepdims=True))
    candidates = w != -np.inf
    spoilt = np.any(~(w < np.inf), axis=-1, keepdims=True) | ~np.any(candidates, axis=-1, keepdims=True)
    candidates &= ~spoilt & ~empty
    w = np.where(candidates, w, -np.inf)
    m = np.argmax(w, axis=-1, keepdims=True)
    selects = np.any(candidates, axis=-1, keepdims=True)
    w = np.where(candidates, w, np.where(selects, np.take_along_axis(w, m, axis=-1), 0.0))
    temps = np.ones((rows, 1)) if temp is None else np.broadcast_to(temp.astype(np.float64)[:, None], (rows, 1))
    return Rows(w, candidates, np.where(empty, EMPTY, np.where(spoilt, INVALID, m)), temps)


def given(index: Indices, rows: Rows) -> Indices:
    """What an index from elsewhere, of shape (rows, 1), selects: a candidate, or why none."""
    inside = (index >= EMPTY) & (index < rows.w.shape[-1])
    named = np.take_along_axis(rows.candidates, np.where(inside, index, 0), axis=-1) & (index >= 0)
    accepted = inside & np.where(rows.index == EMPTY, index == EMPTY, named | (rows.index == INVALID))
    return np.where(accepted, np.where(rows.index == INVALID, INVALID, index), REFUSED)


def cotangent(values: Array, rows: Rows) -> tuple[Floats, Bools]:
    """A cotangent in float64, 0 at excluded entries, and whether a row's candidates hold finite values only."""
    g = np.where(rows.candidates, values.astype(np.float64), 0.0)
    finite = np.all(np.isfinite(g), axis=-1, keepdims=True)
    return np.where(finite, g, 0.0), finite


def finish(rounded: Floats, rows: Rows, out: Array, finite: Bools | bool = True) -> None:
    """Exact zeros at excluded entries, NaN where the row calls for it."""
    rounded = np.where(rows.candidates, rounded, 0.0)
    rounded[rows.candidates & ~np.asarray(finite)] = np.nan
    out[...] = np.where(rows.index == INVALID, np.nan, rounded)
