r"""The bound of gapped's gradient: a product with a softmax's Jacobian, of logits that were moved.

Notation of `npselect.testing.tolerance`; d is the drawn candidate, m the largest logit, ``z_j = w_j - m``, and::

    grad_logits_i = p_i (h_i - <p, h>) / temp      p = softmax(v / temp),   v_d = 0,   v_j = min(z_j, -gap)

**The moved logits.** The smaller of two numbers is wrong by no more than either. So if the gap comes out between a
least and a high one, v_j lies between ``min(z_j, -high)`` and ``min(z_j, -least)``, give or take its roundings: of
``m - gap``, whose quotient by temp is rounded and subtracted from that of m. That is division first, with
``|m + v_j|`` once more::

    tau_j = (2 |m + v_j| + |m|) / temp + 3 |t_j|          t_j = v_j / temp

What measures from m first has ``2 |t_j|``. A gap that is given is rounded to the dtype, by ``u gap``.

**The adaptive gap**, ``-log(1 - p) / p`` with the probability p of d at temperature 1, is a function of the log-odds
``L = log(p / (1 - p)) = z_d - log(sum_{j != d} exp(z_j))``::

    phi(L) = log(1 + exp(L)) (1 + exp(-L))         phi'(L) = 1 - log(1 + exp(L)) exp(-L), from 0 to 1

Its slope is ``p / 2 + ...`` where p is small: there the gap is 1, whatever p is. Where p is nearly 1 the slope is 1,
and the gap is off by the relative error of ``1 - p``. So it is as well-conditioned as L is, and what loses its digits
is a difference ``1 - p``. If p is wrong by pi, L lies between ``log((p - pi) / (1 - p + pi))`` and
``log((p + pi) / (1 - p - pi))``, which is infinite where ``1 - p <= pi``: there the gap may be infinite, and the
gradient 0, as that of a p that is rounded to 1. To phi at these two ends the textbook adds

    u / (p - pi)    for the rounding of 1 - p next to 1: the logarithm's argument is off by u. Where p is about u or
                    less, 1 - p is 1 or the number below, and the gap from 0 to 2; log1p(-p) has no such error
    u phi           times 2 eps + 3, twice, for a logarithm as good as exp, the quotient, and p in it

Where p underflows, what divides by it has no answer; the limit is 1.

**The kernels** add up the others: with the errors of their exponents, ``2 u |z|`` each, L is wrong by::

    2 u |z_d| + log(sum_{j != d} exp(z_j + 2 u |z_j|)) - log(sum_{j != d} exp(z_j)) + S + (2 eps + 4) u

where S is that of the others' shares of their sum; the function of it costs a logarithm, a quotient and a product.

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
        above, below = ((rounds + np.where(v == end, 0.0, np.abs(end - v))) / temps for end in (high, low))
        moved = row_of(v, temps, dtype, replace(arithmetic, normalises_logits=False), None, (above, below))
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
    own, others = sum_of_row(np.where(drawn, z, 0.0)), np.where(drawn, -np.inf, z)
    log_others = _log_sum(others)
    odds = own - log_others
    if plain.arithmetic.difference_first:
        raised = np.where(others > -np.inf, others + 2 * u * np.abs(others), -np.inf)
        share = np.where(drawn, 0.0, np.exp(others - log_others))
        off = 2 * u * np.abs(own) + _log_sum(raised) - log_others + 2 * eps + plain.summed(share) + 4 * u
        high, least = _phi(odds + off), _phi(odds - off)
        return _phi(odds), high * (1 + eps + 2 * u), least * (1 - eps - 2 * u)
    p, p_pi = (sum_of_row(np.where(drawn, x, 0.0)) for x in (plain.p, plain.p_pi))
    c = np.exp(log_others - _log_sum(z))
    high = _phi(np.log(p + p_pi) - np.log(np.maximum(c - p_pi, 0.0)))
    least = _phi(np.log(np.maximum(p - p_pi, 0.0)) - np.log(c + p_pi))
    tiny = p <= 4 * plain.form.tiny / u
    known, logs = (p_pi < p / 2) | tiny, 2 * (eps + 3 * u)
    of_one = np.where(p < 2 * u, 1.0, u / np.maximum(p - p_pi, p / 2))
    above, below = of_one + logs * high, of_one + logs * least
    return _phi(odds), np.where(known, high + above, np.inf), np.where(known, np.maximum(least - below, 0.0), 0.0)


def _log_sum(z: Array) -> Array:
    """Of exponentials; -inf of none."""
    top = np.max(z, axis=-1, keepdims=True)
    safe = np.where(top > -np.inf, top, 0.0)
    return np.asarray(safe + np.log(sum_of_row(np.exp(z - safe))))


def _phi(odds: Array) -> Array:
    """``-log(1 - p) / p`` of ``odds = log(p / (1 - p))``."""
    near, far = np.maximum(odds, -30.0), np.exp(-np.abs(odds))
    whole = np.log1p(np.exp(np.minimum(near, 0.0) - np.maximum(near, 0.0))) + np.maximum(near, 0.0)
    return np.asarray(np.where(odds > -30.0, whole * (1 + np.exp(-near)), 1.0 + far / 2))
