"""The command ``npselect survey``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from npselect._commands import CannotRunError, line, progress_bar, writable
from npselect.survey.page import page
from npselect.survey.report import COLUMNS, SurveyReport
from npselect.survey.run import survey
from npselect.testing.known_ops import PACKAGES

__all__ = ["add_to"]

_EXAMPLE = """\
example:
  npselect survey
  npselect survey --only torch --only jax --json survey.json

Each package is imported in a process of its own. What cannot be imported is named, with the reason.
exit status: 0 no op that could be run is wrong, 1 an op is wrong, 2 nothing could be run
"""


def add_to(commands: Any) -> None:
    """Add the command to the subparsers of `argparse`."""
    parser = commands.add_parser(
        "survey",
        help="judge the ops of other packages that are installed here",
        description="Judge the ops that other packages ship, where they are installed here: their masks, samples and "
        "gradients.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only",
        metavar="NAME",
        choices=[*PACKAGES],
        action="append",
        help=f"a package; may be given several times (default: all): {', '.join(PACKAGES)}",
    )
    parser.add_argument("--list", action="store_true", help="name the ops that are known, and run none")
    parser.add_argument("--json", metavar="OUT", type=Path, help="write all that was found to this file too")
    parser.add_argument(
        "--markdown", metavar="OUT", type=Path, help="write a page to this file too; what is by hand at its end stays"
    )
    parser.add_argument(
        "--add", metavar="EARLIER", type=Path, help="take packages that are absent here from this file of --json"
    )
    parser.set_defaults(run=_survey)


def _survey(options: argparse.Namespace) -> int:
    if options.list:
        for package in PACKAGES.values():
            for op in package.ops:
                print(f"{package.name:24} {op.name}")
        return 0
    earlier = None if options.add is None else _earlier(options.add)
    before = _read(options.markdown) if options.markdown is not None and options.markdown.is_file() else ""
    with writable(options.json) as file, writable(options.markdown, "--markdown") as document:
        with progress_bar("surveying") as progress:
            report = survey(options.only or (), progress=progress)
        if earlier is not None:
            report = report.merged(earlier)
        if file is not None:
            file.write(report.to_json() + "\n")
        if document is not None:
            document.write(page(report, f"npselect {' '.join(options.arguments)}", before))
    _show(report)
    return report.status


def _earlier(path: Path) -> SurveyReport:
    try:
        return SurveyReport.from_json(_read(path))
    except ValueError as error:
        raise CannotRunError(f"--add {path}: {line(error)}; it takes a file that --json wrote") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise CannotRunError(f"{path}: {error.strerror}") from error


def _show(report: SurveyReport) -> None:
    """Lines of any length; on a terminal a table with frames, if rich is installed."""
    if not sys.stdout.isatty() or not report.results:
        print(report)
        return
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        print(report)
        return
    console = Console()
    table = Table()
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    styles = {"wrong": "red", "could not run": "yellow"}
    for result in report.results:
        table.add_row(*map(Text, result.cells), style=styles.get(result.verdict, ""))
    console.print(table)
    for text in report.absences:
        console.print(Text(text, "dim"), soft_wrap=True)
    console.print(Text(report.summary, "bold"), soft_wrap=True)
