"""What a check of a sampler found: one line a test, and the whole as text or JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from npselect.testing.report import aligned

__all__ = ["SamplerReport", "SamplerTest"]


@dataclass(frozen=True)
class SamplerTest:
    """How one test went.

    Attributes
    ----------
    name : str
        What is tested.
    choices : int
        K.
    verdict : str
        ``"passed"``, ``"failed"`` or, after samples that were no one-hots of the right shape, ``"not run"``.
    comparisons : int
        Numbers that were compared.
    p_value : float or None
        The probability that an honest sampler has a comparison as bad as the worst one seen, in this or any other test
        of the report: corrected for their number. None where chance plays no part.
    finding : str or None
        What was seen and what was expected, of the worst comparison, if the verdict is ``"failed"``.
    """

    name: str
    choices: int
    verdict: str
    comparisons: int
    p_value: float | None
    finding: str | None


@dataclass(frozen=True)
class SamplerReport:
    """What `npselect.testing.check_sampler` found.

    Attributes
    ----------
    sampler : str
        Its name.
    dtype : str
        Of the logits.
    vectors, seeds, seed : int
        As asked for.
    max_seed : int
        The largest seed that the sampler is meant to take, or takes for each K.
    rows : tuple of int
        In a call, for each K.
    false_alarm : float
        The probability, at most, that an honest sampler fails.
    tests : tuple of SamplerTest
        In the order in which they were run.
    versions : dict of str to str
        Of Python and the packages involved.
    """

    sampler: str
    dtype: str
    vectors: int
    rows: tuple[int, ...]
    seeds: int
    seed: int
    max_seed: int
    false_alarm: float
    tests: tuple[SamplerTest, ...]
    versions: dict[str, str]

    @property
    def ok(self) -> bool:
        """Whether every test has passed."""
        return all(test.verdict == "passed" for test in self.tests)

    @property
    def heading(self) -> list[str]:
        """The lines above the table: what was checked."""
        choices = dict.fromkeys(test.choices for test in self.tests)
        samples = ", ".join(f"{rows * self.seeds} of K={k}" for k, rows in zip(choices, self.rows, strict=True))
        return [
            f"{self.sampler}, checked with npselect {self.versions['npselect']}: samples {samples}",
            f"dtype {self.dtype}, {self.vectors} logits vectors for each K, seeds {self.seed} to "
            f"{self.seed + self.seeds - 1} and others up to {self.max_seed}",
            "",
        ]

    @property
    def table(self) -> list[str]:
        """The lines of the table: the columns' names, a line for each test, an empty line."""
        cells = [("test", "K", "verdict", "comparisons", "p-value", "worst comparison"), *map(_cells, self.tests)]
        return [*aligned(cells, numbers=(1, 3, 4)), ""]

    @property
    def verdict(self) -> list[str]:
        """The first line: how many tests passed or failed."""
        ran = sum(test.verdict != "not run" for test in self.tests)
        failed = sum(test.verdict == "failed" for test in self.tests)
        return [f"PASSED: {ran} of {ran} tests" if self.ok else f"FAILED: {failed} of {ran} tests"]

    @property
    def summary(self) -> list[str]:
        """All but the heading and the table, in a few lines; the last one says how many tests passed or failed."""
        return [*self.notes, *self.verdict]

    @property
    def notes(self) -> list[str]:
        """The lines below the table."""
        chances = sum(test.p_value is not None for test in self.tests)
        lines = []
        if chances:
            lines.append(f"p-values are corrected for {chances} tests; one below {self.false_alarm:.3g} has failed")
        failed = [test for test in self.tests if test.verdict == "failed"]
        if len({test.name for test in failed}) > 1:
            lines.append(
                "tests that fail together may have one cause: grossly wrong frequencies show in all of them, and so "
                "does noise that is used again"
            )
        if skipped := sum(test.verdict == "not run" for test in self.tests):
            lines.append(f"not run: {skipped} tests")
        return lines

    def __str__(self) -> str:
        return "\n".join([*self.verdict, *self.heading, *self.table, *self.notes]).rstrip()

    def to_json(self) -> str:
        """The whole as a JSON object.

        Returns
        -------
        str
            The attributes by their names, with ``"schema": "npselect-sampler-report/1"`` and `ok`.
        """
        whole = {"schema": "npselect-sampler-report/1", "ok": self.ok, **asdict(self)}
        return json.dumps(whole, indent=1, allow_nan=False)


def _cells(test: SamplerTest) -> tuple[str, ...]:
    p_value = "-" if test.p_value is None else f"{test.p_value:.2g}"
    return (test.name, str(test.choices), test.verdict, str(test.comparisons), p_value, test.finding or "")
