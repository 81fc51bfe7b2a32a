"""Quads: the four columns that a thread reads, and writes, at a time, widened to the type that they are computed in.

The functions here make device functions, for a type of storage (see `npselect._arithmetic.half`), and for a team (see
`npselect.tiers.cuda.teams`). `position` is that of a chunk's first column among all elements; elements at the offset
`left` from there, or beyond, are neither read nor written.
"""

from __future__ import annotations

import numpy as np

from npselect._arithmetic.aliases import Number
from npselect._arithmetic.primitives import inlined
from npselect._gpu.aliases import Address, Count, Function, Kind, Position, Quads, Stored
from npselect._gpu.elements import load, load4, store, store4
from npselect._gpu.half import narrow_bfloat16, narrow_float16, widen_bfloat16, widen_float16
from npselect._gpu.intrinsics import cuda
from npselect.tiers.cuda.teams import Team, offset_of

__all__ = ["narrowing", "reading", "widening", "writing"]


@inlined
def _as_it_is(x: Number) -> Number:
    return x


def widening(kind: Kind) -> Function:
    """From storage to the compute type."""
    return {np.uint16: widen_float16, np.int16: widen_bfloat16}.get(kind, _as_it_is)


def narrowing(kind: Kind) -> Function:
    """From the compute type to storage."""
    return {np.uint16: narrow_float16, np.int16: narrow_bfloat16}.get(kind, _as_it_is)


def _stored(x: float, kind: Kind) -> Stored:
    """A number that bfloat16 can hold, in storage."""
    if kind is np.int16:
        return np.int16(np.float32(x).view(np.int32) >> 16)
    return np.float16(x).view(np.uint16) if kind is np.uint16 else kind(x)


def reading(kind: Kind, team: Team, quads: int, beyond: float) -> Function:
    """``read(address, position, left, x)``: so many quads into `x`; `beyond` where there is no column.

    All loads are issued before the first number is widened, so that they overlap. A row nearly always ends in the last
    quad; then the others are loaded without a check. A quad of 16-bit numbers is read as a 64-bit word.
    """
    widen, offset, size, pad = widening(kind), offset_of(team), 4 * quads, _stored(beyond, kind)
    quad_words = team.aligned and np.dtype(kind).itemsize == 2
    stored_in = np.uint64 if quad_words else kind
    slots = quads if quad_words else size
    pads = np.uint64(int(pad) % 2**16 * 0x0001000100010001) if quad_words else pad

    @inlined
    def load_word(address: Address, position: Position, i: Count, x: Quads) -> None:
        x[i] = load(address, (position >> 2) + (offset(i, 0) >> 2), np.uint64)

    @inlined
    def load_word_within(address: Address, position: Position, left: Count, i: Count, x: Quads) -> None:
        at = offset(i, 0)
        x[i] = load(address, (position >> 2) + (at >> 2), np.uint64) if at < left else pads

    @inlined
    def load_contiguous(address: Address, position: Position, i: Count, x: Quads) -> None:
        k = 4 * i
        x[k], x[k + 1], x[k + 2], x[k + 3] = load4(address, position + offset(i, 0), kind)

    @inlined
    def load_contiguous_within(address: Address, position: Position, left: Count, i: Count, x: Quads) -> None:
        at, k = offset(i, 0), 4 * i
        a, b, c, d = load4(address, position + at, kind) if at < left else (pad, pad, pad, pad)
        x[k], x[k + 1], x[k + 2], x[k + 3] = a, b, c, d

    @inlined
    def load_scattered(address: Address, position: Position, i: Count, x: Quads) -> None:
        for c in range(4):
            x[4 * i + c] = load(address, position + offset(i, c), kind)

    @inlined
    def load_scattered_within(address: Address, position: Position, left: Count, i: Count, x: Quads) -> None:
        for c in range(4):
            at = offset(i, c)
            x[4 * i + c] = load(address, position + at, kind) if at < left else pad

    @inlined
    def number(x: Quads, k: Count) -> Stored:
        return x[k]

    @inlined
    def of_word(x: Quads, k: Count) -> Stored:
        return kind((x[k >> 2] >> np.uint64(16 * (k & 3))) & np.uint64(0xFFFF))

    if quad_words:
        load_quad, load_quad_within, unpack = load_word, load_word_within, of_word
    elif team.aligned:
        load_quad, load_quad_within, unpack = load_contiguous, load_contiguous_within, number
    else:
        load_quad, load_quad_within, unpack = load_scattered, load_scattered_within, number

    @inlined
    def read(address: Address, position: Position, left: Count, x: Quads) -> None:
        stored = cuda.local.array(slots, stored_in)
        if offset(quads - 2, 3) < left:
            for i in range(quads - 1):
                load_quad(address, position, i, stored)
        else:
            for i in range(quads - 1):
                load_quad_within(address, position, left, i, stored)
        load_quad_within(address, position, left, quads - 1, stored)
        for k in range(size):
            x[k] = widen(unpack(stored, k))

    return read


def writing(kind: Kind, team: Team, quads: int) -> Function:
    """``write(address, position, left, x)``: so many quads that have been narrowed."""
    offset = offset_of(team)

    @inlined
    def write_contiguous(address: Address, position: Position, left: Count, x: Quads) -> None:
        for i in range(quads):
            at, k = offset(i, 0), 4 * i
            if at < left:
                store4(address, position + at, kind, (x[k], x[k + 1], x[k + 2], x[k + 3]))

    @inlined
    def write_scattered(address: Address, position: Position, left: Count, x: Quads) -> None:
        for i in range(quads):
            for c in range(4):
                at = offset(i, c)
                if at < left:
                    store(address, position + at, kind, x[4 * i + c])

    return write_contiguous if team.aligned else write_scattered
