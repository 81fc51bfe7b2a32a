"""Likely causes of a wrong distribution: laws that noise is drawn by in error, simulated and compared.

A verdict never rests on these comparisons: they look for a name of what has failed already.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from npselect.testing.aliases import Array, SamplingFunctions
from npselect.testing.sampling.noise import EQUAL, LAW, Shares, below, shares_of
from npselect.testing.sampling.observation import Observation
from npselect.testing.sampling.report import SamplingTest

__all__ = ["cause_of_noise"]

Law = Callable[[Array, float, Array], Array]
_EXPECTED = 30.0  # draws beyond a cut, of which there is none
_ROWS = 64
_NARROW = 0.01  # between the ends of U, on average
_NONE = "there is no noise"
_NEAR = 0.03  # between two distributions of U, at most


def _gumbel(u: Array) -> Array:
    return np.asarray(-np.log(-np.log(u)))


def _normal(u: Array) -> Array:
    from scipy import special  # type: ignore[import-untyped]

    return np.asarray(special.ndtri(u))


LAWS: Mapping[str, Law] = {
    "tau inside the logarithm": lambda logits, temp, u: (logits + _gumbel(temp * u)) / temp,
    "the temperature has no effect on the sample": lambda logits, _, u: logits + _gumbel(u),
    "noise is multiplied by the temperature": lambda logits, temp, u: logits / temp + _gumbel(u),
    "logits are divided by the temperature twice": lambda logits, temp, u: (logits / temp + _gumbel(u)) / temp,
    "the temperature is applied twice": lambda logits, temp, u: (logits + _gumbel(u)) / temp**2,
    _NONE: lambda logits, temp, u: logits / temp + 0 * u,
    "noise has the wrong sign": lambda logits, temp, u: (logits - _gumbel(u)) / temp,
    "noise is normal, not Gumbel's": lambda logits, temp, u: (logits + _normal(u)) / temp,
    "noise is uniform, not Gumbel's": lambda logits, temp, u: (logits + u) / temp,
    "noise is exponential, without its logarithm": lambda logits, temp, u: (logits - np.log(u)) / temp,
}
"""``law(logits, temp, uniforms)``: what softmax is taken of."""


def cause_of_noise(op: SamplingFunctions, seen: Sequence[Observation], failed: Sequence[SamplingTest]) -> str | None:
    """The mistake that explains the noise or the distribution, or None."""
    names = {test.name for test in failed}
    causes = []
    if names & {"neighbouring rows", "repeated rows", "other seed", "each frequency", "all frequencies", LAW}:
        widest = max(seen, key=lambda one: one.logits.shape[-1])
        if _rows_are_alike(op, widest):
            causes.append("all rows share their noise")
    if LAW in names or "soft sample" in names:
        asked = {(test.dtype, test.temp, test.choices) for test in failed if test.name == LAW}
        wrong = [one for one in seen if (one.dtype.name, one.temp, one.logits.shape[-1]) in asked]
        told = [(one, shares_of(one.sampled)) for one in wrong if one.sampled is not None]
        told = [(one, shares) for one, shares in told if np.mean(shares.most - shares.least) < _NARROW]
        cause = _law(told) or _cut(told)
        if cause is not None and (cause == _NONE or not causes):
            causes = [cause]
    if EQUAL in names:
        finding = next(test.finding or "" for test in failed if test.name == EQUAL)
        if bits := re.search(r"(\d+) bits", finding):
            causes.append(f"uniforms of {bits[1]} bits")
    return "; ".join(causes) or None


def _rows_are_alike(op: SamplingFunctions, one: Observation) -> bool:
    logits = np.zeros((_ROWS, one.logits.shape[-1]), one.dtype)
    for seed in range(3):
        mask = np.asarray(op.sample(logits.copy(), one.temp, True, seed))
        if mask.shape != logits.shape or not np.all(np.argmax(mask, -1) == np.argmax(mask[0])):
            return False
    return True


def _law(told: Sequence[tuple[Observation, Shares]]) -> str | None:
    """The law that is near in each observation, if one is, and nearer than the right one."""
    if not told:
        return None
    for name, law in LAWS.items():
        near = [_distances(one, shares, law) for one, shares in told]
        near = [distances for distances in near if not math.isnan(distances[0])]
        if near and all(mistaken < min(_NEAR + right / 20, right / 2) for mistaken, right in near):
            return name
    return None


def _distances(one: Observation, shares: Shares, law: Law) -> tuple[float, float]:
    """Of the distributions of U: from what the law has, and from the uniform one."""
    rng = np.random.default_rng(len(shares.least))
    repeats = max(1, 200_000 // one.logits.size)
    logits = np.where(one.candidates, one.logits.astype(np.float64), -np.inf)
    logits = np.tile(logits, (repeats, 1))
    s = law(logits, one.temp, rng.random(logits.shape))
    if np.any(np.isnan(s)):
        return math.nan, math.nan
    candidates = logits > -np.inf
    candidates &= np.count_nonzero(candidates, axis=-1, keepdims=True) > 1
    exponent = np.where(candidates, logits - one.temp * s, -np.inf)
    exponent = exponent - np.max(exponent, axis=-1, keepdims=True)
    share = np.exp(exponent)
    share = share / np.sum(share, axis=-1, keepdims=True)
    count = np.broadcast_to(np.count_nonzero(candidates, axis=-1)[:, None], share.shape)[candidates]
    u = -np.expm1((count - 1) * np.log1p(-share[candidates]))
    grid = np.linspace(0, 1, 201)[1:-1] + 0.0013  # where no law without noise has its numbers
    grid = np.concatenate([grid, np.exp2(-np.arange(8.0, 16.0))])
    middle = (shares.least + shares.most) / 2
    seen = below(middle, grid) / len(middle)
    return float(np.max(np.abs(below(u, grid) / len(u) - seen))), float(np.max(np.abs(seen - grid)))


def _cut(told: Sequence[tuple[Observation, Shares]]) -> str | None:
    """No draw beyond some size, and the rest as it should be."""
    if not told:
        return None
    farthest = []
    for one, shares in told:
        n = len(shares.least)
        tau = _EXPECTED / n
        bulk = np.array([0.25, 0.5, 0.75])
        middle = (shares.least + shares.most) / 2
        if below(shares.least, np.array([tau]))[0] > 0 and not _tail_is_short(shares, n):
            return None
        if np.max(np.abs(below(middle, bulk) / n - bulk)) > 0.05:
            return None
        farthest.append((one.logits.shape[-1], shares.farthest))
    return f"uniforms cut off: no draw beyond G = {max(farthest)[1]:.2g}"


def _tail_is_short(shares: Shares, n: int) -> bool:
    """Far fewer than expected beyond the last threshold of which many are expected."""
    tau = 8 * _EXPECTED / n
    return bool(below(shares.least, np.array([tau]))[0] < 0.25 * n * tau)
