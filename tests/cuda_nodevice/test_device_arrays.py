"""Arrays on a GPU as they come in and go out, without one: memory of the host stands in for its own."""

import gc
import itertools
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import npselect
from npselect import gumbel_softmax, noise
from npselect import straight_through as st

pytest.importorskip("numba.cuda", reason="needs numba.cuda, which the device arrays' kernels are compiled by")

from fakes.host_device import Device, Interface, Lent, seen

from npselect import _dtypes
from npselect._gpu import copy as device_copy
from npselect._gpu import dlpack
from npselect._gpu.array import DeviceArray
from npselect._gpu.foreign import from_foreign
from npselect._places import on_device

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype("float16"), BFLOAT16, np.dtype("float32"), np.dtype("float64")]
RNG = np.random.default_rng(50)

dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)
wrappers = pytest.mark.parametrize(
    "wrap",
    [Interface, lambda a: Interface(a, 2), lambda a: Interface(a, stream=7), Lent, lambda a: Lent(a, False)],
    ids=["interface 3", "interface 2", "interface with stream", "DLPack 1", "DLPack 0"],
)


@pytest.fixture
def device():
    with Device().installed() as device:
        yield device


def random(shape, dtype="float32"):
    return RNG.standard_normal(shape).astype(dtype)


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


# ------------------------------------------------------------------------------------------------ copies


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


# ------------------------------------------------------------------------------------------------ other libraries


@wrappers
@dtypes
def test_arrays_of_other_libraries_are_read_where_they_are(dtype, wrap, device):
    values = random((4, 6), dtype)
    for view in (values, values.T, values[::-1, ::2], values[:0]):
        given = wrap(view)
        assert on_device(given)
        array = from_foreign(given, "x").view
        assert array.shape == view.shape
        assert array.dtype == dtype
        assert not view.size or array.address == view.ctypes.data
        assert not view.size or array.strides == view.strides
        same(array, view)


def test_what_cannot_be_read(device):
    with pytest.raises(TypeError, match="mask") as raised:
        from_foreign(Interface(random(3), mask=Interface(random(3))), "logits")
    assert raised.value.__notes__ == ["logits, a Interface, cannot be read as an array on a GPU"]
    with pytest.raises(TypeError, match="byte order"):
        from_foreign(Interface(random(3, ">f4")), "logits")
    with pytest.raises(TypeError, match="DLPack's dtype 5 of 64 bits"):
        dlpack._dtype(dlpack._DType(5, 64, 1))
    for values in (random(3).astype(complex), np.zeros(3, "M8[s]")):
        with pytest.raises(TypeError, match="logits has dtype"):
            st.forward(Interface(values))


def test_capsules_are_as_numpy_reads_and_writes_them(monkeypatch):
    values = random((3, 4, 5))[:, ::2]
    for version in (None, (1, 0)):
        found = dlpack.read(capsule := values.__dlpack__(max_version=version))
        assert found[:4] == (values.ctypes.data, values.shape, values.strides, values.dtype)
        assert found.read_only is (None if version is None else False)
        del capsule
    monkeypatch.setattr(dlpack, "CUDA", 1)  # the host, for NumPy to read

    class OnHost:
        def __dlpack_device__(self):
            return 1, 0

        def __dlpack__(self, **options):
            about = values.ctypes.data, values.shape, values.strides, values.dtype, 0, False
            return dlpack.make(dlpack.Description(*about), self, options.get("max_version") is not None)

    before = len(dlpack._exported)
    array = np.from_dlpack(OnHost())
    np.testing.assert_array_equal(array, values)
    assert np.shares_memory(array, values)
    assert len(dlpack._exported) == before + 1
    del array
    gc.collect()
    assert len(dlpack._exported) == before
    for version in (None, (1, 0)):
        capsule = OnHost().__dlpack__(max_version=version)
        assert len(dlpack._exported) == before + 1
        del capsule  # unread
        gc.collect()
        assert len(dlpack._exported) == before


