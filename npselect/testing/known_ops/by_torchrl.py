"""Known ops of TorchRL."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from npselect.testing.aliases import Array, Tensor
from npselect.testing.implementation import Implementation
from npselect.testing.known_ops.by_torch import gradient_of_samples, seeded_sampler
from npselect.testing.known_ops.judging import sampler, selection
from npselect.testing.known_ops.record import KnownOp, Package

__all__ = ["PACKAGE"]

_MODULE = "torchrl.modules.distributions.discrete"
_WORLD_MODEL = "torchrl.modules.models.model_based"


def rsample(logits: Tensor) -> Tensor:
    module = import_module(_MODULE)
    return module.OneHotCategorical(logits=logits, grad_method=module.ReparamGradientStrategy.PassThrough).rsample()


def pass_through_gradient() -> Implementation:
    return gradient_of_samples(rsample)


def pass_through_samples() -> Callable[[Array, int], Tensor]:
    return seeded_sampler(rsample)


def world_model_gradient() -> Implementation:
    return gradient_of_samples(import_module(_WORLD_MODEL)._straight_through_categorical)


def world_model_samples() -> Callable[[Array, int], Tensor]:
    return seeded_sampler(import_module(_WORLD_MODEL)._straight_through_categorical)


_DOCS = "https://docs.pytorch.org/rl/stable/reference/generated/torchrl.modules.OneHotCategorical.html"
_SOURCE = "https://github.com/pytorch/rl/blob/main/torchrl/modules/models/model_based.py"
_SEEDS = 2**32 - 1
_REPRODUCE = """\
import torch; from torchrl.modules import OneHotCategorical; torch.manual_seed(0); x = torch.randn(1000, 10)
y = OneHotCategorical(logits=x).rsample()
print((y - y.round()).abs().max())  # expected 0: a one-hot"""
PACKAGE = Package(
    "torchrl",
    ("torchrl.modules",),
    ("torchrl",),
    (
        KnownOp(
            "torchrl.modules.OneHotCategorical(grad_method=PassThrough), gradient",
            pass_through_gradient,
            selection(what="gradient of a sample, at logits / temp"),
            "The gradient of the probabilities, without noise.",
            (_DOCS,),
        ),
        KnownOp(
            "torchrl.modules.OneHotCategorical(grad_method=PassThrough), samples",
            pass_through_samples,
            sampler(max_seed=_SEEDS),
            "One-hot samples, as sample + probs - probs.detach() in that order: the sum with the probabilities rounds.",
            (_DOCS,),
            _REPRODUCE,
        ),
        KnownOp(
            "torchrl model_based._straight_through_categorical, gradient",
            world_model_gradient,
            selection(what="gradient of a sample, at logits / temp"),
            "Private, of the world models: the gradient of the probabilities, without noise.",
            (_SOURCE,),
        ),
        KnownOp(
            "torchrl model_based._straight_through_categorical, samples",
            world_model_samples,
            sampler(max_seed=_SEEDS),
            "Private, of the world models: uniforms against sums of probabilities; u = 0 selects entry 0 in any case.",
            (_SOURCE,),
        ),
    ),
)
