"""The straight-through gradient of a drawn sample: a categorical sample forward, the softmax's gradient backward.

Some candidate d is drawn, and its one-hot is the mask. With ``T = forward_temp temp``, ``J(x) g = x (g - <x, g>)``, n
candidates and g the cotangent of the mask::

    d ~ (1 - unimix) softmax(logits / forward_temp) + unimix / n
    grad_logits = (1 - unimix) J(softmax(logits / T)) g / T

That is the gradient of `soft`, ``(1 - unimix) softmax(logits / T) + unimix / n``, which does not depend on the sample:
what was drawn matters in the forward pass alone. At ``temp=1`` the gradient's mean over the samples is that of the
expected loss for every loss that is linear in the mask.

Three things go by the name of straight-through; each is a choice of the arguments:

=========================================================================  ========================================
what is computed                                                           the arguments
=========================================================================  ========================================
d ~ p, J(p) g: OneHotCategoricalStraightThrough of PyTorch and of distrax  none
the same of 0.99 p + 0.01 / n: Dreamer                                     ``unimix=0.01``
d ~ p, J(softmax(logits / t)) g / t: `st` of ReinMax's and of GST's code   ``temp=t``
d ~ softmax(logits / t), J(softmax(logits / t)) g / t:                     ``forward_temp=t``
`gumbel_sample` of vector-quantize-pytorch
d = argmax logits, J(softmax(logits / t)) g / t                            ``temp=t``, and `index` the argmax: that
                                                                           is `npselect.straight_through`
=========================================================================  ========================================

If the gradient is to be that of the noisy logits, the operator is `npselect.gumbel_softmax`.

The sample comes from ``seed=``, from ``noise=`` (see `npselect.gumbel_softmax` for both), or from ``index=``: what a
framework has drawn. With seed or noise G it is the largest of ``logits + forward_temp G``, where the product is rounded
before the sum is. With unimix it is the largest of ``log((1 - unimix) softmax(logits / forward_temp) + unimix / n) +
G``: the logarithm of the mixture is computed in float64, and rounded to the type in which noise is added.
``forward_temp * temp`` is rounded to that type, ``1 - unimix`` in float64.

Y. Bengio, N. Léonard and A. Courville, "Estimating or propagating gradients through stochastic neurons for conditional
computation", arXiv:1308.3432. The mixture: D. Hafner, J. Pasukonis, J. Ba and T. Lillicrap, "Mastering diverse domains
through world models", arXiv:2301.04104. Two temperatures: arXiv:2410.13331.
"""

from __future__ import annotations

import sys
from typing import SupportsIndex

import numpy.typing as npt

from npselect._call.call import call, call_for_two
from npselect._call.choice import mixed, unweighed
from npselect._call.module import OperatorModule
from npselect._dtypes import Array
from npselect._operators import BACKWARD, BACKWARD_TEMP, DOUBLE_BACKWARD, INDEX, JVP, MASK_AT, MIXTURE

__all__ = ["backward", "backward_temp", "double_backward", "forward", "index", "jvp", "soft"]


