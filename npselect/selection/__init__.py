"""Selection: the chosen one of K vectors forward; backward, what that means for the vectors and for the logits.

For one row, with ``m`` the index that the operator selects and ``mask`` its one-hot::

    chosen = x[m]                     grad_x_m = grad_chosen, and 0 elsewhere
    chosen = sum_j mask_j x_j         g_j = <grad_chosen, x_j> for every j;  grad_logits = operator.backward(g, logits)

The first form is what is computed, no mask is made. The second is what the operator differentiates: the cotangent of
its mask has an entry for every candidate, as a candidate that was not selected would have brought something else.

Batches broadcast, and a gradient is summed over what its input was broadcast along. With a codebook ``x`` of shape
(K, D) that a batch of logits (B, K) shares, ``g`` is one matrix product, and nothing of B x K x D is ever made.

``g`` is NumPy's matrix product, with whatever BLAS that has: unlike the operators' results, ``grad_logits`` may differ
in its last bits from machine to machine, and from batch to batch. With ``backend="reference"``, g is taken in float64.
Arrays on a GPU stay there, and so do the results: there g is summed in an order that only the vectors' length decides.

By the chain rule; the operator's part is derived where the operator is, see `npselect.straight_through`.

Where there are no logits, but a vector that was selected in the place of another, `npselect.selection.identity` and
`npselect.selection.rotation` have the gradient of the latter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from npselect._call.arguments import promoted
from npselect._call.memory import AnyArray, AnyMemory
from npselect._dtypes import Array
from npselect._modes import in_usual_modes
from npselect._operators import OPERATORS
from npselect.selection import identity, rotation
from npselect.selection._batches import (
    batch_of,
    cotangent_of_mask,
    read,
    selected_by,
    shape_of_chosen,
    temperatures_of,
)
from npselect.selection._operator import has_function, operator_of, options_for, temp_for

__all__ = ["backward", "backward_temp", "forward", "identity", "rotation"]


@in_usual_modes
def forward(
    x: npt.ArrayLike,
    logits: npt.ArrayLike,
    temp: npt.ArrayLike | None = None,
    *,
    where: npt.ArrayLike | None = None,
    operator: Any = "straight_through",
    reduce: bool = True,
    **operator_options: Any,
) -> Array:
    """Select: ``chosen = x[m]``, with ``m = operator.index(logits)``.

    Parameters
    ----------
    x : array_like, shape (..., K, D)
        What there is to choose from: float16, bfloat16, float32 or float64; integers and bools become float64. Never
        written to.
    logits : array_like, shape (..., K)
        Of the same dtypes. The axes before K broadcast against those of `x`, as in `numpy.matmul`; the operator gets
        `logits` as given, and selects once for all that share a row of it.
    temp : array_like, optional
        Temperature, positive and finite: a scalar, or an array that broadcasts against `logits` with length 1 along its
        last axis. The forward pass checks it and is otherwise independent of it. By default the operator's own:
        0.6, or 1 for `npselect.reinmax`, say.
    where : array_like of bool, optional
        Which entries are candidates; broadcasts to `logits`.
    operator : str or module, optional
        How the index is selected, and differentiated: the name of one of `npselect.OPERATORS`, such as ``"reinmax"``;
        its module; or an object with functions ``index`` and ``backward`` like those of `npselect.straight_through`.
        Those that draw a sample need ``seed=``, ``noise=`` or ``index=`` among the options. A `functools.partial` with
        ``operator=`` a name or a module can be pickled, and sent to other processes; one with an object of your own
        can, if that is of a class.
    reduce : bool, optional
        If False, the result is ``x * mask``, in which the chosen vector keeps its place among zeros.
    **operator_options
        Other options of the operator, such as ``seed``, ``noise``, ``index``, ``offset``, ``forward_temp``, ``gap``,
        ``nan_policy`` and ``backend``; not ``axis`` nor ``out``. Each of the operator's functions is given those that
        it takes.

    Returns
    -------
    ndarray, shape (..., D), or (..., K, D) without `reduce`
        In the dtype of `x`, bit for bit: whatever `x` holds where it is not selected, NaN too, does not matter. Zeros
        where `where` offers no candidate; NaN throughout where the operator's mask is NaN.

    Raises
    ------
    TypeError
        Complex, object, string or masked arrays; an operator that is none; an option that the operator does not take,
        ``axis`` and ``out`` among them.
    ValueError
        Shapes that do not fit; a name that is no operator's; `temp` not positive and finite; what the operator refuses,
        K = 0 among it.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import selection
    >>> codebook = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    >>> logits = np.array([[0.5, 2.0, -1.0], [0.0, 0.0, 1.0]])
    >>> selection.forward(codebook, logits)
    array([[3., 4.],
           [5., 6.]])
    >>> selection.forward(codebook, logits, operator="reinmax", index=[0, 1])
    array([[1., 2.],
           [3., 4.]])
    """
    operator = operator_of(operator, operator_options, "index", "backward")
    temp = temp_for(operator, temp)
    memory, arrays = read({"x": x, "logits": logits}, {"where": where, "temp": temp}, operator_options.get("backend"))
    x_shape = arrays["x"].shape
    batch = batch_of(x_shape, arrays["logits"].shape)
    temperatures_of(memory, temp, arrays)
    selected = selected_by(memory, arrays, where, operator, operator_options, batch, reduce)
    # chosen = x[m]
    chosen: Array = memory.vectors.gather(arrays["x"], selected, shape_of_chosen(batch, x_shape, reduce))
    memory.finish()
    return chosen


@in_usual_modes
def backward(
    grad_chosen: npt.ArrayLike,
    x: npt.ArrayLike,
    logits: npt.ArrayLike,
    temp: npt.ArrayLike | None = None,
    *,
    where: npt.ArrayLike | None = None,
    operator: Any = "straight_through",
    reduce: bool = True,
    **operator_options: Any,
) -> tuple[Array, Array]:
    """Both gradients: ``grad_x = grad_chosen`` at ``m``; ``grad_logits = operator.backward(g, logits)``.

    Parameters
    ----------
    grad_chosen : array_like, shape of `forward`'s result
        The cotangent of what was chosen.
    x, logits, temp, where, operator, reduce, **operator_options
        As in `forward`.

    Returns
    -------
    grad_x : ndarray, shape of `x`
        In the dtype ``np.result_type(x, grad_chosen)``; 0 at what was not selected, NaN where a row whose mask is NaN
        had a share in `x`. Sums over a batch that shares `x` are taken in float64, in the order of the batch, and
        rounded once.
    grad_logits : ndarray, shape of `logits`
        In the dtype ``np.result_type(x, logits, grad_chosen)``; zeros and NaN as the operator has them. Dot products of
        16-bit numbers are taken in float32, and so is the operator's part; the result is rounded once.

    Raises
    ------
    TypeError, ValueError
        As `forward`; also if `grad_chosen` has another shape than what was chosen.

    Notes
    -----
    NaN or an infinity in `x` at a candidate, or a dot product that overflows, reaches `grad_logits` even if another was
    selected: it is part of ``g``. At excluded entries it does not.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import selection
    >>> codebook = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> logits = np.array([[0.0, 0.0], [0.0, 0.0]])
    >>> grad_chosen = np.array([[1.0, 0.0], [1.0, 1.0]])
    >>> grad_x, grad_logits = selection.backward(grad_chosen, codebook, logits, temp=0.5)
    >>> grad_x
    array([[2., 1.],
           [0., 0.]])
    >>> grad_logits
    array([[-1.,  1.],
           [-2.,  2.]])
    """
    operator = operator_of(operator, operator_options, "index", "backward")
    temp = temp_for(operator, temp)
    memory, arrays = _with_cotangent(grad_chosen, x, logits, temp, where, reduce, operator_options)
    x_there, logits_there, grad = arrays.values()
    batch, dtype = batch_of(x_there.shape, logits_there.shape), promoted(arrays)
    selected = selected_by(memory, arrays, where, operator, operator_options, batch, reduce)
    # chosen = x[m]
    grad_x = memory.vectors.scatter_add(grad, x_there, selected, promoted({"x": x_there, "grad_chosen": grad}))
    # chosen = sum_j mask_j x_j
    g = cotangent_of_mask(memory, arrays, reduce, operator_options.get("backend"))
    temps = temperatures_of(memory, temp, arrays)  # whatever the type of g
    options = options_for(operator, "backward", operator_options)
    result = operator.backward(g, logits_there, temps, where=where, **options)
    grad_logits = memory.vectors.rounded(memory.floating(result, "operator.backward's result"), dtype)
    memory.finish()
    return grad_x, grad_logits


@in_usual_modes
def backward_temp(
    grad_chosen: npt.ArrayLike,
    x: npt.ArrayLike,
    logits: npt.ArrayLike,
    temp: npt.ArrayLike | None = None,
    *,
    where: npt.ArrayLike | None = None,
    operator: Any = "straight_through",
    reduce: bool = True,
    **operator_options: Any,
) -> Array:
    """The gradient of the temperature: ``grad_temp = operator.backward_temp(g, logits)``, with the g of `backward`.

    Parameters
    ----------
    grad_chosen, x, logits, temp, where, operator, reduce, **operator_options
        As in `backward`; of an operator whose gradient is the derivative of a function. `npselect.reinmax` has none for
        the temperature: part of it is held as it is.

    Returns
    -------
    ndarray, shape of `temp`
        In the dtype ``np.result_type(x, logits, grad_chosen)``, summed over the rows that share a temperature.

    Raises
    ------
    TypeError, ValueError
        As `backward`; TypeError also if the operator has no function ``backward_temp``.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import selection
    >>> codebook = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> grad_temp = selection.backward_temp(np.array([1.0, 0.0]), codebook, np.array([0.0, 1.0]), 0.5)
    >>> print(f"{grad_temp:.4f}")
    -0.8399
    """
    operator = operator_of(operator, operator_options, "index", "backward")
    temp = temp_for(operator, temp)
    if not has_function(operator, "backward_temp"):
        name = getattr(operator, "__name__", operator)
        having = ", ".join(name for name, one in OPERATORS.items() if "backward_temp" in one.functions)
        raise TypeError(
            f"operator {name!r} has no backward_temp: its gradient is not the derivative of a function, so the "
            f"temperature has no gradient; operators that have one are {having}"
        )
    memory, arrays = _with_cotangent(grad_chosen, x, logits, temp, where, reduce, operator_options)
    g = cotangent_of_mask(memory, arrays, reduce, operator_options.get("backend"))
    temps = temperatures_of(memory, temp, arrays)
    options = options_for(operator, "backward_temp", operator_options)
    result = operator.backward_temp(g, arrays["logits"], temps, where=where, **options)
    grad_temp = memory.vectors.rounded(memory.floating(result, "operator.backward_temp's result"), promoted(arrays))
    memory.finish()
    shaped: Array = memory.result(grad_temp.reshape(np.shape(memory.to_host(temp))))
    return shaped


def _with_cotangent(
    grad_chosen: object,
    x: object,
    logits: object,
    temp: object,
    where: object,
    reduce: bool,
    options: dict[str, Any],
) -> tuple[AnyMemory, dict[str, AnyArray]]:
    """The arrays of a backward pass where they are, by name; `grad_chosen` must have the shape of what was chosen."""
    given = {"x": x, "logits": logits, "grad_chosen": grad_chosen}
    memory, arrays = read(given, {"where": where, "temp": temp}, options.get("backend"))
    x_shape = arrays["x"].shape
    shape = shape_of_chosen(batch_of(x_shape, arrays["logits"].shape), x_shape, reduce)
    if arrays["grad_chosen"].shape != shape:
        raise ValueError(
            f"grad_chosen has shape {arrays['grad_chosen'].shape} and chosen has shape {shape}; the two must be equal"
        )
    return memory, arrays
