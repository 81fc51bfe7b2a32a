r"""How far a correct implementation may be from the exact result: bounds derived from the operations, not chosen.

Notation of `npselect.reference`; ``u`` is the unit roundoff of the dtype (half a unit in the last place of 1), ``eps``
the error of exp in ULP. First order terms only are written here; where that would not do, the code takes ``expm1`` of
the exponents' errors, and divides by what they leave of the sum. Every bound is one of the worst case: nothing here
counts on roundings that go to either side, since those of equal terms all go to the same.

The exponent ``t_i`` carries an error of at most ``u tau_i``. Three ways of computing it::

    difference first, fl(fl(w_i - w_m) / temp):        tau_i = 2 |t_i|
    division first, fl(fl(w_i / temp) - fl(w_m / temp)): tau_i = (|w_i| + |w_m|) / temp + |t_i|
    to base 2, with fl(log2(e) / temp) as a factor:      tau_i = (|w_i| + |w_m|) / temp + 3 |t_i|

A textbook may take any of them. (The factor of the last has two roundings, which all its multiples share.)

**Sums.** An addition of two partial sums is wrong by at most u times its result; and by no more than the smaller of the
two, since the larger one is itself a number of the format. In whatever order n terms of sizes ``x_1 >= x_2
>= ...`` are added up, at most n - l + 1 of the n - 1 results are sums of l terms or more (each addition but those of
single terms has such a result of either part before it), and a sum of l terms is at most that of the l largest. So the
error of any order is at most that of the order from the largest to the smallest::

    S(x) = sum_{k >= 2} min(u (x_1 + ... + x_k), x_k)

which is ``n u / 2`` times the sum where all are equal, ``n u`` times it at worst, and little where few are large. The
kernels' order is known, and has a depth n: ``S(x) = n u sum(x)``. Sums of 16-bit numbers are taken to be accumulated in
binary32 and rounded once, which adds ``u`` times the sum: what is added up in 16 bits stagnates, and is no sum.

A softmax in one pass (Milakov and Gimelshein 2018) multiplies what it has by ``exp(old maximum - new maximum)`` where a
larger entry comes. Exponents' errors add up to no more than tau, as their differences add up to t; but each factor has
an error of exp, and a product. A term sees at most as many new maxima as there are larger values in the row; and no
more than a row has running maxima, from the left or from the right, and, if lanes or blocks have their own, ``log2 K``
to bring these together. With ``r_i`` the smaller of the two, a term of a sum is wrong by ``rho_i = r_i (2 eps + 1) u``
more (in 16 bits with the unit of binary32: it is part of the sum). An order that is made to have more maxima is none
that a program has.

**The softmax.** ``e_i`` is relatively wrong by ``eta_i = u tau_i + 2 eps u`` (one ULP is at most 2 u), the sum ``s`` by
``sum_j p_j (eta_j + rho_j) + S(p)``, and ``p_i = e_i / s`` by::

    pi_i = eta_i + sum_j p_j (eta_j + rho_j) + S(p) + u

**The gradient.** With ``h`` the cotangent as it enters the sums (measured from the selected entry, or, in the textbook,
as given), the mean ``d = sum_j p_j h_j`` is wrong by ``D = sum_j p_j |h_j| (pi_j + rho_j + 3 u) + S(p |h|)``: the
product, the sum, and the roundings of h, whose share in ``h_i - d`` is covered here too, as ``|h_i| <= |h_i - d| +
sum_j p_j |h_j|``. The rest is a subtraction, a product, a division and the rounding of ``h_i``::

    B_i = (p_i / temp) [ |h_i - d| (pi_i + 4 u) + D ]

A row with a single candidate is computed without any rounding (e = s = p = 1, d = h), so its bound is 0.

**Logits that are normalised first**, ``y = w - logsumexp(w)``, then ``softmax(y / temp)`` differentiated through both.
The error of logsumexp is that of all y of a row, and cancels; the rounding of ``y_i`` does not. As y takes the place of
w, ``|w_i|`` becomes ``2 |y_i|`` in tau (with noise added to y, ``|y_i| + 2 |y_i + noise_i|``), where ``|y_i| <= |w_i -
w_m| + log K``. The backward pass subtracts ``q_i sum_j G_j`` from the gradient G of y, with ``q = exp(y)``: a sum that
is 0 but for errors, so that, with ``B`` as above::

    B'_i = B_i + q_i (sum_j B_j + S(|G|)) + u |G_i|

Where ``p_i`` is far smaller than ``q_i``, that leaves no digit of the gradient. So it must be declared.

**Underflow** adds what no relative error describes. Each operation that underflows is wrong by at most half the
smallest subnormal ``least``: in e_i, in a product e_j h_j, in the product p_i (h_i - d). To these, multiplied by what
follows, the smallest normal number is added once, for the rounding of the result itself. Where operations flush
subnormals to 0, each may lose the smallest normal number, and ``least`` is twice that.

Sources: N. J. Higham, "Accuracy and stability of numerical algorithms", 2002, chapters 3 and 4; P. Blanchard, D. J.
Higham and N. J. Higham, "Accurately computing the log-sum-exp and softmax functions", IMA J. Numer. Anal. 41, 2021;
M. Milakov and N. Gimelshein, "Online normalizer calculation for softmax", 2018.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from npselect._places import as_numpy_sees
from npselect.testing.roundoff import (
    KERNELS,
    TEXTBOOK,
    Arithmetic,
    Format,
    also_through_logsumexp,
    row_of,
    sum_of_row,
    ulp,
)

__all__ = [
    "KERNELS",
    "TEXTBOOK",
    "Arithmetic",
    "Format",
    "backward",
    "backward_temp",
    "double_backward",
    "isclose",
    "near_tie",
    "soft",
    "ulp",
]

Array = npt.NDArray[Any]


@np.errstate(all="ignore")
def isclose(actual: npt.ArrayLike, exact: npt.ArrayLike, bound: npt.ArrayLike) -> Array:
    """Where a result is as it should be: within the bound of the exact one, or the same infinity, or NaN as that is.

    Parameters
    ----------
    actual, exact : array_like
        Of the same shape.
    bound : array_like
        Of a function of this module; broadcasts to them.

    Returns
    -------
    ndarray of bool

    Examples
    --------
    >>> from npselect.testing import tolerance
    >>> tolerance.isclose([1.0, 1.5, float("nan")], [1.0, 1.0, float("nan")], 0.25)
    array([ True, False,  True])
    """
    a, b = (np.asarray(as_numpy_sees(values)).astype(np.float64) for values in (actual, exact))
    if a.shape != b.shape:
        raise ValueError(f"actual has shape {a.shape} and exact has shape {b.shape}; the two must be equal")
    return np.asarray((np.abs(a - b) <= bound) | (a == b) | (np.isnan(a) & np.isnan(b)))


def soft(
    logits: npt.ArrayLike,
    temp: npt.ArrayLike,
    dtype: Any,
    arithmetic: Arithmetic = TEXTBOOK,
    noise: npt.ArrayLike | None = None,
) -> Array:
    """The bound of ``probs``.

    Parameters
    ----------
    logits : ndarray, shape (rows, K)
        With -inf at excluded entries, and at least one finite entry a row; noise added.
    temp : float or ndarray, shape (rows, 1)
        As rounded to the type it is used in.
    dtype : dtype
        Of the implementation.
    arithmetic : Arithmetic
        Of the implementation.
    noise : ndarray, shape (rows, K), optional
        What was added to the logits, without rounding; of interest where they are normalised before that.

    Returns
    -------
    ndarray of float64, shape (rows, K)
        What ``|actual - exact|`` must not exceed. Not finite where the dtype cannot represent ``logits / temp``.
    """
    with np.errstate(all="ignore"):
        row = row_of(logits, temp, dtype, arithmetic, noise)
        return row.only(row.p_pi + row.floor(np.ones(1), np.zeros_like(row.p), np.zeros(1, np.int64), np.ones(1)))


def near_tie(
    logits: Array,
    temp: npt.ArrayLike,
    dtype: Any,
    arithmetic: Arithmetic = TEXTBOOK,
    noise: npt.ArrayLike | None = None,
) -> Array:
    """How far ``t_i`` may lie below 0 for ``p_i`` to be rounded up to ``p_m`` or beyond, or ``p_m`` down to ``p_i``.

    Both are quotients by the same s, hence ``|t_i| <= eta_i + eta_m + 2 u``: two exponents, two exps, two divisions;
    and, of quotients that are subnormal, ``least / p_m`` more. What all exponents are multiplied by, to base 2, keeps
    their order. Parameters and result as in `soft`.
    """
    with np.errstate(all="ignore"):
        logits, temp = (np.asarray(as_numpy_sees(values)) for values in (logits, temp))
        top = np.max(logits, axis=-1, keepdims=True, initial=-np.inf).astype(np.float64)
        w = np.where(logits > -np.inf, logits.astype(np.float64), top)
        if arithmetic.exact_differences:
            reach = 2 * np.abs(w - top)
        else:
            sizes = arithmetic.sizes(np.asarray(logits), noise)
            largest = np.max(np.where(logits == top, sizes, 0.0), axis=-1, keepdims=True, initial=0.0)
            reach = 3 * largest + np.where(logits > -np.inf, sizes, 0.0) + np.abs(w - top)
        form, temp = Format.of(dtype), np.asarray(temp, np.float64)
        s = sum_of_row(np.where(logits > -np.inf, np.exp((w - top) / temp), 0.0))
        least = form.lost(arithmetic.flushes_subnormals)
        return np.asarray(form.unit * (reach / temp + 4 * arithmetic.exp_ulp + 2) + least * s)


def backward(
    grad_mask: npt.ArrayLike,
    logits: npt.ArrayLike,
    temp: npt.ArrayLike,
    dtype: Any,
    arithmetic: Arithmetic = TEXTBOOK,
    noise: npt.ArrayLike | None = None,
) -> Array:
    """The bound of ``grad_logits``: B in the module's text, or B'. Parameters and result as in `soft`."""
    with np.errstate(all="ignore"):
        row = row_of(logits, temp, dtype, arithmetic, noise)
        size, error, entering, scale = row.centred(grad_mask)
        bound = row.only(row.over_temp(row.product(size, error), scale) + row.floor(size, entering, scale, row.temp))
        if arithmetic.normalises_logits:
            gradient = row.only(row.over_temp(row.p * np.abs(size), scale)) + bound
            bound = also_through_logsumexp(row, bound, gradient, np.asarray(logits), noise)
        return bound


def backward_temp(
    grad_mask: npt.ArrayLike, logits: npt.ArrayLike, temp: npt.ArrayLike, dtype: Any, arithmetic: Arithmetic = TEXTBOOK
) -> Array:
    """The bound of each row's share of ``grad_temp``, shape (rows,), before rows are summed.

    ``grad_temp = -sum_i grad_logits_i t_i``: each term is wrong by ``B_i |t_i|`` and, relatively, by the roundings of
    t_i (its tau is part of B_i only as the argument of exp), of the product and of the sum. The product may underflow
    before it is divided by temp.
    """
    with np.errstate(all="ignore"):
        row = row_of(logits, temp, dtype, arithmetic)
        size, _, _, scale = row.centred(grad_mask)
        terms = row.over_temp(row.p * np.abs(size * row.t), scale)
        errors = backward(grad_mask, logits, temp, dtype, arithmetic) * np.abs(row.t)
        errors = errors + terms * 5 * row.form.unit + row.least / row.temp
        total = sum_of_row(np.where(row.candidates & (row.p > 0), errors, 0.0)) + row.summed(terms)
        return np.asarray(total[..., 0] + row.form.tiny)


def double_backward(
    grad_grad_logits: npt.ArrayLike,
    grad_mask: npt.ArrayLike,
    logits: npt.ArrayLike,
    temp: npt.ArrayLike,
    dtype: Any,
    arithmetic: Arithmetic = TEXTBOOK,
) -> tuple[Array, Array]:
    """The bounds of ``grad_grad_mask`` and ``grad_logits``.

    The first is `backward`'s for the cotangent ``v``. For the second, ``a = h - <p, h>`` is wrong by
    ``alpha = D + u (|h| + |a|)``, ``b`` likewise by ``beta``, hence ``c = a b`` by
    ``gamma = |a| beta + |b| alpha + alpha beta + u |c|``, its mean by
    ``C = sum_j p_j (gamma_j + |c_j| (pi_j + u)) + S(p |c|)``, and the result by::

        (p_i / temp**2) [ |c_i - mean| (pi_i + 6 u) + gamma_i + C ]
    """
    with np.errstate(all="ignore"):
        row = row_of(logits, temp, dtype, arithmetic)
        u = row.form.unit
        a, a_error, h, a_scale = row.centred(grad_mask)
        b, b_error, k, b_scale = row.centred(grad_grad_logits)
        alpha = a_error + u * (np.abs(h) + np.abs(a))
        beta = b_error + u * (np.abs(k) + np.abs(b))
        c = np.where(row.candidates, a * b, 0.0)
        gamma = np.abs(a) * beta + np.abs(b) * alpha + alpha * beta + u * np.abs(c)
        mean_error = sum_of_row(row.p * gamma + np.abs(c) * (row.p_pi + row.p * u)) + row.summed(row.p * np.abs(c))
        size = c - sum_of_row(row.p * c)
        bound = np.abs(size) * (row.p_pi + row.p * 6 * u) + row.p * (gamma + mean_error)
        bound = row.over_temp(bound, a_scale + b_scale, 2) + row.floor(size, c, a_scale + b_scale, row.temp**2)
        return backward(grad_grad_logits, logits, temp, dtype, arithmetic), row.only(bound)
