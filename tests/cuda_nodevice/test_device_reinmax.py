"""An index from elsewhere on the way in of a GPU: on the device or beside it, of any integers."""

import numpy as np
import pytest

pytest.importorskip("numba.cuda", reason="needs numba.cuda, which the device arrays' kernels are compiled by")

from fakes.host_device import Interface, seen

from npselect import reinmax
from npselect._gpu.array import DeviceArray

pytestmark = pytest.mark.usefixtures("device")
RNG = np.random.default_rng(0)
LOGITS, GRAD = RNG.standard_normal((2, 2, 5, 3)).astype(np.float32)


def as_int32(index):
    return Interface(index.astype(np.int32))


def as_uint64(index):
    return Interface(index.astype(np.uint64))


@pytest.mark.parametrize("given", [lambda index: index, Interface, as_int32, as_uint64])
def test_an_index_on_either_side(given):
    index = reinmax.index(LOGITS, seed=1, axis=1)
    for function, arrays in (
        (reinmax.index, [LOGITS]),
        (reinmax.forward, [LOGITS]),
        (reinmax.backward, [GRAD, LOGITS]),
    ):
        expected = function(*arrays, axis=1, seed=1)
        for drawn in ({"index": given(index)}, {"seed": 1}):
            result = function(*map(Interface, arrays), axis=1, **drawn)
            assert isinstance(result, DeviceArray)
            assert np.array_equal(seen(result), expected)


def test_what_an_index_cannot_be():
    for index, error, message in (
        (np.full((2, 3), 9), ValueError, r"index\[0, 0\] is 9; it must name a candidate"),
        (Interface(np.full((2, 3), 2**64 - 1, np.uint64)), ValueError, r"index\[0, 0\] is \d+; it must"),
        (Interface(np.zeros((2, 3), bool)), TypeError, "index has dtype bool; it takes integers"),
        (Interface(np.zeros((3, 2), int)), ValueError, r"index has shape \(3, 2\)"),
    ):
        with pytest.raises(error, match=message):
            reinmax.forward(Interface(LOGITS), index=index, axis=1)
