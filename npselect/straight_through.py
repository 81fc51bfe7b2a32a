"""Straight-through selection: the one-hot of the argmax forward, the gradient of ``softmax(logits / temp)`` backward.

An operator without state: `backward` takes what `forward` took, with the cotangent in front. For one row, with ``m``
the selected index, over the candidates only::

    t_i = (w_i - w_m) / temp        e_i = exp(t_i)        s = sum_i e_i        p_i = e_i / s
    h_i = g_i - g_m                 d = sum_i p_i h_i

The technique: Y. Bengio, N. Léonard and A. Courville, "Estimating or propagating gradients through stochastic neurons
for conditional computation", arXiv:1308.3432, 2013.
"""

from __future__ import annotations

import sys

import numpy.typing as npt

from npselect._call.call import call, call_for_two
from npselect._call.module import OperatorModule
from npselect._dtypes import Array
from npselect._operators import BACKWARD, BACKWARD_TEMP, DOUBLE_BACKWARD, INDEX, JVP, MASK, SOFT

__all__ = ["backward", "backward_temp", "double_backward", "forward", "index", "jvp", "soft"]


def forward(
    logits: npt.ArrayLike,
    temp: npt.ArrayLike = 0.6,
    *,
    axis: int = -1,
    where: npt.ArrayLike | None = None,
    nan_policy: str = "propagate",
    out: Array | None = None,
    backend: str | None = None,
) -> Array:
    """Select hard: ``mask = one_hot(argmax(w))``, with ``w = logits``.

    Parameters
    ----------
    logits : array_like, shape (..., K, ...)
        float16, bfloat16, float32 or float64; integers and bools become float64. K >= 1 candidates along `axis`; every
        other index is a row of its own. Never written to. A tensor of PyTorch on the CPU will do for any array, and is
        read as its ``detach()``.
    temp : array_like, optional
        Temperature, positive and finite: a scalar, or an array that broadcasts against `logits` with length 1 along
        `axis`. It is rounded to the type that the logits are computed in (float64 for float64, else float32). The
        forward pass checks it and is otherwise independent of it.
    axis : int, optional
        The axis of the candidates.
    where : array_like of bool, optional
        Which entries are candidates; broadcasts to `logits`. The rest is never selected, nor read into any sum.
    nan_policy : {"propagate", "raise"}, optional
        Whether NaN or +inf among the candidates makes its row NaN, or is an error.
    out : ndarray, optional
        Where the result goes, as in NumPy; it may be one of the inputs.
    backend : {None, "reference", "cpu", "cuda"}, optional
        The tier. None lets the data decide: arrays on a GPU (of PyTorch, CuPy, JAX, numba or any other library with
        ``__cuda_array_interface__`` or DLPack) are computed with there, on the caller's stream, and not copied to the
        host; the result is an array there that those libraries take without a copy, or `out`. Logits, cotangents and
        `out` must be on one side; the other arguments may be on the host. "cuda" copies NumPy arrays over and back.

    Returns
    -------
    ndarray, shape and dtype of `logits`
        +0 and a single 1 in each row: at the largest candidate or, among equals (-0 equals +0), the first. Zeros where
        `where` offers no candidate; NaN throughout where every candidate is -inf, or one is NaN or +inf.

    Raises
    ------
    TypeError
        Complex, object, string or masked arrays.
    ValueError
        K = 0; `temp` not positive and finite; shapes that do not fit; NaN or +inf under ``nan_policy="raise"``; in any
        array, an integer that float64 does not hold, such as ``2**53 + 1``.
    numpy.exceptions.AxisError
        No such axis.
    RuntimeError
        The tier that was named does not run here.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import straight_through
    >>> straight_through.forward(np.array([0.5, 2.0, -1.0], dtype=np.float32))
    array([0., 1., 0.], dtype=float32)
    """
    return call(MASK, (logits,), temp, None, axis, where, nan_policy, out, backend)


