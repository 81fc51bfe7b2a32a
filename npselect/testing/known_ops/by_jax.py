"""Known ops of JAX."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module

import numpy as np

from npselect.testing.aliases import Array
from npselect.testing.known_ops.judging import noise, one_hot, sampler
from npselect.testing.known_ops.record import KnownOp, Package

__all__ = ["PACKAGE"]

_SEEDS = 2**32 - 1


def categorical(mode: str) -> Callable[[Array, int], Array]:
    jax = import_module("jax")
    draw = jax.jit(partial(jax.random.categorical, mode=mode))
    return lambda logits, seed: one_hot(draw(jax.random.key(seed), logits), logits)


def gumbel(mode: str) -> Callable[[int, int], Array]:
    random = import_module("jax").random
    return lambda count, seed: np.asarray(random.gumbel(random.key(seed), (count,), np.float32, mode=mode))


_DOCS = "https://docs.jax.dev/en/latest/_autosummary/jax.random"
_PULLS = ("https://github.com/jax-ml/jax/pull/5348", "https://github.com/jax-ml/jax/pull/26974")
_MODES = {
    "low": "The default. Uniforms of the dtype's precision: in float32 events rarer than about 1e-7 are not drawn.",
    "high": "Twice the random bits, for the events that the default does not draw.",
}
PACKAGE = Package(
    "jax",
    ("jax",),
    ("jax",),
    (
        *(
            KnownOp(
                f"jax.random.categorical(mode={mode!r})",
                partial(categorical, mode),
                sampler(max_seed=_SEEDS),
                documented,
                (f"{_DOCS}.categorical.html", *_PULLS),
            )
            for mode, documented in _MODES.items()
        ),
        *(
            KnownOp(
                f"jax.random.gumbel(mode={mode!r})",
                partial(gumbel, mode),
                noise(),
                documented,
                (f"{_DOCS}.gumbel.html", *_PULLS),
            )
            for mode, documented in _MODES.items()
        ),
    ),
)
