"""The adapters for JAX."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
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
from npselect.testing.adapters.transforms import jax_transforms, transformed
from npselect.testing.aliases import Array, Function, Option, Options, Temp, Tensor
from npselect.testing.implementation import Implementation, function_name, guarded_implementation
from npselect.testing.sampling.op import SamplingOp

__all__ = ["from_jax", "layer_from_jax", "sampling_from_jax"]


def from_jax(
    fn: Function,
    *,
    name: str | None = None,
    flushes_subnormals: bool = True,
    normalises_logits: bool = False,
    row_temp: bool = False,
    learned_temp: bool = False,
    transforms: str | Sequence[str] = (),
) -> Implementation:
    """The adapter for JAX; the gradient is that of `jax.vjp`.

    Parameters
    ----------
    fn : callable
        ``fn(logits, temp) -> mask`` over JAX arrays, under `jax.jit` or not. float64 arrays are handed over, and `fn`
        is run, under ``jax.enable_x64``. A mask of integers or bools has the gradient 0.
    name, flushes_subnormals, normalises_logits, row_temp, learned_temp : optional
        As for `from_torch`; so are the result and the errors.
    transforms : sequence of str, optional
        What `fn` is wrapped in, the first next to it: of "jit" (`jax.jit`; the temperature is then a traced number),
        "vmap" (`jax.vmap` over rows: `fn` is given logits of one axis, and ``axis=-1`` where it takes one) and "remat"
        (`jax.remat`: `fn` is run again for the backward pass).
    """
    jax = framework("jax", "from_jax")
    call = transformed(fn, transforms, jax_transforms(jax))
    jnp = import_module("jax.numpy")

    around = partial(_around, jax)

    def select(logits: Tensor, temp: Tensor, options: Options) -> Tensor:
        temp = temp if isinstance(temp, jax.Array) else given_temp(temp, jnp.array)
        return of_type((jax.Array, np.ndarray), call(logits, temp, **given_options(options, jnp.array)), fn)

    def gradient(function: Function, leaf: Tensor, grad_mask: Tensor) -> Array:
        mask, pullback = jax.vjp(function, leaf)
        if not jnp.issubdtype(mask.dtype, jnp.inexact):
            return np.array(jnp.zeros_like(leaf))
        (grad,) = pullback(jnp.array(of_shape(grad_mask, mask, fn), mask.dtype))
        return np.array(grad)

    def forward(logits: Array, temp: Temp, **options: Option) -> Array:
        with around(logits, options.get("noise", logits)):
            return np.array(select(jnp.array(logits), temp, options))

    def backward(grad_mask: Array, logits: Array, temp: Temp, **options: Option) -> Array:
        with around(grad_mask, logits, options.get("noise", logits)):
            return gradient(lambda leaf: select(leaf, temp, options), jnp.array(logits), grad_mask)

    def backward_temp(grad_mask: Array, logits: Array, temp: Temp, **options: Option) -> Array:
        with around(grad_mask, logits, options.get("noise", logits)):
            leaf = jnp.array(as_logits(temp, logits))
            return gradient(lambda leaf: select(jnp.array(logits), leaf, options), leaf, grad_mask)

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


def layer_from_jax(
    fn: Function, *, name: str | None = None, x_axes: tuple[int, ...] = (2,), flushes_subnormals: bool = True
) -> Layer:
    """The adapter for JAX; the gradients are those of `jax.vjp`.

    Parameters
    ----------
    fn : callable
        ``fn(x, logits, temp) -> chosen``, under `jax.jit` or not. float64 arrays are handed over under
        ``jax.enable_x64``.
    name, x_axes, flushes_subnormals : optional
        As for `layer_from_torch`; so are the result and the errors.
    """
    jax = framework("jax", "layer_from_jax")
    jnp = import_module("jax.numpy")

    around = partial(_around, jax)

    def run(x: Tensor, logits: Tensor, temp: float, options: Options) -> Tensor:
        return of_type((jax.Array, np.ndarray), fn(x, logits, temp, **given_options(options, jnp.array)), fn)

    def forward(x: Array, logits: Array, temp: float, **options: Option) -> Array:
        with around(x, logits):
            return np.array(run(jnp.array(x), jnp.array(logits), temp, options))

    def backward(grad_chosen: Array, x: Array, logits: Array, temp: float, **options: Option) -> tuple[Array, ...]:
        with around(grad_chosen, x, logits):
            leaves = jnp.array(x), jnp.array(logits)
            chosen, pullback = jax.vjp(lambda x, logits: run(x, logits, temp, options), *leaves)
            if not jnp.issubdtype(chosen.dtype, jnp.inexact):
                return tuple(np.array(jnp.zeros_like(leaf)) for leaf in leaves)
            cotangent = jnp.array(of_shape(grad_chosen, chosen, fn, "grad_chosen"), chosen.dtype)
            return tuple(np.array(grad) for grad in pullback(cotangent))

    return layer(fn, name, forward, backward, x_axes, flushes_subnormals)


def sampling_from_jax(
    fn: Function,
    *,
    name: str | None = None,
    hard_and_soft: bool = True,
    flushes_subnormals: bool = True,
    normalises_logits: bool = False,
) -> SamplingOp:
    """The adapter of an op of JAX that draws its own noise, for `npselect.testing.check_sampling_op`.

    Parameters
    ----------
    fn : callable
        ``fn(logits, temp, hard, key) -> sample`` over arrays of shape (rows, K); `temp` is a float, `hard` a bool
        (``static_argnames`` of `jax.jit` may name it), `key` is ``jax.random.key(seed)``. float64 arrays are handed
        over under ``jax.enable_x64``. The gradient is that of `jax.vjp`.
    name, hard_and_soft, flushes_subnormals, normalises_logits : optional
        As for `sampling_from_torch`; so are the result and the errors.
    """
    jax = framework("jax", "sampling_from_jax")
    jnp = import_module("jax.numpy")

    def run(logits: Tensor, temp: float, hard: bool, seed: int) -> Tensor:
        return of_type((jax.Array, np.ndarray), fn(logits, temp, hard, jax.random.key(seed)), fn)

    def sample(logits: Array, temp: float, hard: bool, seed: int) -> Array:
        with _around(jax, logits):
            return np.array(run(jnp.array(logits), temp, hard, seed))

    def backward(grad_sample: Array, logits: Array, temp: float, hard: bool, seed: int) -> Array:
        with _around(jax, grad_sample, logits):
            drawn, pullback = jax.vjp(lambda leaf: run(leaf, temp, hard, seed), jnp.array(logits))
            if not jnp.issubdtype(drawn.dtype, jnp.inexact):
                return np.zeros_like(logits)
            (grad,) = pullback(jnp.array(of_shape(grad_sample, drawn, fn, "grad_sample"), drawn.dtype))
            return np.array(grad)

    return sampling_op(
        fn,
        sample,
        backward,
        name=name,
        hard_and_soft=hard_and_soft,
        flushes_subnormals=flushes_subnormals,
        normalises_logits=normalises_logits,
        takes=("logits", "temp", "hard", "key"),
    )


def _around(jax: Tensor, *arrays: Option) -> AbstractContextManager[object]:
    """Whatever is set around the call: numbers of 64 bits, NaN and infinities, and copies to and fro."""
    home = jax if hasattr(jax, "enable_x64") else import_module("jax.experimental")
    stack = ExitStack()
    for name, value in (("debug_nans", False), ("debug_infs", False), ("transfer_guard", "allow")):
        stack.enter_context(getattr(jax, name)(value))
    if any(np.asarray(array).dtype == np.float64 for array in arrays):
        stack.enter_context(home.enable_x64(True))
    return stack
