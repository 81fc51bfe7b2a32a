"""The adapters for MLX."""

from __future__ import annotations

from importlib import import_module

import numpy as np

from npselect.testing.adapters.autodiff import Autodiff, Cotangent
from npselect.testing.adapters.common import framework
from npselect.testing.aliases import Array, Function, Tensor
from npselect.testing.implementation import Implementation
from npselect.testing.sampling.op import SamplingOp

__all__ = ["from_mlx", "sampling_from_mlx"]


def from_mlx(
    fn: Function,
    *,
    name: str | None = None,
    flushes_subnormals: bool = True,
    normalises_logits: bool = False,
    row_temp: bool = False,
    learned_temp: bool = False,
) -> Implementation:
    """The adapter for MLX; the gradient is that of `mlx.core.vjp`.

    Parameters
    ----------
    fn : callable
        ``fn(logits, temp) -> mask`` over arrays of MLX. A mask of integers or bools has the gradient 0. In float64 MLX
        computes on a CPU alone, which must then be the default device.
    name, flushes_subnormals, normalises_logits, row_temp, learned_temp : optional
        As for `from_torch`; so are the result and the errors.
    """
    return _autodiff("from_mlx").implementation(
        fn,
        name,
        row_temp=row_temp,
        learned_temp=learned_temp,
        flushes_subnormals=flushes_subnormals,
        normalises_logits=normalises_logits,
    )


def sampling_from_mlx(
    fn: Function,
    *,
    name: str | None = None,
    hard_and_soft: bool = True,
    flushes_subnormals: bool = True,
    normalises_logits: bool = False,
) -> SamplingOp:
    """The adapter of an op of MLX that draws its own noise, for `npselect.testing.check_sampling_op`.

    Parameters
    ----------
    fn : callable
        ``fn(logits, temp, hard, key) -> sample`` over arrays of shape (rows, K), with ``key = mx.random.key(seed)``.
        The gradient is that of `mlx.core.vjp`.
    name, hard_and_soft, flushes_subnormals, normalises_logits : optional
        As for `sampling_from_torch`; so are the result and the errors.
    """
    autodiff = _autodiff("sampling_from_mlx")
    mx = import_module("mlx.core")

    def run(logits: Tensor, temp: float, hard: bool, seed: int) -> Tensor:
        return fn(logits, temp, hard, mx.random.key(seed))

    return autodiff.sampling(
        fn,
        run,
        name=name,
        takes=("logits", "temp", "hard", "key"),
        max_seed=2**64 - 1,
        hard_and_soft=hard_and_soft,
        flushes_subnormals=flushes_subnormals,
        normalises_logits=normalises_logits,
    )


def _autodiff(adapter: str) -> Autodiff:
    framework("mlx", adapter)
    mx = import_module("mlx.core")

    def tensor(values: Array) -> Tensor:
        values = np.array(values)
        if values.dtype == np.bool_:
            return mx.array(values)
        return mx.array(values, dtype=getattr(mx, values.dtype.name))  # without dtype, float64 becomes float32

    def array(result: Tensor) -> Array:
        if result.dtype == mx.bfloat16:  # which NumPy does not know
            return np.array(result.astype(mx.float32)).astype(import_module("ml_dtypes").bfloat16)
        return np.array(result)

    def vjp(function: Function, leaf: Tensor, cotangent: Cotangent) -> Tensor | None:
        result = function(leaf)
        if not mx.issubdtype(result.dtype, mx.inexact):
            return None
        (_,), (grad,) = mx.vjp(function, [leaf], [cotangent(result).astype(result.dtype)])
        return grad

    return Autodiff(mx.array, tensor, array, vjp)
