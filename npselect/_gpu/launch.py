"""Launches: a kernel over scalars, compiled when it is first wanted."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

from numba import types

from npselect._gpu import driver as memory
from npselect._gpu.intrinsics import cuda, simulated

__all__ = ["Launcher"]

_C_TYPES = {types.int64: ctypes.c_int64, types.uint64: ctypes.c_uint64, types.float64: ctypes.c_double}


class Launcher:
    """A kernel over scalars, compiled when it is first launched; for blocks of at most so many threads."""

    def __init__(self, function: Callable[..., None], arguments: Sequence[Any], most_threads: int) -> None:
        self.function = function
        self.signature = types.void(*arguments)
        self.most_threads = most_threads
        self._bounds = most_threads, 1  # one block a multiprocessor will do: rather fewer threads than spills
        self._c_types = tuple(_C_TYPES[argument] for argument in arguments)
        self._compiled: Any = None
        self._kernels: dict[int, memory.Kernel] = {}  # by device

    def __call__(self, blocks: int, threads: int, stream: int, *scalars: Any) -> None:
        """Launch so many blocks of threads on a stream of the current device."""
        if simulated():
            self._compiled = self._compiled or self.compiled()
            self._compiled[blocks, threads](*scalars)
            return
        device = memory.current_device()
        kernel = self._kernels.get(device)
        if kernel is None or not kernel.is_loaded():
            kernel = self._load(device)
        memory.launch(kernel, blocks, threads, stream, scalars, self._c_types)

    def _load(self, device: int) -> memory.Kernel:
        if self._compiled is None or device in self._kernels:  # loaded into a context that was closed since
            self._compiled = self.compiled()
        self._kernels[device] = memory.Kernel(self._compiled)
        return self._kernels[device]

    def compiled(self) -> Any:
        """What numba makes of it, given to the driver as the PTX of `ptx`; a linker makes other code of that."""
        if simulated():
            return cuda.jit(self.signature)(self.function)
        from numba.cuda.cudadrv.driver import ObjectCode
        from numba.cuda.dispatcher import _Kernel

        dispatcher = cuda.jit(launch_bounds=self._bounds, lto=False)(self.function)
        kernel = _Kernel(self.function, self.signature.args, **dispatcher.targetoptions)
        library = kernel._codelibrary
        library._cubin_cache[library._ensure_cc(None)] = ObjectCode.from_ptx(library.get_asm_str().encode())
        try:
            kernel.bind()
        except Exception:  # a driver older than the PTX
            library._cubin_cache.clear()
            kernel.bind()
        dispatcher.add_overload(kernel, self.signature.args)
        dispatcher._specialized = True
        dispatcher.disable_compile()
        return dispatcher

    def ptx(self, compute_capability: tuple[int, int]) -> str:
        """What the kernel becomes, without a device."""
        ptx, _ = cuda.compile(
            self.function,
            self.signature,
            device=False,
            output="ptx",
            abi="numba",
            cc=compute_capability,
            launch_bounds=self._bounds,
        )
        return ptx.decode() if isinstance(ptx, bytes) else str(ptx)
