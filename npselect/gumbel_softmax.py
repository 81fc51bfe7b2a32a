"""Straight-through Gumbel-softmax: a sample of the categorical distribution forward, a softmax's gradient backward.

`straight_through` on perturbed logits. With ``G_i`` independent standard Gumbel noise::

    w_i = logits_i + G_i        m = argmax_i w_i        t_i = (w_i - w_m) / temp
    e_i = exp(t_i)              s = sum_i e_i           p_i = e_i / s

``m`` is distributed as ``softmax(logits)``, whatever `temp` (the Gumbel-max trick); the gradient is that of ``p``, the
relaxed sample, which `soft` returns: `soft` with `backward` is the ordinary Gumbel-softmax.

The noise is either given, ``noise=``, or a function of ``seed=`` and of each entry's place (`npselect.noise`): then it
is drawn where it is needed and never kept. Calls with the same seed and the same places have the same noise: a forward
and its backward, but two layers of a model as well. An entry's place is its position in `logits` as given, in C order,
plus ``offset=``. Noise is added in float32, or for float64 logits in float64.

The temperatures of the two passes can be decoupled (`forward_temp`): published as a sample of
``logits / forward_temp + G`` and the gradient of ``softmax((logits / forward_temp + G) / temp)``, which is, multiplied
by `forward_temp`::

    w_i = logits_i + forward_temp G_i        t_i = (w_i - w_m) / (forward_temp temp)

The product of forward_temp and G is rounded before the sum is, and the product of the temperatures is rounded.

E. Jang, S. Gu and B. Poole, "Categorical reparameterization with Gumbel-softmax", ICLR 2017; C. J. Maddison, A. Mnih
and Y. W. Teh, "The Concrete distribution: a continuous relaxation of discrete random variables", ICLR 2017. Decoupled:
arXiv:2410.13331.
"""

from __future__ import annotations

import sys
from typing import SupportsIndex

import numpy.typing as npt

from npselect._call.call import call, call_for_two
from npselect._call.choice import sample_of
from npselect._call.module import OperatorModule
from npselect._dtypes import Array
from npselect._operators import BACKWARD, BACKWARD_TEMP, DOUBLE_BACKWARD, INDEX, JVP, MASK, SOFT

__all__ = ["backward", "backward_temp", "double_backward", "forward", "index", "jvp", "soft"]


def forward(
    logits: npt.ArrayLike,
    temp: npt.ArrayLike = 0.6,
    *,
    forward_temp: float = 1.0,
    seed: SupportsIndex | None = None,
    noise: npt.ArrayLike | None = None,
    offset: SupportsIndex = 0,
    axis: int = -1,
    where: npt.ArrayLike | None = None,
    nan_policy: str = "propagate",
    out: Array | None = None,
    backend: str | None = None,
) -> Array:
    """Sample: ``mask = one_hot(argmax(w))``, with ``w = logits + noise``.

    Parameters
    ----------
    logits : array_like, shape (..., K, ...)
        Unnormalised log-probabilities of the K candidates along `axis`; see `npselect.straight_through.forward`.
    temp : array_like, optional
        Temperature, as there. It does not change what is selected.
    forward_temp : float, optional
        How random the sample is: it is one of ``softmax(logits / forward_temp)``. The probabilities of the gradient
        have the temperature ``forward_temp * temp``.
    seed : int, optional
        From 0 to 2**64 - 1. Exactly one of `seed` and `noise` must be given. The same seed gives the same sample: count
        it up from call to call.
    noise : array_like, optional
        What is added instead; broadcasts to `logits`. It is rounded to the type in which it is added: float64 for
        float64 logits, else float32. An infinity or NaN in it acts as one in the logits.
    offset : int, optional
        With `seed`: the place of the first entry of `logits` in the stream of numbers. A contiguous block of a larger
        array, given the number of entries before it, selects what the whole would.
    axis, where, nan_policy, out, backend
        As in `npselect.straight_through.forward`. An entry's noise does not depend on `axis` or `where`.

    Returns
    -------
    ndarray, shape and dtype of `logits`
        +0 and a single 1 in each row, as in `npselect.straight_through.forward` of ``logits + noise``. A candidate of
        -inf, or with ``where=False``, is never selected.

    Raises
    ------
    TypeError
        Both or neither of `seed` and `noise`; `seed` or `offset` that is no integer; `offset` with `noise`; a
        `forward_temp` that is no number.
    ValueError
        `seed` or `offset` out of range; `forward_temp` is not positive and finite; `noise` does not broadcast to
        `logits`.
    TypeError, ValueError, numpy.exceptions.AxisError, RuntimeError
        As `npselect.straight_through.forward`.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import gumbel_softmax
    >>> logits = np.log(np.array([[0.2, 0.7, 0.1]] * 4, dtype=np.float32))
    >>> gumbel_softmax.forward(logits, seed=1)
    array([[0., 1., 0.],
           [0., 0., 1.],
           [0., 0., 1.],
           [1., 0., 0.]], dtype=float32)
    """
    drawn = sample_of(seed, noise, offset, forward_temp)
    return call(MASK, (logits,), temp, drawn, axis, where, nan_policy, out, backend)


