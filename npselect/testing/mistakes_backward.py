"""Mistakes of the backward pass, by their causes: what comes out in the place of ``p_i (g_i - <p, g>) / temp``."""

from __future__ import annotations

from functools import partial

import numpy as np

from npselect.testing import tolerance
from npselect.testing.aliases import Array
from npselect.testing.mistakes import (
    SHARES,
    Mistake,
    Mistakes,
    Rows,
    along_the_last_axis,
    candidates,
    gradient,
    log_probs,
    mask_of,
    mean,
    mixed,
    probs,
    read_in_c_order,
    uniform,
    weighted,
    where_inverted,
    without_where,
)
from npselect.testing.mistakes_forward import mixed_before_noise
from npselect.testing.relatives import relatives

__all__ = ["BACKWARD", "of_any", "with_noise"]


def _over_the_batch(q: Rows, axis: int | None = -1) -> Array:
    p = probs(q.w, q.temp, axis)
    return np.asarray(p * (q.g - np.sum(p * q.g)) / q.temp)


def _clamped(q: Rows, least: float) -> Array:
    return weighted(np.maximum(probs(q.w, q.temp), least), q.g, q.temp)


def _of_the_largest(q: Rows, k: int) -> Array:
    if k >= q.w.shape[-1]:
        return q.w
    return np.where(q.w >= np.partition(q.w, -k, axis=-1)[:, -k, None], q.w, -np.inf)


def _flushed(q: Rows) -> Array:
    tiny = tolerance.Format.of(q.question.logits.dtype).tiny

    def flush(values: Array) -> Array:
        return np.where(np.abs(values) < tiny, 0.0, values)

    p = flush(probs(q.w, q.temp))
    return flush(flush(p * (q.g - mean(p, q.g))) / q.temp)


def _mixtures(share: float) -> tuple[Mistake, ...]:
    """Differentiated; or in the place of the probabilities, over all choices or over the candidates."""
    return (
        lambda q: (1 - share) * gradient(q.g, q.w, q.temp),
        lambda q: weighted(mixed(probs(q.w, q.temp), 1 / q.w.shape[-1], share), q.g, q.temp),
        lambda q: weighted(mixed(probs(q.w, q.temp), uniform(q), share), q.g, q.temp),
    )


def of_any(right: Mistake) -> Mistakes:
    """Mistakes that can be made of the right gradient of any operator."""
    return (
        ("grad_mask is taken for contiguous in memory", lambda q: right(q._replace(g=read_in_c_order(q)[0]))),
        ("logits are taken for contiguous in memory", lambda q: right(q._replace(w=read_in_c_order(q)[1]))),
        ("arrays are taken for contiguous in memory", lambda q: right(_in_c_order(q))),
        ("temp is ignored, as though it were 1", lambda q: right(q._replace(temp=1.0))),
        ("the sign is flipped", lambda q: -right(q)),
        ("the gradient of the hard mask, which is 0", lambda q: np.zeros_like(q.g)),
        ("grad_mask is passed straight through (identity)", lambda q: q.g),
        ("where= is ignored", lambda q: right(q._replace(w=without_where(q)))),
        ("where= is taken for what is excluded", lambda q: right(q._replace(w=where_inverted(q)))),
        ("sum over the batch", lambda q: np.sum(right(q), axis=0, keepdims=True) + 0 * q.g),
        ("mean over the batch", lambda q: right(q) / len(q.w)),
        ("mean over the batch", lambda q: np.mean(right(q), axis=0, keepdims=True) + 0 * q.g),
        *((f"the gradient is clipped at {most:g}", lambda q, most=most: np.clip(right(q), -most, most))
          for most in (0.1, 1.0, 5.0, 10.0, 100.0)),
    )  # fmt: skip


def _in_c_order(q: Rows) -> Rows:
    g, w = read_in_c_order(q)
    return q._replace(g=g, w=w)


