"""What commands share: the object that a subject names, files to write to, a progress bar, errors in one line."""

from __future__ import annotations

import argparse
import importlib
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
    """The object that ``FILE.py[:NAME]`` or ``package.module[:NAME]`` names."""
    home, name = subject, ""
    before, colon, after = subject.rpartition(":")
    if colon and not Path(subject).exists() and _is_dotted(after):
        home, name = before, after
    is_file = Path(home).is_file() or Path(home).suffix == ".py" or not _is_dotted(home)
    module = _from_file(Path(home)) if is_file else _from_name(home)
    try:
        return reduce(getattr, name.split("."), module) if name else module
    except AttributeError:
        raise CannotRunError(f"{home} has no {name}") from None


def _is_dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _from_file(path: Path) -> Any:
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
        raise _not_imported(path.name, error) from error
    return module


def _from_name(name: str) -> Any:
    """The module of that name; the current directory is importable as it is to ``python -m``."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is None or not f"{name}.".startswith(f"{missing}."):
            raise _not_imported(name, error) from error
    parent, _, last = missing.rpartition(".")
    if parent:
        raise CannotRunError(f"{parent} has no module {last}; an object in it is {parent}:{last}")
    raise CannotRunError(
        f"{name}: no such file, and no module {missing} in the current directory or where Python finds packages"
    )


def _not_imported(what: str, error: BaseException) -> CannotRunError:
    """Why a module cannot be imported, and in which line of it: its file is the first that is not of the machinery."""
    ours = (__file__, importlib.__file__)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename not in ours]
    frames = [frame for frame in frames if not frame.filename.startswith("<frozen ")]
    file = Path(frames[0].filename).name if frames else ""
    lines = [frame.lineno for frame in frames if frame.filename == frames[0].filename]
    where = f"{what if what.endswith(file) else f'{what}: {file}'}, line {lines[-1]}" if lines else what
    return CannotRunError(f"{where} cannot be imported: {type(error).__name__}: {line(error)}")


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
