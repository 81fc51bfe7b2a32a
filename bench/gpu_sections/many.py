"""A hundred million elements of float32 against the CPU tier, every one of them, bit for bit."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from gpu_sections.comparison import compare, count
from gpu_sections.device_arrays import find
from gpu_sections.functions import SEED, function
from gpu_sections.report import Report

__all__ = ["check_many", "run"]

ELEMENTS = 10**8
BLOCK = 10**7  # elements that are computed and compared on the host at a time
UNITS = (
    ("straight_through.backward", 1000),
    ("straight_through.forward", 1000),
    ("gumbel_softmax.forward seed", 1000),
    ("noise.gumbel", 1000),
    ("gumbel_softmax.backward seed", 10),
    ("straight_through.backward", 10),
    ("straight_through.backward", 50_000),
    ("straight_through.double_backward", 1000),
    ("straight_through.soft", 4000),
    ("straight_through.backward", 33),
)


def run(report: Report, part: str) -> None:
    arrays = find(report)
    elements = ELEMENTS // 50 if report.quick else ELEMENTS
    labels = {f"{name}, K {choices}": (name, choices) for name, choices in UNITS}
    for unit in report.units(labels, each=6):
        with report.attempt(unit):
            begun = time.monotonic()
            check_many(report, arrays, *labels[unit], elements)
            report.fact(f"{unit}, seconds", round(time.monotonic() - begun, 1))


def check_many(report: Report, arrays: Any, name: str, choices: int, elements: int, operators: Any = None) -> None:
    """One function; `operators` are called instead of npselect's where the device is meant."""
    from npselect import noise

    rows, step = -(-elements // choices), max(1, BLOCK // choices)
    total: dict[str, Any] = {"calls": 1, "elements": 0, "differing": 0}
    each = None if name == "noise.gumbel" else function(name)
    rng = np.random.default_rng(7)
    held = [rng.standard_normal((rows, choices), np.float32) for _ in range(0 if each is None else 1 + each.cotangents)]
    if held:
        held[-1] *= np.float32(3)
    outs = [
        arrays.empty((rows, choices), "float32") for _ in range(2 if each and each.name == "double_backward" else 1)
    ]
    for out in outs:
        arrays.poison(out)
    if each is None:
        noise.gumbel((rows, choices), SEED, out=outs[0], backend=arrays.backend)
    else:
        *cotangents, logits = [arrays.from_host(array) for array in held]
        out = tuple(outs) if len(outs) > 1 else outs[0]
        each(cotangents, logits, 0.6, out=out, backend=arrays.backend, operators=operators)
    for first in range(0, rows, step):
        part = slice(first, min(first + step, rows))
        if each is None:
            expected = [noise.gumbel((part.stop - first, choices), SEED, offset=first * choices)]
        else:
            offset = {"offset": first * choices} if each.noise else {}
            *cotangents, logits = [array[part] for array in held]
            returned = each(cotangents, logits, 0.6, **offset)
            expected = list(returned) if isinstance(returned, tuple) else [returned]
        for out, other in zip(outs, expected, strict=True):
            found = compare(arrays.to_host(out[part]), other)
            for shown in found.get("first", ()):
                shown["at"] = (shown["at"][0] + first, *shown["at"][1:])
            count(total, found, "")
    report.line("check", what=name, dtype="float32", choices=choices, **total)
