"""The choice, made once: for operators whose backward pass asks which candidate was drawn.

It is that of the largest ``logits + noise``, or an index that the caller gave, which is checked.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import numpy as np

from npselect._call.arguments import gap_of, noise_of, positive, stream_unless_given, unimix_of
from npselect._call.memory import AnyArray, AnyMemory
from npselect._dtypes import DType, Shape
from npselect._operators import CHOICE, LOG, MIXTURE
from npselect._stream import ScaledNoise, Stream, StreamNumbers
from npselect.tiers import RowFunctions

__all__ = [
    "EMPTY",
    "GivenIndex",
    "Sample",
    "choose_rows",
    "drawn_by",
    "fit_index",
    "gapped_by",
    "log_mixture",
    "mixed",
    "sample_of",
    "unweighed",
]

# As in npselect._arithmetic.steps, which loads numba; here it is not loaded before a tier is chosen.
EMPTY = -1  # nothing is offered: a row of zeros
REFUSED = -3  # an index that names no candidate


class GivenIndex(NamedTuple):
    """The choice, made elsewhere."""

    values: object


class Sample(NamedTuple):
    """How the choice is made, and what else than the logits the gradient depends on."""

    drawn: object  # None, noise, a `Stream` or a `GivenIndex`
    forward_temp: float = 1.0  # what the noise is multiplied by, and the temperature
    unimix: float = 0.0  # the share of the uniform distribution, where the choice is made of a mixture
    gap: float = 0.0
    is_weighed: bool = True  # whether the probabilities are those of the logits with their noise
    draws: object = None  # noise of samples given the choice, or a `Stream` in which it follows the choice's
    samples: int | None = None  # how many of them; as many as there is noise


def sample_of(seed: object, noise: object, offset: object, forward_temp: object) -> object:
    """Noise, times the forward temperature: exactly one of the numbers of a seed's stream and an array."""
    drawn, temp = noise_of(seed, noise, offset), positive(forward_temp, "forward_temp")
    return drawn if temp == 1 else Sample(drawn, temp)


def drawn_by(seed: object, noise: object, index: object, offset: object) -> object:
    """Exactly one of the numbers of a seed's stream, noise, and the choice itself."""
    options = {"seed=": seed, "noise=": noise, "index=": index}
    given = [name for name, value in options.items() if value is not None]
    if len(given) != 1:
        were = f"{' and '.join(given)} were" if given else "none was"
        raise TypeError(f"exactly one of seed=, noise= and index= must be given; {were}")
    stream = stream_unless_given(seed, offset, given[0])
    if stream is not None:
        return stream
    return noise if index is None else GivenIndex(index)


def mixed(seed: object, noise: object, index: object, offset: object, forward_temp: object, unimix: object) -> object:
    """What is drawn of the mixture with the uniform distribution, where the first has a temperature."""
    drawn = drawn_by(seed, noise, index, offset)
    temp, share = positive(forward_temp, "forward_temp"), unimix_of(unimix)
    return drawn if temp == 1 and not share else Sample(drawn, temp, share)


def unweighed(
    seed: object,
    noise: object,
    index: object,
    offset: object,
    forward_temp: object,
    unimix: object,
    is_sampled: bool = True,
) -> object:
    """`mixed` for a gradient that does not depend on the noise; None if it is that of `npselect.straight_through`."""
    drawn = drawn_by(seed, noise, index, offset) if is_sampled else None
    temp, share = positive(forward_temp, "forward_temp"), unimix_of(unimix)
    if isinstance(drawn, Stream):
        drawn = None
    return None if drawn is None and temp == 1 and not share else Sample(drawn, temp, share, is_weighed=False)


def gapped_by(seed: object, noise: object, index: object, offset: object, gap: object) -> Sample:
    """What is drawn, and by how much it leads."""
    return Sample(drawn_by(seed, noise, index, offset), gap=gap_of(gap))


def fit_index(memory: AnyMemory, index: object, shape: Shape, axis: int) -> AnyArray:
    """The index that a caller gave, as int64 of shape (rows,)."""
    array = memory.integers(index, "index")
    expected = (*shape[:axis], *shape[axis + 1 :])
    if array.shape != expected:
        raise ValueError(
            f"index has shape {array.shape} and logits has shape {shape}; index must have the shape of logits without "
            f"axis {axis}, {expected}"
        )
    size = math.prod(expected)
    return memory.as_rows(array.reshape((size, 1)), np.dtype(np.int64)).reshape((size,))


def log_mixture(
    tier: RowFunctions,
    memory: AnyMemory,
    logits: AnyArray,
    forward_temp: float,
    unimix: float,
    where: AnyArray | None,
    dtype: DType,
) -> AnyArray:
    """``log((1 - unimix) softmax(logits / forward_temp) + unimix / n)`` in float64, then rounded to a dtype."""
    wide, temp = np.dtype(np.float64), np.full(1, forward_temp)
    mixture, logs = memory.empty(logits.shape, wide), memory.empty(logits.shape, dtype)
    if logits.size:
        memory.run(partial(getattr(tier, MIXTURE.name), memory.as_rows(logits, wide), temp, where, unimix), [mixture])
        memory.run(partial(getattr(tier, LOG.name), mixture), [logs])
    return logs


def choose_rows(
    tier: RowFunctions,
    memory: AnyMemory,
    logits: AnyArray,
    noise: AnyArray | StreamNumbers | ScaledNoise | None,
    index: AnyArray | None,
    where: AnyArray | None,
    shape: Shape,
) -> AnyArray:
    """The selected column of each row, int64 of shape (rows,); `shape` is that of the index."""
    choice = memory.empty(logits.shape[:1], np.dtype(np.int64))
    if logits.size:
        memory.run(partial(getattr(tier, CHOICE.name), logits, noise, index, where), [choice])
    if index is not None:
        refused = np.flatnonzero(memory.to_host(choice) == REFUSED)
        if refused.size:
            position, value = np.unravel_index(refused[0], shape), memory.to_host(index)[refused[0]]
            at = f"index{[int(i) for i in position]}" if position else "index"
            raise ValueError(
                f"{at} is {value}; it must name a candidate, a column from 0 to {logits.shape[1] - 1} that is neither "
                "-inf nor excluded by where, or be -1 in a row for which where offers none"
            )
    return choice
