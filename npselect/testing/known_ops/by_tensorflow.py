"""Known ops of TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from npselect.testing.aliases import Array
from npselect.testing.known_ops.judging import one_hot, sampler
from npselect.testing.known_ops.record import KnownOp, Package

__all__ = ["PACKAGE"]


def categorical() -> Callable[[Array, int], Array]:
    tf = import_module("tensorflow")

    def sample(logits: Array, seed: int) -> Array:
        tf.random.set_seed(seed)
        return one_hot(tf.random.categorical(logits, 1).numpy(), logits)

    return sample


PACKAGE = Package(
    "tensorflow",
    ("tensorflow",),
    ("tensorflow", "tensorflow-cpu"),
    (
        KnownOp(
            "tf.random.categorical",
            categorical,
            sampler(max_seed=2**31 - 1),
            "Old versions returned an index out of range for logits beyond 88.",
            (
                "https://www.tensorflow.org/api_docs/python/tf/random/categorical",
                "https://github.com/tensorflow/tensorflow/issues/2774",
            ),
        ),
    ),
)
