r"""The bound of Gumbel-Rao's gradient: a softmax's Jacobian at logits that are wrong themselves, and a mean of those.

Notation of `npselect.testing.tolerance`; theta the logits, d the drawn candidate, G the noise of one sample. Exactly::

    u_i = log Z + G_d - theta_i - G_i        w_i - w_d = -log(1 + exp(u_i))        t_i = (w_i - w_d) / temp

How far w_i - w_d may be off before it is divided, its slip, is what adds to tau: exponents are off by ``slip_i / temp``
more than those of a softmax of exact logits. All else is the bound of one softmax's gradient, B.

**The textbook** computes log Z by its largest term, ``w_d = log Z + G_d``, ``b_i = theta_i + G_i`` and
``w_i = -logaddexp(-w_d, -b_i)``. With ``sigma_i = exp(u_i) / (1 + exp(u_i))``, which is the derivative of w_i for b_i,
``x_i = exp(-|u_i|)``, ``y_i = log(1 + x_i)``, z the logits measured from the largest, and eps for 2 u of each ULP of
exp and of a logarithm::

    log Z:  E_Z = sum_i p_i (u |z_i| + eps) + S(p) + eps log sum_i exp(z_i) + u |log Z|
    w_d:    E_d = E_Z + u |w_d|
    w_i:    sigma_i u |b_i| + (1 - sigma_i) E_d + (u |u_i| + eps) x_i / (1 + x_i) + eps y_i + u |w_i| + 3 eps

The slip is that, E_d, and ``u (|w_i| + |w_d|)`` for their quotients by temp. The 3 eps are for those who take a race of
exponential variables instead, exp(-G) and exp(theta): each is off by eps, relatively, and so is the logarithm at last.

**The kernels** take no difference of rounded numbers. log sum exp z is off by ``E = sum_i p_i eps + S(p)``, and it is
two words from there on; ``G_d - G_i`` is rounded, and once more with a small word; so u_i is off by ``E + 2 u |G_d -
G_i|``, and by ``u**2`` of all that is added; softplus by ``6 u y_i`` (`npselect._arithmetic.softplus`) or, where
exp(-|u|) would be subnormal, by the smallest normal number. The slip is the latter, and what u_i is off by times
sigma_i. The quotient by temp has two words, for which B has ``2 u |t_i|``.

**The mean** over n samples, which are summed in any order, and divided, costs ``(n + 1) u`` of the mean size of their
terms. As in the bound of ReinMax, nobody is forbidden to measure the cotangent from d: the larger of two bounds counts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from npselect.testing.roundoff import TEXTBOOK, Arithmetic, Row, row_of, sum_of_row

__all__ = ["gumbel_rao"]

Array = npt.NDArray[Any]


def gumbel_rao(
    grad_mask: npt.ArrayLike,
    logits: npt.ArrayLike,
    index: npt.ArrayLike,
    noise: npt.ArrayLike,
    temp: npt.ArrayLike,
    dtype: npt.DTypeLike,
    arithmetic: Arithmetic = TEXTBOOK,
) -> Array:
    """The bound of Gumbel-Rao's ``grad_logits``.

    Parameters
    ----------
    grad_mask : ndarray, shape (rows, K)
        The cotangent.
    logits : ndarray, shape (rows, K)
        With -inf at excluded entries, and at least one finite entry a row.
    index : ndarray of int, shape (rows,)
        The drawn candidates.
    noise : ndarray, shape (samples, rows, K)
        Of the samples given the choice; finite at the candidates.
    temp : float or ndarray, shape (rows, 1)
        As rounded to the type it is used in.
    dtype : dtype
        Of the implementation.
    arithmetic : Arithmetic
        Of the implementation.

    Returns
    -------
    ndarray of float64, shape (rows, K)
        What ``|actual - exact|`` must not exceed.
    """
    with np.errstate(all="ignore"):
        d, draws = np.asarray(index)[:, None], np.asarray(noise, np.float64)
        plain = row_of(logits, 1.0, dtype, arithmetic)
        bound = gradient = np.zeros_like(plain.p)
        for drawn in draws:
            row = _of_sample(plain, np.asarray(logits).astype(np.float64), d, drawn, temp, dtype, arithmetic)
            more, size = _product(row, grad_mask)
            if not arithmetic.difference_first:
                other, _ = _product(row._replace(arithmetic=replace(arithmetic, difference_first=True)), grad_mask)
                more = np.maximum(more, other)
            bound, gradient = bound + more / len(draws), gradient + size / len(draws)
        bound = bound + (len(draws) + 1) * plain.form.unit * gradient
        return plain.only(bound + plain.form.tiny)


def _product(row: Row, grad_mask: npt.ArrayLike) -> tuple[Array, Array]:
    """B of one softmax, with what underflow adds; and the size of the exact gradient."""
    size, error, entering, scale = row.centred(grad_mask)
    bound = row.over_temp(row.product(size, error), scale) + row.floor(size, entering, scale, row.temp)
    return bound, row.over_temp(row.p * np.abs(size), scale)


def _of_sample(
    plain: Row, logits: Array, d: Array, drawn: Array, temp: npt.ArrayLike, dtype: npt.DTypeLike, arithmetic: Arithmetic
) -> Row:
    """The softmax of one sample's noisy logits, with its error."""
    u, eps, others = plain.form.unit, 2 * plain.form.unit * arithmetic.exp_ulp, np.arange(logits.shape[-1]) != d
    g = np.where(plain.candidates, drawn, 0.0)
    g_d = np.take_along_axis(g, d, axis=-1)
    z, theta = np.maximum(plain.t, -1e300), np.where(plain.candidates, logits, 0.0)
    log_sum = np.log(sum_of_row(np.where(plain.candidates, np.exp(z), 0.0)))
    apart = log_sum - z + (g_d - g)
    x = np.exp(-np.abs(apart))
    y = np.log1p(x)
    behind = np.maximum(apart, 0.0) + y
    share = np.where(apart > 0, 1.0, x) / (1 + x)
    sums = plain.summed(plain.p)
    if arithmetic.difference_first:
        tiny = float(np.finfo(np.float64 if plain.form.precision == 53 else np.float32).tiny)
        error = sum_of_row(plain.p * eps) + sums + 2 * u * np.abs(g_d - g)
        slip = 6 * u * y + share * error + 8 * u**2 * (log_sum - z + np.abs(g_d - g)) + tiny
    else:
        log_z = np.max(np.where(plain.candidates, theta, -np.inf), axis=-1, keepdims=True) + log_sum
        w_d = log_z + g_d
        w = w_d - behind
        largest = sum_of_row(plain.p * (u * np.abs(z) + eps)) + sums + eps * log_sum + u * (np.abs(log_z) + np.abs(w_d))
        slip = share * u * np.abs(theta + g) + (1 - share) * largest + (u * np.abs(apart) + eps) * x / (1 + x)
        slip = slip + eps * y + u * np.abs(w) + 3 * eps + largest + u * (np.abs(w) + np.abs(w_d))
    noisy = np.where(plain.candidates, np.where(others, -behind, 0.0), -np.inf)
    wrong = np.where(others, slip, 0.0) / np.asarray(temp, np.float64)
    return row_of(noisy, temp, dtype, arithmetic, further=(wrong, wrong))._replace(m=d)
