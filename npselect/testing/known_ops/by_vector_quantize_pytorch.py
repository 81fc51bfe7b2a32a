"""Known ops of vector-quantize-pytorch."""

from __future__ import annotations

from importlib import import_module

from npselect.testing.adapters import from_torch, sampling_from_torch
from npselect.testing.aliases import Function, Tensor
from npselect.testing.implementation import Implementation
from npselect.testing.known_ops.judging import sampling, selection
from npselect.testing.known_ops.record import KnownOp, Package
from npselect.testing.sampling.op import SamplingOp

__all__ = ["PACKAGE"]


def _gumbel_sample() -> Function:
    sample: Function = import_module("vector_quantize_pytorch.vector_quantize_pytorch").gumbel_sample
    return sample


def stochastic() -> SamplingOp:
    gumbel_sample = _gumbel_sample()

    def fn(logits: Tensor, temp: float, hard: bool) -> Tensor:
        assert hard
        return gumbel_sample(logits, temperature=temp, stochastic=True, straight_through=True)[1]

    return sampling_from_torch(fn, name="gumbel_sample", hard_and_soft=False)


def deterministic() -> Implementation:
    gumbel_sample = _gumbel_sample()
    return from_torch(lambda logits, temp: gumbel_sample(logits, temperature=temp, straight_through=True)[1])


_LINKS = ("https://github.com/lucidrains/vector-quantize-pytorch",)
_REPRODUCE = """\
import torch; from vector_quantize_pytorch.vector_quantize_pytorch import gumbel_sample; torch.manual_seed(0)
x = torch.randn(1000, 10); _, y = gumbel_sample(x, stochastic=True, straight_through=True)
print((y - y.round()).abs().max())  # expected 0: a one-hot"""
PACKAGE = Package(
    "vector-quantize-pytorch",
    ("vector_quantize_pytorch",),
    ("vector-quantize-pytorch",),
    (
        KnownOp(
            "vector_quantize_pytorch.gumbel_sample(stochastic=True, straight_through=True)",
            stochastic,
            sampling(temps=(1.0,), choices=(2, 10)),
            "The noise is added to logits / temperature; the gradient is that of the softmax without it.",
            _LINKS,
            _REPRODUCE,
        ),
        KnownOp(
            "vector_quantize_pytorch.gumbel_sample(straight_through=True)",
            deterministic,
            selection(),
            "Without noise: one_hot + probs - probs.detach() in that order, whose sum with the probabilities rounds.",
            _LINKS,
            _REPRODUCE,
        ),
    ),
)
