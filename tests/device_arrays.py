"""Arrays on a GPU, without one: wrappers of the host's memory, rows of every kind, and what is the same."""

import numpy as np
import pytest
from arrays import random
from fakes.host_device import Interface, Lent

from npselect._gpu.array import DeviceArray

wrappers = pytest.mark.parametrize(
    "wrap",
    [Interface, lambda a: Interface(a, 2), lambda a: Interface(a, stream=7), Lent, lambda a: Lent(a, False)],
    ids=["interface 3", "interface 2", "interface with stream", "DLPack 1", "DLPack 0"],
)


def on_gpu(array):
    return DeviceArray.from_host(np.asarray(array), 1, 0)


def equal(result, expected):
    """Bit for bit, but for NaN's."""
    assert result.dtype == expected.dtype
    with np.errstate(invalid="ignore"):
        result, expected = (
            np.asarray(array).astype("f8") for array in (result, expected)
        )  # exact; NumPy knows its NaN
    np.testing.assert_array_equal(result, expected)
    zero = expected == 0
    np.testing.assert_array_equal(np.signbit(result)[zero], np.signbit(expected)[zero])


def same(result, expected):
    assert isinstance(result, DeviceArray)
    equal(result.to_host(), expected)


def inputs(dtype):
    """Rows of every kind that DESIGN promises something for."""
    logits = random((10, 5), dtype)
    logits[1] = -np.inf
    logits[2, 1], logits[3, 2] = np.nan, np.inf
    logits[4, :3] = -np.inf
    logits[5] = 1.5
    logits[6] = [0.0, -0.0, -1.0, 0.0, -2.0]
    logits[7] = 60000 if dtype == np.float16 else 1e30
    where = np.ones((10, 5), bool)
    where[8], where[2, 1], where[0, ::2] = False, False, False
    grad = random((10, 5), dtype)
    grad[0, 0], grad[9, 3] = np.nan, np.inf
    return logits, grad, where


def calls(module, options):
    return {
        "forward": lambda logits, grad, **o: module.forward(logits, **o, **options),
        "soft": lambda logits, grad, **o: module.soft(logits, **o, **options),
        "index": lambda logits, grad, temp=None, **o: module.index(logits, **o, **options),
        "backward": lambda logits, grad, **o: module.backward(grad, logits, **o, **options),
        "jvp": lambda logits, grad, **o: module.jvp(grad, logits, **o, **options),
        "backward_temp": lambda logits, grad, **o: module.backward_temp(grad, logits, **o, **options),
        "double_backward": lambda logits, grad, **o: module.double_backward(grad, grad, logits, **o, **options),
    }
