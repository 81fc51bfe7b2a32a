"""The oracle: straight-through selection in plain NumPy, to learn from and to judge by.

One row is one selection problem: K numbers ``w`` (the logits) of which one is chosen. The forward pass is hard, the
backward pass is that of a softmax at temperature ``temp`` (Bengio, Léonard and Courville 2013; Jang, Gu and Poole
2017). With ``m`` the index of the largest candidate (the lowest such index) and ``g`` the cotangent of the mask::

    z_i = w_i - w_m        t_i = z_i / temp        e_i = exp(t_i)        s = sum_i e_i        p_i = e_i / s
    h_i = g_i - g_m        d = sum_i e_i h_i / s   grad_logits_i = e_i (h_i - d) / (s temp)

The textbook writes the last line as ``p (g - sum(p g)) / temp``. Both are the same number on paper; measuring the
cotangent from the selected entry keeps its digits where a row is saturated or where ``g`` is nearly constant.

Every function below works on rows: two-dimensional arrays of shape (rows, K) in any of the four floating dtypes. The
formulas are computed with 106 bits and an exponent that neither overflows nor underflows, whatever the dtype of the
input, and rounded once. (binary64 inside would do for most rows of 32-bit numbers; but where ``h_i`` almost equals
``d``, as many bits are lost as cancel.) The numbers know how far off they may be (`npselect._oracle.numbers`); a row in
which that could show is computed again with as many digits as it takes (`npselect._oracle.rounding`). So every result
is at most 0.501 units in the last place from the exact one. Nothing is imported but NumPy, those numbers and their
rounding.

Noise may be added to the logits before all else: ``w = logits + noise``, rounded in float64 for float64 logits, else in
float32. It is given, or drawn here (`gumbel`), and the formulas see nothing but w. Those of `reinmax` and `gapped` see
the logits as they are, and what was chosen (`choice`). A gradient may have a factor, `scale`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np

from npselect._modes import in_usual_modes
from npselect._oracle import rotation as _rotation
from npselect._oracle.numbers import Digits, Wide
from npselect._oracle.philox import words
from npselect._oracle.rounding import evaluate, evaluate_sums
from npselect._oracle.rows import INVALID, Array, Indices, Rows, choose, cotangent, finish, given

__all__ = [
    "backward",
    "backward_temp",
    "choice",
    "double_backward",
    "gapped",
    "gapped_soft",
    "gumbel",
    "gumbel_rao",
    "index",
    "log",
    "mask",
    "mask_at",
    "mixture",
    "reinmax",
    "rotation",
    "soft",
]

Number = TypeVar("Number", Wide, Digits)


class StreamNumbers(Protocol):
    """Noise that is yet to be drawn: which numbers of which seed's stream it is."""

    @property
    def seed(self) -> int:
        """Of the stream."""

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """Of the noise."""

    def numbers(self, start: int, stop: int) -> Array:
        """Those of some rows."""


@runtime_checkable
class ScaledNoise(Protocol):
    """Noise that is multiplied by a number, and rounded, before it is added."""

    @property
    def noise(self) -> Array | StreamNumbers:
        """Without the factor."""

    @property
    def scale(self) -> float:
        """The factor."""


Noise: TypeAlias = Array | StreamNumbers | ScaledNoise | None


class Draws(Protocol):
    """Noise of several samples: an array, or numbers of a stream that follow one another."""

    def __len__(self) -> int: ...

    def __getitem__(self, sample: int, /) -> Array | StreamNumbers: ...


# ------------------------------------------------------------------------------------------------ the hard choice


@in_usual_modes
def choice(logits: Array, noise: Noise, index: Indices | None, where: Array | None, out: Indices) -> None:
    """``choice = argmax(w)`` of each row into `out`, int64 of shape (rows,), or why none: EMPTY, INVALID or REFUSED.

    It is that of the largest ``logits + noise`` or, if `index` is given instead of noise, what that names: a candidate
    or, in a row that is offered none, -1 (EMPTY).
    """
    rows = choose(_perturbed(logits, noise), where)
    out[...] = (rows.index if index is None else given(index[:, None], rows))[:, 0]


