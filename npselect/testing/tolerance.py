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

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from npselect._dtypes import dtype_name
from npselect._places import as_numpy_sees

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
_ACCUMULATED = 2.0**-24  # the unit roundoff of the narrowest type that sums are accumulated in


class Format(NamedTuple):
    """A floating format: `precision` bits, normal numbers from ``2**lowest``."""

    precision: int
    lowest: int

    @classmethod
    def of(cls, dtype: Any) -> Format:
        """The format of one of the four dtypes, by name."""
        formats = {"float16": (11, -14), "bfloat16": (8, -126), "float32": (24, -126), "float64": (53, -1022)}
        name = dtype_name(dtype)
        if name not in formats:
            raise ValueError(f"dtype is {name}; it takes one of {', '.join(formats)}")
        return cls(*formats[name])

    @property
    def unit(self) -> float:
        """The unit roundoff u."""
        return 2.0**-self.precision

    @property
    def largest(self) -> float:
        """The largest finite number."""
        return (2.0 - 2.0 ** (1 - self.precision)) * 2.0 ** (1 - self.lowest)

    @property
    def tiny(self) -> float:
        """The smallest normal number."""
        return 2.0**self.lowest

    @property
    def least(self) -> float:
        """The smallest subnormal number."""
        return 2.0 ** (self.lowest + 1 - self.precision)

    def lost(self, flushes_subnormals: bool) -> float:
        """Twice what an operation that underflows is wrong by, at most."""
        return 2 * self.tiny if flushes_subnormals else self.least


@np.errstate(all="ignore")
def ulp(values: Array, dtype: Any) -> Array:
    """The unit in the last place of `dtype` at each of the values, as float64."""
    form = Format.of(dtype)
    _, exponent = np.frexp(np.where(values == 0, form.tiny, values).astype(np.float64))
    return np.asarray(np.ldexp(1.0, np.maximum(exponent, form.lowest + 1) - form.precision))


