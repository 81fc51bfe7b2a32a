"""What a survey found, as text, as JSON and as a page in Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from npselect.testing.report import aligned

__all__ = ["COLUMNS", "Result", "SurveyReport"]

COLUMNS = ("package", "op", "verdict", "likely cause", "documented", "link")
_SCHEMA = "npselect-survey/1"


@dataclass(frozen=True)
class Result:
    """What was found of one op.

    Attributes
    ----------
    package, version, op : str
        Which it is.
    verdict : str
        ``"passed"``, ``"wrong"`` or ``"could not run"``.
    judged : str
        What was asked of it.
    cause : str or None
        The likely cause of what is wrong, or which tests have failed.
    detail : str or None
        The first thing that is wrong, or why the op could not be run.
    remarks : tuple of str
        What was seen and does not count.
    documented : str
        What is documented.
    links : tuple of str
        Where.
    reproduce : str
        Three lines, or nothing.
    seconds : float or None
        How long it took.
    python : str
        The version of Python.
    """

    package: str
    version: str
    op: str
    verdict: str
    judged: str
    cause: str | None
    detail: str | None
    remarks: tuple[str, ...]
    documented: str
    links: tuple[str, ...]
    reproduce: str
    seconds: float | None
    python: str

    @property
    def cells(self) -> tuple[str, ...]:
        """Of a line of the table: see `COLUMNS`."""
        why = self.detail if self.verdict == "could not run" else "; ".join(filter(None, (self.cause, *self.remarks)))
        link = self.links[0] if self.links else ""
        return f"{self.package} {self.version}", self.op, self.verdict, why or "", self.documented, link


@dataclass(frozen=True)
class SurveyReport:
    """What ``npselect survey`` found.

    Attributes
    ----------
    results : tuple of Result
        In the order of packages.
    absent : mapping of str to str
        Packages that cannot be imported, with the reason.
    versions : mapping of str to str
        Of Python, NumPy and npselect.
    """

    results: tuple[Result, ...]
    absent: Mapping[str, str]
    versions: Mapping[str, str]

    def count(self, verdict: str) -> int:
        """How many ops have it."""
        return sum(result.verdict == verdict for result in self.results)

    @property
    def status(self) -> int:
        """The exit status: 1 if an op is wrong, 2 if nothing could be run, else 0."""
        if self.count("wrong"):
            return 1
        return 0 if self.count("passed") else 2

    def merged(self, earlier: SurveyReport) -> SurveyReport:
        """With the results of an earlier one for packages that are absent here."""
        found = [result for result in earlier.results if result.package in self.absent]
        absent = {name: why for name, why in self.absent.items() if name not in {result.package for result in found}}
        return SurveyReport((*self.results, *found), absent, self.versions)

    @property
    def summary(self) -> str:
        """One line."""
        counts = ", ".join(f"{self.count(verdict)} {verdict}" for verdict in ("passed", "wrong", "could not run"))
        return f"{len(self.results)} ops: {counts}; packages that are not here: {len(self.absent)}"

    @property
    def absences(self) -> list[str]:
        """A line for each package that is not here."""
        return [f"{name} cannot be imported: {reason}" for name, reason in self.absent.items()]

    def __str__(self) -> str:
        table = aligned([COLUMNS, *(result.cells for result in self.results)], numbers=()) if self.results else []
        return "\n".join([*table, *([""] if table else []), *self.absences, self.summary])

    def to_json(self) -> str:
        """The whole as a JSON object: the attributes by their names, with ``"schema": "npselect-survey/1"``."""
        return json.dumps({"schema": _SCHEMA, **asdict(self)}, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> SurveyReport:
        """What `to_json` wrote.

        Raises
        ------
        ValueError
            It is no survey.
        """
        whole: Any = json.loads(text)
        if not isinstance(whole, dict) or whole.get("schema") != _SCHEMA:
            raise ValueError(f"no {_SCHEMA}")
        for result in whole["results"]:
            result["remarks"], result["links"] = tuple(result["remarks"]), tuple(result["links"])
        return cls(tuple(Result(**result) for result in whole["results"]), whole["absent"], whole["versions"])