@in_usual_modes
def index(logits: Array, noise: Noise, where: Array | None, out: Indices) -> None:
    """``index = argmax(w)`` of each row into `out`, int64 of shape (rows,); -1 where nothing is selected."""
    out[...] = np.maximum(choose(_perturbed(logits, noise), where).index[:, 0], -1)


@in_usual_modes
def mask_at(choice: Indices, out: Array) -> None:
    """``mask = one_hot(choice)``, exactly: a row of +0 with a single 1; zeros if it is EMPTY, NaN if it is INVALID."""
    one_hot = np.arange(out.shape[-1]) == choice[:, None]
    out[...] = np.where(choice[:, None] == INVALID, np.nan, one_hot.astype(np.float64))


@in_usual_modes
def mask(logits: Array, noise: Noise, where: Array | None, out: Array) -> None:
    """``mask = one_hot(argmax(w))``, exactly: a row of +0 with a single 1."""
    mask_at(choose(_perturbed(logits, noise), where).index[:, 0], out)


# ------------------------------------------------------------------------------------------------ the soft passes
# Each formula is written for a kind of numbers, `Wide` or `Digits`.


@in_usual_modes
def soft(logits: Array, noise: Noise, temp: Array, where: Array | None, out: Array) -> None:
    """``probs = softmax(logits / temp)``: ``p_i = e_i / s``."""

    def formula(number: type[Number], rows: Rows) -> list[Number]:
        _, e, s = _exponentials(number, rows)
        return [e / s]

    rows = choose(_perturbed(logits, noise), where, temp)
    (probs,) = evaluate(formula, [rows], out.dtype, rows.candidates)
    finish(probs, rows, out)


@in_usual_modes
def backward(
    grad_mask: Array, logits: Array, noise: Noise, temp: Array, where: Array | None, scale: float, out: Array
) -> None:
    """``grad_logits_i = p_i (h_i - d) / temp``: the softmax's Jacobian, which is symmetric, times `grad_mask`.

    With ``d = sum_j e_j h_j / s`` multiplied out, so that a difference that is exactly 0 comes out as 0::

        grad_logits_i = e_i (s h_i - sum_j e_j h_j) / (s**2 temp)

    and `scale` as a factor.
    """

    def formula(number: type[Number], rows: Rows, grad_mask: Array) -> list[Number]:
        _, e, s = _exponentials(number, rows)
        h = _from_selected(number, rows, grad_mask)
        return [number.of(scale) * e * (s * h - (e * h).sum()) / (s * s * number.of(rows.temp))]

    rows = choose(_perturbed(logits, noise), where, temp)
    g, finite = cotangent(grad_mask, rows)
    (grad_logits,) = evaluate(formula, [rows, g], out.dtype, rows.candidates)
    finish(grad_logits, rows, out, finite)


@in_usual_modes
def backward_temp(
    grad_mask: Array, logits: Array, noise: Noise, temp: Array, where: Array | None, scale: float, out: Array
) -> None:
    """``grad_temp = -sum_i grad_logits_i t_i``, summed over the rows that share a temperature.

    By the chain rule through ``t_i = z_i / temp``: ``d t_i / d temp = -z_i / temp**2``, and ``w_m`` drops out because
    the gradient of a row sums to zero. `out` has shape (temps,); each of its entries belongs to ``rows // temps``
    neighbouring rows.
    """

    def formula(number: type[Number], rows: Rows, grad_mask: Array) -> list[Number]:
        z, e, s = _exponentials(number, rows)
        h = _from_selected(number, rows, grad_mask)
        tau = number.of(rows.temp)
        grad_temp = -number.of(scale) * (e * (s * h - (e * h).sum()) * z).sum() / (s * s * tau * tau)
        return [grad_temp]

    rows = choose(_perturbed(logits, noise), where, temp)
    g, finite = cotangent(grad_mask, rows)
    share = len(logits) // len(out)
    out[...] = evaluate_sums(formula, [rows, g], out.dtype, g.shape, share)
    out[np.any(((rows.index == INVALID) | ~finite).reshape(-1, share), axis=-1)] = np.nan


