"""What is asked of a driver, by one that only writes it down; why one cannot be used."""

import re
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

if find_spec("numba_cuda") is None:
    pytest.skip("numba-cuda is not installed", allow_module_level=True)

from npselect._gpu import driver as device_memory
from npselect._gpu import numba_private
from npselect._gpu.driver import NumbaDriver
from npselect._gpu.intrinsics import simulated

GPU = SimpleNamespace(name="GPU X", compute_capability=(9, 0))


class Driver:
    """numba's driver and the bindings in one."""

    CUpointer_attribute = SimpleNamespace(CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL=9, CU_POINTER_ATTRIBUTE_MEMORY_TYPE=2)
    CUevent_flags = SimpleNamespace(CU_EVENT_DISABLE_TIMING=2)
    CUdevice_attribute = SimpleNamespace(CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS=88)

    def __init__(self, version=(13, 0), devices=(GPU,), error=None, pinned=False, reads_the_host=False):
        self.version, self.devices, self.error, self.pinned = version, devices, error, pinned
        self.reads_the_host = reads_the_host
        self.initialization_error, self.is_available = error, error is None
        self.log = []
        self.context = 0

    def get_version(self):
        return self.version

    def get_device(self, number):
        return self.devices[number]

    def ensure_initialized(self):
        pass

    def cuDeviceGetCount(self):  # noqa: N802
        return 0, len(self.devices)

    def cuCtxGetDevice(self):  # noqa: N802
        return (201, None) if self.context is None else (0, self.context)

    def cuPointerGetAttribute(self, attribute, address):  # noqa: N802
        if attribute == 2:
            return (0, 1) if self.pinned else (1, None)
        return (0, 1) if address == 64 else (1, None)

    def cuDeviceGetAttribute(self, attribute, device):  # noqa: N802
        return int(attribute == 88 and device == self.context and self.reads_the_host)

    def __getattr__(self, name):
        if not name.startswith("cu"):
            raise AttributeError(name)

        def call(*arguments):
            self.log.append((name, *arguments))
            return "event"

        return call


@pytest.fixture
def use(monkeypatch):
    def install(**about):
        driver = Driver(**about)
        monkeypatch.setattr(device_memory, "_driver", lambda: driver)
        monkeypatch.setattr(device_memory, "_binding", lambda: driver)
        monkeypatch.setattr(device_memory, "_toolkit", lambda: 13)
        return driver

    return install


@pytest.mark.skipif(simulated(), reason="numba's simulator has no driver")
@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ({}, None),
        ({"error": "\nno library\nis here.\n"}, r"no NVIDIA driver is in use: no library is here"),
        ({"devices": ()}, r"there is no NVIDIA GPU, or none is visible \(CUDA_VISIBLE_DEVICES\)"),
        ({"version": (11, 8)}, r"the NVIDIA driver is for CUDA 11.8, which is older than 13.0; update it"),
        ({"version": (12, 4)}, r"the NVIDIA driver is for CUDA 12.4, .* update it; or install npselect\[cuda12\]"),
        (
            {"devices": (SimpleNamespace(name="GPU O", compute_capability=(6, 1)),)},
            r"GPU O has compute capability 6.1; 7.0 or newer is needed",
        ),
        (
            {"devices": (SimpleNamespace(name="broken"),)},
            r"the NVIDIA driver cannot be used: .* no attribute 'compute_capability'",
        ),
    ],
)
def test_why_a_device_cannot_be_used(about, reason, use):
    use(**about)
    found = NumbaDriver().unavailable()
    if reason is None:
        assert found is None
        assert NumbaDriver().describe().startswith("GPU X, compute capability 9.0, numba-cuda 0.")
    else:
        assert re.fullmatch(reason, found)


