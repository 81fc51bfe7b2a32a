"""The same work in torch, Triton and CuPy, and in torch.compile (the section `compiled`), taking turns with npselect.

Before anything is timed, rows of every output are held against the bound of an honest implementation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpu_sections.device_arrays import find
from gpu_sections.functions import function
from gpu_sections.report import Report
from gpu_sections.speed import BYTES, TEMP
from gpu_sections.timing import Pool, interleaved, spread

__all__ = ["compare_peers", "is_honest", "run"]

CHOICES = (1024, 10, 4097, 16384, 131072, 256, 32, 1000, 4096, 50257, 8, 64, 128, 1025, 32768)
FUNCTIONS = ("straight_through.backward", "straight_through.forward")
Peers = dict[str, dict[str, Callable[..., Any]]]


def run(report: Report, part: str) -> None:
    arrays = find(report)
    found: list[Peers] = []
    with report.attempt("Triton"):
        from gpu_sections import triton_peers

        found.append(triton_peers.peers())
    with report.attempt("torch"):
        from gpu_sections import torch_peers

        found.append(torch_peers.eager() if arrays.name == "torch" else {})
    with report.attempt("CuPy"):
        from gpu_sections import cupy_peers

        found.append(cupy_peers.peers())
    units = [("float32", choices) for choices in CHOICES] + [("bfloat16", choices) for choices in (1024, 32768, 10)]
    if report.quick:
        units = [("float32", 1024), ("float32", 10)]
    compare_peers(report, arrays, lambda: found, units)


def compare_peers(
    report: Report, arrays: Any, peers: Callable[[], list[Peers]], units: list[tuple[str, int]], each: float = 3.0
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
        asked = peers()
        for name in FUNCTIONS:
            calls = {"npselect": _npselect(name)}
            for group in asked:
                calls.update(group.get(name, {}))
            if dtype != "float32":
                calls.pop("CuPy", None)
            with report.attempt(f"{name}, {unit}"):
                _compare(report, arrays, name, calls, pool, choices, busy)


def _npselect(name: str) -> Callable[..., Any]:
    each = function(name)
    return lambda g, logits, out, temp: each([g], logits, temp, out=out)


def _compare(
    report: Report,
    arrays: Any,
    name: str,
    calls: dict[str, Callable[..., Any]],
    pool: Pool,
    choices: int,
    busy: Pool,
) -> None:
    rows = pool.size // choices
    honest: dict[str, bool] = {}

    def of(peer: str) -> Callable[[int], Any]:
        def call(i: int) -> Any:
            given = [pool.get(role, i, rows, choices) for role in ("g", "logits", "out")]
            returned = calls[peer](*given, TEMP)
            return given[2] if returned is None else returned

        return call

    timed = {}
    for peer in calls:
        report.beat()
        with report.attempt(f"{peer}, {name}, {pool.dtype}, K {choices}"):
            out = pool.get("out", 0, rows, choices)
            arrays.poison(out)
            if peer.endswith("kept"):
                arrays.copy(out, arrays.torch.softmax(pool.get("logits", 0, rows, choices) / TEMP, -1))
            result = of(peer)(0)
            arrays.synchronize()
            honest[peer], worst = _check(arrays, name, result, pool, rows, choices)
            timed[peer] = of(peer)
            if not honest[peer]:
                report.note(f"{peer}, {name}, {pool.dtype}, K {choices}: {worst:.3g} times its bound off")
    samples = interleaved(arrays, {"copy": pool.copy, **timed}, 8 if report.quick else 15, busy.copy)
    ours = spread(samples["npselect"])["median_us"] if "npselect" in samples else None
    copy = spread(samples["copy"])["median_us"]
    least = function(name).least_bytes(rows, choices, pool.itemsize)
    for peer in timed:
        times = spread(samples[peer])
        report.line(
            "timing",
            what=name,
            peer=peer,
            dtype=pool.dtype,
            choices=choices,
            rows=rows,
            bytes=least,
            **times,
            of_copy=least / times["median_us"] / (pool.copied / copy),
            to_npselect=None if ours is None else times["median_us"] / ours,
            within_bound=honest[peer],
            samples=samples[peer],
        )


def _check(arrays: Any, name: str, result: Any, pool: Pool, rows: int, choices: int) -> tuple[bool, float]:
    """Some rows at both ends."""
    some = max(1, min(rows // 2, 60_000 // choices))
    worst = 0.0
    for part in (slice(0, some), slice(rows - some, rows)):
        g, logits = (arrays.to_host(pool.get(role, 0, rows, choices)[part]) for role in ("g", "logits"))
        worst = max(worst, is_honest(name, arrays.to_host(result[part]), g, logits, TEMP))
    return worst <= 1, worst


def is_honest(name: str, result: Any, g: Any, logits: Any, temp: float) -> float:
    """The largest error over the bound of an honest implementation in that dtype; infinite for what is just wrong.

    A mask must have its 1 at a largest logit, whichever of equals that is.
    """
    from npselect import straight_through
    from npselect.testing import tolerance

    if name.endswith("forward"):
        ones = result == 1
        fine = np.all(ones.sum(-1) == 1) and np.all((result == 0) | ones)
        return 0.0 if fine and np.array_equal(logits[ones], logits.max(-1)) else np.inf
    exact = straight_through.backward(g, logits, temp, backend="reference").astype(np.float64)
    bound = tolerance.backward(g, logits, np.float32(temp), logits.dtype)
    with np.errstate(all="ignore"):
        error = np.abs(result.astype(np.float64) - exact)
        ratio = np.where(error == 0, 0.0, error / bound)
    return float(np.max(np.where(np.isnan(ratio), np.inf, ratio)))
