"""Gumbel-Rao: a sample of the categorical distribution forward; backward, the Gumbel-softmax's mean gradient given it.

Some candidate m is drawn from ``softmax(logits)``, whatever `temp`; `forward` returns its one-hot. The straight-through
Gumbel-softmax (`npselect.gumbel_softmax`) would draw it as the largest of ``w = logits + G``, and differentiate
``softmax(w / temp)``. Much noise leads to the same m. So the gradient is averaged over several samples of w, all of
them with that m: its mean stays as it is, and its variance falls (Rao and Blackwell). With g the cotangent of the
mask and, of each sample, ``e_i = exp((w_i - w_m) / temp)``::

    s = sum_i e_i        p_i = e_i / s        h_i = g_i - g_m        d = sum_i p_i h_i

    grad_logits_i = mean_s p_i (h_i - d) / temp

**The noisy logits, given the choice.** With Gumbel noise G, new for each sample, and ``Z = sum_i exp(logits_i)``::

    w_m = log(Z) + G_m        w_i - w_m = -log(1 + exp(w_m - logits_i - G_i))

The largest of ``logits_i + G_i`` has the law of ``log(Z) + G_m``, whichever it is; any other is a Gumbel variable cut
off there. Everything is computed from the differences, in log space: logits may be of any size. The Jacobian is that
of the softmax at w and no more. ``w - logits`` is noise, like that of `npselect.gumbel_softmax`, and is not
differentiated, though it depends on the logits.

The gradient is linear in g and symmetric, its entries sum to 0, and a constant in g drops out. With one sample it has
the law of `npselect.gumbel_softmax`, though not the bits. As `temp` falls, and with more samples, it tends to that of
`npselect.reinmax` at its temperature 1.

**Arithmetic.** Noise has the type of `npselect.gumbel_softmax`. Of each sample ``G_m - G_i`` is rounded, and once more
when the small part of ``log(Z) - logits_i`` is added. From there on two words are kept of all that is large, so that
the error does not grow with the logits.

**Defaults.** The paper takes 10, 100 and 1,000 samples, public implementations 100, and so does this one. Temperatures
that were tuned for it lie between 0.3 and 2, most often at 1. The time is that of the samples: take 10 for a tenth of
it.

The tiers are "reference" and "cpu": arrays on a GPU, and ``backend="cuda"``, are refused.

M. B. Paulus, C. J. Maddison and A. Krause, "Rao-Blackwellizing the straight-through Gumbel-softmax gradient estimator",
ICLR 2021, arXiv:2010.04838; the law of w is that of C. J. Maddison, D. Tarlow and T. Minka, "A* sampling", NeurIPS
2014. The sample stays as it is: this is no gradient of a function, so it has no derivative of its own, nor one for the
temperature.
"""

from __future__ import annotations

import sys
from typing import SupportsIndex

import numpy.typing as npt

from npselect._call.call import call
from npselect._call.choice import drawn_by
from npselect._call.draws import drawn_given, refuse_gpu
from npselect._call.module import OperatorModule
from npselect._dtypes import Array
from npselect._operators import GUMBEL_RAO, GUMBEL_RAO_JVP, INDEX, MASK_AT, SOFT

__all__ = ["backward", "forward", "index", "jvp", "soft"]

_SAMPLES = 100


def forward(
    logits: npt.ArrayLike,
    temp: npt.ArrayLike = 1.0,
    *,
    seed: SupportsIndex | None = None,
    noise: npt.ArrayLike | None = None,
    index: npt.ArrayLike | None = None,
    offset: SupportsIndex = 0,
    axis: int = -1,
    where: npt.ArrayLike | None = None,
    nan_policy: str = "propagate",
    out: Array | None = None,
    backend: str | None = None,
) -> Array:
    """Sample: ``mask = one_hot(choice)``, with ``choice = argmax(w)`` and ``w = logits + noise``, or ``index``.

    Parameters
    ----------
    logits : array_like, shape (..., K, ...)
        Unnormalised log-probabilities of the K candidates along `axis`; see `npselect.straight_through.forward`.
    temp : array_like, optional
        Temperature, as there. It does not change what is selected.
    seed : int, optional
        From 0 to 2**64 - 1. Exactly one of `seed`, `noise` and `index` must be given.
    noise : array_like, optional
        What is added to the logits, as in `npselect.gumbel_softmax.forward`.
    index : array_like of int, shape of `logits` without `axis`, optional
        What was drawn elsewhere, as in `npselect.reinmax.forward`.
    offset : int, optional
        With `seed`: the place of the first entry of `logits` in the stream of numbers.
    axis, where, nan_policy, out, backend
        As in `npselect.straight_through.forward`, but there is no backend "cuda".

    Returns
    -------
    ndarray, shape and dtype of `logits`
        +0 and a single 1 in each row. Zeros and NaN rows as in `npselect.straight_through.forward`.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `npselect.reinmax.forward`.
    RuntimeError
        ``backend="cuda"``, or an array that lives on a GPU.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import gumbel_rao
    >>> logits = np.log(np.array([[0.2, 0.7, 0.1]] * 2, dtype=np.float32))
    >>> gumbel_rao.forward(logits, index=[1, 0])
    array([[0., 1., 0.],
           [1., 0., 0.]], dtype=float32)
    """
    refuse_gpu("gumbel_rao", backend, logits=logits, temp=temp, noise=noise, index=index, where=where, out=out)
    drawn = drawn_by(seed, noise, index, offset)
    return call(MASK_AT, (logits,), temp, drawn, axis, where, nan_policy, out, backend)