@in_usual_modes
def double_backward(
    grad_grad_logits: Array,
    grad_mask: Array,
    logits: Array,
    noise: Noise,
    temp: Array,
    where: Array | None,
    scale: float,
    out_grad_mask: Array,
    out_logits: Array,
) -> None:
    """The gradient of `backward` itself: ``v = grad_grad_logits`` arrives, gradients of grad_mask and logits leave.

    With ``J = diag(p) - p p^T``, ``backward`` is ``J g / temp``. J is symmetric, so grad_mask receives ``J v / temp``.
    The logits receive ``J [v g - v <p, g> - g <p, v>] / temp**2``; J removes constants, hence, with both cotangents
    measured from their mean (``a = h - <p, h>`` for g, ``b`` likewise for v), the bracket is ``a b`` plus a constant::

        grad_grad_mask_i = p_i b_i / temp        grad_logits_i = p_i (a_i b_i - sum_j p_j a_j b_j) / temp**2

    Below, ``a``, ``b`` and their product carry a factor s each, which the last lines take out again.
    """

    def formula(number: type[Number], rows: Rows, grad_mask: Array, grad_grad_logits: Array) -> list[Number]:
        _, e, s = _exponentials(number, rows)
        h, k = _from_selected(number, rows, grad_mask), _from_selected(number, rows, grad_grad_logits)
        tau = number.of(rows.temp)
        a, b = s * h - (e * h).sum(), s * k - (e * k).sum()
        ab = (a * b).replace(~rows.candidates, 0.0)
        e_scaled = number.of(scale) * e
        return [e_scaled * b / (s * s * tau), e_scaled * (s * ab - (e * ab).sum()) / (s * s * s * s * tau * tau)]

    rows = choose(_perturbed(logits, noise), where, temp)
    (g, finite), (v, finite_v) = cotangent(grad_mask, rows), cotangent(grad_grad_logits, rows)
    grad_grad_mask, grad_logits = evaluate(formula, [rows, g, v], out_logits.dtype, rows.candidates)
    finish(grad_grad_mask, rows, out_grad_mask, finite_v)
    finish(grad_logits, rows, out_logits, finite & finite_v)


@in_usual_modes
def reinmax(grad_mask: Array, logits: Array, choice: Indices, temp: Array, where: Array | None, out: Array) -> None:
    """The second-order gradient of a sampled mask, ReinMax (Liu, Dong, Liu, Yu and Gao 2023, arXiv:2304.08612).

    Some column d, `choice`, was drawn from ``p = softmax(logits)``. With ``q = softmax(logits / temp)``, D the one-hot
    of d and ``J(x) g = x (g - <x, g>)``, the published gradient is ``2 J((q + D) / 2) g - J(p) g / 2``. Constants in g
    drop out of either term, so g may be measured from the selected entry, ``h_i = g_i - g_d``; as ``h_d = 0``, D drops
    out of ``<q + D, h>``. With ``a = <q, h>`` and ``b = <p, h>``, multiplied out and sorted by what it is made of::

        grad_logits_i = ((2 q_i - p_i) h_i - (q_i a - p_i b) - D_i a) / 2

    The entries sum to 0, and no ``1 - p_d`` is formed, which a saturated row would have no digits of. At ``temp = 1``
    the second term is exactly 0; what is left is the gradient of ZGR (Shekhovtsov 2023): ``p_i h_i / 2`` and, at d,
    minus the sum of the others. There is no ``1 / temp``: that is how it was published.
    """

    def formula(number: type[Number], rows: Rows, grad_mask: Array, choice: Indices) -> list[Number]:
        _, e, s = _exponentials(number, rows)
        _, e_1, s_1 = _exponentials(number, replace(rows, temp=np.ones_like(rows.temp)))
        h = _from_selected(number, replace(rows, index=choice), grad_mask)
        q, p = e / s, e_1 / s_1
        a, b = (q * h).sum(), (p * h).sum()
        bent = (q * a - p * b).replace(rows.temp == 1.0, 0.0)
        drawn = number.of((np.arange(grad_mask.shape[-1]) == choice).astype(np.float64))
        return [((q + q - p) * h - bent - drawn * a) * number.of(0.5)]

    rows = choose(logits, where, temp)
    g, finite = cotangent(grad_mask, rows)
    (grad_logits,) = evaluate(formula, [rows, g, choice[:, None]], out.dtype, rows.candidates)
    finish(grad_logits, replace(rows, index=choice[:, None]), out, finite)


