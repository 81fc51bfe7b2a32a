"""The rotation trick by reflections in many digits; vectors that are hard to rotate, and how far is too far."""

from __future__ import annotations

from typing import Any

import numpy as np
from inputs import DTYPES, limits
from mpmath import mp, mpf

BITS = 2600  # two float64 vectors can be as close to opposite as 2**-1100; squares of that cancel
KINDS = ("any", "near", "nearly opposite", "one place off opposite", "of any sizes", "largest", "least", "orthogonal")


def pairs(kind: str, rows: int, features: int, dtype: str, seed: int = 0) -> list[Any]:
    """Grad, e and q of one of the `KINDS`, in a dtype."""
    rng = np.random.default_rng(seed)
    largest, least, _, precision = limits(dtype)
    g, e, q = (rng.standard_normal((rows, features)) for _ in range(3))
    off = 1 + rng.standard_normal((rows, features)) * 2.0 ** -rng.integers(1, precision, (rows, 1))
    if kind == "near":
        q = e * off
    elif kind in ("nearly opposite", "largest", "least"):
        q = -e * off
    elif kind == "one place off opposite":
        e = e.astype(DTYPES[dtype]).astype(np.float64)
        q = -e
        q[:, 0] *= 1 + 2.0 ** (1 - precision)
    elif kind == "of any sizes":
        top = int(np.log2(largest)) // 4
        e, q = (x * 2.0 ** rng.integers(-top, top, x.shape) for x in (e, q))
    elif kind == "orthogonal":
        q = np.roll(e, 1, axis=-1) * np.where(np.arange(features) % 2, 1, -1)
    if kind in ("largest", "least"):
        scale = largest / 8 if kind == "largest" else 64 * least
        e, q = e * scale, q * scale
    return [x.astype(DTYPES[dtype]) for x in (g, e, q)]


def exact(x: Any) -> Any:
    return np.array([mpf(float(value)) for value in x], dtype=object)


def length(x: Any) -> Any:
    return mp.sqrt(mp.fsum(value * value for value in x))


def reflected(r: Any, x: Any) -> Any:
    """Along r: the component along r has the other sign. x is a vector, or a matrix of columns."""
    return x - 2 * np.multiply.outer(r, r @ x)


def mirrors(e: Any, q: Any) -> tuple[list[Any], Any]:
    """R as reflections, one after another, along e^ and along the bisector of e^ and q^; and lambda.

    The first leads from e^ to -e^, the second from there to q^. Opposite vectors have the first alone.
    """
    e, q = exact(e), exact(q)
    lengths = length(e), length(q)
    e, q = e / lengths[0], q / lengths[1]
    bisector = e + q
    if all(abs(value) < mpf(2) ** (60 - BITS) for value in bisector):
        return [e], lengths[1] / lengths[0]
    return [e, bisector / length(bisector)], lengths[1] / lengths[0]


def by_reflections(g: Any, e: Any, q: Any) -> Any:
    """``lambda R^T g`` of each row, in many digits: the same reflections, the last of them first."""
    results = []
    with mp.workprec(BITS):
        for row, *pair in zip(g, e, q, strict=True):
            along, scale = mirrors(*pair)
            turned = exact(row)
            for r in reversed(along):
                turned = reflected(r, turned)
            results.append(scale * turned)
    return np.array(results, dtype=object)


def bound(g: Any, e: Any, q: Any) -> Any:
    """The length of each row's errors before the last rounding, as `npselect.tiers.cpu.rotation` derives it."""
    g, e, q = (x.astype(np.longdouble) for x in (g, e, q))
    features = e.shape[-1]
    depth = min(-(-features // 128), 8) + 7 + (-(-features // 1024) - 1)
    sizes = [np.max(np.abs(x), axis=-1, keepdims=True) for x in (g, e, q)]
    lengths = [s[:, 0] * np.sqrt(np.sum((x / s) ** 2, axis=-1)) for x, s in zip((g, e, q), sizes, strict=True)]
    spread = lengths[1] / sizes[1][:, 0]
    return (24 * spread + 34 * depth + 124) * np.longdouble(2) ** -53 * lengths[2] / lengths[1] * lengths[0]


def half_places(expected: Any, dtype: str) -> Any:
    """Half a unit in the last place of each number."""
    _, least, subnormal, precision = limits(dtype)
    sizes = np.maximum(np.abs(expected.astype(np.longdouble)), np.longdouble(least))
    return np.maximum(2 ** (np.floor(np.log2(sizes)) - precision), np.longdouble(subnormal) / 2)


def used(actual: Any, expected: Any, g: Any, e: Any, q: Any, dtype: str) -> float:
    """How much of the bound the rows' errors use, at most; 1 is all of it."""
    errors = np.abs(np.array([exact(row) for row in actual], dtype=object) - expected).astype(np.longdouble)
    errors = np.maximum(errors - 1.001 * half_places(expected, dtype), 0)  # 0.001: half a place, where it is a tie
    top = np.max(errors, axis=-1)
    lengths = np.where(top > 0, top, 1) * np.sqrt(np.sum((errors / np.where(top > 0, top, 1)[:, None]) ** 2, axis=-1))
    return float(np.max(np.where(top > 0, lengths, 0) / bound(g, e, q)))
