"""What the CPU tier refuses is refused on the device, with the same exception, and `out` stays as it was."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from cuda_device import Counts, Log
from cuda_device.inputs import batch
from npselect.bench.devices import Arrays
from npselect.bench.devices.functions import Operators

__all__ = ["check_refusals"]


def check_refusals(report: Log, arrays: Arrays, dtype: str, operators: Operators | None = None) -> None:
    """Bad calls, a line for all; `operators` are called instead of npselect's where the device is meant."""
    total: Counts = {"calls": 0, "elements": 0, "differing": 0}
    for name, (function, arguments) in _bad_calls(dtype).items():
        with report.attempt(f"refusal: {name}"):
            expected = _raised(function, arguments)
            placed = {
                key: arrays.from_host(value) if isinstance(value, np.ndarray) else value
                for key, value in arguments.items()
            }
            out = arrays.empty((17, 10), dtype)
            arrays.poison(out)
            before = arrays.to_host(out).copy()
            actual = _raised(function, {**placed, "out": out, "backend": arrays.backend}, operators)
            written = before.tobytes() != arrays.to_host(out).tobytes()
            total["calls"] += 1
            total["elements"] += 1
            if actual != expected or written:
                total["differing"] += 1
                also = ", and out was written to" if written else ""
                total.setdefault("case", name)
                total.setdefault("first", f"raised {actual}{also}; expected {expected}")
    report.line("check", what="refusals", dtype=dtype, choices="refusals", **total)


def _bad_calls(dtype: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Function and arguments."""
    made = batch(dtype, 17, 10, 5)
    forward = {"logits": made.logits, "temp": 0.6}
    backward = {"grad_mask": made.grad_mask, **forward}
    negative = made.temps.copy()
    negative[5] = -1
    back, sample = "straight_through.backward", "gumbel_softmax.forward"
    return {
        "temp 0": (back, {**backward, "temp": 0.0}),
        "temp NaN": (back, {**backward, "temp": float("nan")}),
        "a negative temp among many": (back, {**backward, "temp": negative}),
        "temps of another shape": (back, {**backward, "temp": made.temps[:5]}),
        "no such axis": (back, {**backward, "axis": 2}),
        "where of another shape": (back, {**backward, "where": made.where[:, :7]}),
        "where of numbers": (back, {**backward, "where": made.where.astype(np.int64)}),
        "a cotangent of another shape": (back, {**backward, "grad_mask": made.grad_mask[:, :7]}),
        "integers for temp": (back, {**backward, "temp": np.zeros(1, np.int64)}),
        "no candidates": ("straight_through.forward", {**forward, "logits": made.logits[:, :0]}),
        "nan_policy": ("straight_through.forward", {**forward, "nan_policy": "raise"}),
        "nan_policy of backward": (back, {**backward, "nan_policy": "raise"}),
        "no such nan_policy": ("straight_through.forward", {**forward, "nan_policy": "ignore"}),
        "seed out of range": (sample, {**forward, "seed": -1}),
        "noise of another shape": (sample, {**forward, "noise": made.noise[:, :7]}),
        "nan_policy with noise": (sample, {**forward, "noise": made.noise, "nan_policy": "raise"}),
        "both seed and noise": (sample, {**forward, "seed": 1, "noise": made.noise}),
        "neither seed nor noise": (sample, forward),
    }


def _raised(function: str, arguments: dict[str, Any], operators: Operators | None = None) -> str:
    """The name of the exception that a call raises."""
    operator, name = function.split(".")
    module = (operators or {}).get(operator) or import_module(f"npselect.{operator}")
    try:
        getattr(module, name)(**arguments)
    except Exception as error:
        return type(error).__name__
    return "nothing"
