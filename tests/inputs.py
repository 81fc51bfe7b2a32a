"""Inputs that several tests share: random batches, and those meant to bring out an error. No expected values."""

from __future__ import annotations

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

DTYPES = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}


class Batch(NamedTuple):
    """Arguments of the operator's functions: temp has shape (rows, 1) and the type it is used in."""

    logits: Array
    temp: Array
    where: Array | None
    g: Array
    v: Array

    def rows(self, rows: Any) -> Batch:
        return Batch(*(None if part is None else part[rows] for part in self))


def compute_type(dtype: str) -> type[np.floating[Any]]:
    return np.float64 if dtype == "float64" else np.float32


def limits(dtype: str) -> tuple[float, float, float, int]:
    """Largest, smallest normal and smallest subnormal number, and the precision in bits."""
    info = ml_dtypes.finfo(DTYPES[dtype])
    return float(info.max), float(info.smallest_normal), float(info.smallest_subnormal), int(info.nmant) + 1


def batch(dtype: str, logits: Any, temp: Any, where: Array | None, g: Any, v: Any) -> Batch:
    """Rounded to the dtype; what is too large becomes the largest number."""
    largest = limits(dtype)[0]
    with np.errstate(all="ignore"):
        logits, g, v = (
            np.where(np.isfinite(x), np.clip(x, -largest, largest), x).astype(DTYPES[dtype])
            for x in np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (logits, g, v)))
        )
        temp = np.broadcast_to(np.asarray(temp, np.float64), (len(logits), 1)).astype(compute_type(dtype))
    return Batch(logits, temp, where, g, v)


def random(dtype: str, rows: int, choices: int, seed: int) -> Batch:
    """Logits of any spread, temperatures about 1, a third of the rows with excluded entries."""
    rng = np.random.default_rng(seed)
    shape = rows, choices
    where = (rng.random(shape) < 0.8) | (np.arange(rows) % 3 > 0)[:, None]
    logits = rng.normal(size=shape) * np.exp(rng.uniform(-3, 2.5, (rows, 1)))
    g, v = rng.normal(size=shape) * np.exp(rng.uniform(-3, 3, (rows, 1))), rng.normal(size=shape)
    return batch(dtype, logits, np.exp(rng.uniform(-2, 2, (rows, 1))), where, g, v)


def adversarial(dtype: str, rows: int, choices: int, seed: int, *, wild: bool = True) -> dict[str, Batch]:
    """Families of batches by name. With `wild`, also results and cotangents at the ends of the range."""
    rng = np.random.default_rng(seed)
    largest, normal, least, precision = limits(dtype)
    info = np.finfo(compute_type(dtype))
    shape, column = (rows, choices), (rows, 1)
    families = {}

    def spread(low: float, high: float, size: tuple[int, ...] = shape) -> Array:
        return np.exp(rng.uniform(np.log(low), np.log(high), size))

    def some(size: tuple[int, ...] = shape) -> Array:
        return rng.normal(size=size)

    def add(name: str, logits: Any, temp: Any = 0.6, g: Any = None, v: Any = None, where: Any = None) -> None:
        g, v = some() if g is None else g, some() if v is None else v
        families[name] = batch(dtype, np.broadcast_to(logits, shape), temp, where, g, v)

    unit = 2.0**-precision
    add("saturated", -0.25 * spread(20, 1e5), 0.25)
    add("saturated in part", np.where(rng.random(shape) < 0.5, -0.1 * spread(20, 1e5), some()), 0.1)
    steps = 1 + 2 * unit * rng.integers(-3, 4, shape)
    add("nearly constant cotangents", some(), 0.6, 7.0 * steps, -0.3 * steps[::-1])
    add("constant cotangents", some(), 0.6, some(column), some(column))
    steps = 1 + 2 * unit * rng.integers(-3, 1, shape)
    add("near ties", spread(1e-2, 1e4, column) * steps, spread(1e-4, 1, column))
    add("ties", rng.integers(-2, 3, shape) * 0.5, spread(0.1, 10, column))
    for power in (30, -30):
        temp = 10.0**power
        add(f"temp 1e{power}", some() * temp, temp)
        add(f"temp 1e{power}, logits about 1", np.round(some(), 1), temp, some() * min(1.0, largest * temp * 0.1))
    temp = spread(1e-30, 1e30, column)
    add(
        "temps from 1e-30 to 1e30",
        some() * temp,
        temp,
        some() * np.minimum(1.0, largest * 0.01 * np.minimum(temp, 1.0)),
    )
    some_excluded = rng.random(shape) < 0.6
    add("where", some(), where=some_excluded)
    some_excluded = some_excluded.copy()
    some_excluded[:, 0] = True
    add("-inf", np.where(some_excluded, some(), -np.inf))
    garbage = np.where(some_excluded, some(), rng.choice([np.nan, np.inf, -np.inf, 1e4], shape))
    add("where over garbage", garbage, 0.6, garbage, garbage, some_excluded)
    families["cancelling"] = cancelling(dtype, rows, choices, seed)
    depth = -np.log(least) * rng.uniform(0.8, 1.02, shape)
    add("subnormal probabilities", -depth * (np.arange(choices) > 0), 1.0)
    if not wild:
        return families
    add("subnormal gradients", some(), 0.6, some() * least * spread(1, 1e4, column), some() * normal)
    add("halfway", 0.0, 0.5, least * rng.integers(-9, 10, shape), 0.5)
    top = largest * rng.uniform(0.3, 1, shape) * rng.choice([-1, 1], shape)
    add("overflow", np.round(some()), 0.1, top)
    add("near overflow", 0.0, 0.25 * (1 + unit * rng.integers(-6, 7, column)), np.sign(top) * largest / 2)
    for name, temp in (("smallest", info.smallest_subnormal), ("smallest normal", info.tiny), ("largest", info.max)):
        add(f"{name} temp", rng.uniform(-1, 1, shape) * float(temp), temp)
        add(f"{name} temp, logits about 1", np.round(some()), temp, some() * normal * 8)
    add("subnormal temps", some() * normal, float(info.tiny) * rng.uniform(0.001, 1, column), some() * normal)
    return families


