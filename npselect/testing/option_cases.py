"""Questions with ``axis=`` and ``where=``."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from npselect.testing.aliases import Array, Dtype
from npselect.testing.case import Case

__all__ = ["option_cases"]

_NAN = np.nan


def option_cases(dtype: Dtype, temp: float) -> Iterator[Case]:
    """The cases, each with one of the two options or both."""
    rng = np.random.default_rng(171717)

    def case(name: str, note: str, shape: tuple[int, ...], axis: int = -1, where: Array | None = None) -> Case:
        logits, grad_mask = (scale * rng.standard_normal(shape) for scale in (3.0, 1.0))
        return Case(name, note, logits.astype(dtype), grad_mask.astype(dtype), temp, axis, where)

    yield case("axis/0 of 2", "the candidates along the first axis", (7, 33), 0)
    yield case("axis/1 of 3", "the candidates along a middle axis", (4, 9, 5), 1)
    yield case("axis/-2 of 3", "a negative axis counts from the end", (5, 6, 4), -2)
    offered = rng.random((64, 10)) < 0.6
    offered[:, 3] |= ~np.any(offered, axis=-1)
    yield case(
        "where/random", "what is no candidate is never selected, and its gradient is exactly 0", (64, 10), -1, offered
    )
    yield case("where/all", "where= that excludes nothing changes nothing", (16, 10), -1, np.ones((16, 10), np.bool_))
    yield case("where/one candidate", "the mask is 1 there, the gradient 0", (10, 10), -1, np.eye(10, dtype=np.bool_))
    shared = np.arange(12) % 3 > 0
    yield case("where/shared", "where= broadcasts to the logits", (20, 12), -1, shared)
    along = rng.random((3, 8, 5)) < 0.7
    along[:, 2] = True
    yield case("where/axis=1", "where= and axis= together", (3, 8, 5), 1, along)
    some = np.ones((6, 4), np.bool_)
    some[[1, 4]] = False
    yield case("where/nothing offered", "zeros in rows without a candidate", (6, 4), -1, some)
    odd = case("where/NaN excluded", "what logits and grad_mask hold there is ignored", (8, 6), -1, np.arange(6) != 2)
    odd.logits[:, 2], odd.grad_mask[:, 2] = _NAN, _NAN
    yield odd
    yield case("axis/0 of 1", "one axis, and nothing beside it", (9,), 0)
    yield case("axis/0 of 3", "the candidates along the first of three axes, and back", (6, 4, 5), 0)
    yield case("axis/2 of 3", "the candidates along the last of three axes", (4, 5, 6), 2)
