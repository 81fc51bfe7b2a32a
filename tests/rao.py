"""Gumbel-Rao's gradient as others would write it, over arrays of (rows, K): honest code, and planted mistakes.

Each is ``f(g, w, d, noises, temp)``: d the selected candidates, `noises` of (samples, rows, K).
"""

from __future__ import annotations

import numpy as np
from honest import softmax, total

__all__ = ["HONEST", "MISTAKES", "textbook"]


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
