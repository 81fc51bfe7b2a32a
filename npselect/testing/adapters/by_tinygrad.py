"""The adapters for tinygrad."""

from __future__ import annotations

from importlib import import_module

import numpy as np

from npselect.testing.adapters.autodiff import Autodiff, Cotangent
from npselect.testing.adapters.common import framework
from npselect.testing.adapters.sampling import SEEDS_OF_32_BITS
from npselect.testing.aliases import Array, Function, Tensor
from npselect.testing.implementation import Implementation
from npselect.testing.sampling.op import SamplingOp

__all__ = ["from_tinygrad", "sampling_from_tinygrad"]


def from_tinygrad(
    fn: Function,
    *,
    name: str | None = None,
    flushes_subnormals: bool = False,
    normalises_logits: bool = False,
    row_temp: bool = False,
    learned_temp: bool = False,
) -> Implementation:
    """The adapter for tinygrad; the gradient is that of `tinygrad.Tensor.gradient`.

    Parameters
    ----------
    fn : callable
        ``fn(logits, temp) -> mask`` over tensors on the default device.
    name, flushes_subnormals, normalises_logits, row_temp, learned_temp : optional
        As for `from_torch`; so are the result and the errors.
    """
    return _autodiff(framework("tinygrad", "from_tinygrad")).implementation(
        fn,
        name,
        row_temp=row_temp,
        learned_temp=learned_temp,
        flushes_subnormals=flushes_subnormals,
        normalises_logits=normalises_logits,
    )


def sampling_from_tinygrad(
    fn: Function,
    *,
    name: str | None = None,
    hard_and_soft: bool = True,
    flushes_subnormals: bool = False,
    normalises_logits: bool = False,
) -> SamplingOp:
    """The adapter of an op of tinygrad that draws its own noise, for `npselect.testing.check_sampling_op`.

    Parameters
    ----------
    fn : callable
        ``fn(logits, temp, hard) -> sample`` over tensors of shape (rows, K). It draws from the generator of
        `tinygrad.Tensor.manual_seed`, which is seeded before each call, and stays so: tinygrad has no way to ask for
        its state. The gradient is that of `tinygrad.Tensor.gradient`.
    name, hard_and_soft, flushes_subnormals, normalises_logits : optional
        As for `sampling_from_torch`; so are the result and the errors.
    """
    tinygrad = framework("tinygrad", "sampling_from_tinygrad")

    def run(logits: Tensor, temp: float, hard: bool, seed: int) -> Tensor:
        tinygrad.Tensor.manual_seed(seed)
        return fn(logits, temp, hard)

    return _autodiff(tinygrad).sampling(
        fn,
        run,
        name=name,
        max_seed=SEEDS_OF_32_BITS,
        hard_and_soft=hard_and_soft,
        flushes_subnormals=flushes_subnormals,
        normalises_logits=normalises_logits,
    )


def _autodiff(tinygrad: Tensor) -> Autodiff:
    dtypes = tinygrad.dtypes

    def tensor(values: Array) -> Tensor:
        values = np.array(values, order="C")
        if values.dtype.name == "bfloat16":
            return tinygrad.Tensor(values.astype(np.float32)).cast(dtypes.bfloat16)
        return tinygrad.Tensor(values)

    def array(result: Tensor) -> Array:
        if result.dtype == dtypes.bfloat16:  # which NumPy does not know
            return np.array(result.cast(dtypes.float32).numpy()).astype(import_module("ml_dtypes").bfloat16)
        return np.array(result.numpy())

    def vjp(function: Function, leaf: Tensor, cotangent: Cotangent) -> Tensor | None:
        result = function(leaf)
        if not dtypes.is_float(result.dtype) or leaf.uop not in result.uop.toposort():
            return None
        (grad,) = result.gradient(leaf, gradient=cotangent(result).cast(result.dtype))
        return grad

    return Autodiff(tinygrad.Tensor, tensor, array, vjp)
