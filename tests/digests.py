"""The bits of every function on the CPU tier, as a digest: of batches with all that a row may hold."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import inputs
import numpy as np
from inputs import Batch

from npselect import gumbel_softmax, noise, straight_through

THREADS = "NPSELECT_NUM_THREADS"
FOLDER = str(Path(__file__).parent)  # where a process finds this file


def all_functions(batch: Batch, **options: Any) -> list[Any]:
    """Every function of the operator on the CPU tier, one temperature a row."""
    logits, temp, where, g, v = batch
    options = {"where": where, "backend": "cpu", **options}
    return [
        straight_through.forward(logits, temp, **options),
        straight_through.index(logits, **options),
        straight_through.soft(logits, temp, **options),
        straight_through.backward(g, logits, temp, **options),
        straight_through.jvp(v, logits, temp, **options),
        straight_through.backward_temp(g, logits, temp, **options),
        *straight_through.double_backward(v, g, logits, temp, **options),
    ]


def digest(results: list[Any]) -> str:
    found = hashlib.sha256()
    for result in results:
        found.update(f"{result.dtype} {result.shape}".encode() + np.ascontiguousarray(result).tobytes())
    return found.hexdigest()


def fixed(dtype: str, rows: int, choices: int) -> Batch:
    """A batch with all that a row may hold: NaN and infinities, no candidates, spreads of any size."""
    made = inputs.random(dtype, rows, choices, choices)
    rng = np.random.default_rng(rows)
    for value in (np.nan, np.inf, -np.inf):
        made.logits[rng.random(rows) < 0.02, rng.integers(choices)] = value
        made.g[rng.random(rows) < 0.02, rng.integers(choices)] = value
    made.where[rng.random(rows) < 0.01] = False  # type: ignore[index]
    return made


def same(results: list[Any], expected: list[Any]) -> bool:
    return digest(results) == digest(expected)


SMALL = [(50, 1), (300, 5), (60, 129), (5, 1100)]


def small_digest(dtype: str) -> str:
    """Of all functions; of Gumbel-softmax's backward, in order and out of order; of noise."""
    batches = [fixed(dtype, *shape) for shape in SMALL]
    results = [result for batch in batches for result in all_functions(batch)]
    for b in batches:
        results.append(gumbel_softmax.backward(b.g, b.logits, b.temp, where=b.where, seed=5))
        results.append(gumbel_softmax.soft(b.logits.T, b.temp.T, axis=0, seed=6, offset=3))
    results.append(noise.gumbel(50_000, 7, dtype=inputs.compute_type(dtype)))
    return digest(results)
