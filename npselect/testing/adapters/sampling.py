"""What the adapters for ops that draw their own noise share."""

from __future__ import annotations

from collections.abc import Callable

from npselect.testing.adapters.common import options_taken
from npselect.testing.aliases import Array, Function, Tensor
from npselect.testing.implementation import function_name
from npselect.testing.sampling.op import SamplingOp

__all__ = ["SEEDS_OF_32_BITS", "sampling_op"]

SEEDS_OF_32_BITS = 2**32 - 1
"""The largest seed of a generator that uses 32 bits of it: the seeding is the adapter's, and not to be judged."""


def sampling_op(
    fn: Function,
    sample: Callable[[Array, float, bool, int], Tensor],
    backward: Callable[[Tensor, Array, float, bool, int], Tensor],
    *,
    name: str | None,
    hard_and_soft: bool,
    flushes_subnormals: bool,
    normalises_logits: bool,
    takes: tuple[str, ...] = ("logits", "temp", "hard"),
    max_seed: int | None = SEEDS_OF_32_BITS,
) -> SamplingOp:
    """The op that an adapter makes of a function; a `TypeError` if that cannot be called with what it `takes`."""
    options_taken(fn, *takes)
    return SamplingOp(
        name or function_name(fn), sample, backward, hard_and_soft, max_seed, flushes_subnormals, normalises_logits
    )
