"""Likely causes of what is wrong with an op that draws its own noise: mistakes whose values are those seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from npselect.testing.aliases import Array, SamplingFunctions
from npselect.testing.roundoff import sum_of_row
from npselect.testing.sampling.causes_of_noise import cause_of_noise
from npselect.testing.sampling.noise import law_of_noise, shares_of
from npselect.testing.sampling.observation import FORMS, Gradient, Observation, Traits
from npselect.testing.sampling.recovered import smaller_of
from npselect.testing.sampling.report import SamplingTest
from npselect.testing.tolerance_sampled import Sampled, sampled

__all__ = ["likely_cause"]

Mistake = Callable[[Observation, Sampled, Gradient], Array]
_EXPLAINED = 0.995  # of the entries that are wrong
_EXPLAINED_IN_16_BITS = 0.9  # where small differences are mostly rounding
_NEARER = 0.2  # how near a mistake must be to what was seen, compared with what is right
_CLAMPS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-10, 1e-2)
_WITHOUT_TEMP, _TWICE = "1/temp is missing", "1/temp is there twice"
_SAME = {  # as a mistake of the sample, and of its gradient
    "the temperature has no effect on the sample": _WITHOUT_TEMP,
    "the temperature is applied twice": _TWICE,
}


@np.errstate(all="ignore")
def likely_cause(
    op: SamplingFunctions, traits: Traits, seen: Sequence[Observation], failed: Sequence[SamplingTest]
) -> str | None:
    """The mistakes that explain what failed, or None."""
    names = {test.name for test in failed}
    noise = cause_of_noise(op, seen, failed)
    gradient = None
    if traits.hard_and_soft:
        forms = {hard: _of_form(seen, hard) for hard in FORMS if f"gradient of the {FORMS[hard]} form" in names}
        told = dict.fromkeys(cause for cause in forms.values() if cause)
        gradient = "; ".join(told) or None
        if len(told) > 1:
            gradient = "; ".join(f"{FORMS[hard]} form: {cause}" for hard, cause in forms.items() if cause)
    elif names & {"gradient of the hard form", "law of the noise", "constants drop out"}:
        gradient = _of_form(seen, True) or _of_two(seen)
    if noise is not None and _SAME.get(noise) == gradient:
        gradient = None
    if gradient is not None and not traits.hard_and_soft and not names & {"each frequency", "mean logit"}:
        noise = None  # the samples are right: what the gradient tells of the noise is not
    return "; ".join(filter(None, (_of_mask(seen), gradient, noise))) or None


def _of_mask(seen: Sequence[Observation]) -> str | None:
    """Of hard samples that are no one-hots."""
    wrong = [one for one in seen if one.hard_error is not None and one.hard is not None and one.index is not None]
    if not wrong:
        return None
    for one in wrong:
        assert one.hard is not None
        assert one.index is not None
        mask = np.arange(one.logits.shape[-1]) == one.index[:, None]
        unit = float(2.0**-8 if one.dtype.name == "bfloat16" else np.finfo(one.dtype).eps)
        if not np.all(np.abs(one.hard.astype(np.float64) - mask) <= 4 * unit):
            same = one.soft is not None and np.array_equal(one.hard, one.soft)
            return "the soft sample is returned for the hard one" if same else None
    return "mask is off by rounding"


# ------------------------------------------------------------------------------------------------ the gradient


def _of_form(seen: Sequence[Observation], hard: bool) -> str | None:
    wrong = [item for one in seen for item in _wrong(one, hard)]
    if not wrong:
        return None
    if all(not np.any(item.gradient.actual) for item in wrong):
        return "gradient of the hard softmax (zero)" if hard else "gradient of a constant (zero)"
    telling = [item for item in wrong if item.one.soft is not None or item.one.logits.shape[-1] > 2]
    if not telling:
        return None  # any gradient of two entries is that of some sample
    scaled = any(item.one.temp != 1 for item in telling)  # at temp 1 a power of it explains nothing
    known = ((name, mistake) for name, mistake in _mistakes() if scaled or name not in (_WITHOUT_TEMP, _TWICE))
    return next((name for name, mistake in known if all(_explains(mistake, item) for item in telling)), None)


class _Wrong(NamedTuple):
    """A gradient that has wrong entries: those `at`."""

    one: Observation
    tells: Sampled
    gradient: Gradient
    right: Array
    bound: Array
    at: Array


def _wrong(one: Observation, hard: bool) -> Iterator[_Wrong]:
    """The gradients that have wrong entries, and which. By a sample that was recovered from them all are in doubt."""
    tells = one.sampled
    if tells is None:
        return
    for gradient in one.gradients:
        if gradient.hard == hard and np.all(np.isfinite(gradient.actual[one.candidates].astype(np.float64))):
            right, bound = tells.gradient(gradient.cotangent), tells.bound(gradient.cotangent)
            at = (np.abs(gradient.actual.astype(np.float64) - right) > bound) & one.candidates
            if one.soft is None:
                at = one.candidates & (np.count_nonzero(one.candidates, axis=-1, keepdims=True) > 1)
            if np.any(at):
                yield _Wrong(one, tells, gradient, right, bound, at)


def _explains(mistake: Mistake, item: _Wrong) -> bool:
    one, tells, gradient, right, bound, at = item
    actual, guess = gradient.actual.astype(np.float64), mistake(one, tells, gradient)
    top = np.max(np.abs(np.where(one.candidates, guess, 0.0)), axis=-1, keepdims=True)
    size = 16 * tells.row.form.unit * np.max(np.abs(_g(gradient)), axis=-1, keepdims=True) * max(1.0, 1 / one.temp)
    rounding = size * _probs_without_noise(one) if mistake in _OF_LOGITS.values() else 0.0
    off = np.abs(actual - guess)
    near = off <= 4 * bound * max(1.0, one.temp, 1 / one.temp) + 1e-5 * top + rounding
    if one.soft is not None:
        near &= off <= np.maximum(_NEARER * np.abs(actual - right), rounding)
    enough = _EXPLAINED if tells.row.form.precision > 16 else _EXPLAINED_IN_16_BITS
    return bool(np.sum(near & at) >= enough * np.sum(at))


def _mistakes() -> Iterator[tuple[str, Mistake]]:
    yield _WITHOUT_TEMP, lambda one, tells, gradient: one.temp * tells.gradient(gradient.cotangent)
    yield _TWICE, lambda one, tells, gradient: tells.gradient(gradient.cotangent) / one.temp
    yield from _OF_LOGITS.items()
    yield "the cotangent is handed on, as though the sample were the logits", lambda _, __, gradient: _g(gradient)
    yield "the sign is wrong", lambda _, tells, gradient: -tells.gradient(gradient.cotangent)
    yield "the mean of the cotangent is not subtracted", _no_mean
    yield "the selected entry's cotangent is subtracted, not the mean", _by_selected
    yield "only the selected entry has a gradient", _only_selected
    yield "the mean of the cotangent is that of all rows", _over_rows
    for row in (0.0, *_CLAMPS):
        yield "probabilities clamped", partial(_clamped, row)
        yield "probabilities clamped", partial(_of_clamped, row)


def _g(gradient: Gradient) -> Array:
    return gradient.cotangent.astype(np.float64)


def _product(p: Array, g: Array, temp: float) -> Array:
    return np.asarray(p * (g - sum_of_row(p * g)) / temp)


def _probs_without_noise(one: Observation) -> Array:
    """Of ``softmax(logits)`` and ``softmax(logits / temp)`` the larger entries."""
    from scipy import special  # type: ignore[import-untyped]

    logits = one.logits.astype(np.float64)
    return np.asarray(np.maximum(special.softmax(logits, axis=-1), special.softmax(logits / one.temp, axis=-1)))


def _without_noise(power: float, factor: float, one: Observation, _: Sampled, gradient: Gradient) -> Array:
    """Of ``softmax(logits / temp**power)``, divided by ``temp**factor``."""
    from scipy import special

    p = special.softmax(one.logits.astype(np.float64) / one.temp**power, axis=-1)
    return _product(p, _g(gradient), one.temp**factor)


_OF_LOGITS: dict[str, Mistake] = {
    "gradient without the noise": partial(_without_noise, 1.0, 1.0),
    "gradient without the noise, and 1/temp is missing": partial(_without_noise, 1.0, 0.0),
    "gradient without the noise and without the temperature": partial(_without_noise, 0.0, 0.0),
}


def _no_mean(one: Observation, tells: Sampled, gradient: Gradient) -> Array:
    return np.asarray(tells.row.p * _g(gradient) / one.temp)


def _selected(one: Observation) -> Array:
    index = one.index if one.index is not None else np.zeros(len(one.logits), np.int64)
    return np.asarray(np.arange(one.logits.shape[-1]) == index[:, None])


def _by_selected(one: Observation, tells: Sampled, gradient: Gradient) -> Array:
    g = _g(gradient)
    return np.asarray(tells.row.p * (g - sum_of_row(_selected(one) * g)) / one.temp)


def _only_selected(one: Observation, tells: Sampled, gradient: Gradient) -> Array:
    return np.asarray(_selected(one) * tells.gradient(gradient.cotangent))


def _over_rows(one: Observation, tells: Sampled, gradient: Gradient) -> Array:
    p, g = tells.row.p, _g(gradient)
    return np.asarray(p * (g - np.sum(p * g)) / one.temp)


def _eps(least: float, one: Observation) -> float:
    return least or float(2.0**-7 if one.dtype.name == "bfloat16" else np.finfo(one.dtype).eps)


def _clamped(least: float, one: Observation, tells: Sampled, gradient: Gradient) -> Array:
    """No cotangent reaches what is clamped to the range from `least` (0: the dtype's eps) to 1 less that."""
    eps, p = _eps(least, one), tells.row.p if one.soft is None else one.soft.astype(np.float64)
    return _product(p, np.where((p >= eps) & (p <= 1 - eps), _g(gradient), 0.0), one.temp)


def _of_clamped(least: float, one: Observation, tells: Sampled, gradient: Gradient) -> Array:
    """The formula, of what is clamped."""
    eps = _eps(least, one)
    p = np.where(one.candidates, np.clip(tells.row.p, eps, 1 - eps), 0.0)
    return _product(p, _g(gradient), one.temp)


def _of_two(seen: Sequence[Observation]) -> str | None:
    """Of K = 2 without a soft form: what makes the noise that the gradient tells be Gumbel's."""
    pairs = [one for one in seen if one.logits.shape[-1] == 2 and one.sampled is not None and one.soft is None]
    for name, power in ((_WITHOUT_TEMP, 0), (_TWICE, 2)):
        if any(one.temp != 1 for one in pairs) and all(_law_holds(one, one.temp**power) for one in pairs):
            return name
    told = [item for one in pairs for item in _wrong(one, True)]
    if told and all(_explains(_OF_LOGITS["gradient without the noise"], item) for item in told):
        return "gradient without the noise"
    return None


def _g_actual(gradient: Gradient) -> Array:
    return gradient.actual.astype(np.float64)


def _law_holds(one: Observation, factor: float) -> bool:
    """Whether ``y (1 - y)`` is the gradient's, times `factor`, with y of Gumbel noise."""
    assert one.sampled is not None
    gradient = next(gradient for gradient in one.gradients if not gradient.constant)
    g, mask = _g(gradient), _selected(one)
    of_other = np.where(mask[:, 0], _g_actual(gradient)[:, 1], -_g_actual(gradient)[:, 0])  # which has all its digits
    v = np.clip(factor * of_other / (g[:, 1] - g[:, 0]), 0.0, None)
    if np.mean(v > 0.25 * 1.01) > 0.01:
        return False
    small = smaller_of(np.minimum(v, 0.25))[:, None]
    y = np.where(mask, 1 - small, small)
    y = np.where(one.candidates, y, 0.0)
    tells = sampled(y, one.logits, one.temp, one.sampled.row.arithmetic, 1e-12, np.full_like(y, 1e-3))
    p_value = law_of_noise(shares_of(tells)).p_value
    return p_value is None or p_value > 1e-4
