"""Questions far from the middle of the range: logits far from 0, or subnormal; temperatures far from 1.

Everything here is a multiple of a power of two that leaves room for noise of its size (`with_noise_in_proportion`). How
far an honest implementation can go is the dtype's: of logits that are more than ``1 / u`` temperatures from 0, their
quotients by temp have no digit left behind the point.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from npselect.testing.aliases import Array, Dtype
from npselect.testing.case import Case
from npselect.testing.tolerance import Format, ulp

__all__ = ["largest_power", "range_cases", "reachable"]

_DISTANCES = (12.0, 25.0, 60.0, 120.0, 200.0, 400.0, 1e3, 2e3, 12e3, 2e4, 62e3, 1e6, 1e9)


def reachable(dtype: Dtype) -> list[float]:
    """How far from 0 logits are asked for at temperatures around 1."""
    return [distance for distance in _DISTANCES if distance * Format.of(dtype).unit <= 1]


def largest_power(dtype: Dtype) -> int:
    """The exponent of the largest power of two; of float64, in which the judge computes, of one that leaves it room."""
    return 1 - Format.of(dtype).lowest - 4 * (dtype.name == "float64")


def range_cases(dtype: Dtype, temp: float) -> Iterator[Case]:
    """The cases, of which those with the flag "extreme" are at the ends of the range, or all over it."""
    rng = np.random.default_rng(20261129)

    def case(name: str, note: str, w: Array, scale: float = 1.0, temp: float = temp, **more: Any) -> Case:
        g = scale * rng.standard_normal(w.shape).clip(-3, 3)
        return Case(name, note, w.astype(dtype), g.astype(dtype), temp, **more)

    none_of_its_own = "the maximum is one of the row's logits, not a number to begin with, and not one for all rows"
    yield case("edge/200 from 0", none_of_its_own, _at(rng, [200.0] * 4, 10, dtype))
    yield case("edge/far from 0", none_of_its_own, _at(rng, reachable(dtype), 10, dtype), flags=("extreme",))
    places = {"bfloat16": 9, "float64": 11}.get(dtype.name, 10)
    end, unit = 2.0**places, 2.0 ** (largest_power(dtype) + 1 - places)  # the range ends at `end` times the temperature
    far = unit * _at(rng, [end / 64, end / 16, end / 4, end / 2, 0.75 * end, 0.85 * end], 37, dtype)
    at_the_ends = "the maximum is one of the row's logits, however close to the end of the range"
    yield case("edge/far from 0, large temp", at_the_ends, far, unit, unit, flags=("extreme",))

    for power in {"float16": (-12, -7, 7, 12), "float64": (-500, -60, -20, -7, 10, 60, 500)}.get(
        dtype.name, (-60, -20, -7, 10, 60)
    ):
        w = np.round(2 * rng.standard_normal((32, 10)).clip(-4, 4)) / 2
        note = "temp is taken as it is: there is no smallest and no largest one, and nothing is added to it"
        flags = ("extreme",) if abs(power) > 20 else ()
        yield case(f"edge/temp 2**{power}", note, 2.0**power * w, 2.0**power, 2.0**power, flags=flags)

    form = Format.of(dtype)
    eighths = np.array([[0, 5, 2, 0], [0, -3, 6, 7], [-5, -2, -7, -5], [0, 0, -4, 1], [7, 7, 1, 0], [3, -7, -1, 6]])
    small, steps = case("edge/subnormal logits", "small as they are, they are not 0", form.tiny * eighths / 8), 4
    small.grad_mask[...] = np.array([0.5, -1, 0.25, 1.5], dtype)
    yield Case(small.name, small.note, small.logits, small.grad_mask, form.tiny, flags=("extreme",))
    ties = case("edge/near ties of subnormal logits", "the least number is larger than 0",
                steps * form.least * np.array([[0, 1, 0, 0], [-1, -1, 0, -1], [-2, -1, -2, -3]]))  # fmt: skip
    yield Case(ties.name, ties.note, ties.logits, ties.grad_mask, temp, flags=("ties", "extreme"))

    what_is_none = "what is no candidate is excluded, not made small: no number is small enough"
    for name, distances, scale in (
        ("where/far from 0", [reachable(dtype)[-1]] * 4, 1.0),
        ("where/far from 0, large temp", [end / 8, end / 4], unit),
    ):
        w = _at(rng, distances, 10, dtype)
        offered = rng.random(w.shape) < 0.5
        offered[:, 0] = True
        w = scale * np.where(offered, w, np.abs(w))
        yield case(name, what_is_none, w, scale, temp if scale == 1 else scale, where=offered,
                   flags=() if scale == 1 else ("extreme",))  # fmt: skip


def _at(rng: np.random.Generator, distances: list[float], choices: int, dtype: Dtype) -> Array:
    """Four rows at each distance from 0, two on either side, one of them with two largest entries.

    The largest is at the distance; others are one to nine steps of four last places less, of an eighth at least.
    """
    sign = np.tile([[-1.0], [-1.0], [1.0], [1.0]], (len(distances), 1))
    top = np.repeat(distances, 4)[:, None]
    step = np.maximum(4 * ulp(top, dtype), 0.125)
    below = rng.integers(1, 10, (len(top), choices))
    below[:, 0] = 0
    below[1::2, 1] = 0
    return np.asarray(sign * np.round(top / step) * step - rng.permuted(below, axis=-1) * step)
