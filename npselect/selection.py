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

By the chain rule; the operator's part is derived where the operator is, see `npselect.straight_through`.
"""

from __future__ import annotations

import inspect
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from npselect import straight_through
from npselect._arguments import computed_in, floating, promoted, temperatures

__all__ = ["backward", "forward"]

Array = npt.NDArray[Any]


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
        ``seed=`` or ``noise=`` among the options.
    reduce : bool, optional
        If False, the result is ``x * mask``, in which the chosen vector keeps its place among zeros.
    **operator_options
        Other options of the operator, such as ``seed``, ``noise``, ``offset``, ``nan_policy`` and ``backend``; not
        ``axis`` nor ``out``.

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
    x, logits = floating(x, "x"), floating(logits, "logits")
    batch = _batch(x.shape, logits.shape)
    temperatures(temp, promoted({"x": x, "logits": logits}), logits.shape, logits.ndim - 1)
    chosen = np.zeros(_chosen_shape(batch, x.shape, reduce), x.dtype.newbyteorder("="))
    rows = _select(x.shape, logits, where, operator, operator_options, batch, reduce)
    # chosen = x[m]
    _vectors(chosen)[rows.chosen] = x[np.unravel_index(rows.x, x.shape[:-1])]
    chosen[rows.spoilt] = np.nan
    return chosen


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
    NaN or an infinity in `x` at a candidate reaches `grad_logits` even if another was selected: it is part of ``g``.
    At excluded entries it does not.

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
    grad, x, logits = floating(grad_chosen, "grad_chosen"), floating(x, "x"), floating(logits, "logits")
    batch = _batch(x.shape, logits.shape)
    shape = _chosen_shape(batch, x.shape, reduce)
    if grad.shape != shape:
        raise ValueError(f"grad_chosen has shape {grad.shape} and chosen has shape {shape}; the two must be equal")
    dtype = promoted({"x": x, "logits": logits, "grad_chosen": grad})
    rows = _select(x.shape, logits, where, operator, operator_options, batch, reduce)
    with np.errstate(all="ignore"):
        # chosen = x[m]
        grad_x = _grad_x(grad, x, rows)
        # chosen = sum_j mask_j x_j
        compute = np.dtype(np.float64 if operator_options.get("backend") == "reference" else computed_in(dtype))
        grad, x = np.ascontiguousarray(grad, compute), np.ascontiguousarray(x, compute)
        if reduce:
            g = _dots(grad, x, logits.shape)
        else:
            g = _dots(grad, x[..., np.newaxis, :], (*logits.shape, 1)).reshape(logits.shape)
        temps = temperatures(temp, dtype, logits.shape, logits.ndim - 1)  # whatever the type of g
        grad_logits = operator.backward(g, logits, temps, where=where, **operator_options)
        return grad_x, _rounded(np.asarray(grad_logits), dtype)


class _Rows(NamedTuple):
    """Where the selected vectors stand, in `x` and in what is chosen, both seen as vectors of D: see `_vectors`."""

    x: Array  # (selected,), in the order of the batch
    chosen: Array  # (selected,)
    items: Array  # (*batch,): which item of x's own batch each row of the batch reads
    spoilt: Array  # (*batch,): bool, whether its mask is NaN


def _select(
    x_shape: tuple[int, ...],
    logits: Array,
    where: npt.ArrayLike | None,
    operator: Any,
    options: dict[str, Any],
    batch: tuple[int, ...],
    reduce: bool,
) -> _Rows:
    index = np.asarray(operator.index(logits, where=where, **options))
    if index.shape != logits.shape[:-1] or index.dtype.kind not in "iu" or np.any(index >= logits.shape[-1]):
        expected = f"integers below {logits.shape[-1]}, of shape {logits.shape[:-1]}"
        raise ValueError(f"operator.index returned {index.dtype} of shape {index.shape}; expected {expected}")
    spoilt = index < 0
    if where is not None and np.any(spoilt):
        spoilt = spoilt & np.any(np.broadcast_to(where, logits.shape), axis=-1)
    *x_batch, choices, _ = x_shape
    items = np.broadcast_to(np.arange(math.prod(x_batch)).reshape(x_batch), batch)
    index, spoilt = np.broadcast_to(index, batch), np.broadcast_to(spoilt, batch)
    selected = index >= 0
    m, rows = index[selected], np.flatnonzero(selected)
    return _Rows(items[selected] * choices + m, rows if reduce else rows * choices + m, items, spoilt)


def _grad_x(grad: Array, x: Array, rows: _Rows) -> Array:
    """``grad_chosen`` at ``m``, summed over the rows that share an item of `x`."""
    grad_x = np.zeros(x.shape, promoted({"x": x, "grad_chosen": grad}))
    vectors, cotangents = _vectors(grad_x), _vectors(grad)[rows.chosen]
    *x_batch, choices, features = x.shape
    if rows.items.size == math.prod(x_batch):
        vectors[rows.x] = cotangents
    else:
        selected, which = np.unique(rows.x, return_inverse=True)
        for d in range(features):  # bincount adds one after another, in float64
            sums = np.bincount(which, cotangents[:, d].astype(np.float64), len(selected))
            vectors[selected, d] = _rounded(sums, grad_x.dtype)
    spoilt = np.unique(rows.items[rows.spoilt])
    grad_x.reshape(math.prod(x_batch), choices, features)[spoilt] = np.nan
    return grad_x


def _dots(grad: Array, x: Array, logits_shape: tuple[int, ...]) -> Array:
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
    left = grad.transpose(*order, axes).reshape(items, rows, length * features)
    right = x.transpose(*order, axes + 1, axes).reshape(items, length * features, choices)
    g = (left @ right).reshape(*(logits_batch[i] for i in order), choices)
    return g.transpose(*np.argsort(order), axes).reshape(logits_shape)


def _rounded(values: Array, dtype: np.dtype[Any]) -> Array:
    """In the dtype, rounded once: what becomes 16 bits may pass through float32 on its way, and is made odd there."""
    if values.dtype != np.float64 or dtype.itemsize > 2:
        return values.astype(dtype, copy=False)
    near = values.astype(np.float32)
    toward_zero = np.where(np.abs(near) > np.abs(values), np.nextafter(near, np.float32(0)), near)
    odd = (toward_zero.view(np.uint32) | 1).view(np.float32)
    return np.where((near == values) | ~np.isfinite(near), near, odd).astype(dtype)


def _vectors(array: Array) -> Array:
    """Any number of axes before the last as one; a view wherever that can be had."""
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


# ------------------------------------------------------------------------------------------------ what may come in


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
                f"{', '.join(sorted({'backend', 'nan_policy', 'seed', 'noise', 'offset'} & set(takes)))}"
            )
    if "axis" in options:
        raise TypeError("selection takes no axis: the candidates are the last axis of logits and the last but one of x")
    if "out" in options:
        raise TypeError("selection takes no out: its results are new arrays")


def _batch(x: tuple[int, ...], logits: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the batch, given the shapes of `x` and the logits."""
    shapes = f"x has shape {x} and logits has shape {logits}"
    if len(x) < 2 or len(logits) < 1 or x[-2] != logits[-1]:
        raise ValueError(f"{shapes}; x takes (..., K, D) and logits (..., K), with the same K")
    try:
        return np.broadcast_shapes(x[:-2], logits[:-1])
    except ValueError:
        raise ValueError(f"{shapes}; {x[:-2]} and {logits[:-1]}, what is before K, must broadcast") from None


def _chosen_shape(batch: tuple[int, ...], x: tuple[int, ...], reduce: bool) -> tuple[int, ...]:
    return (*batch, x[-1]) if reduce else (*batch, *x[-2:])
