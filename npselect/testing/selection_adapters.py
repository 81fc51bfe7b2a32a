"""Selection layers in other frameworks, as `check_selection` takes them: NumPy arrays in, NumPy arrays out.

An adapter takes ``fn(x, logits, temp) -> chosen`` over the tensors of its framework. `x` and the logits are handed over
as tensors of their own, of which the framework's autodiff takes the gradients: what a module holds as a parameter, such
as a codebook, is given it, for instance by `torch.func.functional_call`. `temp` is a Python float. `fn` may take the
keywords ``where`` and ``noise``. Subnormal numbers are as in `npselect.testing.adapters`.
"""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from npselect._places import as_numpy_sees
from npselect.testing.adapters import _expect, _fitting, _framework, _given, _takes
from npselect.testing.aliases import Array, Function
from npselect.testing.implementation import function_name

__all__ = ["Layer", "layer_from_jax", "layer_from_tensorflow", "layer_from_torch"]


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


def layer_from_torch(
    fn: Function,
    *,
    name: str | None = None,
    device: Any = None,
    x_axes: tuple[int, ...] = (2,),
    flushes_subnormals: bool = False,
) -> Layer:
    """The adapter for PyTorch; the gradients are those of `torch.autograd.grad`.

    Parameters
    ----------
    fn : callable
        ``fn(x, logits, temp) -> chosen``. What `chosen` does not depend on has the gradient 0.
    name : str, optional
        For the report; by default that of `fn`.
    device : optional
        Where tensors are put; by default the CPU.
    x_axes, flushes_subnormals : optional
        See `Layer`.

    Returns
    -------
    Layer

    Raises
    ------
    TypeError
        `fn` cannot be called as above.
    ModuleNotFoundError
        The framework is not installed.

    Examples
    --------
    >>> from npselect import testing
    >>> def lookup(x, logits, temp):  # as a codebook is often looked up
    ...     return x[logits.argmax(-1)]
    >>> report = testing.check_selection(testing.layer_from_torch(lookup))  # doctest: +SKIP
    >>> report.likely_cause  # doctest: +SKIP
    'grad_logits: the gradient of the hard mask, which is 0'
    """
    torch = _framework("torch", "layer_from_torch")

    def tensor(values: Any) -> Any:
        array = np.array(values, order="C")
        if array.dtype.name == "bfloat16":  # which torch.from_numpy does not know
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16).to(device)
        return torch.from_numpy(array).to(device)

    def array(tensor: Any) -> Array:
        return np.array(as_numpy_sees(tensor.cpu()))

    def run(x: Any, logits: Any, temp: float, options: dict[str, Any]) -> tuple[Any, list[Any]]:
        leaves = [tensor(values).requires_grad_() for values in (x, logits)]
        chosen = fn(*(leaf.clone() for leaf in leaves), temp, **_given(options, tensor))
        return _expect(torch.Tensor, chosen, fn), leaves

    def forward(x: Any, logits: Any, temp: float, **options: Any) -> Array:
        with torch.inference_mode(False), torch.enable_grad():
            return array(run(x, logits, temp, options)[0])

    def backward(grad_chosen: Any, x: Any, logits: Any, temp: float, **options: Any) -> tuple[Array, ...]:
        with torch.inference_mode(False), torch.enable_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
            chosen, leaves = run(x, logits, temp, options)
            if not chosen.requires_grad:
                return tuple(array(torch.zeros_like(leaf)) for leaf in leaves)
            cotangent = tensor(_fitting(grad_chosen, chosen, fn, "grad_chosen")).to(chosen.dtype)
            grads = torch.autograd.grad(chosen, leaves, cotangent, allow_unused=True)
        pairs = zip(grads, leaves, strict=True)
        return tuple(array(torch.zeros_like(leaf) if grad is None else grad) for grad, leaf in pairs)

    return _layer(fn, name, forward, backward, x_axes, flushes_subnormals)


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
    jax = _framework("jax", "layer_from_jax")
    jnp = import_module("jax.numpy")

    def precision(logits: Any) -> AbstractContextManager[Any]:
        if np.asarray(logits).dtype != np.float64:
            return nullcontext()
        home = jax if hasattr(jax, "enable_x64") else import_module("jax.experimental")
        context: AbstractContextManager[Any] = home.enable_x64(True)
        return context

    def run(x: Any, logits: Any, temp: float, options: dict[str, Any]) -> Any:
        return _expect((jax.Array, np.ndarray), fn(x, logits, temp, **_given(options, jnp.array)), fn)

    def forward(x: Any, logits: Any, temp: float, **options: Any) -> Array:
        with precision(logits):
            return np.array(run(jnp.array(x), jnp.array(logits), temp, options))

    def backward(grad_chosen: Any, x: Any, logits: Any, temp: float, **options: Any) -> tuple[Array, ...]:
        with precision(logits):
            chosen, pullback = jax.vjp(lambda x, logits: run(x, logits, temp, options), jnp.array(x), jnp.array(logits))
            return tuple(
                np.array(grad)
                for grad in pullback(jnp.array(_fitting(grad_chosen, chosen, fn, "grad_chosen"), chosen.dtype))
            )

    return _layer(fn, name, forward, backward, x_axes, flushes_subnormals)


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
    tf = _framework("tensorflow", "layer_from_tensorflow")

    def tensor(values: Any) -> Any:
        return tf.constant(np.array(values))

    def run(x: Any, logits: Any, temp: float, options: dict[str, Any]) -> Any:
        return _expect(tf.Tensor, fn(x, logits, temp, **_given(options, tensor)), fn)

    def forward(x: Any, logits: Any, temp: float, **options: Any) -> Array:
        return np.array(run(tensor(x), tensor(logits), temp, options).numpy())

    def backward(grad_chosen: Any, x: Any, logits: Any, temp: float, **options: Any) -> tuple[Array, ...]:
        leaves = tensor(x), tensor(logits)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(leaves)
            chosen = run(leaves[0], leaves[1], temp, options)
        cotangent = tf.cast(tensor(_fitting(grad_chosen, chosen, fn, "grad_chosen")), chosen.dtype)
        grads = tape.gradient(chosen, leaves, cotangent, tf.UnconnectedGradients.ZERO)
        return tuple(np.array(tf.convert_to_tensor(grad).numpy()) for grad in grads)

    return _layer(fn, name, forward, backward, x_axes, flushes_subnormals)


def _layer(
    fn: Function,
    name: str | None,
    forward: Function,
    backward: Function,
    x_axes: tuple[int, ...],
    flushes_subnormals: bool,
) -> Layer:
    options = _takes(fn, "x", "logits", "temp") - {"axis"}
    return Layer(name or function_name(fn), forward, backward, options, tuple(x_axes), flushes_subnormals)
