"""The driver of a GPU: memory by address, streams, launches. All that npselect asks of one is the protocol `Driver`.

Streams are integers as everywhere in Python's protocols: 1 is the legacy default stream, 2 the thread's, any other a
handle. Memory comes from the memory manager that numba has been given, or from the driver.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol, TypeAlias

from npselect._gpu import numba_private
from npselect._gpu.aliases import HostArray, Unknown

if TYPE_CHECKING:
    from npselect._gpu.launch import Kernel

__all__ = ["Allocation", "Driver", "LEGACY", "NumbaDriver", "Scalar", "describe", "gpu", "unavailable", "using"]

Scalar: TypeAlias = int | float
LEGACY = 1
_LEAST_CAPABILITY = (7, 0)
_LEAST_DRIVER = (12, 0)


class Allocation:
    """Device memory that is freed when its last reference goes.

    Attributes
    ----------
    address : int
        Of its first byte.
    """

    __slots__ = ("address",)
    address: int

    def check(self) -> None:
        """RuntimeError if the memory is gone, though it is still referred to."""


class Driver(Protocol):
    """What is asked of a GPU's driver. All but the first two functions are for the device that is current."""

    def unavailable(self) -> str | None:
        """Why no kernel can be run here, in one line; None where one can."""

    def describe(self) -> str:
        """The current device, or the first, in one line."""

    def current_device(self) -> int:
        """The device that is current in this thread; the first is made current if none is."""

    def current(self, device: int) -> AbstractContextManager[Unknown]:
        """A device made current for as long as a `with` statement lasts."""

    def device_of(self, address: int) -> int:
        """The number of the device that an address belongs to; RuntimeError if it is no device memory (any more)."""

    def allocate(self, nbytes: int, stream: int) -> Allocation:
        """New memory, for use on a stream; what the memory manager raises when there is no more."""

    def free_after(self, stream: int) -> None:
        """What was allocated for a stream may be freed from now on, whatever is still to be done there."""

    def upload(self, address: int, array: HostArray, stream: int) -> None:
        """Copy a C-contiguous array to the device, on a stream; the array may be changed when this returns."""

    def download(self, array: HostArray, address: int, stream: int) -> None:
        """Copy from the device into a C-contiguous array, after all that is on the stream; wait for it."""

    def synchronize(self, stream: int) -> None:
        """Wait until a stream has done all that was given to it."""

    def wait(self, stream: int, other: int) -> None:
        """What is given to `stream` from now on waits for all that `other` has been given; nobody waits here."""

    def launch(self, kernel: Kernel, blocks: int, threads: int, stream: int, arguments: tuple[Unknown, ...]) -> None:
        """Launch a kernel, with its arguments as it takes them."""


_driver_in_use: Driver


def gpu() -> Driver:
    """The driver that is in use: numba-cuda's, unless `using` says otherwise."""
    return _driver_in_use


@contextmanager
def using(driver: Driver) -> Iterator[Driver]:
    """Use another driver for as long as a `with` statement lasts, in all threads."""
    global _driver_in_use
    before, _driver_in_use = _driver_in_use, driver
    try:
        yield driver
    finally:
        _driver_in_use = before


def unavailable() -> str | None:
    """Why no kernel can be run here, in one line; None where one can."""
    return _driver_in_use.unavailable()


def describe() -> str:
    """The current device, or the first, in one line."""
    return _driver_in_use.describe()


# ------------------------------------------------------------------------------------------------ is there a device


def _why_unavailable() -> str | None:
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


def _one_line(message: object) -> str:
    return " ".join(str(message).split()).rstrip(" :.")


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(int(part)) for part in version)


def _driver() -> Unknown:
    return numba_private.numba_driver()


@cache
def _binding() -> Unknown:
    return import_module("cuda.bindings.driver")


def _toolkit() -> int:
    """The CUDA version that the bindings, and with them the compiler, were made for."""
    return int(metadata.version("cuda-bindings").split(".")[0])


# ------------------------------------------------------------------------------------------------ contexts


def _current_device() -> int | None:
    """The device of the context that is current in this thread, if one is."""
    error, device = _binding().cuCtxGetDevice()
    return None if int(error) else int(device)


def _current(device: int) -> AbstractContextManager[Unknown]:
    if _current_device() == device:
        return nullcontext()
    from numba import cuda

    return cuda.gpus[device]  # type: ignore[no-any-return]


def _context() -> Unknown:
    """The current device's context, as numba has it."""
    from numba import cuda

    return cuda.current_context()


def _is_open(context: Unknown) -> bool:
    return context.device.primary_context is context


@cache
def _ordinal() -> Unknown:
    return _binding().CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL


def _pinned(address: int) -> bool:
    binding = _binding()
    error, _ = binding.cuPointerGetAttribute(binding.CUpointer_attribute.CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address)
    return int(error) == 0


def _reads_the_host() -> bool:
    """Whether the current device reaches memory of the host that was not pinned."""
    asked = _binding().CUdevice_attribute.CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS
    return bool(_driver().cuDeviceGetAttribute(asked, _current_device() or 0))


# ------------------------------------------------------------------------------------------------ the driver


