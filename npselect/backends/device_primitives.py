"""What the kernels of the CUDA tier ask of the device: memory by address, places, shuffles, barriers, and launches.

Everything else in them is arithmetic that they share with the CPU tier. Addresses are int64, places are counted in
elements, and `kind` is the NumPy type of what lies there (see `npselect.backends.storage`), a constant of the kernel.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import cuda, types
from numba.core import cgutils
from numba.extending import intrinsic

from npselect.backends.primitives import compiles

__all__ = [
    "Launcher",
    "barrier",
    "block",
    "cuda",
    "load",
    "load4",
    "shuffle_xor",
    "simulated",
    "store",
    "store4",
    "thread",
]

_ALL_LANES = np.uint32(0xFFFFFFFF)


def simulated() -> bool:
    """Whether numba's simulator stands in for a device."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


def _only_compiled(name: str) -> NotImplementedError:
    return NotImplementedError(f"{name} is for kernels on a device")


# ------------------------------------------------------------------------------------------------ memory


def load(address: Any, place: Any, kind: Any) -> Any:
    """The element at a place."""
    raise _only_compiled("load")


def load4(address: Any, place: Any, kind: Any) -> Any:
    """Four elements from a place on, whose address is a multiple of `ALIGNMENT` of the kind, as a tuple."""
    raise _only_compiled("load4")


def store(address: Any, place: Any, kind: Any, value: Any) -> None:
    """Put an element at a place."""
    raise _only_compiled("store")


def store4(address: Any, place: Any, kind: Any, values: Any) -> None:
    """Put four elements from a place on, whose address is as `load4` wants it."""
    raise _only_compiled("store4")


def _at(context: Any, builder: Any, address: Any, place: Any, kind: Any) -> tuple[Any, int]:
    """The pointer to a place in global memory, and the bytes of an element."""
    data = context.get_data_type(kind)
    size = context.get_abi_sizeof(data)
    offset = builder.mul(place, ir.Constant(place.type, size), flags=("nsw",))
    pointer = ir.PointerType(data, addrspace=1)
    return builder.inttoptr(builder.add(address, offset, flags=("nsw",)), pointer), size


def _quad(builder: Any, pointer: Any, size: int) -> list[tuple[Any, int, int]]:
    """Pointers to vectors of at most 16 bytes that cover four elements, the elements of each, its alignment."""
    count = min(4, 16 // size)
    vector = ir.VectorType(pointer.type.pointee, count)
    return [
        (
            builder.bitcast(
                builder.gep(pointer, [ir.Constant(ir.IntType(64), first)]), ir.PointerType(vector, addrspace=1)
            ),
            count,
            size * count,
        )
        for first in range(0, 4, count)
    ]


@intrinsic
def _load(typing: Any, address: Any, place: Any, kind: Any) -> Any:
    element = kind.instance_type

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, size = _at(context, builder, args[0], args[1], element)
        return builder.load(pointer, align=size)

    return element(types.int64, types.int64, kind), generate


@intrinsic
def _load4(typing: Any, address: Any, place: Any, kind: Any) -> Any:
    element = kind.instance_type

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, size = _at(context, builder, args[0], args[1], element)
        values = []
        for quad, count, align in _quad(builder, pointer, size):
            loaded = builder.load(quad, align=align)
            values += [builder.extract_element(loaded, ir.Constant(ir.IntType(32), i)) for i in range(count)]
        return context.make_tuple(builder, signature.return_type, values)

    return types.UniTuple(element, 4)(types.int64, types.int64, kind), generate


@intrinsic
def _store(typing: Any, address: Any, place: Any, kind: Any, value: Any) -> Any:
    element = kind.instance_type

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, size = _at(context, builder, args[0], args[1], element)
        builder.store(args[3], pointer, align=size)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, kind, element), generate


@intrinsic
def _store4(typing: Any, address: Any, place: Any, kind: Any, values: Any) -> Any:
    element = kind.instance_type

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, size = _at(context, builder, args[0], args[1], element)
        elements = cgutils.unpack_tuple(builder, args[3])
        for quad, count, align in _quad(builder, pointer, size):
            vector = ir.Constant(quad.type.pointee, ir.Undefined)
            for i in range(count):
                vector = builder.insert_element(vector, elements.pop(0), ir.Constant(ir.IntType(32), i))
            builder.store(vector, quad, align=align)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, kind, types.UniTuple(element, 4)), generate


@compiles(load)
def _load_(address: Any, place: Any, kind: Any) -> Any:
    return lambda address, place, kind: _load(address, place, kind)


@compiles(load4)
def _load4_(address: Any, place: Any, kind: Any) -> Any:
    return lambda address, place, kind: _load4(address, place, kind)


@compiles(store)
def _store_(address: Any, place: Any, kind: Any, value: Any) -> Any:
    return lambda address, place, kind, value: _store(address, place, kind, value)


@compiles(store4)
def _store4_(address: Any, place: Any, kind: Any, values: Any) -> Any:
    return lambda address, place, kind, values: _store4(address, place, kind, values)


# ------------------------------------------------------------------------------------------------ places, shuffles


def thread() -> Any:
    """This thread's number in its block."""
    raise _only_compiled("thread")


def block() -> Any:
    """The number of this thread's block."""
    raise _only_compiled("block")


def shuffle_xor(value: Any, distance: Any) -> Any:
    """What `value` is in the lane of this warp whose number differs in the bits of `distance`; all lanes call it."""
    raise _only_compiled("shuffle_xor")


def barrier() -> None:
    """Wait until every thread of the block has come here and sees what the others put into shared memory."""
    raise _only_compiled("barrier")


@compiles(barrier)
def _barrier() -> Any:
    return lambda: cuda.syncthreads()


@compiles(thread)
def _thread() -> Any:
    return lambda: np.int64(cuda.threadIdx.x)


@compiles(block)
def _block() -> Any:
    return lambda: np.int64(cuda.blockIdx.x)


@compiles(shuffle_xor)
def _shuffle_xor(value: Any, distance: Any) -> Any:
    return lambda value, distance: cuda.shfl_xor_sync(_ALL_LANES, value, distance)


# ------------------------------------------------------------------------------------------------ launches


class Launcher:
    """A kernel over scalars, compiled when it is first launched; for blocks of at most so many threads."""

    def __init__(self, function: Callable[..., None], arguments: Sequence[Any], most_threads: int) -> None:
        self.function = function
        self.signature = types.void(*arguments)
        self.most_threads = most_threads
        self._compiled: Any = None

    def __call__(self, blocks: int, threads: int, stream: int, *scalars: Any) -> None:
        if self._compiled is None:
            options = {} if simulated() else {"launch_bounds": self.most_threads}
            self._compiled = cuda.jit(self.signature, **options)(self.function)
        self._compiled[blocks, threads, cuda.external_stream(stream) if stream else 0](*scalars)

    def ptx(self, compute_capability: tuple[int, int]) -> str:
        """What the kernel becomes, without a device."""
        ptx, _ = cuda.compile(
            self.function,
            self.signature,
            device=False,
            output="ptx",
            abi="numba",
            cc=compute_capability,
            launch_bounds=self.most_threads,
        )
        return ptx.decode() if isinstance(ptx, bytes) else str(ptx)
