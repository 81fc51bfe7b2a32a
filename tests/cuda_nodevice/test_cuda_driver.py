"""All of the way from a call to the driver, by one that runs nothing (`driver.c`): what it is asked for, and where."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import children
import pytest

if find_spec("numba_cuda") is None:
    pytest.skip("numba-cuda is not installed: pip install 'npselect[cuda]'", allow_module_level=True)

HERE = Path(__file__).parents[1]
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
if COMPILER is None or sys.platform != "linux":
    pytest.skip("the driver is built for Linux, by a C compiler", allow_module_level=True)

START = """
import gc, threading
import numpy as np
from npselect import straight_through as st
logits = np.zeros((32, 128), np.float32)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Run Python with that driver; what both of them wrote."""
    folder = tmp_path_factory.mktemp("driver")
    options = ["-O1", "-fPIC", "-shared", "-Wl,-soname,libcuda.so.1", "-o", folder / "libcuda.so.1"]
    subprocess.run([COMPILER, *options, HERE / "fakes" / "driver.c", "-ldl", "-lpthread"], check=True, timeout=120)
    libraries = os.pathsep.join(filter(None, [str(folder), os.environ.get("LD_LIBRARY_PATH")]))
    about = {
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)]),
        "LD_LIBRARY_PATH": libraries,
        "NUMBA_ENABLE_CUDASIM": "0",
    }

    def run_python(*arguments, **variables):
        done = subprocess.run(
            [*children.python(), "-u", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            env={**os.environ, **about, "NUMBA_CACHE_DIR": str(tmp_path_factory.mktemp("kernels")), **variables},
            timeout=300,
        )
        assert done.returncode == 0, done.stdout[-3000:]
        return done.stdout

    return run_python


@pytest.fixture
def run(python):
    """Run code with that driver; what it was asked for, with what was printed in between."""

    def run_code(code, **variables):
        lines = python("-c", START + code, TELL="1", **variables).splitlines()
        assert all(line.startswith(("driver: ", "print: ")) for line in lines), lines
        return [line.partition(": ")[2] for line in lines]

    return run_code


COPIES = ["to the device, 16384 bytes, stream 1"]
RESULT = ["to the host, 16384 bytes, stream 1", "synchronize, stream 1"]


@pytest.mark.parametrize("variables", [{}, {"REFUSE_PTX": "1"}])
def test_arrays_of_the_host(run, variables):
    """And a driver older than the PTX."""
    log = run("st.forward(logits, backend='cuda')\nst.forward(logits, backend='cuda')", **variables)
    loads = ["load PTX", "load machine code"] if variables else ["load PTX"]
    launched = ["launch, stream 1, 2 arrays", *RESULT]
    kept = [line for line in log if line != "free"]
    assert kept == [*COPIES, *loads, *launched, *COPIES, *launched]


def test_streams_of_the_caller(run):
    """Nobody waits, but for an array that came with another stream than the call's."""
    log = run("""
from numba import cuda
class Array:
    def __init__(self, stream):
        self.memory = cuda.device_array((32, 128), np.float32)
        self.__cuda_array_interface__ = {**self.memory.__cuda_array_interface__, "version": 3, "stream": stream}
        self.dtype = self.memory.dtype
logits, grad, out = Array(1234), Array(1234), Array(1234)
st.backward(grad, logits, 0.6, out=out)
print("print: again")
st.backward(grad, logits, 0.6, out=out)
print("print: another stream")
st.backward(Array(2), logits, 0.6, out=out)
print("print: no stream")
result = st.backward(Array(None), logits, 0.6)
print("print:", result.stream)
""")
    launched = "launch, stream 1234, 3 arrays"
    parts = [line for line in log if line != "free"]
    assert parts[: parts.index("again")] == ["load PTX", launched]
    assert parts[parts.index("again") + 1 : parts.index("another stream")] == [launched]
    waiting = parts[parts.index("another stream") + 1 : parts.index("no stream")]
    assert waiting == ["record, stream 2", "wait, stream 1234", launched, "record, stream 1234", "wait, stream 2"]
    assert parts[parts.index("no stream") + 1 :][-1] == "1234"


def test_threads_that_have_no_context(run):
    """Calls, copies, capsules, and the last references to results."""
    log = run("""
st.forward(logits, backend="cuda")
from numba import cuda
there = cuda.to_device(logits)
results = [st.forward(there) for _ in range(40)]
capsules = [st.forward(there).__dlpack__() for _ in range(40)]
kept = st.forward(there)
tasks = [
    lambda: st.forward(logits, backend="cuda"),
    lambda: st.forward(there),
    lambda: kept.to_host(),
    lambda: kept.__dlpack__(stream=2),
    results.clear,
    capsules.clear,
]
for i, task in enumerate(tasks):
    print("print: task", i)
    thread = threading.Thread(target=lambda: (task(), gc.collect()))
    thread.start()
    thread.join()
""")
    assert not [line for line in log if "without a context" in line]
    assert log.count("free") >= 60
    assert "launch, stream 1, 2 arrays" in log[log.index("task 0") : log.index("task 1")]
    assert "launch, stream 1, 2 arrays" in log[log.index("task 1") : log.index("task 2")]
    assert log[log.index("task 3") + 1 : log.index("task 4")] == ["record, stream 1", "wait, stream 2"]


