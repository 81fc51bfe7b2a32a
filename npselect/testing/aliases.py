"""What arguments are, by name: for signatures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = [
    "Array",
    "Dtype",
    "DtypeLike",
    "Function",
    "Json",
    "LayerFunctions",
    "Option",
    "Options",
    "Progress",
    "Sampler",
    "SamplingFunctions",
    "SelectionFunctions",
    "Settings",
    "Temp",
    "Tensor",
    "Timed",
]

Array = npt.NDArray[Any]
"""Of NumPy, in one of the four dtypes (bfloat16 is no dtype that NumPy's types know), or of bool."""
Dtype = np.dtype[Any]
DtypeLike = npt.DTypeLike
"""NumPy's, by name, or a framework's."""
Tensor = Any
"""An array, tensor, dtype or module of a framework, whose types are not known here."""
Temp = float | Array
"""The temperature: one for all rows, or an array of several."""
Option = int | float | str | Array
"""What an option is given: an axis, a setting, or an array."""
Options = dict[str, Any]
"""Options by name: of axis an int, of settings a number or a word, of all others an array."""
Settings = Mapping[str, float | str]
"""Options that are the same for all rows, by name: numbers, or the gap "adaptive"."""
Function = Callable[..., Any]
"""Somebody's, over arrays or tensors: with the options that it takes."""
Timed = Callable[[], Any]
"""A call of no arguments, whose time is taken; it returns what its framework has for results."""
Json = Any
"""What JSON can say: an object, an array, a string, a number, true, false or null."""
Progress = Callable[[int, int, str], object]
"""``progress(done, total, id)``."""
Sampler = Callable[[Array, int], Tensor]
"""``sample(logits, seed) -> mask``."""


class SelectionFunctions(Protocol):
    """An object or module that is checked as a selection: `Implementation` says what the two are."""

    @property
    def forward(self) -> Function:
        """``forward(logits, temp, **options) -> mask``."""

    @property
    def backward(self) -> Function:
        """``backward(grad_mask, logits, temp, **options) -> grad_logits``."""


class LayerFunctions(Protocol):
    """An object or module that is checked as a layer: `Layer` says what the two are."""

    @property
    def forward(self) -> Function:
        """``forward(x, logits, temp, **options) -> chosen``."""

    @property
    def backward(self) -> Function:
        """``backward(grad_chosen, x, logits, temp, **options) -> (grad_x, grad_logits)``."""


class SamplingFunctions(Protocol):
    """An object that is checked as an op that draws its own noise: `SamplingOp` says what the two are."""

    @property
    def sample(self) -> Function:
        """``sample(logits, temp, hard, seed) -> sample``."""

    @property
    def backward(self) -> Function:
        """``backward(grad_sample, logits, temp, hard, seed) -> grad_logits``."""
