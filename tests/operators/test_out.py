"""What goes out: `out` of any layout, one that is an input, and what it cannot be."""

import ml_dtypes
import numpy as np
import pytest
from arrays import RNG, backends, calls, dtypes, random

from npselect import straight_through as st


@backends
@dtypes
def test_out_is_filled_and_returned(dtype, backend):
    logits, grad = random((4, 6), dtype), random((4, 6), dtype)
    for name, call in calls(grad, logits, backend=backend).items():
        expected = call()
        for out in (np.empty((4, 6), dtype), np.empty((6, 4), dtype).T, np.empty((8, 12), dtype)[::2, ::-2]):
            assert call(out=out) is out, name
            np.testing.assert_array_equal(out, expected)
        out = np.empty((4, 6), dtype)
        assert call(out=(out,)) is out
        if dtype != ml_dtypes.bfloat16:
            wide = np.empty((4, 6), np.float64)
            np.testing.assert_array_equal(call(out=wide), expected.astype(np.float64))
    index = np.empty(4, np.int64)
    assert st.index(logits, out=index, backend=backend) is index
    np.testing.assert_array_equal(index, st.index(logits, backend=backend))
    total = np.empty((), dtype)
    assert st.backward_temp(grad, logits, out=total, backend=backend) is total
    assert total == st.backward_temp(grad, logits, backend=backend)
    first, second = np.empty((4, 6), dtype), np.empty((6, 4), dtype).T
    results = st.double_backward(grad, grad, logits, out=(first, second), backend=backend)
    assert results[0] is first
    assert results[1] is second
    expected = st.double_backward(grad, grad, logits, backend=backend)
    np.testing.assert_array_equal(first, expected[0])
    np.testing.assert_array_equal(second, expected[1])
    only_second = np.empty((4, 6), dtype)
    assert st.double_backward(grad, grad, logits, out=(None, only_second), backend=backend)[1] is only_second
    np.testing.assert_array_equal(only_second, expected[1])


@backends
@dtypes
def test_out_may_be_an_input(dtype, backend):
    shape = (5, 7)
    for which in ("logits", "grad", "reversed", "shifted", "transposed"):
        for name in ("forward", "soft", "backward", "jvp"):
            memory = random(2 * 64, dtype)
            logits = memory[:35].reshape(shape)
            grad = memory[50:85].reshape(shape)
            expected = calls(grad.copy(), logits.copy(), backend=backend)[name]()
            out = {
                "logits": logits,
                "grad": grad,
                "reversed": logits[::-1],
                "shifted": memory[3:38].reshape(shape),
                "transposed": memory[:35].reshape(7, 5).T,
            }[which]
            calls(grad, logits, backend=backend)[name](out=out)
            np.testing.assert_array_equal(out, expected, err_msg=f"{name} into {which}")
    v, g, w = (random(shape, dtype) for _ in range(3))
    expected = st.double_backward(v, g, w, backend=backend)
    st.double_backward(v, g, w, out=(w, v), backend=backend)
    np.testing.assert_array_equal(w, expected[0])
    np.testing.assert_array_equal(v, expected[1])


@backends
def test_out_may_be_the_temperature(backend):
    logits, grad = random((5, 7), "float32"), random((5, 7), "float32")
    temp = RNG.uniform(0.5, 2.0, (5, 1)).astype("float32")
    expected = st.backward_temp(grad, logits, temp.copy(), backend=backend)
    np.testing.assert_array_equal(st.backward_temp(grad, logits, temp, out=temp, backend=backend), expected)


def test_what_out_cannot_be():
    logits = random((4, 6), "float32")
    with pytest.raises(ValueError, match=r"out has shape \(6,\) and the result has shape \(4, 6\)"):
        st.forward(logits, out=np.empty(6, "float32"))
    with pytest.raises(TypeError, match="out has dtype int64, to which a result of dtype float32 cannot be cast"):
        st.forward(logits, out=np.empty((4, 6), np.int64))
    with pytest.raises(TypeError, match="out is a list; it takes a NumPy array"):
        st.forward(logits, out=[0.0])
    frozen = np.empty((4, 6), "float32")
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        st.forward(logits, out=frozen)
    with pytest.raises(ValueError, match="out holds 2 arrays; there are 1 results"):
        st.forward(logits, out=(frozen, frozen))
    with pytest.raises(TypeError, match="out is a ndarray; it takes a tuple of 2 arrays"):
        st.double_backward(logits, logits, logits, out=frozen)
    same = np.empty((4, 6), "float32")
    with pytest.raises(ValueError, match="share memory"):
        st.double_backward(logits, logits, logits, out=(same, same))
    with pytest.raises(ValueError, match="share memory"):
        st.double_backward(logits, logits, logits, out=(same, same[::-1]))


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@backends
def test_out_of_a_subclass_with_indexing_of_its_own(backend):
    """np.matrix stays two-dimensional whatever it is reshaped to; nothing beyond it may be written."""
    logits, temps = random((1, 3, 4), np.dtype("float32")), np.full((3, 1), 0.5)
    base = np.full((4, 3), 77)
    out = np.matrix(base[:1], copy=False)
    assert st.index(logits, out=out, backend=backend) is out
    assert np.array_equal(base[:1], st.index(logits, backend=backend))
    assert np.all(base[1:] == 77)
    grad_temp = np.matrix(np.empty((3, 1), np.float32))
    st.backward_temp(logits[0], logits[0], temps, out=grad_temp, backend=backend)
    assert np.array_equal(grad_temp, st.backward_temp(logits[0], logits[0], temps, backend=backend))
    mask = np.matrix(np.empty((3, 4), np.float32))
    assert np.array_equal(st.forward(logits[0], out=mask, backend=backend), st.forward(logits[0], backend=backend))
