"""The array on a GPU, without one: copies, conversions and layouts, and its likeness to NumPy's."""

import itertools

import numpy as np
import pytest

pytest.importorskip("numba.cuda", reason="needs numba.cuda, which the device arrays' kernels are compiled by")

from arrays import BFLOAT16, RNG, random
from device_arrays import equal, on_gpu, same
from fakes.host_device import Interface, seen

from npselect._gpu import copy as device_copy
from npselect._gpu.foreign import from_foreign


@pytest.mark.parametrize(
    ("source", "target"),
    [
        *itertools.product(["float16", "bfloat16", "float32", "float64"], repeat=2),
        *itertools.product(["bool", "int8", "uint16", "int64", "uint64"], ["float64"]),
        *itertools.product(["int64"], ["float32", "float16", "int32", "int8", "int64"]),
        ("bool", "bool"),
    ],
)
def test_conversions_round_once(source, target, device):
    source, target = (BFLOAT16 if name == "bfloat16" else np.dtype(name) for name in (source, target))
    if source.kind in "fV":
        bits = RNG.integers(0, 2 ** (8 * source.itemsize), 120, dtype=f"u{source.itemsize}")
        special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, 65504, 65519.99, 65520, 1e-300, 3.5e38, -1e308]
        halfway = [1 + 2.0**-11 + 2.0**-40, 1 + 2.0**-8 + 2.0**-40, -1 - 2.0**-8 - 2.0**-40]
        halfway += [2.0**-24, 2.0**-25, 1.5 * 2.0**-25, 2.0**-149, 2.0**-150, 1.5 * 2.0**-150]
        with np.errstate(over="ignore"):
            values = np.concatenate([bits.view(source), np.array([*special, *halfway]).astype(source)])
    else:
        values = (
            RNG.integers(0, 2, 60).astype(source) if source.kind == "b" else RNG.integers(-100, 100, 60).astype(source)
        )
    result = on_gpu(values).astype(target).to_host()
    with np.errstate(all="ignore"):
        if source == np.float64 and target == BFLOAT16:  # ml_dtypes rounds to float32 before
            near = values.astype(np.float32)
            bits = near.view(np.uint32).astype(np.int64) - (np.abs(near.astype(float)) > np.abs(values))
            odd = np.where((near == values) | ~np.isfinite(near), near.view(np.uint32), bits | 1)
            expected = odd.astype(np.uint32).view(np.float32).astype(target)
        else:
            expected = values.astype(target)
    equal(result, expected)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (2, 1, 4), (2, 3, 2, 3), (2, 2, 3, 1, 2, 3), (0, 4)])
def test_any_layout_is_copied(shape, device):
    values = random(shape)
    array = on_gpu(values)
    same(array, values)
    for order in itertools.islice(itertools.permutations(range(len(shape))), 30):
        view = array.transpose(order)
        assert view.strides == tuple(array.strides[i] for i in order)
        same(view.copy(), values.transpose(order))
        same(view.astype(np.dtype("f8")), values.transpose(order).astype("f8"))
        into = on_gpu(np.full(shape, 9.0, "f4")).transpose(order)
        into.assign(view)
        same(into, values.transpose(order))
        same(view.reshape((values.size,)), values.transpose(order).reshape(-1))


def test_reversed_and_spaced_and_odd_addresses(device):
    values = random((6, 8), "f4")
    view = values[::-2, 1::3]
    same(from_foreign(Interface(view), "x").view.copy(), view)
    same(from_foreign(Interface(view), "x").view.astype(np.dtype("f8")), view.astype("f8"))
    odd = np.frombuffer(b"x" + values.tobytes(), "f4", 48, 1).reshape(6, 8)
    array = from_foreign(Interface(odd), "x").view
    assert not array.c_contiguous
    same(array.copy(), values)
    same(array.astype(np.dtype("f2")), values.astype("f2"))
    target = np.zeros(193, np.uint8)[1:].view("f4").reshape(6, 8)
    from_foreign(Interface(target), "x").view.assign(on_gpu(values.astype("f8")))
    np.testing.assert_array_equal(target, values)


def test_axes_are_merged():
    assert device_copy._merged((2, 3, 4), (12, 4, 1), (12, 4, 1)) == [(24, 1, 1)]
    assert device_copy._merged((2, 1, 4), (4, 9, 1), (8, 7, 2)) == [(8, 1, 2)]
    assert device_copy._merged((2, 3), (1, 2), (3, 1)) == [(2, 1, 3), (3, 2, 1)]
    assert device_copy._merged((2, 3), (1, 2), (1, 2)) == [(6, 1, 1)]
    assert device_copy._merged((), (), ()) == []


def test_the_array_is_like_numpys(device):
    array = on_gpu(random((3, 4)))
    assert (array.ndim, array.size, array.nbytes, len(array)) == (2, 12, 48, 3)
    assert repr(array) == "DeviceArray(shape=(3, 4), dtype=float32, device=0)"
    assert array.astype(np.dtype("f4"), copy=False) is array
    same(array.broadcast_to((2, 3, 4)), np.broadcast_to(seen(array), (2, 3, 4)))
    same(array.reshape((3, 1, 4)).broadcast_to((3, 2, 4)), np.broadcast_to(seen(array)[:, None], (3, 2, 4)))
    with pytest.raises(ValueError, match=r"shape \(3, 4\) has no shape \(5,\)"):
        array.reshape((5,))
    with pytest.raises(ValueError, match=r"does not broadcast to \(2, 4\)"):
        array.broadcast_to((2, 4))
    with pytest.raises(ValueError, match=r"shape \(3,\) cannot be assigned to one of shape \(3, 4\)"):
        array.assign(on_gpu(random(3)))
    with pytest.raises(TypeError, match=r"use .to_host\(\)"):
        np.asarray(array)
    with pytest.raises(TypeError, match="without axes"):
        len(on_gpu(np.float32(1.0)))
