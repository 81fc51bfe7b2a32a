"""The adapters for PaddlePaddle."""

from __future__ import annotations

from importlib import import_module

import numpy as np

from npselect.testing.adapters.autodiff import Autodiff, Cotangent
from npselect.testing.adapters.common import framework
from npselect.testing.adapters.sampling import SEEDS_OF_32_BITS
from npselect.testing.aliases import Array, Function, Tensor
from npselect.testing.implementation import Implementation
from npselect.testing.sampling.op import SamplingOp

__all__ = ["from_paddle", "sampling_from_paddle"]


def from_paddle(
    fn: Function,
    *,
    name: str | None = None,
    flushes_subnormals: bool = False,
    normalises_logits: bool = False,
    row_temp: bool = False,
    learned_temp: bool = False,
) -> Implementation:
    """The adapter for PaddlePaddle; the gradient is that of `paddle.grad`.

    Parameters
    ----------
    fn : callable
        ``fn(logits, temp) -> mask`` over tensors on the current device.
    name, flushes_subnormals, normalises_logits, row_temp, learned_temp : optional
        As for `from_torch`; so are the result and the errors.
    """
    return _autodiff(framework("paddle", "from_paddle")).implementation(
        fn,
        name,
        row_temp=row_temp,
        learned_temp=learned_temp,
        flushes_subnormals=flushes_subnormals,
        normalises_logits=normalises_logits,
    )


def sampling_from_paddle(
    fn: Function,
    *,
    name: str | None = None,
    hard_and_soft: bool = True,
    flushes_subnormals: bool = False,
    normalises_logits: bool = False,
) -> SamplingOp:
    """The adapter of an op of PaddlePaddle that draws its own noise, for `npselect.testing.check_sampling_op`.

    Parameters
    ----------
    fn : callable
        ``fn(logits, temp, hard) -> sample`` over tensors of shape (rows, K), such as
        `paddle.nn.functional.gumbel_softmax`. It draws from the default generators, which are seeded before the call,
        and are as they were after it. The gradient is that of `paddle.grad`.
    name, hard_and_soft, flushes_subnormals, normalises_logits : optional
        As for `sampling_from_torch`; so are the result and the errors.
    """
    paddle = framework("paddle", "sampling_from_paddle")

    def run(logits: Tensor, temp: float, hard: bool, seed: int) -> Tensor:
        states = paddle.get_rng_state()
        try:
            paddle.seed(seed)
            return fn(logits, temp, hard)
        finally:
            paddle.set_rng_state(states)

    return _autodiff(paddle).sampling(
        fn,
        run,
        name=name,
        max_seed=SEEDS_OF_32_BITS,
        hard_and_soft=hard_and_soft,
        flushes_subnormals=flushes_subnormals,
        normalises_logits=normalises_logits,
    )


def _autodiff(paddle: Tensor) -> Autodiff:
    def tensor(values: Array) -> Tensor:
        values = np.array(values, order="C")
        if values.dtype.name == "bfloat16":  # which paddle.to_tensor does not know
            return paddle.to_tensor(values.astype(np.float32)).astype("bfloat16")
        return paddle.to_tensor(values)

    def array(result: Tensor) -> Array:
        numbers = np.array(result.numpy())
        return numbers.view(import_module("ml_dtypes").bfloat16) if result.dtype == paddle.bfloat16 else numbers

    def vjp(function: Function, leaf: Tensor, cotangent: Cotangent) -> Tensor | None:
        leaf.stop_gradient = False
        with paddle.enable_grad():
            result = function(leaf.clone())
            if result.stop_gradient:
                return None
            given = cotangent(result).astype(result.dtype)
            (grad,) = paddle.grad(result, leaf, grad_outputs=given, allow_unused=True)
        return grad

    return Autodiff(paddle.Tensor, tensor, array, vjp)
