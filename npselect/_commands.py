"""What commands share: the object that FILE.py:NAME names, files to write to, a progress bar, errors in one line."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any, NoReturn, TextIO

__all__ = ["CannotRunError", "Parser", "ended", "line", "load", "progress_bar", "writable"]


class CannotRunError(Exception):
    """Why there is nothing to report, in one line."""


def load(subject: str) -> Any:
    """The object that ``FILE.py:NAME`` names."""
    file, name = subject, ""
    before, colon, after = subject.rpartition(":")
    if colon and not Path(subject).exists() and all(part.isidentifier() for part in after.split(".")):
        file, name = before, after
    module = _import(Path(file))
    try:
        return reduce(getattr, name.split("."), module) if name else module
    except AttributeError:
        raise CannotRunError(f"{file} has no {name}") from None


def _import(path: Path) -> Any:
    """The module in a file, whose folder becomes importable as it does for a script."""
    if not path.exists():
        raise CannotRunError(f"{path}: no such file")
    if not path.is_file():
        raise CannotRunError(f"{path} is not a file")
    path = path.resolve()
    name = path.stem if path.stem not in sys.modules else f"checked_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path, loader=SourceFileLoader(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f", line {lines[-1]}" if lines else ""
        raise CannotRunError(f"{path.name}{where} cannot be imported: {type(error).__name__}: {line(error)}") from error
    return module


@contextmanager
def writable(path: Path | None, option: str = "--json") -> Iterator[TextIO | None]:
    """The file to write to, tried before the work is done; if that fails, what was there stays."""
    if path is None:
        yield None
        return
    if path.suffix == ".py":
        raise CannotRunError(f"{option} {path}: that is the name of a Python file; the report would overwrite it")
    existed = path.exists()
    try:
        file = path.open("r+" if path.is_file() else "w", encoding="utf-8")
    except OSError as error:
        raise CannotRunError(f"{option} {path}: {error.strerror}") from error
    with file:
        try:
            yield file
        except BaseException:
            if not existed:
                file.close()
                path.unlink()
            raise
        if path.is_file():
            file.truncate()


def line(error: BaseException) -> str:
    """The first line of an error's message."""
    return next(iter(str(error).splitlines()), "no message")


@contextmanager
def progress_bar(text: str) -> Iterator[Callable[[int, int, str], object] | None]:
    """A bar on stderr, if that is a terminal and rich is installed."""
    if not sys.stderr.isatty():
        yield None
        return
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        yield None
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(text)
        yield lambda done, total, name: bar.update(task, completed=done, total=total, description=name)


class Parser(argparse.ArgumentParser):
    """Errors in one line, like all others."""

    def error(self, message: str) -> NoReturn:
        raise CannotRunError(f"{message} (see {self.prog} --help)")


def ended(name: str, run: Callable[[], int]) -> int:
    """The exit status of a command: its own; 2 if it cannot be run, and 130 if it is interrupted, after a line."""
    try:
        return run()
    except CannotRunError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
