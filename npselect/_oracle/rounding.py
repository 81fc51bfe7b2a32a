"""Rounding once: what a formula yields in numbers of 106 bits and, where those leave a doubt, in ever more digits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from npselect._oracle.numbers import Digits, Wide

__all__ = ["evaluate", "evaluate_sums"]

Array = npt.NDArray[Any]
Formula: TypeAlias = Callable[..., Any]  # a kind of numbers and arrays -> a list of such numbers
Arrays: TypeAlias = list[Any]  # of rows, which can be sliced: arrays and `Rows`


def evaluate(formula: Formula, arrays: Arrays, dtype: npt.DTypeLike, counts: Array) -> list[Array]:
    """The formula's results, nearest numbers of `dtype` as float64, each of the shape of `counts`, (rows, K).

    The formula takes a kind of numbers and some rows of the arrays; entries that do not count may come out as anything.
    """
    blocks = []
    for block in _blocks(*counts.shape):
        parts = [array[block] for array in arrays]
        with np.errstate(all="ignore"):
            results, certain = zip(*(value.rounded(dtype) for value in formula(Wide, *parts)), strict=True)
        doubtful = np.any(~np.all(certain, axis=0) & counts[block], axis=-1)
        for r in np.flatnonzero(doubtful):
            exact = _with_enough_digits(formula, [part[r : r + 1] for part in parts], dtype)
            for result, row in zip(results, exact, strict=True):
                result[r] = row
        blocks.append(results)
    return [np.concatenate(results) for results in zip(*blocks, strict=True)]


def evaluate_sums(formula: Formula, arrays: Arrays, dtype: npt.DTypeLike, shape: tuple[int, ...], share: int) -> Array:
    """The single result of a formula, one a row, summed over each `share` neighbouring rows: shape (rows // share,)."""

    def total(number: type[Digits], *group: object) -> list[Digits]:
        (one_a_row,) = formula(number, *group)
        return [number(one_a_row.values.T).sum()]

    with np.errstate(all="ignore"):
        blocks = [formula(Wide, *(array[block] for array in arrays))[0] for block in _blocks(*shape)]
        one_a_row = Wide(*(np.concatenate(parts).reshape(-1, share) for parts in zip(*blocks, strict=True)))
        sums, certain = one_a_row.sum().rounded(dtype)
    for i in np.flatnonzero(~certain):
        group = [array[i * share : (i + 1) * share] for array in arrays]
        (sums[i],) = _with_enough_digits(total, group, dtype)
    return sums[:, 0]


def _with_enough_digits(formula: Callable[..., list[Digits]], arrays: Arrays, dtype: npt.DTypeLike) -> list[Array]:
    """The formula's results once twice as many digits do not change them; 3200 digits must do."""
    previous: list[Array] = []
    for digits in (50, 100, 200, 400, 800, 1600, 3200):
        with Digits.precision(digits):
            results = [value.rounded(dtype)[0] for value in formula(Digits, *arrays)]
        if previous and all(map(np.array_equal, previous, results)):
            break
        previous = results
    return results


def _blocks(rows: int, choices: int) -> Iterator[slice]:
    """Slices of rows of some 16,000 elements: what a processor's cache holds of the temporaries."""
    step = max(1, 16384 // choices)
    for start in range(0, rows, step):
        yield slice(start, start + step)
