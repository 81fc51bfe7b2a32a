"""The choice, made once: for operators whose backward pass asks which candidate was drawn.

It is that of the largest ``logits + noise``, or an index that the caller gave, which is checked.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import numpy as np

from npselect._call.arguments import stream_unless_given
from npselect._call.memory import AnyArray, AnyMemory
from npselect._dtypes import Shape
from npselect._operators import CHOICE
from npselect._stream import StreamNumbers
from npselect.tiers import RowFunctions

__all__ = ["EMPTY", "GivenIndex", "choose_rows", "drawn_by", "fit_index"]

# As in npselect._arithmetic.steps, which loads numba; here it is not loaded before a tier is chosen.
EMPTY = -1  # nothing is offered: a row of zeros
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
