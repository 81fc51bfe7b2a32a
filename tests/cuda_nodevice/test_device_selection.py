"""Selection from vectors on a GPU, over the host's memory: what is chosen, both gradients, whatever is shared."""

import types

import ml_dtypes
import numpy as np
import pytest

from npselect import gumbel_softmax, selection

pytest.importorskip("numba.cuda", reason="needs numba.cuda, which the device arrays' kernels are compiled by")

from fakes.host_device import Interface, Lent

from npselect._gpu.array import DeviceArray
from npselect.tiers.cuda import gather as device_selection

RNG = np.random.default_rng(51)
DTYPES = [np.dtype("float16"), np.dtype(ml_dtypes.bfloat16), np.dtype("float32"), np.dtype("float64")]
SHAPES = [  # of x and of the logits
    ((3, 2), (3,)),
    ((3, 2), (5, 3)),
    ((5, 3, 2), (5, 3)),
    ((5, 3, 2), (3,)),
    ((4, 1, 3, 2), (5, 3)),
    ((4, 5, 3, 2), (1, 3)),
    ((1, 3, 2), (4, 5, 3)),
    ((4, 1, 3, 2), (4, 5, 3)),
    ((3, 0), (4, 3)),
    ((0, 3, 2), (0, 3)),
]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def random(shape, dtype="float32"):
    return RNG.standard_normal(shape).astype(dtype)


def equal(result, expected):
    assert isinstance(result, DeviceArray)
    result = result.to_host()
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result.astype("f8"), expected.astype("f8"))


def near(result, expected, scale):
    assert isinstance(result, DeviceArray)
    result = result.to_host()
    assert result.dtype == expected.dtype
    unit = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-20, "float64": 2.0**-48}[expected.dtype.name]
    np.testing.assert_allclose(result.astype("f8"), expected.astype("f8"), rtol=unit, atol=scale * unit)


@shapes
@dtypes
@pytest.mark.parametrize("reduce", [True, False])
def test_selection_is_the_hosts(reduce, dtype, shape, device):
    x, logits = random(shape[0], dtype), random(shape[1], dtype)
    where = RNG.random(shape[1]) < 0.8
    if logits.ndim > 1 and len(logits) > 1:
        logits[0, 0], where[0, 0], where[1] = np.nan, True, False
    options = {"where": where, "reduce": reduce}
    chosen = selection.forward(x, logits, **options)
    equal(selection.forward(Lent(x), Lent(logits), **options), chosen)
    grad = random(chosen.shape, dtype)
    grad_x, grad_logits = selection.backward(grad, x, logits, 0.7, **options)
    options["where"] = Interface(where)
    results = selection.backward(Lent(grad), Interface(x) if dtype != ml_dtypes.bfloat16 else Lent(x), Lent(logits),
                                 0.7, **options)  # fmt: skip
    equal(results[0], grad_x)
    near(results[1], grad_logits, 20.0)


def test_layouts_options_and_dtypes(device):
    x, logits, grad = random((2, 7)).T, random((7, 9)).T, random((2, 9)).T
    options = {"operator": gumbel_softmax, "seed": 5}
    expected = selection.backward(grad, x, logits, **options)
    results = selection.backward(Interface(grad), Interface(x), Interface(logits, stream=7), **options)
    equal(results[0], expected[0])
    near(results[1], expected[1], 20.0)
    assert results[0].stream == results[1].stream == 7
    for names in (("f8", "f4", "f4"), ("f2", "f4", "f2"), ("i4", "f4", "f4"), ("f4", "f2", "f8")):
        arrays = [array.astype(name) for array, name in zip((grad, x, logits), names, strict=True)]
        expected = selection.backward(*arrays)
        results = selection.backward(*map(Interface, arrays))
        equal(results[0], expected[0])
        near(results[1], expected[1], 20.0)


