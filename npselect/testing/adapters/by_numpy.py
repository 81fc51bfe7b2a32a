"""The adapter for two functions over NumPy arrays."""

from __future__ import annotations

import numpy as np

from npselect.testing.adapters.common import given_options, given_temp, options_taken
from npselect.testing.aliases import Array, Function, Option, Temp, Tensor
from npselect.testing.implementation import (
    BACKWARD_ALONE,
    Implementation,
    for_forward,
    function_name,
    guarded_implementation,
)
from npselect.testing.layouts import like

__all__ = ["from_array_functions"]


def from_array_functions(
    forward: Function,
    backward: Function,
    *,
    backward_temp: Function | None = None,
    name: str | None = None,
    flushes_subnormals: bool = False,
    normalises_logits: bool = False,
    row_temp: bool = False,
) -> Implementation:
    """The adapter for two functions over NumPy arrays, the second the hand-written backward pass of the first.

    Parameters
    ----------
    forward : callable
        ``forward(logits, temp) -> mask``.
    backward : callable
        ``backward(grad_mask, logits, temp) -> grad_logits``. An option counts if all take it; ``sample_noise``, if
        this one does.
    backward_temp : callable, optional
        ``backward_temp(grad_mask, logits, temp) -> grad_temp``, the gradient of a learned temperature.
    name, flushes_subnormals, normalises_logits, row_temp : optional
        As for `from_torch`, with the name of `forward`; so are the result and the errors.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import straight_through
    >>> from npselect.testing.adapters import from_array_functions
    >>> implementation = from_array_functions(straight_through.forward, straight_through.backward, name="npselect")
    >>> sorted(implementation.options)
    ['axis', 'where']
    >>> implementation.forward(np.array([0.0, 1.0, 2.0]), 0.6, where=np.array([True, True, False]))
    array([0., 1., 0.])
    """

    def copy(values: Tensor) -> Array:
        array = np.asarray(values)
        return like(array, array)

    def mask(logits: Tensor, temp: Tensor, **options: Tensor) -> Tensor:
        return forward(copy(logits), given_temp(temp, copy), **given_options(for_forward(forward, options), copy))

    def gradient(function: Function) -> Function:
        def call(grad_mask: Array, logits: Array, temp: Temp, **options: Option) -> Tensor:
            return function(copy(grad_mask), copy(logits), given_temp(temp, copy), **given_options(options, copy))

        return call

    options = options_taken(forward, "logits", "temp").union(BACKWARD_ALONE)
    options &= options_taken(backward, "grad_mask", "logits", "temp")
    if backward_temp is not None:
        options &= options_taken(backward_temp, "grad_mask", "logits", "temp")
    return guarded_implementation(
        name or function_name(forward),
        mask,
        gradient(backward),
        options,
        None if backward_temp is None else gradient(backward_temp),
        flushes_subnormals=flushes_subnormals,
        normalises_logits=normalises_logits,
        row_temp=row_temp,
    )
