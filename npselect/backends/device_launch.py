"""Launches: a kernel over scalars, compiled when it is first wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from threading import Lock
from typing import Any

from numba import types

from npselect.backends.device_primitives import cuda, simulated

__all__ = ["Launcher"]


_silence = Lock()


@cache
def _config() -> Any:
    return import_module("numba.cuda.dispatcher").config


def _configured(dispatcher: Any, *configuration: Any) -> Any:
    """A kernel with its blocks, threads and stream; without numba's warning that a small batch fills no GPU."""
    if simulated():
        return dispatcher[configuration]
    config = _config()
    with _silence:
        before, config.CUDA_LOW_OCCUPANCY_WARNINGS = config.CUDA_LOW_OCCUPANCY_WARNINGS, 0
        try:
            return dispatcher[configuration]
        finally:
            config.CUDA_LOW_OCCUPANCY_WARNINGS = before


@cache
def _stream(handle: int) -> Any:
    return 0 if simulated() else cuda.external_stream(handle)


class Launcher:
    """A kernel over scalars, compiled when it is first launched; for blocks of at most so many threads."""

    def __init__(self, function: Callable[..., None], arguments: Sequence[Any], most_threads: int) -> None:
        self.function = function
        self.signature = types.void(*arguments)
        self.most_threads = most_threads
        self._bounds = most_threads, 1  # one block a multiprocessor will do: rather fewer threads than spills
        self._compiled: Any = None

    def __call__(self, blocks: int, threads: int, stream: int, *scalars: Any) -> None:
        """Launch so many blocks of threads on a stream."""
        if self._compiled is None:
            self._compiled = self.compiled()
        _configured(self._compiled, blocks, threads, _stream(stream))(*scalars)

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
