"""Compiled kernels, kept from one process to the next, in files beside those of the CPU tier's kernels.

numba's own cache finds no kernel again: a kernel is a closure over functions that are made anew in every process. Here
the key is made of these functions' names and lines, and of the values in their closures. NUMBA_CACHE_DIR names another
folder.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from types import FunctionType, ModuleType

import numpy as np

from npselect import _machine_code
from npselect._gpu import numba_private
from npselect._gpu.aliases import Unknown
from npselect._gpu.driver import Launchable

__all__ = ["load", "name_of", "save"]

_MADE_BY = ("numba", "numba-cuda", "llvmlite", "cuda-bindings", "nvidia-nvvm")
_FOLDERS = ("npselect._arithmetic", "npselect._gpu", "npselect.tiers.cuda")  # what kernels are made of


def load(kernel: Launchable) -> Unknown | None:
    """What was compiled before, for the current device; None if nothing was, or it can be used no more."""
    try:
        capability = _capability()
        content = _machine_code.read(_path(kernel, capability), _depends_on())
        return None if content is None else numba_private.kernel_from(content)
    except Exception as error:  # whatever comes of reading what somebody else wrote
        _machine_code.warn_once("a compiled CUDA kernel cannot be read", error, "it is compiled again")
        return None


def save(kernel: Launchable, compiled: Unknown) -> None:
    """Keep what was compiled for the current device, if that can be done."""
    try:
        path = _path(kernel, _capability())
        _machine_code.write(path, _depends_on(), numba_private.kernel_to_bytes(compiled))
    except Exception as error:
        _machine_code.warn_once(
            "compiled CUDA kernels cannot be kept",
            error,
            "each process compiles again; NUMBA_CACHE_DIR may name another folder",
        )


def _capability() -> tuple[int, ...]:
    from numba import cuda

    return tuple(cuda.get_current_device().compute_capability)


def _path(kernel: Launchable, capability: tuple[int, ...]) -> Path:
    return numba_private.cache_folder(kernel.function) / f"{name_of(kernel, capability)}.nbk"


@cache
def _depends_on() -> bytes:
    return repr(([*map(_version, _MADE_BY)], sys.version, np.__version__, _machine_code.sources(*_FOLDERS))).encode()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # a toolkit's, of which there are no metadata
        return None


# ------------------------------------------------------------------------------------------------ names


def name_of(kernel: Launchable, capability: tuple[int, ...]) -> str:
    """The name of a kernel's file; TypeError if its closure has a value that has no name."""
    options = sorted(numba_private.options_of(kernel.bounds).items())
    words = [
        *(str(kernel.signature), str(capability)),
        *(f"{name} {value!r}" for name, value in options if isinstance(value, (bool, int, str, tuple))),
        *_words(kernel.function, {}),
    ]
    return f"{kernel.function.__module__}-{sha256(chr(10).join(words).encode()).hexdigest()[:32]}"


def _words(value: object, known: dict[int, int]) -> Iterator[str]:
    value = getattr(value, "py_func", value)  # of what numba has wrapped
    if isinstance(value, FunctionType):
        if id(value) in known:
            yield f"function {known[id(value)]}"
            return
        known[id(value)] = len(known)
        yield f"{value.__module__}.{value.__qualname__}, line {value.__code__.co_firstlineno}"
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            yield name
            yield from _words(cell.cell_contents, known)
    elif isinstance(value, (tuple, list)):
        yield f"{type(value).__qualname__} of {len(value)}"
        for item in value:
            yield from _words(item, known)
    elif isinstance(value, (type, ModuleType)):
        yield f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value.__name__)}"
    elif value is None or isinstance(value, (bool, int, float, str, np.generic)):
        yield f"{type(value).__name__} {value!r}"
    else:
        raise TypeError(f"a {type(value).__name__} has no name by which a kernel could be known again")
