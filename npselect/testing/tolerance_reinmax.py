r"""The bound of ReinMax's gradient: two products with a softmax's Jacobian, each with the error that such a one has.

Notation of `npselect.testing.tolerance`; ``p = softmax(w)`` and ``q = softmax(w / temp)`` with their errors ``pi`` and
``kappa`` (its pi_i, at either temperature), D the one-hot of the drawn candidate d, ``m = (q + D) / 2``. Exactly, with
the cotangent measured from anywhere, ``x_i = h_i - sum_j m_j h_j`` and ``y_i = h_i - sum_j p_j h_j``::

    grad_logits_i = 2 m_i x_i - p_i y_i / 2

**The textbook** computes this as it stands. Halves and doubles are exact, so m is wrong by ``mu_i = q_i kappa_i / 2``,
and by a rounding at d. With the B of a Jacobian's product, that of the textbook's own softmax (temp left out)::

    B(m)_i = |x_i| (mu_i + 4 u m_i) + m_i [ sum_j |h_j| (mu_j + m_j (rho_j + 3 u)) + S(m |h|) ]
    R_i    = 2 B(m)_i + B(p)_i / 2

Of the 4 u three are spent: on the subtraction, the product, the rounding of m at d. The fourth is for the last
subtraction, whose result is at most ``2 m_i |x_i| + p_i |y_i| / 2``. As in the textbook's gradient of a softmax, h is
the cotangent as given: on a row where ``m_d`` or ``p_d`` is 1 but for less than u, no digit is left of x_d and y_d.

**The published code** (arXiv:2304.08612) lets autodiff have the first product: m becomes ``softmax(l)`` with ``l =
log(m) - w + w``, in which w has no gradient once. So m is wrong by more than mu: by a logarithm of ``2 eps u |log m|``,
by the roundings of the difference, ``u |log m - w|``, and of the sum, ``u |log m|``, and by another softmax of
temperature 1, whose exponent ``l_i - l_d`` is rounded once more. Relatively::

    lambda_i = u [ (2 eps + 4) |log m_i| + |w_i| + 2 eps + 2 ]
    mu_i     = q_i kappa_i / 2 + m_i (lambda_i + sum_j m_j lambda_j + S(m))

(``|l_d| <= log 2`` is part of the second 2.) Where logits are large, little is left of ``log(m)`` in ``log(m) - w``;
and in bfloat16 the bound would hide a forgotten factor of 2. So it must be declared. On rows of ordinary logits the
published code is within the textbook's bound, too.

**The kernels** measure the cotangent from the drawn candidate: ``h_d = 0``. Hence ``sum_j m_j h_j = a / 2`` with
``a = sum_j q_j h_j``, in which D has no part, nor has any error of what it is added to. Entry by entry they compute::

    j != d:  grad_logits_j = ((q_j + (q_j - p_j)) h_j - c_j) / 2      c_j = q_j a - p_j b,     x_j = h_j - a / 2
    d:       grad_logits_d = (-a - c_d) / 2                          b = sum_j p_j h_j,       x_d = -a / 2, y_d = -b

where c is the difference of two products as Kahan takes it, wrong by 2 u |c_j| (C.-P. Jeannerod, N. Louvet and J.-M.
Muller, Mathematics of Computation 82, 2013).

- ``a`` is wrong by ``sum_j q_j |h_j| (kappa_j + 2 u) + S(q |h|)``, which is twice the bracket in B(m) but for one u.
- The error of q_j is the same in both its places, so it counts with x_j, as in R; that of p_j with y_j.
- At d, what is left are the roundings of c, of the sum and of the result. R has ``2 u (1 + q_d) |a|`` and ``2 u p_d
  |b|`` for them, and they take at most three quarters of that: R is a bound.
- At j, with A and B for the sums of ``q |h|`` and ``p |h|``, there are the roundings of the two sums of q and p, of h,
  of c and of the result: ``u [(|q_j - p_j| / 2 + |2 q_j - p_j|) |h_j| + |c_j|]`` and u of the result. As ``|h_j|`` is
  at most ``|x_j| + A / 2`` and ``|y_j| + B``, this is at most ``u [3.5 q_j |x_j| + 2.25 q_j A + 2 p_j |y_j| + 2.5 p_j
  B]``. R has ``u [4 q_j |x_j| + q_j A / 2 + 2 p_j |y_j| + p_j B / 2]`` for it. What is missing, ``u (1.75 q_j A + 2 p_j
  B)``, is in R if its brackets have 7 u in place of 3 u.

So R with 7 u, with h in place of g, and with the kernels' own S and eps, is the kernels' bound.

R with h may be more than with g, if d is unlikely and ``|g_d|`` large. As the standard profile has nothing against
measuring from d, its bound is the larger of the two.

**Underflow** costs each of the two what it costs a product with temp 1, and the result once the smallest normal number.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from npselect.testing.roundoff import TEXTBOOK, Arithmetic, Row, also_through_logsumexp, row_of, sum_of_row

__all__ = ["reinmax"]

Array = npt.NDArray[Any]


def reinmax(
    grad_mask: npt.ArrayLike,
    logits: npt.ArrayLike,
    index: npt.ArrayLike,
    temp: npt.ArrayLike,
    dtype: npt.DTypeLike,
    arithmetic: Arithmetic = TEXTBOOK,
) -> Array:
    """The bound of ReinMax's ``grad_logits``: R in the module's text.

    Parameters
    ----------
    grad_mask : ndarray, shape (rows, K)
        The cotangent.
    logits : ndarray, shape (rows, K)
        With -inf at excluded entries, and at least one finite entry a row; without noise.
    index : ndarray of int, shape (rows,)
        The drawn candidates.
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
        d = np.asarray(index)[:, None]
        plain, tempered = (row_of(logits, t, dtype, arithmetic)._replace(m=d) for t in (1.0, temp))
        middle = _middle(tempered, np.asarray(logits), d)
        bound, gradient = _products(middle, plain, grad_mask)
        if not arithmetic.difference_first:
            from_d = replace(arithmetic, difference_first=True)
            other, _ = _products(middle._replace(arithmetic=from_d), plain._replace(arithmetic=from_d), grad_mask)
            bound = np.maximum(bound, other)
        bound = plain.only(bound + plain.form.tiny)
        if arithmetic.normalises_logits:
            bound = also_through_logsumexp(plain, bound, plain.only(gradient) + bound, np.asarray(logits), None)
        return bound


