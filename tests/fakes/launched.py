"""Launches by way of numba-cuda and cuda-bindings, to a driver that writes them down: ``python -m fakes.launched``.

A process of its own, as the driver, `driver.c`, must be the one that is found: `test_cuda_driver.py` builds it and
starts this.
"""

import ctypes
import gc
import re
import struct
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numba import types

from npselect import gumbel_softmax, straight_through
from npselect._gpu.array import DeviceArray
from npselect._gpu.driver import gpu
from npselect.tiers import choose
from npselect.tiers.cuda import kernels, rows, selecting
from npselect.tiers.cuda.arguments import ARGUMENTS
from npselect.tiers.cuda.plan import plan

driver = ctypes.CDLL("libcuda.so.1")
driver.driver_launch.restype = ctypes.POINTER(ctypes.c_uint64)
driver.driver_ptx.restype = ctypes.c_char_p
F4 = np.dtype(np.float32)


def launched(number=-1):
    """A launch, the last if no other: device, blocks, threads, stream, and the arguments by name."""
    entry = driver.driver_launch(ctypes.c_long(number % driver.driver_launches()))
    about, count = entry[:4], entry[4]
    words = zip(ARGUMENTS.items(), entry[5 : 5 + count], strict=True)
    return *about, {name: real(word) if kind is types.float64 else word for (name, kind), word in words}


def real(word):
    return struct.unpack("d", struct.pack("Q", word))[0]


def arrays(count, shape=(40, 128), stream=1, device=0):
    return [DeviceArray.empty(shape, F4, stream, device) for _ in range(count)]


class Interface:
    """An array of another library."""

    def __init__(self, array):
        self.array = array

    @property
    def __cuda_array_interface__(self):
        return {**self.array.__cuda_array_interface__}


def arguments_are_those_of_the_call():
    logits, grad, out = arrays(3, stream=7)
    planned = plan(kernels.backward, np.float32, np.float32, "drawn", 128, True)
    assert gumbel_softmax.backward(grad, logits, 0.25, seed=2**64 - 1, offset=2**63, out=out) is out
    device, blocks, threads, stream, given = launched()
    assert (device, blocks, threads, stream) == (0, -(-40 // planned.rows_a_block), planned.threads, 7)
    expected = {"logits": logits.address, "seed": 2**64 - 1, "offset": 2**63, "temp": 0.25}
    expected |= {"grad_mask": grad.address, "out": out.address, "rows": 40, "choices": 128}
    assert given == dict.fromkeys(ARGUMENTS, 0) | {"noise_scale": 1.0, "scale": 1.0} | expected


def what_is_loaded_is_what_is_read():
    """By `test_cuda_ptx.py`; but for names, which numba numbers, and the target, sm_90a in place of sm_90."""
    kernel = plan(selecting.mask, np.float32, np.float32, "none", 40, True).kernel
    straight_through.forward(*arrays(1, (3, 40)))
    loaded, read = (
        re.sub(r"_Z\w+", "name", ptx[ptx.index(".entry") :])
        for ptx in (driver.driver_ptx().decode(), kernel.ptx((9, 0)))
    )
    assert f".maxntid {kernel.most_threads}" in loaded
    assert loaded == read


def devices_have_kernels_of_their_own():
    for device in (0, 1, 0):
        logits, out = arrays(2, device=device)
        straight_through.forward(logits, out=out)
        assert launched()[0] == device
        assert launched()[4]["out"] == out.address


def errors_of_the_driver_are_raised():
    logits, out = arrays(2)
    before = driver.driver_launches()
    driver.driver_fails(701)
    with pytest.raises(Exception, match=r"cuLaunchKernel results in CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"):
        straight_through.forward(logits, out=out)
    assert driver.driver_launches() == before
    straight_through.forward(logits, out=out)
    assert driver.driver_launches() == before + 1


def threads_do_not_mix_arguments():
    def work(number):
        pairs = set()
        for _ in range(10):
            logits, out = arrays(2, (number + 1, 8), stream=number + 3)
            for _ in range(50):
                straight_through.forward(logits, out=out)
            pairs.add((logits.address, out.address, number + 1, number + 3))
            kept.append((logits, out))
        return pairs

    kept = []
    straight_through.forward(*arrays(1, (1, 8)))
    first = driver.driver_launches()
    with ThreadPoolExecutor(8) as pool:
        expected = set().union(*pool.map(work, range(8)))
    seen = set()
    for number in range(first, driver.driver_launches()):
        *_, stream, given = launched(number)
        seen.add((given["logits"], given["out"], given["rows"], stream))
    assert driver.driver_launches() - first == 8 * 10 * 50
    assert seen == expected


def nothing_is_kept():
    for wrap in (lambda x: x, Interface):
        logits, grad, out = map(wrap, arrays(3))
        calls = (
            lambda logits=logits, out=out: straight_through.forward(logits, out=out),
            lambda logits=logits, grad=grad, out=out: gumbel_softmax.backward(grad, logits, seed=1, out=out),
        )
        for call in calls:
            call()
        counts = [sys.getrefcount(x) for x in (logits, grad, out)]
        gc.collect()
        objects = len(gc.get_objects())
        for _ in range(200):
            for call in calls:
                call()
        assert [sys.getrefcount(x) for x in (logits, grad, out)] == counts
        gc.collect()
        assert len(gc.get_objects()) - objects < 20
    owner = weakref.ref(wrapped := Interface(logits.array))
    straight_through.forward(wrapped, out=out)
    del wrapped
    assert owner() is None


def kernels_are_loaded_again_after_a_context_was_closed():
    from numba import cuda as numba_cuda

    logits, out = arrays(2)
    straight_through.forward(logits, out=out)
    numba_cuda.close()
    with pytest.raises(RuntimeError, match="context that the array was made in was closed"):
        straight_through.forward(logits, out=out)
    gc.collect()
    logits, out = arrays(2)
    before = driver.driver_launches()
    straight_through.forward(logits, out=out)
    assert driver.driver_launches() == before + 1
    assert launched()[4]["out"] == out.address


if __name__ == "__main__":
    assert gpu().unavailable() is None, gpu().unavailable()
    assert choose("cuda") is rows
    arguments_are_those_of_the_call()
    what_is_loaded_is_what_is_read()
    devices_have_kernels_of_their_own()
    errors_of_the_driver_are_raised()
    threads_do_not_mix_arguments()
    nothing_is_kept()
    kernels_are_loaded_again_after_a_context_was_closed()
    print("launched as they should be")