def at_the_limits(dtype: str, rows: int, choices: int, seed: int) -> Batch:
    """Any logits and temperatures; cotangents, and their products, as large as the kernels promise to be finite for."""
    rng = np.random.default_rng(seed)
    largest = limits(dtype)[0]
    info = np.finfo(compute_type(dtype))
    limit = float(info.max) / (4 * choices)
    shape, column = (rows, choices), (rows, 1)

    def either(a: Any, b: Any, size: tuple[int, ...] = column) -> Array:
        return np.where(rng.random(size) < 0.5, a, b)

    def signs() -> Array:
        return either(-1.0, 1.0, shape) * either(1.0, rng.random(shape), shape)

    ends = [float(x) for x in (info.smallest_subnormal, info.tiny, 1, info.max)]
    temp = either(np.exp(rng.uniform(np.log(ends[0]), np.log(ends[-1]), column)), rng.choice(ends, column))
    logits = either(largest * signs(), rng.choice([largest, -largest, 0.0, 1.0], shape))
    logits = either(logits, np.minimum(temp, largest / 8) * rng.normal(size=shape))
    size = np.minimum(either(limit ** rng.random(column), rng.choice([1.0, limit], column)), largest)
    return batch(dtype, logits, temp, None, size * signs(), np.minimum(limit / size, largest) * signs())


def cancelling(dtype: str, rows: int, choices: int, seed: int, tries: int = 40) -> Batch:
    """One cotangent of each row is the rounded mean of the row: what is left of it is its rounding error.

    Of `tries` times as many rows those are kept in which least is left, as far as float64 shows it.
    """
    rng = np.random.default_rng(seed)
    w, g, v = rng.normal(size=(3, rows * tries, choices))
    made = batch(dtype, w, 0.6, None, g, v)
    if choices == 1:
        return made.rows(slice(rows))
    t = (made.logits.astype(np.longdouble) - made.logits.astype(np.longdouble).max(axis=1, keepdims=True)) / made.temp
    p = np.exp(t)
    p /= p.sum(axis=1, keepdims=True)
    i = choices // 2
    g = made.g.astype(np.longdouble)
    mean = (np.delete(p, i, 1) * np.delete(g, i, 1)).sum(axis=1) / (1 - p[:, i])
    made.g[:, i] = mean.astype(np.float64).astype(made.g.dtype)
    left = np.abs(made.g[:, i].astype(np.longdouble) - mean) / np.abs(mean)
    return made.rows(np.argsort(left)[:rows])
