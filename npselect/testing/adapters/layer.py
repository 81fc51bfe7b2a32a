"""What `npselect.testing.check_selection` takes: a layer, over NumPy arrays."""

from __future__ import annotations

from dataclasses import dataclass

from npselect.testing.adapters.common import options_taken
from npselect.testing.aliases import Function
from npselect.testing.implementation import function_name

__all__ = ["Layer", "layer"]


@dataclass(frozen=True)
class Layer:
    """What `check_selection` takes.

    Attributes
    ----------
    name : str
        For the report; also `__name__`.
    forward, backward : callable
        ``forward(x, logits, temp, **options) -> chosen`` and ``backward(grad_chosen, x, logits, temp, **options) ->
        (grad_x, grad_logits)``, over NumPy arrays.
    options : frozenset of str
        Those of where and noise that it takes.
    x_axes : tuple of int
        2 for `x` of shape (K, D), 3 for (rows, K, D).
    flushes_subnormals : bool
        Whether it may take a number below the smallest normal one for 0.
    """

    name: str
    forward: Function
    backward: Function
    options: frozenset[str] = frozenset()
    x_axes: tuple[int, ...] = (2,)
    flushes_subnormals: bool = False

    @property
    def __name__(self) -> str:
        return self.name


def layer(
    fn: Function,
    name: str | None,
    forward: Function,
    backward: Function,
    x_axes: tuple[int, ...],
    flushes_subnormals: bool,
) -> Layer:
    """The layer that an adapter makes of a function."""
    options = options_taken(fn, "x", "logits", "temp") - {"axis"}
    return Layer(name or function_name(fn), forward, backward, options, tuple(x_axes), flushes_subnormals)
