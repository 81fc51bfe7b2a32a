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

import numpy as np

from npselect._modes import in_usual_modes
from npselect._oracle import drawn
from npselect._oracle import noise as _noise
from npselect._oracle import rotation as _rotation
from npselect._oracle.noise import Noise, perturbed
from npselect._oracle.rounding import evaluate, evaluate_sums
from npselect._oracle.rows import INVALID, Array, Indices, Rows, choose, cotangent, finish, given
from npselect._oracle.weights import Number, exponentials, from_selected

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

# ------------------------------------------------------------------------------------------------ the hard choice


@in_usual_modes
def choice(logits: Array, noise: Noise, index: Indices | None, where: Array | None, out: Indices) -> None:
    """``choice = argmax(w)`` of each row into `out`, int64 of shape (rows,), or why none: EMPTY, INVALID or REFUSED.

    It is that of the largest ``logits + noise`` or, if `index` is given instead of noise, what that names: a candidate
    or, in a row that is offered none, -1 (EMPTY).
    """
    rows = choose(perturbed(logits, noise), where)
    out[...] = (rows.index if index is None else given(index[:, None], rows))[:, 0]


@in_usual_modes
def index(logits: Array, noise: Noise, where: Array | None, out: Indices) -> None:
    """``index = argmax(w)`` of each row into `out`, int64 of shape (rows,); -1 where nothing is selected."""
    out[...] = np.maximum(choose(perturbed(logits, noise), where).index[:, 0], -1)


@in_usual_modes
def mask_at(choice: Indices, out: Array) -> None:
    """``mask = one_hot(choice)``, exactly: a row of +0 with a single 1; zeros if it is EMPTY, NaN if it is INVALID."""
    one_hot = np.arange(out.shape[-1]) == choice[:, None]
    out[...] = np.where(choice[:, None] == INVALID, np.nan, one_hot.astype(np.float64))


@in_usual_modes
def mask(logits: Array, noise: Noise, where: Array | None, out: Array) -> None:
    """``mask = one_hot(argmax(w))``, exactly: a row of +0 with a single 1."""
    mask_at(choose(perturbed(logits, noise), where).index[:, 0], out)


# ------------------------------------------------------------------------------------------------ the soft passes
# Each formula is written for a kind of numbers, `Wide` or `Digits`.


@in_usual_modes
def soft(logits: Array, noise: Noise, temp: Array, where: Array | None, out: Array) -> None:
    """``probs = softmax(logits / temp)``: ``p_i = e_i / s``."""

    def formula(number: type[Number], rows: Rows) -> list[Number]:
        _, e, s = exponentials(number, rows)
        return [e / s]

    rows = choose(perturbed(logits, noise), where, temp)
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
        _, e, s = exponentials(number, rows)
        h = from_selected(number, rows, grad_mask)
        return [number.of(scale) * e * (s * h - (e * h).sum()) / (s * s * number.of(rows.temp))]

    rows = choose(perturbed(logits, noise), where, temp)
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
        z, e, s = exponentials(number, rows)
        h = from_selected(number, rows, grad_mask)
        tau = number.of(rows.temp)
        grad_temp = -number.of(scale) * (e * (s * h - (e * h).sum()) * z).sum() / (s * s * tau * tau)
        return [grad_temp]

    rows = choose(perturbed(logits, noise), where, temp)
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
        _, e, s = exponentials(number, rows)
        h, k = from_selected(number, rows, grad_mask), from_selected(number, rows, grad_grad_logits)
        tau = number.of(rows.temp)
        a, b = s * h - (e * h).sum(), s * k - (e * k).sum()
        ab = (a * b).replace(~rows.candidates, 0.0)
        e_scaled = number.of(scale) * e
        return [e_scaled * b / (s * s * tau), e_scaled * (s * ab - (e * ab).sum()) / (s * s * s * s * tau * tau)]

    rows = choose(perturbed(logits, noise), where, temp)
    (g, finite), (v, finite_v) = cotangent(grad_mask, rows), cotangent(grad_grad_logits, rows)
    grad_grad_mask, grad_logits = evaluate(formula, [rows, g, v], out_logits.dtype, rows.candidates)
    finish(grad_grad_mask, rows, out_grad_mask, finite_v)
    finish(grad_logits, rows, out_logits, finite & finite_v)


@in_usual_modes
def mixture(logits: Array, temp: Array, where: Array | None, unimix: float, out: Array) -> None:
    """``probs_i = (1 - unimix) p_i + unimix / n`` at the n candidates, with ``p = softmax(logits / temp)``."""

    def formula(number: type[Number], rows: Rows) -> list[Number]:
        _, e, s = exponentials(number, rows)
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


# ------------------------------------------------------------------------------------------------ what was drawn

reinmax = in_usual_modes(drawn.reinmax)
gapped = in_usual_modes(drawn.gapped)
gapped_soft = in_usual_modes(drawn.gapped_soft)
gumbel_rao = in_usual_modes(drawn.gumbel_rao)

# ------------------------------------------------------------------------------------------------ vectors

rotation = in_usual_modes(_rotation.rotation)


# ------------------------------------------------------------------------------------------------ noise

gumbel = in_usual_modes(_noise.gumbel)
