"""Launches: a kernel over scalars, compiled when it is first wanted."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from itertools import chain

from numba import cuda, types

from npselect._gpu import kernel_cache
from npselect._gpu.aliases import Unknown
from npselect._gpu.driver import Scalar, gpu
from npselect._gpu.numba_private import compile_kernel

__all__ = ["Kernel"]

_C_TYPES = {types.int64: ctypes.c_int64, types.uint64: ctypes.c_uint64, types.float64: ctypes.c_double}


class Kernel:
    """A kernel over scalars, or records of scalars, for blocks of at most so many threads.

    Attributes
    ----------
    function : callable
        Python's.
    signature
        numba's, of the types of its arguments.
    most_threads : int
        Of a block.
    c_types : tuple
        Of the scalars, one after another.
    loaded : dict
        What a driver keeps of it, by device.
    """

    def __init__(self, function: Callable[..., None], arguments: Sequence[Unknown], most_threads: int) -> None:
        self.function = function
        self.signature = types.void(*arguments)
        self.most_threads = most_threads
        self.bounds = most_threads, 1  # one block a multiprocessor is enough: fewer threads are better than spills
        self._records = any(isinstance(argument, types.BaseTuple) for argument in arguments)
        scalars = chain.from_iterable(getattr(argument, "types", (argument,)) for argument in arguments)
        self.c_types = tuple(_C_TYPES[scalar] for scalar in scalars)
        self.loaded: dict[int, Unknown] = {}

    def __call__(self, blocks: int, threads: int, stream: int, *arguments: Scalar | tuple[Scalar, ...]) -> None:
        """Launch so many blocks of threads on a stream of the current device."""
        gpu().launch(self, blocks, threads, stream, arguments)

    def scalars(self, arguments: tuple[Unknown, ...]) -> tuple[Scalar, ...]:
        """The arguments of a launch, one after another, as the driver takes them."""
        return tuple(chain.from_iterable(arguments)) if self._records else arguments

    def compiled(self) -> Unknown:
        """What numba makes of it for the current device; kept from one process to the next, where that can be done."""
        kept = kernel_cache.load(self)
        if kept is not None:
            return kept
        made = compile_kernel(self.function, self.signature.args, self.bounds)
        kernel_cache.save(self, made)
        return made

    def ptx(self, compute_capability: tuple[int, int]) -> str:
        """What the kernel becomes, without a device."""
        ptx, _ = cuda.compile(
            self.function,
            self.signature,
            device=False,
            output="ptx",
            abi="numba",
            cc=compute_capability,
            launch_bounds=self.bounds,
        )
        return ptx.decode() if isinstance(ptx, bytes) else str(ptx)
