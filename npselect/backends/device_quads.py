"""Quads: the four columns that a thread reads, and writes, at a time, widened to the type that they are computed in.

The functions here make device functions, for a kind of storage (see `npselect.backends.storage`), and for aligned rows
or others (see `npselect.backends.device_teams`). `base` is the place of the row's first column; what lies at or beyond
column `n` is neither read nor written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from npselect.backends.device_primitives import (
    load,
    load4,
    narrow_bfloat16,
    narrow_float16,
    store,
    store4,
    widen_bfloat16,
    widen_float16,
)
from npselect.backends.primitives import inlined

__all__ = ["column", "computed_in", "narrowing", "reading", "widening", "writing"]

Function = Callable[..., Any]


def computed_in(kind: Any) -> Any:
    """The type that a kind of storage is computed in."""
    return np.float64 if kind is np.float64 else np.float32


@inlined
def _as_it_is(x: Any) -> Any:
    return x


def widening(kind: Any) -> Function:
    """From storage to the compute type."""
    return {np.uint16: widen_float16, np.int16: widen_bfloat16}.get(kind, _as_it_is)


def narrowing(kind: Any) -> Function:
    """From the compute type to storage."""
    return {np.uint16: narrow_float16, np.int16: narrow_bfloat16}.get(kind, _as_it_is)


@inlined
def _neighbour(place: Any, first: Any, c: Any) -> Any:
    return first + c


@inlined
def _scattered(place: Any, first: Any, c: Any) -> Any:
    return first + place.group * c


def column(aligned: bool) -> Function:
    """Which column the c-th of a quad is."""
    return _neighbour if aligned else _scattered


def reading(kind: Any, aligned: bool) -> Function:
    """``read(address, base, place, first, n, pad)``: a quad, `pad` standing for what is beyond the row."""
    widen = widening(kind)

    @inlined
    def read_neighbours(address: Any, base: Any, place: Any, first: Any, n: Any, pad: Any) -> Any:
        if first < n:
            a, b, c, d = load4(address, base + first, kind)
            return widen(a), widen(b), widen(c), widen(d)
        return pad, pad, pad, pad

    @inlined
    def read(address: Any, at: Any, base: Any, n: Any, pad: Any) -> Any:
        return widen(load(address, base + at, kind)) if at < n else pad

    @inlined
    def read_scattered(address: Any, base: Any, place: Any, first: Any, n: Any, pad: Any) -> Any:
        step = place.group
        return (
            read(address, first, base, n, pad),
            read(address, first + step, base, n, pad),
            read(address, first + 2 * step, base, n, pad),
            read(address, first + 3 * step, base, n, pad),
        )

    return read_neighbours if aligned else read_scattered


def writing(kind: Any, aligned: bool) -> Function:
    """``write(address, base, place, first, n, a, b, c, d)``: a quad, narrowed."""
    narrow = narrowing(kind)

    @inlined
    def write_neighbours(
        address: Any, base: Any, place: Any, first: Any, n: Any, a: Any, b: Any, c: Any, d: Any
    ) -> Any:
        if first < n:
            store4(address, base + first, kind, (narrow(a), narrow(b), narrow(c), narrow(d)))

    @inlined
    def write(address: Any, at: Any, base: Any, n: Any, x: Any) -> Any:
        if at < n:
            store(address, base + at, kind, narrow(x))

    @inlined
    def write_scattered(address: Any, base: Any, place: Any, first: Any, n: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
        step = place.group
        write(address, first, base, n, a)
        write(address, first + step, base, n, b)
        write(address, first + 2 * step, base, n, c)
        write(address, first + 3 * step, base, n, d)

    return write_neighbours if aligned else write_scattered
