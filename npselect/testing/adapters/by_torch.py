"""The adapters for PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps

import numpy as np

from npselect._places import as_numpy_sees
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
from npselect.testing.adapters.transforms import torch_transforms, transformed
from npselect.testing.aliases import Array, Function, Option, Options, Temp, Tensor
from npselect.testing.implementation import Implementation, function_name, guarded_implementation
from npselect.testing.layouts import memory
from npselect.testing.sampling.op import SamplingOp

__all__ = ["from_torch", "layer_from_torch", "sampling_from_torch"]


def from_torch(
    fn: Function,
    *,
    name: str | None = None,
    device: Tensor = None,
    flushes_subnormals: bool = False,
    normalises_logits: bool = False,
    row_temp: bool = False,
    learned_temp: bool = False,
    transforms: str | Sequence[str] = (),
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
    transforms : sequence of str, optional
        What `fn` is wrapped in, the first next to it: of "compile" (`torch.compile`, for as many shapes as there are),
        "vmap" (`torch.vmap` over rows: `fn` is given logits of one axis, and ``axis=-1`` where it takes one),
        "autocast" (`torch.autocast` to the device's default, bfloat16 on a CPU; the mask is still to have the dtype of
        the logits) and "checkpoint" (`torch.utils.checkpoint.checkpoint`, not reentrant: `fn` is run again for the
        backward pass). What then goes wrong in a case, an error too, counts against `fn`.

    Returns
    -------
    Implementation

    Raises
    ------
    TypeError
        `fn` cannot be called as above.
    ValueError
        `transforms` names one that is not listed.
    ModuleNotFoundError
        The framework is not installed.

    Examples
    --------
    >>> from npselect import testing
    >>> subject = testing.from_torch(my_select, transforms=["vmap", "compile"])  # doctest: +SKIP
    >>> testing.assert_conforms(subject)  # torch.compile(torch.vmap(my_select))  # doctest: +SKIP
    """
    torch = framework("torch", "from_torch")
    call = transformed(fn, transforms, torch_transforms(torch))
    recorded = partial(_recorded, torch)

    def tensor(values: Tensor) -> Tensor:
        flat, shape, strides = memory(values)
        numbers = _tensor(torch, flat, device)
        return torch.empty(0, dtype=numbers.dtype, device=numbers.device).set_(numbers, 0, shape, strides)

    class Given(torch.autograd.Function):  # type: ignore[misc, name-defined]
        """A tensor that fn may write to, laid out as the array is; its gradient is that of the leaf."""

        @staticmethod
        def forward(_context: Tensor, _leaf: Tensor, values: Tensor) -> Tensor:
            return tensor(values)

        @staticmethod
        def backward(_context: Tensor, grad: Tensor) -> Tensor:
            return grad, None

    def select(logits: Tensor, temp: Tensor, options: Options) -> Tensor:
        with _grads_of_others():
            return of_type(torch.Tensor, call(logits, temp, **given_options(options, tensor)), fn)

    def gradient(mask: Tensor, leaf: Tensor, grad_mask: Tensor) -> Array:
        if not mask.requires_grad:
            return _array(torch.zeros_like(leaf))
        cotangent = tensor(of_shape(grad_mask, mask, fn)).to(mask.dtype)
        (grad,) = torch.autograd.grad(mask, leaf, cotangent, allow_unused=True)
        return _array(torch.zeros_like(leaf) if grad is None else grad)

    @recorded
    def forward(logits: Array, temp: Temp, **options: Option) -> Array:
        leaf = tensor(logits).requires_grad_()
        return _array(select(Given.apply(leaf, logits), given_temp(temp, tensor), options))

    @recorded
    def backward(grad_mask: Array, logits: Array, temp: Temp, **options: Option) -> Array:
        leaf = tensor(logits).requires_grad_()
        return gradient(select(Given.apply(leaf, logits), given_temp(temp, tensor), options), leaf, grad_mask)

    @recorded
    def backward_temp(grad_mask: Array, logits: Array, temp: Temp, **options: Option) -> Array:
        temp = as_logits(temp, logits)
        leaf = tensor(temp).requires_grad_()
        return gradient(select(tensor(logits), Given.apply(leaf, temp), options), leaf, grad_mask)

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


