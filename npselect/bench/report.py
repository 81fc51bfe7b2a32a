"""What was measured: every timing, on which machine and with what, as tables and as JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from npselect.bench.copying import COPIES
from npselect.bench.interleave import Times
from npselect.bench.peer import Peer
from npselect.bench.problem import Problem
from npselect.bench.processor import Restriction, compiled_for
from npselect.bench.threads import VARIABLES, numbers, thread_count
from npselect.testing.aliases import Json
from npselect.testing.check import versions
from npselect.testing.report import aligned

__all__ = ["SCHEMA", "BenchReport", "Table", "Timing", "cpu_model"]

SCHEMA = "npselect-bench/2"
_UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6}
_PACKAGES = ("numba", "scipy", "torch", "jax", "tensorflow", "ml_dtypes")


@dataclass(frozen=True)
class Timing:
    """One peer, one call, one problem.

    Attributes
    ----------
    operator, dtype : str
        Of the problem.
    rows, choices : int
        Of the problem.
    call, peer : str
        Which call, and whose; "copy" and "copy, threads" are the limit.
    bytes : int
        What must be read and written at the least.
    seconds : tuple of float
        Of one call, by turns; empty if the peer is wrong.
    median, first_quartile, third_quartile, spread : float or None
        Of `seconds`; `spread` is the distance of the quartiles over the median.
    gb_per_s : float or None
        `bytes` over the median, in 10**9 bytes a second.
    of_copy : float or None
        How long the faster copy of as many bytes takes, as a fraction of this: the median over the rounds.
    times_npselect : float or None
        How many times as long as the peer "npselect" it takes: the median over the rounds.
    wrong : str or None
        What is wrong with the result.
    """

    operator: str
    dtype: str
    rows: int
    choices: int
    call: str
    peer: str
    bytes: int
    seconds: tuple[float, ...] = ()
    median: float | None = None
    first_quartile: float | None = None
    third_quartile: float | None = None
    spread: float | None = None
    gb_per_s: float | None = None
    of_copy: float | None = None
    times_npselect: float | None = None
    wrong: str | None = None

    @classmethod
    def of(
        cls,
        problem: Problem,
        call: str,
        peer: str,
        moved: int,
        times: Times,
        of_copy: float | None,
        times_npselect: float | None,
    ) -> Timing:
        """The timing of a peer that is right."""
        first, third = times.quartiles
        return cls(
            problem.operator,
            problem.dtype,
            *problem.shape,
            call,
            peer,
            moved,
            tuple(times.seconds.values()),
            times.median,
            first,
            third,
            times.spread,
            moved / times.median / 1e9,
            of_copy,
            times_npselect,
        )

    @classmethod
    def wrong_one(cls, problem: Problem, call: str, peer: str, moved: int, wrong: str) -> Timing:
        """A peer that is wrong, and has not been timed."""
        return cls(problem.operator, problem.dtype, *problem.shape, call, peer, moved, wrong=wrong)

    @property
    def comparison(self) -> tuple[str, str, int, int, str]:
        """What it can be compared within."""
        return self.operator, self.dtype, self.rows, self.choices, self.call


class Table(NamedTuple):
    """A title, the columns' names, and rows of cells."""

    title: str
    columns: tuple[str, ...]
    cells: list[tuple[str, ...]]


