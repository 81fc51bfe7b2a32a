"""What device functions ask of the device: thread numbers, barriers, shuffles, instructions that LLVM has no name for.

Everything else in them is arithmetic that they share with the CPU tier, and memory (`npselect._gpu.elements`). As
Python, each function is the driver's, if it has one: see `PythonDriver`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import numpy as np
from llvmlite import ir
from numba import cuda, types
from numba.extending import intrinsic

from npselect._arithmetic.aliases import (
    Builder,
    Chosen,
    Code,
    Context,
    NumbaType,
    Number,
    Signature,
    Typing,
    Value,
    Word,
)
from npselect._arithmetic.primitives import compiles
from npselect._gpu.aliases import Count, Position, Unknown
from npselect._gpu.driver import Driver, gpu
from npselect._gpu.numba_private import add_what_numpy_has_moved, simulated

__all__ = [
    "PythonDriver",
    "barrier",
    "block",
    "cuda",
    "in_python",
    "rough_log2",
    "shuffle_xor",
    "simulated",
    "thread",
    "wide_product",
]

_ALL_LANES = np.uint32(0xFFFFFFFF)
_WORD = ir.IntType(32)

add_what_numpy_has_moved()


class PythonDriver(Driver, Protocol):
    """A driver that runs kernels as Python: it has their intrinsics, and what is in `elements` and `half`, by name."""

    intrinsics: Unknown


def in_python() -> Unknown:
    """The intrinsics of the driver that is in use."""
    try:
        return cast("PythonDriver", gpu()).intrinsics
    except AttributeError:
        raise NotImplementedError("an intrinsic of a kernel on a device was called as Python") from None


# ------------------------------------------------------------------------------------------------ threads, shuffles


def thread() -> Position:
    """The number of this thread in its block."""
    return in_python().thread()


def block() -> Position:
    """The number of this thread's block."""
    return in_python().block()


def shuffle_xor(value: Number, distance: Count) -> Number:
    """What `value` is in the lane of this warp whose number differs in the bits of `distance`; all lanes call it."""
    return in_python().shuffle_xor(value, distance)


def barrier() -> None:
    """Wait until every thread of the block has come here and sees what the others put into shared memory."""
    in_python().barrier()


@compiles(barrier)
def _barrier() -> Chosen:
    return lambda: cuda.syncthreads()


@compiles(thread)
def _thread() -> Chosen:
    return lambda: np.int64(cuda.threadIdx.x)


@compiles(block)
def _block() -> Chosen:
    return lambda: np.int64(cuda.blockIdx.x)


@compiles(shuffle_xor)
def _shuffle_xor(value: NumbaType, distance: NumbaType) -> Chosen:
    return lambda value, distance: cuda.shfl_xor_sync(_ALL_LANES, value, distance)


# ------------------------------------------------------------------------------------------------ rough logarithms


def rough_log2(x: Number) -> Number:
    """``log2(x)`` of a normal float32, within 2**-22, or that much of itself outside (0.5, 2); the bits vary."""
    return in_python().rough_log2(x)


@intrinsic
def _rough_log2(typing: Typing, x: NumbaType) -> Code:
    def generate(context: Context, builder: Builder, signature: Signature, args: Sequence[Value]) -> Value:
        real = ir.FloatType()
        return builder.call(ir.InlineAsm(ir.FunctionType(real, [real]), "lg2.approx.ftz.f32 $0, $1;", "=f,f"), args)

    return types.float32(types.float32), generate


@compiles(rough_log2)
def _rough_log2_(x: NumbaType) -> Chosen:
    return lambda x: _rough_log2(x)


# ------------------------------------------------------------------------------------------------ words


def wide_product(a: Word, b: Word) -> Word:
    """The product of two uint32, a uint64, by one instruction."""
    return in_python().wide_product(a, b)


@intrinsic
def _wide_product(typing: Typing, a: NumbaType, b: NumbaType) -> Code:
    def generate(context: Context, builder: Builder, signature: Signature, args: Sequence[Value]) -> Value:
        # else LLVM multiplies two uint64 instead, which takes more instructions
        multiply = ir.InlineAsm(ir.FunctionType(ir.IntType(64), [_WORD, _WORD]), "mul.wide.u32 $0, $1, $2;", "=l,r,r")
        return builder.call(multiply, args)

    return types.uint64(types.uint32, types.uint32), generate


@compiles(wide_product)
def _wide_product_(a: NumbaType, b: NumbaType) -> Chosen:
    return lambda a, b: _wide_product(a, b)