def test_copies_are_on_the_stream(use):
    driver, array = use(), np.arange(3.0)
    NumbaDriver().upload(64, array, 7)
    assert driver.log == [("cuMemcpyHtoDAsync", 64, array.ctypes.data, 24, 7)]
    driver.log.clear()
    NumbaDriver().download(array, 64, 7)
    assert driver.log == [("cuMemcpyDtoHAsync", array.ctypes.data, 64, 24, 7), ("cuStreamSynchronize", 7)]
    driver.log.clear()
    NumbaDriver().upload(64, array[:0], 7)
    NumbaDriver().download(array[:0], 64, 7)
    NumbaDriver().wait(7, 7)
    assert not driver.log
    for about in ({"pinned": True}, {"reads_the_host": True}):
        driver = use(**about)
        NumbaDriver().upload(64, array, 7)
        assert driver.log[1:] == [("cuStreamSynchronize", 7)]


def test_one_stream_waits_for_another(use):
    driver = use()
    NumbaDriver().wait(7, 9)
    assert driver.log == [
        ("cuEventCreate", 2),
        ("cuEventRecord", "event", 9),
        ("cuStreamWaitEvent", 7, "event", 0),
        ("cuEventDestroy", "event"),
    ]


def test_whose_memory_an_address_is(use):
    use()
    assert NumbaDriver().device_of(64) == 1
    with pytest.raises(RuntimeError, match="0x80 is no device memory: the array was freed, or the CUDA context"):
        NumbaDriver().device_of(128)


def test_the_current_device_is_left_alone(use, monkeypatch):
    from numba import cuda

    use()
    monkeypatch.setattr(cuda, "gpus", ["first", "second"])
    with NumbaDriver().current(0):
        pass
    assert NumbaDriver().current(1) == "second"


@pytest.mark.skipif(simulated(), reason="numba's simulator has no driver")
def test_a_numba_cuda_that_cannot_be_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "npselect._gpu.intrinsics", None)
    found = NumbaDriver().unavailable()
    assert re.fullmatch(r"numba-cuda cannot be imported \(numba-cuda \S+, numba \S+, numpy \S+\): .+", found)


def test_closed_contexts(use):
    use()
    context = SimpleNamespace(device=SimpleNamespace())
    context.device.primary_context = context
    owner = device_memory._NumbaAllocation(context, SimpleNamespace(device_pointer_value=64))
    owner.check()
    assert owner.address == 64
    context.device.primary_context = None
    with pytest.raises(RuntimeError, match="was closed, and its memory with it"):
        owner.check()


@pytest.mark.parametrize("current", [None, 0])
@pytest.mark.parametrize("is_open", [True, False])
def test_memory_is_freed_in_a_context(use, monkeypatch, current, is_open):
    driver, log = use(), []
    driver.context = current

    @contextmanager
    def made_current(device):
        log.append(f"device {device}")
        yield
        log.append("as before")

    class Memory:
        device_pointer_value = 64

        def __del__(self):
            log.append("freed")

    monkeypatch.setattr(device_memory, "_current", made_current)
    context = SimpleNamespace(device=SimpleNamespace(id=3))
    context.device.primary_context = context
    owner = device_memory._NumbaAllocation(context, Memory())
    if not is_open:
        context.device.primary_context = None
    del owner
    assert log == (["device 3", "freed", "as before"] if current is None and is_open else ["freed"])


def test_memory_of_a_manager_that_was_plugged_in_is_used_in_its_order(use, monkeypatch):
    from numba import cuda

    driver = use()
    asked = []

    def memalloc(nbytes):
        asked.append(nbytes)
        return SimpleNamespace(device_pointer_value=64)

    monkeypatch.setattr(cuda, "current_context", lambda: SimpleNamespace(memalloc=memalloc))
    for plugged_in in (False, True):
        monkeypatch.setattr(numba_private, "has_another_memory_manager", lambda plugged_in=plugged_in: plugged_in)
        driver.log.clear()
        assert NumbaDriver().allocate(0, 7).address == 64
        NumbaDriver().free_after(7)
        waits = [entry for entry in driver.log if entry[0] in ("cuEventRecord", "cuStreamWaitEvent")]
        records = [("cuEventRecord", "event", 1), ("cuStreamWaitEvent", 7, "event", 0)]
        records += [("cuEventRecord", "event", 7), ("cuStreamWaitEvent", 1, "event", 0)]
        assert waits == (records if plugged_in else [])
    assert asked == [1, 1]
