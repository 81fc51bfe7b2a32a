"""The bound of sampled gradients holds of honest ops, over millions of values, and faults are far beyond it."""

from __future__ import annotations

from dataclasses import replace

import inputs
import numpy as np
import pytest
from sampling_ops import by_log_softmax, by_logsumexp, gumbel, perturbed, product, softmax

from npselect.testing.cases import rounded
from npselect.testing.roundoff import TEXTBOOK
from npselect.testing.sampler_questions import question_of
from npselect.testing.sampling.recovered import recovered_sample
from npselect.testing.tolerance_sampled import sampled

DTYPES = ["float32", "float64", "bfloat16"]
TEMPS = (0.1, 0.6, 1.0, 5.0)
ROWS = {2: 40_000, 10: 14_000, 100: 1200, 1000: 100}  # for each temperature: more than 10**6 entries of candidates
CHANCE = 1e-15


def wide_softmax(w, temp):
    """16 bits computed in 32, and rounded once."""
    return softmax(w.astype(np.float32), temp) if w.dtype.itemsize == 2 else softmax(w, temp)


def flipped(w, temp):
    """Summed in another order."""
    return softmax(w[:, ::-1], temp)[:, ::-1]


HONEST = {  # name: (the sample, what is behind the gradient)
    "softmax": (softmax, softmax),
    "log_softmax, then exp": (by_log_softmax, by_log_softmax),
    "logsumexp, then exp": (by_logsumexp, by_logsumexp),
    "two programs": (by_log_softmax, softmax),
    "two orders": (softmax, flipped),
    "in 32 bits, rounded once": (wide_softmax, wide_softmax),
}
FAULTS = {
    "zero": lambda y, g, temp: 0 * product(y, g, temp),
    "1/temp missing": lambda y, g, temp: product(y, g, 1.0),
    "no mean": lambda y, g, temp: y * g / temp,
    "sign": lambda y, g, temp: -product(y, g, temp),
    "clamped": lambda y, g, temp: product(np.clip(y, 0.05, 0.95), g, temp),
}