@dtypes
def test_results_are_what_other_libraries_take(dtype, device):
    result = st.soft(Interface(values := random((3, 4), dtype), stream=7), 0.5)
    assert result.__dlpack_device__() == (2, 0)
    for version, stream in itertools.product([None, (1, 0)], [None, 1, 5, 7, -1]):
        device.log.clear()
        found = dlpack.read(capsule := result.__dlpack__(stream=stream, max_version=version))
        assert found[:5] == (result.address, (3, 4), result.strides, dtype, 0)
        expected = {None: [("wait", 1, 7)], 1: [("wait", 1, 7)], 5: [("wait", 5, 7)], 7: [("wait", 7, 7)], -1: []}
        assert device.log == expected[stream]
        del capsule
    with pytest.raises(ValueError, match="stream is 0"):
        result.__dlpack__(stream=0)
    with pytest.raises(BufferError, match="to_host"):
        result.__dlpack__(dl_device=(1, 0))
    copied = dlpack.read(result.__dlpack__(copy=True))
    assert copied.address != result.address
    if dtype == BFLOAT16:
        assert not hasattr(result, "__cuda_array_interface__")
        with pytest.raises(AttributeError, match="bfloat16; take it by DLPack"):
            _ = result.__cuda_array_interface__
    else:
        interface = result.__cuda_array_interface__
        assert interface["stream"] == 7
        assert interface["strides"] is None
        assert interface["data"] == (result.address, False)
        assert interface["typestr"] == dtype.str
    same(st.soft(result), st.soft(st.soft(values, 0.5)))


def test_bfloat16_where_numpy_has_none(device, monkeypatch):
    values, grad = random((3, 4), BFLOAT16), random((3, 4), BFLOAT16)
    expected = st.backward(grad, values).astype(np.float32)
    mask_in_float32 = st.backward(grad.astype(np.float32), values)
    monkeypatch.delitem(sys.modules, "ml_dtypes")
    assert isinstance(_dtypes.bfloat16(), _dtypes.BFloat16)
    result = st.backward(Lent(grad), Lent(values))
    assert isinstance(result.dtype, _dtypes.BFloat16)
    assert str(result.dtype) == "bfloat16"
    with pytest.raises(TypeError, match="import ml_dtypes first"):
        result.to_host()
    same(result.astype(np.dtype("f4")), expected)
    assert st.backward(Lent(grad.astype(np.float32)), Lent(values)).dtype == np.float32
    same(st.backward(Lent(grad.astype(np.float32)), Lent(values)), mask_in_float32)
    with pytest.raises(TypeError, match="neither holds the other's numbers"):
        st.backward(Lent(grad.astype(np.float16)), Lent(values))
    bad = values.copy()
    bad[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"logits\[1, 2\] is nan"):
        st.forward(Lent(bad), nan_policy="raise")
    out = np.empty((3, 4), BFLOAT16)
    lent = Lent(out)
    assert st.backward(Lent(grad), Lent(values), out=lent) is lent
    np.testing.assert_array_equal(out.astype(np.float32), expected)
    with pytest.raises(TypeError, match="out has dtype float16, to which a result of dtype bfloat16"):
        st.forward(Lent(values), out=Lent(np.empty((3, 4), np.float16)))


def test_the_stand_in_for_bfloat16():
    dtype = _dtypes.BFloat16()
    assert dtype == BFLOAT16
    assert [dtype] == [BFLOAT16]
    assert np.dtype(BFLOAT16).__eq__(dtype) is not False  # NumPy leaves the answer to the other
    assert dtype != np.dtype("f2")
    assert _dtypes.common([dtype, BFLOAT16]).name == "bfloat16"
    for other in ("float16", "float32", "float64", "int64"):
        assert _dtypes.castable(dtype, np.dtype(other)) == np.can_cast(BFLOAT16, other, "same_kind")
        assert _dtypes.castable(np.dtype(other), dtype) == np.can_cast(other, BFLOAT16, "same_kind")


# ------------------------------------------------------------------------------------------------ operators


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


OPERATORS = {"st": (st, {}), "seed": (gumbel_softmax, {"seed": 3})}


@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize("operator", OPERATORS)
@dtypes
def test_operators_see_no_difference(dtype, operator, axis, device):
    module, options = OPERATORS[operator]
    logits, grad, where = (array if axis == -1 else array.T for array in inputs(dtype))
    temps = RNG.uniform(0.5, 2.0, (10, 1) if axis == -1 else (1, 10))
    for name, call in calls(module, options).items():
        for temp, wrap, wrap_where in ((0.7, Interface, Interface), (temps, Lent, np.asarray)):
            expected = call(logits, grad, temp=temp, where=where, axis=axis)
            results = call(wrap(logits), wrap(grad), temp=temp, where=wrap_where(where), axis=axis)
            if name == "double_backward":
                for result, other in zip(results, expected, strict=True):
                    same(result, other)
            else:
                same(results, np.asarray(expected))


