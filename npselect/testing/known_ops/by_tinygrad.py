"""Known ops of tinygrad, which has samplers and no straight-through op."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from npselect.testing.aliases import Array
from npselect.testing.known_ops.judging import one_hot, sampler
from npselect.testing.known_ops.record import KnownOp, Package

__all__ = ["PACKAGE"]


def gumbel_max() -> Callable[[Array, int], Array]:
    """The last line of `tinygrad.llm.model.Transformer.forward`, in our words: that module is not to be imported."""
    tensor = import_module("tinygrad").Tensor

    def sample(logits: Array, seed: int) -> Array:
        tensor.manual_seed(seed)
        given = tensor(logits)
        exponential = -tensor.rand_like(given).maximum(1e-12).log()
        return one_hot((given - exponential.log()).argmax(-1).numpy(), logits)

    return sample


def multinomial() -> Callable[[Array, int], Array]:
    tensor = import_module("tinygrad").Tensor

    def sample(logits: Array, seed: int) -> Array:
        tensor.manual_seed(seed)
        return one_hot(tensor(logits).softmax(-1).multinomial(1).numpy(), logits)

    return sample


_SOURCE = "https://github.com/tinygrad/tinygrad/blob/master/tinygrad"
_JUDGE = sampler(choices=(10,), rows=1000, seeds=4, max_seed=2**32 - 1)
PACKAGE = Package(
    "tinygrad",
    ("tinygrad",),
    ("tinygrad",),
    (
        KnownOp(
            "the sampler of tinygrad.llm.model, on its formula",
            gumbel_max,
            _JUDGE,
            "The largest of logits and noise, of uniforms held above 1e-12. (The wheel of 0.14.0 cannot import that "
            "module: tinygrad.llm.kernels is not in it.)",
            (f"{_SOURCE}/llm/model.py",),
        ),
        KnownOp(
            "tinygrad.Tensor.multinomial",
            multinomial,
            _JUDGE,
            "One index a row, by probability.",
            (f"{_SOURCE}/mixin/rand.py",),
        ),
    ),
)