def questions(dtype, part=1):
    form = inputs.DTYPES[dtype]
    for k, rows in ROWS.items():
        for temp in TEMPS:
            rng = np.random.default_rng([k, int(10 * temp)])
            question = question_of(16, max(16, rows // part), k, np.dtype(form), rng)
            logits = question.logits[question.vector]
            yield logits, rounded(temp, logits.dtype), rng.standard_normal(logits.shape).astype(logits.dtype)


def drawn(logits, temp, dtype, probs, seed=0):
    """The perturbed logits, in 32 bits for 16 that are computed so, and the probabilities in the dtype."""
    w = perturbed(logits, temp, seed, gumbel)
    w = w if probs is wide_softmax else w.astype(logits.dtype)
    return w, probs(w, temp).astype(logits.dtype)


def judged(y, grad, g, logits, temp, recovered=None):
    tells = sampled(y, logits, temp, TEXTBOOK, CHANCE, recovered)
    off = np.abs(grad.astype(np.float64) - tells.gradient(g))
    bound = tells.bound(g)
    assert np.all(off[bound == 0] == 0)
    return off[bound > 0] / bound[bound > 0], tells


@pytest.mark.parametrize(  # in wider dtypes the errors are a tenth of the bound
    ("dtype", "part"), [*((dtype, 10) for dtype in DTYPES), pytest.param("bfloat16", 1, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", HONEST)
def test_many_honest_values_are_within_the_bound(name, dtype, part, record):
    probs, behind = HONEST[name]
    count = 0
    for logits, temp, g in questions(dtype, part):
        w, y = drawn(logits, temp, dtype, probs)
        p = behind(w, temp)
        grad = product(p, g.astype(p.dtype), temp).astype(logits.dtype)
        grad = np.where(logits > -np.inf, grad, 0)
        fractions, tells = judged(y, grad, g, logits, temp)
        record(f"error/bound, sampled, {dtype}, {name}", np.max(fractions))
        assert np.max(fractions) < 1
        total = np.abs(np.sum(np.where(tells.candidates, y.astype(np.float64), 0), axis=-1) - 1)
        allowed = np.sum(tells.row.p * tells.relative, axis=-1) + logits.shape[-1] * tells.row.least + 1e-16
        assert np.all(total <= allowed + tells.row.form.unit)
        count += len(fractions)
    assert count > 10**6 // part


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_three_times_beyond_the_bound(name, dtype, record):
    worst = 0.0
    for logits, temp, g in questions(dtype, part=40):
        _, y = drawn(logits, temp, dtype, softmax)
        grad = np.where(logits > -np.inf, FAULTS[name](y, g, y.dtype.type(temp)), 0)
        tells = sampled(y, logits, temp, TEXTBOOK, CHANCE)
        bound = tells.bound(g)
        off = np.abs(grad.astype(np.float64) - tells.gradient(g))
        worst = max(worst, np.max(off[bound > 0] / bound[bound > 0]))
    record(f"fault/bound (to be above 3), sampled, {dtype}, {name}", -worst)
    assert worst > 3


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_recovered_is_the_sample(dtype, record):
    """Within the error that goes with it, and gradients are within the bound that this makes."""
    for logits, temp, g in questions(dtype, part=40):
        w, y = drawn(logits, temp, dtype, softmax)

        def backward(cotangent, y=y, temp=temp, logits=logits):
            return np.where(logits > -np.inf, product(y, cotangent, temp), 0).astype(logits.dtype)

        index = np.argmax(np.where(logits > -np.inf, w.astype(np.float64), -np.inf), axis=-1)
        found, error = recovered_sample(backward, logits, index, temp, TEXTBOOK, CHANCE)
        exact = y.astype(np.float64) / np.sum(y.astype(np.float64), axis=-1, keepdims=True)
        at = (logits > -np.inf) & (exact > 1e-30)
        assert np.all(np.abs(found - exact)[at] <= 1.5 * error[at] * exact[at] + 1e-15)
        fractions, _ = judged(found, backward(g), g, logits, temp, error)
        record(f"error/bound, recovered, {dtype}", np.max(fractions, initial=0.0))
        assert np.all(fractions < 1)


def test_the_size_of_perturbed_logits_is_covered():
    """The largest of a row lies within what the gamma law leaves, and the bound is no wider than that makes it."""
    rng = np.random.default_rng(1)
    for k in (2, 3, 10, 100):
        logits = 3 * rng.standard_normal((2000, k))
        w = logits + rng.gumbel(size=logits.shape)
        tells = sampled(softmax(w, 1.0), logits, 1.0, TEXTBOOK, 1e-6)
        largest = np.max(np.abs(tells.w[np.arange(len(w)), np.argmax(w, axis=-1)][:, None]), axis=-1)
        seen = np.abs(np.max(w, axis=-1))
        assert np.mean(seen > largest) <= 2e-3
        assert np.all(np.abs(w) <= np.abs(tells.w) + np.where(seen > largest, 99, 1e-6)[:, None])


def test_logits_that_are_normalised():
    """Of autodiff through both logsumexps: honest where it is declared."""
    for logits, temp, g in questions("float32", part=40):
        y_of_logits = by_log_softmax(logits, 1.0)
        with np.errstate(divide="ignore"):
            normal = np.where(logits > -np.inf, np.log(y_of_logits), -np.inf).astype(np.float32)
        y = by_logsumexp(perturbed(normal, temp, 0), temp)
        inner = product(y, g, temp)
        grad = np.where(logits > -np.inf, inner - y_of_logits * np.sum(inner, axis=-1, keepdims=True), 0)
        tells = sampled(y, logits, temp, replace(TEXTBOOK, normalises_logits=True), CHANCE)
        off = np.abs(grad.astype(np.float64) - tells.gradient(g))
        bound = tells.bound(g)
        assert np.all(off <= bound)
