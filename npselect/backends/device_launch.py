"""Launches: a kernel over scalars, compiled when it is first wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from numba import types

from npselect.backends.device_primitives import cuda, simulated

__all__ = ["Launcher"]


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
            options = {} if simulated() else {"launch_bounds": self._bounds}
            self._compiled = cuda.jit(self.signature, **options)(self.function)
        self._compiled[blocks, threads, _stream(stream)](*scalars)

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
