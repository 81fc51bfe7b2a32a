"""Which numbers of a seed's stream an array of logits takes: entry after entry in C order, whatever its rows are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from npselect._dtypes import Array, DType, Shape

__all__ = ["Block", "SampleNumbers", "ScaledNoise", "Stream", "StreamNumbers", "unscaled"]


class Stream(NamedTuple):
    """The numbers of a seed's stream from `offset` on."""

    seed: int
    offset: int

    def check_size(self, size: int) -> None:
        """Raise if so many numbers are more than the stream has left."""
        if self.offset + size > 2**64:
            numbers = f"offset is {self.offset} and {size} numbers are to be drawn"
            raise ValueError(f"{numbers}; their sum must not exceed 2**64, where the stream ends")


class Block(NamedTuple):
    """A block of a larger array, whose entries have numbers in C order."""

    shape: Shape
    whole: Shape
    start: Shape

    def runs(self) -> tuple[Array, int]:
        """Where each run of consecutive entries begins in the whole, in C order; and how long all of them are."""
        axis = len(self.shape)
        while axis > 0 and self.shape[axis - 1] == self.whole[axis - 1]:
            axis -= 1
        axis = max(axis - 1, 0)  # along which a part of the whole is one run, with all that is behind
        strides = [math.prod(self.whole[i + 1 :]) for i in range(len(self.whole))]
        first = sum(begin * stride for begin, stride in zip(self.start, strides, strict=True))
        firsts = np.full((1,) * axis, first)
        for i in range(axis):
            shape = [1] * axis
            shape[i] = -1
            firsts = firsts + np.arange(self.shape[i]).reshape(shape) * strides[i]
        return firsts.reshape(-1), math.prod(self.shape[axis:])


class StreamNumbers(NamedTuple):
    """Noise of logits as rows x choices, yet to be drawn: an entry takes number offset + its position as given."""

    seed: int
    offset: int
    shape: Shape  # of the logits as given
    order: Shape  # of their axes: those of the rows, then that of the choices
    dtype: DType  # of the noise

    @classmethod
    def of(cls, stream: Stream, shape: Shape, order: Shape, dtype: DType) -> StreamNumbers:
        """From a stream, which must be long enough."""
        stream.check_size(math.prod(shape))
        return cls(*stream, shape, order, dtype)

    @property
    def in_order(self) -> bool:
        """Whether the numbers follow one another in the order of the rows, and in a row in that of the choices."""
        return self.order == tuple(range(len(self.order)))

    def numbers(self, start: int, stop: int) -> Array:
        """The numbers of the rows from `start` to `stop`: uint64, shape (stop - start, K)."""
        lengths = [self.shape[axis] for axis in self.order]
        strides = [math.prod(self.shape[axis + 1 :]) for axis in self.order]
        rows = np.arange(start, stop)
        position = np.arange(lengths[-1]) * strides[-1] + np.zeros((stop - start, 1), np.int64)
        for length, stride in zip(lengths[-2::-1], strides[-2::-1], strict=True):
            position += (rows % length * stride)[:, None]
            rows = rows // length
        return np.uint64(self.offset) + position.astype(np.uint64)


class ScaledNoise(NamedTuple):
    """Noise that is multiplied by a number before it is added: an array's, or a stream's."""

    noise: Any
    scale: float


def unscaled(noise: Any) -> tuple[Any, float]:
    """Noise as it is, and what it is multiplied by."""
    return (noise.noise, noise.scale) if isinstance(noise, ScaledNoise) else (noise, 1.0)


@dataclass(frozen=True)
class SampleNumbers:
    """Noise of several samples, yet to be drawn: each takes the numbers that follow those of the one before."""

    first: StreamNumbers
    samples: int

    @classmethod
    def behind(cls, chosen: StreamNumbers, samples: int) -> SampleNumbers:
        """Those that follow the numbers that the choice takes; the stream must be long enough."""
        size = math.prod(chosen.shape)
        Stream(chosen.seed, chosen.offset).check_size(size * (samples + 1))
        return cls(chosen._replace(offset=chosen.offset + size), samples)

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, sample: int) -> StreamNumbers:
        if not 0 <= sample < self.samples:
            raise IndexError(sample)
        return self.first._replace(offset=self.first.offset + sample * math.prod(self.first.shape))
