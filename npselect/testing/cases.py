"""The questions that an implementation is asked: real logits, seeded random ones, and the edges.

A case is one call of ``forward(logits, temp)`` and one of ``backward(grad_mask, logits, temp)``. Nothing here knows the
answers; those come from the oracle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from npselect.testing.tolerance import Format

__all__ = ["Case", "cases"]

Array = npt.NDArray[Any]
_INF, _NAN = np.inf, np.nan


@dataclass(frozen=True, eq=False)
class Case:
    """One question, the same for every implementation.

    Attributes
    ----------
    name : str
        Its group and what sets it apart, as in ``"random/K=100"``.
    note : str
        What it asks for, or which mistake it finds.
    logits, grad_mask : ndarray, shape (rows, K)
        In the dtype under test.
    temp : float
        A number of that dtype.
    """

    name: str
    note: str
    logits: Array
    grad_mask: Array
    temp: float

    @property
    def group(self) -> str:
        """``"digits"``, ``"random"`` or ``"edge"``."""
        return self.name.partition("/")[0]

    def __str__(self) -> str:
        return self.name


def cases(dtype: npt.DTypeLike = "float32", temp: float = 0.6) -> list[Case]:
    """All the cases, in one of the four floating dtypes.

    Parameters
    ----------
    dtype : dtype
        float16, bfloat16, float32 or float64.
    temp : float
        Of the cases that do not ask for a temperature of their own. It is rounded to `dtype`.

    Returns
    -------
    list of Case
        The same at every call, bit for bit.

    Examples
    --------
    >>> from npselect import testing
    >>> [case.name for case in testing.cases() if case.group == "digits"]
    ['digits/1797x10']
    """
    dtype = np.dtype(dtype)
    temp = rounded(temp, dtype)
    return [*_digits(dtype, temp), *_random(dtype, temp), *_edges(dtype, temp)]


def rounded(temp: float, dtype: np.dtype[Any]) -> float:
    """The number of `dtype` that `temp` means there, so that nobody computes with another one."""
    with np.errstate(over="ignore"):
        return float(np.asarray(temp, np.float64).astype(dtype))


def _digits(dtype: np.dtype[Any], temp: float) -> Iterator[Case]:
    with (files("npselect.testing") / "data" / "digits_logits.npz").open("rb") as file, np.load(file) as stored:
        logits = stored["logits"].astype(dtype)
    grad_mask = np.random.default_rng(0).standard_normal(logits.shape).astype(dtype)
    yield Case("digits/1797x10", "held-out logits of handwritten digits", logits, grad_mask, temp)


def _random(dtype: np.dtype[Any], temp: float) -> Iterator[Case]:
    rng = np.random.default_rng(20131308)

    def case(
        name: str, note: str, rows: int, choices: int, spread: float = 3.0, offset: float = 0.0, temp: float = temp
    ) -> Case:
        logits = offset + spread * rng.standard_normal((rows, choices))
        grad_mask = rng.standard_normal((rows, choices))
        return Case(f"random/{name}", note, logits.astype(dtype), grad_mask.astype(dtype), temp)

    yield case("K=1", "nothing to choose from", 64, 1)
    yield case("K=2", "the logistic function", 256, 2)
    yield case("K=3", "few choices", 256, 3)
    yield case("K=7", "an odd number of choices", 128, 7)
    yield case("K=10", "as many choices as digits", 512, 10, spread=5.0)
    yield case("K=64", "as many rows as choices", 64, 64)
    yield case("K=100", "widely spread logits", 64, 100, spread=10.0)
    yield case("K=1000", "long rows", 16, 1000)
    yield case("K=1024", "long rows of close logits", 16, 1024, spread=0.5)
    yield case("K=4096", "long rows: sums need their digits, small gradients are gradients", 8, 4096)
    yield case("K=4096, nearly equal", "a sum that stagnates in 16 bits", 8, 4096, spread=0.01)
    yield case("saturated", "one candidate has nearly all of the probability", 64, 10, spread=40.0)
    yield case("offset", "logits far from 0", 64, 10, offset=64.0)
    yield case("temp doubled", "another temperature than the one given", 64, 10, temp=rounded(2 * temp, dtype))
    yield case("temp quartered", "another temperature than the one given", 64, 10, temp=rounded(temp / 4, dtype))

    close = case("constant cotangent", "the gradient is what the differences of grad_mask leave", 64, 10)
    noise = 16 * Format.of(dtype).unit * close.grad_mask.astype(np.float64)
    yield Case(close.name, close.note, close.logits, (1 + noise).astype(dtype), close.temp)

    unit = case("unit cotangents", "the Jacobian, row after row", 7, 7)
    logits = np.repeat(unit.logits[:1], 7, axis=0)
    yield Case(unit.name, unit.note, logits, np.eye(7).astype(dtype), unit.temp)


def _edges(dtype: np.dtype[Any], temp: float) -> Iterator[Case]:
    form = Format.of(dtype)
    one_up = 1 + 2 * form.unit
    big, small = {"float16": (3e4, 1e-4), "float64": (1e300, 1e-300)}.get(dtype.name, (1e30, 1e-30))

    def case(name: str, note: str, logits: Any, grad_mask: Any = (1.0, -2.0, 0.5, 3.0), temp: float = temp) -> Case:
        w = np.atleast_2d(np.asarray(logits, np.float64)).astype(dtype)
        g = np.broadcast_to(np.asarray(grad_mask, np.float64), w.shape).astype(dtype)
        return Case(f"edge/{name}", note, w, g, temp)

    four = [[0.5, 2.0, -1.0, 1.5]]
    ties = [[1, 3, 3, 0], [2, 2, 2, 2], [-5, -6, -5, -5], [-0.0, 0.0, -1, -1], [0.0, -0.0, -1, -1], [-1, -1, -0.0, 0.0]]
    yield case("ties", "the lowest index among equals; -0 equals +0", ties)
    yield case("near ties", "neighbouring numbers", [[1, one_up, 0, 1], [one_up, 1, 1, 0], [0, 1, 1, one_up]])
    rounded_away = [[1, one_up, 1, 0], [0, 1, 1, one_up]]
    yield case(
        "near ties, large temp",
        "the argmax of logits, not of rounded probs",
        rounded_away,
        temp=rounded(16 * temp, dtype),
    )
    yield case("K=1", "the mask is 1, the gradient 0", [[3.0], [-2.0], [0.0]], 5.0)
    yield case("no rows", "an empty result", np.zeros((0, 4)))
    excluded = [[1, -_INF, 2, -_INF], [-_INF, -_INF, 0, -_INF], [-_INF, 3, 3, 1]]
    yield case("-inf", "never selected; the gradient there is exactly 0", excluded)
    yield case("zero cotangent", "the gradient is 0", four, 0.0)
    yield case("large logits", "the maximum is subtracted before exp is taken", [[big, 0, -big, big], [-big, 0, 1, -1]])
    yield case("large temp", "nearly equal probabilities", four, temp=rounded(big, dtype))
    yield case("large logits, small temp", "the maximum is subtracted before anything is divided",
               [[big, 0, -big, big], [-big, -big, -big, -big]], temp=rounded(small, dtype))  # fmt: skip
    yield case(
        "-inf, cotangent NaN there", "what grad_mask holds there is ignored", [[1, -_INF, 2, 0]], (1, _NAN, 2, 3)
    )
    yield case("all -inf", "NaN rows", [[-_INF] * 4])
    yield case("NaN", "a NaN row", [[1, _NAN, 2, 0], [_NAN] * 4, [_NAN, -_INF, 2, 0]])
    yield case("+inf", "a NaN row", [[1, _INF, 2, 0], [_INF, _INF, 2, -_INF]])
    yield case("NaN beside", "every row is independent of its neighbours",
               [[1, 3, 2, 0], [1, _NAN, 2, 0], [0, 1, 2, 3], [-_INF] * 4, [3, 0, 2, 1]])  # fmt: skip
    broken = [[1, _NAN, 0, 2], [_INF, 1, 0, 2], [1, 2, -_INF, 2], [1, 2, 3, 4]]
    yield case("cotangent not finite", "its row is not finite, other rows are untouched", four * 4, broken)
    yield case("K=0", "ValueError", np.zeros((2, 0)), 0.0)
    for bad in (0.0, -1.0, _NAN, _INF):
        yield case(f"temp={bad}", "ValueError", four, temp=bad)
