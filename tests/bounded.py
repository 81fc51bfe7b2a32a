"""Rows to hold a bound against, random and adversarial, with what was drawn; and errors as fractions of a bound."""

from __future__ import annotations

import exact
import inputs
import numpy as np

from npselect.testing import tolerance

DTYPES = ("bfloat16", "float32")
SIZES = {1: 4, 2: 60, 3: 60, 10: 30, 100: 3}  # choices: rows


def batches(dtype, most=30.0):
    """Name, batch and the drawn candidates, half of them the likeliest; temperatures are numbers of the dtype.

    Those whose product with a number up to `most`, or quotient by it, is none are left out.
    """
    families = inputs.adversarial(dtype, 5, 5, 5, wild=False)
    made = {name: batch for name, batch in families.items() if name != "-inf" and not name.startswith("where")}
    made |= {f"K={k}": inputs.random(dtype, rows, k, k)._replace(where=None) for k, rows in SIZES.items()}
    for name, batch in made.items():
        with np.errstate(over="ignore"):
            temp = batch.temp.astype(batch.logits.dtype)
        largest, normal, _, _ = inputs.limits(dtype)
        wide = temp.astype(np.float64)
        keep = ((wide > most * normal) & (wide < largest / most))[:, 0]
        if keep.any():
            batch = batch._replace(temp=temp).rows(keep)
            rng, w = np.random.default_rng(4), batch.logits.astype(np.float64)
            d = np.where(rng.random(len(w)) < 0.5, np.argmax(w, axis=-1), rng.integers(w.shape[-1], size=len(w)))
            yield name, batch, d


def in_float64(values):
    """Exact numbers, rows of them, rounded once."""
    return np.array([[exact.rounded(x, "float64") for x in row] for row in values])


def fractions(actual, right, bound):
    """Errors in bounds; where the bound is not finite, nothing is asked."""
    bound = bound + tolerance.ulp(right, "float64") / 2
    asked = np.isfinite(bound) & (actual != right)
    return np.where(asked, np.abs(actual - right) / bound, 0.0)
