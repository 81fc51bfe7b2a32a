"""What a check found, as a whole: as text, the verdict and the likely cause first, or as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from npselect.testing.known import stale, told_of_stale
from npselect.testing.outcome import JUDGED, Group, Outcome

__all__ = ["Report", "aligned"]

_TOLD = 12  # cases that failed, in the text


@dataclass(frozen=True)
class Report:
    """What `npselect.testing.check` found.

    Attributes
    ----------
    implementation : str
        Its name.
    operator : str
        The name of the operator.
    options : tuple of str
        Which of the options axis, where and noise the implementation takes.
    flushes_subnormals, normalises_logits : bool
        Whether it declares that it does.
    dtypes : tuple of str
        As checked.
    temp : float
        As asked for; each case rounds it to its dtype.
    profile, backend : str
        As asked for; `backend` is the oracle's.
    cases : tuple of Outcome
        In the order in which they were run.
    near_ties_allowed : dict of str to int
        By dtype, in how many rows another index may be accepted, all in all; without those in which it was of no
        matter.
    likely_cause : str or None
        The mistake that would explain the values, if one is known that does.
    versions : dict of str to str
        Of Python and the packages involved.
    row_temp, backward_temp : bool
        Whether the implementation takes a temperature for each row; whether it has the gradient of the temperature.
    known : dict of str to str
        The failures that are known, as given: ids of cases, or patterns of them, and reasons.
    """

    implementation: str
    operator: str
    options: tuple[str, ...]
    flushes_subnormals: bool
    normalises_logits: bool
    dtypes: tuple[str, ...]
    temp: float
    profile: str
    backend: str
    cases: tuple[Outcome, ...]
    near_ties_allowed: Mapping[str, int]
    likely_cause: str | None
    versions: Mapping[str, str]
    row_temp: bool = False
    backward_temp: bool = False
    known: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every case that was judged has passed, with no more near ties than rounding explains.

        Known failures do not count, but each entry in the list of them must be one.
        """
        return self._count("failed") == 0 and not self._too_many_near_ties and not self.stale

    @property
    def stale(self) -> list[str]:
        """Those ids or patterns in `known` of which no case has failed."""
        return stale(self.known, self._failed)

    @property
    def _failed(self) -> list[str]:
        """The ids of cases that failed, known or not."""
        return [case.id for case in self.cases if case.verdict in ("failed", "known")]

    @property
    def near_ties(self) -> dict[str, int]:
        """Rows in which another index was accepted, by dtype, but for cases that were made for it."""
        return {
            dtype: sum(case.near_ties for case in self.cases if case.dtype == dtype and case.close_rows)
            for dtype in self.near_ties_allowed
        }

    @property
    def _too_many_near_ties(self) -> list[str]:
        """The dtypes that have them."""
        return [dtype for dtype, count in self.near_ties.items() if count > self.near_ties_allowed[dtype]]

    def _count(self, *verdicts: str) -> int:
        return sum(case.verdict in verdicts for case in self.cases)

    @property
    def groups(self) -> list[Group]:
        """The cases by dtype and group."""
        groups: dict[tuple[str, str], list[Outcome]] = {}
        for case in self.cases:
            groups.setdefault((case.dtype, case.group), []).append(case)

        def group(name: tuple[str, str], cases: list[Outcome]) -> Group:
            verdicts = [case.verdict for case in cases]
            shown = verdicts.count("agrees") + verdicts.count("differs")
            judged = [case for case in cases if case.verdict in JUDGED]
            ulp, fraction = (max([x for x in errors if not math.isnan(x)], default=math.nan) for errors in
                             ([case.ulp for case in judged], [case.fraction for case in judged]))  # fmt: skip
            counts = verdicts.count("passed"), verdicts.count("failed"), shown, verdicts.count("not asked")
            return Group(*name, *counts, ulp, fraction, verdicts.count("known"))

        return [group(*item) for item in groups.items()]

    # -------------------------------------------------------------------------------------------- as text

    @property
    def heading(self) -> list[str]:
        """The lines above the tables: what was checked."""
        takes = ", ".join(f"{name}=" for name in self.options) or "no options"
        takes += " and a temperature for each row" * self.row_temp + ", has backward_temp" * self.backward_temp
        declared = ", declared to flush subnormals" if self.flushes_subnormals else ""
        declared += ", declared to normalise logits" if self.normalises_logits else ""
        return [
            f"{self.implementation}, checked with npselect {self.versions['npselect']}: operator {self.operator}, "
            f"profile {self.profile}, oracle {self.backend}",
            f"dtype {' '.join(self.dtypes)}, temp {self.temp:g} (rounded to the dtype), takes {takes}{declared}",
            "",
        ]

    @property
    def group_table(self) -> list[str]:
        """A line for each dtype and group, the columns' names before them."""
        head = ("dtype", "group", "passed", "failed", "shown", "not asked", "error/ULP", "error/bound")
        cells = [head, *((g.dtype, g.name, *map(str, g[2:6]), _short(g.ulp), _short(g.fraction)) for g in self.groups)]
        if self.known:
            known = ["known", *(str(group.known) for group in self.groups)]
            cells = [(*row[:4], count, *row[4:]) for row, count in zip(cells, known, strict=True)]
        return aligned(cells, numbers=range(2, 9))

    @property
    def case_table(self) -> list[str]:
        """A line for each case that differs, being only shown or known, or has failed, up to twelve of these."""
        failed = [case for case in self.cases if case.verdict == "failed"]
        told = [*failed[:_TOLD], *(case for case in self.cases if case.verdict in ("known", "differs"))]
        cells = [("verdict", "case", "first difference")]
        for case in told:
            reason = "" if case.known is None else f"{case.known}: "
            cells.append((case.verdict, case.id, f"{reason}{case.difference}"))
        if more := len(failed[_TOLD:]):
            cells.insert(_TOLD + 1, ("failed", f"{more} more", "as `cases` and the JSON tell"))
        return aligned(cells, numbers=()) if told else []

    @property
    def first_failure(self) -> list[str]:
        """Everything about the first case that failed; nothing if none did."""
        case = next((case for case in self.cases if case.verdict == "failed"), None)
        if case is None or case.difference is None:
            return []
        difference, lines = case.difference, [("case", f"{case.id}: {case.note}")]
        lines.append(("difference", str(difference)))
        if difference.position is not None:
            lines.append(("bits", f"actual {difference.actual_bits}, expected {difference.expected_bits}"))
        if difference.conditioning is not None:
            lines.append(("conditioning", f"errors of up to {_short(difference.conditioning)} ULP are honest there"))
        if case.reproduce is not None:
            lines.append(("reproduce", case.reproduce))
        return ["first failure", *(f"  {name:13}{text}" for name, text in lines)]

    @property
    def verdict(self) -> list[str]:
        """The first lines: how many cases passed or failed, and the likely cause if there is one."""
        judged, failed, known = self._count(*JUDGED), self._count("failed"), self._count("known")
        told = f"PASSED: {judged - known}" if self.ok else f"FAILED: {failed}"
        lines = [f"{told} of {judged} cases" + f", and {known} known to fail" * bool(self.known)]
        lines += [] if self.likely_cause is None else [f"likely cause: {self.likely_cause}"]
        ids = [case.id for case in self.cases if case.verdict in JUDGED]
        return lines + told_of_stale(self.known, ids, self._failed)

    @property
    def summary(self) -> list[str]:
        """All but the heading and the tables, in a few lines; the last one says how many cases passed or failed."""
        return [*self.notes, *reversed(self.verdict)]

    @property
    def notes(self) -> list[str]:
        """The lines below the tables."""
        judged = [case for case in self.cases if case.verdict in JUDGED]
        lines = []
        if shown := self._count("agrees", "differs"):
            lines.append(
                f"shown for information, not judged: {shown} cases; "
                f"agreeing with the oracle: {self._count('agrees')}, differing: {self._count('differs')}"
            )
        if skipped := self._count("not asked"):
            lines.append(f"not asked, for options that are not taken: {skipped} cases")
        if near_ties := sum(case.near_ties for case in judged):
            lines.append(f"rows with another index, within the rounding of the probabilities: {near_ties}")
        lines += [
            f"too many of them in {dtype}: {self.near_ties[dtype]} in rows of random numbers, where rounding explains "
            f"{self.near_ties_allowed[dtype]} at most"
            for dtype in self._too_many_near_ties
        ]
        if compared := [case for case in judged if not math.isnan(case.fraction)]:
            worst = max(compared, key=lambda case: case.fraction)
            lines.append(f"worst error of the gradient: {_short(worst.fraction)} of the bound, in {worst.id}")
        return lines

    def __str__(self) -> str:
        parts = [self.group_table, self.case_table, self.first_failure]
        details = [line for part in parts if part for line in (*part, "")]
        return "\n".join([*self.verdict, *self.heading, *details, *self.notes]).rstrip()

    def to_json(self) -> str:
        """The whole as a JSON object, without extensions: what is not finite is ``"nan"``, ``"inf"`` or ``"-inf"``.

        Returns
        -------
        str
            The attributes by their names, with ``"schema": "npselect-report/2"``, `ok` and `groups`.
        """
        groups = [group._asdict() for group in self.groups]
        whole = {"schema": "npselect-report/2", "ok": self.ok, "groups": groups, **asdict(self)}
        return json.dumps(_plain(whole), indent=1)


def aligned(cells: Sequence[Sequence[str]], numbers: Collection[int]) -> list[str]:
    """Rows of a table as lines, the columns of numbers flush right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]

    def line(row: Sequence[str]) -> str:
        columns = enumerate(zip(row, widths, strict=True))
        return "  ".join(text.rjust(width) if i in numbers else text.ljust(width) for i, (text, width) in columns)

    return [line(row).rstrip() for row in cells]


def _short(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"


def _plain(value: object) -> object:
    """What strict JSON can say."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
