"""Arrays of other libraries: read by a protocol, lazy ones refused, tensors as detached, and where they live."""

import sys

import ml_dtypes
import numpy as np
import pytest
from arrays import RNG, backends, calls, random

import npselect
from npselect import straight_through as st


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
        if values is not None:  # what is not given lives nowhere
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
