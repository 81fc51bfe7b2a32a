"""Identity: the selected vector forward, its cotangent as it is to the encoder's output backward.

A vector quantiser replaces the encoder's output e by the selected vector q of a codebook, and copies the gradient::

    forward = q        grad_e = grad

Written in a framework it is ``e + stop_gradient(q - e)``, whose value differs from q by rounding; here it is q, bit for
bit. The codebook gets no gradient by this way: it is trained by a loss of its own, or by moving averages.

A. van den Oord, O. Vinyals and K. Kavukcuoglu, "Neural discrete representation learning", NeurIPS 2017,
arXiv:1711.00937; the estimator is that of Y. Bengio, N. Léonard and A. Courville, arXiv:1308.3432.
"""

from __future__ import annotations

import numpy.typing as npt

from npselect._dtypes import Array
from npselect._modes import in_usual_modes
from npselect.selection._pairs import copied

__all__ = ["backward", "forward"]


@in_usual_modes
def forward(e: npt.ArrayLike, q: npt.ArrayLike, *, backend: str | None = None) -> Array:
    """The selected vectors: ``q``.

    Parameters
    ----------
    e : array_like, shape (..., D)
        The encoder's output: float16, bfloat16, float32 or float64; integers and bools become float64.
    q : array_like, shape of `e`
        What was selected in its place, as `npselect.selection.forward` returns it.
    backend : {None, "reference", "cpu", "cuda"}, optional
        It only has to run here: all copy alike.

    Returns
    -------
    ndarray, shape of `q`
        A new array in the dtype of `q`, bit for bit.

    Raises
    ------
    TypeError
        Complex, object, string or masked arrays.
    ValueError
        `q` has another shape than `e`, or they have no axes.
    RuntimeError
        The backend does not run here.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect.selection import identity
    >>> identity.forward(np.array([[0.1, 0.2]]), np.array([[1.0, 2.0]]))
    array([[1., 2.]])
    """
    return copied("q", {"e": e, "q": q}, backend, common=False)


@in_usual_modes
def backward(grad: npt.ArrayLike, e: npt.ArrayLike, q: npt.ArrayLike, *, backend: str | None = None) -> Array:
    """The gradient of the encoder's output: ``grad_e = grad``.

    Parameters
    ----------
    grad : array_like, shape of `e`
        The cotangent of what `forward` returned.
    e, q, backend
        As in `forward`. Their values do not matter: NaN, zeros or what a row gets that was offered nothing.

    Returns
    -------
    ndarray, shape of `e`
        A new array in the dtype ``np.result_type(grad, e, q)``.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As `forward`; also if `grad` has another shape than `e`.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect.selection import identity
    >>> identity.backward(np.array([[3.0, -1.0]]), np.array([[0.1, 0.2]]), np.array([[1.0, 2.0]]))
    array([[ 3., -1.]])
    """
    return copied("grad", {"grad": grad, "e": e, "q": q}, backend, common=True)
