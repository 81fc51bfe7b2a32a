"""What adapters share: looks at what is given and at what is returned."""

from __future__ import annotations

import inspect
from importlib import import_module

import numpy as np

from npselect.testing.aliases import Array, Function, Options, Temp, Tensor
from npselect.testing.implementation import function_name, options_of

__all__ = ["as_logits", "framework", "given_options", "given_temp", "of_shape", "of_type", "options_taken"]


def framework(package: str, adapter: str) -> Tensor:
    """The package, or an error that names the adapter."""
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:  # it is installed, and lacks something
            raise
        message = f"{adapter} needs the package {package}, which is not installed: pip install {package}"
        raise ModuleNotFoundError(message, name=package) from None


def given_temp(temp: Temp, tensor: Function) -> Tensor:
    """The temperature as `fn` takes it: a number, or a tensor of several."""
    return tensor(temp) if isinstance(temp, np.ndarray) else temp


def as_logits(temp: Temp, logits: Array) -> Array:
    """The temperature as an array in the logits' dtype."""
    return np.asarray(temp, np.asarray(logits).dtype)


def given_options(options: Options, tensor: Function) -> Options:
    """The options as `fn` takes them."""
    return {option: tensor(value) if isinstance(value, np.ndarray) else value for option, value in options.items()}


def of_type(types: Tensor, mask: Tensor, fn: Function) -> Tensor:
    """What was returned, if it is of the framework."""
    if not isinstance(mask, types):
        raise TypeError(f"{function_name(fn)} returned a {type(mask).__name__}; expected a tensor of its framework")
    return mask


def of_shape(cotangent: Array, returned: Tensor, fn: Function, name: str = "grad_mask") -> Array:
    """A cotangent, if it has the shape of what was returned: TensorFlow would broadcast it."""
    array = np.asarray(cotangent)
    if array.shape != tuple(returned.shape):
        shapes = f"shape {tuple(returned.shape)} and {name} has shape {array.shape}"
        raise ValueError(f"{function_name(fn)} returned {shapes}; without the same shape there is no gradient")
    return array


def options_taken(fn: Function, *arguments: str) -> frozenset[str]:
    """The options that `fn` takes beside its arguments."""
    call = f"{function_name(fn)}({', '.join(arguments)})"
    if not callable(fn):
        raise TypeError(f"expected a function to call as {call}, was given {fn!r}")
    try:
        return options_of(fn, arguments)
    except TypeError as error:
        hint = "; it is a class: give an instance, or apply of a torch.autograd.Function" if inspect.isclass(fn) else ""
        raise TypeError(f"{function_name(fn)} cannot be called as {call}: {error}{hint}") from None