BACKWARD: Mistakes = (
    *of_any(lambda q: gradient(q.g, q.w, q.temp)),
    *relatives("reinmax", "gapped"),
    ("1/temp is missing", lambda q: gradient(q.g, q.w, q.temp) * q.temp),
    ("divided by temp twice", lambda q: gradient(q.g, q.w, q.temp) / q.temp),
    ("multiplied by temp instead of divided", lambda q: gradient(q.g, q.w, q.temp) * q.temp**2),
    ("the softmax is taken of logits, not of logits / temp", lambda q: gradient(q.g, q.w, 1.0) / q.temp),
    ("the softmax is taken of logits * temp", lambda q: gradient(q.g, q.w, 1 / q.temp) / q.temp**2),
    ("grad_mask is passed straight through (identity), over temp", lambda q: q.g / q.temp),
    ("probs * grad_mask / temp, without the mean", lambda q: probs(q.w, q.temp) * q.g / q.temp),
    (
        "mask instead of probs in the backward pass",
        lambda q: probs(q.w, q.temp) * (q.g - mean(mask_of(q.w), q.g)) / q.temp,
    ),
    (
        "mask instead of probs in the backward pass",
        lambda q: mask_of(q.w) * (q.g - mean(probs(q.w, q.temp), q.g)) / q.temp,
    ),
    ("no gradient to the candidates that were not selected", lambda q: mask_of(q.w) * gradient(q.g, q.w, q.temp)),
    (
        "grad_mask counts at the selected entry only",
        lambda q: weighted(probs(q.w, q.temp), mask_of(q.w) * candidates(q, q.g), q.temp),
    ),
    ("grad_mask is passed straight through to the selected entry only", lambda q: mask_of(q.w) * q.g),
    ("grad_mask is passed straight through to the selected entry only", lambda q: mask_of(q.w) * q.g / q.temp),
    *(("log-probabilities instead of probabilities", mistake) for mistake in (
        lambda q: (q.g - probs(q.w, q.temp) * mean(np.ones_like(q.g), q.g)) / q.temp,
        lambda q: candidates(
            q, q.g - probs(q.w, q.temp) * mean(np.ones_like(q.g), candidates(q, q.g))) / q.temp,
        lambda q: weighted(log_probs(q.w, q.temp), q.g, q.temp),
        lambda q: weighted(candidates(q, log_probs(q.w, q.temp)), q.g, q.temp),
    )),
    ("wrong axis", lambda q: gradient(q.g.T, q.w.T, q.temp).T),
    ("axis= is ignored", lambda q: along_the_last_axis(q, lambda g, w: gradient(g, w, q.temp))),
    ("grad_mask and logits are swapped", lambda q: gradient(q.logits, q.g + q.added, q.temp)),
    ("sum over the batch", _over_the_batch),
    ("mean over the choices", lambda q: gradient(q.g, q.w, q.temp) / q.w.shape[-1]),
    ("the softmax runs over the whole batch", lambda q: _over_the_batch(q, axis=None)),
    *((f"probs are kept from falling below {least:g}", lambda q, least=least: _clamped(q, least))
      for least in (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)),
    *((f"probs are mixed with the uniform distribution, to {share:g}", mistake)
      for share in SHARES for mistake in _mixtures(share)),
    *((f"the softmax is taken of the {k} largest alone", lambda q, k=k: gradient(q.g, _of_the_largest(q, k), q.temp))
      for k in (2, 3, 4, 5, 8, 10, 20, 40, 50)),
    ("subnormal numbers are taken for 0, which flushes_subnormals = True declares", _flushed),
)  # fmt: skip
"""Mistakes of the backward pass."""


def _through_the_mixture(q: Rows, share: float) -> Array:
    """Of ``log((1 - share) probs + share uniform) + noise``, back to the logits."""
    p = probs(q.logits)
    arrived = gradient(q.g, mixed_before_noise(q, share), q.temp)
    return (1 - share) * weighted(p, candidates(q, arrived / mixed(p, uniform(q), share)), 1.0)


def with_noise(wrong_sums: Mistakes) -> Mistakes:
    """Those of an operator with noise: of all others, of wrong sums with the noise, and of mixing before it is added.

    A wrong sum is what is chosen from in the place of logits + noise.
    """
    differentiated = tuple((f"{name} in the backward pass", _differentiated_at(w)) for name, w in wrong_sums)
    through = tuple(
        (
            f"probs are mixed with the uniform distribution, to {share:g}, before noise is added",
            partial(_through_the_mixture, share=share),
        )
        for share in SHARES
    )
    return BACKWARD + differentiated + through


def _differentiated_at(w: Mistake) -> Mistake:
    return lambda q: gradient(q.g, w(q), q.temp)
