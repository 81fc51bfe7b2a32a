"""What comes in and what goes out: dtypes, foreign arrays, layouts, `out`, and inputs that stay as they were."""

import sys

import ml_dtypes
import numpy as np
import pytest
import scipy.special

import npselect
from npselect import straight_through as st

RNG = np.random.default_rng(20)
DTYPES = [np.dtype(name) for name in ("float16", ml_dtypes.bfloat16, "float32", "float64")]

backends = pytest.mark.parametrize("backend", ["reference", "cpu"])
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def random(shape, dtype):
    return RNG.standard_normal(shape).astype(dtype)


def calls(grad, logits, out=None, both=None, **options):
    """Every function of the operator, as (name, call taking out)."""
    return {
        "forward": lambda out=None: st.forward(logits, out=out, **options),
        "soft": lambda out=None: st.soft(logits, out=out, **options),
        "backward": lambda out=None: st.backward(grad, logits, out=out, **options),
        "jvp": lambda out=None: st.jvp(grad, logits, out=out, **options),
    }


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


class Foreign:
    """An array of another library: NumPy sees it through one protocol only."""

    def __init__(self, array, protocol):
        self.array = array
        if protocol == "__array__":
            self.__class__ = type("ForeignArray", (Foreign,), {"__array__": lambda self, *a, **k: self.array})
        elif protocol == "__dlpack__":
            methods = {
                "__dlpack__": lambda self, **k: self.array.__dlpack__(**k),
                "__dlpack_device__": lambda self: self.array.__dlpack_device__(),
            }
            self.__class__ = type("ForeignDLPack", (Foreign,), methods)
        else:
            self.__class__ = type("ForeignGPU", (Foreign,), {"__cuda_array_interface__": {}})


@backends
@pytest.mark.parametrize("protocol", ["__array__", "__dlpack__"])
def test_arrays_of_other_libraries(protocol, backend):
    logits, grad = random((3, 4), "float32"), random((3, 4), "float32")
    result = st.backward(Foreign(grad, protocol), Foreign(logits, protocol), backend=backend)
    np.testing.assert_array_equal(result, st.backward(grad, logits, backend=backend))


@pytest.mark.frameworks
@backends
def test_torch_tensors_are_read_as_detached(backend):
    """As on a GPU: those that require a gradient, a learned temperature among them, and bfloat16; as `out`, too."""
    torch = pytest.importorskip("torch")
    logits, grad, noise = (random((3, 4), "float32") for _ in range(3))
    temp, where = np.float32([[0.5], [0.7], [2.0]]), RNG.random((3, 4)) < 0.7
    for dtype, like in ((np.dtype("float32"), torch.float32), (np.dtype(ml_dtypes.bfloat16), torch.bfloat16)):
        here = [array.astype(dtype) for array in (logits, grad)]
        there = [torch.from_numpy(array).to(like).requires_grad_() for array in (logits, grad)]
        learned = torch.from_numpy(temp).requires_grad_()
        options = {"where": torch.from_numpy(where), "backend": backend}
        given = torch.from_numpy(noise).requires_grad_()
        expected = npselect.gumbel_softmax.backward(here[1], here[0], temp, noise=noise, where=where, backend=backend)
        results = [npselect.gumbel_softmax.backward(there[1], there[0], learned, noise=given, **options)]
        out = torch.empty((3, 4), dtype=like, requires_grad=True)
        same = npselect.gumbel_softmax.backward(there[1], there[0], learned, noise=given, **options, out=out)
        assert same is out
        bits = out.detach().view(torch.int16 if dtype.itemsize == 2 else torch.int32).numpy()
        results.append(bits.view(dtype))
        strided = [tensor.T.contiguous().T for tensor in there]
        results.append(npselect.gumbel_softmax.backward(*strided[::-1], learned, noise=given, **options))
        for result in results:
            assert result.dtype == dtype
            assert result.tobytes() == expected.tobytes()
        chosen = npselect.selection.backward(there[1][:, :1], there[0][:, :1].T[..., None], there[0][:, :3], learned)
        expected = npselect.selection.backward(here[1][:, :1], here[0][:, :1].T[..., None], here[0][:, :3], temp)
        assert [one.tobytes() for one in chosen] == [one.tobytes() for one in expected]
    with pytest.raises(TypeError, match="to_dense") as raised:
        st.forward(torch.from_numpy(logits).to_sparse())
    assert raised.value.__notes__ == ["logits, a Tensor, does not become a NumPy array"]