def test_noise_comes_from_either_side(device):
    logits = random((4, 5), "f2")
    for added in (random((4, 5)), random(5, "f8"), random((4, 1), BFLOAT16), np.ones((), int)):
        expected = gumbel_softmax.soft(logits, noise=added)
        same(gumbel_softmax.soft(Lent(logits), noise=added), expected)
        same(gumbel_softmax.soft(Lent(logits), noise=Interface(added)), expected)


def test_temperatures_come_from_either_side(device):
    logits, temp = random((4, 5)), RNG.uniform(0.5, 2.0, (4, 1)).astype("f4")
    same(st.soft(Lent(logits), Interface(temp)), st.soft(logits, temp))
    same(st.soft(Lent(logits), Lent(temp.astype(BFLOAT16))), st.soft(logits, temp.astype(BFLOAT16)))
    with pytest.raises(ValueError, match=r"temp is -1.0; it must be positive"):
        st.soft(Lent(logits), Lent(np.float32([[-1.0]])))


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int64", "uint64"])
def test_integers_and_bools_become_float64(dtype, device):
    values = RNG.integers(0, 2, (3, 4)).astype(dtype)
    same(st.soft(Interface(values)), st.soft(values))
    same(st.soft(Interface(values.T), axis=0), st.soft(values.T, axis=0))


def test_dtypes_promote_as_in_numpy(device):
    for one, other in itertools.permutations(DTYPES, 2):
        logits, grad = random((3, 4), one), random((3, 4), other)
        if {one.itemsize, other.itemsize} == {2}:
            with pytest.raises(TypeError, match="neither holds the other's numbers"):
                st.backward(Lent(grad), Lent(logits))
        else:
            same(st.backward(Lent(grad), Lent(logits)), st.backward(grad, logits))


def test_single_rows_and_no_rows(device):
    row = random(5)
    same(st.forward(Lent(row)), st.forward(row))
    same(st.index(Lent(row)), np.asarray(st.index(row)))
    device.log.clear()
    for shape, axis in (((0, 5), -1), ((5, 0), 0), ((2, 0, 3), 0)):
        for name, call in calls(st, {}).items():
            if name != "backward_temp":
                results = call(Interface(np.empty(shape, "f4")), Interface(np.empty(shape, "f4")), axis=axis)
                for result in results if name == "double_backward" else [results]:
                    assert result.size == 0
    assert not [entry for entry in device.log if entry[0] not in ("free_after", "wait")]
    same(st.backward_temp(Lent(np.empty((0, 5), "f4")), Lent(np.empty((0, 5), "f4"))), np.zeros((), "f4"))


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "no candidates along axis", lambda wrap: st.forward(wrap(np.empty((3, 0), "f4")))),
        (ValueError, "temp is 0.0; it must be", lambda wrap: st.forward(wrap(random((3, 4))), 0.0)),
        (ValueError, "temp is nan; it must be", lambda wrap: st.forward(wrap(random((3, 4))), np.nan)),
        (ValueError, "temp has shape", lambda wrap: st.forward(wrap(random((3, 4))), np.ones(4))),
        (np.exceptions.AxisError, "axis 2", lambda wrap: st.forward(wrap(random((3, 4))), axis=2)),
        (ValueError, "grad_mask has shape", lambda wrap: st.backward(wrap(random(4)), wrap(random((3, 4))))),
        (ValueError, "where has shape", lambda wrap: st.forward(wrap(random((3, 4))), where=wrap(np.ones(3, bool)))),
        (TypeError, "where has dtype", lambda wrap: st.forward(wrap(random((3, 4))), where=wrap(np.ones(4, int)))),
        (ValueError, "noise has shape", lambda wrap: gumbel_softmax.forward(wrap(random(4)), noise=wrap(random(3)))),
        (TypeError, "seed", lambda wrap: gumbel_softmax.forward(wrap(random(4)), seed=1, noise=wrap(random(4)))),
        (TypeError, "seed", lambda wrap: gumbel_softmax.forward(wrap(random(4)))),
        (ValueError, "nan_policy is 'stop'", lambda wrap: st.forward(wrap(random(4)), nan_policy="stop")),
        (TypeError, "axis is 1.0", lambda wrap: st.forward(wrap(random((2, 4))), axis=1.0)),
        (ValueError, "logits.1. is 9007199254740993", lambda wrap: st.index(wrap(np.array([2**53, 2**53 + 1])))),
    ],
)
def test_errors_are_those_of_the_host_and_come_before_any_launch(error, message, call, device):
    with pytest.raises(error, match=message) as on_host:
        call(np.asarray)
    device.log.clear()
    with pytest.raises(error, match=message) as on_device:
        call(Interface)
    assert not [entry for entry in device.log if entry[0] == "launch"]
    if "random" not in str(on_host.value):
        assert str(on_device.value) == str(on_host.value)


