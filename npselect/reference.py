"""The oracle: straight-through selection in plain NumPy, to learn from and to judge by.

One row is one selection problem: K numbers ``w`` (the logits) of which one is chosen. The forward pass is hard, the
backward pass is that of a softmax at temperature ``temp`` (Bengio, Léonard and Courville 2013; Jang, Gu and Poole
2017). With ``m`` the index of the largest candidate (the lowest such index) and ``g`` the cotangent of the mask::

    z_i = w_i - w_m        t_i = z_i / temp        e_i = exp(t_i)        s = sum_i e_i        p_i = e_i / s
    h_i = g_i - g_m        d = sum_i e_i h_i / s   grad_logits_i = e_i (h_i - d) / (s temp)

The textbook writes the last line as ``p (g - sum(p g)) / temp``. Both are the same number on paper; measuring the
cotangent from the selected entry keeps its digits where a row is saturated or where ``g`` is nearly constant.

Every function below works on rows: two-dimensional arrays of shape (rows, K) in any of the four floating dtypes. The
arithmetic is `Wide`: 106 bits and an exponent that neither overflows nor underflows, whatever the dtype of the input,
so that the one rounding at the end is the only error that shows (at most 0.501 units in the last place; binary64
inside would not do: where ``h_i`` almost equals ``d`` it loses as many bits as cancel). Nothing is imported but NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["backward", "backward_temp", "double_backward", "index", "mask", "soft"]

Array = npt.NDArray[Any]

# ------------------------------------------------------------------------------------------------ selecting


@dataclass(frozen=True)
class _Chosen:
    """What the hard choice leaves to compute with: one entry per row, or per element."""

    w: Array  # logits in float64, shape (rows, K); w_m stands in at excluded entries and in rows without a choice
    candidates: Array  # bool, shape (rows, K): entries that take part
    index: Array  # int64, shape (rows, 1): m, or -1 where nothing is selected
    poisoned: Array  # bool, shape (rows, 1): rows that are NaN (NaN or +inf among the candidates, or nothing but -inf)

    def at(self, values: Array) -> Array:
        """The selected entry of each row of `values`, shape (rows, 1)."""
        return np.take_along_axis(values, np.maximum(self.index, 0), axis=-1)


def _choose(logits: Array, where: Array | None) -> _Chosen:
    w = logits.astype(np.float64)
    if where is not None:
        w = np.where(where, w, -np.inf)
    nothing_offered = False if where is None else ~np.any(where, axis=-1, keepdims=True)
    candidates = w != -np.inf
    poisoned = np.any(~(w < np.inf), axis=-1, keepdims=True) | ~np.any(candidates, axis=-1, keepdims=True)
    poisoned = poisoned & ~np.asarray(nothing_offered)
    selects = ~(poisoned | nothing_offered)
    candidates = candidates & selects
    w = np.where(selects, w, 0.0)
    m = np.argmax(w, axis=-1, keepdims=True)  # the first of equals
    w = np.where(candidates, w, np.take_along_axis(w, m, axis=-1))
    return _Chosen(w, candidates, np.where(selects, m, -1), poisoned)


def index(logits: Array, where: Array | None, out: Array) -> None:
    """Index of the selected candidate of each row into `out`, int64 of shape (rows,); -1 where nothing is selected."""
    out[...] = _choose(logits, where).index[:, 0]


def mask(logits: Array, where: Array | None, out: Array) -> None:
    """The exact one-hot of the selected candidate: a row of +0 with a single 1."""
    chosen = _choose(logits, where)
    one_hot = np.arange(logits.shape[-1]) == chosen.index
    out[...] = np.where(chosen.poisoned, np.nan, one_hot.astype(np.float64))


# ------------------------------------------------------------------------------------------------ the soft passes


def soft(logits: Array, temp: Array, where: Array | None, out: Array) -> None:
    """``probs = softmax(logits / temp)``: ``p_i = e_i / s``."""
    for rows in _blocks(logits):
        chosen, _, e, s = _exponentials(logits[rows], _of(temp, rows), _of(where, rows))
        probs = e / s
        _finish(probs, chosen, out[rows])


def backward(grad_mask: Array, logits: Array, temp: Array, where: Array | None, out: Array) -> None:
    """``grad_logits_i = e_i (h_i - d) / (s temp)``: the softmax's Jacobian, which is symmetric, times `grad_mask`."""
    for rows in _blocks(logits):
        tau = _of(temp, rows)
        chosen, _, e, s = _exponentials(logits[rows], tau, _of(where, rows))
        h, finite = _from_selected(grad_mask[rows], chosen)
        d = (e * h).sum() / s
        grad_logits = e * (h - d) / (s * Wide.of(tau))
        _finish(grad_logits, chosen, out[rows], finite)


