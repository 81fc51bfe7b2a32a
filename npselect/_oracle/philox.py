"""The reference's random bits: Philox, a generator that keeps no state.

J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. Nothing
here is shared with the kernels.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["philox", "words"]

Array = npt.NDArray[np.uint64]
Words: TypeAlias = tuple[Any, ...]  # arrays of uint64, or integers


def philox(counter: Words, key: Words, multipliers: Words, increments: Words, bits: int) -> Words:
    """Philox4 with ten rounds, over words of so many bits: uint64 arrays that hold 32, or Python's integers."""
    word = (1 << bits) - 1
    x0, x1, x2, x3 = counter
    for i in range(10):
        key0, key1 = ((k + i * increment) & word for k, increment in zip(key, increments, strict=True))
        a, b = multipliers[0] * x0, multipliers[1] * x2
        x0, x1, x2, x3 = (b >> bits) ^ x1 ^ key0, b & word, (a >> bits) ^ x3 ^ key1, a & word
    return x0, x1, x2, x3


def words(seed: int, numbers: Array) -> Array:
    """The words of 64 bits of some numbers of a seed's stream, both in uint64."""
    block, odd, zero = numbers // 2, numbers % 2 == 1, np.zeros_like(numbers)
    counter, key = (block & 0xFFFFFFFF, block >> 32, zero, zero), (seed & 0xFFFFFFFF, seed >> 32)
    made = philox(counter, key, (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85), 32)
    x0, x1, x2, x3 = map(np.asarray, made)
    high, low = np.where(odd, x3, x1), np.where(odd, x2, x0)
    return np.asarray(high << 32 | low)
