"""Known ops of Pyro."""

from __future__ import annotations

from importlib import import_module

from npselect.testing.adapters import sampling_from_torch
from npselect.testing.aliases import Tensor
from npselect.testing.known_ops.by_torch import hardened
from npselect.testing.known_ops.judging import sampling
from npselect.testing.known_ops.record import KnownOp, Package
from npselect.testing.sampling.op import SamplingOp

__all__ = ["PACKAGE"]


def straight_through() -> SamplingOp:
    """The hard form; the soft one is its parent class, which draws the same numbers."""
    distributions = import_module("pyro.distributions")
    soft = distributions.RelaxedOneHotCategorical
    straight = distributions.RelaxedOneHotCategoricalStraightThrough
    return sampling_from_torch(
        lambda logits, temp, hard: (straight if hard else soft)(temp, logits=logits).rsample(),
        normalises_logits=True,
    )


def reparametrised() -> SamplingOp:
    pyro = import_module("pyro")
    distributions = import_module("pyro.distributions")
    reparam = import_module("pyro.infer.reparam").GumbelSoftmaxReparam

    def draw(logits: Tensor, temp: float) -> Tensor:
        with pyro.poutine.reparam(config={"x": reparam()}):
            return pyro.sample("x", distributions.RelaxedOneHotCategorical(temp, logits=logits))

    return hardened(draw)


_DOCS = "https://docs.pyro.ai/en/stable"
_REPRODUCE = """\
import torch, pyro.distributions as dist; torch.manual_seed(0); x = torch.zeros(1000, 10, requires_grad=True)
y = dist.RelaxedOneHotCategoricalStraightThrough(torch.tensor(0.1), logits=x).rsample()
(y * torch.randn(10)).sum().backward(); print((x.grad == 0).float().mean())  # expected 0"""
PACKAGE = Package(
    "pyro",
    ("pyro", "pyro.infer.reparam"),
    ("pyro-ppl",),
    (
        KnownOp(
            "pyro.distributions.RelaxedOneHotCategoricalStraightThrough",
            straight_through,
            sampling(),
            "A one-hot with the gradient of the relaxed sample, which is clamped away from 0 and 1.",
            (
                f"{_DOCS}/distributions.html#relaxedonehotcategoricalstraightthrough",
                "https://github.com/pyro-ppl/pyro/pull/1188",
                "https://github.com/pyro-ppl/pyro/issues/3304",
            ),
            _REPRODUCE,
        ),
        KnownOp(
            "pyro.infer.reparam.GumbelSoftmaxReparam",
            reparametrised,
            sampling(),
            "The soft form; the hard one is made of it here. It takes logarithms of uniforms that may be 0.",
            (f"{_DOCS}/infer.reparam.html",),
        ),
    ),
)
