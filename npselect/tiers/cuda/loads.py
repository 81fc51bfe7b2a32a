"""Quads: the four columns that a thread reads, and writes, at a time, widened to the type that they are computed in.

The functions here make device functions, for a kind of storage (see `npselect._arithmetic.half`), and for a team (see
`npselect.tiers.cuda.teams`). `place` is that of a stretch's first column among all elements; what lies at or
beyond the offset `left` from there is neither read nor written.
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
    """``read(address, place, left, x)``: so many quads into `x`, `beyond` standing for what is beyond the row.

    All are asked for before any is widened, so that they are under way together. Where a row ends is nearly always in
    the last quad; the others then take no more than a load each. A quad of 16-bit numbers is read as a 64-bit word.
    """
    widen, offset, size, pad = widening(kind), offset_of(team), 4 * quads, _stored(beyond, kind)
    quad_words = team.aligned and np.dtype(kind).itemsize == 2
    stored_in = np.uint64 if quad_words else kind
    slots = quads if quad_words else size
    pads = np.uint64(int(pad) % 2**16 * 0x0001000100010001) if quad_words else pad

    @inlined
    def take_word(address: Address, place: Position, i: Count, x: Quads) -> None:
        x[i] = load(address, (place >> 2) + (offset(i, 0) >> 2), np.uint64)

    @inlined
    def try_word(address: Address, place: Position, left: Count, i: Count, x: Quads) -> None:
        at = offset(i, 0)
        x[i] = load(address, (place >> 2) + (at >> 2), np.uint64) if at < left else pads

    @inlined
    def take_neighbours(address: Address, place: Position, i: Count, x: Quads) -> None:
        k = 4 * i
        x[k], x[k + 1], x[k + 2], x[k + 3] = load4(address, place + offset(i, 0), kind)

    @inlined
    def try_neighbours(address: Address, place: Position, left: Count, i: Count, x: Quads) -> None:
        at, k = offset(i, 0), 4 * i
        a, b, c, d = load4(address, place + at, kind) if at < left else (pad, pad, pad, pad)
        x[k], x[k + 1], x[k + 2], x[k + 3] = a, b, c, d

    @inlined
    def take_scattered(address: Address, place: Position, i: Count, x: Quads) -> None:
        for c in range(4):
            x[4 * i + c] = load(address, place + offset(i, c), kind)

    @inlined
    def try_scattered(address: Address, place: Position, left: Count, i: Count, x: Quads) -> None:
        for c in range(4):
            at = offset(i, c)
            x[4 * i + c] = load(address, place + at, kind) if at < left else pad

    @inlined
    def number(x: Quads, k: Count) -> Stored:
        return x[k]

    @inlined
    def of_word(x: Quads, k: Count) -> Stored:
        return kind((x[k >> 2] >> np.uint64(16 * (k & 3))) & np.uint64(0xFFFF))

    if quad_words:
        take, try_, unpack = take_word, try_word, of_word
    elif team.aligned:
        take, try_, unpack = take_neighbours, try_neighbours, number
    else:
        take, try_, unpack = take_scattered, try_scattered, number

    @inlined
    def read(address: Address, place: Position, left: Count, x: Quads) -> None:
        stored = cuda.local.array(slots, stored_in)
        if offset(quads - 2, 3) < left:
            for i in range(quads - 1):
                take(address, place, i, stored)
        else:
            for i in range(quads - 1):
                try_(address, place, left, i, stored)
        try_(address, place, left, quads - 1, stored)
        for k in range(size):
            x[k] = widen(unpack(stored, k))

    return read


def writing(kind: Kind, team: Team, quads: int) -> Function:
    """``write(address, place, left, x)``: so many quads that have been narrowed."""
    offset = offset_of(team)

    @inlined
    def write_neighbours(address: Address, place: Position, left: Count, x: Quads) -> None:
        for i in range(quads):
            at, k = offset(i, 0), 4 * i
            if at < left:
                store4(address, place + at, kind, (x[k], x[k + 1], x[k + 2], x[k + 3]))

    @inlined
    def write_scattered(address: Address, place: Position, left: Count, x: Quads) -> None:
        for i in range(quads):
            for c in range(4):
                at = offset(i, c)
                if at < left:
                    store(address, place + at, kind, x[4 * i + c])

    return write_neighbours if team.aligned else write_scattered