def _kernel_depth(choices: int) -> float:
    """The order of the kernels' sums: eight terms a lane, seven levels of folding, then segment after segment."""
    lanes = min(choices, 128)
    return min(7, (choices - 1) // 128) + (lanes - 1).bit_length() + 1 + (choices - 1) // 1024


@dataclass(frozen=True)
class Arithmetic:
    """What is known of the operations behind a result.

    Attributes
    ----------
    depth : callable of int to float, or None
        Additions that a term passes through in a sum over so many choices; None where any order is allowed, and sums in
        one pass with the maximum.
    exp_ulp : float
        The error of exp in units in the last place.
    difference_first : bool
        Whether logits are subtracted before they are divided, and cotangents measured from the selected entry.
    flushes_subnormals : bool
        Whether an operation may take a subnormal number for 0, or return 0 for it.
    normalises_logits : bool
        Whether the logits' logsumexp is subtracted from them before all else, and the gradient is that of both steps.
    """

    depth: Callable[[int], float] | None
    exp_ulp: float
    difference_first: bool
    flushes_subnormals: bool = False
    normalises_logits: bool = False

    @property
    def exact_differences(self) -> bool:
        """Whether the first rounding is that of a difference of logits as given."""
        return self.difference_first and not self.normalises_logits

    def sizes(self, w: Array, noise: npt.ArrayLike | None) -> Array:
        """What takes the place of ``|w_i|`` in tau."""
        if not self.normalises_logits:
            return np.abs(w.astype(np.float64))
        y = _log_softmax(w, noise)
        return 2 * np.abs(y) if noise is None else np.abs(y) + 2 * np.abs(y + np.asarray(noise, np.float64))

    def summed(self, terms: Array, form: Format) -> Array:
        """S: what adding up terms of these sizes along the last axis may be wrong by, shape (..., 1)."""
        unit, total, count = min(form.unit, _ACCUMULATED), _sum(terms), terms.shape[-1]
        if self.depth is None:
            sizes = -np.sort(-terms, axis=-1)
            error = _sum(np.minimum(unit * np.cumsum(sizes, axis=-1), sizes)[..., 1:]) * (1 + count * unit)
        else:
            error = self.depth(count) * unit * total
        return np.asarray(error + form.unit * total if form.unit > unit else error)

    def rescaled(self, w: Array, form: Format) -> Array:
        """``rho_i``: what further maxima may add to a term's error in one pass."""
        if self.depth is not None:
            return np.zeros_like(w)
        order = np.argsort(-w, axis=-1)
        larger = np.cumsum(np.diff(np.take_along_axis(w, order, axis=-1), axis=-1, prepend=np.inf) < 0, axis=-1) - 1
        rank = np.empty_like(w)
        np.put_along_axis(rank, order, larger, axis=-1)
        runs = [np.diff(np.maximum.accumulate(v, axis=-1), axis=-1) > 0 for v in (w, w[..., ::-1])]
        most = np.maximum(*(np.count_nonzero(run, axis=-1, keepdims=True) for run in runs))
        times = np.minimum(rank, most + (w.shape[-1] - 1).bit_length())
        return np.asarray(times * (2 * self.exp_ulp + 1) * min(form.unit, _ACCUMULATED))


TEXTBOOK = Arithmetic(None, exp_ulp=4.0, difference_first=False)
"""An honest ``p = softmax(w / temp); p * (g - sum(p * g)) / temp`` with a vendor's exp (NumPy states up to 4 ULP)."""

KERNELS = Arithmetic(_kernel_depth, exp_ulp=1.0, difference_first=True)
"""npselect's own tiers."""


class _Row(NamedTuple):
    """The exact quantities of the notation, in float64, and the error ``p_pi`` of the probabilities."""

    form: Format
    arithmetic: Arithmetic
    least: float
    temp: Array
    t: Array
    p: Array
    p_pi: Array
    rho: Array
    m: Array
    candidates: Array

    def centred(self, cotangent: npt.ArrayLike) -> tuple[Array, Array, Array, Array]:
        """The cotangent minus its mean, that mean's error D, and the cotangent as it enters the sums; their scale.

        All are in units of ``2**scale``, of about the largest entry of a row, lest float64 over- or underflows here.
        """
        u = self.form.unit
        given = np.asarray(as_numpy_sees(cotangent)).astype(np.float64)
        if given.shape != self.candidates.shape:
            shapes = f"{given.shape} and logits has shape {self.candidates.shape}"
            raise ValueError(f"the cotangent has shape {shapes}; the two must be equal")
        g = np.where(self.candidates, given, 0.0)
        _, scale = np.frexp(np.max(np.abs(g), axis=-1, keepdims=True))
        g = np.ldexp(g, -scale)
        h = g - np.take_along_axis(g, self.m, axis=-1)
        h = np.where(self.candidates, h, 0.0)
        entering = h if self.arithmetic.difference_first else g
        error = _sum(np.abs(entering) * (self.p_pi + self.p * (self.rho + 3 * u)))
        error = error + self.summed(self.p * np.abs(entering))
        return h - _sum(self.p * h), error, entering, scale

    def summed(self, terms: Array) -> Array:
        """S of the notation."""
        return self.arithmetic.summed(terms, self.form)

    def floor(self, size: Array, entering: Array, scale: Array, divisor: Array) -> Array:
        """What underflow may add to ``p * size / divisor``, `entering` having been summed."""
        _, power = np.frexp(self.least)  # it may be the smallest number of float64 itself, of which there is no half
        sizes = np.ldexp(np.abs(size) + self.p * _sum(np.abs(entering)), scale + (power - 1))
        return np.asarray(self.form.tiny + (self.least * (1.0 + self.p * entering.shape[-1]) + sizes) / divisor)

    def over_temp(self, size: Array, scale: Array, power: int = 1) -> Array:
        """``size 2**scale / temp**power``, of which float64 may not hold every step."""
        mantissa, exponent = np.frexp(self.temp)
        return np.asarray(np.ldexp(size / mantissa**power, scale - power * exponent))

    def only(self, bound: Array) -> Array:
        """The bound, but 0 at excluded entries and where there is nothing to choose from."""
        return np.where(self.candidates & (_sum(self.candidates) > 1), bound, 0.0)


def _row(
    logits: npt.ArrayLike, temp: npt.ArrayLike, dtype: Any, arithmetic: Arithmetic, noise: npt.ArrayLike | None = None
) -> _Row:
    form = Format.of(dtype)
    w, temp = (np.asarray(as_numpy_sees(values)).astype(np.float64) for values in (logits, temp))
    if w.ndim == 0 or w.shape[-1] == 0:
        raise ValueError(f"logits has shape {w.shape}; the last axis must hold at least one candidate")
    if not np.all((temp > 0) & (temp < np.inf)):
        raise ValueError(f"temp is {temp}; it must be positive and finite")
    candidates = w > -np.inf
    m = np.argmax(w, axis=-1, keepdims=True)
    top = np.take_along_axis(w, m, axis=-1)
    safe = np.where(candidates, w, top)
    half = np.where(np.abs(safe) + np.abs(top) < np.inf, 1.0, 0.5)  # of logits whose difference overflows
    t = np.maximum((half * safe - half * top) / temp / half, -1e300)
    e = np.where(candidates, np.exp(t), 0.0)
    sizes = arithmetic.sizes(w, noise)
    reach = np.where(candidates, sizes, 0.0) + np.take_along_axis(sizes, m, axis=-1)
    tau = 2 * np.abs(t) if arithmetic.exact_differences else reach / temp + 3 * np.abs(t)
    x, exp_error = form.unit * tau, 2 * arithmetic.exp_ulp * form.unit
    rho = arithmetic.rescaled(w, form)
    rise = np.where(candidates, np.where(x < 1, e * np.expm1(np.minimum(x, 1)), np.exp(t + x) - e), 0.0) + e * exp_error
    s = _sum(e)
    p = e / s
    fall = np.minimum(_sum(p * (exp_error + rho - np.expm1(-x))) + arithmetic.summed(p, form) + form.unit, 1.0)
    p_pi = rise / s + (p + rise / s) * (fall / (1 - fall))
    least = form.lost(arithmetic.flushes_subnormals)
    return _Row(form, arithmetic, least, temp, t, p, p_pi, rho, m, candidates)


def _log_softmax(w: Array, noise: npt.ArrayLike | None) -> Array:
    """``y`` of the notation: the logits, without the noise that was added to them, minus their logsumexp."""
    logits = w.astype(np.float64) - (0.0 if noise is None else np.asarray(noise, np.float64))
    z = logits - np.max(logits, axis=-1, keepdims=True, initial=-np.inf)
    return np.asarray(z - np.log(_sum(np.exp(z))))


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
        row = _row(logits, temp, dtype, arithmetic, noise)
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
        s = _sum(np.where(logits > -np.inf, np.exp((w - top) / temp), 0.0))
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
        row = _row(logits, temp, dtype, arithmetic, noise)
        size, error, entering, scale = row.centred(grad_mask)
        bound = np.abs(size) * (row.p_pi + row.p * 4 * row.form.unit) + row.p * error
        bound = row.only(row.over_temp(bound, scale) + row.floor(size, entering, scale, row.temp))
        if arithmetic.normalises_logits:
            gradient = row.only(row.over_temp(row.p * np.abs(size), scale)) + bound
            y = _log_softmax(np.asarray(logits), noise)
            sizes = np.abs(np.asarray(logits, np.float64)) + 3 * np.abs(y) + 2 * arithmetic.exp_ulp + 4
            q = np.exp(np.minimum(y + row.form.unit * sizes, 0.0))  # of which y, logsumexp and exp are off, too
            residual = _sum(bound) + row.summed(gradient)
            bound = row.only(bound + q * residual + row.form.unit * gradient + row.form.tiny)
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
        row = _row(logits, temp, dtype, arithmetic)
        size, _, _, scale = row.centred(grad_mask)
        terms = row.over_temp(row.p * np.abs(size * row.t), scale)
        errors = backward(grad_mask, logits, temp, dtype, arithmetic) * np.abs(row.t)
        errors = errors + terms * 5 * row.form.unit + row.least / row.temp
        total = _sum(np.where(row.candidates & (row.p > 0), errors, 0.0)) + row.summed(terms)
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
        row = _row(logits, temp, dtype, arithmetic)
        u = row.form.unit
        a, a_error, h, a_scale = row.centred(grad_mask)
        b, b_error, k, b_scale = row.centred(grad_grad_logits)
        alpha = a_error + u * (np.abs(h) + np.abs(a))
        beta = b_error + u * (np.abs(k) + np.abs(b))
        c = np.where(row.candidates, a * b, 0.0)
        gamma = np.abs(a) * beta + np.abs(b) * alpha + alpha * beta + u * np.abs(c)
        mean_error = _sum(row.p * gamma + np.abs(c) * (row.p_pi + row.p * u)) + row.summed(row.p * np.abs(c))
        size = c - _sum(row.p * c)
        bound = np.abs(size) * (row.p_pi + row.p * 6 * u) + row.p * (gamma + mean_error)
        bound = row.over_temp(bound, a_scale + b_scale, 2) + row.floor(size, c, a_scale + b_scale, row.temp**2)
        return backward(grad_grad_logits, logits, temp, dtype, arithmetic), row.only(bound)


def _sum(values: Array) -> Array:
    return np.asarray(np.sum(values, axis=-1, keepdims=True))
