"""Noise and selection against the CPU tier, bit for bit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cuda_device import Counts, Log
from cuda_device.comparison import compare, count
from cuda_device.inputs import batch
from npselect import gumbel_softmax, noise, selection
from npselect.bench.devices import Arrays
from npselect.bench.devices.arrays import host_dtype
from npselect.bench.devices.functions import SEED, results

__all__ = ["check_gumbel", "check_selection"]


def check_gumbel(report: Log, arrays: Arrays, dtype: str, operator: Any = None) -> None:
    """Sizes and places of all kinds, the last number of a stream among them."""
    total: Counts = {"calls": 0, "elements": 0, "differing": 0}
    for size in (1, 2, 3, 127, 1000, 4099, 1_000_003):
        for offset in (0, 1, 2**32 - 5, 2**33 + 3, 2**64 - size):
            for skew in (0, 1):
                with report.attempt(f"noise.gumbel of {size} from {offset}"):
                    expected = noise.gumbel(size, SEED, offset=offset, dtype=dtype)
                    out = arrays.empty((size,), dtype, skew)
                    arrays.poison(out)
                    options = {"offset": offset, "dtype": dtype, "out": out, "backend": arrays.backend}
                    (operator or noise).gumbel((size,), SEED, **options)
                    total["calls"] += 1
                    count(total, compare(arrays.to_host(out), expected), f"{size} from {offset}, skew {skew}")
    report.line("check", what="noise.gumbel", dtype=dtype, choices="noise", **total)


def check_selection(report: Log, arrays: Arrays, dtype: str, operator: Any = None) -> None:
    """Vectors of small whole numbers, of which any order of a sum is exact, so that all may be compared bit for bit."""
    tested = operator or selection
    rng = np.random.default_rng(3)
    shapes = {
        "own vectors": ((37, 10, 16), (37, 10)),
        "a codebook": ((100, 32), (211, 100)),
        "a large codebook": ((1025, 5), (67, 1025)),
        "more axes": ((3, 1, 8, 4), (5, 8)),
    }
    options: dict[str, dict[str, Any]] = {
        "": {},
        "sampled": {"operator": gumbel_softmax, "seed": SEED},
        "kept in place": {"reduce": False},
    }
    for function in ("forward", "backward"):
        total: Counts = {"calls": 0, "elements": 0, "differing": 0}
        for shape_name, (x_shape, logits_shape) in shapes.items():
            made = batch(dtype, math.prod(logits_shape[:-1]), logits_shape[-1], 4)
            logits, where = made.logits.reshape(logits_shape), made.where.reshape(logits_shape)
            x = rng.integers(-4, 5, x_shape).astype(host_dtype(dtype))
            for option_name, extra in options.items():
                name = f"{shape_name} {option_name}".strip()
                with report.attempt(f"selection.{function}, {name}, {dtype}"):
                    chosen = selection.forward(x, logits, where=where, **extra)
                    leading: tuple[Any, ...] = ()
                    if function == "backward":
                        leading = (rng.integers(-4, 5, chosen.shape).astype(host_dtype(dtype)),)
                    expected = getattr(selection, function)(*leading, x, logits, 0.6, where=where, **extra)
                    there = [arrays.from_host(array) for array in (*leading, x, logits)]
                    given = {"where": arrays.from_host(where), "backend": arrays.backend, **extra}
                    returned = getattr(tested, function)(*there, 0.6, **given)
                    total["calls"] += 1
                    for one, other in zip(results(returned), results(expected), strict=True):
                        count(total, compare(arrays.to_host(one), np.asarray(other)), name)
        report.line("check", what=f"selection.{function}", dtype=dtype, choices="selection", **total)
