"""`out` on a GPU: filled in any layout, an input, what it cannot be, no memory left; noise into it."""

import numpy as np
import pytest

from npselect import noise
from npselect import straight_through as st

pytest.importorskip("numba.cuda", reason="needs numba.cuda, which the device arrays' kernels are compiled by")

from arrays import dtypes, random
from device_arrays import calls, equal, inputs, same
from fakes.host_device import Interface, Lent

from npselect._gpu.array import DeviceArray


@dtypes
def test_out_is_filled_and_returned(dtype, device):
    logits, grad, _ = inputs(dtype)
    for name, call in calls(st, {}).items():
        if name in ("double_backward", "backward_temp", "index"):
            continue
        expected = call(logits, grad)
        for host in (np.empty((10, 5), dtype), np.empty((5, 10), dtype).T, np.empty((20, 10), dtype)[::2, ::-2]):
            out = Lent(host)
            assert call(Lent(logits), Lent(grad), out=out) is out
            equal(host, expected)
        wide = Interface(np.empty((10, 5), "f8"))
        assert call(Lent(logits), Lent(grad), out=(wide,)) is wide
        np.testing.assert_array_equal(wide.array, expected.astype("f8"))
    out = DeviceArray.empty((10,), np.dtype("i4"), 1)
    assert st.index(Lent(logits), out=out) is out
    np.testing.assert_array_equal(out.to_host(), st.index(logits))
    first, second = Lent(np.empty((10, 5), dtype)), Lent(np.empty((5, 10), dtype).T)
    results = st.double_backward(Lent(grad), Lent(grad), Lent(logits), out=(first, second))
    assert results[0] is first
    assert results[1] is second
    for result, expected in zip(results, st.double_backward(grad, grad, logits), strict=True):
        equal(result.array, expected)


def test_out_may_be_an_input(device):
    for name in ("forward", "soft", "backward"):
        for where in (slice(0, 20), slice(3, 23)):
            memory, grad = random(64), random((4, 5))
            logits = memory[:20].reshape(4, 5)
            expected = calls(st, {})[name](logits.copy(), grad)
            calls(st, {})[name](Lent(logits), Lent(grad), out=Lent(memory[where].reshape(4, 5)))
            np.testing.assert_array_equal(memory[where].reshape(4, 5), expected)


def test_what_out_cannot_be(device):
    logits = Lent(random((3, 4)))
    frozen = np.empty((3, 4), "f4")
    same_memory = np.empty((3, 4), "f4")
    with pytest.raises(ValueError, match="share memory"):
        st.double_backward(logits, logits, logits, out=(Lent(same_memory), Lent(same_memory[::-1])))
    apart = np.empty((3, 8), "f4")
    st.double_backward(logits, logits, logits, out=(Lent(apart[:, ::2]), Lent(apart[:, 1::2])))
    frozen.flags.writeable = False
    for out in (Lent(frozen), Interface(frozen), Lent(same_memory, versioned=False)):
        with pytest.raises(ValueError, match="out is read-only"):
            st.forward(logits, out=out)
    with pytest.raises(ValueError, match=r"out has shape \(4,\) and the result has shape \(3, 4\)"):
        st.forward(logits, out=Lent(random(4)))
    with pytest.raises(TypeError, match="out has dtype int64, to which a result of dtype float32 cannot be cast"):
        st.forward(logits, out=Lent(np.empty((3, 4), int)))


def test_out_of_memory(device):
    logits, out = random((3, 4)), np.full((3, 4), 7.0, "f4")
    device.bytes_left = 8
    with pytest.raises(MemoryError, match="OUT_OF_MEMORY"):
        st.forward(Lent(logits))
    with pytest.raises(MemoryError, match="OUT_OF_MEMORY"):
        st.forward(Lent(logits.T), out=Lent(out.T))
    assert np.all(out == 7.0)
    device.bytes_left = 0
    st.forward(Lent(logits), out=Lent(out))
    np.testing.assert_array_equal(out, st.forward(logits))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gumbel_noise_fills_device_memory(dtype, device):
    out = DeviceArray.empty((3, 4), np.dtype(dtype), 5)
    assert noise.gumbel((3, 4), 7, dtype=dtype, offset=3, out=out) is out
    same(out, noise.gumbel((3, 4), 7, dtype=dtype, offset=3))
    turned = Lent(np.empty((4, 3), dtype).T)
    noise.gumbel((3, 4), 7, dtype=dtype, out=turned, backend="cuda")
    np.testing.assert_array_equal(turned.array, noise.gumbel((3, 4), 7, dtype=dtype))
    with pytest.raises(TypeError, match="give out's dtype as dtype="):
        noise.gumbel((3, 4), 7, dtype="f4" if dtype == "float64" else "f8", out=out)
    with pytest.raises(TypeError, match="out lives on a GPU"):
        noise.gumbel((3, 4), 7, dtype=dtype, out=out, backend="cpu")
