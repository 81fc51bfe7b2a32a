"""Seeded random questions: lengths, spreads, temperatures, cotangents, layouts, and logits that are close."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from npselect.testing.aliases import Dtype
from npselect.testing.case import Case
from npselect.testing.dtypes import times
from npselect.testing.tolerance import Format

__all__ = ["random_cases"]


def random_cases(dtype: Dtype, temp: float) -> Iterator[Case]:
    """The cases, of two axes and without options."""
    rng = np.random.default_rng(20131308)

    def case(
        name: str, note: str, rows: int, choices: int, spread: float = 3.0, offset: float = 0.0, temp: float = temp
    ) -> Case:
        logits = offset + spread * rng.standard_normal((rows, choices))
        grad_mask = rng.standard_normal((rows, choices))
        return Case(f"random/{name}", note, logits.astype(dtype), grad_mask.astype(dtype), temp)

    yield case("K=1", "nothing to choose from", 64, 1)
    yield case("K=2", "the logistic function", 256, 2)
    yield case("K=3", "few choices", 256, 3)
    yield case("K=7", "an odd number of choices", 128, 7)
    yield case("K=10", "every row by itself: nothing is summed or averaged over the batch", 512, 10, spread=5.0)
    yield case("K=64", "as many rows as choices: the wrong axis has the right length", 64, 64)
    yield case("K=100", "widely spread logits: small probabilities are probabilities", 64, 100, spread=10.0)
    yield case("K=1000", "long rows", 16, 1000)
    yield case("K=1024", "long rows of close logits", 16, 1024, spread=0.5)
    yield case("K=4096", "long rows: sums need their digits, small gradients are gradients", 8, 4096)
    if dtype.name != "float16":  # in which the sum may overflow
        many = case("K=131072", "gradients of 1e-6 are gradients, which an absolute tolerance misses", 1, 131072, 0.05)
        yield replace(many, grad_mask=(many.grad_mask.astype(np.float64) / 8).astype(dtype))
    yield case("K=4096, nearly equal", "a sum that stagnates in 16 bits", 8, 4096, spread=0.01)
    yield case("saturated", "one candidate has nearly all of the probability", 64, 10, spread=40.0)
    yield case("offset", "logits far from 0", 64, 10, offset=64.0)
    for name, other in (("doubled", times(2.0, temp, dtype)), ("quartered", times(0.25, temp, dtype))):
        yield case(f"temp {name}", "logits are divided by temp, and the gradient by it once", 64, 10, temp=other)

    close = case("constant cotangent", "the gradient is what the differences of grad_mask leave", 64, 10)
    noise = 16 * Format.of(dtype).unit * close.grad_mask.astype(np.float64)
    yield replace(close, grad_mask=(1 + noise).astype(dtype))

    unit = case("unit cotangents", "the whole Jacobian: what is not selected has a gradient, too", 7, 7)
    logits = np.repeat(unit.logits[:1], 7, axis=0)
    yield replace(unit, logits=logits, grad_mask=np.eye(7).astype(dtype))

    for choices in (5, 33, 129, 1025):
        yield case(f"K={choices}", "a length just beyond that of a block", 8, choices)
    sizes = case("cotangents of all sizes", "linear in grad_mask: nothing is clipped or dropped", 64, 10)
    most = {"float16": 10, "float64": 664}.get(dtype.name, 66)
    scale = min(1.0, temp) * np.ldexp(1.0, np.arange(64) * 2 * most // 63 - most)[:, None]
    yield replace(sizes, grad_mask=(scale * sizes.grad_mask.astype(np.float64)).astype(dtype))
    columns = case("columns first", "arrays in Fortran order: rows lie apart in memory", 64, 10)
    yield replace(columns, logits=np.asfortranarray(columns.logits), grad_mask=np.asfortranarray(columns.grad_mask))
    again = case("called again", "results depend on the arguments alone, and no later call changes them", 16, 6)
    yield replace(again, flags=("again",))
    yield _pairs(rng, case("close pairs", "rounding errs to either side: probs may swap two, not always", 512, 10))
    yield _pairs(rng, case("distinct pairs", "a choice in fewer bits than the logits have confuses two", 512, 10), 7)
    yield case("few large", "long rows of which a handful counts: no sum of them errs much", 2, 20000, spread=20.0)


def _pairs(rng: np.random.Generator, case: Case, bits: int = 0) -> Case:
    """The largest logit of each row, 1 to 1.75, and one that is a last place or two smaller, before or after it.

    Times ``2**bits``, and by up to half of the bits that then are left, at random.
    """
    logits, dtype = np.round(4 * case.logits.astype(np.float64)) / 4 - 20, case.logits.dtype
    top = (1 + 0.75 * rng.random(len(logits))).astype(dtype).astype(np.float64)
    form = Format.of(dtype)
    more = rng.integers(0, max(1, (form.precision - bits) // 2), len(logits)) if bits else 0
    below = top - 2 * form.unit * rng.integers(1, 3, len(logits)) * np.ldexp(1.0, bits + more)
    two = np.argsort(rng.random(logits.shape), axis=-1)[:, :2]
    np.put_along_axis(logits, two, np.stack([top, below], axis=-1), axis=-1)
    return replace(case, logits=logits.astype(dtype), flags=("pairs",))
