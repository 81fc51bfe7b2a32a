"""GST, the gapped straight-through estimator: a sample forward, a softmax of logits that lead by a gap backward.

Some candidate d is drawn from ``p = softmax(logits)``, whatever `temp`; its one-hot is the mask. For the gradient, the
logits are moved so that d has the largest, with a gap to the others::

    moved_d = max(logits)        moved_j = min(logits_j, max(logits) - gap)

and it is that of ``softmax(moved / temp)``, of which the moves are held fixed. With the weights that come of this,

    ``e_d = 1``, ``e_j = min(exp((logits_j - max(logits)) / temp), exp(-gap / temp))``

(so nothing is lost where the largest logit is large), ``s = sum_i e_i`` and ``p_i = e_i / s``. With the cotangent
measured from the drawn entry, ``h_i = g_i - g_d``, and ``d = sum_i p_i h_i``::

    grad_logits_i = p_i (h_i - d) / temp

``gap="adaptive"`` takes ``-log(1 - p_d) / p_d`` for each row, p_d being what the drawn candidate has of
``softmax(logits)``: from 1, where that is little, to infinity where it is all there is, with the gradient 0.

The sample comes from ``seed=``, from ``noise=`` (see `npselect.gumbel_softmax` for both), or from ``index=``: what a
framework has drawn. It stays as it is: this is no gradient of a function of the logits, so it has no derivative of its
own, nor one for the temperature.

T.-H. Fan, T.-C. Chi, A. I. Rudnicky and P. J. Ramadge, "Training discrete deep generative models via gapped
straight-through estimator", ICML 2022, arXiv:2206.07235.
"""

from __future__ import annotations

import sys
from typing import SupportsIndex

import numpy.typing as npt

from npselect._call.call import call
from npselect._call.choice import gapped_by
from npselect._call.module import OperatorModule
from npselect._dtypes import Array
from npselect._operators import GAPPED, GAPPED_JVP, GAPPED_SOFT, INDEX, MASK_AT

__all__ = ["backward", "forward", "index", "jvp", "soft"]


