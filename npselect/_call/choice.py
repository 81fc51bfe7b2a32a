"""The choice, made once: for operators whose backward pass asks which candidate was drawn.

It is that of the largest ``logits + noise``, or an index that the caller gave, which is checked.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import numpy as np

from npselect._call.arguments import computed_in, stream_of, stream_unless_given, whole
from npselect._call.memory import AnyArray, AnyMemory
from npselect._dtypes import Array, DType, Shape
from npselect._operators import CHOICE
from npselect._stream import SampleNumbers, Stream, StreamNumbers
from npselect.tiers import RowFunctions

__all__ = [
    "EMPTY",
    "Conditional",
    "GivenIndex",
    "choose_rows",
    "drawn_by",
    "drawn_given",
    "fit_draws",
    "fit_index",
    "refuse_noise",
]

# As in npselect._arithmetic.steps, which loads numba; here it is not loaded before a tier is chosen.
EMPTY = -1  # nothing is offered: a row of zeros
INVALID = -2  # a row of NaN
REFUSED = -3  # an index that names no candidate


class GivenIndex(NamedTuple):
    """The choice, made elsewhere."""

    values: object


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


class Conditional(NamedTuple):
    """The choice, and noise of so many samples given it: an array, or what follows the choice's numbers in a stream."""

    choice: Stream | GivenIndex
    noise: object
    samples: int | None


def drawn_given(samples: object, seed: object, noise: object, index: object, offset: object, default: int) -> object:
    """The choice by `index` or, without one, by the seed; the noise of the samples by the seed, or as given."""
    count = None if samples is None else whole(samples, "samples")
    if count is not None and count < 1:
        raise ValueError(f"samples is {count}; there must be at least one")
    if (seed is None) == (noise is None):
        given = "neither was" if seed is None else "both were"
        raise TypeError(f"exactly one of seed= and noise= must be given, for the samples given the choice; {given}")
    if noise is not None:
        stream_unless_given(None, offset, "noise=")
        if index is None:
            raise TypeError(
                "noise= is that of the samples given the choice, and does not make it; give the choice too, as index="
            )
        return Conditional(GivenIndex(index), noise, count)
    stream = stream_of(seed, offset)
    return Conditional(stream if index is None else GivenIndex(index), stream, default if count is None else count)


def fit_draws(
    memory: AnyMemory, drawn: Conditional, logits: AnyArray, order: Shape, own: DType
) -> AnyArray | SampleNumbers:
    """The noise of the samples: (samples, rows, K), in the type that noise is added in, or numbers of a stream."""
    if isinstance(drawn.noise, Stream):
        assert drawn.samples is not None
        numbers = StreamNumbers(*drawn.noise, logits.shape, order, computed_in(own))
        return SampleNumbers.behind(numbers, drawn.samples)
    noise = memory.floating(drawn.noise, "noise")
    if noise.shape[1:] != logits.shape or noise.ndim != len(logits.shape) + 1 or len(noise) == 0:
        raise ValueError(
            f"noise has shape {noise.shape} and logits has shape {logits.shape}; noise must have the shape of logits "
            "behind an axis of samples"
        )
    if drawn.samples is not None and len(noise) != drawn.samples:
        raise ValueError(f"samples is {drawn.samples}, and noise has {len(noise)} samples; leave samples out")
    moved = noise.astype(computed_in(own), copy=False).transpose((0, *(axis + 1 for axis in order)))
    rows = math.prod(moved.shape[1:-1])
    return memory.as_rows(moved, computed_in(own)).reshape((len(noise), rows, moved.shape[-1]))


def refuse_noise(draws: Array, logits: Array, where: Array | None, choice: Array, nan_policy: str) -> None:
    """A row whose candidates have noise that is not finite is INVALID; a ValueError, if nothing is to be propagated."""
    spoilt = ~np.isfinite(draws) & (logits.astype(draws.dtype) > -np.inf) & (choice >= 0)[:, None]
    if where is not None:
        spoilt &= where
    rows = np.any(spoilt, axis=(0, -1))
    if nan_policy == "raise" and np.any(rows):
        raise ValueError(f"noise is {draws[spoilt][0]} at a candidate, and nan_policy is 'raise'")
    choice[rows] = INVALID


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


def choose_rows(
    tier: RowFunctions,
    memory: AnyMemory,
    logits: AnyArray,
    noise: AnyArray | StreamNumbers | None,
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
