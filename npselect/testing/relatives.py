"""Gradients of other members of the family, as mistakes: whoever asks for one and gets another is told which."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from npselect.testing.aliases import Array, Settings
from npselect.testing.mistakes import Mistakes, Rows, candidates
from npselect.testing.textbook import TEXTBOOKS

__all__ = ["relatives"]


class _Relative(NamedTuple):
    """One of the family with its settings, by the name that a report gives it."""

    name: str
    operator: str
    settings: Settings


_RELATIVES = (
    _Relative("npselect.categorical", "categorical", {}),
    _Relative("npselect.reinmax", "reinmax", {}),
    _Relative("npselect.gapped", "gapped", {}),
    _Relative("npselect.gapped with gap='adaptive'", "gapped", {"gap": "adaptive"}),
)


def relatives(*operators: str) -> Mistakes:
    """The textbooks of some operators, at the temperature and at 1, of the sample that the question has.

    Where no sample is given, that is the largest; logits are taken without noise.
    """
    some = [relative for relative in _RELATIVES if relative.operator in operators]
    return (
        *((f"the gradient of {one.name}", partial(_gradient, relative=one)) for one in some),
        *((f"the gradient of {one.name} at temp=1", partial(_gradient, relative=one, temp=1.0)) for one in some),
    )


def _gradient(q: Rows, relative: _Relative, temp: float | None = None) -> Array:
    backward = TEXTBOOKS[relative.operator].backward
    g, index = candidates(q, q.g), np.maximum(q.question.choice, 0)
    return np.asarray(backward(g, q.logits, q.temp if temp is None else temp, index=index, **relative.settings))
