"""The least bytes that a function must move, over its time, as a fraction of the copy that takes turns with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from gpu_sections.device_arrays import find
from gpu_sections.functions import Function, function
from gpu_sections.machine import clocks
from gpu_sections.report import Report
from gpu_sections.timing import Pool, interleaved, spread

__all__ = ["CHOICES", "call_of", "run", "timed"]

CHOICES = (1024, 10, 4097, 50257, 256, 16384, 1000, 8, 16, 32, 64, 128, 1025, 4096, 32768, 131072)
OTHERS = (1024, 10, 32768, 1025)  # of the other dtypes
BYTES = 1 << 29  # of an array: reading it alone is 0.5 GB of traffic
FIRST = ("straight_through.backward", "straight_through.forward", "gumbel_softmax.forward seed")
THEN = (
    "gumbel_softmax.backward seed",
    "straight_through.index",
    "straight_through.soft",
    "straight_through.double_backward",
    "straight_through.backward_temp",
)
TEMP = 0.6


def run(report: Report, part: str) -> None:
    arrays = find(report)
    units = [("float32", choices) for choices in CHOICES]
    for dtype in ("bfloat16", "float16", "float64"):
        units += [(dtype, choices) for choices in OTHERS]
    if report.quick:
        units = [("float32", 1024), ("float32", 10), ("bfloat16", 1024)]
    size = BYTES >> 3 if report.quick else BYTES
    busy = Pool(arrays, "float32", 1 << 27)
    pool = Pool(arrays, "float32", size)
    labels = {f"{dtype} {choices}": (dtype, choices) for dtype, choices in units}
    for unit in report.units(["noise", *labels]):
        if unit == "noise":
            _noise(report, arrays, pool, busy)
            continue
        dtype, choices = labels[unit]
        if pool.dtype != dtype:
            pool.flat.clear()
            pool = Pool(arrays, dtype, size)
        for names in (FIRST, THEN):
            calls: dict[str, Callable[[int], Any]] = {}
            for name in names:
                report.beat()
                with report.attempt(f"{name}, {unit}"):
                    calls[name] = call_of(function(name), pool, choices)
                    calls[name](0)
                    arrays.synchronize()
                    continue
                calls.pop(name, None)
            with report.attempt(f"timing {unit}"):
                for name, fields in timed(report, arrays, calls, pool, choices, busy):
                    report.line("timing", what=name, dtype=dtype, choices=choices, **fields)
        with report.attempt("clocks"):
            now = clocks()
            report.line("clocks", after=unit, sm=now["clocks.sm"], memory=now["clocks.mem"], power=now["power.draw"])


def call_of(each: Function, pool: Pool, choices: int) -> Callable[[int], Any]:
    """The function with preallocated arrays, those of its turn."""
    rows = pool.size // choices
    roles = ("v", "g")[2 - each.cotangents :]
    index_out = pool.arrays.empty((rows,), "int64") if each.name == "index" else None
    temp_out = pool.arrays.empty((), pool.dtype) if each.name == "backward_temp" else None

    def call(i: int) -> Any:
        cotangents = [pool.get(role, i, rows, choices) for role in roles]
        out = index_out if index_out is not None else temp_out
        if out is None:
            out = pool.get("out", i, rows, choices)
        if each.name == "double_backward":
            out = out, pool.get("out2", i, rows, choices)
        return each(cotangents, pool.get("logits", i, rows, choices), TEMP, out=out)

    return call


def timed(
    report: Report, arrays: Any, calls: dict[str, Callable[[int], Any]], pool: Pool, choices: int, busy: Pool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and what is reported of them."""
    repeats = 8 if report.quick else 20
    samples = interleaved(arrays, {"copy": pool.copy, **calls}, repeats, busy.copy)
    copy = spread(samples["copy"])
    rows = pool.size // choices
    for name in calls:
        found = spread(samples[name])
        least = function(name).least_bytes(rows, choices, pool.itemsize)
        yield name, _fields(least, found, copy, pool.copied, rows, samples[name])


def _fields(
    least: int, found: dict[str, float], copy: dict[str, float], copied: int, rows: int, samples: list[float]
) -> dict[str, Any]:
    gb_per_s, copy_gb_per_s = least / found["median_us"] / 1e3, copied / copy["median_us"] / 1e3
    return {
        "rows": rows,
        "bytes": least,
        **found,
        "gb_per_s": gb_per_s,
        "copy_gb_per_s": copy_gb_per_s,
        "of_copy": gb_per_s / copy_gb_per_s,
        "samples": samples,
    }


def _noise(report: Report, arrays: Any, pool: Pool, busy: Pool) -> None:
    """Noise alone, which only writes."""
    from npselect import noise

    def call(i: int) -> Any:
        return noise.gumbel((pool.size,), 1, out=pool.get("out", i, 1, pool.size).reshape(-1), backend=arrays.backend)

    with report.attempt("noise.gumbel"):
        samples = interleaved(arrays, {"copy": pool.copy, "noise": call}, 8 if report.quick else 20, busy.copy)
        found, copy = spread(samples["noise"]), spread(samples["copy"])
        fields = _fields(pool.size * pool.itemsize, found, copy, pool.copied, 1, samples["noise"])
        report.line("timing", what="noise.gumbel", dtype="float32", choices=0, **fields)
