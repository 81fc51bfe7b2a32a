"""A process for each package, and another one where it crashes."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from threading import Timer
from typing import Any, Self

from npselect.survey.report import Result, SurveyReport
from npselect.testing.aliases import Progress
from npselect.testing.check import versions
from npselect.testing.known_ops import KnownOp, Package

__all__ = ["survey"]

REGISTRY = "npselect.testing.known_ops"
_PATIENCE = 300.0  # seconds for one op, or for an import


def survey(only: Sequence[str] = (), *, registry: str = REGISTRY, progress: Progress | None = None) -> SurveyReport:
    """Judge every known op of the packages that are installed here.

    Parameters
    ----------
    only : sequence of str, optional
        Names of packages; all by default.
    registry : str, optional
        The name of a module with `PACKAGES`, a mapping of names to `npselect.testing.known_ops.Package`.
    progress : callable, optional
        Called as ``progress(done, total, name)`` before each op and once after the last one.

    Returns
    -------
    SurveyReport
        Packages that cannot be imported are in `absent`, with the reason. An op that raises, crashes or takes more than
        five minutes could not be run; the others are.

    Raises
    ------
    ValueError
        A name is not that of a package.
    """
    packages: Mapping[str, Package] = import_module(registry).PACKAGES
    unknown = [name for name in only if name not in packages]
    if unknown:
        raise ValueError(f"no package {unknown[0]} is known; there are {', '.join(packages)}")
    asked = [packages[name] for name in only] or list(packages.values())
    total = sum(len(package.ops) for package in asked)
    results: list[Result] = []
    absent: dict[str, str] = {}
    done = 0
    for package in asked:
        for number, answer in _answers(registry, package):
            if answer is None:
                if progress is not None:
                    progress(done + number, total, package.ops[number].name)
            elif isinstance(answer, str):
                absent[package.name] = answer
            else:
                results.append(answer)
        done += len(package.ops)
    if progress is not None:
        progress(total, total, "")
    return SurveyReport(tuple(results), absent, versions())


def _answers(registry: str, package: Package) -> Iterator[tuple[int, Result | str | None]]:
    """For each op its number and None when it starts, and its result; or 0 and why the package is absent."""
    first, version = 0, ""
    while first < len(package.ops):
        running: int | None = None
        with _Child(registry, package.name, str(first)) as child:
            for event in child.events():
                kind = event.pop("event")
                if kind == "absent":
                    yield 0, event["reason"]
                    return
                if kind == "present":
                    version = event["version"]
                elif kind == "start":
                    running = event["op"]
                    yield running, None
                else:
                    number = event.pop("op")
                    yield number, _result(package, version, package.ops[number], **event)
                    first, running = number + 1, None
        if running is None and first < len(package.ops):  # it ended between two ops, or before the first
            if not first:
                yield 0, child.end
                return
            running = first
        if running is not None:
            yield running, _result(package, version, package.ops[running], error=child.end)
            first = running + 1


def _result(
    package: Package,
    version: str,
    op: KnownOp,
    *,
    finding: dict[str, Any] | None = None,
    error: str | None = None,
    seconds: float | None = None,
) -> Result:
    found = finding or {"judged": "", "cause": None, "detail": error, "remarks": ()}
    verdict = "could not run" if finding is None else "passed" if finding["ok"] else "wrong"
    return Result(
        package.name, version, op.name, verdict, found["judged"], found["cause"], found["detail"],
        tuple(found["remarks"]), op.documented, op.links, op.reproduce, seconds, platform.python_version(),
    )  # fmt: skip


class _Child:
    """A process that writes events, and is ended when it is silent for too long."""

    def __init__(self, *arguments: str) -> None:
        home = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore", "PYTHONPATH": path}
        self._timed_out = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "npselect.survey.child", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            text=True,
            env=os.environ | quiet,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def _end(self) -> None:
        self._timed_out = True
        self._process.kill()

    def events(self) -> Iterator[dict[str, Any]]:
        """One after the other."""
        assert self._process.stdout is not None
        while True:
            timer = Timer(_PATIENCE, self._end)
            timer.start()
            try:
                text = self._process.stdout.readline()
            finally:
                timer.cancel()
            if not text:
                self._process.wait()
                return
            yield json.loads(text)

    @property
    def end(self) -> str:
        """How the process came to its end."""
        if self._timed_out:
            return f"it was ended after {_PATIENCE:g} s"
        status = self._process.returncode
        if status is not None and status < 0:
            return f"its process was ended by {signal.Signals(-status).name}"
        return f"its process ended with status {status}"
