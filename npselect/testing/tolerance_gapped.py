r"""The bound of gapped's gradient: a product with a softmax's Jacobian, of logits that were moved.

Notation of `npselect.testing.tolerance`; d is the drawn candidate, m the largest logit, ``z_j = w_j - m``, and::

    grad_logits_i = p_i (h_i - <p, h>) / temp      p = softmax(v / temp),   v_d = 0,   v_j = min(z_j, -gap)

**The moved logits.** The smaller of two numbers is wrong by no more than either. So if the gap comes out between
``gap - below`` and ``gap + above``, v_j lies between ``min(z_j, -gap - above)`` and ``min(z_j, -gap + below)``, give or take
its roundings: of ``m - gap``, whose quotient by temp is rounded and subtracted from that of m::

    tau_j = (2 |m + v_j| + |m|) / temp + 3 |t_j|          t_j = v_j / temp

That is division first, with ``|m + v_j|`` once more for ``fl(m - gap)``. What measures from m first has ``2 |t_j|``. A gap
that is given is rounded to the dtype: ``above = below = u gap``.

**The adaptive gap**, ``phi(p) = -log(1 - p) / p`` of the probability ``p = p_d`` at temperature 1, of which ``1 - p`` is c.
Its derivative is ``(p / c + log c) / p**2``, which is ``1/2 + 2 p / 3 + ...`` where p is small, and ``1 / c`` where p is nearly
1. So where p is small the gap is about 1, and an error of p changes nothing; where p is nearly 1, the gap is off by the
relative error of c. That is at least ``u / c`` of the textbook's difference ``1 - p``, of which nothing is left where
``c < u``: there the gap may be infinite, and the gradient 0. Let p be wrong by pi at most. The textbook's gap lies
between ``phi(p - pi)`` and ``phi(p + pi)``, give or take

    u / p                        for the rounding of 1 - p (of numbers near 1): a relative error u of the logarithm's
                                 argument; where p is below u / 2, ``1 - p`` is 1, and the gap may come out as 0
    (2 eps + 1) u |log c| / p    for the logarithm, if it is as good as exp
    2 u phi                      for the quotient, and p as it is rounded

By ``log1p(-p)`` the first is not there, but it must be allowed for. Where p underflows, what divides by it has no
answer; the limit is 1.

**The kernels** add up the others: c has their relative error, in whichever unit they are: log c is wrong by what the
exponents of the others are wrong by, at most::

    delta = log(sum_{j != d} exp(z_j + u tau_j)) - log(sum_{j != d} exp(z_j)) + 2 eps u + (S of the others) / c + pi / ...

Where p is below a half they take ``log1p(-p)``, and p is wrong by pi, in both places.

**The gradient** is that of a softmax, with the B of a Jacobian's product. The kernels measure cotangents from d, whose
probability is the largest; as ReinMax's, the standard profile's bound is the larger of that from d and that as given.

**The published code** moves logits by sums, ``w_j - max(w_j + (gap - m), 0)``, and subtracts the mean of a row from it
before the softmax. It rounds ``gap - m``, the sum, the difference; at d, ``m - w_d`` and ``w_d + (m - w_d)``; then the
difference from the mean, and its quotient. And the gradient passes through the mean: ``sum_j G_j / K``, which is 0 but
for errors, is subtracted::

    tau_j += (|gap - m| + |z_j + gap| + |m + v_j| + 2 |m + v_j - mean|) / temp, and as much for d
    B'_i   = B_i + (sum_j B_j + S(|G|)) / K + u |G_i|

so that no digit is left of gradients that are small beside the row's. It must be declared.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from npselect.testing.roundoff import (
    TEXTBOOK,
    Arithmetic,
    Row,
    also_through_logsumexp,
    log_softmax,
    row_of,
    sum_of_row,
)

__all__ = ["gapped"]

Array = npt.NDArray[Any]


def gapped(
    grad_mask: npt.ArrayLike,
    logits: npt.ArrayLike,
    index: npt.ArrayLike,
    temp: npt.ArrayLike,
    dtype: npt.DTypeLike,
    arithmetic: Arithmetic = TEXTBOOK,
    *,
    gap: float | str = 1.0,
) -> Array:
    """The bound of gapped's ``grad_logits``. `gap` is a number or "adaptive"; the rest as in `tolerance_reinmax`."""
    with np.errstate(all="ignore"):
        w, d = np.asarray(logits).astype(np.float64), np.asarray(index)[:, None]
        plain = row_of(w, 1.0, dtype, arithmetic)
        z = np.where(plain.candidates, plain.t, -np.inf)
        drawn = np.arange(w.shape[-1]) == d
        between = _adaptive(plain, z, drawn) if isinstance(gap, str) else _given(plain, gap)
        v, low, high = (_capped(plain, z, drawn, one) for one in between)
        rounds = _rounds(plain, w, v, drawn, between[0])
        temps = np.asarray(temp, np.float64)
        further = tuple((rounds + np.where(v == end, 0.0, np.abs(end - v))) / temps for end in (high, low))
        moved = row_of(v, temps, dtype, replace(arithmetic, normalises_logits=False), None, further)
        row = moved._replace(m=d, arithmetic=arithmetic)
        bound, gradient = _product(row, grad_mask)
        if not arithmetic.difference_first:
            other, _ = _product(row._replace(arithmetic=replace(arithmetic, difference_first=True)), grad_mask)
            bound = np.maximum(bound, other)
        if arithmetic.by_moves:
            residual = (sum_of_row(bound) + row.summed(gradient)) / w.shape[-1]
            bound = row.only(bound + residual + row.form.unit * gradient)
        if arithmetic.normalises_logits:
            bound = also_through_logsumexp(row, bound, gradient + bound, w, None)
        return bound


