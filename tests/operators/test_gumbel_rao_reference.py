"""The reference's Gumbel-Rao against the published definition: at most 0.501 units in the last place."""

from __future__ import annotations

from typing import Any

import exact
import inputs
import numpy as np
import numpy.typing as npt
import pytest
from inputs import DTYPES, Batch

from npselect import reference

Array = npt.NDArray[Any]
ALLOWED = 0.501
dtypes = pytest.mark.parametrize("dtype", list(DTYPES))


def gumbel_rao(batch: Batch, d: Any, draws: Any) -> Array:
    out = np.empty_like(batch.logits)
    reference.gumbel_rao(batch.g, batch.logits, np.asarray(d, np.int64), draws, batch.temp[:, 0], batch.where, out)
    return out


def offered(batch: Batch) -> Array:
    """What takes part, of rows that have a choice."""
    wide = batch.logits.astype(np.float64)
    offers = (wide > -np.inf) & (True if batch.where is None else batch.where)
    return np.asarray(offers & ~np.any(offers & ~(wide < np.inf), axis=-1, keepdims=True))


def drawn(batch: Batch, dtype: str, samples: int, seed: int) -> tuple[Array, Array]:
    """A likely candidate in every other row, any in the others; and noise of samples given it."""
    rng = np.random.default_rng(seed)
    candidates, wide = offered(batch), batch.logits.astype(np.float64)
    with np.errstate(invalid="ignore"):
        likely = np.where(candidates, wide, -np.inf) + rng.gumbel(size=wide.shape)
    anything = np.where(candidates, rng.gumbel(size=wide.shape), -np.inf)
    d = np.argmax(np.where(np.arange(len(wide))[:, None] % 2 == 0, likely, anything), axis=-1)
    noise = rng.gumbel(size=(samples, *wide.shape)).astype(inputs.compute_type(dtype))
    return np.where(candidates.any(axis=-1), d, -1), noise


def worst(batch: Batch, d: Array, draws: Array, dtype: str) -> tuple[float, tuple[int, int]]:
    found = gumbel_rao(batch, d, draws)
    rows = exact.rows(batch.logits, batch.temp, batch.where, batch.g, batch.v)
    values = [
        exact.exact_gumbel_rao(row, int(d[i]), draws[:, i].astype(np.float64).tolist(), dtype) if d[i] >= 0
        else [exact.mpf(0)] * len(row.w)
        for i, row in enumerate(rows)
    ]  # fmt: skip
    return exact.worst(found, values, dtype)


@dtypes
@pytest.mark.parametrize(("choices", "samples"), [(2, 1), (5, 3), (17, 2)])
def test_random(dtype: str, choices: int, samples: int) -> None:
    batch = inputs.random(dtype, 8, choices, 50 + choices)
    d, draws = drawn(batch, dtype, samples, choices)
    error, position = worst(batch, d, draws, dtype)
    assert error <= ALLOWED, position


FAMILIES = [name for name in inputs.adversarial("float32", 2, 2, 0) if name != "where over garbage"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
@pytest.mark.parametrize("family", FAMILIES)
def test_adversarial(dtype: str, family: str) -> None:
    batch = inputs.adversarial(dtype, 4, 4, 7)[family]
    d, draws = drawn(batch, dtype, 2, 8)
    error, position = worst(batch, d, draws, dtype)
    assert error <= ALLOWED, position


def test_noise_of_any_size() -> None:
    """Noise that takes the logits' place, cancels them, or leaves nothing to choose."""
    batch = inputs.batch("float64", [[0.0, -50.0, -800.0, 3.0]] * 4, [[0.6], [1e-30], [1e-250], [1e30]], None,
                         [[1.0, 2.0, -1.0, 0.5]] * 4, 0.0)  # fmt: skip
    noise = np.array([[0.0, 50.0, 800.0, -2.0], [0.0, 400.0, 1600.0, 700.0], [-90.0, 1e15, 0.0, 5.0]])
    error, position = worst(batch, np.zeros(4, int), np.stack([noise] * 4, axis=1), "float64")
    assert error <= ALLOWED, position
