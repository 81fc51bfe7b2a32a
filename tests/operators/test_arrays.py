"""What comes in: dtypes, options, layouts and axes, and inputs that stay as they were."""

import ml_dtypes
import numpy as np
import pytest
import scipy.special
from arrays import RNG, backends, calls, dtypes, random

import npselect
from npselect import straight_through as st

# ------------------------------------------------------------------------------------------------ what comes in


def test_errors_name_what_the_caller_gave():
    logits = np.zeros((2, 3))
    for operator, options in ((st, {}), (npselect.gumbel_softmax, {"seed": 1})):
        with pytest.raises(ValueError, match=r"tangent has shape \(3,\)"):
            operator.jvp(logits[0], logits, **options)
        with pytest.raises(ValueError, match=r"grad_grad_logits has shape \(3,\)"):
            operator.double_backward(logits[0], logits, logits, **options)
        halves = logits.astype(np.float16), logits.astype(ml_dtypes.bfloat16)
        with pytest.raises(TypeError, match=r"logits has dtype bfloat16 and grad_mask has dtype float16: .* cast one"):
            operator.backward(*halves, **options)

    class Broken:
        def __array__(self, *_, **__):
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no") as raised:
        st.backward(logits, Broken())
    assert raised.value.__notes__ == ["logits, a Broken, does not become a NumPy array"]


@backends
@pytest.mark.parametrize("values", [[[1, 3, 2]], np.array([[1, 3, 2]], np.uint8), np.array([[False, True, False]])])
def test_integers_and_bools_become_float64(values, backend):
    mask = st.forward(values, backend=backend)
    assert mask.dtype == np.float64
    assert mask.tolist() == [[0.0, 1.0, 0.0]]
    probs = st.soft(values, 2.0, backend=backend)
    np.testing.assert_allclose(probs, scipy.special.softmax(np.asarray(values) / 2.0, axis=-1), rtol=2**-50)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1j, 2.0], "logits has dtype complex128"),
        (["a", "b"], "logits has dtype <U1"),
        (np.array([None, 1.0]), "logits has dtype object"),
        (np.array(["2020-01-01"], "M8[D]"), "logits has dtype datetime64"),
        (np.zeros(3, np.longdouble), "logits has dtype (float128|longdouble)"),
        (np.zeros(3, ml_dtypes.float8_e4m3fn), "logits has dtype float8_e4m3fn"),
        (np.zeros(3, [("x", "f4")]), "logits has dtype"),
        (object(), "logits has dtype object"),
    ],
)
def test_other_dtypes_are_type_errors(values, message):
    with pytest.raises(TypeError, match=message):
        st.forward(values)


@backends
@pytest.mark.parametrize(
    ("values", "given", "rounded"),
    [
        ([2**53, 2**53 + 1], 2**53 + 1, 2**53),
        (np.int64([0, -(2**53) - 1]), -(2**53) - 1, -(2**53)),
        (np.uint64([0, 2**64 - 1]), 2**64 - 1, 2**64),
        (np.int64([0, 2**63 - 1]), 2**63 - 1, 2**63),
    ],
)
def test_integers_that_float64_does_not_hold_are_refused(values, given, rounded, backend):
    """Rounded, the second would select another index, in silence; and so for every other array."""
    says = rf" is {given}, which float64, what integers are computed in, rounds to {rounded}; "
    zeros, gumbel = np.zeros(2), npselect.gumbel_softmax
    for name, call in {
        r"logits\[1\]": lambda: st.index(values, backend=backend),
        r"grad_mask\[1\]": lambda: st.backward(values, zeros, backend=backend),
        r"noise\[1\]": lambda: gumbel.forward(zeros, noise=values, backend=backend),
        "temp": lambda: st.forward(zeros, np.asarray(values)[1], backend=backend),
        r"x\[1, 0\]": lambda: npselect.selection.forward(np.asarray(values)[:, None], zeros, backend=backend),
    }.items():
        with pytest.raises(ValueError, match=name + says):
            call()


@backends
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", ">i8"])
def test_integers_that_float64_holds_are_compared_exactly(dtype, backend):
    info = np.iinfo(dtype)
    step = max(1, 2 ** (info.bits - 53))  # of float64, near the largest
    largest = info.max - info.max % step if info.bits == 64 else info.max
    values = np.array([info.min, largest - step, largest, largest - 2 * step], dtype)
    assert st.index(values, backend=backend) == 2
    assert st.index(values[::-1], backend=backend) == 1


def test_masked_arrays_are_sent_to_where():
    masked = np.ma.array([1.0, 2.0], mask=[False, True])
    for call in (
        lambda: st.forward(masked),
        lambda: st.backward(masked, [1.0, 2.0]),
        lambda: st.forward([1.0, 2.0], masked),
        lambda: st.forward([1.0, 2.0], out=masked),
    ):
        with pytest.raises(TypeError, match=r"where=|takes a NumPy array|fill it"):
            call()
    assert st.forward(masked.data, where=~np.ma.getmaskarray(masked)).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("where", [[1, 0], [1.0, 0.0], np.ma.array([True, False])])
def test_where_takes_bools(where):
    with pytest.raises(TypeError, match=r"where (has dtype .*|is a masked array); it takes plain bools"):
        st.forward([1.0, 2.0], where=where)


