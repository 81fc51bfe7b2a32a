"""The bound of Gumbel-Rao: it holds of honest code and of the kernels, and wrong code does not hide below it."""

from __future__ import annotations

import numpy as np
import pytest
from bounded import DTYPES, batches, fractions
from rao import HONEST, MISTAKES

from npselect import reference
from npselect.testing import tolerance
from npselect.testing.tolerance_gumbel_rao import gumbel_rao
from npselect.tiers import choose

SAMPLES = 3


def questions(dtype):
    """With noise that is a number of the dtype, and the exact results in float64."""
    for name, batch, d in batches(dtype):
        rng = np.random.default_rng(6)
        noises = rng.gumbel(size=(SAMPLES, *batch.logits.shape)).astype(batch.logits.dtype)
        wide = [x.astype(np.float64) for x in (batch.g, batch.logits, noises, batch.temp)]
        right = np.empty_like(wide[0])
        reference.gumbel_rao(wide[0], wide[1], d, wide[2], wide[3][:, 0], None, right)
        yield name, batch, d, noises, right


@pytest.mark.parametrize("dtype", DTYPES)
def test_honest_code_is_accepted(dtype, record_property):
    worst = dict.fromkeys(HONEST, (0.0, ""))
    for name, (g, w, d, noises, right), temp in (
        (name, (batch.g, batch.logits, d, noises, right), batch.temp)
        for name, batch, d, noises, right in questions(dtype)
    ):
        bound = gumbel_rao(g, w, d, noises, temp, dtype)
        for subject, function in HONEST.items():
            if subject == "a race" and not name.startswith("K="):  # exp(logits) must not vanish
                continue
            with np.errstate(all="ignore"):
                found = fractions(function(g, w, d, noises, temp).astype(np.float64), right, bound)
            worst[subject] = max(worst[subject], (float(np.max(found)), name))
    record_property("fractions", worst)
    assert max(worst.values())[0] <= 1, worst


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_the_kernels_are_accepted_by_their_own_bound(dtype, record_property):
    worst = (0.0, "")
    for name, batch, d, noises, right in questions(dtype):
        bound = gumbel_rao(batch.g, batch.logits, d, noises, batch.temp, dtype, tolerance.KERNELS)
        compute = np.float64 if dtype == "float64" else np.float32
        out, temps = np.empty_like(batch.logits), batch.temp[:, 0].astype(compute)
        choose("cpu").gumbel_rao(batch.g, batch.logits, d, noises.astype(compute), temps, None, out)
        with np.errstate(invalid="ignore"):  # beyond the dtype's range
            worst = max(worst, (float(np.max(fractions(out.astype(np.float64), right, bound))), name))
    record_property("fraction", worst)
    assert worst[0] <= 1, worst


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_refused(dtype, mistake):
    """On ordinary rows; by more than ten bounds in float32, by more than one in bfloat16, which leaves less room."""
    if (dtype, mistake) == ("bfloat16", "the mean of the softmaxes"):
        pytest.skip("the Jacobian of three samples' mean softmax is as near as the roundings of bfloat16")
    worst = 0.0
    for name, batch, d, noises, right in questions(dtype):
        if name in ("K=3", "K=10"):
            bound = gumbel_rao(batch.g, batch.logits, d, noises, batch.temp, dtype)
            with np.errstate(all="ignore"):
                found = MISTAKES[mistake](batch.g, batch.logits, d, noises, batch.temp)
            worst = max(worst, float(np.nanmax(fractions(found.astype(np.float64), right, bound))))
    assert worst > (1 if dtype == "bfloat16" else 10)


def test_no_bound_where_the_gradient_is_exactly_0():
    g = np.array([[1.0, 2.0, 3.0]])
    for logits in ([[0.0, -np.inf, -np.inf]], [[1e300, -np.inf, -np.inf]]):
        assert not gumbel_rao(g, logits, [0], np.zeros((2, 1, 3)), 1.0, "float64").any()