def backward_temp(grad_mask: Array, logits: Array, temp: Array, where: Array | None, out: Array) -> None:
    """``grad_temp = -sum_i grad_logits_i z_i / temp``, summed over the rows that share a temperature.

    By the chain rule through ``t_i = z_i / temp``: ``d t_i / d temp = -z_i / temp**2``, and ``w_m`` drops out because
    the gradient of a row sums to zero. `out` has shape (temps,); each of its entries belongs to ``rows // temps``
    neighbouring rows.
    """
    parts = []
    for rows in _blocks(logits):
        tau = Wide.of(_of(temp, rows))
        chosen, z, e, s = _exponentials(logits[rows], _of(temp, rows), _of(where, rows))
        h, finite = _from_selected(grad_mask[rows], chosen)
        d = (e * h).sum() / s
        grad_temp = (e * (h - d) * -z).sum() / (s * tau * tau)
        parts.append(grad_temp.replace(chosen.poisoned | ~finite, np.nan))
    per_row = Wide(*(np.concatenate(part).reshape(len(out), -1) for part in zip(*parts, strict=True)))
    _store(per_row.sum().rounded(out.dtype)[:, 0], out)


def double_backward(
    grad_grad_logits: Array,
    grad_mask: Array,
    logits: Array,
    temp: Array,
    where: Array | None,
    out_grad_mask: Array,
    out_logits: Array,
) -> None:
    """The gradient of `backward` itself: ``v = grad_grad_logits`` arrives, gradients of grad_mask and logits leave.

    With ``J = diag(p) - p p^T``, ``backward`` is ``J g / temp``. J is symmetric, so grad_mask receives ``J v / temp``.
    The logits receive ``J [v g - v <p, g> - g <p, v>] / temp**2``; J removes constants, hence, with both cotangents
    measured from their mean (``a = h - <p, h>`` for g, ``b`` likewise for v), the bracket is ``a b`` plus a constant::

        grad_grad_mask_i = p_i b_i / temp        grad_logits_i = p_i (a_i b_i - sum_j p_j a_j b_j) / temp**2
    """
    for rows in _blocks(logits):
        tau = _of(temp, rows)
        chosen, _, e, s = _exponentials(logits[rows], tau, _of(where, rows))
        h, finite = _from_selected(grad_mask[rows], chosen)
        k, finite_v = _from_selected(grad_grad_logits[rows], chosen)
        a = h - (e * h).sum() / s
        b = k - (e * k).sum() / s
        ab = a * b
        scale = s * Wide.of(tau)
        _finish(e * b / scale, chosen, out_grad_mask[rows], finite_v)
        grad_logits = e * (ab - (e * ab).sum() / s) / (scale * Wide.of(tau))
        _finish(grad_logits, chosen, out_logits[rows], finite & finite_v)


def _exponentials(logits: Array, temp: Array, where: Array | None) -> tuple[_Chosen, Wide, Wide, Wide]:
    """The choice, ``z = w - w_m``, ``e = exp(z / temp)`` (0 at excluded entries) and ``s = sum(e)``."""
    chosen = _choose(logits, where)
    z = Wide.of(chosen.w) - Wide.of(chosen.at(chosen.w))
    e = (z / Wide.of(temp)).exp().replace(~chosen.candidates, 0.0)
    s = e.sum().replace(chosen.index < 0, 1.0)
    return chosen, z, e, s


def _from_selected(cotangent: Array, chosen: _Chosen) -> tuple[Wide, Array]:
    """The cotangent measured from the selected entry, and whether a row's candidates hold finite values only."""
    g = np.where(chosen.candidates, cotangent.astype(np.float64), 0.0)
    finite = np.all(np.isfinite(g), axis=-1, keepdims=True)
    g = np.where(finite, g, 0.0)
    h = Wide.of(g) - Wide.of(chosen.at(g))
    return h.replace(~chosen.candidates, 0.0), finite