def test_temp_takes_numbers():
    for temp in ("0.5", None, 1j):
        with pytest.raises(TypeError, match="temp has dtype"):
            st.forward([1.0, 2.0], temp)
    for temp in (1, np.float16(0.5), np.int8(2), np.array([0.5]), [[0.5]]):
        assert st.forward([[1.0, 2.0]], temp).tolist() == [[0.0, 1.0]]
    with pytest.raises(ValueError, match=r"temp is 1e-50, which is 0.0 in float32"):
        st.forward(np.float32([1.0, 2.0]), 1e-50)
    with pytest.raises(ValueError, match=r"temp is 1e\+300, which is inf in float32"):
        st.forward(np.float32([1.0, 2.0]), 1e300)
    assert st.forward([1.0, 2.0], 1e-300).tolist() == [0.0, 1.0]


@backends
def test_dtypes_promote_as_in_numpy(backend):
    single, double, half = random(5, "float32"), random(5, "float64"), random(5, "float16")
    assert st.backward(double, single, backend=backend).dtype == np.float64
    assert st.backward(half, single, backend=backend).dtype == np.float32
    assert st.backward(half, half, backend=backend).dtype == np.float16
    assert st.backward([1, 0, 0, 0, 0], single, backend=backend).dtype == np.float64
    expected = st.backward(half.astype("float32"), single, backend=backend)
    np.testing.assert_array_equal(st.backward(half, single, backend=backend), expected)


@pytest.mark.parametrize("axis", [(0, 1), None, 1.0, True])
def test_axis_takes_one_integer(axis):
    with pytest.raises(TypeError, match=r"axis is .*; it takes an integer"):
        st.forward([[1.0, 2.0]], axis=axis)


def test_unknown_backends():
    with pytest.raises(ValueError, match="backend is 'gpu'; it takes None or one of 'reference', 'cpu', 'cuda'"):
        st.forward([1.0], backend="gpu")
    tiers = npselect.backends()
    assert list(tiers) == ["reference", "cpu", "cuda"]
    assert all(tiers[name].available for name in ("reference", "cpu"))
    assert all(tier.detail and "\n" not in tier.detail for tier in tiers.values())
    if not tiers["cuda"].available:
        with pytest.raises(RuntimeError) as raised:
            st.forward([1.0], backend="cuda")
        assert str(raised.value) == f"backend 'cuda' does not run here: {tiers['cuda'].detail}"


@backends
@dtypes
def test_inputs_are_never_written_to(dtype, backend):
    logits, grad, direction = (random((6, 40), dtype) for _ in range(3))
    logits[1, :5] = -np.inf
    grad[1, :5] = np.nan
    temp, where = RNG.uniform(0.5, 2.0, (6, 1)), RNG.random((6, 40)) < 0.7
    inputs = [logits, grad, direction, temp, where]
    before = [array.tobytes() for array in inputs]
    for array in inputs:
        array.flags.writeable = False
    for call in calls(grad, logits, temp=temp, where=where, backend=backend).values():
        call()
    st.index(logits, where=where, backend=backend)
    st.backward_temp(grad, logits, temp, where=where, backend=backend)
    st.double_backward(direction, grad, logits, temp, where=where, backend=backend)
    assert [array.tobytes() for array in inputs] == before


# ------------------------------------------------------------------------------------------------ layouts and axes


@backends
@dtypes
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_any_axis_is_the_last_axis_moved(axis, dtype, backend):
    logits, grad, direction = (random((3, 4, 5), dtype) for _ in range(3))
    where = RNG.random((3, 4, 5)) < 0.8

    def moved(array):
        return np.ascontiguousarray(np.moveaxis(array, axis, -1))

    for name in ("forward", "soft"):
        result = getattr(st, name)(logits, axis=axis, where=where, backend=backend)
        expected = getattr(st, name)(moved(logits), where=moved(where), backend=backend)
        np.testing.assert_array_equal(moved(result), expected)
        assert result.flags.c_contiguous
    result = st.backward(grad, logits, axis=axis, where=where, backend=backend)
    np.testing.assert_array_equal(
        moved(result), st.backward(moved(grad), moved(logits), where=moved(where), backend=backend)
    )
    result = st.index(logits, axis=axis, where=where, backend=backend)
    np.testing.assert_array_equal(result, st.index(moved(logits), where=moved(where), backend=backend))
    results = st.double_backward(direction, grad, logits, axis=axis, where=where, backend=backend)
    expected = st.double_backward(moved(direction), moved(grad), moved(logits), where=moved(where), backend=backend)
    for one, other in zip(results, expected, strict=True):
        np.testing.assert_array_equal(moved(one), other)


@backends
@pytest.mark.parametrize("shape", [(5,), (4, 5), (1, 5), (3, 1, 5), (3, 4, 1), (1, 1, 1), (), (3, 4, 5), (1, 4, 5)])
def test_where_broadcasts_to_logits(shape, backend):
    logits = random((3, 4, 5), "float32")
    where = RNG.random(shape) < 0.6
    full = np.broadcast_to(where, logits.shape).copy()
    for call, other in zip(
        calls(logits, logits, where=where, backend=backend).values(),
        calls(logits, logits, where=full, backend=backend).values(),
        strict=True,
    ):
        np.testing.assert_array_equal(call(), other())


def test_single_rows():
    assert st.forward([1.0, 2.0]).shape == (2,)
    index = st.index([1.0, 2.0])
    assert index == 1
    assert isinstance(index, np.int64)
    assert st.index([[1.0, 2.0]], axis=0).tolist() == [0, 0]
