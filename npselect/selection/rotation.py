r"""Rotation: the selected vector forward; backward, its cotangent turned and scaled as q was from e.

The rotation trick. A vector quantiser replaces the encoder's output e by the selected vector q. With ``e^ = e / |e|``
and ``q^ = q / |q|``, that is a rotation R in the plane of the two, and a scale::

    q = lambda R e        lambda = |q| / |e|        R = 1 - 2 r r^T + 2 q^ e^T        r = (e^ + q^) / |e^ + q^|

Both are held as they are, as by ``stop_gradient``, and so the cotangent g of q becomes::

    grad_e = lambda R^T g = lambda (g - 2 r <r, g> + 2 e^ <q^, g>)

The angle between the gradient and the vector is kept: ``<grad_e, e> = <g, q>``. With R = 1 and lambda = 1 it would be
`npselect.selection.identity`. As R and lambda are held, this is no gradient of a function; q gets none by this way.

C. Fifty, R. G. Junkins, D. Duan, A. Iyengar, J. W. Liu, E. Amid, S. Thrun and C. Ré, "Restructuring vector quantization
with the rotation trick", ICLR 2025, arXiv:2410.06424, section 4. What it says nothing of is decided here:

=======================================  =======================================================================
the row's vectors                        its gradient
=======================================  =======================================================================
one direction, ``q = c e``, c > 0        ``c g``; g itself, bit for bit, if ``q = e``
opposite, ``q = -c e``                   ``c (g - 2 e^ <e^, g>)``: R is the reflection along e. A rotation by half a
                                         turn has no plane that e and q would name.
q = 0, so what was offered nothing       exactly 0, whatever e is: lambda is 0
e = 0, q is not                          g, as `npselect.selection.identity` has it: no R and lambda lead from 0 to q
D = 1                                    ``(q / e) g``
NaN or an infinity in e, q or grad       NaN throughout the row; other rows do not change
K = 1, a codebook of one vector          nothing special: e moves, whatever is selected
=======================================  =======================================================================

Opposite means exactly so. Vectors that are nearly opposite have a rotation, in which the published formula cancels:
``e^ + q^`` has no digits left. The CPU tier takes it in another form (`npselect.tiers.cpu.rotation`), and stays within
a bound for all vectors.
"""

from __future__ import annotations

import numpy.typing as npt

from npselect._dtypes import Array
from npselect._modes import in_usual_modes
from npselect.selection._pairs import copied, rotated

__all__ = ["backward", "forward"]


@in_usual_modes
def forward(e: npt.ArrayLike, q: npt.ArrayLike, *, backend: str | None = None) -> Array:
    """The selected vectors: ``q``, which is ``lambda R e``.

    Parameters
    ----------
    e, q, backend
        As in `npselect.selection.identity.forward`.

    Returns
    -------
    ndarray, shape of `q`
        A new array in the dtype of `q`, bit for bit: ``lambda R e`` would be rounded.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As `npselect.selection.identity.forward`.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect.selection import rotation
    >>> rotation.forward(np.array([[2.0, 0.0]]), np.array([[0.0, 1.0]]))
    array([[0., 1.]])
    """
    return copied("q", {"e": e, "q": q}, backend, common=False)


@in_usual_modes
def backward(grad: npt.ArrayLike, e: npt.ArrayLike, q: npt.ArrayLike, *, backend: str | None = None) -> Array:
    """The gradient of the encoder's output: ``grad_e = (|q| / |e|) (g - 2 r <r, g> + 2 e^ <q^, g>)``.

    Parameters
    ----------
    grad : array_like, shape of `e`
        The cotangent g of what `forward` returned.
    e : array_like, shape (..., D)
        The encoder's output: float16, bfloat16, float32 or float64; integers and bools become float64.
    q : array_like, shape of `e`
        What was selected in its place.
    backend : {None, "reference", "cpu"}, optional
        "reference" rounds the exact result once. "cpu", the default, has the same bits on every processor, for any
        batch, layout and number of threads.

    Returns
    -------
    ndarray, shape of `e`
        In the dtype ``np.result_type(grad, e, q)``. The module's table says what degenerate rows get.

    Raises
    ------
    TypeError, ValueError
        As `npselect.selection.identity.backward`.
    RuntimeError
        The backend does not run here; for ``backend="cuda"`` and for arrays on a GPU, as there is no kernel for them.

    Notes
    -----
    The CPU tier computes in float64, and rounds once. Before that the errors of a row are, as a vector, of length at
    most ``(24 |e| / max |e_i| + 34 m + 124) 2**-53 |grad_e|``, with m the depth of a sum over D terms: 8 for D up to
    128, 15 for D = 1024.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect.selection import rotation
    >>> e, q = np.array([[2.0, 0.0]]), np.array([[0.0, 1.0]])  # a quarter turn, and half the length
    >>> rotation.backward(np.array([[4.0, 6.0]]), e, q)
    array([[ 3., -2.]])
    """
    return rotated({"grad": grad, "e": e, "q": q}, backend)
