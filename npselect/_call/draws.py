"""Noise of samples given the choice, of an operator that takes a mean over them: which is asked for, and as rows.

The noise is an array, or the numbers of a seed's stream that follow those of the choice.
"""

from __future__ import annotations

import math

import numpy as np

from npselect._call.arguments import stream_of, stream_unless_given, whole
from npselect._call.choice import GivenIndex, Sample
from npselect._call.memory import AnyArray, AnyMemory
from npselect._dtypes import Array, DType, Shape
from npselect._places import names_on_gpu
from npselect._stream import SampleNumbers, Stream, StreamNumbers

__all__ = ["drawn_given", "fit_draws", "refuse_gpu", "spoil"]

INVALID = -2  # as in npselect._arithmetic.steps: a row of NaN


def refuse_gpu(operator: str, backend: object, **arrays: object) -> None:
    """A RuntimeError, of an operator that the tier "cuda" does not have."""
    on_gpu = names_on_gpu(arrays)
    if on_gpu or backend == "cuda":
        what = f"{on_gpu[0]} lives on a GPU" if on_gpu else "backend is 'cuda'"
        raise RuntimeError(
            f"{what}, and npselect.{operator} runs on the host alone, by the backends 'cpu' and 'reference'"
        )


def drawn_given(
    samples: object, seed: object, sample_noise: object, index: object, offset: object, default: int
) -> Sample:
    """The choice by `index` or, without one, by the seed; the noise of the samples by the seed, or as given."""
    count = None if samples is None else whole(samples, "samples")
    if count is not None and count < 1:
        raise ValueError(f"samples is {count}; there must be at least one")
    if (seed is None) == (sample_noise is None):
        given = "neither was" if seed is None else "both were"
        raise TypeError(
            f"exactly one of seed= and sample_noise= must be given, for the samples given the choice; {given}"
        )
    if sample_noise is not None:
        stream_unless_given(None, offset, "sample_noise=")
        if index is None:
            raise TypeError(
                "sample_noise= is that of the samples given the choice, and does not make it; give the choice too, as "
                "index="
            )
        return Sample(GivenIndex(index), draws=sample_noise, samples=count)
    stream = stream_of(seed, offset)
    choice = stream if index is None else GivenIndex(index)
    return Sample(choice, draws=stream, samples=default if count is None else count)


def fit_draws(
    memory: AnyMemory, sample: Sample, shape: Shape, order: Shape, dtype: DType
) -> AnyArray | SampleNumbers | None:
    """The noise of the samples: (samples, rows, K), in the type that noise has, or numbers of a stream."""
    if sample.draws is None:
        return None
    if isinstance(sample.draws, Stream):
        assert sample.samples is not None
        return SampleNumbers.behind(StreamNumbers(*sample.draws, shape, order, dtype), sample.samples)
    noise = memory.floating(sample.draws, "sample_noise")
    if noise.ndim != len(shape) + 1 or noise.shape[1:] != shape or len(noise) == 0:
        raise ValueError(
            f"sample_noise has shape {noise.shape} and logits has shape {shape}; sample_noise must have that shape "
            "behind an axis of samples, at least one"
        )
    if sample.samples is not None and len(noise) != sample.samples:
        raise ValueError(f"samples is {sample.samples} and sample_noise has {len(noise)}; the two must be equal")
    moved = noise.transpose((0, *(axis + 1 for axis in order)))
    rows = math.prod(moved.shape[1:-1])
    return memory.as_rows(moved, dtype).reshape((len(noise), rows, moved.shape[-1]))


def spoil(choice: Array, draws: Array, logits: Array, where: Array | None, nan_policy: str) -> None:
    """A row whose candidates have noise that is not finite is INVALID; a ValueError, if nothing is to be propagated."""
    spoilt = ~np.isfinite(draws) & (logits.astype(draws.dtype) > -np.inf) & (choice >= 0)[:, None]
    if where is not None:
        spoilt &= where
    if nan_policy == "raise" and np.any(spoilt):
        raise ValueError(f"sample_noise is {draws[spoilt][0]} at a candidate, and nan_policy is 'raise'")
    choice[np.any(spoilt, axis=(0, -1))] = INVALID
