"""Known ops of tinygrad, which has a sampler and no straight-through op."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import numpy as np

from npselect.testing.aliases import Array
from npselect.testing.known_ops.judging import noise
from npselect.testing.known_ops.record import KnownOp, Package

__all__ = ["PACKAGE"]


def gumbel() -> Callable[[int, int], Array]:
    """As the last line of `tinygrad.llm.model.Transformer.forward` has it, in our words: it cannot be imported."""
    tensor = import_module("tinygrad").Tensor

    def draw(count: int, seed: int) -> Array:
        tensor.manual_seed(seed)
        exponential = -tensor.rand(count).maximum(1e-12).log()
        return np.array((-exponential.log()).numpy())

    return draw


_SOURCE = "https://github.com/tinygrad/tinygrad/blob/master/tinygrad"
PACKAGE = Package(
    "tinygrad",
    ("tinygrad",),
    ("tinygrad",),
    (
        KnownOp(
            "the noise of tinygrad.llm.model, on its formula",
            gumbel,
            noise(),
            "Of uniforms held above 1e-12. (The module cannot be imported: tinygrad.llm.kernels is not in the wheel.)",
            (f"{_SOURCE}/llm/model.py",),
        ),
    ),
)
