"""A GPU that is none, for tests: its memory is the host's, its kernels run as Python, its streams are written down.

`Device.installed` puts it in the place of the driver.
"""

import ctypes
import itertools
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import ml_dtypes
import numpy as np

from fakes import installed
from npselect._gpu import dlpack
from npselect._gpu.array import DeviceArray
from npselect._gpu.driver import Allocation
from npselect.tiers.cpu import rows as cpu

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


class Memory(Allocation):
    def __init__(self, device, nbytes):
        self.memory = np.full(nbytes + 64, 0xA5, np.uint8)  # to be noticed where nothing was written
        self.address = -(-self.memory.ctypes.data // 64) * 64
        self.device = device

    def __del__(self):
        self.memory.fill(0xA5)  # to be noticed where it is used once it is free
        self.device.freed.append(self.memory)

    def check(self):
        if self.device.closed:
            raise RuntimeError("the CUDA context that the array was made in was closed, and its memory with it")


class Device:
    """A driver, and what it was asked to do."""

    def __init__(self):
        self.number = 0
        self.numbers = {}  # of the device, by address, where it is not 0
        self.log = []
        self.closed = False
        self.bytes_left = None
        self.freed = []
        self.intrinsics = SimpleNamespace(load=load, store=store, block=self.block, thread=self.thread)

    def installed(self):
        return installed(self, Tier(self))

    def unavailable(self):
        return None

    def describe(self):
        return "the host"

    def allocate(self, nbytes, stream):
        if self.bytes_left is not None:
            self.bytes_left -= nbytes
            if self.bytes_left < 0:
                raise MemoryError("CUDA_ERROR_OUT_OF_MEMORY")
        memory = Memory(self, nbytes)
        self.numbers[memory.address] = self.number
        return memory

    @contextmanager
    def current(self, number):
        before, self.number = self.number, number
        try:
            yield
        finally:
            self.number = before

    def current_device(self):
        return self.number

    def device_of(self, address):
        return self.numbers.get(address, 0)

    def upload(self, address, array, stream):
        assert array.flags.c_contiguous
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def download(self, array, address, stream):
        assert array.flags.c_contiguous
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def free_after(self, stream):
        self.log.append(("free_after", stream))

    def synchronize(self, stream):
        self.log.append(("synchronize", stream))

    def wait(self, stream, other):
        self.log.append(("wait", stream, other))

    def launch(self, kernel, blocks, threads, stream, arguments):
        self.log.append(("launch", stream))
        scalars = kernel.scalars(arguments)
        assert all(isinstance(scalar, int) for scalar in scalars)
        with np.errstate(all="ignore"):
            for self._block, self._thread in itertools.product(range(blocks), range(threads)):
                kernel.function(*map(np.int64, scalars))

    def block(self):
        return np.int64(self._block)

    def thread(self):
        return np.int64(self._thread)


def _view(address, place, kind):
    size = np.dtype(kind).itemsize
    at = int(address) + int(place) * size
    assert at % size == 0, "a load or a store at an odd address"
    return np.frombuffer((ctypes.c_byte * size).from_address(at), kind)


def load(address, place, kind):
    return _view(address, place, kind)[0]


def store(address, place, kind, value):
    _view(address, place, kind)[0] = value


def seen(array):
    """A DeviceArray as a NumPy array of the same memory."""
    if not isinstance(array, DeviceArray):
        return array
    lowest = array.address + sum(min(0, (n - 1) * s) for n, s in zip(array.shape, array.strides, strict=True))
    size = sum(abs((n - 1) * s) for n, s in zip(array.shape, array.strides, strict=True)) + array.dtype.itemsize
    if not array.size:
        return np.empty(array.shape, array.dtype)
    buffer = (ctypes.c_byte * size).from_address(lowest)
    dtype = BFLOAT16 if array.dtype.name == "bfloat16" else array.dtype  # for the stand-in
    return np.ndarray(array.shape, dtype, buffer, array.address - lowest, array.strides)


class Tier:
    """Row functions that hold callers to the contract of `npselect.tiers`, and leave the work to the CPU tier."""

    def __init__(self, device):
        self.device = device

    def __getattr__(self, name):
        def run(*arrays):
            on_device = [array for array in arrays if isinstance(array, DeviceArray)]
            for array in on_device:
                assert array.c_contiguous
                assert array.dtype.isnative
                assert array.size, "nothing may be launched for no rows"
                assert array.stream == on_device[0].stream
                assert array.device == on_device[0].device == self.device.number
            if on_device:
                hosts = [array for array in arrays if isinstance(array, np.ndarray)]
                assert len(hosts) <= 1, "only the temperatures are the host's"
                assert all(array.ndim == 1 for array in hosts)
                self.device.log.append((name, on_device[0].stream))
            getattr(cpu, name)(*map(seen, arrays))

        return run


class Interface:
    """An array of another library with __cuda_array_interface__."""

    def __init__(self, array, version=3, **more):
        self.array, self.dtype = array, array.dtype
        strides = None if array.flags.c_contiguous and "strides" not in more else array.strides
        read_only = not array.flags.writeable
        self.__cuda_array_interface__ = {
            "typestr": array.dtype.str,
            "shape": array.shape,
            "strides": strides,
            "data": (array.ctypes.data, read_only),
            "version": version,
            **more,
        }


class Lent:
    """An array of another library with DLPack alone."""

    def __init__(self, array, versioned=True, device=0):
        self.array, self.versioned, self.device, self.streams = array, versioned, device, []

    def __dlpack_device__(self):
        return 2, self.device

    def __dlpack__(self, stream=None, **options):
        if options and not self.versioned:
            raise TypeError("__dlpack__() got an unexpected keyword argument 'max_version'")
        self.streams.append(stream)
        array, read_only = self.array, not self.array.flags.writeable
        about = array.ctypes.data, array.shape, array.strides, array.dtype, self.device, read_only
        return dlpack.make(dlpack.Description(*about), array, self.versioned)


class Tensor:
    """A tensor of `torch_like`."""

    layout = "strided"
    is_cuda = True
    negative = False

    def __init__(self, array, device=0):
        self.array, self.shape, self.device = array, array.shape, device
        self.dtype = f"torch.{array.dtype}"

    def is_neg(self):
        return self.negative

    def get_device(self):
        return self.device

    def data_ptr(self):
        return self.array.ctypes.data

    def is_contiguous(self):
        return self.array.flags.c_contiguous

    def stride(self):
        return tuple(step // self.array.itemsize for step in self.array.strides)


def torch_like(stream, quick):
    """As much of PyTorch as npselect looks at; its current stream is told in either of two ways."""
    torch = ModuleType("torch")
    torch.Tensor, torch.strided, torch._C = Tensor, "strided", SimpleNamespace()
    if quick:
        torch._C._cuda_getCurrentRawStream = lambda device: stream
    torch.cuda = SimpleNamespace(current_stream=lambda device: SimpleNamespace(cuda_stream=stream))
    return torch
