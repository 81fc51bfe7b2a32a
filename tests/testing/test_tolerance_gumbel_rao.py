"""The bound of Gumbel-Rao: it holds of honest code and of the kernels, and wrong code does not hide below it."""

from __future__ import annotations

import numpy as np
import pytest
from bounded import DTYPES, batches, fractions
from honest import softmax, total

from npselect import reference
from npselect.testing import tolerance
from npselect.testing.tolerance_gumbel_rao import gumbel_rao
from npselect.tiers import choose

SAMPLES = 3


def product(p, g, temp):
    return p * (g - total(p * g)) / temp


def mean(terms):
    return (sum(terms[1:], terms[0]) / terms[0].dtype.type(len(terms))).astype(terms[0].dtype)


def hot(w, d):
    return np.arange(w.shape[-1]) == d[:, None]


def at(x, d):
    return np.take_along_axis(x, d[:, None], axis=-1)


def log_sum_exp(w):
    top = np.max(w, axis=-1, keepdims=True)
    return top + np.log(total(np.exp(w - top)))


def noisy(w, d, noise):
    """Given that the largest is d's."""
    largest = log_sum_exp(w) + at(noise, d)
    return np.where(hot(w, d), largest, -np.logaddexp(-largest, -w - noise))


# ------------------------------------------------------------------------------------------------ honest code


def textbook(g, w, d, noises, temp, softmax=softmax):
    return mean([product(softmax(noisy(w, d, noise), temp), g, temp) for noise in noises])


def from_differences(g, w, d, noises, temp):
    """Log space throughout: softplus of differences, and the cotangent measured from d."""
    h, distance = g - at(g, d), np.log(total(np.exp(w - np.max(w, axis=-1, keepdims=True))))
    distance = distance - (w - np.max(w, axis=-1, keepdims=True))
    terms = []
    for noise in noises:
        behind = np.logaddexp(w.dtype.type(0), distance + (at(noise, d) - noise))
        e = np.where(hot(w, d), w.dtype.type(1), np.exp(-behind / temp))
        p = e / total(e)
        terms.append(p * (h - total(p * h)) / temp)
    return mean(terms)


def by_a_race(g, w, d, noises, temp):
    """As PyTorch code has it, for logits that exp does not overflow of, less the largest."""
    rates = np.exp(w - np.max(w, axis=-1, keepdims=True))
    terms = []
    for noise in noises:
        clocks = np.exp(-noise)
        winner = at(clocks, d) / total(rates)
        with np.errstate(divide="ignore"):
            v = -np.log(np.where(hot(w, d), winner, winner + clocks / rates))
        terms.append(product(softmax(v, temp), g, temp))
    return mean(terms)


def in_float64(g, w, d, noises, temp):
    wide = [x.astype(np.float64) for x in (g, w, noises, temp)]
    return textbook(wide[0], wide[1], d, wide[2], wide[3]).astype(w.dtype)


HONEST = {
    "textbook": textbook,
    "from differences": from_differences,
    "a race": by_a_race,
    "in float64, rounded once": in_float64,
}

# ------------------------------------------------------------------------------------------------ mistakes


def _changed(change):
    """The textbook, of noisy logits that are changed."""

    def wrong(g, w, d, noises, temp):
        return mean([product(softmax(change(w, d, noise), temp), g, temp) for noise in noises])

    return wrong


MISTAKES = {
    "logits added twice": _changed(lambda w, d, noise: noisy(w, d, noise) + w),
    "unconditional noise": _changed(lambda w, d, noise: w + noise),
    "without log Z": _changed(lambda w, d, noise: np.where(
        hot(w, d), at(noise, d), -np.logaddexp(-at(noise, d), -w - noise))),
    "the largest for log Z": _changed(lambda w, d, noise: np.where(
        hot(w, d), np.max(w, -1, keepdims=True) + at(noise, d),
        -np.logaddexp(-np.max(w, -1, keepdims=True) - at(noise, d), -w - noise))),
    "d's own logit for log Z": _changed(lambda w, d, noise: np.where(
        hot(w, d), at(w + noise, d), -np.logaddexp(-at(w + noise, d), -w - noise))),
    "the others cut off at the winner": _changed(lambda w, d, noise: np.where(
        hot(w, d), log_sum_exp(w) + at(noise, d), np.minimum(w + noise, log_sum_exp(w) + at(noise, d)))),
    "without the logits": _changed(lambda w, d, noise: np.where(
        hot(w, d), log_sum_exp(w) + at(noise, d), -np.logaddexp(-log_sum_exp(w) - at(noise, d), -noise))),
    "without 1 / temp": lambda g, w, d, noises, temp: textbook(g, w, d, noises, temp) * temp,
    "a sum, not a mean": lambda g, w, d, noises, temp: textbook(g, w, d, noises, temp) * w.dtype.type(len(noises)),
    "the first sample alone": lambda g, w, d, noises, temp: textbook(g, w, d, noises[:1], temp),
    "the mean of the softmaxes": lambda g, w, d, noises, temp: product(
        mean([softmax(noisy(w, d, noise), temp) for noise in noises]), g, temp),
    "the sign": lambda g, w, d, noises, temp: -textbook(g, w, d, noises, temp),
    "another candidate": lambda g, w, d, noises, temp: textbook(g, w, (d + 1) % w.shape[-1], noises, temp),
    "no noise": lambda g, w, d, noises, temp: product(softmax(w, temp), g, temp),
}  # fmt: skip


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
