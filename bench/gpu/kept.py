"""Compiled kernels, kept from one process to the next: compiling is most of what the sections would wait for.

numba's own cache would not know them again: they are closures over functions that are made anew in every process. Here
a kernel goes by the names and places of these functions, and by what they are closed over; the folder, by the sources.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

__all__ = ["FOLDER", "install", "keep", "name_of"]

FOLDER = "NPSELECT_GPU_KERNELS"  # of the environment: the folder, set by the command


def install(report: Any = None) -> None:
    """Let kernels be kept where the command says, if it does; a report is told why they are not."""
    folder = os.environ.get(FOLDER)
    if not folder:
        return
    try:
        from numba import cuda

        from npselect._gpu.launch import Launcher

        keep(Launcher, Path(folder), tuple(cuda.get_current_device().compute_capability))
    except Exception as error:  # compiling, if nothing else, will say more
        if report is not None:
            report.note(f"compiled kernels are not kept: {type(error).__name__}: {' '.join(str(error).split())[:200]}")


def keep(launchers: Any, folder: Path, capability: tuple[int, ...]) -> None:
    """Let ``launchers.compiled`` take what is in the folder, and put there what is not."""
    compile_it = getattr(launchers.compiled, "compile_it", launchers.compiled)

    def compiled(launcher: Any) -> Any:
        try:
            path = folder / name_of(launcher, capability)
            if path.exists():
                return _dispatcher(launcher, pickle.loads(path.read_bytes()))
        except Exception:  # whatever it is, the kernel can still be compiled
            return compile_it(launcher)
        dispatcher = compile_it(launcher)
        with suppress(Exception):
            (kernel,) = dispatcher.overloads.values()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            part = path.with_suffix(f".{os.getpid()}")
            part.write_bytes(pickle.dumps(kernel))
            part.replace(path)
        return dispatcher

    compiled.compile_it = compile_it  # type: ignore[attr-defined]
    launchers.compiled = compiled


def _dispatcher(launcher: Any, kernel: Any) -> Any:
    """What numba would have made, with a kernel that was compiled before."""
    from numba import cuda

    dispatcher = cuda.jit(launcher.function)
    dispatcher.add_overload(kernel, kernel.argument_types)
    dispatcher._specialized = True
    dispatcher.disable_compile()
    return dispatcher


# ------------------------------------------------------------------------------------------------ names


def name_of(launcher: Any, capability: tuple[int, ...]) -> str:
    """What a kernel is kept under; TypeError if it is closed over what has no name."""
    words = [
        *(f"{package} {metadata.version(package)}" for package in ("numba", "numba-cuda", "llvmlite")),
        *(sys.version, np.__version__, str(launcher.signature), str(launcher.most_threads), str(capability)),
        *_words(launcher.function, {}),
    ]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def _words(value: Any, known: dict[int, int]) -> Iterator[str]:
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
