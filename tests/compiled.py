"""The CUDA tier's kernels as they are compiled, interpreted (`tests/ptx`), beside the CPU tier, bit for bit."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from ptx.device import Device

from npselect._gpu.array import DeviceArray

__all__ = ["ARRAYS", "DTYPES", "compare", "on_device", "same_bits", "temps", "trials"]

DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float64": np.float64}
ARRAYS = {  # what the functions of an operator take before temp
    "forward": ("logits",),
    "index": ("logits",),
    "soft": ("logits",),
    "backward": ("grad", "logits"),
    "backward_temp": ("grad", "logits"),
    "double_backward": ("grad_grad", "grad", "logits"),
}
TEMPS = [0.6, 1e-30, 7.0, 1e-3, 1e30, 1.0, 1e-40, 3e38]


def rows_for(choices: int) -> int:
    """More than a block has, and not a multiple of that."""
    return 12 + 128 // max(choices, 4) * 4


def trials(choices: int, dtype: Any, seed: int = 0) -> dict[str, Any]:
    """Logits and cotangents, with rows of every kind."""
    rng, rows = np.random.default_rng(seed), rows_for(choices)
    shape, info = (rows, choices), ml_dtypes.finfo(dtype)
    sizes = 10.0 ** rng.uniform(-3, 3, (rows, 1))
    arrays = {name: rng.standard_normal(shape) * sizes for name in ("logits", "grad", "grad_grad")}
    arrays = {name: array.astype(dtype) for name, array in arrays.items()}
    logits, grad = arrays["logits"], arrays["grad"]
    logits[0] = rng.choice([0.0, -0.0], choices)
    logits[1] = rng.integers(0, 3, choices)  # ties
    if choices > 1:
        logits[2, choices // 2] = np.inf
        logits[3, choices - 1] = np.nan
        logits[4] = -np.inf
        logits[5, ::2] = -np.inf
        logits[6, 1:] = -np.inf
        grad[5, :2] = np.inf, 1  # the first is excluded
        grad[7, choices - 1] = np.nan
        grad[9, 0] = np.inf
        logits[8] = rng.choice([info.max, -info.max, info.smallest_subnormal, info.tiny, 0], choices)
        for i, row in enumerate(range(12, rows, 3)):  # each column has one in turn
            logits[row, i % choices] = (np.inf, np.nan)[i // choices % 2]
    return arrays


def wheres(choices: int) -> list[Any]:
    rng = np.random.default_rng(1)
    each = rng.random((rows_for(choices), choices)) < 0.7
    each[[0, -1]] = False
    return [None, each, rng.random(choices) < 0.6]


def temps(rows: int, dtype: Any) -> Any:
    compute = np.float64 if dtype == np.float64 else np.float32
    return np.resize(np.array(TEMPS), rows)[:, None].astype(compute)


def on_device(device: Device, array: Any, skew: int = 0) -> DeviceArray:
    """A copy on the device, which begins `skew` elements after an aligned address; nothing is allotted around it."""
    owner = device.allocate(array.nbytes, skew=skew * array.dtype.itemsize)
    device.upload(owner.address, array, 1)
    return DeviceArray(owner.address, array.shape, array.strides, array.dtype, owner, 1, 0)


def bits(array: Any) -> Any:
    words = array.view(f"u{array.dtype.itemsize}")
    return words if array.dtype.kind == "i" else np.where(np.isnan(array.astype(np.float64)), 0x7E57, words)


def same_bits(results: Any, expected: Any, **about: Any) -> None:
    """Whether results, which are on the device, are what was expected, wherever that is not NaN."""
    results, expected = (x if isinstance(x, tuple) else (x,) for x in (results, expected))
    for i, (result, wanted) in enumerate(zip(results, expected, strict=True)):
        result = result.to_host() if isinstance(result, DeviceArray) else result
        assert result.shape == wanted.shape
        assert result.dtype == wanted.dtype
        different = np.argwhere(bits(result) != bits(wanted))
        assert not len(different), f"result {i}: {len(different)} differ, first at {different[0]}: {about}"


def compare(
    device: Device, operator: Any, name: str, choices: int, dtype: Any, *, skew: int = 0, **options: Any
) -> None:
    """A function of an operator on both tiers, for whatever does not change the kernel."""
    arrays = trials(choices, dtype)
    given = {key: on_device(device, array, skew) for key, array in arrays.items()}
    each = temps(len(arrays["logits"]), dtype)
    for where, temp in zip(wheres(choices), (each, 0.6, each[:1, 0]), strict=True):
        more = () if name == "index" else (temp,)
        everywhere = options if where is None else {"where": where, **options}
        expected = getattr(operator, name)(*(arrays[key] for key in ARRAYS[name]), *more, **everywhere)
        moved = {
            key: on_device(device, value, skew if key == "noise" else 0) if isinstance(value, np.ndarray) else value
            for key, value in everywhere.items()
        }
        results = getattr(operator, name)(*(given[key] for key in ARRAYS[name]), *more, **moved)
        same_bits(results, expected, choices=choices, dtype=dtype, skew=skew, where=where is not None)
