"""Known ops of NumPyro, which has no straight-through op."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from npselect.testing.aliases import Array, Tensor
from npselect.testing.known_ops.judging import one_hot, sampler
from npselect.testing.known_ops.record import KnownOp, Package

__all__ = ["PACKAGE"]


def categorical() -> Callable[[Array, int], Array]:
    jax = import_module("jax")
    cls = import_module("numpyro.distributions").CategoricalLogits
    draw = jax.jit(lambda key, logits: cls(logits).sample(key))
    return lambda logits, seed: one_hot(draw(jax.random.key(seed), logits), logits)


def relaxed_bernoulli() -> Callable[[Array, int], Tensor]:
    """Of two choices; the larger entry of the relaxed sample is selected."""
    jax = import_module("jax")
    cls = import_module("numpyro.distributions").RelaxedBernoulliLogits

    def draw(key: Tensor, logits: Tensor) -> Tensor:
        return (cls(1.0, logits[:, 1] - logits[:, 0]).sample(key) > 0.5).astype(int)

    compiled = jax.jit(draw)
    return lambda logits, seed: one_hot(compiled(jax.random.key(seed), logits), logits)


_DOCS = "https://num.pyro.ai/en/stable/distributions.html"
_SEEDS = 2**32 - 1
PACKAGE = Package(
    "numpyro",
    ("numpyro.distributions",),
    ("numpyro",),
    (
        KnownOp(
            "numpyro.distributions.CategoricalLogits",
            categorical,
            sampler(max_seed=_SEEDS),
            "A straight-through op has been proposed since 2020, and is not there.",
            (_DOCS, "https://github.com/pyro-ppl/numpyro/pull/562"),
        ),
        KnownOp(
            "numpyro.distributions.RelaxedBernoulliLogits",
            relaxed_bernoulli,
            sampler(choices=(2,), max_seed=_SEEDS),
            "A relaxed sample of two choices; only which of them is the larger is judged.",
            (_DOCS,),
        ),
    ),
)
