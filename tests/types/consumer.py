"""What a type checker makes of npselect: checked by mypy and pyright (`.ci/run`), and run by the tests."""

from __future__ import annotations

from typing import Any, assert_type

import numpy as np
import numpy.typing as npt

import npselect
from npselect import gumbel_softmax, noise, reinmax, straight_through

single: npt.NDArray[np.float32] = np.zeros((2, 3), np.float32)
double: npt.NDArray[np.float64] = np.zeros((2, 3))
half: npt.NDArray[np.float16] = np.zeros((2, 3), np.float16)
whole: npt.NDArray[np.int64] = np.zeros((2, 3), np.int64)
flags: npt.NDArray[np.bool_] = np.zeros((2, 3), np.bool_)

column: npt.NDArray[np.float64] = np.array([[0.5], [2.0]])

# The dtype of the logits.
assert_type(straight_through.forward(single), npt.NDArray[np.float32])
assert_type(straight_through.forward(logits=half, temp=0.5, axis=0), npt.NDArray[np.float16])
assert_type(straight_through.backward(double, double, column), npt.NDArray[np.float64])
assert_type(straight_through.backward(grad_mask=single, logits=single), npt.NDArray[np.float32])
assert_type(gumbel_softmax.soft(single, seed=1, where=flags), npt.NDArray[np.float32])
assert_type(gumbel_softmax.jvp(double, double, noise=double), npt.NDArray[np.float64])
assert_type(reinmax.backward(single, single, index=[0, 1]), npt.NDArray[np.float32])
assert_type(npselect.differentiable_select(double), npt.NDArray[np.float64])

# Integers and bools become float64; of a list nothing is known.
assert_type(straight_through.soft(whole), npt.NDArray[np.float64])
assert_type(straight_through.soft(flags), npt.NDArray[np.float64])
assert_type(straight_through.forward([1.0, 3.0]), npt.NDArray[Any])

# An index is int64, whatever the logits are.
assert_type(straight_through.index(single), npt.NDArray[np.int64])
assert_type(gumbel_softmax.index([[1, 2]], seed=1), npt.NDArray[np.int64])

# The temperature's gradient: a scalar for a scalar, else an array.
assert_type(straight_through.backward_temp(single, single, 0.6), np.float32)
assert_type(straight_through.backward_temp(double, double, column), npt.NDArray[np.float64])

# Two results.
pair = straight_through.double_backward(single, single, single)
assert_type(pair, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]])

# `out` comes back.
assert_type(straight_through.forward([[1, 3, 2], [1, 3, 2]], out=single), npt.NDArray[np.float32])

# Noise: float32 unless another dtype is named.
assert_type(noise.gumbel(3, 1), npt.NDArray[np.float32])
assert_type(noise.gumbel(3, 1, dtype=np.float64), npt.NDArray[np.float64])
assert_type(noise.gumbel((2, 3), 1, out=double, dtype=np.float64), npt.NDArray[np.float64])


def on_device(logits: npselect.DeviceArray) -> None:
    """A `DeviceArray` for a `DeviceArray`; never called."""
    assert_type(straight_through.backward(logits, logits), npselect.DeviceArray)
    assert_type(straight_through.index(logits), npselect.DeviceArray)
