"""Rows whose results are not computed: 0 or NaN, by what the row holds."""

from __future__ import annotations

import numpy as np

from npselect._arithmetic.aliases import Index, Logits, Out, Row, Scratch, Where
from npselect._arithmetic.half import narrow, widen
from npselect._arithmetic.primitives import formula
from npselect._arithmetic.steps import INVALID

__all__ = ["fill_degenerate_row", "fill_nan_at_candidates"]


@formula
def fill_degenerate_row(out: Out, r: Row, state: Index, scratch: Scratch) -> None:
    """A row with nothing selected: zeros if it is EMPTY, NaN if it is INVALID."""
    row = out[r]
    value = narrow(scratch.dtype.type(np.nan if state == INVALID else 0.0), out)
    for j in range(len(row)):
        row[j] = value


@formula
def fill_nan_at_candidates(out: Out, r: Row, logits: Logits, where: Where, scratch: Scratch) -> None:
    """A row whose cotangent is not finite: NaN at the candidates, 0 at excluded entries."""
    row, values = out[r], logits[r]
    for j in range(len(row)):
        excluded = widen(values[j]) == -np.inf
        if len(where) > 0:
            excluded = excluded or not where[r if len(where) > 1 else 0, j]
        row[j] = narrow(scratch.dtype.type(0.0 if excluded else np.nan), out)
