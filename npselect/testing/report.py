"""What a check found: one outcome a case, and the whole as text or JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Difference", "Outcome", "Report", "aligned"]


@dataclass(frozen=True)
class Difference:
    """The first thing that is not as expected.

    Attributes
    ----------
    direction : str
        ``"forward"`` or ``"backward"``.
    message : str
        What is wrong, in words.
    position : tuple of int, optional
        Row and choice, where single values differ.
    actual, expected, tolerance : float, optional
        The two values there, and how far apart they may be.
    """

    direction: str
    message: str
    position: tuple[int, ...] | None = None
    actual: float | None = None
    expected: float | None = None
    tolerance: float | None = None

    def __str__(self) -> str:
        where = "" if self.position is None else f"[{', '.join(map(str, self.position))}]"
        return f"{self.direction}{where} {self.message}"


@dataclass(frozen=True)
class Outcome:
    """How one case went.

    Attributes
    ----------
    name, note : str
        Of the case.
    verdict : str
        ``"passed"`` or ``"failed"`` if the case is judged, ``"agrees"`` or ``"differs"`` if it is only shown.
    rows, judged_rows, near_ties : int
        Rows in the case; rows that were judged; rows where another index than the oracle's was accepted, because the
        rounding of the probabilities may swap the two.
    ulp, fraction : float
        The worst error of the gradient in units in the last place, and as a fraction of its tolerance. NaN if no value
        was compared.
    seconds : float
        Time spent in the implementation.
    difference : Difference or None
        Why the verdict is not ``"passed"`` or ``"agrees"``.
    """

    name: str
    note: str
    verdict: str
    rows: int
    judged_rows: int
    near_ties: int
    ulp: float
    fraction: float
    seconds: float
    difference: Difference | None


@dataclass(frozen=True)
class Report:
    """What `npselect.testing.check` found.

    Attributes
    ----------
    implementation : str
        Its name.
    dtype, profile, backend : str
        As checked; `backend` is the oracle's.
    temp : float
        As handed to the implementation, rounded to `dtype`.
    cases : tuple of Outcome
        In the order in which they were run.
    likely_cause : str or None
        The mistake that would explain the values, if one is known that does.
    versions : dict of str to str
        Of Python and the packages involved.
    """

    implementation: str
    dtype: str
    temp: float
    profile: str
    backend: str
    cases: tuple[Outcome, ...]
    likely_cause: str | None
    versions: Mapping[str, str]

    @property
    def ok(self) -> bool:
        """Whether every case that was judged has passed."""
        return self._count("failed") == 0

    def _count(self, verdict: str) -> int:
        return sum(case.verdict == verdict for case in self.cases)

    @property
    def heading(self) -> list[str]:
        """The lines above the table: what was checked."""
        return [
            f"{self.implementation}, checked with npselect {self.versions['npselect']}: oracle {self.backend}, "
            f"profile {self.profile}",
            f"dtype {self.dtype}, temp {self.temp} (rounded to {self.dtype})",
            "",
        ]

    @property
    def table(self) -> list[str]:
        """The lines of the table: the columns' names, a line for each case, an empty line."""
        cells = [("case", "verdict", "error/ULP", "error/bound", "ms", "first difference"), *map(_cells, self.cases)]
        return [*aligned(cells, numbers=(2, 3, 4)), ""]

    @property
    def summary(self) -> list[str]:
        """The lines below the table; the last one is the verdict."""
        judged = [case for case in self.cases if case.verdict in ("passed", "failed")]
        lines = []
        if shown := len(self.cases) - len(judged):
            lines.append(
                f"shown for information, not judged: {shown} cases; "
                f"agreeing with the oracle: {self._count('agrees')}, differing: {self._count('differs')}"
            )
        if near_ties := sum(case.near_ties for case in judged):
            lines.append(f"rows with another index, within the rounding of the probabilities: {near_ties}")
        if compared := [case for case in judged if not math.isnan(case.fraction)]:
            worst = max(compared, key=lambda case: case.fraction)
            lines.append(f"worst error of the gradient: {_short(worst.fraction)} of the bound, in {worst.name}")
        if self.likely_cause is not None:
            lines.append(f"likely cause: {self.likely_cause}")
        if self.ok:
            lines.append(f"PASSED: {len(judged)} of {len(judged)} cases")
        else:
            lines.append(f"FAILED: {self._count('failed')} of {len(judged)} cases")
        return lines

    def __str__(self) -> str:
        return "\n".join([*self.heading, *self.table, *self.summary])

    def to_json(self) -> str:
        """The whole as a JSON object, without extensions: what is not finite is ``"nan"``, ``"inf"`` or ``"-inf"``.

        Returns
        -------
        str
            The attributes by their names, with ``"schema": "npselect-report/1"`` and `ok`.
        """
        return json.dumps(_plain({"schema": "npselect-report/1", "ok": self.ok, **asdict(self)}), indent=1)


def _cells(case: Outcome) -> tuple[str, ...]:
    difference = "" if case.difference is None else str(case.difference)
    milliseconds = f"{1000 * case.seconds:.1f}"
    return (case.name, case.verdict, _short(case.ulp), _short(case.fraction), milliseconds, difference)


def aligned(cells: Sequence[Sequence[str]], numbers: Collection[int]) -> list[str]:
    """Rows of a table as lines, the columns of numbers flush right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]

    def line(row: Sequence[str]) -> str:
        columns = enumerate(zip(row, widths, strict=True))
        return "  ".join(text.rjust(width) if i in numbers else text.ljust(width) for i, (text, width) in columns)

    return [line(row).rstrip() for row in cells]


def _short(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"


def _plain(value: Any) -> Any:
    """What strict JSON can say."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
