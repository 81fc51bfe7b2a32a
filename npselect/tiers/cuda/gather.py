"""Vectors of D numbers on a GPU: gathered, scattered and multiplied; the functions of `npselect.tiers.cpu.gather`.

The host works out which vector goes where, from the operator's index, and copies that to the GPU. Sums over the rows
that share a vector are taken as on the CPU: in float64, in the order of the batch, rounded once.

A dot product is taken in the type of the computation: 32 columns at a time, by `fma` in rising order from 0; the sums
of these are added in order. So it depends on the two vectors alone, and may differ from the CPU's in its last bits.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numba import types

from npselect._arithmetic.primitives import fma
from npselect._gpu.aliases import Address, Count, DType, HostArray, Unknown
from npselect._gpu.array import DeviceArray
from npselect._gpu.copy import THREADS, reading, stored, writing
from npselect._gpu.driver import gpu
from npselect._gpu.elements import load, store
from npselect._gpu.intrinsics import block, thread
from npselect._gpu.launch import Kernel

__all__ = ["batched_dot", "gather", "rounded", "scatter_add"]

_BITS = {2: np.uint16, 4: np.uint32, 8: np.uint64}
_NAN = {"float16": 0x7E00, "bfloat16": 0x7FC0, "float32": 0x7FC00000, "float64": 0x7FF8 << 48}
_ZERO, _SPOILT = -1, -2  # instead of a vector's number
_CHUNK = 32  # columns of a dot product that have a sum of their own
_ACROSS, _DOWN = 16, 16  # threads of a block of dot products, each of which takes two columns and two rows


def gather(x: DeviceArray, selected: Unknown, shape: tuple[int, ...]) -> DeviceArray:
    """What is chosen of `x`; 0 elsewhere, NaN in spoilt rows."""
    sources = np.full(shape[:-1], _ZERO)
    sources.reshape(-1)[selected.chosen] = selected.x
    sources[selected.spoilt] = _SPOILT
    return _gathered(x, sources, shape)


def scatter_add(grad: DeviceArray, x: DeviceArray, selected: Unknown, dtype: DType) -> DeviceArray:
    """``grad_chosen`` at ``m``, summed over the rows that share an item of `x`."""
    *x_batch, choices, features = x.shape
    vectors, items = math.prod(x.shape[:-1]), math.prod(x_batch)
    spoilt = np.unique(selected.items[selected.spoilt])
    if selected.items.size == items:
        sources = np.full(vectors, _ZERO)
        sources[selected.x] = selected.chosen
        sources.reshape(items, choices)[spoilt] = _SPOILT
        return _gathered(grad, sources, x.shape).astype(dtype, copy=False)
    order = np.argsort(selected.x, kind="stable")
    bounds = np.searchsorted(selected.x[order], np.arange(vectors + 1))
    starts, stops = bounds[:-1].copy(), bounds[1:]
    starts.reshape(items, choices)[spoilt] = _SPOILT
    result = DeviceArray.empty(x.shape, dtype, x.stream, x.device)
    if result.size:
        with gpu().current(x.device):
            grad = grad if grad.c_contiguous else grad.copy()
            lists = [_sent(numbers, x) for numbers in (selected.chosen[order], starts, stops)]
            addresses = [array.address for array in (grad, *lists, result)]
            _adding(grad.dtype.name, dtype.name)(
                -(-result.size // THREADS), THREADS, x.stream, result.size, features, *addresses
            )
    return result


def batched_dot(left: DeviceArray, right: DeviceArray, compute: DType) -> DeviceArray:
    """Of items (R, L) and (K, L), the dot products: (R, K)."""
    (items, rows, length), choices = left.shape, right.shape[1]
    result = DeviceArray.empty((items, rows, choices), compute, left.stream, left.device)
    if result.size:
        with gpu().current(left.device):
            left, right = (array if array.c_contiguous else array.copy() for array in (left, right))
            down, across = -(-rows // (2 * _DOWN)), -(-choices // (2 * _ACROSS))
            sizes = rows, choices, length, down, across
            addresses = left.address, right.address, result.address
            kernel = _multiplying(left.dtype.name, right.dtype.name, compute.name)
            kernel(items * down * across, _DOWN * _ACROSS, left.stream, *sizes, *addresses)
    return result


def rounded(values: DeviceArray, dtype: DType) -> DeviceArray:
    """In the dtype, rounded once."""
    return values.astype(dtype, copy=False)


def _gathered(x: DeviceArray, sources: HostArray, shape: tuple[int, ...]) -> DeviceArray:
    """Vectors of `x` by their numbers, bit for bit."""
    result = DeviceArray.empty(shape, x.dtype, x.stream, x.device)
    if result.size:
        with gpu().current(x.device):
            x, numbers = x if x.c_contiguous else x.copy(), _sent(sources, x)  # both live until the launch is made
            addresses = x.address, numbers.address, result.address
            _taking(x.dtype.name, x.dtype.itemsize)(
                -(-result.size // THREADS), THREADS, x.stream, result.size, shape[-1], *addresses
            )
    return result


def _sent(numbers: HostArray, beside: DeviceArray) -> DeviceArray:
    return DeviceArray.from_host(np.ascontiguousarray(numbers, np.int64), beside.stream, beside.device)


# ------------------------------------------------------------------------------------------------ kernels


@cache
def _taking(name: str, itemsize: int) -> Kernel:
    kind = _BITS[itemsize]
    zero, nan = kind(0), kind(_NAN[name])

    def take(size: Count, features: Count, x: Address, sources: Address, out: Address) -> None:
        i = block() * THREADS + thread()
        if i < size:
            vector = i // features
            source = load(sources, vector, np.int64)
            value = zero if source == _ZERO else nan
            if source >= 0:
                value = load(x, source * features + (i - vector * features), kind)
            store(out, i, kind, value)

    return Kernel(take, [types.int64] * 5, THREADS)


@cache
def _adding(source: str, target: str) -> Kernel:
    origin, kind, read, write = stored(source), stored(target), reading(source), writing(target)

    def add(
        size: Count, features: Count, grad: Address, numbers: Address, starts: Address, stops: Address, out: Address
    ) -> None:
        i = block() * THREADS + thread()
        if i < size:
            vector = i // features
            column = i - vector * features
            start = load(starts, vector, np.int64)
            total = np.float64(0.0)
            if start < 0:
                total = np.float64(np.nan)
                start = load(stops, vector, np.int64)
            for k in range(start, load(stops, vector, np.int64)):
                position = load(numbers, np.int64(k), np.int64) * features + column
                total = total + np.float64(read(load(grad, position, origin)))
            store(out, i, kind, write(total))

    return Kernel(add, [types.int64] * 7, THREADS)


@cache
def _multiplying(left_name: str, right_name: str, compute_name: str) -> Kernel:
    left_kind, right_kind, compute = stored(left_name), stored(right_name), stored(compute_name)
    read_left, read_right, number = reading(left_name), reading(right_name), writing(compute_name)
    zero = compute(0.0)

    def multiply(
        rows: Count, choices: Count, length: Count, down: Count, across: Count,
        left: Address, right: Address, out: Address,
    ) -> None:  # fmt: skip
        tile = block() // across
        item = tile // down
        row = 2 * ((tile - item * down) * _DOWN + thread() // _ACROSS)
        choice = 2 * ((block() - tile * across) * _ACROSS + thread() % _ACROSS)
        if row < rows and choice < choices:
            next_row, next_choice = min(row + 1, rows - 1), min(choice + 1, choices - 1)
            a, b = (item * rows + row) * length, (item * rows + next_row) * length
            c, d = (item * choices + choice) * length, (item * choices + next_choice) * length
            ac, ad, bc, bd = zero, zero, zero, zero
            for start in range(0, length, _CHUNK):
                ac_part, ad_part, bc_part, bd_part = zero, zero, zero, zero
                for k in range(start, min(start + _CHUNK, length)):
                    a_k = number(read_left(load(left, a + k, left_kind)))
                    b_k = number(read_left(load(left, b + k, left_kind)))
                    c_k = number(read_right(load(right, c + k, right_kind)))
                    d_k = number(read_right(load(right, d + k, right_kind)))
                    ac_part = fma(a_k, c_k, ac_part)
                    ad_part = fma(a_k, d_k, ad_part)
                    bc_part = fma(b_k, c_k, bc_part)
                    bd_part = fma(b_k, d_k, bd_part)
                ac, ad, bc, bd = ac + ac_part, ad + ad_part, bc + bc_part, bd + bd_part
            first, second = (item * rows + row) * choices, (item * rows + next_row) * choices
            store(out, first + choice, compute, ac)
            if choice + 1 < choices:
                store(out, first + next_choice, compute, ad)
            if row + 1 < rows:
                store(out, second + choice, compute, bc)
                if choice + 1 < choices:
                    store(out, second + next_choice, compute, bd)

    return Kernel(multiply, [types.int64] * 8, _DOWN * _ACROSS)
