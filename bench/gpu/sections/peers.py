"""The same work in torch, Triton and CuPy, and in torch.compile, taking turns with npselect.

Before anything is timed, rows at both ends of every output are judged as those of the CPU's peers are.
"""

from __future__ import annotations

from collections.abc import Callable

from gpu.device import find
from gpu.report import Report
from gpu.sections.speed import BYTES, TEMP
from npselect.bench import LeftOutError, ratio
from npselect.bench.devices import Arrays, Pool, Sample, by_cupy, by_torch, function, interleaved, measured
from npselect.bench.devices.peers import NPSELECT, DevicePeers, RowCall
from npselect.bench.devices.timing import Call
from npselect.bench.peer import needed

__all__ = ["compare_peers", "compiled", "run"]

CHOICES = (1024, 10, 4097, 16384, 131072, 256, 32, 1000, 4096, 50257, 8, 64, 128, 1025, 32768)
COMPILED = (1024, 10, 4097, 16384, 131072, 256, 50257, 4096, 32, 1000)
CALLS = ("backward", "forward")


def run(report: Report, part: str) -> None:
    arrays = find(report)
    load: dict[str, Callable[[], DevicePeers]] = {
        "Triton": lambda: needed("npselect.bench.devices.by_triton").peers(),
        "torch": lambda: by_torch.eager() if arrays.name == "torch" else {},
        "CuPy": by_cupy.peers,
    }
    found = []
    for name, peers in load.items():
        with report.attempt(name):
            try:
                found.append(peers())
            except LeftOutError as error:
                report.note(f"{name}: {error}")
    units = [("float32", choices) for choices in CHOICES] + [("bfloat16", choices) for choices in (1024, 32768, 10)]
    if report.quick:
        units = [("float32", 1024), ("float32", 10)]
    compare_peers(report, arrays, lambda: found, units)


def compiled(report: Report, part: str) -> None:
    """torch.compile: last, as it compiles for seconds for every shape."""
    arrays = find(report)
    if arrays.name != "torch":
        report.note("torch does not reach the device, and so there is no torch.compile")
        return
    units = [("float32", choices) for choices in (COMPILED[:2] if report.quick else COMPILED)]
    compare_peers(report, arrays, lambda: [by_torch.compiled()], [*units, ("bfloat16", 1024)], each=10)


def compare_peers(
    report: Report,
    arrays: Arrays,
    peers: Callable[[], list[DevicePeers]],
    units: list[tuple[str, int]],
    each: float = 3,
) -> None:
    """Units of dtype and K; `peers` is asked anew for each."""
    size = BYTES >> 3 if report.quick else BYTES
    busy, pool = Pool(arrays, "float32", 1 << 27), Pool(arrays, "float32", size)
    labels = {f"{dtype} {choices}": (dtype, choices) for dtype, choices in units}
    for unit in report.units(labels, each=each):
        dtype, choices = labels[unit]
        if pool.dtype != dtype:
            pool.flat.clear()
            pool = Pool(arrays, dtype, size)
        sample = Sample.of(pool, pool.size // choices, choices, TEMP)
        asked = [NPSELECT, *peers()]
        for call in CALLS:
            functions = {name: function for group in asked for name, function in group.get(call, {}).items()}
            if dtype != "float32":
                functions.pop("CuPy", None)
            with report.attempt(f"straight_through.{call}, {unit}"):
                _compare(report, call, functions, sample, busy)


def _compare(report: Report, call: str, functions: dict[str, RowCall], sample: Sample, busy: Pool) -> None:
    """Judge the peers on one call, time them in turns, those that are wrong too, and write a line for each."""
    pool, rows, choices = sample.pool, sample.whole, sample.choices
    name = f"straight_through.{call}"
    right: dict[str, bool] = {}
    timed: dict[str, Call] = {}
    for peer, function_of_arrays in functions.items():

        def run_it(i: int, function_of_arrays: RowCall = function_of_arrays) -> object:
            g, logits, out = (pool.get(role, i, rows, choices) for role in ("g", "logits", "out"))
            returned = function_of_arrays(g, logits, out, sample.temp)
            return out if returned is None else returned

        report.beat()
        with report.attempt(f"{peer}, {name}, {pool.dtype}, K {choices}"):
            out = pool.get("out", 0, rows, choices)
            pool.arrays.poison(out)
            if peer == by_torch.KEPT:
                pool.arrays.copy(out, by_torch.probabilities(pool.get("logits", 0, rows, choices), sample.temp))
            result = run_it(0)
            pool.arrays.synchronize()
            wrong = sample.fault(call, result)
            right[peer], timed[peer] = wrong is None, run_it
            if wrong is not None:
                report.note(f"{peer}, {name}, {pool.dtype}, K {choices}: {wrong}")
    times = interleaved(pool.arrays, {"copy": pool.copy, **timed}, 8 if report.quick else 15, busy.copy)
    ours = times.get("npselect")
    moved = function(name).least_bytes(rows, choices, pool.itemsize)
    for peer in timed:
        fields = measured(times[peer], moved, times["copy"], pool.copied)
        fields["to_npselect"] = None if ours is None else ratio(times[peer], ours)
        about = {"what": name, "peer": peer, "dtype": pool.dtype, "choices": choices, "rows": rows}
        report.line("timing", **about, **fields, within_bound=right[peer])
