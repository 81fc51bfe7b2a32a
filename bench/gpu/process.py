"""A section's processes: started, listened to, restarted after a crash, and ended when their time is over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from gpu import Record, Section

__all__ = ["Outcome", "end", "run_section", "start"]

BENCH = Path(__file__).resolve().parents[1]
ATTEMPTS = 6  # processes that a part may have, if each gets further than the last
EVERY = 0.05  # seconds between two looks


class Outcome(NamedTuple):
    """How a section ended: "ok", "failed" or "out of time"."""

    status: str
    seconds: float


def run_section(
    section: Section, seconds: float, folder: Path, add: Callable[[str, Record], None], *, quick: bool = False
) -> Outcome:
    """All parts of a section side by side; ``add(part, record)`` is called for each line as it comes."""
    begun = time.monotonic()
    parts = [_Part(section, part, begun + seconds, folder, add, quick) for part in section.parts]
    try:
        while sum(part.look() for part in parts):
            time.sleep(EVERY)
    finally:
        for part in parts:
            part.stop()
    statuses = {part.status for part in parts}
    worst = next(status for status in ("failed", "out of time", "ok") if status in statuses)
    return Outcome(worst, time.monotonic() - begun)


class _Part:
    def __init__(
        self,
        section: Section,
        name: str,
        deadline: float,
        folder: Path,
        add: Callable[[str, Record], None],
        quick: bool,
    ) -> None:
        self.section, self.name, self.deadline, self.quick, self.add_line = section, name, deadline, quick, add
        stem = f"{section.name}-{name or 'all'}"
        self.lines, self.log = folder / f"{stem}.jsonl", folder / f"{stem}.log"
        self.lines.touch()
        self.read = 0
        self.rest = b""
        self.done: list[str] = []
        self.attempts = 0
        self.status = "ok"
        self.process: subprocess.Popen[bytes] | None = None
        self._begin()

    def look(self) -> bool:
        """Whether there will be more."""
        if self.process is None:
            return False
        ended = self.process.poll() is not None
        self._listen()
        now = time.monotonic()
        if ended:
            self._ended()
        elif now >= self.deadline:
            self.stop()
            self.status = "out of time"
            self._add({"kind": "note", "text": f"{self._where()}: ended, its time was over"})
        elif now - self.heard > self.section.silence:
            self.stop()
            self._failed(f"no line for {self.section.silence:g} s")
        return self.process is not None

    def stop(self) -> None:
        """End the process and all that it started."""
        if self.process is not None:
            end(self.process)
            self.process = None
            self._listen()

    def _begin(self) -> None:
        self.attempts += 1
        self.before = len(self.done)
        self.heard = time.monotonic()
        order = {
            "function": self.section.function,
            "part": self.name,
            "lines": str(self.lines),
            "seconds": self.deadline - self.heard - 1,
            "quick": self.quick,
            "done": self.done,
        }
        self.process = start([sys.executable, "-m", "gpu.child", json.dumps(order)], self.log)

    def _ended(self) -> None:
        assert self.process is not None
        code = self.process.returncode
        end(self.process)  # what it started and left
        self.process = None
        if code != 0:
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"
            self._failed(f"ended with {how}")

    def _failed(self, how: str) -> None:
        """Report it and, if the process got anywhere, let another do the rest."""
        self.status = "failed"
        said = self.log.read_bytes()[-1500:].decode(errors="replace").strip().splitlines()[-8:]
        self._add({"kind": "error", "where": self._where(), "text": "\n".join([how, *said])})
        worth_it = len(self.done) > self.before and self.attempts < ATTEMPTS
        if worth_it and self.deadline - time.monotonic() > 3:
            self._begin()

    def _listen(self) -> None:
        with self.lines.open("rb") as file:
            file.seek(self.read)
            new = file.read()
        self.read += len(new)
        *lines, self.rest = (self.rest + new).split(b"\n")
        for line in lines:
            self.heard = time.monotonic()
            try:
                record = json.loads(line)
                kind = record["kind"]
            except (ValueError, TypeError, KeyError):
                self._add({"kind": "error", "where": self._where(), "text": f"no line of a section: {line[:200]!r}"})
                continue
            if kind == "begin":
                self.done.append(record["unit"])
            elif kind != "beat":
                self._add(record)

    def _add(self, record: Record) -> None:
        self.add_line(self.name, record)

    def _where(self) -> str:
        unit = self.done[-1] if len(self.done) > self.before else ""
        return " ".join(word for word in (self.section.name, self.name, unit) if word)


def start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """A process that finds the sections, the checks and npselect, in a group of its own."""
    paths = [str(BENCH), str(BENCH.parent), str(BENCH.parent / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # jax would take three quarters of the memory
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill the group; one that the driver holds on to is left behind."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(5)