@dataclass
class BenchReport:
    """What `npselect.bench.run` measured.

    Attributes
    ----------
    timings : list of Timing
        Comparison by comparison.
    left_out : dict of str to str
        Peers that took no part in all or some comparisons, and why.
    own : list of str
        The names of the user's own peers.
    settings, machine, versions : dict
        How, where and with what it was measured.
    """

    timings: list[Timing] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    own: list[str] = field(default_factory=list)
    settings: dict[str, Json] = field(default_factory=dict)
    machine: dict[str, Json] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def begin(self, rounds: int, seconds: float, temp: float, own: Iterable[str] = ()) -> None:
        """Note the circumstances."""
        self.own = list(dict.fromkeys(own))
        self.settings = {"rounds": rounds, "seconds_a_turn": seconds, "temp": temp, "threads": thread_count()}
        self.settings["variables"] = {name: os.environ.get(name, "") for name in (*VARIABLES, "OMP_WAIT_POLICY")}
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.machine = {"cpu": cpu_model(), "processors": processors, "platform": platform.platform()}
        if hasattr(os, "getloadavg"):
            self.machine["load"] = os.getloadavg()[0]  # of other programs, over the last minute
        self.machine["date"] = datetime.now(UTC).date().isoformat()

    def note(self, peer: str, why: str) -> None:
        """A peer takes no part."""
        self.left_out.setdefault(peer, why)

    def leave_out(self, all_peers: Iterable[Peer], some: Iterable[Peer], why: str) -> None:
        """Note those that are not among some."""
        names = {peer.name for peer in some}
        for peer in all_peers:
            if peer.name not in names:
                self.note(peer.name, why)

    def note_versions(self) -> None:
        """Of what is loaded by now."""
        loaded = {name: getattr(sys.modules[name], "__version__", "?") for name in _PACKAGES if sys.modules.get(name)}
        self.versions = versions() | loaded
        self.settings["threads_reported"] = numbers()

    def note_processor(self, restriction: Restriction | None) -> None:
        """For which processor the code is."""
        self.settings["compiled_for"] = asdict(restriction or Restriction(compiled_for()))

    @property
    def ok(self) -> bool:
        """Whether neither npselect nor the user's own implementation is wrong. Times do not count."""
        answerable = (*self.own, *(timing.peer for timing in self.timings if timing.peer.startswith("npselect")))
        return not any(timing.wrong and timing.peer in answerable for timing in self.timings)

    # -------------------------------------------------------------------------------------------- as text

    @property
    def heading(self) -> list[str]:
        """The lines above the tables."""
        packages = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        settings, machine = self.settings, self.machine
        variables = ", ".join(f"{name}={value}" for name, value in settings["variables"].items())
        return [
            "{cpu}, {processors} processors, {platform}, {date}".format_map(machine),
            f"load before: {machine['load']:.2f} of {machine['processors']}" if "load" in machine else "load before: -",
            packages,
            *_processor_lines(settings["compiled_for"]),
            f"{settings['threads']} threads for everybody ({variables}), but for NumPy and SciPy, which have one",
            f"{settings['rounds']} turns each, interleaved, of {settings['seconds_a_turn']} s at the least; "
            f"temp {settings['temp']:g}",
            "time: the median of the turns; spread: the distance of their quartiles, over it",
            "GB/s: the bytes that must be moved at the least, over the time",
            "of copy: the time of the faster copy of as many bytes, over this one's",
            "x npselect: this time over that of npselect, allocating",
        ]

    @property
    def tables(self) -> list[Table]:
        """A table for each comparison, and one of all medians for each operator and dtype."""
        comparisons: dict[tuple[Any, ...], list[Timing]] = {}
        for timing in self.timings:
            comparisons.setdefault(timing.comparison, []).append(timing)
        tables = []
        for (operator, dtype, rows, choices, call), timings in comparisons.items():
            title = f"{operator}, {dtype}, {rows} x {choices}, {call}"
            columns = ("peer", "time", "spread", "GB/s", "of copy", "x npselect", "")
            tables.append(Table(title, columns, [_cells(timing) for timing in timings]))
        return tables + self._overviews()

    def _overviews(self) -> list[Table]:
        groups = dict.fromkeys((timing.operator, timing.dtype, timing.call) for timing in self.timings)
        tables = []
        for group in groups:
            some = [timing for timing in self.timings if (timing.operator, timing.dtype, timing.call) == group]
            peers = list(dict.fromkeys(timing.peer for timing in some))
            shapes = list(dict.fromkeys((timing.rows, timing.choices) for timing in some))
            medians = {(timing.rows, timing.choices, timing.peer): timing for timing in some}
            cells = [
                (f"{rows} x {choices}", *(_median(medians.get((rows, choices, peer))) for peer in peers))
                for rows, choices in shapes
            ]
            if len(shapes) > 1:
                tables.append(Table(f"{', '.join(group)}: medians", ("rows x choices", *peers), cells))
        return tables

    @property
    def footing(self) -> list[str]:
        """The lines below the tables."""
        lines = [f"left out: {peer}: {why}" for peer, why in self.left_out.items()]
        wrong = dict.fromkeys((timing.peer, timing.wrong) for timing in self.timings if timing.wrong)
        return lines + [f"wrong, and not timed: {peer}: {why}" for peer, why in wrong]

    def __str__(self) -> str:
        lines = [*self.heading, ""]
        for table in self.tables:
            numbers = range(1, len(table.columns) - (table.columns[-1] == ""))
            lines += [table.title, *aligned([table.columns, *table.cells], numbers), ""]
        return "\n".join(lines + self.footing)

    def to_json(self) -> str:
        """The whole as a JSON object, as `npselect/bench/report.schema.json` describes it."""
        return json.dumps({"schema": SCHEMA, "ok": self.ok, **asdict(self)}, indent=1)


def _processor_lines(code: Mapping[str, Json]) -> list[str]:
    lines = [f"compiled for: npselect {code['npselect']}, the peers {code['peers']}"]
    return lines + [f"not restricted: {peer}: {why}" for peer, why in code["not_restricted"].items()]


def _cells(timing: Timing) -> tuple[str, ...]:
    if timing.median is None or timing.spread is None:
        return (timing.peer, "-", "-", "-", "-", "-", f"wrong: {timing.wrong}")
    relative = "-" if timing.times_npselect is None or timing.peer in COPIES else f"{timing.times_npselect:.2f}"
    of_copy = "-" if timing.of_copy is None else f"{timing.of_copy:.3f}"
    rate = f"{timing.gb_per_s:.3g}"
    return (timing.peer, duration(timing.median), f"{timing.spread:.1%}", rate, of_copy, relative, "")


def _median(timing: Timing | None) -> str:
    if timing is None:
        return "-"
    return "wrong" if timing.median is None else duration(timing.median)


def duration(seconds: float) -> str:
    """Three digits and a unit."""
    three = float(f"{seconds:.3g}")
    unit, factor = next((pair for pair in _UNITS.items() if three * pair[1] >= 1), ("ns", 1e9))
    return f"{seconds * factor:.3g} {unit}" if three * factor < 1000 else f"{seconds * factor:.0f} {unit}"


def cpu_model() -> str:
    """What the processor calls itself."""
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
