"""All of the way from a call to the driver, by one that runs nothing (`driver.c`): what it is asked for, and where."""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("numba_cuda") is None:
    pytest.skip("numba-cuda is not installed: pip install 'npselect[cuda]'", allow_module_level=True)

HERE = Path(__file__).parent
COMPILER = shutil.which("cc")
if COMPILER is None:
    pytest.skip("there is no C compiler for the driver", allow_module_level=True)

START = """
import gc, threading
import numpy as np
from npselect import straight_through as st
logits = np.zeros((32, 128), np.float32)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("driver")
    library = str(folder / "libcuda.so.1")
    built = [COMPILER, "-shared", "-fPIC", "-o", library, str(HERE / "driver.c"), "-ldl", "-lpthread"]
    subprocess.run(built, check=True)
    return folder


@pytest.fixture
def run(folder):
    """Run Python with that driver; what it was asked for, with what was printed in between."""

    def run_code(code, **variables):
        paths = {"PYTHONPATH": str(HERE.parent), "LD_LIBRARY_PATH": str(folder)}
        environment = {**os.environ, **paths, "NUMBA_ENABLE_CUDASIM": "0", **variables}
        done = subprocess.run(
            [sys.executable, "-u", "-c", START + code],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            env=environment,
        )
        lines = done.stdout.splitlines()
        assert done.returncode == 0, done.stdout
        assert not [line for line in lines if not line.startswith(("driver: ", "print: "))], done.stdout
        return [re.sub(r"^launch, [1-9]\d* blocks of [1-9]\d*", "launch", line.partition(": ")[2]) for line in lines]

    return run_code


COPIES = ["to the device, 16384 bytes, stream 1"]
RESULT = ["to the host, 16384 bytes, stream 1", "synchronize, stream 1"]


@pytest.mark.parametrize("variables", [{}, {"REFUSE_PTX": "1"}])
def test_arrays_of_the_host(run, variables):
    """And a driver older than the PTX."""
    log = run("st.forward(logits, backend='cuda')\nst.forward(logits, backend='cuda')", **variables)
    loads = ["load PTX", "load machine code"] if variables else ["load PTX"]
    launched = ["launch, stream 1", *RESULT]
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
    launched = "launch, stream 1234"
    parts = "\n".join(line for line in log if line != "free").split("\n")
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
    assert "launch, stream 1" in log[log.index("task 0") : log.index("task 1")]
    assert "launch, stream 1" in log[log.index("task 1") : log.index("task 2")]
    assert log[log.index("task 3") + 1 : log.index("task 4")] == ["record, stream 1", "wait, stream 2"]


def test_the_sections_of_the_benchmark_keep_kernels_and_tell_their_registers(run, tmp_path):
    """Another process takes them as they were kept: it could not compile any."""
    code = f"""
import sys
sys.path.insert(0, {str(HERE.parent / "bench")!r})
from gpu_sections import compiling, kept
kept.install()
{{}}
print("print:", compiling.registers()["backward"])
"""
    for no_compiler in ("", "from numba.cuda import dispatcher; dispatcher._Kernel.__init__ = None"):
        log = run(code.format(no_compiler), NPSELECT_GPU_KERNELS=str(tmp_path))
        assert log[-1].startswith("loaded as ptx, 32 registers, 32 bytes of local memory, 32 shared, at most ")
        assert log.count("load PTX") == 2
    assert len(list(tmp_path.iterdir())) == 2
