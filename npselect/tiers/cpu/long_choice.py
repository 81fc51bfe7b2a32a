"""Rows of 32 choices and more: which candidate is selected.

A row is read in SIMD vectors of sixteen entries. The last one overlaps the one before, so that no load is masked.
"""

from __future__ import annotations

import numpy as np

from npselect._arithmetic.aliases import Column, Index, Indices, Logits, Number, Out, Row, Scratch, Vector, Where
from npselect._arithmetic.half import narrow, widen, widen_vector
from npselect._arithmetic.primitives import bits_of, formula, inlined, select
from npselect._arithmetic.simd import WIDTH, any_lane, broadcast, first_true_lane, max_lane, nan_mask
from npselect._arithmetic.steps import EMPTY, INVALID, checked_index, log, quick_log
from npselect.tiers.cpu.compile import row_kernel
from npselect.tiers.cpu.fills import fill_degenerate_row
from npselect.tiers.cpu.loads import clear_rows, load_vector, prefetch

__all__ = [
    "candidates",
    "choice_rows",
    "choose",
    "count_candidates",
    "index_rows",
    "log_rows",
    "mask_at_rows",
    "mask_rows",
]

_BLOCK = 512  # columns: the largest one is searched for in its block alone


@inlined
def candidates(logits: Logits, where: Where, r: Row, j: Column, like: Scratch) -> Vector:
    """Sixteen logits of row r from column j on in the compute type, -inf at excluded entries."""
    x = widen_vector(load_vector(logits, r, j, like), logits)
    if len(where) > 0:
        x = select(_offered(where, r, j, like) != 0, x, like.dtype.type(-np.inf))
    return x


@inlined
def _offered(where: Where, r: Row, j: Column, like: Scratch) -> Vector:
    """Sixteen entries of `where` as integers."""
    return bits_of(load_vector(where, r if len(where) > 1 else 0, j, like))


@inlined
def choose(logits: Logits, where: Where, r: Row, like: Scratch) -> tuple[Index, Number, Number]:
    """The selected candidate's index, or EMPTY, or INVALID; its logit; the row's least, -inf if any is excluded.

    The first pass finds the largest logit and its block. The second looks for the logit in that block.
    """
    infinity, n = like.dtype.type(np.inf), logits.shape[1]
    lows = broadcast(infinity)
    invalid = nan_mask(lows, lows)
    offered = invalid
    top, block = -infinity, 0
    for start in range(0, n, _BLOCK):
        a, b = broadcast(-infinity), broadcast(-infinity)
        for j in range(start, min(start + _BLOCK, n), 2 * WIDTH):
            i = min(j, n - 2 * WIDTH)
            prefetch(logits, r, i)
            prefetch(logits, r, i + WIDTH)
            x, y = candidates(logits, where, r, i, like), candidates(logits, where, r, i + WIDTH, like)
            if len(where) > 0:
                offered = offered | _offered(where, r, i, like) | _offered(where, r, i + WIDTH, like)
            invalid = invalid | nan_mask(x, y)
            a, b = select(x > a, x, a), select(y > b, y, b)
            lows = select(x < lows, x, lows)
            lows = select(y < lows, y, lows)
        found = max_lane(select(a > b, a, b))
        if found > top:
            top, block = found, start
    if len(where) > 0 and not any_lane(offered != 0):
        return EMPTY, infinity, infinity
    if any_lane(invalid != 0) or not abs(top) < infinity:
        return INVALID, infinity, infinity
    while block < n and not any_lane(candidates(logits, where, r, min(block, n - WIDTH), like) == top):
        block += WIDTH
    i = min(block, n - WIDTH)
    m = i + first_true_lane(candidates(logits, where, r, i, like) == top)
    m = min(m, n - 1)  # nothing is found if another thread writes to the row meanwhile
    return m, widen(logits[r, m]), -max_lane(-lows)


@formula
def count_candidates(logits: Logits, where: Where, r: Row) -> Index:
    """How many entries of a row take part."""
    values, found = logits[r], 0
    for j in range(len(values)):
        offered = len(where) == 0 or where[r if len(where) > 1 else 0, j]
        found += offered and widen(values[j]) > -np.inf
    return found


@row_kernel(buffers=1)
def index_rows(logits: Logits, where: Where, out: Out, start: Row, stop: Row, scratch: Scratch) -> None:
    """Index of the selected candidate, -1 where nothing is selected."""
    for r in range(start, stop):
        m, _, _ = choose(logits, where, r, scratch)
        out[r] = max(m, -1)


@row_kernel(buffers=1)
def mask_rows(logits: Logits, where: Where, out: Out, start: Row, stop: Row, scratch: Scratch) -> None:
    """The exact one-hot of the selected candidate."""
    for r in range(start, stop):
        m, _, _ = choose(logits, where, r, scratch)
        clear_rows(out, r, r)
        if m >= 0:
            out[r, m] = narrow(scratch.dtype.type(1), out)
        elif m == INVALID:
            fill_degenerate_row(out, r, m, scratch)


@row_kernel(buffers=1)
def choice_rows(
    logits: Logits, index: Indices, where: Where, out: Indices, start: Row, stop: Row, scratch: Scratch
) -> None:
    """The selected candidate's index, EMPTY or INVALID; with an `index` for each row, that one, checked."""
    n = logits.shape[1]
    for r in range(start, stop):
        m, _, _ = choose(logits, where, r, scratch)
        if len(index) > 0:
            j = min(max(index[r], 0), n - 1)
            is_candidate = widen(logits[r, j]) > -np.inf
            if len(where) > 0:
                is_candidate = is_candidate and where[r if len(where) > 1 else 0, j]
            m = checked_index(index[r], n, m, is_candidate)
        out[r] = m


@row_kernel(buffers=1)
def mask_at_rows(out: Out, choice: Indices, start: Row, stop: Row, scratch: Scratch) -> None:
    """The one-hot of each row's choice; zeros if that is EMPTY, NaN if it is INVALID. For short rows too."""
    for r in range(start, stop):
        clear_rows(out, r, r)
        if choice[r] >= 0:
            out[r, choice[r]] = narrow(scratch.dtype.type(1), out)
        elif choice[r] == INVALID:
            fill_degenerate_row(out, r, INVALID, scratch)


@row_kernel(buffers=1)
def log_rows(x: Logits, out: Out, start: Row, stop: Row, scratch: Scratch) -> None:  # noqa: ARG001
    """The logarithm of each entry, rounded to the dtype of the results. For short rows too."""
    for r in range(start, stop):
        values, row = x[r], out[r]
        for j in range(len(row)):
            row[j] = quick_log(values[j]) if out.itemsize == 4 else log(values[j])
