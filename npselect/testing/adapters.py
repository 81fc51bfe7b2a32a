"""Implementations in other frameworks, as the checker takes them: NumPy arrays in, NumPy arrays out.

An adapter takes the function under test, ``fn(logits, temp) -> mask`` over the tensors of its framework, and returns an
`Implementation`, whose `backward` is what the framework's autodiff makes of `fn`. A framework is imported when its
adapter is called, never before.

`temp` arrives as a Python float; as a tensor in the logits' dtype where ``row_temp=True`` or ``learned_temp=True`` say
that `fn` takes one, a temperature for each row, or one whose gradient is wanted. Tensors are copies that `fn` may write
to. Those of PyTorch and NumPy lie in memory as the arrays that were given do (with negative strides in NumPy alone),
logits and gradients: transposed, cut out of larger ones, or expanded, where many entries share one number, which
PyTorch does not let anybody write to. JAX and TensorFlow show no strides: whatever the layout of an array of JAX,
``jax.jit``, callbacks and foreign functions get C order.

What is set around a call is none of the function's: `torch.no_grad` and its like, ``jax.debug_nans``, ``debug_infs``
and ``transfer_guard`` are lifted. TensorFlow must run eagerly, and record gradients.

`fn` may take the keywords ``axis`` (an int), ``where`` (a tensor of bool) and ``noise`` (a tensor, to be added to the
logits): those that are in its signature, or all for ``**kwargs``. The signature is found behind `functools.partial`,
`torch.compile`, `jax.jit`, `tf.function`. A mask of a wrong shape or dtype is handed on as it is, for others to judge,
and errors of `fn` pass through.

Subnormal numbers, as measured on x86-64 with PyTorch 2.13, JAX 0.10 and TensorFlow 2.21: PyTorch keeps them, compiled
or not. JAX and TensorFlow, compiled or not, read them as 0 and return 0 instead of them in bfloat16, float32 and
float64, but keep them in float16. Where that is otherwise, say so with ``flushes_subnormals=``.
"""

from __future__ import annotations

import inspect
import warnings
from contextlib import AbstractContextManager, ExitStack
from functools import wraps
from importlib import import_module
from typing import Any

import numpy as np

from npselect._places import as_numpy_sees
from npselect.testing.aliases import Array, Function
from npselect.testing.implementation import Implementation, function_name, guarded_implementation, options_of
from npselect.testing.layouts import like, memory

__all__ = ["from_array_functions", "from_jax", "from_tensorflow", "from_torch"]


def from_torch(
    fn: Function,
    *,
    name: str | None = None,
    device: Any = None,
    flushes_subnormals: bool = False,
    normalises_logits: bool = False,
    row_temp: bool = False,
    learned_temp: bool = False,
) -> Implementation:
    """The adapter for PyTorch; the gradient is that of `torch.autograd.grad`.

    Parameters
    ----------
    fn : callable
        ``fn(logits, temp) -> mask`` over tensors: a function or a module, compiled or not, or the ``apply`` of a
        `torch.autograd.Function`. A mask that needs no gradient has the gradient 0.
        After eight recompilations, for other shapes or temperatures, `torch.compile` runs `fn` as it is: for a whole
        check, raise ``torch._dynamo.config.recompile_limit``.
    name : str, optional
        For the report; by default that of `fn`.
    device : optional
        Where tensors are put, as in ``tensor.to(device)``; by default the CPU.
    flushes_subnormals, normalises_logits, row_temp : bool, optional
        See `Implementation`.
    learned_temp : bool, optional
        Whether the gradient of `temp` counts, too: then the result has `Implementation.backward_temp`.

    Returns
    -------
    Implementation

    Raises
    ------
    TypeError
        `fn` cannot be called as above.
    ModuleNotFoundError
        The framework is not installed.
    """
    torch = _framework("torch", "from_torch")

    def differentiated(function: Function) -> Function:
        """Whatever is set around the call."""

        @wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            with torch.inference_mode(False), torch.enable_grad():
                return function(*arguments, **options)

        return call

    def tensor(values: Any) -> Any:
        flat, shape, strides = memory(values)
        if flat.dtype.name == "bfloat16":  # which torch.from_numpy does not know
            numbers = torch.from_numpy(flat.view(np.int16)).view(torch.bfloat16).to(device)
        else:
            numbers = torch.from_numpy(flat).to(device)
        return torch.empty(0, dtype=numbers.dtype, device=numbers.device).set_(numbers, 0, shape, strides)

    def array(tensor: Any) -> Array:
        return np.array(as_numpy_sees(tensor.cpu()))

    class Given(torch.autograd.Function):  # type: ignore[misc, name-defined]
        """A tensor that fn may write to, laid out as the array is; its gradient is that of the leaf."""

        @staticmethod
        def forward(_context: Any, _leaf: Any, values: Any) -> Any:
            return tensor(values)

        @staticmethod
        def backward(_context: Any, grad: Any) -> Any:
            return grad, None

    def select(logits: Any, temp: Any, options: dict[str, Any]) -> Any:
        with warnings.catch_warnings():  # torch.compile looks at its .grad
            warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
            return _expect(torch.Tensor, fn(logits, temp, **_given(options, tensor)), fn)

    def gradient(mask: Any, leaf: Any, grad_mask: Any) -> Array:
        if not mask.requires_grad:
            return array(torch.zeros_like(leaf))
        cotangent = tensor(_fitting(grad_mask, mask, fn)).to(mask.dtype)
        (grad,) = torch.autograd.grad(mask, leaf, cotangent, allow_unused=True)
        return array(torch.zeros_like(leaf) if grad is None else grad)

    @differentiated
    def forward(logits: Any, temp: Any, **options: Any) -> Array:
        leaf = tensor(logits).requires_grad_()
        return array(select(Given.apply(leaf, logits), _temp(temp, tensor), options))

    @differentiated
    def backward(grad_mask: Any, logits: Any, temp: Any, **options: Any) -> Array:
        leaf = tensor(logits).requires_grad_()
        return gradient(select(Given.apply(leaf, logits), _temp(temp, tensor), options), leaf, grad_mask)

    @differentiated
    def backward_temp(grad_mask: Any, logits: Any, temp: Any, **options: Any) -> Array:
        temp = _as_logits(temp, logits)
        leaf = tensor(temp).requires_grad_()
        return gradient(select(tensor(logits), Given.apply(leaf, temp), options), leaf, grad_mask)

    return guarded_implementation(
        name or function_name(fn),
        forward,
        backward,
        _takes(fn, "logits", "temp"),
        backward_temp if learned_temp else None,
        flushes_subnormals=flushes_subnormals,
        normalises_logits=normalises_logits,
        row_temp=row_temp,
    )