def _finish(value: Wide, chosen: _Chosen, out: Array, finite: Array | bool = True) -> None:
    """Round once, into `out`: exact zeros at excluded entries, NaN where the row calls for it."""
    rounded = np.where(chosen.candidates, value.rounded(out.dtype), 0.0)
    rounded[chosen.candidates & ~np.asarray(finite)] = np.nan
    _store(np.where(chosen.poisoned, np.nan, rounded), out)


def _store(rounded: Array, out: Array) -> None:
    """Values that `out` holds exactly; too large ones become infinite."""
    with np.errstate(over="ignore"):
        out[...] = rounded


def _blocks(logits: Array) -> Iterator[slice]:
    """Slices of rows of some 16,000 elements: what a processor's cache holds of the temporaries."""
    rows, choices = logits.shape
    step = max(1, 16384 // choices)
    for start in range(0, rows, step):
        yield slice(start, start + step)


def _of(values: Any, rows: slice) -> Any:
    """The part of `temp` (one value, or one a row) or of `where` that belongs to a block of rows."""
    if values is None or values.ndim == 2:
        return None if values is None else values[rows if len(values) > 1 else slice(None)]
    return values[rows if len(values) > 1 else slice(None), None]


# ------------------------------------------------------------------------------------------------ the arithmetic

_EXPONENT_OF_ZERO = -(2**40)
_PRECISION = {"float16": (11, -14), "bfloat16": (8, -126), "float32": (24, -126), "float64": (53, -1022)}


class Wide(NamedTuple):
    """Numbers ``(hi + lo) 2**exponent`` with 106 significant bits and no overflow or underflow.

    ``hi`` is 0 or of magnitude [1/2, 1), ``lo`` what is left, at most half a unit in the last place of ``hi``. Sums and
    products are the classical error-free transformations (Dekker 1971; Knuth, TAOCP 4.2.2; Hida, Li and Bailey 2001).
    """

    hi: Array
    lo: Array
    exponent: Array

    @classmethod
    def of(cls, values: npt.ArrayLike) -> Wide:
        """Exactly the given float64 values."""
        values = np.asarray(values, dtype=np.float64)
        return cls._normal(values, np.zeros_like(values), np.int64(0))

    @classmethod
    def _normal(cls, hi: Array, lo: Array, exponent: Any) -> Wide:
        """Renormalised; |lo| <= |hi| is assumed."""
        total = hi + lo
        lo = lo - (total - hi)
        mantissa, shift = np.frexp(total)
        exponent = np.where(mantissa == 0.0, _EXPONENT_OF_ZERO, exponent + shift)
        return cls(mantissa, np.ldexp(lo, -shift), exponent)

    def _aligned(self, exponent: Array) -> tuple[Array, Array]:
        """Both parts in units of ``2**exponent``; what is more than 2000 bits below becomes 0."""
        shift = np.maximum(self.exponent - exponent, -2000).astype(np.int32)
        return np.ldexp(self.hi, shift), np.ldexp(self.lo, shift)

    def __neg__(self) -> Wide:
        return Wide(-self.hi, -self.lo, self.exponent)

    def __add__(self, other: Wide) -> Wide:  # type: ignore[override]
        exponent = np.maximum(self.exponent, other.exponent)
        (a, a_lo), (b, b_lo) = self._aligned(exponent), other._aligned(exponent)
        s, s_lo = _two_sum(a, b)
        t, t_lo = _two_sum(a_lo, b_lo)
        s, s_lo = _two_sum(s, s_lo + t)
        return Wide._normal(s, s_lo + t_lo, exponent)

    def __sub__(self, other: Wide) -> Wide:
        return self + -other

    def __mul__(self, other: Wide) -> Wide:  # type: ignore[override]
        p, p_lo = _two_prod(self.hi, other.hi)
        p_lo = p_lo + (self.hi * other.lo + self.lo * other.hi)
        return Wide._normal(p, p_lo, self.exponent + other.exponent)

    def __truediv__(self, other: Wide) -> Wide:
        """Long division: three quotient digits of 53 bits each."""
        quotient, rest = None, self
        for _ in range(3):
            digit = Wide._normal(rest.hi / other.hi, np.zeros(()), rest.exponent - other.exponent)
            quotient = digit if quotient is None else quotient + digit
            rest = rest - digit * other
        assert quotient is not None
        return quotient

    def sum(self) -> Wide:
        """Sum over the last axis, which stays with length 1; in pairs, so that the error grows with log K."""
        terms = self
        while (n := terms.hi.shape[-1]) > 1:
            pairs = Wide(*(part[..., : n // 2] for part in terms)) + Wide(*(part[..., n - n // 2 :] for part in terms))
            odd = [part[..., n // 2 : n - n // 2] for part in terms]  # the middle one, if n is odd
            terms = Wide(*(np.concatenate(both, axis=-1) for both in zip(pairs, odd, strict=True)))
        return terms

    def exp(self) -> Wide:
        """``exp(x) = 2**n exp(r)``, ``n = round(x / ln 2)``; exp(r) from exp(r / 512) by nine squarings.

        The squarings work on ``y = exp - 1``, as ``2 y + y**2``, which keeps them from losing bits. Below -200,000
        the result is an exact 0: no factor in this file can lift ``exp(-200000)`` back into the range of float64.
        """
        value = np.ldexp(self.hi, np.clip(self.exponent, -100, 100).astype(np.int32))
        vanishes = value < -200_000.0
        n = np.rint(np.where(vanishes, 0.0, value) / float(_LN2.hi * 2.0 ** float(_LN2.exponent)))
        r = self.replace(vanishes, 0.0) - Wide.of(n) * _LN2
        small = r._replace(exponent=r.exponent - 9)
        y = Wide.of(np.zeros_like(value))
        for coefficient in _INVERSE_FACTORIALS:
            y = small * (coefficient + y)
        for _ in range(9):
            y = y._replace(exponent=y.exponent + 1) + y * y
        power = Wide.of(1.0) + y
        return power._replace(exponent=power.exponent + n.astype(np.int64)).replace(vanishes, 0.0)

    def replace(self, condition: Array, value: float) -> Wide:
        """A copy that holds `value` wherever `condition` is true."""
        return Wide(*(np.where(condition, new, old) for new, old in zip(Wide.of(value), self, strict=True)))

    def rounded(self, dtype: Any) -> Array:
        """The nearest number of `dtype`, ties to even, as a float64: rounded once, subnormals included."""
        precision, lowest = _PRECISION[np.dtype(dtype).name]
        unit = np.maximum(self.exponent, lowest + 1) - precision  # exponent of the last place
        shift = np.maximum(self.exponent - unit, -2000).astype(np.int32)
        places = np.ldexp(self.hi, shift)
        below = np.floor(places)
        broken_tie = (places - below == 0.5) & (self.lo != 0.0)
        nearest = np.where(broken_tie, below + (self.lo > 0.0), np.rint(places))
        with np.errstate(over="ignore"):
            return np.asarray(np.ldexp(nearest, np.clip(unit, -3000, 3000).astype(np.int32)))


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """``a + b = s + error`` exactly."""
    s = a + b
    b_part = s - a
    return s, (a - (s - b_part)) + (b - b_part)


def _two_prod(a: Array, b: Array) -> tuple[Array, Array]:
    """``a * b = p + error`` exactly, for mantissas: Veltkamp's split cannot overflow there."""
    p = a * b
    (a1, a2), (b1, b2) = _split(a), _split(b)
    return p, ((a1 * b1 - p) + a1 * b2 + a2 * b1) + a2 * b2


def _split(a: Array) -> tuple[Array, Array]:
    scaled = 134217729.0 * a  # 2**27 + 1
    high = scaled - (scaled - a)
    return high, a - high


def _constant(exact: Fraction) -> Wide:
    hi = float(exact)
    return Wide._normal(np.asarray(hi), np.asarray(float(exact - Fraction(hi))), np.int64(0))


_LN2 = _constant(Fraction(int("B17217F7D1CF79ABC9E3B39803F2F6AF40F343267298B62D", 16), 2**192))
_INVERSE_FACTORIALS = [
    _constant(Fraction(1, factorial)) for factorial in (3628800, 362880, 40320, 5040, 720, 120, 24, 6, 2, 1)
]