def backward(
    grad_mask: npt.ArrayLike,
    logits: npt.ArrayLike,
    temp: npt.ArrayLike = 1.0,
    *,
    samples: SupportsIndex | None = None,
    seed: SupportsIndex | None = None,
    sample_noise: npt.ArrayLike | None = None,
    index: npt.ArrayLike | None = None,
    offset: SupportsIndex = 0,
    axis: int = -1,
    where: npt.ArrayLike | None = None,
    nan_policy: str = "propagate",
    out: Array | None = None,
    backend: str | None = None,
) -> Array:
    """The mean gradient given the sample: ``grad_logits_i = mean_s p_i (h_i - d) / temp``.

    Parameters
    ----------
    grad_mask : array_like, shape of `logits`
        The cotangent of the mask, as in `npselect.straight_through.backward`. Its dtype has no influence on the sample.
    logits, temp
        As in `forward`.
    samples : int, optional
        Over how many samples of the noisy logits the mean is taken, at least 1: 100 by default or, with `sample_noise`,
        as many as that has. They are added up in the order in which they are drawn.
    seed : int, optional
        Of the noise of the samples and, without `index`, of the choice: with the `seed` and `offset` of `forward`, what
        was selected there. Exactly one of `seed` and `sample_noise` must be given. An array of N entries takes
        ``(samples + 1) * N`` numbers of the stream: `forward` takes the first N, and sample s, counted from 1, those
        from ``offset + s * N`` on, whether the choice was given or not.
    sample_noise : array_like, shape (samples, ...), then that of `logits`, optional
        The noise of the samples instead; `index` must be given then. It is rounded to the type of the noise: float64
        for float64 logits, else float32. What it holds at excluded entries does not matter.
    index : array_like of int, shape of `logits` without `axis`, optional
        What was selected, as `npselect.gumbel_rao.index` returns it, or drawn elsewhere.
    offset : int, optional
        With `seed`: the place of the first entry of `logits` in the stream of numbers.
    axis, where, nan_policy, out, backend
        As in `forward`.

    Returns
    -------
    ndarray, shape of `logits`
        The cotangent of the logits: exactly 0 at a -inf logit, at ``where=False`` and for K = 1. NaN in the rows where
        the mask is NaN, and where `sample_noise` holds NaN or an infinity at a candidate; NaN at the candidates of a
        row whose `grad_mask` does.

    Raises
    ------
    TypeError
        Not exactly one of `seed` and `sample_noise`; the latter without `index`; `offset` without `seed`; `samples`
        that is no integer.
    ValueError
        `samples` is below 1, or not what `sample_noise` has; that has another shape; the stream of the seed ends.
    TypeError, ValueError, numpy.exceptions.AxisError, RuntimeError
        As `forward`; also if `grad_mask` has another shape than `logits`.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import gumbel_rao
    >>> noise = np.zeros((1, 2))
    >>> gumbel_rao.backward(np.array([1.0, 0.0]), np.array([0.0, 0.0]), index=0, sample_noise=noise).round(12)
    array([ 0.1875, -0.1875])
    >>> gumbel_rao.backward(np.array([1.0, 0.0]), np.array([0.0, 0.0]), seed=1, samples=10_000).round(2)
    array([ 0.17, -0.17])
    """
    arrays = {
        "logits": logits,
        "grad_mask": grad_mask,
        "temp": temp,
        "sample_noise": sample_noise,
        "index": index,
        "where": where,
        "out": out,
    }
    refuse_gpu("gumbel_rao", backend, **arrays)
    drawn = drawn_given(samples, seed, sample_noise, index, offset, _SAMPLES)
    return call(GUMBEL_RAO, (grad_mask, logits), temp, drawn, axis, where, nan_policy, out, backend)