def from_jax(
    fn: Function,
    *,
    name: str | None = None,
    flushes_subnormals: bool = True,
    normalises_logits: bool = False,
    row_temp: bool = False,
    learned_temp: bool = False,
) -> Implementation:
    """The adapter for JAX; the gradient is that of `jax.vjp`.

    Parameters
    ----------
    fn : callable
        ``fn(logits, temp) -> mask`` over JAX arrays, under `jax.jit` or not. float64 arrays are handed over, and `fn`
        is run, under ``jax.enable_x64``. A mask of integers or bools has the gradient 0.
    name, flushes_subnormals, normalises_logits, row_temp, learned_temp : optional
        As for `from_torch`; so are the result and the errors.
    """
    jax = _framework("jax", "from_jax")
    jnp = import_module("jax.numpy")

    def around(*arrays: Any) -> AbstractContextManager[Any]:
        """Whatever is set around the call: numbers of 64 bits, NaN and infinities, and copies to and fro."""
        home = jax if hasattr(jax, "enable_x64") else import_module("jax.experimental")
        stack = ExitStack()
        for name, value in (("debug_nans", False), ("debug_infs", False), ("transfer_guard", "allow")):
            stack.enter_context(getattr(jax, name)(value))
        if any(np.asarray(array).dtype == np.float64 for array in arrays):
            stack.enter_context(home.enable_x64(True))
        return stack

    def select(logits: Any, temp: Any, options: dict[str, Any]) -> Any:
        temp = temp if isinstance(temp, jax.Array) else _temp(temp, jnp.array)
        return _expect((jax.Array, np.ndarray), fn(logits, temp, **_given(options, jnp.array)), fn)

    def gradient(function: Function, leaf: Any, grad_mask: Any) -> Array:
        mask, pullback = jax.vjp(function, leaf)
        if not jnp.issubdtype(mask.dtype, jnp.inexact):
            return np.array(jnp.zeros_like(leaf))
        (grad,) = pullback(jnp.array(_fitting(grad_mask, mask, fn), mask.dtype))
        return np.array(grad)

    def forward(logits: Any, temp: Any, **options: Any) -> Array:
        with around(logits, options.get("noise", logits)):
            return np.array(select(jnp.array(logits), temp, options))

    def backward(grad_mask: Any, logits: Any, temp: Any, **options: Any) -> Array:
        with around(grad_mask, logits, options.get("noise", logits)):
            return gradient(lambda leaf: select(leaf, temp, options), jnp.array(logits), grad_mask)

    def backward_temp(grad_mask: Any, logits: Any, temp: Any, **options: Any) -> Array:
        with around(grad_mask, logits, options.get("noise", logits)):
            leaf = jnp.array(_as_logits(temp, logits))
            return gradient(lambda leaf: select(jnp.array(logits), leaf, options), leaf, grad_mask)

    return guarded_implementation(
        name or function_name(fn),
        forward,
        backward,
        _takes(fn, "logits", "temp"),
        backward_temp if learned_temp else None,
        flushes_subnormals=flushes_subnormals,
        normalises_logits=normalises_logits,
        row_temp=row_temp,
    )


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
    tf = _framework("tensorflow", "from_tensorflow")

    def tensor(values: Any) -> Any:
        return tf.constant(np.array(values))

    def array(tensor: Any) -> Array:
        return np.array(tf.convert_to_tensor(tensor).numpy())  # the gradient of tf.gather is no tensor yet

    def select(logits: Any, temp: Any, options: dict[str, Any]) -> Any:
        if not tf.executing_eagerly():
            raise RuntimeError("from_tensorflow needs eager execution; call it outside of tf.function and tf.Graph")
        temp = temp if isinstance(temp, tf.Tensor) else _temp(temp, tensor)
        return _expect(tf.Tensor, fn(logits, temp, **_given(options, tensor)), fn)

    def gradient(function: Function, leaf: Any, grad_mask: Any) -> Array:
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(leaf)
            same, mask = tf.identity(leaf), function(leaf)
        if tape.gradient(same, leaf) is None:
            raise RuntimeError("tf.GradientTape records nothing here; call from_tensorflow outside of tf.init_scope")
        if not mask.dtype.is_floating:
            return array(tf.zeros_like(leaf))
        cotangent = tf.cast(tensor(_fitting(grad_mask, mask, fn)), mask.dtype)
        return array(tape.gradient(mask, leaf, cotangent, tf.UnconnectedGradients.ZERO))

    def forward(logits: Any, temp: Any, **options: Any) -> Array:
        return array(select(tensor(logits), temp, options))

    def backward(grad_mask: Any, logits: Any, temp: Any, **options: Any) -> Array:
        return gradient(lambda leaf: select(leaf, temp, options), tensor(logits), grad_mask)

    def backward_temp(grad_mask: Any, logits: Any, temp: Any, **options: Any) -> Array:
        leaf = tensor(_as_logits(temp, logits))
        return gradient(lambda leaf: select(tensor(logits), leaf, options), leaf, grad_mask)

    return guarded_implementation(
        name or function_name(fn),
        forward,
        backward,
        _takes(fn, "logits", "temp"),
        backward_temp if learned_temp else None,
        flushes_subnormals=flushes_subnormals,
        normalises_logits=normalises_logits,
        row_temp=row_temp,
    )


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
        ``backward(grad_mask, logits, temp) -> grad_logits``. An option counts if all take it.
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

    def copy(values: Any) -> Array:
        array = np.asarray(values)
        return like(array, array)

    def mask(logits: Any, temp: Any, **options: Any) -> Any:
        return forward(copy(logits), _temp(temp, copy), **_given(options, copy))

    def gradient(function: Function) -> Function:
        def call(grad_mask: Any, logits: Any, temp: Any, **options: Any) -> Any:
            return function(copy(grad_mask), copy(logits), _temp(temp, copy), **_given(options, copy))

        return call

    options = _takes(forward, "logits", "temp") & _takes(backward, "grad_mask", "logits", "temp")
    if backward_temp is not None:
        options &= _takes(backward_temp, "grad_mask", "logits", "temp")
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


