"""Arguments of the logarithms and the noise, those among them that bring out an error. No expected values."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
from inputs import Array
from mpmath import mp

SQRT_HALF = math.sqrt(0.5)


def near(x: Any, places: int = 3) -> Array:
    """The given numbers and their neighbours, so many on either side."""
    bits = np.asarray(x, np.float64).reshape(-1, 1).view(np.int64) + np.arange(-places, places + 1)
    return np.asarray(bits.view(np.float64).ravel())


def scaled(x: Array, rng: Any, low: int, high: int) -> Array:
    """Times powers of two, a few for each."""
    return np.asarray(np.ldexp(x, rng.integers(low, high, (3, len(x))).astype(np.int32)).ravel())


def arguments(low: int, high: int, count: int) -> Array:
    """From ``2**low`` to ``2**high``; about 1, where a new power of two begins, and both ends of every j."""
    rng = np.random.default_rng(3)
    ends = near(256 / (np.arange(181, 363)[:, None] + np.array([-0.5, 0.5])))
    corners = np.concatenate([near([SQRT_HALF, 2 * SQRT_HALF, 1.0], 20), ends])
    x = np.concatenate([
        corners,
        scaled(corners, rng, low + 1, high),
        1 + np.ldexp(rng.uniform(-1, 1, count), rng.integers(-54, -8, count).astype(np.int32)),
        rng.uniform(0.3, 3, count),
        np.exp2(rng.uniform(low, high, count)),
        np.exp2(np.arange(low + 1, high)),
    ])  # fmt: skip
    return x[(x >= 2.0**low) & (x <= 2.0**high)]


def triples(x0: Array) -> Array:
    """Second words up to half a place, third words up to what is allowed of them; some are 0."""
    rng = np.random.default_rng(4)
    x1 = rng.choice([0.0, 1.0, 1.0], len(x0)) * rng.uniform(-0.5, 0.5, len(x0)) * np.spacing(x0)
    x1 = np.where((x1 < 0) & (np.frexp(x0)[0] == 0.5), x1 / 2, x1)
    return np.array([x0, x1, rng.choice([0.0, 1.0, 1.0], len(x0)) * rng.uniform(-3, 3, len(x0)) * 2.0**-53 * x1])


def doubles(high: Array) -> Array:
    """Numbers with a low word, at most half a place."""
    low = np.random.default_rng(len(high)).uniform(-0.5, 0.5, len(high)) * np.spacing(np.abs(high))
    return np.array([high + low, low - ((high + low) - high)])


def triple_arguments() -> dict[str, tuple[Array, int]]:
    """Triple words, and the bits that their sums and logarithms take."""
    rng = np.random.default_rng(10)
    tiny = np.exp2(rng.uniform(-300, -53, 500)) * rng.choice([-0.5, 1], 500)
    tiny = np.array([np.ones(500), tiny, tiny * rng.uniform(-(2.0**-53), 2.0**-53, 500)])
    u = (2 * rng.integers(0, 2**52, 20_000) + 1) * 2.0**-53
    return {
        "everywhere": (triples(arguments(-1022, 1022, 3000)), 300),
        "of L": (triples(arguments(-53, 5, 8000)), 300),
        "of u": (np.array([u, 0 * u, 0 * u]), 300),
        "about 1": (triples(near(1.0, 1000)), 300),
        "1 and little": (tiny, 1000),
    }


def uniforms(words: Any) -> Array:
    """As the page says: ``((word >> 11) | 1) 2**-53``."""
    return np.array([((int(word) >> 11) | 1) * 2.0**-53 for word in words])


def odd(k: Any) -> Array:
    """The uniforms ``(2 k + 1) 2**-53``, those of them that lie in (0, 1)."""
    k = np.unique(np.clip(np.asarray(k, np.int64).ravel(), 0, 2**52 - 1))
    return np.asarray((2 * k + 1) * 2.0**-53)


def inverse(g: Array) -> Array:
    """The k whose uniform is nearest to ``exp(-exp(-g))``, or nearly; exact to the last places on both sides."""
    below_one = np.rint(-np.expm1(-np.exp(-g)) * 2.0**52 - 0.5).astype(np.int64)
    return np.where(g > 0.3, 2**52 - 1 - below_one, np.rint(np.exp(-np.exp(-g)) * 2.0**52 - 0.5).astype(np.int64))


# Found by search, G being nearly linear in u over some 2**16 neighbours, in 2**43 uniforms: those whose G is within
# 2**-40.2 of a unit in the last place from the middle of two float64. No other test is as hard on the last bits.
HARD = """
    046f9cdb8d9ec1 016c0a8f34ae35 09bd6c563cb45b 101c0617060853 0fa9d668718755 1828416037157f 151e79feebc94b
    02f519290ebb17 05ddd0ae795dc1 1a9cbe64de07ed 12e7069dee1dad 11fb0affb227d5 0aa74823ecd253 0e8a29d1f52673
    0e71c64fec45b1 1bd6680b515cd3 129bc7d4fed3e1 0cd19a52b9c821 07bdd56fa4f9d9 0cb5278eaef165 0fd399887a96c3
    155571ead3bcf9 0bcd4bbe44a401 1db75283f88175 012184d998e6fd 1320491c725da7 0e41a7326c8eef
"""


def hard_uniforms() -> Array:
    return np.array([int(numerator, 16) * 2.0**-53 for numerator in HARD.split()])


def extreme_words() -> list[int]:
    """The first and the last, powers of two, and their neighbours."""
    powers = [0, *(1 << i for i in range(65))]
    return sorted({w for p in powers for step in (0, 1, 2048, 4096) for w in (p - step, p + step) if 0 <= w < 2**64})


def zero_of_g() -> int:
    """The k of the last uniform below 1/e."""
    with mp.workprec(100):
        return int(mpmath.floor((mpmath.exp(-1) * 2**53 - 1) / 2))


def gumbel_arguments() -> dict[str, Array]:
    rng = np.random.default_rng(12)
    return {
        "extreme": uniforms(extreme_words()),
        "about 0": odd(zero_of_g() + np.arange(-3000, 3001)),
        "u about 0": odd(np.arange(3000)),
        "u about 1": odd(2**52 - 1 - np.arange(3000)),
        "L about 1": odd(inverse(np.ldexp(rng.uniform(-1, 1, 5000), rng.integers(-45, 0, 5000).astype(np.int32)))),
        "binades": odd(inverse(np.array([-2.0, -1, -0.5, 0.5, 1, 2, 4, 8, 16, 32]))[:, None] + np.arange(-200, 201)),
        "hard": hard_uniforms(),
        "random": uniforms(rng.integers(0, 2**64, 100_000, np.uint64)),
    }
