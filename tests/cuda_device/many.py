"""A hundred million elements of float32 against the CPU tier, every one of them, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np

from cuda_device import Counts, Log
from cuda_device.comparison import compare, count
from npselect import noise
from npselect.bench.devices import Arrays, function
from npselect.bench.devices.functions import SEED, Operators, results

__all__ = ["ELEMENTS", "UNITS", "check_many"]

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


def check_many(
    report: Log, arrays: Arrays, name: str, choices: int, elements: int, operators: Operators | None = None
) -> None:
    """One function; `operators` are called instead of npselect's where the device is meant."""
    rows, step = -(-elements // choices), max(1, BLOCK // choices)
    total: Counts = {"calls": 1, "elements": 0, "differing": 0}
    each = None if name == "noise.gumbel" else function(name)
    rng = np.random.default_rng(7)
    given = [
        rng.standard_normal((rows, choices), np.float32) for _ in range(0 if each is None else 1 + each.cotangents)
    ]
    if given:
        given[-1] *= np.float32(3)
    outs = [arrays.empty((rows, choices), "float32") for _ in range(1 if each is None else len(each.record.results))]
    for out in outs:
        arrays.poison(out)
    if each is None:
        noise.gumbel((rows, choices), SEED, out=outs[0], backend=arrays.backend)
    else:
        *cotangents, logits = [arrays.from_host(array) for array in given]
        out = tuple(outs) if len(outs) > 1 else outs[0]
        each(cotangents, logits, 0.6, out=out, backend=arrays.backend, operators=operators)
    for first in range(0, rows, step):
        part = slice(first, min(first + step, rows))
        if each is None:
            expected = [noise.gumbel((part.stop - first, choices), SEED, offset=first * choices)]
        else:
            offset: dict[str, Any] = {"offset": first * choices} if each.noise else {}
            *cotangents, logits = [array[part] for array in given]
            expected = [*results(each(cotangents, logits, 0.6, **offset))]
        for out, other in zip(outs, expected, strict=True):
            count(total, compare(arrays.to_host(out[part]), other), "", first)
    report.line("check", what=name, dtype="float32", choices=choices, **total)