@in_usual_modes
def gapped(
    grad_mask: Array, logits: Array, choice: Indices, temp: Array, where: Array | None, gap: float, out: Array
) -> None:
    """The gradient of GST (Fan, Chi, Rudnicky and Ramadge 2022): ``grad_logits_i = p_i (h_i - d) / temp``.

    Some column, `choice`, was drawn from ``softmax(logits)``. p are the probabilities of `gapped_soft`, and ``h_i`` is
    the cotangent measured from the drawn entry, which has the largest of them.
    """

    def formula(number: type[Number], rows: Rows, grad_mask: Array, choice: Indices) -> list[Number]:
        e, s = _gapped_exponentials(number, rows, choice, gap)
        h = _from_selected(number, replace(rows, index=choice), grad_mask)
        return [e * (s * h - (e * h).sum()) / (s * s * number.of(rows.temp))]

    rows = choose(logits, where, temp)
    g, finite = cotangent(grad_mask, rows)
    (grad_logits,) = evaluate(formula, [rows, g, choice[:, None]], out.dtype, rows.candidates)
    finish(grad_logits, replace(rows, index=choice[:, None]), out, finite)


@in_usual_modes
def gapped_soft(logits: Array, choice: Indices, temp: Array, where: Array | None, gap: float, out: Array) -> None:
    """``p_i = e_i / s`` of logits in which the drawn entry leads by a gap.

    The drawn entry gets the largest logit, and no other stays above that less the gap::

        e_i = min(exp((w_i - w_m) / temp), exp(-gap / temp)),        1 at the drawn entry

    A gap of 0 stands for the adaptive one, ``-log(1 - p_d) / p_d``, p_d being what the drawn entry has of
    ``softmax(logits)``; where it is the only candidate, that is infinite.
    """

    def formula(number: type[Number], rows: Rows, choice: Indices) -> list[Number]:
        e, s = _gapped_exponentials(number, rows, choice, gap)
        return [e / s]

    rows = choose(logits, where, temp)
    (probs,) = evaluate(formula, [rows, choice[:, None]], out.dtype, rows.candidates)
    finish(probs, replace(rows, index=choice[:, None]), out)


@in_usual_modes
def mixture(logits: Array, temp: Array, where: Array | None, unimix: float, out: Array) -> None:
    """``probs_i = (1 - unimix) p_i + unimix / n`` at the n candidates, with ``p = softmax(logits / temp)``."""

    def formula(number: type[Number], rows: Rows) -> list[Number]:
        _, e, s = _exponentials(number, rows)
        n = number.of(np.maximum(rows.candidates.sum(axis=-1, keepdims=True), 1).astype(np.float64))
        return [number.of(1.0 - unimix) * e / s + number.of(unimix) / n]

    rows = choose(logits, where, temp)
    (probs,) = evaluate(formula, [rows], out.dtype, rows.candidates)
    finish(probs, rows, out)


@in_usual_modes
def log(x: Array, out: Array) -> None:
    """``out = log(x)`` of numbers from 0 to 1; -inf of 0."""

    def formula(number: type[Number], x: Array) -> list[Number]:
        return [number.of(x).log()]

    values = x.astype(np.float64)
    usable = values > 0
    (logs,) = evaluate(formula, [np.where(usable, values, 1.0)], out.dtype, usable)
    out[...] = np.where(usable, logs, np.where(values == 0, -np.inf, np.nan))


