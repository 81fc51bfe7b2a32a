"""What is known of the operations behind a result, and the errors of a row's softmax and means that follow.

The notation and the proofs are those of `npselect.testing.tolerance`, whose bounds are made of these.
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
    "Row",
    "also_through_logsumexp",
    "log_softmax",
    "row_of",
    "sum_of_row",
    "ulp",
]

Array = npt.NDArray[Any]
_ACCUMULATED = 2.0**-24  # the unit roundoff of the narrowest type that sums are accumulated in


class Format(NamedTuple):
    """A floating format: `precision` bits, normal numbers from ``2**lowest``."""

    precision: int
    lowest: int

    @classmethod
    def of(cls, dtype: npt.DTypeLike) -> Format:
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
def ulp(values: Array, dtype: npt.DTypeLike) -> Array:
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
    by_logarithm : bool
        Of ReinMax: whether its middle softmax is taken again, of its own logarithm, as the published code does.
    by_moves : bool
        Of gapped: whether logits are moved by sums, and their mean is subtracted, as the published code does.
    """

    depth: Callable[[int], float] | None
    exp_ulp: float
    difference_first: bool
    flushes_subnormals: bool = False
    normalises_logits: bool = False
    by_logarithm: bool = False
    by_moves: bool = False

    @property
    def exact_differences(self) -> bool:
        """Whether the first rounding is that of a difference of logits as given."""
        return self.difference_first and not self.normalises_logits

    def sizes(self, w: Array, noise: npt.ArrayLike | None) -> Array:
        """What takes the place of ``|w_i|`` in tau."""
        if not self.normalises_logits:
            return np.abs(w.astype(np.float64))
        y = log_softmax(w, noise)
        return 2 * np.abs(y) if noise is None else np.abs(y) + 2 * np.abs(y + np.asarray(noise, np.float64))

    def summed(self, terms: Array, form: Format) -> Array:
        """S: what adding up terms of these sizes along the last axis may be wrong by, shape (..., 1)."""
        unit, total, count = min(form.unit, _ACCUMULATED), sum_of_row(terms), terms.shape[-1]
        if self.depth is None:
            sizes = -np.sort(-terms, axis=-1)
            error = sum_of_row(np.minimum(unit * np.cumsum(sizes, axis=-1), sizes)[..., 1:]) * (1 + count * unit)
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


class Row(NamedTuple):
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
        error = sum_of_row(np.abs(entering) * (self.p_pi + self.p * (self.rho + 3 * u)))
        error = error + self.summed(self.p * np.abs(entering))
        return h - sum_of_row(self.p * h), error, entering, scale

    def summed(self, terms: Array) -> Array:
        """S of the notation."""
        return self.arithmetic.summed(terms, self.form)

    def product(self, size: Array, error: Array) -> Array:
        """The bound of ``J(p) g``, of what `centred` returns and in its units: B of the notation, without temp."""
        return np.asarray(np.abs(size) * (self.p_pi + self.p * 4 * self.form.unit) + self.p * error)

    def floor(self, size: Array, entering: Array, scale: Array, divisor: Array) -> Array:
        """What underflow may add to ``p * size / divisor``, `entering` having been summed."""
        _, power = np.frexp(self.least)  # it may be the smallest number of float64 itself, of which there is no half
        sizes = np.ldexp(np.abs(size) + self.p * sum_of_row(np.abs(entering)), scale + (power - 1))
        return np.asarray(self.form.tiny + (self.least * (1.0 + self.p * entering.shape[-1]) + sizes) / divisor)

    def over_temp(self, size: Array, scale: Array, power: int = 1) -> Array:
        """``size 2**scale / temp**power``, of which float64 may not hold every step."""
        mantissa, exponent = np.frexp(self.temp)
        return np.asarray(np.ldexp(size / mantissa**power, scale - power * exponent))

    def only(self, bound: Array) -> Array:
        """The bound, but 0 at excluded entries and where there is nothing to choose from."""
        return np.where(self.candidates & (sum_of_row(self.candidates) > 1), bound, 0.0)


def row_of(
    logits: npt.ArrayLike,
    temp: npt.ArrayLike,
    dtype: npt.DTypeLike,
    arithmetic: Arithmetic,
    noise: npt.ArrayLike | None = None,
    further: tuple[Array, Array] | None = None,
) -> Row:
    """The errors of ``softmax(logits / temp)``. Parameters as in `npselect.testing.tolerance.soft`.

    `further` is how far exponents may be too large, and too small, for what was done to the logits before.
    """
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
    x, down = (x, x) if further is None else (x + further[0], x + further[1])
    rho = arithmetic.rescaled(w, form)
    rise = np.where(candidates, np.where(x < 1, e * np.expm1(np.minimum(x, 1)), np.exp(t + x) - e), 0.0) + e * exp_error
    s = sum_of_row(e)
    p = e / s
    drop = p * (exp_error + rho - np.expm1(-down))
    fall = np.minimum(sum_of_row(drop) + arithmetic.summed(p, form) + form.unit, 1.0)
    p_pi = rise / s + (p + rise / s) * (fall / (1 - fall))
    if further is not None:  # else what rises most is more than what falls most
        p_pi = np.maximum(p_pi, drop + p * (sum_of_row(rise / s + p * rho) + arithmetic.summed(p, form) + form.unit))
    least = form.lost(arithmetic.flushes_subnormals)
    return Row(form, arithmetic, least, temp, t, p, p_pi, rho, m, candidates)


def log_softmax(w: Array, noise: npt.ArrayLike | None) -> Array:
    """``y`` of the notation: the logits, without the noise that was added to them, minus their logsumexp."""
    logits = w.astype(np.float64) - (0.0 if noise is None else np.asarray(noise, np.float64))
    z = logits - np.max(logits, axis=-1, keepdims=True, initial=-np.inf)
    return np.asarray(z - np.log(sum_of_row(np.exp(z))))


def also_through_logsumexp(
    row: Row, bound: Array, gradient: Array, logits: Array, noise: npt.ArrayLike | None
) -> Array:
    """B' of the notation, of ``bound`` = B and ``gradient`` = |G| at most, of logits that are normalised first."""
    y = log_softmax(logits, noise)
    sizes = np.abs(logits.astype(np.float64)) + 3 * np.abs(y) + 2 * row.arithmetic.exp_ulp + 4
    q = np.exp(np.minimum(y + row.form.unit * sizes, 0.0))  # of which y, logsumexp and exp are off, too
    residual = sum_of_row(bound) + row.summed(gradient)
    return row.only(bound + q * residual + row.form.unit * gradient + row.form.tiny)


def sum_of_row(values: Array) -> Array:
    """Along the last axis, which stays with length 1."""
    return np.asarray(np.sum(values, axis=-1, keepdims=True))