def backward(
    grad_mask: npt.ArrayLike,
    logits: npt.ArrayLike,
    temp: npt.ArrayLike = 0.6,
    *,
    axis: int = -1,
    where: npt.ArrayLike | None = None,
    nan_policy: str = "propagate",
    out: Array | None = None,
    backend: str | None = None,
) -> Array:
    """Differentiate soft: ``grad_logits_i = p_i (h_i - d) / temp``, as though `forward` had returned `soft`.

    The Jacobian of ``softmax(logits / temp)`` is ``(diag(p) - p p^T) / temp``; with the cotangent measured from its
    selected entry (``h``) the product keeps its digits on saturated rows and for nearly constant cotangents, where the
    textbook's ``p (g - sum(p g)) / temp`` does not.

    Parameters
    ----------
    grad_mask : array_like, shape of `logits`
        The cotangent of the mask. What stands at excluded entries is ignored. The dtype of the result is
        ``np.result_type(logits, grad_mask)``.
    logits, temp, axis, where, nan_policy, out, backend
        As in `forward`.

    Returns
    -------
    ndarray, shape of `logits`
        The cotangent of the logits: exactly 0 at a -inf logit, at ``where=False`` and for K = 1. NaN in the rows where
        the mask is NaN; NaN at the candidates of a row whose `grad_mask` holds NaN or an infinity at a candidate.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError, RuntimeError
        As `forward`; also if `grad_mask` has another shape than `logits`.

    Notes
    -----
    Sums over a row of differences of the cotangent's entries must be finite in the type of the computation:
    ``|grad_mask|`` up to the largest number divided by ``4 K`` is safe; beyond, the kernels may return NaN where the
    reference does not. In the kernels a probability or a mean below the smallest normal number keeps only the digits of
    a subnormal, which a tiny `temp` then enlarges: an error of the smallest subnormal over `temp` is part of their
    bound.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import straight_through
    >>> logits = np.array([0.0, 0.0])
    >>> straight_through.backward(np.array([1.0, 0.0]), logits, temp=0.5)
    array([ 0.5, -0.5])
    """
    return call(BACKWARD, (grad_mask, logits), temp, None, axis, where, nan_policy, out, backend)


def soft(
    logits: npt.ArrayLike,
    temp: npt.ArrayLike = 0.6,
    *,
    axis: int = -1,
    where: npt.ArrayLike | None = None,
    nan_policy: str = "propagate",
    out: Array | None = None,
    backend: str | None = None,
) -> Array:
    """The probabilities behind the choice, ``p_i = e_i / s``: ``softmax(logits / temp)``, 0 at excluded entries.

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
        As `forward`.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import straight_through
    >>> straight_through.soft(np.array([0.0, 0.0, -np.inf, 0.0, 0.0]))
    array([0.25, 0.25, 0.  , 0.25, 0.25])
    """
    return call(SOFT, (logits,), temp, None, axis, where, nan_policy, out, backend)


def index(
    logits: npt.ArrayLike,
    *,
    axis: int = -1,
    where: npt.ArrayLike | None = None,
    nan_policy: str = "propagate",
    out: Array | None = None,
    backend: str | None = None,
) -> Array:
    """Index of the selected candidate along `axis`: ``index = argmax(w)``; -1 where nothing is selected.

    Parameters
    ----------
    logits, axis, where, nan_policy, out, backend
        As in `forward`.

    Returns
    -------
    ndarray of int64, shape of `logits` without `axis`
        Unlike `numpy.argmax`'s, -1 in rows that are NaN or have no candidates.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError, RuntimeError
        As `forward`.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import straight_through
    >>> straight_through.index(np.array([[1.0, 3.0, 3.0], [np.nan, 0.0, 1.0]]))
    array([ 1, -1])
    """
    return call(INDEX, (logits,), 1.0, None, axis, where, nan_policy, out, backend)


