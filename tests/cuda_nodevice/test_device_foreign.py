"""Arrays on a GPU from and for other libraries: interfaces, capsules, and bfloat16 where NumPy has none."""

import gc
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from npselect import straight_through as st

pytest.importorskip("numba.cuda", reason="needs numba.cuda, which the device arrays' kernels are compiled by")

from arrays import BFLOAT16, dtypes, random
from device_arrays import same, wrappers
from fakes.host_device import Interface, Lent

from npselect import _dtypes
from npselect._gpu import dlpack
from npselect._gpu.foreign import from_foreign
from npselect._places import on_device


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
