"""Known ops of TensorFlow Probability, on JAX."""

from __future__ import annotations

from importlib import import_module

from npselect.testing.adapters import sampling_from_jax
from npselect.testing.aliases import Tensor
from npselect.testing.known_ops.judging import sampling
from npselect.testing.known_ops.record import KnownOp, Package
from npselect.testing.sampling.op import SamplingOp

__all__ = ["PACKAGE"]

_MODULE = "tensorflow_probability.substrates.jax"


def relaxed() -> SamplingOp:
    jax = import_module("jax")
    cls = import_module(_MODULE).distributions.RelaxedOneHotCategorical

    def draw(logits: Tensor, temp: float, key: Tensor) -> Tensor:
        return cls(temp, logits=logits).sample(seed=key)

    compiled = jax.jit(draw)

    def fn(logits: Tensor, temp: float, hard: bool, key: Tensor) -> Tensor:
        soft = compiled(logits, temp, key)
        mask = jax.nn.one_hot(soft.argmax(-1), soft.shape[-1], dtype=soft.dtype)
        return soft + jax.lax.stop_gradient(mask - soft) if hard else soft

    return sampling_from_jax(fn, name="RelaxedOneHotCategorical", normalises_logits=True)


PACKAGE = Package(
    "tensorflow-probability",
    (_MODULE,),
    ("tensorflow-probability", "tfp-nightly"),
    (
        KnownOp(
            "tfp.distributions.RelaxedOneHotCategorical",
            relaxed,
            sampling(),
            "The soft form; the hard one is made of it here.",
            (
                "https://www.tensorflow.org/probability/api_docs/python/tfp/distributions/RelaxedOneHotCategorical",
                "https://github.com/tensorflow/probability/issues/1571",
            ),
        ),
    ),
)
