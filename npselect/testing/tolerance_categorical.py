r"""The bounds of two temperatures and of a share of the uniform distribution: of `categorical` and `gumbel_softmax`.

Notation of `npselect.testing.tolerance`. With the temperatures f of the sample and temp of the gradient, with
``T = f temp``, and a share e::

    grad_logits_i = (1 - e) p_i (h_i - d) / T        p = softmax(w / T)

**Two temperatures.** The product T is rounded once in the definition; a textbook divides by one after the other, and
converts either to the dtype. Of division first, ``fl(fl(w_i / f) / temp)``, an exponent is wrong by three roundings
more than that by one temperature: ``|w_i| / T`` of the second division, on either side of the difference; ``|t_i|`` of
T in the definition; and ``|t_i|`` of f as it is converted. The last division of the gradient is followed by another, by
a number that was converted, and T was rounded. In the notation's units, ``u tau``::

    tau'_i = tau_i + (|w_i| + |w_m|) / T + 3 |t_i|        B'_i = B_i + 3 u |G_i|

With noise, ``w_i = theta_i + f G_i``: the textbook's ``fl(theta_i / f) + G_i`` has a rounding of ``theta_i / f`` and
one of the sum; the definition has those of ``f G_i`` and of its own sum. With that of the second division, all are at
most ``3 (|theta_i| + |f G_i|) / T`` at either end of the difference, since ``|w_i| <= |theta_i| + |f G_i|``. Where f is
a power of two, and theta, f G and w are numbers of the dtype, none of these is there: quotients by f are exact.

**A share.** ``1 - e`` is exact to float64 in the definition. The textbook's e is rounded to the dtype, and so is its
difference: relatively ``u e / (1 - e) + u``; the product is rounded: with the gradient G of share 1::

    B_i = (1 - e) B'_i + u (2 (1 - e) + e) |G_i|

Some textbooks differentiate ``m = (1 - e) p + e / n`` through its own logarithm, ``softmax(log(m))``, as `Categorical`
of probabilities does. There ``y_i = g_i - <m, g>`` arrives, times ``m'_i / m_i``, where m' is the softmax of the
rounded logarithm: what is common to all i drops out of ``J(p)``, and left are, relatively, four roundings of products,
a quotient and a difference, and the errors of log and exp. With ``|log m_i| <= log(n / e)``::

    r_i  = u [ (2 eps + 1) |log m_i| + 2 eps + 8 ]
    B_i += (1 - e) (p_i / T) [ r_i |y_i| + sum_j p_j r_j |y_j| ]

**The kernels** compute T and ``1 - e`` as the definition has them, and one product more: 2 u of ``(1 - e) |G|``, since
``1 - e`` is rounded to the type that they compute in.
"""

from __future__ import annotations

import math
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

__all__ = ["categorical"]

Array = npt.NDArray[Any]


def categorical(
    grad_mask: npt.ArrayLike,
    logits: npt.ArrayLike,
    temp: npt.ArrayLike,
    dtype: npt.DTypeLike,
    arithmetic: Arithmetic = TEXTBOOK,
    noise: npt.ArrayLike | None = None,
    *,
    forward_temp: float = 1.0,
    unimix: float = 0.0,
) -> Array:
    """The bound of ``grad_logits`` of two temperatures and a share.

    Parameters
    ----------
    grad_mask : ndarray, shape (rows, K)
        The cotangent.
    logits : ndarray, shape (rows, K)
        With -inf at excluded entries, and at least one finite entry a row; what was added to them is part of them.
    temp : float or ndarray, shape (rows, 1)
        The product of both temperatures.
    dtype : dtype
        Of the implementation.
    arithmetic : Arithmetic
        Of the implementation.
    noise : ndarray, shape (rows, K), optional
        What was added to the logits: that is, times `forward_temp`.
    forward_temp : float
        The temperature of the sample.
    unimix : float
        The share of the uniform distribution.

    Returns
    -------
    ndarray of float64, shape (rows, K)
        What ``|actual - exact|`` must not exceed.
    """
    with np.errstate(all="ignore"):
        w = np.asarray(logits).astype(np.float64)
        rounds = not arithmetic.difference_first and forward_temp != 1.0
        further = None
        if rounds and math.frexp(forward_temp)[0] != 0.5:  # a power of two
            further = _of_two_temperatures(w, temp, dtype, arithmetic, noise)
        row = row_of(logits, temp, dtype, arithmetic, noise, further)
        size, error, entering, scale = row.centred(grad_mask)
        u, share = row.form.unit, 1.0 - unimix
        gradient = row.only(row.over_temp(row.p * np.abs(size), scale))
        bound = row.over_temp(row.product(size, error), scale) + row.floor(size, entering, scale, row.temp)
        bound = row.only(bound + (3 * u * gradient if rounds else 0.0))
        if unimix:
            roundings = 2 * share + (0.0 if arithmetic.difference_first else unimix)
            bound = share * bound + u * roundings * gradient + row.form.tiny
            if not arithmetic.difference_first:
                bound = bound + share * _through_the_mixture(row, np.asarray(grad_mask), unimix)
            bound = row.only(bound)
        if arithmetic.normalises_logits:
            scaled = w if noise is not None else w / forward_temp
            bound = also_through_logsumexp(row, bound, share * gradient + bound, scaled, noise)
        return bound


def _of_two_temperatures(
    w: Array, temp: npt.ArrayLike, dtype: npt.DTypeLike, arithmetic: Arithmetic, noise: npt.ArrayLike | None
) -> tuple[Array, Array]:
    """What exponents are off for a second temperature, to either side."""
    plain = row_of(w, temp, dtype, arithmetic)
    added = np.zeros_like(w) if noise is None else np.asarray(noise, np.float64)
    sizes = np.abs(w) if noise is None else 3 * (np.abs(w - added) + np.abs(added))
    if arithmetic.normalises_logits:
        sizes = sizes + np.abs(log_softmax(w, None))
    sizes = np.where(plain.candidates, sizes, 0.0)
    reach = sizes + np.take_along_axis(sizes, plain.m, axis=-1)
    further = np.where(plain.candidates, plain.form.unit * (reach / plain.temp + 3 * np.abs(plain.t)), 0.0)
    return further, further


def _through_the_mixture(row: Row, grad_mask: Array, unimix: float) -> Array:
    """What the logarithm of the mixture adds, without its share."""
    g = np.where(row.candidates, grad_mask.astype(np.float64), 0.0)
    m = (1.0 - unimix) * row.p + unimix / sum_of_row(row.candidates)
    eps = 2 * row.arithmetic.exp_ulp
    relative = row.form.unit * ((eps + 1) * np.abs(np.log(np.where(row.candidates, m, 1.0))) + eps + 8)
    arrived = np.where(row.candidates, relative * np.abs(g - sum_of_row(np.where(row.candidates, m * g, 0.0))), 0.0)
    return np.asarray(row.p / row.temp * (arrived + sum_of_row(row.p * arrived)))
