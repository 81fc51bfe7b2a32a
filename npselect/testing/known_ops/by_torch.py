"""Known ops of PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from npselect.testing.adapters import from_torch, sampling_from_torch
from npselect.testing.aliases import Array, Tensor
from npselect.testing.implementation import Implementation
from npselect.testing.known_ops.judging import one_hot, sampler, sampling, selection
from npselect.testing.known_ops.record import KnownOp, Package
from npselect.testing.sampling.op import SamplingOp

__all__ = ["PACKAGE", "gradient_of_samples", "hardened", "seeded_sampler"]

_SEEDS = 2**32 - 1


def gumbel_softmax() -> SamplingOp:
    functional = import_module("torch.nn.functional")
    return sampling_from_torch(lambda logits, temp, hard: functional.gumbel_softmax(logits, tau=temp, hard=hard))


def relaxed() -> SamplingOp:
    cls = import_module("torch.distributions").RelaxedOneHotCategorical
    return hardened(lambda logits, temp: cls(temp, logits=logits).rsample())


def straight_through_gradient() -> Implementation:
    cls = import_module("torch.distributions").OneHotCategoricalStraightThrough
    return gradient_of_samples(lambda logits: cls(logits=logits).rsample())


def straight_through_samples() -> Callable[[Array, int], Tensor]:
    cls = import_module("torch.distributions").OneHotCategoricalStraightThrough
    return seeded_sampler(lambda logits: cls(logits=logits).rsample())


def categorical() -> Callable[[Array, int], Array]:
    cls = import_module("torch.distributions").Categorical
    draw = seeded_sampler(lambda logits: cls(logits=logits).sample())
    return lambda logits, seed: one_hot(draw(logits, seed), logits)


# ------------------------------------------------------------------------------------------------ what they share


def seeded_sampler(draw: Callable[[Tensor], Tensor]) -> Callable[[Array, int], Tensor]:
    """``draw(logits)``, over tensors, from PyTorch's generator with the seed."""
    torch = import_module("torch")

    def sample(logits: Array, seed: int) -> Tensor:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            return draw(torch.from_numpy(logits)).numpy()

    return sample


def hardened(draw: Callable[[Tensor, float], Tensor]) -> SamplingOp:
    """``draw(logits, temp)``, a soft sample, and a hard form that is made of it here."""
    torch = import_module("torch")

    def fn(logits: Tensor, temp: float, hard: bool) -> Tensor:
        soft = draw(logits, temp)
        index = soft.argmax(-1, keepdim=True)
        return soft + (torch.zeros_like(soft).scatter(-1, index, 1.0) - soft).detach() if hard else soft

    return sampling_from_torch(fn, normalises_logits=True)


def gradient_of_samples(draw: Callable[[Tensor], Tensor]) -> Implementation:
    """The gradient of ``draw(logits / temp)``, whatever was drawn; the value is the mask of the largest logit."""
    torch = import_module("torch")

    def fn(logits: Tensor, temp: float) -> Tensor:
        sample = draw(logits / temp)
        index = logits.argmax(-1, keepdim=True)
        return torch.zeros_like(logits).scatter(-1, index, 1.0) + (sample - sample.detach())

    return from_torch(fn, normalises_logits=True)


_DOCS = "https://docs.pytorch.org/docs/stable"
PACKAGE = Package(
    "torch",
    ("torch",),
    ("torch",),
    (
        KnownOp(
            "torch.nn.functional.gumbel_softmax",
            gumbel_softmax,
            sampling(),
            "Hard and soft. tau is documented as not negative; 0 gives NaN.",
            (
                f"{_DOCS}/generated/torch.nn.functional.gumbel_softmax.html",
                "https://github.com/pytorch/pytorch/issues/22442",
                "https://github.com/pytorch/pytorch/issues/184031",
            ),
        ),
        KnownOp(
            "torch.distributions.RelaxedOneHotCategorical",
            relaxed,
            sampling(),
            "The soft form; the hard one is made of it here. Logits are normalised first, which costs digits.",
            (f"{_DOCS}/distributions.html", "https://github.com/pytorch/pytorch/issues/18254"),
        ),
        KnownOp(
            "torch.distributions.OneHotCategoricalStraightThrough, gradient",
            straight_through_gradient,
            selection(what="gradient of a sample, at logits / temp"),
            "The gradient of the probabilities, without noise, by Bengio and others, 2013.",
            (f"{_DOCS}/distributions.html",),
        ),
        KnownOp(
            "torch.distributions.OneHotCategoricalStraightThrough, samples",
            straight_through_samples,
            sampler(max_seed=_SEEDS),
            "Exact one-hots of the categorical distribution.",
            (f"{_DOCS}/distributions.html",),
        ),
        KnownOp(
            "torch.distributions.Categorical",
            categorical,
            sampler(max_seed=_SEEDS),
            "Classes of probability 0 were sampled once.",
            (f"{_DOCS}/distributions.html", "https://github.com/pytorch/pytorch/issues/91863"),
        ),
    ),
)
