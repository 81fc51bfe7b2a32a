"""What the process of one package does: import it, judge op after op, and write a line of JSON for each event."""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TextIO

from npselect._commands import line
from npselect.testing.known_ops import Package

__all__ = ["events"]

Tell = Callable[..., object]


def events(package: Package, first: int, tell: Tell) -> None:
    """Judge the ops of a package from number `first` on.

    Parameters
    ----------
    package : Package
        To import.
    first : int
        The number of the first op: those before it have been judged.
    tell : callable
        Called with ``event="absent", reason=...``; or with ``event="present", version=...`` and then, for each op,
        ``event="start", op=number`` and ``event="end", op=number, seconds=...`` with ``finding=...`` or ``error=...``.
    """
    try:
        modules = [import_module(name) for name in package.modules]
    except (Exception, SystemExit) as error:  # whatever happens while others' modules are imported
        tell(event="absent", reason=_reason(error))
        return
    tell(event="present", version=_version(package) or str(getattr(modules[0], "__version__", "unknown")))
    for number, op in enumerate(package.ops[first:], first):
        tell(event="start", op=number)
        started = time.perf_counter()
        outcome: dict[str, object]
        try:
            outcome = {"finding": asdict(op.judge(op.subject()))}
        except (Exception, SystemExit) as error:
            outcome = {"error": _reason(error)}
        tell(event="end", op=number, seconds=round(time.perf_counter() - started, 1), **outcome)


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {line(error)}"


def _version(package: Package) -> str | None:
    for name in package.distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def main(registry: str, name: str, first: int) -> None:
    """Write to what was the standard output; what frameworks print there goes to standard error."""
    channel: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")  # those of others are not for whoever asks for verdicts

    def tell(**event: object) -> None:
        channel.write(json.dumps(event) + "\n")
        channel.flush()

    events(import_module(registry).PACKAGES[name], first, tell)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
