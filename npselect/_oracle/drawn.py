"""The reference's gradients that depend on what was drawn: ReinMax, GST and Gumbel-Rao.

The notation is that of `npselect.reference`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from npselect._oracle.noise import Draws, drawn_numbers
from npselect._oracle.rounding import evaluate
from npselect._oracle.rows import Array, Indices, Rows, choose, cotangent, finish
from npselect._oracle.weights import Number, exponentials, from_selected

__all__ = ["gapped", "gapped_soft", "gumbel_rao", "reinmax"]


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
        _, e, s = exponentials(number, rows)
        _, e_1, s_1 = exponentials(number, replace(rows, temp=np.ones_like(rows.temp)))
        h = from_selected(number, replace(rows, index=choice), grad_mask)
        q, p = e / s, e_1 / s_1
        a, b = (q * h).sum(), (p * h).sum()
        bent = (q * a - p * b).replace(rows.temp == 1.0, 0.0)
        drawn = number.of((np.arange(grad_mask.shape[-1]) == choice).astype(np.float64))
        return [((q + q - p) * h - bent - drawn * a) * number.of(0.5)]

    rows = choose(logits, where, temp)
    g, finite = cotangent(grad_mask, rows)
    (grad_logits,) = evaluate(formula, [rows, g, choice[:, None]], out.dtype, rows.candidates)
    finish(grad_logits, replace(rows, index=choice[:, None]), out, finite)


def gapped(
    grad_mask: Array, logits: Array, choice: Indices, temp: Array, where: Array | None, gap: float, out: Array
) -> None:
    """The gradient of GST (Fan, Chi, Rudnicky and Ramadge 2022): ``grad_logits_i = p_i (h_i - d) / temp``.

    Some column, `choice`, was drawn from ``softmax(logits)``. p are the probabilities of `gapped_soft`, and ``h_i`` is
    the cotangent measured from the drawn entry, which has the largest of them.
    """

    def formula(number: type[Number], rows: Rows, grad_mask: Array, choice: Indices) -> list[Number]:
        e, s = _gappedexponentials(number, rows, choice, gap)
        h = from_selected(number, replace(rows, index=choice), grad_mask)
        return [e * (s * h - (e * h).sum()) / (s * s * number.of(rows.temp))]

    rows = choose(logits, where, temp)
    g, finite = cotangent(grad_mask, rows)
    (grad_logits,) = evaluate(formula, [rows, g, choice[:, None]], out.dtype, rows.candidates)
    finish(grad_logits, replace(rows, index=choice[:, None]), out, finite)


def gapped_soft(logits: Array, choice: Indices, temp: Array, where: Array | None, gap: float, out: Array) -> None:
    """``p_i = e_i / s`` of logits in which the drawn entry leads by a gap.

    The drawn entry gets the largest logit, and no other stays above that less the gap::

        e_i = min(exp((w_i - w_m) / temp), exp(-gap / temp)),        1 at the drawn entry

    A gap of 0 stands for the adaptive one, ``-log(1 - p_d) / p_d``, p_d being what the drawn entry has of
    ``softmax(logits)``; where it is the only candidate, that is infinite.
    """

    def formula(number: type[Number], rows: Rows, choice: Indices) -> list[Number]:
        e, s = _gappedexponentials(number, rows, choice, gap)
        return [e / s]

    rows = choose(logits, where, temp)
    (probs,) = evaluate(formula, [rows, choice[:, None]], out.dtype, rows.candidates)
    finish(probs, replace(rows, index=choice[:, None]), out)


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
        z, _, s = exponentials(number, replace(rows, temp=np.ones_like(rows.temp)))
        drawn = replace(rows, index=choice)
        h, others = from_selected(number, drawn, grad_mask), np.arange(grad_mask.shape[-1]) != choice
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
    noises = np.stack([drawn_numbers(draws[i], len(logits)) for i in range(len(draws))], axis=1).astype(np.float64)
    (grad_logits,) = evaluate(formula, [rows, g, choice[:, None], noises], out.dtype, rows.candidates)
    finish(grad_logits, replace(rows, index=choice[:, None]), out, finite)


def _gappedexponentials(number: type[Number], rows: Rows, choice: Indices, gap: float) -> tuple[Number, Number]:
    """The e of `gapped_soft`, 0 at excluded entries, and their sum."""
    drawn = np.arange(rows.w.shape[-1]) == choice
    _, e, _ = exponentials(number, rows)
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
    _, e, s = exponentials(number, replace(rows, temp=np.ones_like(rows.temp)))
    own = np.max(np.where(drawn, rows.w, -np.inf), axis=-1, keepdims=True)
    rival = np.max(np.where(rows.candidates & ~drawn, rows.w, -np.inf), axis=-1, keepdims=True)
    leads, trails = own - 100.0 > rival, own + 20.0 < rival
    p, rest = e.replace(~drawn, 0.0).sum() / s, e.replace(drawn, 0.0).sum() / s
    series = number.of(-1.0) - p * (number.of(0.5) + p * (number.of(1.0) / number.of(3.0) + p * number.of(0.25)))
    logarithm = rest.replace(leads | trails, 0.5).log() / p.replace(leads | trails, 0.5)
    return logarithm.where(~trails, series).replace(leads, 0.0)
