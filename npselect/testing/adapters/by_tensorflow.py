"""The adapters for TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module

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
from npselect.testing.adapters.sampling import sampling_op
from npselect.testing.aliases import Array, Function, Option, Options, Temp, Tensor
from npselect.testing.implementation import Implementation, function_name, guarded_implementation
from npselect.testing.sampling.op import SamplingOp

__all__ = ["from_tensorflow", "layer_from_tensorflow", "sampling_from_tensorflow"]


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


def sampling_from_tensorflow(
    fn: Function,
    *,
    name: str | None = None,
    hard_and_soft: bool = True,
    flushes_subnormals: bool = True,
    normalises_logits: bool = False,
) -> SamplingOp:
    """The adapter of an op of TensorFlow that draws its own noise, for `npselect.testing.check_sampling_op`.

    Parameters
    ----------
    fn : callable
        ``fn(logits, temp, hard) -> sample`` over tensors of shape (rows, K); `temp` is a float, `hard` a bool. It draws
        by `tf.random` functions without a seed of their own, or from ``tf.random.get_global_generator()``: both are
        seeded before the call. After it the global seed and that generator are as they were; counters of functions
        with a seed of their own start again, as after any `tf.random.set_seed`. A `tf.function` draws by the seed with
        which it was traced, so it must take its numbers from the global generator. The gradient is that of
        `tf.GradientTape`.
    name, hard_and_soft, flushes_subnormals, normalises_logits : optional
        As for `sampling_from_torch`; so are the result and the errors.
    """
    tf = framework("tensorflow", "sampling_from_tensorflow")

    def run(logits: Tensor, temp: float, hard: bool, seed: int) -> Tensor:
        with _seeded(tf, seed):
            return of_type(tf.Tensor, fn(logits, temp, hard), fn)

    def sample(logits: Array, temp: float, hard: bool, seed: int) -> Array:
        _needs_eager_execution(tf, "sampling_from_tensorflow")
        return _array(tf, run(_tensor(tf, logits), temp, hard, seed))

    def backward(grad_sample: Array, logits: Array, temp: float, hard: bool, seed: int) -> Array:
        _needs_eager_execution(tf, "sampling_from_tensorflow")
        (grad,) = _gradients(
            tf,
            "sampling_from_tensorflow",
            lambda leaf: run(leaf, temp, hard, seed),
            (_tensor(tf, logits),),
            lambda drawn: of_shape(grad_sample, drawn, fn, "grad_sample"),
        )
        return grad

    return sampling_op(
        fn,
        sample,
        backward,
        name=name,
        hard_and_soft=hard_and_soft,
        flushes_subnormals=flushes_subnormals,
        normalises_logits=normalises_logits,
        max_seed=2**31 - 1,
    )


@contextmanager
def _seeded(tf: Tensor, seed: int) -> Iterator[None]:
    """The global seed and the global generator, set within, and as they were after it.

    TensorFlow has no public name for what its global seed was.
    """
    context = import_module("tensorflow.python.eager.context").context()
    before = {name: getattr(context, name) for name in ("_seed", "_rng") if hasattr(context, name)}
    generator = tf.random.get_global_generator()
    state = tf.identity(generator.state)
    tf.random.set_seed(seed)
    generator.reset_from_seed(seed)
    try:
        yield
    finally:
        tf.random.set_seed(before.get("_seed"))
        for name, value in before.items():
            setattr(context, name, value)
        generator.reset(state)


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