def _gapped_exponentials(number: type[Number], rows: Rows, choice: Indices, gap: float) -> tuple[Number, Number]:
    """The e of `gapped_soft`, 0 at excluded entries, and their sum."""
    drawn = np.arange(rows.w.shape[-1]) == choice
    _, e, _ = _exponentials(number, rows)
    minus_gap = number.of(np.full_like(rows.temp, -gap)) if gap else _minus_adaptive_gap(number, rows, drawn)
    cap = (minus_gap / number.of(rows.temp)).exp()
    e = e.least(cap).replace(~rows.candidates, 0.0).replace(drawn & rows.candidates, 1.0)
    return e, e.sum().replace(rows.index < 0, 1.0)


def _minus_adaptive_gap(number: type[Number], rows: Rows, drawn: Array) -> Number:
    """``log(1 - p_d) / p_d``, p_d being the drawn entry's share of ``softmax(logits)``.

    Where the drawn entry leads the others by more than 100, its gap is that to them, but for a part in 10**40: there 0
    is returned, for no other logit need be lowered. Where it is more than 20 below the largest, p_d is less than
    2**-28, and four terms of ``-1 - p_d / 2 - p_d**2 / 3 - p_d**3 / 4 - ...`` will do: the next is below 2**-114.
    """
    _, e, s = _exponentials(number, replace(rows, temp=np.ones_like(rows.temp)))
    own = np.max(np.where(drawn, rows.w, -np.inf), axis=-1, keepdims=True)
    rival = np.max(np.where(rows.candidates & ~drawn, rows.w, -np.inf), axis=-1, keepdims=True)
    leads, trails = own - 100.0 > rival, own + 20.0 < rival
    p, rest = e.replace(~drawn, 0.0).sum() / s, e.replace(drawn, 0.0).sum() / s
    series = number.of(-1.0) - p * (number.of(0.5) + p * (number.of(1.0) / number.of(3.0) + p * number.of(0.25)))
    logarithm = rest.replace(leads | trails, 0.5).log() / p.replace(leads | trails, 0.5)
    return logarithm.where(~trails, series).replace(leads, 0.0)


@in_usual_modes
def gumbel_rao(
    grad_mask: Array, logits: Array, choice: Indices, draws: Draws, temp: Array, where: Array | None, out: Array
) -> None:
    """The Gumbel-softmax's mean gradient given the choice, Gumbel-Rao: ``grad_logits_i = mean_s p_i (h_i - d) / temp``.

    M. B. Paulus, C. J. Maddison and A. Krause, ICLR 2021, arXiv:2010.04838.

    Some column m, `choice`, was drawn from ``softmax(logits)``. Of the noisy logits w, given that w_m is the largest,
    a sample is made of independent Gumbel noise G, one array of `draws`. With ``Z = sum_i exp(logits_i)``::

        w_m = log(Z) + G_m        w_i = -log(exp(-w_m) + exp(-logits_i - G_i))

    For the largest of all ``logits_i + G_i`` has the law of ``log(Z) + G_m``, and any other is a Gumbel variable cut
    off there: by the exponential race, ``exp(-w_i) = exp(-w_m) + exp(-logits_i - G_i)`` (Maddison, Tarlow and Minka
    2014). Of each sample p is ``softmax(w / temp)``, whose exponents from the selected entry are::

        t_i = (w_i - w_m) / temp = -log(1 + exp(u_i)) / temp        u_i = log(Z) + G_m - logits_i - G_i

    The Jacobian is that of a softmax at w, and no more: the derivative of w for the logits is 1, as of logits to which
    noise is added. A sum over the samples in rising order; cotangents are measured from m.
    """

    def formula(number: type[Number], rows: Rows, grad_mask: Array, choice: Indices, draws: Array) -> list[Number]:
        z, _, s = _exponentials(number, replace(rows, temp=np.ones_like(rows.temp)))
        drawn = replace(rows, index=choice)
        h, others = _from_selected(number, drawn, grad_mask), np.arange(grad_mask.shape[-1]) != choice
        distance, tau = s.log() - z, number.of(rows.temp)
        total = number.of(np.zeros_like(grad_mask))
        for i in range(draws.shape[1]):
            noise = np.where(rows.candidates, draws[:, i], 0.0)
            selected = drawn.selected(noise)
            u = distance + (number.of(selected) - number.of(noise))
            below = ~u.is_positive()
            positive = u.replace(below, 0.0)
            x = (u.replace(~below, 0.0) - positive).exp()  # exp(-|u|)
            t = -(positive + x.log1p()) / tau
            e = t.replace(~others, 0.0).exp().replace(~rows.candidates, 0.0)
            s = e.sum().replace(rows.index < 0, 1.0)
            total = total + e * (s * h - (e * h).sum()) / (s * s * tau)
        return [total / number.of(np.float64(draws.shape[1]))]

    rows = choose(logits, where, temp)
    without = choice[:, None] < 0
    rows = replace(rows, candidates=rows.candidates & ~without, index=np.where(without, choice[:, None], rows.index))
    g, finite = cotangent(grad_mask, rows)
    noises = np.stack([_drawn(draws[i], len(logits)) for i in range(len(draws))], axis=1).astype(np.float64)
    (grad_logits,) = evaluate(formula, [rows, g, choice[:, None], noises], out.dtype, rows.candidates)
    finish(grad_logits, replace(rows, index=choice[:, None]), out, finite)


