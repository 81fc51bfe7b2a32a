"""How one case went, and the first thing that is not as expected."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["JUDGED", "Difference", "Group", "Outcome"]

JUDGED = ("passed", "failed", "known")
"""The verdicts on cases that count."""


@dataclass(frozen=True)
class Difference:
    """The first thing that is not as expected.

    Attributes
    ----------
    direction : str
        ``"forward"``, ``"backward"`` or ``"backward_temp"``.
    message : str
        What is wrong, in words.
    position : tuple of int, optional
        Where in the array, where single values differ.
    actual, expected, tolerance : float, optional
        The two values there, and how far apart they may be.
    actual_bits, expected_bits : str, optional
        Their bit patterns in hexadecimal, the sign first.
    conditioning : float, optional
        The tolerance in ULP of the expected value: how much the rounding of the inputs and operations is magnified
        there. Some 10 where nothing cancels.
    """

    direction: str
    message: str
    position: tuple[int, ...] | None = None
    actual: float | None = None
    expected: float | None = None
    tolerance: float | None = None
    actual_bits: str | None = None
    expected_bits: str | None = None
    conditioning: float | None = None

    @property
    def where(self) -> str:
        """The direction and the position, as in ``"backward[0, 3]"``."""
        return self.direction + ("" if not self.position else f"[{', '.join(map(str, self.position))}]")

    def __str__(self) -> str:
        return f"{self.where} {self.message}"


@dataclass(frozen=True)
class Outcome:
    """How one case went.

    Attributes
    ----------
    id, name, group, dtype, note : str
        Of the case.
    verdict : str
        ``"passed"``, ``"failed"`` or, of a failure that is listed, ``"known"`` if the case is judged (`JUDGED`);
        ``"agrees"`` or ``"differs"`` if it is only shown; ``"not asked"`` if the implementation does not take an option
        of it.
    rows, judged_rows, near_ties, close_rows : int
        Rows in the case; rows that were judged; rows where another index than the oracle's was accepted, because the
        rounding of the probabilities may swap the two; rows where it may.
    explained : float
        In how many of the latter it does at most where it makes numbers equal: another stands before the right one.
    ulp, fraction : float
        The worst error of the gradient in units in the last place, and as a fraction of its tolerance. NaN if no value
        was compared.
    seconds : float
        Time spent in the implementation.
    difference : Difference or None
        Why the verdict is not ``"passed"`` or ``"agrees"``.
    reproduce : str or None
        With a difference, a line of Python that shows it, where `implementation` is what was checked.
    known : str or None
        Of a known failure, the reason that was given.
    """

    id: str
    name: str
    group: str
    dtype: str
    note: str
    verdict: str
    rows: int = 0
    judged_rows: int = 0
    near_ties: int = 0
    close_rows: int = 0
    explained: float = 0.0
    ulp: float = math.nan
    fraction: float = math.nan
    seconds: float = 0.0
    difference: Difference | None = None
    reproduce: str | None = None
    known: str | None = None


class Group(NamedTuple):
    """The cases of one dtype and group, counted by verdict, and their worst errors."""

    dtype: str
    name: str
    passed: int
    failed: int
    shown: int
    not_asked: int
    ulp: float
    fraction: float
    known: int = 0
