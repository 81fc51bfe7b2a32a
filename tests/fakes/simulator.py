"""What numba's CUDA simulator lacks: warps whose lanes meet in shuffles, memory by address, allocations.

Run with NUMBA_ENABLE_CUDASIM=1, and install this before the kernels are imported. Each simulated thread is a thread; a
shuffle is a meeting of the 32 of a warp, which must all have come for the same reason. An address is a pointer of the
host. As the scalar formulas are compared elsewhere, `fma` is the compiled one.
"""

import ctypes
import threading
import warnings
from contextlib import nullcontext
from types import SimpleNamespace

import ml_dtypes
import numpy as np
from numba import cuda, njit
from numba.cuda.simulator import kernel

from fakes import installed
from npselect._arithmetic import primitives
from npselect._gpu import intrinsics
from npselect._gpu.driver import Allocation

assert intrinsics.simulated(), "NUMBA_ENABLE_CUDASIM=1 must be set before numba is imported"

WARP = 32
C_TYPES = {
    np.float32: ctypes.c_float,
    np.float64: ctypes.c_double,
    np.uint8: ctypes.c_uint8,
    np.int16: ctypes.c_int16,
    np.uint16: ctypes.c_uint16,
    np.int32: ctypes.c_int32,
    np.int64: ctypes.c_int64,
    np.uint64: ctypes.c_uint64,
}
PATIENCE = 60  # seconds; lanes that wait for longer have parted ways


def _cell(address, place, kind):
    c_type = C_TYPES[kind]
    at = int(address) + int(place) * ctypes.sizeof(c_type)
    assert at % ctypes.sizeof(c_type) == 0
    return c_type.from_address(at)


def load(address, place, kind):
    if isinstance(address, np.ndarray):
        assert 0 <= place < len(address)
        return address[place]
    return kind(_cell(address, place, kind).value)


def store(address, place, kind, value):
    if isinstance(address, np.ndarray):
        assert 0 <= place < len(address)
        address[place] = value
        return
    _cell(address, place, kind).value = kind(value).item()


def _check_quad(address, place, kind):
    size = np.dtype(kind).itemsize
    assert (int(address) + int(place) * size) % min(16, 4 * size) == 0, "a quad that is not aligned"


def load4(address, place, kind):
    _check_quad(address, place, kind)
    return tuple(load(address, place + i, kind) for i in range(4))


def store4(address, place, kind, values):
    _check_quad(address, place, kind)
    for i, value in enumerate(values):
        store(address, place + i, kind, value)


def thread():
    return int(threading.current_thread().threadIdx.x)


def block():
    return int(threading.current_thread().blockIdx.x)


def barrier():
    threading.current_thread().syncthreads()


class _Warp:
    def __init__(self):
        self.meeting = threading.Barrier(WARP, timeout=PATIENCE)
        self.values = [None] * WARP


_lock = threading.Lock()


def shuffle_xor(value, distance):
    me = threading.current_thread()
    number, lane = divmod(me.thread_id, WARP)
    with _lock:
        warps = me._manager.__dict__.setdefault("warps", {})
        warp = warps.setdefault(number, _Warp())
    warp.values[lane] = (value, distance, type(value))
    warp.meeting.wait()
    other, its_distance, _ = warp.values[lane ^ distance]
    warp.meeting.wait()
    assert its_distance == distance, "lanes of a warp have met in different shuffles"
    return other


class _Launched:
    """`numba.cuda` as it is for the kernel that runs; the simulator puts that into the kernel's own module only."""

    def __getattr__(self, name):
        return getattr(kernel._get_kernel_context(), name)


def _quick_fma(a, b, c):
    return type(a)(_compiled_fma(a, b, c))  # noqa: F821 its globals will be those of primitives


def widen_float16(bits):
    return np.uint16(bits).view(np.float16).astype(np.float32)


def narrow_float16(x):
    return np.float32(x).astype(np.float16).view(np.uint16)


def widen_bfloat16(bits):
    return np.int16(bits).view(ml_dtypes.bfloat16).astype(np.float32)


def narrow_bfloat16(x):
    return np.float32(x).astype(ml_dtypes.bfloat16).view(np.int16)


def rough_log2(x):
    """As far off as a device's may be, to one side or the other."""
    exact = np.log2(np.float64(x))
    side = 1 if np.float32(x).view(np.uint32) & 4 else -1
    return np.float32(exact + side * 0.9 * 2.0**-22 * (1 if 0.5 < x < 2 else abs(exact)))


def wide_product(a, b):
    return np.uint64(int(a) * int(b))


class Memory(Allocation):
    """Memory that is poisoned, lest something be taken for written that is not."""

    def __init__(self, nbytes):
        self.memory = np.full(nbytes + 64, 0xA5, np.uint8)
        self.address = -(-self.memory.ctypes.data // 64) * 64

    def __del__(self):
        self.memory.fill(0xA5)  # to be noticed where it is used once it is free


INTRINSICS = (
    *("load", "load4", "store", "store4", "thread", "block", "barrier", "shuffle_xor", "wide_product"),
    "rough_log2",
    *("widen_float16", "narrow_float16", "widen_bfloat16", "narrow_bfloat16"),
)


class Driver:
    """The simulator as a device: its memory is the host's, and whatever it is asked has been done."""

    def __init__(self):
        self.intrinsics = SimpleNamespace(**{name: globals()[name] for name in INTRINSICS})
        self._kernels = {}

    def unavailable(self):
        return None

    def describe(self):
        return "numba's simulator"

    def current_device(self):
        return 0

    def current(self, device):
        return nullcontext()

    def device_of(self, address):
        return 0

    def allocate(self, nbytes, stream):
        return Memory(nbytes)

    def free_after(self, stream):
        pass

    def upload(self, address, array, stream):
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def download(self, array, address, stream):
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def synchronize(self, stream):
        pass

    def wait(self, stream, other):
        pass

    def launch(self, kernel, blocks, threads, stream, arguments):
        if kernel not in self._kernels:
            self._kernels[kernel] = cuda.jit(kernel.signature)(kernel.function)
        self._kernels[kernel][blocks, threads](*arguments)


def device():
    """A context manager: let all of this stand for a device, whose blocks are small."""
    warnings.filterwarnings("ignore", category=RuntimeWarning)  # NumPy's scalars warn of what IEEE 754 has an answer to
    intrinsics.cuda = _Launched()  # before kernels import it
    primitives._compiled_fma = njit(lambda a, b, c: primitives._llvm_fma(a, b, c))
    primitives.fma.__code__ = _quick_fma.__code__  # of the same function, which stands for itself in compiled code

    from npselect.tiers.cuda import plan, rows

    plan._SHARED_THREADS = plan._MOST_THREADS = 64
    return installed(Driver(), rows)
