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
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from npselect import straight_through
from npselect._call import on_host
from npselect._call.arguments import computed_in, promoted, temperatures
from npselect._call.layout import tier_and_memory
from npselect._call.memory import AnyArray, AnyMemory
from npselect._dtypes import Array, Shape
from npselect._modes import in_usual_modes
from npselect._operators import OPERATORS
from npselect._places import names_on_gpu
from npselect.tiers.cpu.gather import Selected

__all__ = ["backward", "forward"]


@in_usual_modes
def forward(
    x: npt.ArrayLike,
    logits: npt.ArrayLike,
    temp: npt.ArrayLike = 0.6,
    *,
    where: npt.ArrayLike | None = None,
    operator: Any = straight_through,
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
        last axis. The forward pass checks it and is otherwise independent of it.
    where : array_like of bool, optional
        Which entries are candidates; broadcasts to `logits`.
    operator : module, optional
        With the functions ``index`` and ``backward`` of `npselect.straight_through`; `npselect.gumbel_softmax` needs
        ``seed=`` or ``noise=`` among the options, `npselect.reinmax` one of ``seed=``, ``noise=`` and ``index=``. These
        modules can be pickled, so that a `functools.partial` with ``operator=`` can be sent to other processes; an
        operator of your own can if it is no module but an object of a class.
    reduce : bool, optional
        If False, the result is ``x * mask``, in which the chosen vector keeps its place among zeros.
    **operator_options
        Other options of the operator, such as ``seed``, ``noise``, ``index``, ``offset``, ``nan_policy`` and
        ``backend``; not ``axis`` nor ``out``.

    Returns
    -------
    ndarray, shape (..., D), or (..., K, D) without `reduce`
        In the dtype of `x`, bit for bit: whatever `x` holds where it is not selected, NaN too, does not matter. Zeros
        where `where` offers no candidate; NaN throughout where the operator's mask is NaN.

    Raises
    ------
    TypeError
        Complex, object, string or masked arrays; an operator that is none; the options ``axis`` and ``out``.
    ValueError
        Shapes that do not fit; `temp` not positive and finite; what the operator refuses, K = 0 among it.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import selection
    >>> codebook = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    >>> logits = np.array([[0.5, 2.0, -1.0], [0.0, 0.0, 1.0]])
    >>> selection.forward(codebook, logits)
    array([[3., 4.],
           [5., 6.]])
    """
    _check_operator(operator, operator_options)
    memory, arrays = _read({"x": x, "logits": logits}, {"where": where, "temp": temp}, operator_options.get("backend"))
    batch = _batch(arrays["x"].shape, arrays["logits"].shape)
    _temperatures(memory, temp, arrays)
    selected = _select(memory, arrays, where, operator, operator_options, batch, reduce)
    # chosen = x[m]
    chosen: Array = memory.vectors.gather(arrays["x"], selected, _chosen_shape(batch, arrays["x"].shape, reduce))
    memory.finish()
    return chosen


@in_usual_modes
def backward(
    grad_chosen: npt.ArrayLike,
    x: npt.ArrayLike,
    logits: npt.ArrayLike,
    temp: npt.ArrayLike = 0.6,
    *,
    where: npt.ArrayLike | None = None,
    operator: Any = straight_through,
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
    _check_operator(operator, operator_options)
    given = {"x": x, "logits": logits, "grad_chosen": grad_chosen}
    memory, arrays = _read(given, {"where": where, "temp": temp}, operator_options.get("backend"))
    x_there, logits_there, grad = arrays.values()
    batch = _batch(x_there.shape, logits_there.shape)
    shape = _chosen_shape(batch, x_there.shape, reduce)
    if grad.shape != shape:
        raise ValueError(f"grad_chosen has shape {grad.shape} and chosen has shape {shape}; the two must be equal")
    dtype = promoted(arrays)
    selected = _select(memory, arrays, where, operator, operator_options, batch, reduce)
    # chosen = x[m]
    grad_x = memory.vectors.scatter_add(grad, x_there, selected, promoted({"x": x_there, "grad_chosen": grad}))
    # chosen = sum_j mask_j x_j
    compute = np.dtype(np.float64 if operator_options.get("backend") == "reference" else computed_in(dtype))
    dot = partial(memory.vectors.batched_dot, compute=compute)
    if reduce:
        g = _dots(dot, grad, x_there, logits_there.shape)
    else:
        apart = x_there.reshape((*x_there.shape[:-1], 1, x_there.shape[-1]))
        g = _dots(dot, grad, apart, (*logits_there.shape, 1)).reshape(logits_there.shape)
    temps = _temperatures(memory, temp, arrays)  # whatever the type of g
    result = operator.backward(g, logits_there, temps, where=where, **operator_options)
    grad_logits = memory.vectors.rounded(memory.floating(result, "operator.backward's result"), dtype)
    memory.finish()
    return grad_x, grad_logits


def _read(
    arrays: Mapping[str, object], beside: Mapping[str, object], backend: str | None
) -> tuple[AnyMemory, dict[str, AnyArray]]:
    """Where arrays are, all of which must be on one side, and what they are there."""
    memory: AnyMemory = on_host
    if on_gpu := names_on_gpu({**arrays, **beside}):
        _, memory = tier_and_memory(backend, arrays, beside, on_gpu)
    return memory, {name: memory.floating(values, name) for name, values in arrays.items()}


def _temperatures(memory: AnyMemory, temp: object, arrays: dict[str, AnyArray]) -> Array:
    logits = arrays["logits"]
    return temperatures(memory.to_host(temp), promoted(arrays), logits.shape, logits.ndim - 1)


def _select(
    memory: AnyMemory,
    arrays: dict[str, AnyArray],
    where: npt.ArrayLike | None,
    operator: Any,
    options: dict[str, Any],
    batch: Shape,
    reduce: bool,
) -> Selected:
    x_shape, logits = arrays["x"].shape, arrays["logits"]
    index = np.asarray(memory.to_host(operator.index(logits, where=where, **options)))
    if index.shape != logits.shape[:-1] or index.dtype.kind not in "iu" or np.any(index >= logits.shape[-1]):
        expected = f"integers below {logits.shape[-1]}, of shape {logits.shape[:-1]}"
        raise ValueError(f"operator.index returned {index.dtype} of shape {index.shape}; expected {expected}")
    spoilt = index < 0
    if where is not None and np.any(spoilt):
        spoilt = spoilt & np.any(np.broadcast_to(memory.to_host(where), logits.shape), axis=-1)
    *x_batch, choices, _ = x_shape
    items = np.broadcast_to(np.arange(math.prod(x_batch)).reshape(x_batch), batch)
    index, spoilt = np.broadcast_to(index, batch), np.broadcast_to(spoilt, batch)
    selects = index >= 0
    m, rows = index[selects], np.flatnonzero(selects)
    return Selected(items[selects] * choices + m, rows if reduce else rows * choices + m, items, spoilt)


def _dots(dot: Callable[..., AnyArray], grad: AnyArray, x: AnyArray, logits_shape: Shape) -> AnyArray:
    """``g_j = <grad_chosen, x_j>``, summed over the batch axes that the logits lack.

    One matrix product for each item that neither `x` nor the logits lack: what shares an `x` are the rows of it, and
    what shares a row of the logits lengthens the vectors.
    """
    *batch, features = grad.shape
    axes, choices = len(batch), logits_shape[-1]
    x = x.reshape((1,) * (axes + 2 - x.ndim) + x.shape)
    logits_batch = (1,) * (axes + 1 - len(logits_shape)) + logits_shape[:-1]
    sharing_x = [i for i in range(axes) if x.shape[i] != batch[i]]
    sharing_logits = [i for i in range(axes) if logits_batch[i] != batch[i]]
    each = [i for i in range(axes) if x.shape[i] == logits_batch[i] == batch[i]]
    order = [*each, *sharing_x, *sharing_logits]
    items, rows, length = (math.prod(batch[i] for i in part) for part in (each, sharing_x, sharing_logits))
    left = grad.transpose((*order, axes)).reshape((items, rows, length * features))
    right = x.transpose((*each, *sharing_x, axes, *sharing_logits, axes + 1))
    g = dot(left, right.reshape((items, choices, length * features)))
    g = g.reshape((*(logits_batch[i] for i in order), choices))
    return g.transpose((*(int(i) for i in np.argsort(order)), axes)).reshape(logits_shape)


# ------------------------------------------------------------------------------------------------ what may come in

_OPTIONS = {"backend", "nan_policy", *chain.from_iterable(operator.options for operator in OPERATORS.values())}


def _check_operator(operator: Any, options: dict[str, Any]) -> None:
    for name in ("index", "backward"):
        if not callable(getattr(operator, name, None)):
            raise TypeError(
                f"operator is {operator!r}, which has no function {name}; it takes a module like "
                "npselect.straight_through"
            )
        takes = inspect.signature(getattr(operator, name)).parameters
        unknown = sorted(set(options) - set(takes))
        if unknown and all(parameter.kind != parameter.VAR_KEYWORD for parameter in takes.values()):
            raise TypeError(
                f"operator {getattr(operator, '__name__', operator)!r} takes no option {unknown[0]}; it takes "
                f"{', '.join(sorted(_OPTIONS & set(takes)))}"
            )
    if "axis" in options:
        raise TypeError("selection takes no axis: the candidates are the last axis of logits and the last but one of x")
    if "out" in options:
        raise TypeError("selection takes no out: its results are new arrays")


def _batch(x: Shape, logits: Shape) -> Shape:
    """The shape of the batch, given the shapes of `x` and the logits."""
    shapes = f"x has shape {x} and logits has shape {logits}"
    if len(x) < 2 or len(logits) < 1 or x[-2] != logits[-1]:
        raise ValueError(f"{shapes}; x takes (..., K, D) and logits (..., K), with the same K")
    try:
        return np.broadcast_shapes(x[:-2], logits[:-1])
    except ValueError:
        raise ValueError(f"{shapes}; {x[:-2]} and {logits[:-1]}, what is before K, must broadcast") from None


def _chosen_shape(batch: Shape, x: Shape, reduce: bool) -> Shape:
    return (*batch, x[-1]) if reduce else (*batch, *x[-2:])