# ------------------------------------------------------------------------------------------------ what they share


def _framework(package: str, adapter: str) -> Any:
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:  # it is installed, and lacks something
            raise
        message = f"{adapter} needs the package {package}, which is not installed: pip install {package}"
        raise ModuleNotFoundError(message, name=package) from None


def _temp(temp: Any, tensor: Function) -> Any:
    """The temperature as `fn` takes it: a number, or a tensor of several."""
    return tensor(temp) if isinstance(temp, np.ndarray) else temp


def _as_logits(temp: Any, logits: Any) -> Array:
    """The temperature as an array in the logits' dtype."""
    return np.asarray(temp, np.asarray(logits).dtype)


def _given(options: dict[str, Any], tensor: Function) -> dict[str, Any]:
    """The options as `fn` takes them."""
    return {option: value if option == "axis" else tensor(value) for option, value in options.items()}


def _expect(types: Any, mask: Any, fn: Function) -> Any:
    if not isinstance(mask, types):
        raise TypeError(f"{function_name(fn)} returned a {type(mask).__name__}; expected a tensor of its framework")
    return mask


def _fitting(cotangent: Any, returned: Any, fn: Function, name: str = "grad_mask") -> Array:
    """A cotangent, if it has the shape of what was returned: TensorFlow would broadcast it."""
    array = np.asarray(cotangent)
    if array.shape != tuple(returned.shape):
        shapes = f"shape {tuple(returned.shape)} and {name} has shape {array.shape}"
        raise ValueError(f"{function_name(fn)} returned {shapes}; without the same shape there is no gradient")
    return array


def _takes(fn: Function, *arguments: str) -> frozenset[str]:
    """The options that `fn` takes beside its arguments."""
    call = f"{function_name(fn)}({', '.join(arguments)})"
    if not callable(fn):
        raise TypeError(f"expected a function to call as {call}, was given {fn!r}")
    try:
        return options_of(fn, arguments)
    except TypeError as error:
        hint = "; it is a class: give an instance, or apply of a torch.autograd.Function" if inspect.isclass(fn) else ""
        raise TypeError(f"{function_name(fn)} cannot be called as {call}: {error}{hint}") from None
