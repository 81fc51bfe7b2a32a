"""Known ops of MLX, which has samplers and no straight-through op."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import numpy as np

from npselect.testing.aliases import Array
from npselect.testing.known_ops.judging import noise, one_hot, sampler
from npselect.testing.known_ops.record import KnownOp, Package

__all__ = ["PACKAGE"]


def categorical() -> Callable[[Array, int], Array]:
    mx = import_module("mlx.core")
    return lambda logits, seed: one_hot(mx.random.categorical(mx.array(logits), key=mx.random.key(seed)), logits)


def gumbel() -> Callable[[int, int], Array]:
    mx = import_module("mlx.core")
    return lambda count, seed: np.array(mx.random.gumbel((count,), key=mx.random.key(seed)))


_DOCS = "https://ml-explore.github.io/mlx/build/html/python/random.html"
PACKAGE = Package(
    "mlx",
    ("mlx.core",),
    ("mlx",),
    (
        KnownOp(
            "mlx.core.random.categorical",
            categorical,
            sampler(max_seed=2**64 - 1),
            "The largest of logits and Gumbel noise.",
            (_DOCS,),
        ),
        KnownOp("mlx.core.random.gumbel", gumbel, noise(), "Standard Gumbel noise in float32.", (_DOCS,)),
    ),
)
