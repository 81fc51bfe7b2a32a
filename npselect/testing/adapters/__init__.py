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

`fn` may take the keywords ``axis`` (an int), ``where`` (a tensor of bool), ``noise`` (a tensor, to be added to the
logits) and ``index`` (a tensor of integers, what was sampled): those that are in its signature, or all for
``**kwargs``. The signature is found behind `functools.partial`, `torch.compile`, `jax.jit`, `tf.function`. A mask of a
wrong shape or dtype is handed on as it is, for others to judge, and errors of `fn` pass through.

Subnormal numbers, as measured on x86-64 with PyTorch 2.13, JAX 0.10 and TensorFlow 2.21: PyTorch keeps them, compiled
or not. JAX and TensorFlow, compiled or not, read them as 0 and return 0 instead of them in bfloat16, float32 and
float64, but keep them in float16. Where that is otherwise, say so with ``flushes_subnormals=``.

Those of PaddlePaddle, MLX and tinygrad hand over copies in C order. MLX on Linux reads subnormal numbers as 0.

A layer is ``fn(x, logits, temp) -> chosen``, with the keywords ``where`` and ``noise``, if any: `x` and the logits are
handed over as tensors of their own, of which the framework's autodiff takes the gradients. What a module holds as a
parameter, such as a codebook, is given it, for instance by `torch.func.functional_call`.

An op that draws its own noise is ``fn(logits, temp, hard) -> sample``, of JAX ``fn(logits, temp, hard, key)``: the
adapters ``sampling_from_...`` seed the framework's generator before each call, and put it back after it.
"""

from npselect.testing.adapters.by_jax import from_jax, layer_from_jax, sampling_from_jax
from npselect.testing.adapters.by_mlx import from_mlx, sampling_from_mlx
from npselect.testing.adapters.by_numpy import from_array_functions
from npselect.testing.adapters.by_paddle import from_paddle, sampling_from_paddle
from npselect.testing.adapters.by_tensorflow import from_tensorflow, layer_from_tensorflow, sampling_from_tensorflow
from npselect.testing.adapters.by_tinygrad import from_tinygrad, sampling_from_tinygrad
from npselect.testing.adapters.by_torch import from_torch, layer_from_torch, sampling_from_torch
from npselect.testing.adapters.layer import Layer

__all__ = [
    "Layer",
    "from_array_functions",
    "from_jax",
    "from_mlx",
    "from_paddle",
    "from_tensorflow",
    "from_tinygrad",
    "from_torch",
    "layer_from_jax",
    "layer_from_tensorflow",
    "layer_from_torch",
    "sampling_from_jax",
    "sampling_from_mlx",
    "sampling_from_paddle",
    "sampling_from_tensorflow",
    "sampling_from_tinygrad",
    "sampling_from_torch",
]
