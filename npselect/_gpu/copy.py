"""Numbers copied from one layout in device memory to another, and from one dtype to another, rounded once.

One thread copies one element. Axes are sorted by the target's strides, and neighbours that are contiguous in both
layouts are merged. The kernel takes the last four axes; there is a launch for each index along the others.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numba import types

from npselect._arithmetic.aliases import Bits, Number
from npselect._arithmetic.half import bfloat16_bits, float16_bits, widen
from npselect._arithmetic.primitives import bits_of, float32_of, formula
from npselect._gpu.aliases import Address, Count, Function, Kind, Stored
from npselect._gpu.elements import load, store
from npselect._gpu.intrinsics import block, thread
from npselect._gpu.launch import Kernel

__all__ = ["THREADS", "copy", "copy_kernel", "reading", "stored", "writing"]

THREADS = 256
_AXES = 4
_STORED = {"bool": np.uint8, "float16": np.uint16, "bfloat16": np.int16}  # all others as they are called


def copy(
    shape: Sequence[int],
    source: tuple[int, Sequence[int], str],
    target: tuple[int, Sequence[int], str],
    stream: int,
) -> None:
    """Copy elements; `source` and `target` are address, strides in elements, and name of the dtype."""
    axes = _merged(shape, source[1], target[1])
    outer, inner = axes[:-_AXES], axes[-_AXES:]
    inner = [(1, 0, 0)] * (_AXES - len(inner)) + inner
    lengths, source_steps, target_steps = (list(column) for column in zip(*inner, strict=True))
    size = math.prod(lengths)
    if not size:
        return
    kernel = copy_kernel(source[2], target[2])
    from_bytes, to_bytes = (np.dtype(stored(name)).itemsize for name in (source[2], target[2]))
    for index in itertools.product(*(range(length) for length, _, _ in outer)):
        begin = source[0] + from_bytes * sum(i * step for i, (_, step, _) in zip(index, outer, strict=True))
        end = target[0] + to_bytes * sum(i * step for i, (_, _, step) in zip(index, outer, strict=True))
        blocks = -(-size // THREADS)
        kernel(blocks, THREADS, stream, size, *lengths[1:], begin, *source_steps, end, *target_steps)


def _merged(shape: Sequence[int], source: Sequence[int], target: Sequence[int]) -> list[tuple[int, int, int]]:
    """Length, source's and target's stride of each axis that is left; the target's longest stride comes first."""
    axes = sorted(
        (axis for axis in zip(shape, source, target, strict=True) if axis[0] != 1), key=lambda axis: -abs(axis[2])
    )
    merged: list[tuple[int, int, int]] = []
    for length, source_step, target_step in axes:
        if merged and merged[-1][1:] == (length * source_step, length * target_step):
            length *= merged.pop()[0]
        merged.append((length, source_step, target_step))
    return merged


# ------------------------------------------------------------------------------------------------ conversions


@formula
def _as_it_is(x: Stored) -> Stored:
    return x


@formula
def _to_float32(x: Number) -> Number:
    return np.float32(x)


@formula
def _to_float64(x: Number) -> Number:
    return np.float64(x)


@formula
def _to_odd(x: Number) -> Number:
    """A number rounded to float32, to odd if it is inexact: then a second rounding gives what one rounding would."""
    wide = np.float64(x)
    near = np.float32(wide)
    exact = np.float64(near)
    if exact == wide or not abs(exact) < np.inf:
        return near
    bits = np.int64(bits_of(near))
    if abs(exact) > abs(wide):
        bits = bits - 1
    return float32_of(bits | 1)


@formula
def _float16_of(x: Number) -> Bits:
    return np.uint16(float16_bits(_to_odd(x)))


@formula
def _bfloat16_of(x: Number) -> Bits:
    return np.int16(bfloat16_bits(_to_odd(x)))


_TO = {"float16": _float16_of, "bfloat16": _bfloat16_of, "float32": _to_float32, "float64": _to_float64}


def stored(name: str) -> Kind:
    """The type in memory of a dtype."""
    return _STORED.get(name) or getattr(np, name)


def reading(name: str) -> Function:
    """The function that makes a number of what is stored; 16 bits become float32."""
    return widen if name in ("float16", "bfloat16") else _as_it_is


def writing(name: str) -> Function:
    """The function that makes of a number what is stored, rounded once."""
    kind = stored(name)
    return _TO.get(name) or formula(lambda x: kind(x))


@cache
def copy_kernel(source: str, target: str) -> Kernel:
    origin, kind = stored(source), stored(target)
    read, write = (_as_it_is, _as_it_is) if source == target else (reading(source), writing(target))

    def kernel(
        size: Count, n1: Count, n2: Count, n3: Count,
        begin: Address, b0: Count, b1: Count, b2: Count, b3: Count,
        end: Address, e0: Count, e1: Count, e2: Count, e3: Count,
    ) -> None:  # fmt: skip
        i = block() * THREADS + thread()
        if i < size:
            rest = i // n3
            i3 = i - rest * n3
            i1 = rest // n2
            i2 = rest - i1 * n2
            i0 = i1 // n1
            i1 = i1 - i0 * n1
            x = load(begin, i0 * b0 + i1 * b1 + i2 * b2 + i3 * b3, origin)
            store(end, i0 * e0 + i1 * e1 + i2 * e2 + i3 * e3, kind, write(read(x)))

    return Kernel(kernel, [types.int64] * 14, THREADS)
