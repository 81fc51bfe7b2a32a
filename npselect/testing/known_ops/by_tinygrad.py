"""Known ops of tinygrad, which has samplers and no straight-through op."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import SimpleNamespace

from npselect.testing.aliases import Array, Tensor
from npselect.testing.known_ops.judging import one_hot, sampler
from npselect.testing.known_ops.record import KnownOp, Package

__all__ = ["PACKAGE"]


def language_model() -> Callable[[Array, int], Array]:
    """Its forward pass with layers that hand the logits through."""
    tensor = import_module("tinygrad").Tensor
    forward = import_module("tinygrad.llm.model").Transformer.forward

    def same(x: Tensor) -> Tensor:
        return x

    def sample(logits: Array, seed: int) -> Array:
        tensor.manual_seed(seed)
        given = tensor(logits)[:, None]
        model = SimpleNamespace(token_embd=lambda _: given, blk=[], output=same, output_norm=same)
        return one_hot(forward(model, given, 0, tensor([1.0])).numpy(), logits)

    return sample


_LINKS = ("https://github.com/tinygrad/tinygrad/blob/master/tinygrad/llm/model.py",)
PACKAGE = Package(
    "tinygrad",
    ("tinygrad", "tinygrad.llm.model"),
    ("tinygrad",),
    (
        KnownOp(
            "tinygrad.llm.model.Transformer.forward, its last line",
            language_model,
            sampler(choices=(10,), rows=1000, max_seed=2**32 - 1),
            "The largest of logits / temperature and noise, of uniforms held above 1e-12.",
            _LINKS,
        ),
    ),
)