def _product(row: Row, grad_mask: npt.ArrayLike) -> tuple[Array, Array]:
    """The bound of ``J(p) g / temp``, and what that is at most."""
    size, error, entering, scale = row.centred(grad_mask)
    bound = row.over_temp(row.product(size, error), scale) + row.floor(size, entering, scale, row.temp)
    return row.only(bound), row.only(row.over_temp(row.p * np.abs(size), scale))


def _capped(plain: Row, z: Array, drawn: Array, gap: Array) -> Array:
    """``v`` for a gap: -inf at excluded entries alone."""
    return np.where(plain.candidates, np.where(drawn, 0.0, np.maximum(np.minimum(z, -gap), -1e300)), -np.inf)


def _rounds(plain: Row, w: Array, v: Array, drawn: Array, gap: Array) -> Array:
    """What the roundings of the moves add to an exponent, times temp."""
    arithmetic = plain.arithmetic
    if arithmetic.exact_differences:
        return np.zeros_like(v)
    given = log_softmax(w, None) if arithmetic.normalises_logits else w
    top = np.take_along_axis(given, plain.m, axis=-1)
    moved = np.where(plain.candidates, top + v, 0.0)
    rounds = (3.0 if arithmetic.normalises_logits else 2.0) * np.abs(moved) + np.abs(top)
    if arithmetic.by_moves:
        mean = np.mean(moved, axis=-1, keepdims=True)
        steps = np.abs(gap - top) + np.abs(given - top + gap) + np.abs(moved) + 2 * np.abs(moved - mean)
        of_drawn = np.where(drawn, np.abs(top - given) + np.abs(top) + 2 * np.abs(top - mean), 0.0)
        rounds = rounds + np.where(drawn, 0.0, steps) + sum_of_row(of_drawn)
    return np.where(plain.candidates, plain.form.unit * rounds, 0.0)


# ------------------------------------------------------------------------------------------------ the gap


def _given(plain: Row, gap: float) -> tuple[Array, Array, Array]:
    """A number, and what it may be at most and at least, once it is rounded."""
    value = np.full((*plain.p.shape[:-1], 1), float(gap))
    return value, value * (1 + plain.form.unit), value * (1 - plain.form.unit)


def _adaptive(plain: Row, z: Array, drawn: Array) -> tuple[Array, Array, Array]:
    """``phi``, and what it may be at most and at least."""
    u, eps = plain.form.unit, 2 * plain.arithmetic.exp_ulp * plain.form.unit
    p, p_pi = (sum_of_row(np.where(drawn, x, 0.0)) for x in (plain.p, plain.p_pi))
    log_s = _log_sum(z)
    log_c = _log_sum(np.where(drawn, -np.inf, z)) - log_s
    value = _phi(p, log_c)
    if plain.arithmetic.difference_first:
        delta, more = _of_the_others(plain, z, drawn, log_c), np.minimum(p_pi / p, 1.0)
        likely = p > 0.5
        high = np.where(likely, -(log_c - delta) / (p * (1 - more)), _phi(np.minimum(p + p_pi, 1.0)))
        least = np.where(likely, -np.minimum(log_c + delta, 0.0) / (p * (1 + more)), _phi(p - p_pi))
        rounds = eps + 2 * u
        return value, high * (1 + rounds), least * (1 - rounds)
    tiny = p <= 4 * plain.form.tiny / u
    knows = (p_pi < p / 2) | tiny
    high, least = (_phi(np.where(tiny, p, end)) for end in (np.minimum(p + p_pi, 1.0), np.maximum(p - p_pi, 0.0)))
    logs = np.where(high < np.inf, high, 0.0) * (eps + u)
    near_one = np.where(tiny, 1.0, u / p)
    above = np.where(p < u / 4, 1.0, near_one) + 2 * (logs + u * high)
    below = near_one + 2 * (logs + u * least)
    return value, np.where(knows, high + above, np.inf), np.where(knows, np.maximum(least - below, 0.0), 0.0)


def _of_the_others(plain: Row, z: Array, drawn: Array, log_c: Array) -> Array:
    """``delta``: what ``log c`` is wrong by, if the others are added up; and what their sum with d is."""
    u, eps = plain.form.unit, 2 * plain.arithmetic.exp_ulp * plain.form.unit
    others = np.where(drawn, -np.inf, z)
    raised = np.where(others > -np.inf, others + 2 * u * np.abs(others), -np.inf)
    share = np.where(drawn, 0.0, np.exp(others - log_c - _log_sum(z)))
    sums = plain.summed(share) + plain.summed(plain.p)
    whole = sum_of_row(np.where(drawn, 0.0, plain.p_pi)) + sum_of_row(np.where(drawn, plain.p_pi, 0.0))
    return np.asarray(_log_sum(raised) - _log_sum(others) + 2 * eps + sums + np.minimum(whole, 1.0) + 4 * u)


def _log_sum(z: Array) -> Array:
    """Of exponentials; -inf of none."""
    top = np.max(z, axis=-1, keepdims=True)
    safe = np.where(top > -np.inf, top, 0.0)
    return np.asarray(safe + np.log(sum_of_row(np.exp(z - safe))))


def _phi(p: Array, log_c: Array | None = None) -> Array:
    """``-log(1 - p) / p``; of a p that is nearly 1, by the logarithm of ``1 - p``."""
    of_small = np.where(p > 1e-12, -np.log1p(-p) / np.where(p > 0, p, 1.0), 1.0 + p / 2)
    return of_small if log_c is None else np.where(p > 0.5, -log_c / p, of_small)