def forward(
    logits: npt.ArrayLike,
    temp: npt.ArrayLike = 1.0,
    *,
    gap: float | str = 1.0,
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
    gap : float or "adaptive", optional
        By how much the drawn candidate leads in the gradient's logits. It does not change what is selected.
    seed : int, optional
        From 0 to 2**64 - 1. Exactly one of `seed`, `noise` and `index` must be given.
    noise : array_like, optional
        What is added to the logits, as in `npselect.gumbel_softmax.forward`.
    index : array_like of int, shape of `logits` without `axis`, optional
        What was drawn elsewhere: the column of a candidate, or -1 in a row where `where` offers none. In a row whose
        mask is NaN, -1 and every column will do.
    offset : int, optional
        With `seed`: the place of the first entry of `logits` in the stream of numbers.
    axis, where, nan_policy, out, backend
        As in `npselect.straight_through.forward`.

    Returns
    -------
    ndarray, shape and dtype of `logits`
        +0 and a single 1 in each row. Zeros and NaN rows as in `npselect.straight_through.forward`.

    Raises
    ------
    TypeError
        Not exactly one of `seed`, `noise` and `index`; `offset` without `seed`; an `index` that is not of integers; a
        `gap` that is neither a number nor a string.
    ValueError
        `gap` is neither positive and finite nor "adaptive"; `index` has another shape, or names no candidate: out of
        range, -inf, or excluded by `where`.
    TypeError, ValueError, numpy.exceptions.AxisError, RuntimeError
        As `npselect.gumbel_softmax.forward`.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import gapped
    >>> logits = np.log(np.array([[0.2, 0.7, 0.1]] * 2, dtype=np.float32))
    >>> gapped.forward(logits, index=[1, 0])
    array([[0., 1., 0.],
           [1., 0., 0.]], dtype=float32)
    """
    drawn = gapped_by(seed, noise, index, offset, gap)
    return call(MASK_AT, (logits,), temp, drawn, axis, where, nan_policy, out, backend)


def backward(
    grad_mask: npt.ArrayLike,
    logits: npt.ArrayLike,
    temp: npt.ArrayLike = 1.0,
    *,
    gap: float | str = 1.0,
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
    """The gradient of `soft` with the moves held fixed: ``grad_logits_i = p_i (h_i - d) / temp``.

    Parameters
    ----------
    grad_mask : array_like, shape of `logits`
        The cotangent of the mask, as in `npselect.straight_through.backward`. Its dtype has no influence on the sample.
    logits, temp, gap, seed, noise, index, offset, axis, where, nan_policy, out, backend
        As in `forward`; with the same seed and offset (or noise, or index), for the sample that was selected there.

    Returns
    -------
    ndarray, shape of `logits`
        The cotangent of the logits: exactly 0 at a -inf logit, at ``where=False`` and for K = 1. NaN in the rows where
        the mask is NaN; NaN at the candidates of a row whose `grad_mask` holds NaN or an infinity at a candidate.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError, RuntimeError
        As `forward`; also if `grad_mask` has another shape than `logits`.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import gapped
    >>> gapped.backward(np.array([1.0, 0.0]), np.array([0.0, 0.0]), index=0)
    array([ 0.19661193, -0.19661193])
    """
    drawn = gapped_by(seed, noise, index, offset, gap)
    return call(GAPPED, (grad_mask, logits), temp, drawn, axis, where, nan_policy, out, backend)


def jvp(
    tangent: npt.ArrayLike,
    logits: npt.ArrayLike,
    temp: npt.ArrayLike = 1.0,
    *,
    gap: float | str = 1.0,
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
    """The linear map of which `backward` is the transpose, along `tangent`: it is symmetric, so the two are one.

    ``grad_logits_i = p_i (h_i - d) / temp``, with `tangent` in the place of `grad_mask`.

    Parameters
    ----------
    tangent : array_like, shape of `logits`
        The direction in which the logits move; the sample stays.
    logits, temp, gap, seed, noise, index, offset, axis, where, nan_policy, out, backend
        As in `forward`.

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
    >>> from npselect import gapped
    >>> gapped.jvp(np.array([1.0, 0.0]), np.array([0.0, 0.0]), index=0)
    array([ 0.19661193, -0.19661193])
    """
    drawn = gapped_by(seed, noise, index, offset, gap)
    return call(GAPPED_JVP, (tangent, logits), temp, drawn, axis, where, nan_policy, out, backend)


def index(
    logits: npt.ArrayLike,
    *,
    gap: float | str = 1.0,
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
    logits, gap, seed, noise, index, offset, axis, where, nan_policy, out, backend
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
    >>> from npselect import gapped
    >>> gapped.index(np.array([[0.0, 1.0], [np.nan, 0.0]]), index=[0, 1])
    array([ 0, -1])
    """
    drawn = gapped_by(seed, noise, index, offset, gap)
    return call(INDEX, (logits,), 1.0, drawn, axis, where, nan_policy, out, backend)


def soft(
    logits: npt.ArrayLike,
    temp: npt.ArrayLike = 1.0,
    *,
    gap: float | str = 1.0,
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
    """The probabilities of the gradient, ``p_i = e_i / s``: ``softmax(moved / temp)``, 0 at excluded entries.

    The drawn candidate has the largest of them, so they depend on the sample.

    Parameters
    ----------
    logits, temp, gap, seed, noise, index, offset, axis, where, nan_policy, out, backend
        As in `forward`.

    Returns
    -------
    ndarray, shape and dtype of `logits`
        Zeros and NaN rows as in `forward`.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError, RuntimeError
        As `forward`.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import gapped
    >>> gapped.soft(np.zeros(2), gap=np.log(3), index=1)
    array([0.25, 0.75])
    """
    drawn = gapped_by(seed, noise, index, offset, gap)
    return call(GAPPED_SOFT, (logits,), temp, drawn, axis, where, nan_policy, out, backend)


sys.modules[__name__].__class__ = OperatorModule