def test_kernels_are_kept_and_tell_their_registers(run, tmp_path):
    """Another process takes them as they were kept: it could not compile any."""
    code = f"""
import sys
sys.path.insert(0, {str(HERE.parent / "bench")!r})
from gpu.sections import compiling
{{}}
print("print:", compiling.registers()["backward"])
"""
    for no_compiler in ("", "from numba.cuda import dispatcher; dispatcher._Kernel.__init__ = None"):
        log = run(code.format(no_compiler), NUMBA_CACHE_DIR=str(tmp_path))
        assert log[-1].startswith("loaded as ptx, 32 registers, 32 bytes of local memory, 32 shared, at most ")
        assert log.count("load PTX") == 2
    assert len(list(tmp_path.rglob("*.nbk"))) == 2


def test_launches(python):
    """With all that they are given, on both devices."""
    assert python("-m", "fakes.launched") == "launched as they should be\n"


def test_the_driver_refuses_what_a_true_one_would(python):
    python(
        "-c",
        """
import ctypes
driver = ctypes.CDLL("libcuda.so.1")
INVALID_VALUE, INVALID_CONTEXT, INVALID_HANDLE = 1, 201, 400
contexts, pointers = [ctypes.c_void_p() for _ in "01"], [ctypes.c_void_p() for _ in "01"]
host, library, stream = ctypes.create_string_buffer(16), ctypes.c_void_p(), ctypes.c_void_p(7)
PTX = b".visible .entry f(.param .u64 f_0, .param .u64 f_1) .maxntid 64, 1, 1 { ld.param.u64 %rd1, [f_0]; }"
assert driver.cuLibraryLoadData(ctypes.byref(library), PTX, None, None, 0, None, None, 0) == 0


def launch(*addresses, x=5, y=1, threads=64, shared=0):
    values = [ctypes.c_void_p(address) for address in addresses]
    given = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
    return driver.cuLaunchKernel(library, x, y, 1, threads, 1, 1, shared, stream, given, None)


assert driver.cuMemAlloc(ctypes.byref(pointers[0]), ctypes.c_size_t(16)) == INVALID_CONTEXT
assert driver.cuStreamSynchronize(stream) == INVALID_CONTEXT
assert launch(1, 2) == INVALID_CONTEXT
for device in (0, 1):
    assert driver.cuDevicePrimaryCtxRetain(ctypes.byref(contexts[device]), device) == 0
    assert driver.cuCtxSetCurrent(contexts[device]) == 0
    assert driver.cuMemAlloc(ctypes.byref(pointers[device]), ctypes.c_size_t(16)) == 0
    found = ctypes.c_int()
    assert driver.cuPointerGetAttribute(ctypes.byref(found), 9, pointers[device]) == 0
    assert found.value == device
here, there = pointers[1].value, pointers[0].value
assert driver.cuPointerGetAttribute(ctypes.byref(found), 9, host) == INVALID_VALUE
size = ctypes.c_size_t(16)
assert driver.cuMemcpyHtoDAsync(pointers[1], host, size, stream) == 0
assert driver.cuMemcpyHtoDAsync(pointers[0], host, size, stream) == INVALID_VALUE
assert driver.cuMemcpyDtoHAsync(host, ctypes.c_void_p(here + 16), size, stream) == INVALID_VALUE

assert launch(here, 3) == 0
assert launch(here, there) == INVALID_VALUE
for wrong in ({"x": 0}, {"y": 2}, {"threads": 65}, {"threads": 0}, {"shared": 8}):
    assert launch(here, 3, **wrong) == INVALID_VALUE
driver.driver_fails(701)
assert [launch(here, 3) for _ in "12"] == [701, 0]
assert driver.driver_launches() == 2
driver.driver_launch.restype = ctypes.POINTER(ctypes.c_uint64)
assert driver.driver_launch(ctypes.c_long(1))[:8] == [1, 5, 64, 7, 2, here, 3, 0]

assert driver.cuMemFree(ctypes.c_void_p(here + 8)) == INVALID_VALUE
assert driver.cuMemFree(pointers[1]) == 0
assert driver.cuMemFree(pointers[1]) == INVALID_VALUE
assert driver.cuDevicePrimaryCtxReset(0) == 0
assert driver.cuMemFree(pointers[0]) == INVALID_VALUE
assert driver.cuLibraryUnload(library) == 0
assert launch(1, 2) == INVALID_HANDLE
""",
    )
