"""Whether rows and seeds of a sampler are independent, and positions of no matter: by fifths of the distribution.

Why the p-values hold is in `npselect.testing.sampler_statistics`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from npselect.testing.aliases import Array
from npselect.testing.sampler_report import SamplerTest
from npselect.testing.sampler_statistics import Question, binomial

__all__ = ["fifths_of", "neighbouring_rows", "neighbouring_seeds", "pairs_of", "position"]

_PARTS = 5  # a prime: see there
_TILE = 512  # frequencies that are multiplied at once: they fit the cache


def fifths_of(question: Question, index: Array, order: str, rng: np.random.Generator) -> Array:
    """Which part, 0 to 4, of its distribution each sample falls in; of an honest sampler independent and uniform."""
    p, row = question.probs, question.vector
    along = np.argsort(-p if order == "probability" else np.zeros_like(p), kind="stable", axis=-1)
    below = np.empty_like(p)
    np.put_along_axis(below, along, np.cumsum(np.take_along_axis(p, along, -1), -1), -1)
    v = below[row, index] - rng.random(index.shape) * p[row, index]
    return np.asarray(np.clip(_PARTS * v, 0, _PARTS - 1).astype(np.uint8))


def pairs_of(fifths: Array) -> tuple[Array, Array]:
    """How often each pair of fifths occurs, shapes (25, 2 rows - 1), at the lags 1 - rows to rows - 1.

    First of row i of a seed and row i + lag of the same, then of row i of a seed and row i + lag of the next.
    """
    from scipy import fft  # type: ignore[import-untyped]

    rows = fifths.shape[-1]
    n = fft.next_fast_len(2 * rows - 1, real=True)  # no pair is counted at two lags
    each = np.arange(_PARTS)[:, None]
    spectrum = np.empty((len(fifths), _PARTS, n // 2 + 1), np.complex128)
    for part, transformed in zip(fifths, spectrum, strict=True):
        transformed[:] = fft.rfft((part == each).astype(np.float64), n)
    same = np.empty((_PARTS**2, spectrum.shape[-1]), np.complex128)
    following = np.empty_like(same)
    for start in range(0, spectrum.shape[-1], _TILE):
        tile = np.s_[..., start : start + _TILE]
        b = np.ascontiguousarray(spectrum[tile].transpose(2, 0, 1))
        a = b.conj().transpose(0, 2, 1)
        same[tile] = (a @ b).reshape(-1, _PARTS**2).T
        following[tile] = (a[..., :-1] @ b[:, 1:]).reshape(-1, _PARTS**2).T

    def counts(product: Array) -> Array:
        count = fft.irfft(product, n)
        count = np.concatenate([count[:, n - rows + 1 :], count[:, :rows]], axis=-1)
        return np.asarray(np.rint(count, out=count))

    return counts(same), counts(following)


def neighbouring_rows(choices: int, tables: dict[str, Array]) -> SamplerTest:
    """Row i and row i + lag of the same seed, for every lag."""
    after = {order: table[:, table.shape[-1] // 2 + 1 :] for order, table in tables.items()}
    lags = np.arange(1, 1 + after["index"].shape[-1])
    return _independent("neighbouring rows", choices, after, lags, lambda lag: f"rows i and i + {lag}")


def neighbouring_seeds(choices: int, tables: dict[str, Array]) -> SamplerTest:
    """Row i of a seed and row i + lag of the next, for every lag."""
    rows = (1 + tables["index"].shape[-1]) // 2

    def which(lag: int) -> str:
        return f"row i of a seed, row i{lag:+d} of the next".replace("i+0", "i")

    return _independent("neighbouring seeds", choices, tables, np.arange(1 - rows, rows), which)


def _independent(
    name: str, choices: int, tables: dict[str, Array], lags: Array, which: Callable[[int], str]
) -> SamplerTest:
    m, c, a, b = np.ogrid[1:_PARTS, :_PARTS, :_PARTS, :_PARTS]
    lines = ((b + m * a) % _PARTS == c).reshape(-1, _PARTS**2).astype(np.float64)
    table = np.stack(list(tables.values()))
    count = (lines @ table).reshape(len(tables), _PARTS - 1, _PARTS, len(lags))
    n = np.broadcast_to(np.sum(table, axis=1)[:, None, None], count.shape)
    distance = 1.0 + np.abs(lags)
    inverse_share = (count.size / len(lags)) * np.sum(1 / distance) * distance

    def where(at: tuple[int, ...]) -> str:
        order, lag = list(tables)[at[0]], int(lags[at[3]])
        factor = {1: "b + a", _PARTS - 1: "b - a"}.get(at[1] + 1, f"b + {at[1] + 1} a")
        of = f"{which(lag)}, candidates by {order}"
        return f"{of}, not independent: of their fifths a and b, {factor} is {at[2]} (mod {_PARTS})"

    return binomial(name, choices, count, n, np.broadcast_to(1 / _PARTS, count.shape), where, False, inverse_share)


def position(choices: int, fifths: dict[str, Array]) -> SamplerTest:
    """Each fifth in stretches of rows, 1, 2, 4, ... from either end."""
    seeds, rows = fifths["index"].shape
    ends = [2**i - 1 for i in range(63) if 2**i - 1 < rows // 2]
    edges = np.array([*ends, rows // 2, *(rows - end for end in reversed(ends))])
    per_row = np.array([[np.sum(part == f, axis=0) for f in range(_PARTS)] for part in fifths.values()])
    count = np.add.reduceat(per_row, edges[:-1], axis=-1)
    n = np.broadcast_to(seeds * np.diff(edges), count.shape)

    def where(at: tuple[int, ...]) -> str:
        order, first, last = list(fifths)[at[0]], edges[at[2]], edges[at[2] + 1] - 1
        return f"rows {first} to {last}: fifth {at[1]} of the distribution, candidates by {order}, is selected"

    return binomial("position", choices, count, n, np.full(count.shape, 1 / _PARTS), where)
