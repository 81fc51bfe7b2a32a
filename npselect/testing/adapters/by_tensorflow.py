"""The adapters for TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from npselect.testing.adapters.common import (
    as_logits,
    framework,
    given_options,
    given_temp,
    of_shape,
    of_type,
    options_taken,
)
from npselect.testing.adapters.layer import Layer, layer
from npselect.testing.aliases import Array, Function, Option, Options, Temp, Tensor
from npselect.testing.implementation import Implementation, function_name, guarded_implementation

__all__ = ["from_tensorflow", "layer_from_tensorflow"]


def from_tensorflow(
    fn: Function,
    *,
    name: str | None = None,
    flushes_subnormals: bool = True,
    normalises_logits: bool = False,
    row_temp: bool = False,
    learned_temp: bool = False,
) -> Implementation:
    """The adapter for TensorFlow; the gradient is that of `tf.GradientTape`.

    Parameters
    ----------
    fn : callable
        ``fn(logits, temp) -> mask`` over tensors, a `tf.function` or not. A mask that has no gradient there, None, has
        the gradient 0.
    name, flushes_subnormals, normalises_logits, row_temp, learned_temp : optional
        As for `from_torch`; so are the result and the errors.
    """
    tf = framework("tensorflow", "from_tensorflow")
    tensor = partial(_tensor, tf)

    def select(logits: Tensor, temp: Tensor, options: Options) -> Tensor:
        _needs_eager_execution(tf, "from_tensorflow")
        temp = temp if isinstance(temp, tf.Tensor) else given_temp(temp, tensor)
        return of_type(tf.Tensor, fn(logits, temp, **given_options(options, tensor)), fn)

    def gradient(function: Function, leaf: Tensor, grad_mask: Tensor) -> Array:
        (grad,) = _gradients(tf, "from_tensorflow", function, (leaf,), lambda mask: of_shape(grad_mask, mask, fn))
        return grad

    def forward(logits: Array, temp: Temp, **options: Option) -> Array:
        return _array(tf, select(tensor(logits), temp, options))

    def backward(grad_mask: Array, logits: Array, temp: Temp, **options: Option) -> Array:
        return gradient(lambda leaf: select(leaf, temp, options), tensor(logits), grad_mask)

    def backward_temp(grad_mask: Array, logits: Array, temp: Temp, **options: Option) -> Array:
        leaf = tensor(as_logits(temp, logits))
        return gradient(lambda leaf: select(tensor(logits), leaf, options), leaf, grad_mask)

    return guarded_implementation(
        name or function_name(fn),
        forward,
        backward,
        options_taken(fn, "logits", "temp"),
        backward_temp if learned_temp else None,
        flushes_subnormals=flushes_subnormals,
        normalises_logits=normalises_logits,
        row_temp=row_temp,
    )


def layer_from_tensorflow(
    fn: Function, *, name: str | None = None, x_axes: tuple[int, ...] = (2,), flushes_subnormals: bool = True
) -> Layer:
    """The adapter for TensorFlow; the gradients are those of `tf.GradientTape`.

    Parameters
    ----------
    fn : callable
        ``fn(x, logits, temp) -> chosen``, a `tf.function` or not.
    name, x_axes, flushes_subnormals : optional
        As for `layer_from_torch`; so are the result and the errors.
    """
    tf = framework("tensorflow", "layer_from_tensorflow")
    tensor = partial(_tensor, tf)

    def run(x: Tensor, logits: Tensor, temp: float, options: Options) -> Tensor:
        _needs_eager_execution(tf, "layer_from_tensorflow")
        return of_type(tf.Tensor, fn(x, logits, temp, **given_options(options, tensor)), fn)

    def forward(x: Array, logits: Array, temp: float, **options: Option) -> Array:
        return _array(tf, run(tensor(x), tensor(logits), temp, options))

    def backward(grad_chosen: Array, x: Array, logits: Array, temp: float, **options: Option) -> tuple[Array, ...]:
        return _gradients(
            tf,
            "layer_from_tensorflow",
            lambda x, logits: run(x, logits, temp, options),
            (tensor(x), tensor(logits)),
            lambda chosen: of_shape(grad_chosen, chosen, fn, "grad_chosen"),
        )

    return layer(fn, name, forward, backward, x_axes, flushes_subnormals)


# ------------------------------------------------------------------------------------------------ what they share


def _tensor(tf: Tensor, values: Array) -> Tensor:
    return tf.constant(np.array(values))


def _array(tf: Tensor, tensor: Tensor) -> Array:
    return np.array(tf.convert_to_tensor(tensor).numpy())  # the gradient of tf.gather is no tensor yet


def _needs_eager_execution(tf: Tensor, adapter: str) -> None:
    if not tf.executing_eagerly():
        raise RuntimeError(f"{adapter} needs eager execution; call it outside of tf.function and tf.Graph")


def _gradients(
    tf: Tensor, adapter: str, function: Function, leaves: tuple[Tensor, ...], cotangent: Callable[[Tensor], Array]
) -> tuple[Array, ...]:
    """Of a function of the leaves, given what the cotangent of its result is."""
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(leaves)
        same, result = tf.identity(leaves[0]), function(*leaves)
    if tape.gradient(same, leaves[0]) is None:
        raise RuntimeError(f"tf.GradientTape records nothing here; call {adapter} outside of tf.init_scope")
    if not result.dtype.is_floating:
        return tuple(_array(tf, tf.zeros_like(leaf)) for leaf in leaves)
    given = tf.cast(_tensor(tf, cotangent(result)), result.dtype)
    grads = tape.gradient(result, leaves, given, tf.UnconnectedGradients.ZERO)
    return tuple(_array(tf, grad) for grad in grads)