def jvp(
    tangent: npt.ArrayLike,
    logits: npt.ArrayLike,
    temp: npt.ArrayLike = 0.6,
    *,
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
        The direction in which the logits move.
    logits, temp, axis, where, nan_policy, out, backend
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
    >>> from npselect import straight_through
    >>> straight_through.jvp(np.array([1.0, 0.0]), np.array([0.0, 0.0]), temp=0.5)
    array([ 0.5, -0.5])
    """
    return call(JVP, (tangent, logits), temp, None, axis, where, nan_policy, out, backend)


def backward_temp(
    grad_mask: npt.ArrayLike,
    logits: npt.ArrayLike,
    temp: npt.ArrayLike = 0.6,
    *,
    axis: int = -1,
    where: npt.ArrayLike | None = None,
    nan_policy: str = "propagate",
    out: Array | None = None,
    backend: str | None = None,
) -> Array:
    """The cotangent of the temperature: ``grad_temp = -sum_i grad_logits_i t_i``, summed to the shape of `temp`.

    From ``t_i = (w_i - w_m) / temp`` and ``d t_i / d temp = -t_i / temp``.

    Parameters
    ----------
    grad_mask, logits, temp, axis, where, nan_policy, out, backend
        As in `backward`.

    Returns
    -------
    ndarray, shape of `temp`
        In the dtype of `backward`'s result; a NumPy scalar for a scalar `temp`. NaN if one of the rows is.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError, RuntimeError
        As `backward`.

    Notes
    -----
    Beside what `backward` asks for, sums over the rows that share a temperature must be finite in the type of the
    computation; else the kernels may return NaN or an infinity where the reference does not.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import straight_through
    >>> float(straight_through.backward_temp(np.array([1.0, 0.0]), np.array([0.0, 0.0])))
    0.0
    """
    return call(BACKWARD_TEMP, (grad_mask, logits), temp, None, axis, where, nan_policy, out, backend)


def double_backward(
    grad_grad_logits: npt.ArrayLike,
    grad_mask: npt.ArrayLike,
    logits: npt.ArrayLike,
    temp: npt.ArrayLike = 0.6,
    *,
    axis: int = -1,
    where: npt.ArrayLike | None = None,
    nan_policy: str = "propagate",
    out: tuple[Array | None, Array | None] | None = None,
    backend: str | None = None,
) -> tuple[Array, Array]:
    """The gradient of `backward` with respect to `grad_mask` and `logits`.

    For the cotangent ``v`` of grad_logits, with ``J = diag(p) - p p^T``: grad_mask receives ``J v / temp``, the logits
    receive ``J [v g - v <p, g> - g <p, v>] / temp**2``. As J removes constants, the bracket may be ``a b``, the product
    of the two cotangents measured from their means: ``a_i = g_i - <p, g>``, ``b_i = v_i - <p, v>``::

        grad_grad_mask_i = p_i b_i / temp        grad_logits_i = p_i (a_i b_i - sum_j p_j a_j b_j) / temp**2

    Parameters
    ----------
    grad_grad_logits : array_like, shape of `logits`
        The cotangent of what `backward` returned.
    grad_mask, logits, temp, axis, where, nan_policy, backend
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

    Notes
    -----
    Beside what `backward` asks for, sums of products of differences, one of either cotangent, must be finite in the
    type of the computation: ``max |grad_mask| max |grad_grad_logits|`` up to the largest number divided by ``4 K`` is
    safe; beyond, the kernels' `grad_logits` may be NaN where the reference's is not.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import straight_through
    >>> v, g = np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0])
    >>> grad_grad_mask, grad_logits = straight_through.double_backward(v, g, np.array([0.0, -np.inf, 0.0]), temp=1.0)
    >>> grad_grad_mask, grad_logits
    (array([ 0.25,  0.  , -0.25]), array([0., 0., 0.]))
    """
    return call_for_two(
        DOUBLE_BACKWARD, (grad_grad_logits, grad_mask, logits), temp, None, axis, where, nan_policy, out, backend
    )


sys.modules[__name__].__class__ = OperatorModule