def _exponentials(number: type[Number], rows: Rows) -> tuple[Number, Number, Number]:
    """``z = w - w_m``, ``e = exp(z / temp)`` (0 at excluded entries) and ``s = sum(e)``."""
    z = number.of(rows.w) - number.of(rows.selected(rows.w))
    e = (z / number.of(rows.temp)).exp().replace(~rows.candidates, 0.0)
    return z, e, e.sum().replace(rows.index < 0, 1.0)


def _from_selected(number: type[Number], rows: Rows, cotangent: Array) -> Number:
    """``h = g - g_m``, 0 at excluded entries."""
    return (number.of(cotangent) - number.of(rows.selected(cotangent))).replace(~rows.candidates, 0.0)


# ------------------------------------------------------------------------------------------------ vectors

rotation = in_usual_modes(_rotation.rotation)


# ------------------------------------------------------------------------------------------------ noise


@in_usual_modes
def gumbel(seed: int, first: int, out: Array) -> None:
    """The noise ``G_n = -log(-log u_n)`` of the numbers n from `first` on, the nearest float64, rounded once more.

    The uniforms are those of the counter-based generator Philox4x32-10 (Salmon, Moraes, Dror and Shaw 2011): the key is
    the seed, low word first, the counter ``n // 2`` in two words, followed by two zeros. Of the four words that come
    out, an even n has the first two, an odd n the others, low word first; they make a `word` of 64 bits, and::

        u = ((word >> 11) | 1) 2**-53        G = -log(-log u)
    """
    out[...] = _gumbel(words(seed, np.uint64(first) + np.arange(len(out), dtype=np.uint64)))


def _gumbel(bits: Array) -> Array:
    """G of each 64 bits, in float64."""

    def formula(number: type[Number], u: Array) -> list[Number]:
        return [-(-number.of(u).log()).log()]

    u = ((bits.reshape(-1, 1) >> 11) | 1).astype(np.float64) * 2.0**-53
    (g,) = evaluate(formula, [u], np.float64, np.ones(u.shape, np.bool_))
    return np.asarray(g.reshape(bits.shape))


def _perturbed(logits: Array, noise: Noise) -> Array:
    """``w = logits + noise``, in the type of the noise: none, an array, or the numbers of a stream yet to be drawn."""
    if noise is None:
        return logits
    scale = 1.0
    if not isinstance(noise, np.ndarray) and isinstance(noise, ScaledNoise):
        scale, noise = noise.scale, noise.noise
    added = _drawn(noise, len(logits))
    return np.asarray(logits.astype(added.dtype) + added.dtype.type(scale) * added)


def _drawn(noise: Array | StreamNumbers, rows: int) -> Array:
    """An array, or the numbers of a stream."""
    if isinstance(noise, np.ndarray):
        return noise
    return _gumbel(words(noise.seed, noise.numbers(0, rows))).astype(noise.dtype)
