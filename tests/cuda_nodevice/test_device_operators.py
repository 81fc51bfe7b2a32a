"""Operators over arrays on a GPU: no difference in results, dtypes and errors from those over the host's."""

import itertools

import numpy as np
import pytest

from npselect import gumbel_softmax
from npselect import straight_through as st

pytest.importorskip("numba.cuda", reason="needs numba.cuda, which the device arrays' kernels are compiled by")

from arrays import BFLOAT16, DTYPES, RNG, dtypes, random
from device_arrays import calls, inputs, same
from fakes.host_device import Interface, Lent

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