class _NumbaAllocation(Allocation):
    """Memory of numba's memory manager."""

    __slots__ = ("_context", "_memory")

    def __init__(self, context: Unknown, memory: Unknown) -> None:
        self._context, self._memory = context, memory
        self.address = int(memory.device_pointer_value)

    def __del__(self) -> None:
        """Free it in a context, as the driver wants; the thread in which the last reference goes may have none."""
        if not sys.is_finalizing() and _current_device() is None and _is_open(self._context):
            with _current(int(self._context.device.id)):
                self._memory = None

    def check(self) -> None:
        """RuntimeError if the context was closed, and the memory is gone with it."""
        if not _is_open(self._context):
            raise RuntimeError("the CUDA context that the array was made in was closed, and its memory with it")


class _Loaded:
    """A kernel, loaded on the current device."""

    __slots__ = ("_context", "compiled", "function", "handle")

    def __init__(self, compiled: Unknown) -> None:
        self._context = _context()
        self.compiled = compiled
        self.function = numba_private.loaded_function(compiled)  # which keeps what the handle stands for
        self.handle = _binding().CUfunction(int(self.function.handle))

    def is_open(self) -> bool:
        """Whether the context that it was loaded into still is."""
        return _is_open(self._context)


class NumbaDriver:
    """The driver, by way of numba-cuda and cuda-bindings."""

    def unavailable(self) -> str | None:
        """Why no kernel can be run here, in one line; None where one can."""
        return _why_unavailable()

    def describe(self) -> str:
        """The current device, or the first."""
        device = _driver().get_device(_current_device() or 0)
        capability = _dotted(device.compute_capability)
        return f"{device.name}, compute capability {capability}, numba-cuda {metadata.version('numba-cuda')}"

    def current_device(self) -> int:
        """The device that is current in this thread; the first is made current if none is."""
        device = _current_device()
        return int(_context().device.id) if device is None else device

    def current(self, device: int) -> AbstractContextManager[Unknown]:
        """A device made current for as long as a `with` statement lasts."""
        return _current(device)

    def device_of(self, address: int) -> int:
        """The number of the device that an address belongs to."""
        _driver().ensure_initialized()
        error, device = _binding().cuPointerGetAttribute(_ordinal(), address)
        if error or device < 0:
            raise RuntimeError(
                f"{address:#x} is no device memory: the array was freed, or the CUDA context that it was made in was "
                "closed"
            )
        return int(device)

    def allocate(self, nbytes: int, stream: int) -> Allocation:
        """New memory on the current device, for use on a stream."""
        context = _context()
        allocation = _NumbaAllocation(context, context.memalloc(max(nbytes, 1)))
        if numba_private.has_another_memory_manager() and stream != LEGACY:
            self.wait(stream, LEGACY)  # whoever had the memory before had it in the default stream's order
        return allocation

    def free_after(self, stream: int) -> None:
        """What was allocated for a stream may be freed from now on, whatever is still to be done there."""
        if stream != LEGACY and numba_private.has_another_memory_manager():
            self.wait(LEGACY, stream)  # the driver's own free waits for the device

    def upload(self, address: int, array: HostArray, stream: int) -> None:
        """Copy a C-contiguous array to the device, on a stream; the array may be changed when this returns."""
        if array.nbytes:
            source = array.ctypes.data
            _driver().cuMemcpyHtoDAsync(address, source, array.nbytes, stream)
            if _pinned(source) or _reads_the_host():  # else the driver has taken a copy of it by now
                self.synchronize(stream)

    def download(self, array: HostArray, address: int, stream: int) -> None:
        """Copy from the device into a C-contiguous array, after all that is on the stream; wait for it."""
        if array.nbytes:
            _driver().cuMemcpyDtoHAsync(array.ctypes.data, address, array.nbytes, stream)
            self.synchronize(stream)

    def synchronize(self, stream: int) -> None:
        """Wait until a stream has done all that was given to it."""
        _driver().cuStreamSynchronize(stream)

    def wait(self, stream: int, other: int) -> None:
        """What is given to `stream` from now on waits for all that `other` has been given; nobody waits here."""
        if stream != other:
            driver, binding = _driver(), _binding()
            event = driver.cuEventCreate(int(binding.CUevent_flags.CU_EVENT_DISABLE_TIMING))
            try:
                driver.cuEventRecord(event, other)
                driver.cuStreamWaitEvent(stream, event, 0)
            finally:
                driver.cuEventDestroy(event)

    def launch(self, kernel: Kernel, blocks: int, threads: int, stream: int, arguments: tuple[Unknown, ...]) -> None:
        """Launch a kernel on the current device; numba's own launch takes ten times as long for so many arguments."""
        device = self.current_device()
        loaded = kernel.loaded.get(device)
        if loaded is None or not loaded.is_open():
            loaded = kernel.loaded[device] = _Loaded(kernel.compiled())
        given = kernel.scalars(arguments), kernel.c_types
        _driver().cuLaunchKernel(loaded.handle, blocks, 1, 1, threads, 1, 1, 0, stream, given, 0)


_driver_in_use = NumbaDriver()
