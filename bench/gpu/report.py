"""How a section hands back what it finds: a line of JSON at a time, each whole once it is written."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from gpu.results import plain

__all__ = ["DeviceLostError", "Report", "last_lines"]


class DeviceLostError(RuntimeError):
    """The device no longer answers this process; another process may find it well."""


class Report:
    """What a section is given to write to.

    Attributes
    ----------
    quick : bool
        Whether little is to be done of everything.
    alive : callable
        Whether the device still answers; asked after an exception.
    """

    def __init__(self, stream: TextIO, seconds: float, *, quick: bool = False, done: Iterable[str] = ()) -> None:
        self.stream, self.end = stream, time.monotonic() + seconds
        self.quick, self.done = quick, set(done)
        self.alive: Callable[[], bool] = lambda: True

    def left(self) -> float:
        """Seconds that remain."""
        return self.end - time.monotonic()

    def line(self, kind: str, **fields: Any) -> None:
        """Write one line."""
        self.stream.write(json.dumps({"kind": kind, **plain(fields)}, allow_nan=False) + "\n")
        self.stream.flush()

    def beat(self) -> None:
        """Show that this process does not hang."""
        self.line("beat")

    def fact(self, name: str, value: Any) -> None:
        """What is so on this machine."""
        self.line("fact", name=name, value=value)

    def note(self, text: str) -> None:
        """What a reader should know."""
        self.line("note", text=text)

    def error(self, where: str, error: BaseException) -> None:
        """What went wrong."""
        self.line("error", where=where, text=last_lines(error))

    @contextmanager
    def attempt(self, where: str) -> Iterator[None]:
        """What raises in here is reported, and the section goes on, unless the device is lost."""
        try:
            yield
        except Exception as error:
            self.error(where, error)
            if not self.alive():
                raise DeviceLostError(f"after {where}") from error

    def units(self, names: Iterable[Any], *, each: float = 3.0) -> Iterator[Any]:
        """What of `names` is to be done and still fits, each taking `each` seconds or more.

        A process that dies in a unit is followed by another, which is told what was begun and does the rest.
        """
        names = [name for name in names if str(name) not in self.done]
        for i, name in enumerate(names):
            if self.left() < each:
                self.note(f"no time left for {', '.join(map(str, names[i:]))}")
                return
            self.line("begin", unit=str(name))
            yield name


def last_lines(error: BaseException, count: int = 8) -> str:
    """The end of an exception's traceback."""
    lines = "".join(traceback.format_exception(error)).rstrip().splitlines()
    return "\n".join(lines[-count:])[-2000:]