def test_sums_are_taken_in_float64_in_the_order_of_the_batch(device):
    grad = np.float32([[1.0], [2.0**-30], [-1.0], [3.0], [-0.0]])
    x, logits = np.zeros((2, 1), "f4"), np.float32([[1, 0], [1, 0], [1, 0], [0, 1], [0, 1]])
    grad_x, _ = selection.backward(Lent(grad), Lent(x), Lent(logits))
    assert grad_x.to_host().tolist() == [[2.0**-30], [3.0]]
    _, grad_alone = selection.backward(Lent(grad[4:]), Lent(x), Lent(logits[4:]))
    assert grad_alone.shape == (1, 2)


@pytest.mark.parametrize(("rows", "choices", "length"), [(1, 1, 1), (3, 2, 40), (33, 35, 3), (2, 2, 0), (5, 34, 33)])
def test_products(rows, choices, length, device):
    left, right = random((2, rows, length), "f4"), random((2, choices, length), "f2")
    arrays = (DeviceArray.from_host(array, 1, 0) for array in (left, right))
    result = device_selection.batched_dot(*arrays, np.dtype("f8")).to_host()
    np.testing.assert_allclose(result, left.astype("f8") @ right.astype("f8").mT, rtol=1e-13, atol=1e-13)


def test_arrays_must_be_on_one_side(device):
    x, logits = random((3, 2)), random((4, 3))
    with pytest.raises(TypeError, match="x lives on a GPU and logits on the host; copy logits to the GPU"):
        selection.forward(Lent(x), logits)
    with pytest.raises(TypeError, match="logits lives on a GPU and x on the host"):
        selection.forward(x, Lent(logits))
    with pytest.raises(TypeError, match="x lives on a GPU; copy it to the host"):
        selection.forward(Lent(x), Lent(logits), backend="cpu")
    with pytest.raises(ValueError, match="grad_chosen has shape"):
        selection.backward(Lent(random((4, 3))), Lent(x), Lent(logits))


def test_what_dlpack_lends_is_done_with_when_the_call_returns(device):
    selection.backward(Lent(random((4, 2))), Lent(random((3, 2))), Lent(random((4, 3))))
    assert device.log[-1] == ("synchronize", 1)


def test_an_operator_of_the_callers(device):
    def index(logits, where=None):
        assert isinstance(logits, DeviceArray)
        return np.argmax(logits.to_host(), axis=-1)

    def backward(g, logits, temp, where=None):
        return g.to_host() * 2

    operator = types.SimpleNamespace(index=index, backward=backward)
    x, logits, grad = random((3, 2)), random((4, 3)), random((4, 2))
    equal(selection.forward(Lent(x), Lent(logits), operator=operator), selection.forward(x, logits))
    _, grad_logits = selection.backward(Lent(grad), Lent(x), Lent(logits), operator=operator)
    near(grad_logits, 2 * (grad @ x.T), 20.0)


def test_operators_by_name_the_temperatures_gradient_and_the_copy(device):
    """In exact dot products, so that the operators' bits are the host's."""
    grad, x = RNG.integers(-9, 9, (4, 2)).astype("f4"), RNG.integers(-9, 9, (3, 2)).astype("f4")
    logits, temp = random((4, 3)), np.float32([[0.5], [1.0], [2.0], [1.5]])
    for name, options in (("reinmax", {"seed": 5}), ("gumbel_softmax", {"seed": 5}), ("straight_through", {})):
        expected = selection.backward(grad, x, logits, temp, operator=name, **options)
        results = selection.backward(Lent(grad), Lent(x), Lent(logits), temp, operator=name, **options)
        for one, other in zip(results, expected, strict=True):
            equal(one, other)
    equal(
        selection.backward_temp(Lent(grad), Lent(x), Lent(logits), temp),
        selection.backward_temp(grad, x, logits, temp),
    )
    for array in (grad, grad.astype("f2")):
        equal(selection.identity.forward(Lent(grad), Lent(array)), array)
        equal(selection.rotation.forward(Lent(grad), Lent(array)), array)
        equal(selection.identity.backward(Lent(array), Lent(grad), Lent(grad)), array.astype("f4"))
    with pytest.raises(
        RuntimeError, match=r"no kernel for the rotation trick; .* grad lives on a GPU: copy it to the host"
    ):
        selection.rotation.backward(Lent(grad), Lent(grad), Lent(grad))
