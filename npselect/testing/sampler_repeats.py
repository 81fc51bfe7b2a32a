"""Noise that is used again, found where only selections are seen: stretches of rows that select alike.

A row tells ``log2 K`` bits, so rows select alike by chance; a stretch of rows does so the more rarely the longer it is.
All the rows here have K equal logits. Let ``d_i`` be the index that row i + 1 selects, less that of row i, modulo K. Of
an honest sampler the indices are independent and uniform, hence the ``d_i`` are. Two stretches of n of them match where

- ``d_(i+t) = d_(j+t)`` for t = 0 to n - 1: the noise of the rows from i on is used again from j on, or is used again
  some entries later, which moves what is selected by as many candidates. For any i < j, whether the stretches overlap
  or not, each equation fixes ``d_(j+t)`` by the ones before it: all hold with probability ``K**-n``, exactly.
- ``d_(i+t) = -d_(j-t)``: it is used again, the rows backwards; or ``d_(i+t) = d_(j-t)``: all entries backwards.
  A stretch may lie across itself so, and then an equation is met twice, or holds by itself in the middle: at least
  ``n // 2`` of them fix a number each, and all hold with probability ``K**-(n // 2)`` at most.

With N places to start from there are fewer than ``N**2 / 2`` pairs i < j, and ``2 N**2`` of i and j with the two ways
backwards. So an honest sampler has a match of n forwards, or of 2 n backwards, with probability ``3 N**2 K**-n`` at
most: that is the p-value of a match. A match may be picked by any rule; the longest one has the smallest p-value.

All places are compared at once, by a hash of the stretch that begins there; what has one hash is compared again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from npselect.testing.aliases import Array
from npselect.testing.sampler_report import SamplerTest

__all__ = ["repeated_rows", "rows_that_tell"]

_BITS = 72  # of a stretch: among 2**20 places, one in 2**30 checks has two alike by chance
_BACKWARDS = ((-1, "backwards"), (1, "backwards, with the candidates backwards"))  # the sign of d, and what it means
_MIX = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9], np.uint64)  # odd: they have inverses modulo 2**64


def rows_that_tell(bits: float, choices: int) -> int:
    """How many rows tell so many bits."""
    return math.ceil(bits / math.log2(choices))


def repeated_rows(choices: int, samples: Sequence[tuple[int, Array]], length: int | None = None) -> SamplerTest:
    """Whether a stretch of rows selects like another one, of the same call or of any other.

    `samples` holds the seed of each call and what it selects where all logits are equal; no two of the seeds may be
    equal. Matches of less than `length` are not looked for.
    """
    length = rows_that_tell(_BITS, choices) if length is None else length
    index = np.concatenate([selected for _, selected in samples]).astype(np.int64)
    starts = np.cumsum([0, *(len(selected) for _, selected in samples)])
    steps = np.diff(index) % choices
    steps[starts[1:-1] - 1] = -np.arange(1, len(samples))  # between two calls: unlike anything else
    places = max(0, len(steps) - length + 1)

    matches = [_forwards(steps, length)]
    for sign, how in _BACKWARDS:
        other = np.where(steps < 0, steps - len(samples), sign * steps % choices)
        matches.append(_backwards(steps, other, length, how))
    fixed, alike, first, second, how = max(matches, key=lambda match: match.fixed)
    log_p = math.log(3 * places**2) - fixed * math.log(choices) if fixed else 0.0

    def stretch(start: int) -> str:
        call = int(np.searchsorted(starts, start, side="right")) - 1
        row = start - starts[call]
        return f"rows {row} to {row + alike} of seed {samples[call][0]}"

    finding = f"where all logits are equal, {stretch(second)} select like {stretch(first)}"
    if how:
        finding += f", {how}"
    return SamplerTest("repeated rows", choices, "", 3 * places**2, math.exp(min(0.0, log_p)), finding)


class _Match(NamedTuple):
    fixed: int  # numbers that the others fix
    alike: int  # steps
    first: int  # where the stretches start
    second: int
    how: str


_NONE = _Match(0, 0, 0, 0, "")


def _forwards(steps: Array, length: int) -> _Match:
    code = _hashes(steps, length)
    place = np.flatnonzero(np.isin(code, _twice(code)))
    if not len(place):
        return _NONE
    place = place[np.argsort(code[place], kind="stable")]
    same = code[place[1:]] == code[place[:-1]]
    first, second = place[:-1][same], place[1:][same]
    i, j = _most_frequent(first, second, second - first)
    before = _alike(steps[:i][::-1], steps[:j][::-1])
    alike = before + _alike(steps[i:], steps[j:])
    return _Match(alike, alike, i - before, j - before, "")


def _backwards(steps: Array, other: Array, length: int, how: str) -> _Match:
    code, reverse = _hashes(steps, length), _hashes(other[::-1], length)
    both = _twice(np.concatenate([_distinct(code), _distinct(reverse)]))
    first, place = np.flatnonzero(np.isin(code, both)), np.flatnonzero(np.isin(reverse, both))
    if not len(first):
        return _NONE
    place = place[np.argsort(reverse[place])]
    second = len(steps) - 1 - place[np.searchsorted(reverse[place], code[first])]
    i, j = _most_frequent(first, second, first + second)
    before = _alike(steps[:i][::-1], other[j + 1 :])
    alike = before + _alike(steps[i:], other[j::-1])
    return _Match(alike // 2, alike, i - before, j + before - alike + 1, how)


def _distinct(values: Array) -> Array:
    """Each value once, in order; to sort values alone is quick."""
    ordered = np.sort(values)
    return np.asarray(ordered[np.diff(ordered, prepend=ordered[:1] - np.uint64(1)) != 0])


def _twice(values: Array) -> Array:
    """Those that occur more than once, each once."""
    ordered = np.sort(values)
    return _distinct(ordered[1:][ordered[1:] == ordered[:-1]])


def _most_frequent(i: Array, j: Array, relation: Array) -> tuple[int, int]:
    """The first pair of those that are most often so related."""
    _, first, count = np.unique(relation, return_index=True, return_counts=True)
    at = first[np.argmax(count)]
    return int(i[at]), int(j[at])


def _alike(a: Array, b: Array) -> int:
    """How many elements agree before the first that does not."""
    n = min(len(a), len(b))
    differ = a[:n] != b[:n]
    return int(np.argmax(differ)) if np.any(differ) else n


def _hashes(steps: Array, length: int) -> Array:
    """A hash modulo 2**64 of each `length` neighbours: ``sum_t mixed(steps[i + t]) m**t``, by sums from the start."""
    if len(steps) < length:
        return np.empty(0, np.uint64)
    mixed = steps.astype(np.uint64) * _MIX[0]
    mixed = (mixed ^ (mixed >> np.uint64(32))) * _MIX[1]
    mixed ^= mixed >> np.uint64(29)
    power = np.cumprod(np.full(len(steps), _MIX[0]))
    inverse = np.cumprod(np.full(len(steps) - length + 1, np.uint64(pow(int(_MIX[0]), -1, 2**64))))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed * power)])
    return np.asarray((sums[length:] - sums[:-length]) * inverse)