def backward(
    grad_mask: npt.ArrayLike,
    logits: npt.ArrayLike,
    temp: npt.ArrayLike = 0.6,
    *,
    forward_temp: float = 1.0,
    seed: SupportsIndex | None = None,
    noise: npt.ArrayLike | None = None,
    offset: SupportsIndex = 0,
    axis: int = -1,
    where: npt.ArrayLike | None = None,
    nan_policy: str = "propagate",
    out: Array | None = None,
    backend: str | None = None,
) -> Array:
    """Differentiate soft: ``grad_logits_i = p_i (h_i - d) / temp``, with ``h_i = g_i - g_m`` and ``d = sum_i p_i h_i``.

    The noise does not depend on the logits, so this is the gradient of ``softmax((logits + noise) / temp)``:
    `npselect.straight_through.backward` of ``logits + noise``.

    Parameters
    ----------
    grad_mask : array_like, shape of `logits`
        The cotangent of the mask, as in `npselect.straight_through.backward`. Its dtype has no influence on the noise.
    logits, temp, forward_temp, seed, noise, offset, axis, where, nan_policy, out, backend
        As in `forward`; with the same seed and offset (or noise), for the sample that was selected there.

    Returns
    -------
    ndarray, shape of `logits`
        The cotangent of the logits, and of `noise`, should that be wanted.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError, RuntimeError
        As `forward`; also if `grad_mask` has another shape than `logits`.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import gumbel_softmax
    >>> gumbel_softmax.backward(np.array([1.0, 0.0]), np.array([0.0, 1.0]), temp=0.5, noise=np.array([1.0, 0.0]))
    array([ 0.5, -0.5])
    """
    drawn = sample_of(seed, noise, offset, forward_temp)
    return call(BACKWARD, (grad_mask, logits), temp, drawn, axis, where, nan_policy, out, backend)


def soft(
    logits: npt.ArrayLike,
    temp: npt.ArrayLike = 0.6,
    *,
    forward_temp: float = 1.0,
    seed: SupportsIndex | None = None,
    noise: npt.ArrayLike | None = None,
    offset: SupportsIndex = 0,
    axis: int = -1,
    where: npt.ArrayLike | None = None,
    nan_policy: str = "propagate",
    out: Array | None = None,
    backend: str | None = None,
) -> Array:
    """The relaxed sample, ``p_i = e_i / s``: ``softmax((logits + noise) / temp)``, 0 at excluded entries.

    Parameters
    ----------
    logits, temp, forward_temp, seed, noise, offset, axis, where, nan_policy, out, backend
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
    >>> from npselect import gumbel_softmax
    >>> gumbel_softmax.soft(np.array([0.0, 1.0]), noise=np.array([1.0, 0.0]))
    array([0.5, 0.5])
    """
    drawn = sample_of(seed, noise, offset, forward_temp)
    return call(SOFT, (logits,), temp, drawn, axis, where, nan_policy, out, backend)


def index(
    logits: npt.ArrayLike,
    *,
    forward_temp: float = 1.0,
    seed: SupportsIndex | None = None,
    noise: npt.ArrayLike | None = None,
    offset: SupportsIndex = 0,
    axis: int = -1,
    where: npt.ArrayLike | None = None,
    nan_policy: str = "propagate",
    out: Array | None = None,
    backend: str | None = None,
) -> Array:
    """Index of the sampled candidate along `axis`: ``index = argmax(w)``; -1 where nothing is selected.

    Parameters
    ----------
    logits, forward_temp, seed, noise, offset, axis, where, nan_policy, out, backend
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
    >>> from npselect import gumbel_softmax
    >>> sample = gumbel_softmax.index(np.log(np.full((100_000, 2), [0.25, 0.75])), seed=0)
    >>> float(sample.mean().round(2))
    0.75
    """
    drawn = sample_of(seed, noise, offset, forward_temp)
    return call(INDEX, (logits,), 1.0, drawn, axis, where, nan_policy, out, backend)


