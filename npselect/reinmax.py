"""ReinMax: a sample of the categorical distribution forward, a gradient of second order backward.

Some candidate d is drawn from ``p = softmax(logits)``, whatever `temp`; D is its one-hot, which `forward` returns. With
``q = softmax(logits / temp)``, ``J(x) g = x (g - <x, g>)`` and g the cotangent of the mask, the published gradient is

    ``2 J((q + D) / 2) g - J(p) g / 2``

Constants in g drop out of either term, so g may be measured from the selected entry: ``h_i = g_i - g_d``, over the
candidates only. As ``h_d = 0``, with ``a = <q, h>`` and ``b = <p, h>``, that is::

    grad_logits_i = ((2 q_i - p_i) h_i - (q_i a - p_i b) - D_i a) / 2

The entries sum to 0, and no ``1 - p_d`` is formed, of which a saturated row would have no digits. At ``temp=1`` the
gradient's mean over the samples is that of the expected loss for every loss that is quadratic in the mask; at other
temperatures it is biased. There is no factor ``1 / temp``, with which it would vanish or explode. A candidate
that was unlikely gets about ``-a / 2`` when it is drawn; one that was likely gets little, as then a and b are small.

The sample comes from ``seed=``, from ``noise=`` (see `npselect.gumbel_softmax` for both), or from ``index=``: what a
framework has drawn, by a multinomial sampler, say.

L. Liu, C. Dong, X. Liu, B. Yu and J. Gao, "Bridging discrete and backpropagation: straight-through and beyond",
NeurIPS 2023, arXiv:2304.08612; at ``temp=1`` it is the ZGR of A. Shekhovtsov, "Cold analysis of Rao-Blackwellized
straight-through Gumbel-softmax gradient estimator", ICML 2023. The sample stays as it is: this is no gradient of a
function, so it has no derivative of its own, nor one for the temperature.
"""

from __future__ import annotations

import sys
from typing import SupportsIndex

import numpy.typing as npt

from npselect._call.call import call
from npselect._call.choice import drawn_by
from npselect._call.module import OperatorModule
from npselect._dtypes import Array
from npselect._operators import INDEX, MASK_AT, REINMAX, REINMAX_JVP, SOFT

__all__ = ["backward", "forward", "index", "jvp", "soft"]


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
        Not exactly one of `seed`, `noise` and `index`; `offset` without `seed`; an `index` that is not of integers.
    ValueError
        `index` has another shape, or names no candidate: out of range, -inf, or excluded by `where`.
    TypeError, ValueError, numpy.exceptions.AxisError, RuntimeError
        As `npselect.gumbel_softmax.forward`.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import reinmax
    >>> logits = np.log(np.array([[0.2, 0.7, 0.1]] * 2, dtype=np.float32))
    >>> reinmax.forward(logits, index=[1, 0])
    array([[0., 1., 0.],
           [1., 0., 0.]], dtype=float32)
    """
    drawn = drawn_by(seed, noise, index, offset)
    return call(MASK_AT, (logits,), temp, drawn, axis, where, nan_policy, out, backend)


def backward(
    grad_mask: npt.ArrayLike,
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
    """The gradient of second order: ``grad_logits_i = ((2 q_i - p_i) h_i - (q_i a - p_i b) - D_i a) / 2``.

    Parameters
    ----------
    grad_mask : array_like, shape of `logits`
        The cotangent of the mask, as in `npselect.straight_through.backward`. Its dtype has no influence on the sample.
    logits, temp, seed, noise, index, offset, axis, where, nan_policy, out, backend
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
    >>> from npselect import reinmax
    >>> reinmax.backward(np.array([1.0, 0.0]), np.array([0.0, 0.0]), index=0)
    array([ 0.25, -0.25])
    """
    drawn = drawn_by(seed, noise, index, offset)
    return call(REINMAX, (grad_mask, logits), temp, drawn, axis, where, nan_policy, out, backend)


def jvp(
    tangent: npt.ArrayLike,
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
    """The linear map of which `backward` is the transpose, along `tangent`: it is symmetric, so the two are one.

    ``grad_logits_i = ((2 q_i - p_i) h_i - (q_i a - p_i b) - D_i a) / 2``, with `tangent` in the place of `grad_mask`.

    Parameters
    ----------
    tangent : array_like, shape of `logits`
        The direction in which the logits move; the sample stays.
    logits, temp, seed, noise, index, offset, axis, where, nan_policy, out, backend
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
    >>> from npselect import reinmax
    >>> reinmax.jvp(np.array([1.0, 0.0]), np.array([0.0, 0.0]), index=0)
    array([ 0.25, -0.25])
    """
    drawn = drawn_by(seed, noise, index, offset)
    return call(REINMAX_JVP, (tangent, logits), temp, drawn, axis, where, nan_policy, out, backend)


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
    >>> from npselect import reinmax
    >>> reinmax.index(np.array([[0.0, 1.0], [np.nan, 0.0]]), index=[0, 1])
    array([ 0, -1])
    """
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
    """The probabilities q of the surrogate, ``p_i = e_i / s``: ``softmax(logits / temp)``, 0 at excluded entries.

    They do not depend on the sample: this is `npselect.straight_through.soft`.

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
        As `npselect.straight_through.soft`.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import reinmax
    >>> reinmax.soft(np.array([0.0, 0.0, -np.inf, 0.0, 0.0]))
    array([0.25, 0.25, 0.  , 0.25, 0.25])
    """
    return call(SOFT, (logits,), temp, None, axis, where, nan_policy, out, backend)


sys.modules[__name__].__class__ = OperatorModule