def forward(
    logits: npt.ArrayLike,
    temp: npt.ArrayLike = 1.0,
    *,
    forward_temp: float = 1.0,
    unimix: float = 0.0,
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
    """Sample: ``mask = one_hot(choice)``, ``choice = argmax(w)`` with ``w = logits + forward_temp noise``, or `index`.

    Parameters
    ----------
    logits : array_like, shape (..., K, ...)
        Unnormalised log-probabilities of the K candidates along `axis`; see `npselect.straight_through.forward`.
    temp : array_like, optional
        Temperature of the gradient, beside `forward_temp`; see `npselect.straight_through.forward`. It does not change
        what is selected.
    forward_temp : float, optional
        Temperature of the distribution that is sampled, and a factor of the gradient's.
    unimix : float, optional
        The share of the uniform distribution over the candidates: 0, or from 2**-100 to 1.
    seed : int, optional
        From 0 to 2**64 - 1. Exactly one of `seed`, `noise` and `index` must be given.
    noise : array_like, optional
        Gumbel noise, as in `npselect.gumbel_softmax.forward`.
    index : array_like of int, shape of `logits` without `axis`, optional
        What was drawn elsewhere, as in `npselect.reinmax.forward`; `forward_temp` and `unimix` then do not matter.
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
        Not exactly one of `seed`, `noise` and `index`; `offset` without `seed`; an `index` that is not of integers;
        `forward_temp` or `unimix` is no number.
    ValueError
        `forward_temp` or `unimix` is out of range; `index` has another shape, or names no candidate.
    TypeError, ValueError, numpy.exceptions.AxisError, RuntimeError
        As `npselect.gumbel_softmax.forward`.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import categorical
    >>> logits = np.log(np.array([[0.2, 0.7, 0.1]] * 3, dtype=np.float32))
    >>> categorical.forward(logits, seed=1)
    array([[0., 1., 0.],
           [0., 0., 1.],
           [0., 0., 1.]], dtype=float32)
    >>> categorical.forward(logits, index=[1, 0, 2])
    array([[0., 1., 0.],
           [1., 0., 0.],
           [0., 0., 1.]], dtype=float32)
    """
    drawn = mixed(seed, noise, index, offset, forward_temp, unimix)
    return call(MASK_AT, (logits,), temp, drawn, axis, where, nan_policy, out, backend)


def backward(
    grad_mask: npt.ArrayLike,
    logits: npt.ArrayLike,
    temp: npt.ArrayLike = 1.0,
    *,
    forward_temp: float = 1.0,
    unimix: float = 0.0,
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
    """The gradient of `soft`: ``grad_logits_i = p_i (h_i - d) / temp``, at two temperatures, times ``1 - unimix``.

    In the place of temp stands ``T = forward_temp temp``, so ``p = softmax(logits / T)``. The cotangent h is measured
    from that of the largest logit, as a constant in it drops out, and ``d = sum_i p_i h_i``. No noise is drawn: the
    gradient does not depend on it.

    Parameters
    ----------
    grad_mask : array_like, shape of `logits`
        The cotangent of the mask, as in `npselect.straight_through.backward`.
    logits, temp, forward_temp, unimix, seed, noise, index, offset, axis, where, nan_policy, out, backend
        As in `forward`. An `index` is checked; the values of `noise` do not matter.

    Returns
    -------
    ndarray, shape of `logits`
        The cotangent of the logits; exact zeros, and NaN rows, as in `npselect.straight_through.backward`.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError, RuntimeError
        As `forward`; also if `grad_mask` has another shape than `logits`.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import categorical
    >>> categorical.backward(np.array([1.0, 0.0]), np.array([0.0, 0.0]), index=1)
    array([ 0.25, -0.25])
    >>> categorical.backward(np.array([1.0, 0.0]), np.array([0.0, 0.0]), unimix=0.5, index=1)
    array([ 0.125, -0.125])
    """
    drawn = unweighed(seed, noise, index, offset, forward_temp, unimix)
    return call(BACKWARD, (grad_mask, logits), temp, drawn, axis, where, nan_policy, out, backend)


def soft(
    logits: npt.ArrayLike,
    temp: npt.ArrayLike = 1.0,
    *,
    forward_temp: float = 1.0,
    unimix: float = 0.0,
    axis: int = -1,
    where: npt.ArrayLike | None = None,
    nan_policy: str = "propagate",
    out: Array | None = None,
    backend: str | None = None,
) -> Array:
    """The function whose gradient `backward` is: ``probs_i = (1 - unimix) p_i + unimix / n``, 0 at excluded entries.

    Here ``p = softmax(logits / (forward_temp temp))``, and n is the number of candidates in the row. The probabilities
    do not depend on the sample; at ``temp=1`` they are those that it is drawn with.

    Parameters
    ----------
    logits, temp, forward_temp, unimix, axis, where, nan_policy, out, backend
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
    >>> from npselect import categorical
    >>> categorical.soft(np.array([0.0, 0.0, -np.inf]), unimix=0.5)
    array([0.5, 0.5, 0. ])
    >>> categorical.soft(np.array([0.0, 1000.0]), unimix=0.5)
    array([0.25, 0.75])
    """
    drawn = unweighed(None, None, None, 0, forward_temp, unimix, is_sampled=False)
    return call(MIXTURE, (logits,), temp, drawn, axis, where, nan_policy, out, backend)


def index(
    logits: npt.ArrayLike,
    *,
    forward_temp: float = 1.0,
    unimix: float = 0.0,
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
    logits, forward_temp, unimix, seed, noise, index, offset, axis, where, nan_policy, out, backend
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
    >>> from npselect import categorical
    >>> logits = np.log(np.full((100_000, 2), [0.25, 0.75]))
    >>> float(categorical.index(logits, seed=0).mean().round(2))
    0.75
    >>> float(categorical.index(logits, unimix=0.5, seed=0).mean().round(2))
    0.62
    """
    drawn = mixed(seed, noise, index, offset, forward_temp, unimix)
    return call(INDEX, (logits,), 1.0, drawn, axis, where, nan_policy, out, backend)


def jvp(
    tangent: npt.ArrayLike,
    logits: npt.ArrayLike,
    temp: npt.ArrayLike = 1.0,
    *,
    forward_temp: float = 1.0,
    unimix: float = 0.0,
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
    """Forward-mode derivative of `soft` along `tangent`: the Jacobian is symmetric, so this is `backward`'s map.

    ``grad_logits_i = p_i (h_i - d) / temp``, with `tangent` in the place of `grad_mask`, times ``1 - unimix``.

    Parameters
    ----------
    tangent : array_like, shape of `logits`
        The direction in which the logits move; the sample stays.
    logits, temp, forward_temp, unimix, seed, noise, index, offset, axis, where, nan_policy, out, backend
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
    >>> from npselect import categorical
    >>> categorical.jvp(np.array([1.0, 0.0]), np.array([0.0, 0.0]), index=1)
    array([ 0.25, -0.25])
    """
    drawn = unweighed(seed, noise, index, offset, forward_temp, unimix)
    return call(JVP, (tangent, logits), temp, drawn, axis, where, nan_policy, out, backend)


def backward_temp(
    grad_mask: npt.ArrayLike,
    logits: npt.ArrayLike,
    temp: npt.ArrayLike = 1.0,
    *,
    forward_temp: float = 1.0,
    unimix: float = 0.0,
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
    """The cotangent of `temp`: ``grad_temp = -sum_i grad_logits_i t_i``, summed to the shape of `temp`.

    Here ``t_i = (logits_i - max(logits)) / (forward_temp temp)``; the whole has the factor `forward_temp`, as the
    derivative is that of `soft` by `temp` alone.

    Parameters
    ----------
    grad_mask, logits, temp, forward_temp, unimix, seed, noise, index, offset, axis, where, nan_policy, out, backend
        As in `backward`.

    Returns
    -------
    ndarray, shape of `temp`
        In the dtype of `backward`'s result; a NumPy scalar for a scalar `temp`. NaN if one of the rows is.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError, RuntimeError
        As `backward`.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import categorical
    >>> float(categorical.backward_temp(np.array([1.0, 0.0]), np.array([0.0, 0.0]), index=1))
    0.0
    """
    drawn = unweighed(seed, noise, index, offset, forward_temp, unimix)
    return call(BACKWARD_TEMP, (grad_mask, logits), temp, drawn, axis, where, nan_policy, out, backend)


def double_backward(
    grad_grad_logits: npt.ArrayLike,
    grad_mask: npt.ArrayLike,
    logits: npt.ArrayLike,
    temp: npt.ArrayLike = 1.0,
    *,
    forward_temp: float = 1.0,
    unimix: float = 0.0,
    seed: SupportsIndex | None = None,
    noise: npt.ArrayLike | None = None,
    index: npt.ArrayLike | None = None,
    offset: SupportsIndex = 0,
    axis: int = -1,
    where: npt.ArrayLike | None = None,
    nan_policy: str = "propagate",
    out: tuple[Array | None, Array | None] | None = None,
    backend: str | None = None,
) -> tuple[Array, Array]:
    """The gradient of `backward` with respect to `grad_mask` and `logits`.

    `npselect.straight_through.double_backward` at ``T = forward_temp temp``, times ``1 - unimix``; with
    ``v = grad_grad_logits``, ``a_i = g_i - <p, g>`` and ``b_i = v_i - <p, v>``, but for that factor::

        grad_grad_mask_i = p_i b_i / temp        grad_logits_i = p_i (a_i b_i - sum_j p_j a_j b_j) / temp**2

    Parameters
    ----------
    grad_grad_logits : array_like, shape of `logits`
        The cotangent of what `backward` returned.
    grad_mask, logits, temp, forward_temp, unimix, seed, noise, index, offset, axis, where, nan_policy, backend
        As in `backward`.
    out : tuple of two ndarrays or None, optional
        Where the results go; either may be None. They may be inputs, but must not overlap each other.

    Returns
    -------
    grad_grad_mask, grad_logits : ndarray, shape of `logits`
        The cotangents of `grad_mask` and of `logits`; zeros and NaN as in `backward`.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError, RuntimeError
        As `backward`.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import categorical
    >>> v, g = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    >>> categorical.double_backward(v, g, np.array([0.0, 0.0]), index=1)
    (array([ 0.25, -0.25]), array([0., 0.]))
    """
    drawn = unweighed(seed, noise, index, offset, forward_temp, unimix)
    arrays = grad_grad_logits, grad_mask, logits
    return call_for_two(DOUBLE_BACKWARD, arrays, temp, drawn, axis, where, nan_policy, out, backend)


sys.modules[__name__].__class__ = OperatorModule