@pytest.mark.frameworks
@backends
def test_out_may_be_a_tensor_on_the_cpu(backend):
    torch = pytest.importorskip("torch")
    logits, grad = random((3, 4), "float32"), random((3, 4), "float32")
    for name, call in calls(grad, logits, backend=backend).items():
        for out in (torch.empty(3, 4), torch.empty(4, 3).T):
            assert call(out=out) is out
            assert np.array_equal(out.numpy(), call()), name
    index = torch.empty(3, dtype=torch.int64)
    assert st.index(logits, out=index, backend=backend) is index
    assert np.array_equal(index.numpy(), st.index(logits, backend=backend))
    two = torch.empty(3, 4), torch.empty(3, 4)
    for result, out in zip(st.double_backward(grad, grad, logits, out=two, backend=backend), two, strict=True):
        assert result is out
    for out, expected in zip(two, st.double_backward(grad, grad, logits, backend=backend), strict=True):
        assert np.array_equal(out.numpy(), expected)


@pytest.mark.frameworks
def test_a_bfloat16_tensor_needs_ml_dtypes(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(ModuleNotFoundError, match="pip install ml_dtypes"):
        st.forward(torch.zeros(3, dtype=torch.bfloat16))


class LazyDask(np.ndarray):
    """As much of dask.array.Array as NumPy looks at, which would compute it."""

    __module__ = "dask.array.core"

    def __array__(self, *_, **__):
        raise AssertionError("computed")

    def __dask_graph__(self):
        return {}


class LazyCubed(LazyDask):
    __module__ = "cubed.array_api.array_object"
    __dask_graph__ = None


class LazyXarray(LazyDask):
    __module__ = "xarray.core.dataarray"


class EagerXarray:
    """One that holds NumPy's numbers."""

    __module__ = "xarray.core.dataarray"

    def __init__(self, array):
        self.array = array

    def __array__(self, *_, **__):
        return self.array

    def __dask_graph__(self):
        return None


@backends
@pytest.mark.parametrize("kind", [LazyDask, LazyCubed, LazyXarray])
def test_lazy_arrays_are_refused(kind, backend):
    """NumPy would compute the whole of them, in silence."""
    array = random((3, 4), "float32")
    lazy, gumbel = array.view(kind), npselect.gumbel_softmax
    for name, call in {
        "logits": lambda: st.forward(lazy, backend=backend),
        "grad_mask": lambda: st.backward(lazy, array, backend=backend),
        "temp": lambda: st.backward_temp(array, array, lazy, backend=backend),
        "where": lambda: st.forward(array, where=lazy, backend=backend),
        "noise": lambda: gumbel.soft(array, noise=lazy, backend=backend),
        "x": lambda: npselect.selection.forward(lazy, array[:, :3], backend=backend),
    }.items():
        with pytest.raises(TypeError, match=rf"{name} is a lazy array .*; give {name}\.compute\(\)"):
            call()


@backends
def test_arrays_that_could_be_lazy_and_are_not(backend):
    array = random((3, 4), "float32")
    assert np.array_equal(st.forward(EagerXarray(array), backend=backend), st.forward(array, backend=backend))


def test_where_an_array_lives_is_asked_once(monkeypatch):
    from npselect import _places
    from npselect._call import call, layout

    asked = []

    def on_device(values, ask=_places.on_device):
        asked.append(id(values))
        return ask(values)

    for module in (_places, call):
        monkeypatch.setattr(module, "on_device", on_device)
    assert layout.names_on_gpu is _places.names_on_gpu
    grad, logits, noise, temp, where = [[1.0, 2.0]], [[3.0, 1.0]], [[0.5, 0.0]], [[0.5]], [[True, True]]
    npselect.gumbel_softmax.backward(grad, logits, temp, noise=noise, where=where)
    assert sorted(asked) == sorted(map(id, (grad, logits, noise, temp, where)))


def test_arrays_on_a_gpu_need_the_cuda_tier():
    logits = Foreign(random((3, 4), "float32"), "__cuda_array_interface__")
    if not npselect.backends()["cuda"].available:
        with pytest.raises(RuntimeError, match=r"backend 'cuda' does not run here: \w"):
            st.forward(logits)
    with pytest.raises(TypeError, match="logits lives on a GPU"):
        st.forward(logits, backend="cpu")


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


# ------------------------------------------------------------------------------------------------ out


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
