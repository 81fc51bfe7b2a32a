"""Memory of a GPU, by address, and launches: the one module of the CUDA tier that talks to the driver, with numba-cuda.

Streams are integers as everywhere in Python's protocols: 1 is the legacy default stream, 2 the thread's, any other a
handle. Memory comes from the memory manager that numba has been given, or from the driver.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any

import numpy.typing as npt

__all__ = [
    "Kernel",
    "LEGACY",
    "Owner",
    "allocate",
    "current",
    "current_device",
    "describe",
    "device_of",
    "download",
    "launch",
    "settle",
    "synchronize",
    "unavailable",
    "upload",
    "wait",
]

Array = npt.NDArray[Any]
LEGACY = 1
_LEAST_CAPABILITY = (7, 0)
_LEAST_DRIVER = (12, 0)


# ------------------------------------------------------------------------------------------------ is there a device


def unavailable() -> str | None:
    """Why no kernel can be run here, in one line; None where one can."""
    if find_spec("numba_cuda") is None:
        return "numba-cuda is not installed; pip install 'npselect[cuda]' ('npselect[cuda12]' for a CUDA 12 driver)"
    try:
        from npselect._gpu.intrinsics import simulated
    except Exception as error:
        versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("numba-cuda", "numba", "numpy"))
        return f"numba-cuda cannot be imported ({versions}): {_one_line(error)}"
    try:
        if simulated():
            return "numba simulates CUDA here (NUMBA_ENABLE_CUDASIM), which has no device memory"
        driver, binding = _driver(), _binding()
        if not driver.is_available:
            return f"no NVIDIA driver is in use: {_one_line(driver.initialization_error)}"
        version, built_for = driver.get_version(), _toolkit()
        count = binding.cuDeviceGetCount()[1]
        if not count:
            return "there is no NVIDIA GPU, or none is visible (CUDA_VISIBLE_DEVICES)"
        device = driver.get_device(_current_device() or 0)
        capability = tuple(device.compute_capability)
    except Exception as error:  # whatever is wrong with a driver, it is a reason and no traceback
        return f"the NVIDIA driver cannot be used: {_one_line(error)}"
    if version < max(_LEAST_DRIVER, (built_for, 0)):
        needed = max(_LEAST_DRIVER[0], built_for)
        older = "; or install npselect[cuda12]" if built_for > version[0] >= _LEAST_DRIVER[0] else ""
        return f"the NVIDIA driver is for CUDA {_dotted(version)}, which is older than {needed}.0; update it{older}"
    if capability < _LEAST_CAPABILITY:
        least = _dotted(_LEAST_CAPABILITY)
        return f"{device.name} has compute capability {_dotted(capability)}; {least} or newer is needed"
    return None


def describe() -> str:
    """The current device, or the first."""
    device = _driver().get_device(_current_device() or 0)
    capability = _dotted(device.compute_capability)
    return f"{device.name}, compute capability {capability}, numba-cuda {metadata.version('numba-cuda')}"


def _one_line(message: Any) -> str:
    return " ".join(str(message).split()).rstrip(" :.")


def _dotted(version: Any) -> str:
    return ".".join(str(int(part)) for part in version)


@cache
def _driver() -> Any:
    from numba.cuda.cudadrv.driver import driver

    return driver


@cache
def _binding() -> Any:
    return import_module("cuda.bindings.driver")


def _toolkit() -> int:
    """The CUDA version that the bindings, and with them the compiler, were made for."""
    return int(metadata.version("cuda-bindings").split(".")[0])


# ------------------------------------------------------------------------------------------------ devices


def _current_device() -> int | None:
    """The device of the context that is current in this thread, if one is."""
    error, device = _binding().cuCtxGetDevice()
    return None if int(error) else int(device)


def current_device() -> int:
    """The device that is current in this thread; the first is made current if none is."""
    device = _current_device()
    return int(_context().device.id) if device is None else device


def current(device: int) -> AbstractContextManager[Any]:
    """A device made current for as long as a `with` statement lasts."""
    if _current_device() == device:
        return nullcontext()
    from numba import cuda

    return cuda.gpus[device]  # type: ignore[no-any-return]


def _context() -> Any:
    """The current device's context, as numba has it."""
    from numba import cuda

    return cuda.current_context()


def _is_open(context: Any) -> bool:
    return context.device.primary_context is context


def device_of(address: int) -> int:
    """The number of the device that an address belongs to; RuntimeError if it is no device memory (any more)."""
    _driver().ensure_initialized()
    error, device = _binding().cuPointerGetAttribute(_ordinal(), address)
    if error or device < 0:
        raise RuntimeError(
            f"{address:#x} is no device memory: the array was freed, or the CUDA context that it was made in was closed"
        )
    return int(device)


