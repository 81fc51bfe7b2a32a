"""What compiling kernels needs, whether it is there and, if not, what to bring.

numba-cuda needs libNVVM with its libdevice (of the wheel nvidia-nvvm, or of a CUDA toolkit), NVRTC, and a linker:
nvJitLink. A small kernel is compiled, launched, and its result looked at; then npselect's.
"""

from __future__ import annotations

import gc
import os
import time
from importlib import import_module
from typing import Any

import numpy as np

from gpu import toolkit
from gpu.report import Report, last_lines
from npselect.bench.devices import device

__all__ = ["run"]

BRING = (
    "libNVVM is missing: bring the wheel nvidia-nvvm==13.0.88 (59 MB, manylinux x86-64): pip download --no-deps "
    "nvidia-nvvm==13.0.88 where there is a network, and here pip install --no-index --no-deps nvidia_nvvm-*.whl, with "
    "--target SITE and SITE on PYTHONPATH if need be, which this command looks through too; or set CUDA_HOME to a "
    "folder that has nvvm/lib64/libnvvm.so.4 and nvvm/libdevice"
)
LIBRARIES = {
    "nvvm": BRING,
    "nvrtc": "bring the wheel nvidia-cuda-nvrtc==13.0.88",
    "nvJitLink": "bring nvidia-nvjitlink",
}


def run(report: Report, part: str) -> None:
    report.fact("CUDA_HOME", os.environ.get("CUDA_HOME"))
    report.fact("toolkits", toolkit.contents())
    missing = []
    for name in LIBRARIES:
        try:
            from cuda import pathfinder

            library = pathfinder.load_nvidia_dynamic_lib(name)
            report.fact(name, f"{library.abs_path} ({getattr(library, 'found_via', '?')})")
        except ImportError as error:
            report.note(f"cuda.pathfinder is not there to look for {name}: {error}")
        except Exception as error:
            report.note(f"{name} was not found: {' '.join(str(error).split())[:300]}")
            missing.append(name)
    with report.attempt("numba.cuda"):
        from numba import cuda

        report.fact("numba.cuda", getattr(cuda, "__file__", "?"))
    if not hasattr(np, "row_stack"):
        with report.attempt("NumPy's row_stack"):
            _without_row_stack(report)
    for each in (ptx, launch, tier, registers):
        begun = time.monotonic()
        try:
            report.fact(each.__name__, each())
            report.fact(f"{each.__name__} seconds", round(time.monotonic() - begun, 2))
        except Exception as error:
            report.error(each.__name__, error)
            if "nvvm" in last_lines(error, 50).lower() and "nvvm" not in missing:
                missing.append("nvvm")
            for name in missing:
                report.note(LIBRARIES[name])
            break


def _without_row_stack(report: Report) -> None:
    """NumPy 2.5 has no row_stack; a numba-cuda that asks for it (0.30 does) is given vstack, in this process only."""
    try:
        import_module("numba.cuda.np.arrayobj")
    except AttributeError as error:
        report.note(
            f"numba-cuda does not go with NumPy {np.__version__} ({error}): compiling any kernel fails, unless "
            "np.row_stack is there when numba.cuda.np.arrayobj is imported, as it is made to be from here on"
        )
        setattr(np, "row_stack", np.vstack)  # noqa: B010 no attribute that a checker knows


def ptx() -> str:
    """Compile without the device: what version the PTX has."""
    from numba import cuda, types

    capability = tuple(device()["capability"])
    signature = types.void(types.float32[::1], types.float32)
    text, _ = cuda.compile(_scale(), signature, device=False, cc=capability, output="ptx", abi="numba")
    return next(line for line in str(text).splitlines() if line.startswith(".version"))


def launch() -> str:
    """Compile, load, launch and look."""
    from numba import cuda

    array = np.arange(1000, dtype=np.float32)
    there = cuda.to_device(array)
    cuda.jit(_scale())[8, 128](there, np.float32(3))
    if not np.array_equal(there.copy_to_host(), 3 * array):
        raise ArithmeticError("a kernel that multiplies by 3 did not")
    return "a kernel ran, and its result is right"


def tier() -> str:
    """npselect's tier on six numbers of the host."""
    from npselect import straight_through

    logits = np.array([[0.5, 2.0, -1.0], [1.0, 1.0, 3.0]], np.float32)
    mask = np.asarray(straight_through.forward(logits, backend="cuda"))
    if mask.tolist() != [[0, 1, 0], [0, 0, 1]]:
        raise ArithmeticError(f"the mask is {mask.tolist()}")
    return "npselect's forward ran, and its result is right"


def registers() -> dict[str, str]:
    """What the kernels of `tier` take of a multiprocessor, as they were loaded, with the backward pass's."""
    from npselect import straight_through
    from npselect._gpu.launch import Kernel

    logits = np.zeros((2, 1024), np.float32)
    straight_through.forward(logits, backend="cuda")
    straight_through.backward(logits, logits, backend="cuda")
    found = {}
    for kernel in (thing for thing in gc.get_objects() if isinstance(thing, Kernel)):
        cells = dict(zip(kernel.function.__code__.co_freevars, kernel.function.__closure__ or (), strict=True))
        function = cells["body"].cell_contents if "body" in cells else kernel.function
        for loaded in kernel.loaded.values():
            taken, (code,) = loaded.function.attrs, loaded.compiled._codelibrary._cubin_cache.values()
            found[function.__qualname__.partition(".")[0]] = (
                f"loaded as {code.code_type}, {taken.regs} registers, {taken.local} bytes of local memory, "
                f"{taken.shared} shared, at most {kernel.most_threads} threads"
            )
    return found


def _scale() -> Any:
    """A kernel's source, in which `cuda` is bound: this module is imported where there is none."""
    from numba import cuda

    def scale(array: Any, factor: Any) -> None:
        i = cuda.grid(1)
        if i < array.size:
            array[i] *= factor

    return scale
