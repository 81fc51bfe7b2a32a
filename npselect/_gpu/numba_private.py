"""The private names of numba and numba-cuda that the GPU needs: what may change with a version of them is here alone.

Each function imports what it needs: where there is no numba-cuda, this module can still be imported.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np

from npselect._gpu.aliases import Unknown

__all__ = [
    "add_what_numpy_has_moved",
    "cache_folder",
    "compile_kernel",
    "has_another_memory_manager",
    "kernel_from",
    "kernel_to_bytes",
    "loaded_function",
    "numba_driver",
    "options_of",
    "simulated",
]


# ------------------------------------------------------------------------------------------------ the module


@cache
def simulated() -> bool:
    """Whether numba's simulator stands in for a device."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


def add_what_numpy_has_moved() -> None:
    """numba-cuda 0.30 asks for `np.row_stack`, which NumPy 2.5 has no more, when it first compiles."""
    name = "row_stack"  # by name, lest a linter that knows of the move put vstack in its place
    if not simulated() and not hasattr(np, name):
        setattr(np, name, np.vstack)
        try:
            import_module("numba.cuda.np.arrayobj")
        finally:
            delattr(np, name)


# ------------------------------------------------------------------------------------------------ the driver


@cache
def numba_driver() -> Unknown:
    """The driver's functions as numba-cuda has them, which raise what goes wrong."""
    from numba.cuda.cudadrv.driver import driver

    return driver


def has_another_memory_manager() -> bool:
    """Whether numba takes its memory from a manager that was plugged in."""
    from numba.cuda.cudadrv import driver

    return getattr(driver, "_memory_manager", None) not in (None, driver.NumbaCUDAMemoryManager)


# ------------------------------------------------------------------------------------------------ kernels


@cache
def options_of(bounds: tuple[int, int]) -> dict[str, Unknown]:
    """What numba compiles a kernel with."""
    from numba import cuda

    return dict(cuda.jit(launch_bounds=bounds, lto=False)(lambda: None).targetoptions)


def compile_kernel(function: Callable[..., None], arguments: Sequence[Unknown], bounds: tuple[int, int]) -> Unknown:
    """A kernel for the current device, given to the driver as PTX; a linker would make other code of it."""
    from numba.cuda.cudadrv.driver import ObjectCode
    from numba.cuda.dispatcher import _Kernel

    kernel = _Kernel(function, tuple(arguments), **options_of(bounds))
    library = kernel._codelibrary
    library._cubin_cache[library._ensure_cc(None)] = ObjectCode.from_ptx(library.get_asm_str().encode())
    try:
        kernel.bind()
    except Exception:  # a driver older than the PTX
        library._cubin_cache.clear()
        kernel.bind()
    return kernel


def loaded_function(kernel: Unknown) -> Unknown:
    """What the driver has made of a kernel in the current context; it lives as long as this does."""
    return kernel._codelibrary.get_cufunc()


def kernel_to_bytes(kernel: Unknown) -> bytes:
    """A compiled kernel, to be kept."""
    return pickle.dumps(kernel)


def kernel_from(content: bytes) -> Unknown:
    """A kernel that was kept, loaded into the current context; an error if the driver takes it no more."""
    kernel = pickle.loads(content)
    kernel.bind()
    return kernel


def cache_folder(function: Callable[..., None]) -> Path:
    """The folder in which numba would keep what it compiles of a function; it exists, and can be written to."""
    from numba.core.caching import FunctionCache

    return Path(FunctionCache(function)._cache_path)