def jvp(
    tangent: npt.ArrayLike,
    logits: npt.ArrayLike,
    temp: npt.ArrayLike = 1.0,
    *,
    samples: SupportsIndex | None = None,
    seed: SupportsIndex | None = None,
    sample_noise: npt.ArrayLike | None = None,
    index: npt.ArrayLike | None = None,
    offset: SupportsIndex = 0,
    axis: int = -1,
    where: npt.ArrayLike | None = None,
    nan_policy: str = "propagate",
    out: Array | None = None,
    backend: str | None = None,
) -> Array:
    """The linear map of which `backward` is the transpose, along `tangent`: it is symmetric, so the two are one.

    ``grad_logits_i = mean_s p_i (h_i - d) / temp``, with `tangent` in the place of `grad_mask`.

    Parameters
    ----------
    tangent : array_like, shape of `logits`
        The direction in which the logits move; the sample stays, and so does the noise.
    logits, temp, samples, seed, sample_noise, index, offset, axis, where, nan_policy, out, backend
        As in `backward`.

    Returns
    -------
    ndarray, shape of `logits`
        The tangent of the mask.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError, RuntimeError
        As `backward`.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import gumbel_rao
    >>> gumbel_rao.jvp(np.array([1.0, 0.0]), np.array([0.0, 0.0]), index=0, sample_noise=np.zeros((1, 2))).round(12)
    array([ 0.1875, -0.1875])
    """
    arrays = {
        "logits": logits,
        "tangent": tangent,
        "temp": temp,
        "sample_noise": sample_noise,
        "index": index,
        "where": where,
        "out": out,
    }
    refuse_gpu("gumbel_rao", backend, **arrays)
    drawn = drawn_given(samples, seed, sample_noise, index, offset, _SAMPLES)
    return call(GUMBEL_RAO_JVP, (tangent, logits), temp, drawn, axis, where, nan_policy, out, backend)


def index(
    logits: npt.ArrayLike,
    *,
    seed: SupportsIndex | None = None,
    noise: npt.ArrayLike | None = None,
    index: npt.ArrayLike | None = None,
    offset: SupportsIndex = 0,
    axis: int = -1,
    where: npt.ArrayLike | None = None,
    nan_policy: str = "propagate",
    out: Array | None = None,
    backend: str | None = None,
) -> Array:
    """Index of the sampled candidate along `axis`: ``index = argmax(w)``, or as given; -1 where nothing is selected.

    Parameters
    ----------
    logits, seed, noise, index, offset, axis, where, nan_policy, out, backend
        As in `forward`.

    Returns
    -------
    ndarray of int64, shape of `logits` without `axis`
        -1 in rows that are NaN or have no candidates.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError, RuntimeError
        As `forward`.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import gumbel_rao
    >>> gumbel_rao.index(np.array([[0.0, 1.0], [np.nan, 0.0]]), index=[0, 1])
    array([ 0, -1])
    """
    refuse_gpu("gumbel_rao", backend, logits=logits, noise=noise, index=index, where=where, out=out)
    drawn = drawn_by(seed, noise, index, offset)
    return call(INDEX, (logits,), 1.0, drawn, axis, where, nan_policy, out, backend)


def soft(
    logits: npt.ArrayLike,
    temp: npt.ArrayLike = 1.0,
    *,
    axis: int = -1,
    where: npt.ArrayLike | None = None,
    nan_policy: str = "propagate",
    out: Array | None = None,
    backend: str | None = None,
) -> Array:
    """The softmax without noise, ``p_i = e_i / s``: ``softmax(logits / temp)``, 0 at excluded entries.

    It does not depend on the sample: this is `npselect.straight_through.soft`.

    Parameters
    ----------
    logits, temp, axis, where, nan_policy, out, backend
        As in `forward`.

    Returns
    -------
    ndarray, shape and dtype of `logits`
        Zeros and NaN rows as in `forward`.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError, RuntimeError
        As `npselect.straight_through.soft`; RuntimeError as `forward`.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import gumbel_rao
    >>> gumbel_rao.soft(np.array([0.0, 0.0, -np.inf, 0.0, 0.0]))
    array([0.25, 0.25, 0.  , 0.25, 0.25])
    """
    refuse_gpu("gumbel_rao", backend, logits=logits, temp=temp, where=where, out=out)
    return call(SOFT, (logits,), temp, None, axis, where, nan_policy, out, backend)


sys.modules[__name__].__class__ = OperatorModule
