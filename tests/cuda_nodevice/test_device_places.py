"""Where arrays are: host or GPU, which of two devices, a closed context, and the order of streams."""

import numpy as np
import pytest

from npselect import noise
from npselect import straight_through as st

pytest.importorskip("numba.cuda", reason="needs numba.cuda, which the device arrays' kernels are compiled by")

from arrays import random
from device_arrays import same
from fakes.host_device import Interface, Lent


def test_arrays_must_be_on_one_side(device):
    logits, grad = random((3, 4)), random((3, 4))
    with pytest.raises(TypeError, match=r"grad_mask lives on a GPU and logits on the host; copy logits to the GPU, or"):
        st.backward(Lent(grad), logits)
    with pytest.raises(TypeError, match=r"logits lives on a GPU and grad_mask on the host; copy grad_mask to the GPU"):
        st.backward(grad, Lent(logits))
    with pytest.raises(TypeError, match="where lives on a GPU and logits on the host"):
        st.forward(logits, where=Interface(logits > 0))
    with pytest.raises(TypeError, match="temp lives on a GPU and logits on the host"):
        st.forward(logits, Interface(np.ones((3, 1))), backend="cuda")
    for backend in ("cpu", "reference"):
        for options in ({"where": Interface(logits > 0)}, {"temp": Lent(np.ones(1))}):
            with pytest.raises(TypeError, match=r"(where|temp) lives on a GPU; copy it to the host, or leave"):
                st.forward(logits, **options, backend=backend)
        with pytest.raises(TypeError, match=r"logits lives on a GPU; copy it to the host, or leave the choice of back"):
            st.forward(Lent(logits), backend=backend)
    with pytest.raises(TypeError, match="out lives on a GPU, and what it is to be computed from does not"):
        st.forward(logits, out=Lent(np.empty_like(logits)))
    with pytest.raises(TypeError, match="out is a ndarray; it takes an array on the GPU"):
        st.forward(Lent(logits), out=np.empty_like(logits))
    same(st.forward(Lent(logits), backend="cuda"), st.forward(logits))


def test_numpy_arrays_with_the_cuda_tier_are_the_tiers_own_affair(device):
    logits = random((3, 4))
    np.testing.assert_array_equal(st.forward(logits, backend="cuda"), st.forward(logits))
    np.testing.assert_array_equal(noise.gumbel(5, 1, backend="cuda"), noise.gumbel(5, 1))


def test_two_devices(device):
    logits, grad = random((3, 4)), random((3, 4))
    with pytest.raises(ValueError, match=r"grad_mask is on CUDA device 1 and another array of this call on device 0"):
        st.backward(Lent(grad, device=1), Lent(logits))
    result = st.backward(Lent(grad, device=1), Lent(logits, device=1))
    assert result.device == 1
    assert device.number == 0
    device.numbers[logits.ctypes.data] = 1
    assert st.forward(Interface(logits)).device == 1
    with pytest.raises(ValueError, match="out is on CUDA device 0"):
        st.forward(Interface(logits), out=Interface(grad))


def test_closed_contexts(device):
    result = st.forward(Lent(random((3, 4))))
    device.closed = True
    with pytest.raises(RuntimeError, match="context that the array was made in was closed"):
        st.forward(result)


def test_streams(device):
    logits, grad = random((3, 4)), random((3, 4))
    result = st.backward(Interface(grad, stream=9), Interface(logits, stream=7))
    assert result.stream == 7
    assert device.log == [("wait", 7, 9), ("backward", 7), ("wait", 9, 7), ("free_after", 7)]
    device.log.clear()
    st.backward(lent := Lent(grad), Interface(logits, stream=7))
    assert lent.streams == [7]
    assert device.log == [("backward", 7), ("free_after", 7), ("synchronize", 7)]
    device.log.clear()
    assert st.forward(Interface(logits, 2)).stream == 1
    assert device.log == [("mask", 1), ("free_after", 1)]
    device.log.clear()
    out = Interface(np.empty((3, 4), "f4"), stream=8)
    assert st.forward(Interface(logits, stream=7), out=out) is out
    assert device.log == [("wait", 7, 8), ("mask", 7), ("wait", 8, 7), ("free_after", 7)]