@cache
def _ordinal() -> Any:
    return _binding().CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL


# ------------------------------------------------------------------------------------------------ memory


class Owner:
    """Device memory that is freed when its last reference goes."""

    __slots__ = ("_context", "_memory", "address")

    def __init__(self, context: Any, memory: Any) -> None:
        self._context, self._memory = context, memory
        self.address = int(memory.device_pointer_value)

    def __del__(self) -> None:
        """Free it in a context, as the driver wants; the thread in which the last reference goes may have none."""
        if not sys.is_finalizing() and _current_device() is None and _is_open(self._context):
            with current(int(self._context.device.id)):
                self._memory = None

    def check(self) -> None:
        """RuntimeError if the context was closed, and the memory is gone with it."""
        if not _is_open(self._context):
            raise RuntimeError("the CUDA context that the array was made in was closed, and its memory with it")


def allocate(nbytes: int, stream: int) -> Owner:
    """New memory on the current device, for use on a stream; what the memory manager raises when there is no more."""
    context = _context()
    owner = Owner(context, context.memalloc(max(nbytes, 1)))
    if _plugged_in() and stream != LEGACY:
        wait(stream, LEGACY)  # whoever had the memory before had it in the default stream's order
    return owner


def settle(stream: int) -> None:
    """What was allocated for a stream may be freed from now on, whatever is still to be done there."""
    if stream != LEGACY and _plugged_in():
        wait(LEGACY, stream)  # the driver's own free waits for the device


def _plugged_in() -> bool:
    from numba.cuda.cudadrv import driver

    return getattr(driver, "_memory_manager", None) not in (None, driver.NumbaCUDAMemoryManager)


def upload(address: int, array: Array, stream: int) -> None:
    """Copy a C-contiguous array to the device, on a stream; the array may be changed when this returns."""
    if array.nbytes:
        driver, source = _driver(), array.ctypes.data
        driver.cuMemcpyHtoDAsync(address, source, array.nbytes, stream)
        if _pinned(source) or _reads_the_host():  # else the driver has taken a copy of it by now
            synchronize(stream)


def _pinned(address: int) -> bool:
    binding = _binding()
    error, _ = binding.cuPointerGetAttribute(binding.CUpointer_attribute.CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address)
    return int(error) == 0


def _reads_the_host() -> bool:
    """Whether the current device reaches memory of the host that was not pinned."""
    asked = _binding().CUdevice_attribute.CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS
    return bool(_driver().cuDeviceGetAttribute(asked, _current_device() or 0))


def download(array: Array, address: int, stream: int) -> None:
    """Copy from the device into a C-contiguous array, after all that is on the stream; wait for it."""
    if array.nbytes:
        _driver().cuMemcpyDtoHAsync(array.ctypes.data, address, array.nbytes, stream)
        synchronize(stream)


# ------------------------------------------------------------------------------------------------ streams


def synchronize(stream: int) -> None:
    """Wait until a stream has done all that was given to it."""
    _driver().cuStreamSynchronize(stream)


def wait(stream: int, other: int) -> None:
    """What is given to `stream` from now on waits for all that `other` has been given; nobody waits here."""
    if stream != other:
        driver, binding = _driver(), _binding()
        event = driver.cuEventCreate(int(binding.CUevent_flags.CU_EVENT_DISABLE_TIMING))
        try:
            driver.cuEventRecord(event, other)
            driver.cuStreamWaitEvent(stream, event, 0)
        finally:
            driver.cuEventDestroy(event)


# ------------------------------------------------------------------------------------------------ kernels


class Kernel:
    """What numba has compiled, loaded on the current device."""

    __slots__ = ("_context", "_function", "handle")

    def __init__(self, dispatcher: Any) -> None:
        (compiled,) = dispatcher.overloads.values()
        self._context = _context()
        self._function = compiled._codelibrary.get_cufunc()  # which keeps what the handle stands for
        self.handle = _binding().CUfunction(int(self._function.handle))

    def is_loaded(self) -> bool:
        """Whether the context that it was loaded into is still open."""
        return _is_open(self._context)


def launch(
    kernel: Kernel, blocks: int, threads: int, stream: int, arguments: tuple[Any, ...], c_types: tuple[Any, ...]
) -> None:
    """Launch a kernel of the current device; numba's own launch takes ten times as long for so many arguments."""
    _driver().cuLaunchKernel(kernel.handle, blocks, 1, 1, threads, 1, 1, 0, stream, (arguments, c_types), 0)
