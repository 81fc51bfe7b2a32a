"""How a kernel of the CPU tier is compiled, entered and kept."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

from numba import njit

from npselect._forks import check
from npselect.tiers.cpu.cache import Kept
from npselect.tiers.cpu.entries import Entered

__all__ = ["allocating_kernel", "kernel"]

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(function: Function) -> Function:
    """Compile for the CPU, free of the GIL; cache the machine code where a cache directory can be written.

    A kernel allocates nothing: references to arrays are not counted, which numba would do in the innermost loops.
    """
    return _compiled(function, _nrt=False)


def allocating_kernel(function: Function) -> Function:
    """The same with arrays of its own."""
    return _compiled(function)


def _compiled(function: Function, **options: Any) -> Function:
    made: Any = njit(nogil=True, error_model="numpy", pipeline_class=Entered, **options)(function)
    with suppress(RuntimeError, OSError):  # numba: no locator available
        made._cache = Kept(function)
    compile_for = made._compile_for_args

    def first_call(*arguments: Any, **options: Any) -> Any:
        check()
        return compile_for(*arguments, **options)

    made._compile_for_args = first_call
    return cast("Function", made)
