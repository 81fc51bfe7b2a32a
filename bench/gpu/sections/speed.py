"""The least bytes that a function must move, over its time, as a fraction of the copy that takes turns with it."""

from __future__ import annotations

from typing import Any

from gpu.device import find
from gpu.report import Report
from gpu.sections.machine import clocks
from npselect import noise
from npselect._operators import Result
from npselect.bench.devices import Arrays, Function, Pool, function, interleaved, measured
from npselect.bench.devices.timing import Call

__all__ = ["BYTES", "CHOICES", "TEMP", "call_of", "run"]

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
            with report.attempt("noise.gumbel"):
                _noise(report, arrays, pool, busy)
            continue
        dtype, choices = labels[unit]
        if pool.dtype != dtype:
            pool.flat.clear()
            pool = Pool(arrays, dtype, size)
        for names in (FIRST, THEN):
            calls = _calls_that_run(report, names, pool, choices, unit)
            with report.attempt(f"timing {unit}"):
                moved = {
                    name: function(name).least_bytes(pool.size // choices, choices, pool.itemsize) for name in calls
                }
                _time(report, calls, moved, pool, choices, busy)
        with report.attempt("clocks"):
            now = clocks()
            report.line("clocks", after=unit, sm=now["clocks.sm"], memory=now["clocks.mem"], power=now["power.draw"])


def call_of(each: Function, pool: Pool, choices: int) -> Call:
    """The function with preallocated arrays, those of its turn."""
    rows = pool.size // choices
    roles = ("v", "g")[2 - each.cotangents :]
    small: dict[Result, Any] = {}
    for result, (shape, dtype) in zip(each.record.results, each.outs((rows, choices), -1, (), pool.dtype), strict=True):
        if result is not Result.LIKE_LOGITS:
            small[result] = pool.arrays.empty(shape, dtype)

    def call(i: int) -> Any:
        cotangents = [pool.get(role, i, rows, choices) for role in roles]
        outs = [
            small[result] if result in small else pool.get(role, i, rows, choices)
            for result, role in zip(each.record.results, ("out", "out2"), strict=False)
        ]
        out = tuple(outs) if len(outs) > 1 else outs[0]
        return each(cotangents, pool.get("logits", i, rows, choices), TEMP, out=out)

    return call


def _calls_that_run(report: Report, names: tuple[str, ...], pool: Pool, choices: int, unit: str) -> dict[str, Call]:
    """The functions, each called once; what raises is reported, and left out."""
    calls: dict[str, Call] = {}
    for name in names:
        report.beat()
        with report.attempt(f"{name}, {unit}"):
            call = call_of(function(name), pool, choices)
            call(0)
            pool.arrays.synchronize()
            calls[name] = call
    return calls


def _time(report: Report, calls: dict[str, Call], moved: dict[str, int], pool: Pool, choices: int, busy: Pool) -> None:
    """A line for each call, timed in turns with the copy."""
    times = interleaved(pool.arrays, {"copy": pool.copy, **calls}, 8 if report.quick else 20, busy.copy)
    for name in calls:
        fields = measured(times[name], moved[name], times["copy"], pool.copied)
        rows = pool.size // choices if choices else 1
        report.line("timing", what=name, dtype=pool.dtype, choices=choices, rows=rows, **fields)


def _noise(report: Report, arrays: Arrays, pool: Pool, busy: Pool) -> None:
    """Noise alone, which only writes."""

    def call(i: int) -> Any:
        return noise.gumbel((pool.size,), 1, out=pool.get("out", i, 1, pool.size).reshape(-1), backend=arrays.backend)

    _time(report, {"noise.gumbel": call}, {"noise.gumbel": pool.size * pool.itemsize}, pool, 0, busy)