def _products(middle: Row, plain: Row, grad_mask: npt.ArrayLike) -> tuple[Array, Array]:
    """``2 B(m) + B(p) / 2``, with what underflow adds; and what the result is at most."""
    bound = gradient = np.zeros_like(middle.p)
    for weight, row in ((2.0, middle), (0.5, plain)):
        size, error, entering, scale = row.centred(grad_mask)
        if row.arithmetic.difference_first:  # 7 u for 3 u
            error = error + 4 * row.form.unit * sum_of_row(row.p * np.abs(entering))
        lost = row.floor(size, entering, scale, np.ones(1)) - row.form.tiny
        bound = bound + weight * (np.ldexp(row.product(size, error), scale) + lost)
        gradient = gradient + weight * np.ldexp(row.p * np.abs(size), scale)
    return bound, gradient


def _middle(tempered: Row, logits: Array, d: Array) -> Row:
    """``m = (q + D) / 2`` in place of q, with its error."""
    m = (tempered.p + (np.arange(logits.shape[-1]) == d)) / 2
    error = tempered.p_pi / 2
    if tempered.arithmetic.by_logarithm:
        u, eps = tempered.form.unit, 2 * tempered.arithmetic.exp_ulp
        w = np.where(tempered.candidates, logits.astype(np.float64), 0.0)
        relative = u * ((eps + 4) * np.abs(np.log(np.where(m > 0, m, 1.0))) + np.abs(w) + eps + 2)
        relative = relative + sum_of_row(m * relative) + tempered.summed(m)
        error = error + m * np.expm1(relative)
    return tempered._replace(p=m, p_pi=error)
