"""Noise in the reference: given, or numbers of a seed's stream that are drawn here."""

from __future__ import annotations

from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np

from npselect._oracle.philox import words
from npselect._oracle.rounding import evaluate
from npselect._oracle.rows import Array
from npselect._oracle.weights import Number

__all__ = ["Draws", "Noise", "ScaledNoise", "StreamNumbers", "drawn_numbers", "gumbel", "perturbed"]


class StreamNumbers(Protocol):
    """Noise that is yet to be drawn: which numbers of which seed's stream it is."""

    @property
    def seed(self) -> int:
        """Of the stream."""

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """Of the noise."""

    def numbers(self, start: int, stop: int) -> Array:
        """Those of some rows."""


@runtime_checkable
class ScaledNoise(Protocol):
    """Noise that is multiplied by a number, and rounded, before it is added."""

    @property
    def noise(self) -> Array | StreamNumbers:
        """Without the factor."""

    @property
    def scale(self) -> float:
        """The factor."""


Noise: TypeAlias = Array | StreamNumbers | ScaledNoise | None


class Draws(Protocol):
    """Noise of several samples: an array, or numbers of a stream that follow one another."""

    def __len__(self) -> int: ...

    def __getitem__(self, sample: int, /) -> Array | StreamNumbers: ...


def gumbel(seed: int, first: int, out: Array) -> None:
    """The noise ``G_n = -log(-log u_n)`` of the numbers n from `first` on, the nearest float64, rounded once more.

    The uniforms are those of the counter-based generator Philox4x32-10 (Salmon, Moraes, Dror and Shaw 2011): the key is
    the seed, low word first, the counter ``n // 2`` in two words, followed by two zeros. Of the four words that come
    out, an even n has the first two, an odd n the others, low word first; they make a `word` of 64 bits, and::

        u = ((word >> 11) | 1) 2**-53        G = -log(-log u)
    """
    out[...] = _gumbel(words(seed, np.uint64(first) + np.arange(len(out), dtype=np.uint64)))


def _gumbel(bits: Array) -> Array:
    """G of each 64 bits, in float64."""

    def formula(number: type[Number], u: Array) -> list[Number]:
        return [-(-number.of(u).log()).log()]

    u = ((bits.reshape(-1, 1) >> 11) | 1).astype(np.float64) * 2.0**-53
    (g,) = evaluate(formula, [u], np.float64, np.ones(u.shape, np.bool_))
    return np.asarray(g.reshape(bits.shape))


def perturbed(logits: Array, noise: Noise) -> Array:
    """``w = logits + noise``, in the type of the noise: none, an array, or the numbers of a stream yet to be drawn."""
    if noise is None:
        return logits
    scale = 1.0
    if not isinstance(noise, np.ndarray) and isinstance(noise, ScaledNoise):
        scale, noise = noise.scale, noise.noise
    added = drawn_numbers(noise, len(logits))
    return np.asarray(logits.astype(added.dtype) + added.dtype.type(scale) * added)


def drawn_numbers(noise: Array | StreamNumbers, rows: int) -> Array:
    """An array, or the numbers of a stream."""
    if isinstance(noise, np.ndarray):
        return noise
    return _gumbel(words(noise.seed, noise.numbers(0, rows))).astype(noise.dtype)
