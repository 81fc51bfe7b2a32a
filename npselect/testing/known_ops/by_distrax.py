"""Known ops of Distrax."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from npselect.testing.adapters import from_jax
from npselect.testing.aliases import Array, Tensor
from npselect.testing.implementation import Implementation
from npselect.testing.known_ops.judging import sampler, selection
from npselect.testing.known_ops.record import KnownOp, Package

__all__ = ["PACKAGE"]


def draw(logits: Tensor, key: Tensor) -> Tensor:
    distrax = import_module("distrax")
    return distrax.straight_through_wrapper(distrax.OneHotCategorical)(logits=logits).sample(seed=key)


def gradient() -> Implementation:
    jax = import_module("jax")

    def fn(logits: Tensor, temp: float) -> Tensor:
        sample = draw(logits / temp, jax.random.key(0))
        mask = jax.nn.one_hot(logits.argmax(-1), logits.shape[-1], dtype=logits.dtype)
        return mask + (sample - jax.lax.stop_gradient(sample))

    return from_jax(fn, normalises_logits=True, transforms="jit")


def samples() -> Callable[[Array, int], Tensor]:
    jax = import_module("jax")
    compiled = jax.jit(draw)
    return lambda logits, seed: compiled(logits, jax.random.key(seed))


_LINKS = ("https://github.com/google-deepmind/distrax",)
PACKAGE = Package(
    "distrax",
    ("distrax",),
    ("distrax",),
    (
        KnownOp(
            "distrax.straight_through_wrapper(OneHotCategorical), gradient",
            gradient,
            selection(what="gradient of a sample, at logits / temp"),
            "The gradient of the probabilities, without noise, by Bengio and others, 2013.",
            _LINKS,
        ),
        KnownOp(
            "jax.jit of distrax.straight_through_wrapper(OneHotCategorical), samples",
            samples,
            sampler(max_seed=2**32 - 1),
            "Samples unchanged: sample + (probs - stop_gradient(probs)).",
            _LINKS,
        ),
    ),
)