def layer_from_torch(
    fn: Function,
    *,
    name: str | None = None,
    device: Tensor = None,
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
    torch = framework("torch", "layer_from_torch")
    recorded = partial(_recorded, torch)

    def tensor(values: Tensor) -> Tensor:
        return _tensor(torch, np.array(values, order="C"), device)

    def run(x: Tensor, logits: Tensor, temp: float, options: Options) -> tuple[Tensor, list[Tensor]]:
        leaves = [tensor(values).requires_grad_() for values in (x, logits)]
        chosen = fn(*(leaf.clone() for leaf in leaves), temp, **given_options(options, tensor))
        return of_type(torch.Tensor, chosen, fn), leaves

    @recorded
    def forward(x: Array, logits: Array, temp: float, **options: Option) -> Array:
        return _array(run(x, logits, temp, options)[0])

    @recorded
    def backward(grad_chosen: Array, x: Array, logits: Array, temp: float, **options: Option) -> tuple[Array, ...]:
        with _grads_of_others():
            chosen, leaves = run(x, logits, temp, options)
        if not chosen.requires_grad:
            return tuple(_array(torch.zeros_like(leaf)) for leaf in leaves)
        cotangent = tensor(of_shape(grad_chosen, chosen, fn, "grad_chosen")).to(chosen.dtype)
        grads = torch.autograd.grad(chosen, leaves, cotangent, allow_unused=True)
        pairs = zip(grads, leaves, strict=True)
        return tuple(_array(torch.zeros_like(leaf) if grad is None else grad) for grad, leaf in pairs)

    return layer(fn, name, forward, backward, x_axes, flushes_subnormals)


def sampling_from_torch(
    fn: Function,
    *,
    name: str | None = None,
    device: Tensor = None,
    hard_and_soft: bool = True,
    flushes_subnormals: bool = False,
    normalises_logits: bool = False,
) -> SamplingOp:
    """The adapter of an op of PyTorch that draws its own noise, for `npselect.testing.check_sampling_op`.

    Parameters
    ----------
    fn : callable
        ``fn(logits, temp, hard) -> sample`` over tensors of shape (rows, K), such as
        `torch.nn.functional.gumbel_softmax`; `temp` is a float, `hard` a bool. It draws from the default generator of
        the device, which is seeded before the call, and is as it was after it. The gradient is that of
        `torch.autograd.grad`.
    name : str, optional
        For the report; by default that of `fn`.
    device : optional
        Where tensors are put, as in ``tensor.to(device)``; by default the CPU.
    hard_and_soft, flushes_subnormals, normalises_logits : bool, optional
        See `SamplingOp`.

    Returns
    -------
    SamplingOp

    Raises
    ------
    TypeError
        `fn` cannot be called as above.
    ModuleNotFoundError
        The framework is not installed.

    Examples
    --------
    >>> from npselect import testing
    >>> import torch  # doctest: +SKIP
    >>> op = testing.sampling_from_torch(torch.nn.functional.gumbel_softmax)  # doctest: +SKIP
    >>> testing.check_sampling_op(op).ok  # doctest: +SKIP
    True
    """
    torch = framework("torch", "sampling_from_torch")
    recorded = partial(_recorded, torch)

    def run(logits: Array, temp: float, hard: bool, seed: int) -> tuple[Tensor, Tensor]:
        leaf = _tensor(torch, np.array(logits, order="C"), device).requires_grad_()
        with _seeded(torch, seed, device), _grads_of_others():
            return of_type(torch.Tensor, fn(leaf.clone(), temp, hard), fn), leaf

    @recorded
    def sample(logits: Array, temp: float, hard: bool, seed: int) -> Array:
        return _array(run(logits, temp, hard, seed)[0].detach())

    @recorded
    def backward(grad_sample: Array, logits: Array, temp: float, hard: bool, seed: int) -> Array:
        drawn, leaf = run(logits, temp, hard, seed)
        if not drawn.requires_grad:
            return _array(torch.zeros_like(leaf))
        given = np.array(of_shape(grad_sample, drawn, fn, "grad_sample"), order="C")
        (grad,) = torch.autograd.grad(drawn, leaf, _tensor(torch, given, device).to(drawn.dtype), allow_unused=True)
        return _array(torch.zeros_like(leaf) if grad is None else grad)

    return sampling_op(
        fn,
        sample,
        backward,
        name=name,
        hard_and_soft=hard_and_soft,
        flushes_subnormals=flushes_subnormals,
        normalises_logits=normalises_logits,
    )


@contextmanager
def _seeded(torch: Tensor, seed: int, device: Tensor) -> Iterator[None]:
    """The default generators of the host and of the device, seeded within, and as they were after it."""
    place = torch.device("cpu" if device is None else device)
    on_gpu = place.type == "cuda"
    number = (torch.cuda.current_device() if place.index is None else place.index) if on_gpu else None
    with torch.random.fork_rng(devices=[number] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            torch.cuda.default_generators[number].manual_seed(seed)
        yield


# ------------------------------------------------------------------------------------------------ what they share


def _recorded(torch: Tensor, function: Function) -> Function:
    """Whatever is set around the call, autograd records it."""

    @wraps(function)
    def call(*arguments: Tensor, **options: Option) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            return function(*arguments, **options)

    return call


@contextmanager
def _grads_of_others() -> Iterator[None]:
    """torch.compile looks at the .grad of what is no leaf."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
        yield


def _tensor(torch: Tensor, array: Array, device: Tensor) -> Tensor:
    """The same memory as a tensor, if it stays on the host."""
    if array.dtype.name == "bfloat16":  # which torch.from_numpy does not know
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16).to(device)
    return torch.from_numpy(array).to(device)


def _array(tensor: Tensor) -> Array:
    return np.array(as_numpy_sees(tensor.cpu()))