def test_nan_policy(device):
    logits, _, _ = inputs(np.dtype("f4"))
    with pytest.raises(ValueError, match=r"logits\[2, 1\] is nan, and nan_policy is 'raise'"):
        st.forward(Lent(logits), nan_policy="raise")
    offers = np.ones((10, 1), bool)
    offers[2:4] = False
    same(st.forward(Lent(logits), where=offers, nan_policy="raise"), st.forward(logits, where=offers))
    offers = offers | (np.arange(5) > 1)
    with pytest.raises(ValueError, match=r"\(logits \+ noise\)\[3, 2\] is inf"):
        gumbel_softmax.forward(Lent(logits), noise=Interface(np.zeros(5)), where=offers, nan_policy="raise")


# ------------------------------------------------------------------------------------------------ where arrays are


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


# ------------------------------------------------------------------------------------------------ out


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


# ------------------------------------------------------------------------------------------------ this machine


def run(code, **environment):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=120).stdout


DETAIL = "import npselect; print(npselect.backends()['cuda'].detail)"


def test_without_numba_cuda_it_is_said_how_to_install_it():
    hidden = "import importlib.util as u; f = u.find_spec; u.find_spec = lambda n: n != 'numba_cuda' and f(n) or None; "
    output = run(hidden + DETAIL)
    assert "pip install 'npselect[cuda]'" in output
    assert output.count("\n") == 1


@pytest.mark.skipif(find_spec("numba_cuda") is None, reason="numba-cuda is not installed")
def test_why_there_is_no_device_is_said_in_one_line():
    assert run(DETAIL, NUMBA_ENABLE_CUDASIM="1").startswith("numba simulates CUDA here")
    assert "NUMBA_DISABLE_CUDA" in run(DETAIL, NUMBA_DISABLE_CUDA="1", NUMBA_ENABLE_CUDASIM="0")
    assert run(DETAIL, NUMBA_ENABLE_CUDASIM="0").count("\n") == 1


def test_looking_at_arrays_loads_no_cuda():
    code = """
import sys
import numpy as np
import npselect
npselect.straight_through.forward(np.ones((2, 3)))
names = ("numba.cuda", "numba_cuda", "cuda", "npselect._gpu")
print(sorted(name for name in sys.modules if name.startswith(names)))
"""
    assert run(code).strip() == "[]"


@pytest.mark.skipif(npselect.backends()["cuda"].available, reason="there is a device here")
def test_the_cuda_tier_says_why_it_does_not_run():
    with pytest.raises(RuntimeError, match=r"^backend 'cuda' does not run here: \w.+$"):
        st.forward(random((3, 4)), backend="cuda")


def test_no_deleter_is_called_when_the_interpreter_has_ended():
    code = """
import atexit, ctypes, sys
import numpy as np
held = []
atexit.register(lambda: print(dlpack._Managed.from_address(held[0]).deleter, array[0]))  # registered first, called last
from npselect._gpu import dlpack
array = np.ones(4, np.float32)
capsule = dlpack.make(dlpack.Description(array.ctypes.data, (4,), (4,), array.dtype, 0, False), array, False)
held.append(dlpack._pointer(capsule, b"dltensor"))
assert dlpack._Managed.from_address(held[0]).deleter
ctypes.pythonapi.PyCapsule_SetName(ctypes.py_object(capsule), b"used_dltensor")
del capsule
assert len(dlpack._exported) == 1
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "None 1.0\n"
