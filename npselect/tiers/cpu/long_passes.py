"""What the kernels for long rows share: a thread's scratch memory, and the numbers that each step puts there.

Scratch memory has the lanes of the sums, then as many buffers as a kernel declares. A buffer has one number for each
entry of the row. For a row that is too long for that, a buffer has the numbers of a segment, and the row is read in
steps of a segment.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from npselect._arithmetic.aliases import (
    Choices,
    Column,
    Constants,
    Flag,
    GradMask,
    Logits,
    Number,
    Row,
    Scratch,
    Values,
    Where,
)
from npselect._arithmetic.exponential import Temperature, is_near, prepared
from npselect._arithmetic.half import widen_vector
from npselect._arithmetic.order import LANES, SEGMENT
from npselect._arithmetic.primitives import inlined, select
from npselect._arithmetic.simd import WIDTH, broadcast, store
from npselect._arithmetic.steps import exponent, from_selected, near_weight, weight
from npselect.tiers.cpu.loads import load_vector, prefetch
from npselect.tiers.cpu.long_choice import candidates

__all__ = [
    "BUFFERS",
    "WeightedRow",
    "end_of",
    "fill_exponents",
    "fill_from_selected",
    "fill_weights",
    "capacity_of",
    "scratch_size",
    "buffer_size",
    "steps_of",
    "temperature",
    "weighted",
]


BUFFERS = 2 * LANES  # where the buffers start, behind the lanes


def buffer_size(choices: int, buffers: int, itemsize: int, memory: int) -> int:
    """The numbers of each buffer: a row in whole vectors if all fit `memory` bytes, else a segment and a vector."""
    size = -(-choices // WIDTH) * WIDTH
    return size if buffers * size * itemsize <= memory else min(size, SEGMENT + WIDTH)


def scratch_size(choices: int, buffers: int, itemsize: int, memory: int) -> int:
    """The numbers that a kernel's scratch memory has."""
    return BUFFERS + buffers * buffer_size(choices, buffers, itemsize, memory)


@inlined
def capacity_of(scratch: Scratch, buffers: int) -> Choices:
    """The numbers of each buffer."""
    return (len(scratch) - BUFFERS) // buffers


@inlined
def steps_of(n: Choices, capacity: Choices) -> Choices:
    """In how many steps a row of n entries is read: one, or segments, the last of which may have a vector more."""
    return 1 if n <= capacity else (n - WIDTH) // SEGMENT + 1


@inlined
def end_of(n: Choices, step: Choices, steps: Choices) -> Column:
    """The column after the last of a step, which starts at column ``step * SEGMENT``."""
    return n if step == steps - 1 else (step + 1) * SEGMENT


@inlined
def _pad(first: Column, end: Column, x: Values) -> Choices:
    """How many numbers of a buffer these columns take in whole vectors; writes zeros after the columns."""
    size = (end - first + WIDTH - 1) // WIDTH * WIDTH
    store(x, size - WIDTH, broadcast(x.dtype.type(0)))
    return size


# ------------------------------------------------------------------------------------------------ a step's numbers


class WeightedRow(NamedTuple):
    """What is known of a row once its candidate is selected."""

    logits: Logits
    where: Where
    r: Row
    top: Number
    temp: Temperature
    near: Flag  # no entry is excluded, and `near_weight` serves
    constants: Constants


@inlined
def temperature(temp: Values, r: Row, shared: Temperature) -> Temperature:
    """That of the row, or the one that all rows share."""
    return shared if len(temp) == 1 else prepared(temp[r])


@inlined
def weighted(
    logits: Logits, where: Where, r: Row, top: Number, least: Number, temp: Temperature, constants: Constants
) -> WeightedRow:
    """A row whose largest and least logits are `top` and `least`."""
    return WeightedRow(logits, where, r, top, temp, is_near(least, top, temp), constants)


@inlined
def fill_weights(row: WeightedRow, first: Column, end: Column, e: Values) -> Choices:
    """``e = exp((logits - top) / temp)``, 0 at excluded entries; returns the buffer's padded size."""
    size = _pad(first, end, e)
    if row.near:
        for j in range(first, end, WIDTH):
            i = min(j, end - WIDTH)
            x = widen_vector(load_vector(row.logits, row.r, i, e), row.logits)
            store(e, i - first, near_weight(x, row.top, row.temp, row.constants))
    else:
        for j in range(first, end, WIDTH):
            i = min(j, end - WIDTH)
            store(e, i - first, weight(candidates(row.logits, row.where, row.r, i, e), row.top, row.temp))
    return size


@inlined
def fill_from_selected(
    cotangent: GradMask, row: WeightedRow, first: Column, end: Column, selected: Number, h: Values
) -> None:
    """``h = g - g_m``, 0 at excluded entries, where the cotangent may hold anything, NaN too."""
    _pad(first, end, h)
    excluded, zero = h.dtype.type(-np.inf), h.dtype.type(0)
    if row.near:
        for j in range(first, end, WIDTH):
            i = min(j, end - WIDTH)
            prefetch(cotangent, row.r, i)
            g = widen_vector(load_vector(cotangent, row.r, i, h), cotangent)
            store(h, i - first, from_selected(g, selected))
    else:
        for j in range(first, end, WIDTH):
            i = min(j, end - WIDTH)
            prefetch(cotangent, row.r, i)
            g = widen_vector(load_vector(cotangent, row.r, i, h), cotangent)
            x = candidates(row.logits, row.where, row.r, i, h)
            store(h, i - first, select(x == excluded, zero, from_selected(g, selected)))


@inlined
def fill_exponents(row: WeightedRow, first: Column, end: Column, t: Values) -> None:
    """``t = (logits - top) / temp``."""
    _pad(first, end, t)
    for j in range(first, end, WIDTH):
        i = min(j, end - WIDTH)
        store(t, i - first, exponent(candidates(row.logits, row.where, row.r, i, t), row.top, row.temp))
