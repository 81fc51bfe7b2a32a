"""What the functions are given: in every batch, rows of each kind that has gone wrong somewhere."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from npselect.bench.devices.arrays import host_dtype
from npselect.testing.aliases import Array

__all__ = ["KINDS", "Batch", "batch", "finite_batch", "rows_of"]

LARGE = {"float16": 6e4, "bfloat16": 1e30, "float32": 1e30, "float64": 1e300}
LEAST = {"float16": 2.0**-24, "bfloat16": 2.0**-133, "float32": 2.0**-149, "float64": 2.0**-1074}
KINDS = (
    "any spread",
    "ties",
    "all equal",
    "one leads by far",
    "some -inf",
    "all -inf",
    "a NaN",
    "a +inf",
    "as large as may be",
    "zeros of both signs",
    "subnormal",
    "a NaN among the cotangents",
    "NaN where the logit is -inf",
    "an infinity among the cotangents",
    "nearly constant cotangents",
    "the first and the last are equal",
    "+inf is last",
)

SPOILT = (
    "all -inf",
    "a NaN",
    "a +inf",
    "+inf is last",
    "a NaN among the cotangents",
    "an infinity among the cotangents",
)


class Batch(NamedTuple):
    """NumPy arrays of shape (rows, K); `temps` has shape (rows, 1) and, like `noise`, the type of the computation."""

    logits: Array
    grad_mask: Array
    grad_grad_logits: Array
    noise: Array
    temps: Array
    where: Array


def rows_of(choices: int) -> int:
    """How many rows: several blocks of short ones, each kind once of long ones, and never a multiple of anything."""
    if choices < 64:
        return 1031
    return 131 if choices <= 1025 else len(KINDS) + 2


def finite_batch(dtype: str, rows: int, choices: int, seed: int) -> Batch:
    """As `batch`, of the kinds whose results are numbers: a sum over rows is then no NaN."""
    kinds = [KINDS[i % len(KINDS)] for i in range(2 * rows + len(KINDS))]
    kept = [i for i, kind in enumerate(kinds) if kind not in SPOILT][:rows]
    return Batch(*(array[kept] for array in batch(dtype, len(kinds), choices, seed)))


def batch(dtype: str, rows: int, choices: int, seed: int) -> Batch:
    """Row after row of one kind after another."""
    rng = np.random.default_rng([seed, choices])
    shape = rows, choices
    kind = np.arange(rows) % len(KINDS)
    columns = rng.integers(0, choices, rows)
    logits = rng.standard_normal(shape) * np.exp(rng.uniform(-3, 2.5, (rows, 1)))
    g = rng.standard_normal(shape) * np.exp(rng.uniform(-3, 3, (rows, 1)))
    v = rng.standard_normal(shape)

    def of(name: str) -> Array:
        return np.flatnonzero(kind == KINDS.index(name))

    for row in of("ties"):
        logits[row] = rng.integers(-2, 3, choices) * 0.5
    logits[of("all equal")] = 1.25
    for row in of("one leads by far"):
        logits[row] = -np.exp(rng.uniform(3, 9, choices))
        logits[row, columns[row]] = 0.0
    for name in ("some -inf", "NaN where the logit is -inf"):
        for row in of(name):
            logits[row, rng.random(choices) < 0.5] = -np.inf
            logits[row, columns[row]] = 0.5
    for row in of("NaN where the logit is -inf"):
        g[row, logits[row] == -np.inf] = np.nan
        v[row, logits[row] == -np.inf] = np.inf
    logits[of("all -inf")] = -np.inf
    for name, value in (("a NaN", np.nan), ("a +inf", np.inf)):
        logits[of(name), columns[of(name)]] = value
    logits[of("as large as may be")] = rng.choice([-1.0, 1.0], (len(of("as large as may be")), choices)) * LARGE[dtype]
    for row in of("zeros of both signs"):
        logits[row] = rng.choice([-0.0, 0.0], choices)
    for row in of("subnormal"):
        logits[row] = rng.integers(-9, 10, choices) * LEAST[dtype]
    g[of("a NaN among the cotangents"), columns[of("a NaN among the cotangents")]] = np.nan
    g[of("an infinity among the cotangents"), columns[of("an infinity among the cotangents")]] = -np.inf
    for row in of("nearly constant cotangents"):
        g[row] = 7.0 + rng.integers(-1, 2, choices) / 128
    for row in of("the first and the last are equal"):
        logits[row, [0, -1]] = np.nanmax(logits[row]) + 1
    logits[of("+inf is last"), -1] = np.inf

    computed = np.float64 if dtype == "float64" else np.float32
    noise = -np.log(rng.standard_exponential(shape))
    if choices > 1:
        noise[of("some -inf")[::2], 0] = -np.inf
    temps = np.exp(rng.uniform(-3, 3, (rows, 1)))
    temps[of("all equal")] = 1e-30
    temps[of("ties")] = 1e30
    where = rng.random(shape) < 0.7
    where[rng.integers(0, rows, 1 + rows // 40)] = False
    with np.errstate(over="ignore", under="ignore"):
        logits, g, v = (array.astype(host_dtype(dtype)) for array in (logits, g, v))
    return Batch(logits, g, v, noise.astype(computed), temps.astype(computed), where)
