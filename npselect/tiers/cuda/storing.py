"""Cotangents loaded and results stored, a chunk of a row at a time."""

from __future__ import annotations

import numpy as np

from npselect._arithmetic.aliases import Flag, Index
from npselect._arithmetic.primitives import bits_of, inlined
from npselect._arithmetic.steps import EMPTY
from npselect._gpu.aliases import Address, Function, Quads
from npselect._gpu.intrinsics import cuda
from npselect.tiers.cuda.arguments import Source
from npselect.tiers.cuda.loads import narrowing, reading, writing
from npselect.tiers.cuda.teams import Chunk, Place, start_of_row
from npselect.tiers.cuda.variant import Variant

__all__ = ["narrowing_and_storing", "overwriting", "reading_cotangents", "storing"]


def reading_cotangents(variant: Variant) -> Function:
    """``read(address, source, place, here, x)``, in the compute type; 0 beyond the row."""
    read, start = reading(variant.kind, variant.team, variant.quads_in_registers, 0.0), start_of_row(variant.team)

    @inlined
    def read_row(address: Address, source: Source, place: Place, here: Chunk, x: Quads) -> None:
        read(address, start(source, place) + here.first, here.left, x)

    return read_row


def storing(variant: Variant) -> Function:
    """``write(out, source, place, here, x)``: numbers that have been narrowed."""
    write, start = writing(variant.kind, variant.team, variant.quads_in_registers), start_of_row(variant.team)

    @inlined
    def write_row(out: Address, source: Source, place: Place, here: Chunk, x: Quads) -> None:
        write(out, start(source, place) + here.first, here.left, x)

    return write_row


def narrowing_and_storing(variant: Variant) -> Function:
    """``narrow_and_store(out, source, place, here, x)``: numbers of the compute type."""
    kind, slots, narrow, write = variant.kind, variant.slots, narrowing(variant.kind), storing(variant)

    @inlined
    def narrow_and_store(out: Address, source: Source, place: Place, here: Chunk, x: Quads) -> None:
        narrowed = cuda.local.array(slots, kind)
        for k in range(slots):
            narrowed[k] = narrow(x[k])
        write(out, source, place, here, narrowed)

    return narrow_and_store


def overwriting(variant: Variant) -> Function:
    """``overwrite_degenerate(x, e, m, finite)``: results where nothing is selected, or a cotangent is not finite."""
    slots, zero, nan = variant.slots, variant.compute(0.0), variant.compute(np.nan)

    @inlined
    def overwrite_degenerate(x: Quads, e: Quads, m: Index, finite: Flag) -> None:
        if m < 0 or not finite:
            for k in range(slots):
                x[k] = zero if m == EMPTY or (m >= 0 and bits_of(e[k]) < 0) else nan

    return overwrite_degenerate