def jvp(
    tangent: npt.ArrayLike,
    logits: npt.ArrayLike,
    temp: npt.ArrayLike = 0.6,
    *,
    forward_temp: float = 1.0,
    seed: SupportsIndex | None = None,
    noise: npt.ArrayLike | None = None,
    offset: SupportsIndex = 0,
    axis: int = -1,
    where: npt.ArrayLike | None = None,
    nan_policy: str = "propagate",
    out: Array | None = None,
    backend: str | None = None,
) -> Array:
    """Forward-mode derivative of `soft` along `tangent`: the Jacobian is symmetric, so this is `backward`'s map.

    ``grad_logits_i = p_i (h_i - d) / temp``, with `tangent` in the place of `grad_mask`.

    Parameters
    ----------
    tangent : array_like, shape of `logits`
        The direction in which the logits move; the noise stays.
    logits, temp, forward_temp, seed, noise, offset, axis, where, nan_policy, out, backend
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
    >>> from npselect import gumbel_softmax
    >>> gumbel_softmax.jvp(np.array([1.0, 0.0]), np.array([0.0, 1.0]), temp=0.5, noise=np.array([1.0, 0.0]))
    array([ 0.5, -0.5])
    """
    drawn = sample_of(seed, noise, offset, forward_temp)
    return call(JVP, (tangent, logits), temp, drawn, axis, where, nan_policy, out, backend)


def backward_temp(
    grad_mask: npt.ArrayLike,
    logits: npt.ArrayLike,
    temp: npt.ArrayLike = 0.6,
    *,
    forward_temp: float = 1.0,
    seed: SupportsIndex | None = None,
    noise: npt.ArrayLike | None = None,
    offset: SupportsIndex = 0,
    axis: int = -1,
    where: npt.ArrayLike | None = None,
    nan_policy: str = "propagate",
    out: Array | None = None,
    backend: str | None = None,
) -> Array:
    """The cotangent of the temperature: ``grad_temp = -sum_i grad_logits_i t_i``, summed to the shape of `temp`.

    Parameters
    ----------
    grad_mask, logits, temp, forward_temp, seed, noise, offset, axis, where, nan_policy, out, backend
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
    >>> from npselect import gumbel_softmax
    >>> float(gumbel_softmax.backward_temp(np.array([1.0, 0.0]), np.array([0.0, 1.0]), noise=np.array([1.0, 0.0])))
    0.0
    """
    drawn = sample_of(seed, noise, offset, forward_temp)
    return call(BACKWARD_TEMP, (grad_mask, logits), temp, drawn, axis, where, nan_policy, out, backend)


def double_backward(
    grad_grad_logits: npt.ArrayLike,
    grad_mask: npt.ArrayLike,
    logits: npt.ArrayLike,
    temp: npt.ArrayLike = 0.6,
    *,
    forward_temp: float = 1.0,
    seed: SupportsIndex | None = None,
    noise: npt.ArrayLike | None = None,
    offset: SupportsIndex = 0,
    axis: int = -1,
    where: npt.ArrayLike | None = None,
    nan_policy: str = "propagate",
    out: tuple[Array | None, Array | None] | None = None,
    backend: str | None = None,
) -> tuple[Array, Array]:
    """The gradient of `backward` with respect to `grad_mask` and `logits`.

    `npselect.straight_through.double_backward` of ``logits + noise``: with ``v = grad_grad_logits``,
    ``a_i = g_i - <p, g>`` and ``b_i = v_i - <p, v>``::

        grad_grad_mask_i = p_i b_i / temp        grad_logits_i = p_i (a_i b_i - sum_j p_j a_j b_j) / temp**2

    Parameters
    ----------
    grad_grad_logits : array_like, shape of `logits`
        The cotangent of what `backward` returned.
    grad_mask, logits, temp, forward_temp, seed, noise, offset, axis, where, nan_policy, backend
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
    >>> from npselect import gumbel_softmax
    >>> v, g = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    >>> gumbel_softmax.double_backward(v, g, np.array([0.0, 1.0]), temp=1.0, noise=np.array([1.0, 0.0]))
    (array([ 0.25, -0.25]), array([0., 0.]))
    """
    drawn, arrays = sample_of(seed, noise, offset, forward_temp), (grad_grad_logits, grad_mask, logits)
    return call_for_two(DOUBLE_BACKWARD, arrays, temp, drawn, axis, where, nan_policy, out, backend)


sys.modules[__name__].__class__ = OperatorModule
