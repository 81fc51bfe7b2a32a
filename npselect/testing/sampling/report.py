"""What a check of an op that draws its own noise found: as text, the verdict and the likely cause first, or as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from npselect.testing.known import stale, told_of_stale
from npselect.testing.report import aligned

__all__ = ["SamplingReport", "SamplingTest"]

_TOLD = 12  # tests that failed, in the text


@dataclass(frozen=True)
class SamplingTest:
    """How one test went.

    Attributes
    ----------
    name : str
        What is tested.
    dtype : str
        Of the logits.
    temp : float
        As rounded to the dtype.
    choices : int
        K.
    verdict : str
        ``"passed"``, ``"failed"``, ``"known"`` for a failure that `known` lists, ``"not asked"`` for what the op does
        not have, ``"not run"`` after a sample that has not the form of one.
    comparisons : int
        Numbers that were compared.
    p_value : float or None
        The probability that an honest op has a comparison as bad as the worst one seen, in any test of the report:
        corrected for their number. None where chance plays no part.
    fraction : float or None
        The largest error, as a fraction of its bound; None where there is no bound.
    finding : str or None
        What was seen and what was expected, of the worst comparison, if the verdict is "failed" or "known"; what is
        missing, if it is "not asked".
    known : str or None
        The reason that `known` gives.
    """

    name: str
    dtype: str
    temp: float
    choices: int
    verdict: str
    comparisons: int = 0
    p_value: float | None = None
    fraction: float | None = None
    finding: str | None = None
    known: str | None = None

    @property
    def id(self) -> str:
        """``name/dtype/temp=.../K=...``, as patterns of `known` have it."""
        return f"{self.name}/{self.dtype}/temp={self.temp:.4g}/K={self.choices}"


@dataclass(frozen=True)
class SamplingReport:
    """What `npselect.testing.check_sampling_op` found.

    Attributes
    ----------
    op : str
        Its name.
    dtypes : tuple of str
        As checked.
    temps : tuple of float
        As asked for; each dtype rounds them.
    choices : tuple of int
        Each K.
    seed : int
        As asked for.
    false_alarm : float
        The probability, at most, that an honest op fails.
    hard_and_soft, flushes_subnormals, normalises_logits : bool
        As the op declares.
    tests : tuple of SamplingTest
        In the order in which they were run.
    likely_cause : str or None
        The mistake that would explain what was seen, if one is known that does.
    versions : dict of str to str
        Of Python and the packages involved.
    known : dict of str to str
        The failures that are known, as given: ids of tests, or patterns of them, and reasons.
    """

    op: str
    dtypes: tuple[str, ...]
    temps: tuple[float, ...]
    choices: tuple[int, ...]
    seed: int
    false_alarm: float
    hard_and_soft: bool
    flushes_subnormals: bool
    normalises_logits: bool
    tests: tuple[SamplingTest, ...]
    likely_cause: str | None
    versions: Mapping[str, str]
    known: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether no test has failed that is not known to, and no known failure has gone."""
        return not stale(self.known, self._failed) and all(
            test.verdict not in ("failed", "not run") for test in self.tests
        )

    @property
    def _failed(self) -> list[str]:
        """The ids of tests that failed, known or not."""
        return [test.id for test in self._of("failed", "known")]

    def _of(self, *verdicts: str) -> list[SamplingTest]:
        return [test for test in self.tests if test.verdict in verdicts]

    # -------------------------------------------------------------------------------------------- as text

    @property
    def heading(self) -> list[str]:
        """The lines above the tables: what was checked."""
        forms = "hard and soft form" if self.hard_and_soft else "hard form only"
        forms += ", declared to flush subnormals" * self.flushes_subnormals
        forms += ", declared to normalise logits" * self.normalises_logits
        temps, choices = (" ".join(f"{x:g}" for x in values) for values in (self.temps, self.choices))
        return [
            f"{self.op}, checked with npselect {self.versions['npselect']}: draws its own noise; {forms}",
            f"dtype {' '.join(self.dtypes)}, temp {temps}, K {choices}, seed {self.seed}",
            "",
        ]

    @property
    def table(self) -> list[str]:
        """A line for each test, over all dtypes, temperatures and K; the columns' names before them."""
        head = ("test", "passed", "failed", "known", "not asked", "comparisons", "least p-value", "error/bound")
        names = dict.fromkeys(test.name for test in self.tests)
        cells = [head, *(_line(name, [test for test in self.tests if test.name == name]) for name in names)]
        return aligned(cells, numbers=range(1, 8))

    @property
    def failures(self) -> list[str]:
        """A line for each test that has failed, up to twelve, and each known failure; or no line."""
        failed, known = self._of("failed"), self._of("known")
        cells = [("verdict", "case", "finding")]
        cells += [("failed", test.id, test.finding or "") for test in failed[:_TOLD]]
        if more := len(failed[_TOLD:]):
            cells.append(("failed", f"{more} more", "as `tests` and the JSON tell"))
        cells += [("known", test.id, f"{test.known}: {test.finding}") for test in known]
        return aligned(cells, numbers=()) if failed or known else []

    @property
    def verdict(self) -> list[str]:
        """The first lines: how many tests passed or failed, and the likely cause if there is one."""
        judged, failed, known = self._of("passed", "failed", "known"), self._of("failed"), self._of("known")
        told = f"PASSED: {len(judged) - len(known)}" if self.ok else f"FAILED: {len(failed)}"
        lines = [f"{told} of {len(judged)} tests" + f", and {len(known)} known to fail" * bool(self.known)]
        lines += [] if self.likely_cause is None else [f"likely cause: {self.likely_cause}"]
        return lines + told_of_stale(self.known, [test.id for test in judged], self._failed)

    @property
    def summary(self) -> list[str]:
        """All but the heading and the tables, in a few lines; the last one says how many tests passed or failed."""
        return [*self.notes, *reversed(self.verdict)]

    @property
    def notes(self) -> list[str]:
        """The lines below the tables."""
        lines = []
        if any(test.p_value is not None for test in self.tests):
            lines.append(
                f"p-values are corrected for the number of tests; one below {self.false_alarm:.3g} has failed: an "
                "honest op fails no more often than that"
            )
        for reason in dict.fromkeys(test.finding for test in self._of("not asked")):
            names = dict.fromkeys(test.name for test in self._of("not asked") if test.finding == reason)
            lines.append(f"not asked, {reason}: {', '.join(names)}")
        if skipped := len(self._of("not run")):
            lines.append(f"not run, after a sample that is none: {skipped} tests")
        return lines

    def __str__(self) -> str:
        details = [line for part in (self.table, self.failures) if part for line in (*part, "")]
        return "\n".join([*self.verdict, *self.heading, *details, *self.notes]).rstrip()

    def to_json(self) -> str:
        """The whole as a JSON object, without extensions: what is not finite is ``"nan"``, ``"inf"`` or ``"-inf"``.

        Returns
        -------
        str
            The attributes by their names, with ``"schema": "npselect-sampling-report/1"`` and `ok`; each test with its
            id.
        """
        tests = [
            {"id": test.id, **{name: _plain(value) for name, value in asdict(test).items()}} for test in self.tests
        ]
        whole = {"schema": "npselect-sampling-report/1", "ok": self.ok, **asdict(self), "tests": tests}
        return json.dumps(whole, indent=1, allow_nan=False)


def _line(name: str, tests: list[SamplingTest]) -> tuple[str, ...]:
    counts = [sum(test.verdict in verdicts for test in tests)
              for verdicts in (("passed",), ("failed",), ("known",), ("not asked", "not run"))]  # fmt: skip
    p_value = min((test.p_value for test in tests if test.p_value is not None), default=None)
    fractions = [test.fraction for test in tests if test.fraction is not None]
    worst = math.nan if any(map(math.isnan, fractions)) else max(fractions, default=None)
    numbers = [*counts, sum(test.comparisons for test in tests)]
    shown = ["-" if value is None else f"{value:.{digits}g}" for value, digits in ((p_value, 2), (worst, 3))]
    return (name, *map(str, numbers), *shown)


def _plain(value: object) -> object:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
