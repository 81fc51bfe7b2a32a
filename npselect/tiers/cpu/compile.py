"""How a kernel of the CPU tier is compiled and cached."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, TypeVar, cast

from numba import njit

from npselect._forks import check
from npselect.tiers.cpu.cache import KernelCache
from npselect.tiers.cpu.float_modes import FloatModesCompiler

__all__ = ["RowKernel", "allocating_kernel", "kernel", "row_kernel"]

Function = TypeVar("Function", bound=Callable[..., object])


class RowKernel(Protocol):
    """A kernel over a range of rows."""

    buffers: int
    """How many numbers an entry of the row it keeps in scratch memory."""

    def __call__(self, *arguments: object) -> None:
        """Logits first, then other arrays, results, start, stop, scratch."""


def kernel(function: Function) -> Function:
    """Compile for the CPU, free of the GIL; cache the machine code where a cache directory can be written.

    A kernel allocates nothing: references to arrays are not counted, which numba would do in the innermost loops.
    """
    return _compiled(function, _nrt=False)


def row_kernel(buffers: int) -> Callable[[Callable[..., None]], RowKernel]:
    """A `kernel` over a range of rows, and how many buffers of scratch memory it needs, its attribute `buffers`."""

    def decorate(function: Callable[..., None]) -> RowKernel:
        made: Any = kernel(function)
        made.buffers = buffers
        return cast("RowKernel", made)

    return decorate


def allocating_kernel(function: Function) -> Function:
    """A kernel that may allocate arrays of its own."""
    return _compiled(function)


def _compiled(function: Function, **options: object) -> Function:
    made: Any = njit(nogil=True, error_model="numpy", pipeline_class=FloatModesCompiler, **options)(function)
    with suppress(RuntimeError, OSError):  # numba: no locator available
        made._cache = KernelCache(function)
    compile_for = made._compile_for_args

    def first_call(*arguments: object, **options: object) -> object:
        check()
        return compile_for(*arguments, **options)

    made._compile_for_args = first_call
    return cast("Function", made)
