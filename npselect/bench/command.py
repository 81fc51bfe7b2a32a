"""The command ``npselect bench``."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from npselect._commands import CannotRunError, line, load, progress_bar, writable
from npselect.bench.harness import Effort, run
from npselect.bench.peers import PEERS
from npselect.bench.picture import draw
from npselect.bench.problem import OPERATORS
from npselect.bench.processor import restricted
from npselect.bench.report import BenchReport
from npselect.bench.threads import thread_count, threads_are
from npselect.testing import DTYPES
from npselect.testing.families import FAMILIES

__all__ = ["add_to"]

_EXAMPLE = """\
example:
  npselect bench examples/numpy_select.py --quick
  npselect bench my_module.py:MySelection --shape 8192x1024 --peer npselect --peer numpy --plot times.png

SUBJECT is what `npselect check` takes, FILE.py[:NAME] or package.module[:NAME]: forward(logits, temp) and
backward(grad_mask, logits, temp) over NumPy arrays of shape (rows, K). It is checked first, like every peer; what is
wrong is reported, and not timed.
exit status: 0 all is well, 1 the implementation is wrong, 2 it could not be run, 130 interrupted; times do not count
"""


_RESTRICTED = "NPSELECT_BENCH_CPU"  # marks the process that `_restricted_process` starts
_PATIENCE = 1.0  # seconds


def add_to(commands: Any) -> None:
    """Add the command to the subparsers of `argparse`."""
    bench = commands.add_parser(
        "bench",
        help="time an implementation beside others, and all of them beside a copy",
        description="Time npselect, NumPy, SciPy, PyTorch, JAX, TensorFlow and an implementation of your own, in "
        "turns, and a copy of as many bytes beside them.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bench.add_argument(
        "subject",
        metavar="SUBJECT",
        nargs="?",
        help="one more peer: a module, or an object in it, as FILE.py[:NAME] or package.module[:NAME]",
    )
    bench.add_argument(
        "--operator",
        choices=OPERATORS,
        action="append",
        help=f"may be given several times; with a SUBJECT one of {', '.join(FAMILIES)} (default: {OPERATORS[0]})",
    )
    bench.add_argument("--dtype", choices=DTYPES, action="append", help="may be given several times (default: float32)")
    bench.add_argument(
        "--shape",
        metavar="ROWSxK",
        type=_shape,
        action="append",
        help="of the logits; may be given several times (default: nine of 8.4 million elements, and 32x10)",
    )
    bench.add_argument(
        "--peer",
        choices=[peer.name for peer in PEERS],
        metavar="NAME",
        action="append",
        help=f"one to compare with; may be given several times (default: all): {', '.join(map(str, PEERS))}",
    )
    bench.add_argument("--temp", type=float, default=0.6, help="temperature (default: %(default)s)")
    bench.add_argument(
        "--cpu",
        metavar="NAME",
        help="run code for another processor that this one can run, by LLVM's name: haswell, x86-64-v2; npselect is "
        "compiled for it, the peers are restricted to its level, and the report names what could not be",
    )
    bench.add_argument("--quick", action="store_true", help="small shapes and few turns, to see that all runs")
    bench.add_argument("--json", metavar="OUT", type=Path, help="write all times to this file too")
    bench.add_argument("--plot", metavar="OUT.png", type=Path, help="draw time against choices")
    bench.set_defaults(run=_bench)


def _shape(text: str) -> tuple[int, int]:
    rows, _, choices = text.partition("x")
    if not (rows.isdecimal() and choices.isdecimal() and int(rows) and int(choices)):
        raise argparse.ArgumentTypeError(f"{text!r} is no shape like 1024x64")
    return int(rows), int(choices)


def _bench(options: argparse.Namespace) -> int:
    if options.cpu is not None and os.environ.get(_RESTRICTED) != options.cpu:
        return _restricted_process(options.cpu, options.arguments)
    _can_plot(options.plot)
    report = BenchReport()
    with ExitStack() as stack:
        try:
            stack.enter_context(threads_are(thread_count()))  # before a framework is loaded
        except ValueError as error:
            raise CannotRunError(line(error)) from error
        implementation = None if options.subject is None else load(options.subject)
        file = stack.enter_context(writable(options.json))
        if options.plot is not None:
            stack.enter_context(writable(options.plot, "--plot"))
        try:
            with progress_bar("timing") as progress:
                run(
                    implementation,
                    operators=options.operator or OPERATORS[:1],
                    dtypes=options.dtype or ["float32"],
                    shapes=options.shape,
                    peers=options.peer,
                    temp=options.temp,
                    cpu=options.cpu,
                    effort=Effort.of(options.quick),
                    progress=progress,
                    report=report,
                )
        except KeyboardInterrupt:
            if report.timings:
                _show(report)
                sys.stdout.flush()
            raise
        except (TypeError, ValueError, ImportError, RuntimeError) as error:
            raise CannotRunError(line(error)) from error
        if file is not None:
            file.write(report.to_json() + "\n")
    _show(report)
    if options.plot is not None:
        _plot(report, options.plot)
    return 0 if report.ok else 1


def _restricted_process(cpu: str, arguments: Sequence[str]) -> int:
    """The same command in a new process, for this one has loaded NumPy, which reads its variable only then."""
    try:
        _, variables = restricted(cpu)
    except ValueError as error:
        raise CannotRunError(f"--cpu {cpu}: {line(error)}") from error
    home = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, **variables, "PYTHONPATH": path, _RESTRICTED: cpu}
    sys.stdout.flush()
    command = [sys.executable, *(f"-W{option}" for option in sys.warnoptions), "-m", "npselect", *arguments]
    with subprocess.Popen(command, env=environment) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:  # a terminal sends it to both; whoever sends it to this one alone means both
            try:
                return process.wait(timeout=_PATIENCE)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
                return process.wait()


def _can_plot(path: Path | None) -> None:
    """Before the work is done."""
    if path is None:
        return
    if find_spec("matplotlib") is None:
        raise CannotRunError("--plot needs matplotlib: pip install 'npselect[bench]'")
    formats = import_module("matplotlib.backend_bases").FigureCanvasBase.get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in formats:
        raise CannotRunError(f"--plot {path}: no known format; there are {', '.join(sorted(formats))}")


def _plot(report: BenchReport, path: Path) -> None:
    try:
        draw(report, path)
    except ValueError as error:
        path.unlink(missing_ok=True)
        print(f"no plot: {line(error)}", file=sys.stderr)


def _show(report: BenchReport) -> None:
    """Lines of any length; on a terminal tables with frames, if rich is installed."""
    if not sys.stdout.isatty():
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
    for text in report.heading:
        console.print(Text(text), soft_wrap=True)
    for title, columns, rows in report.tables:
        table = Table(title=title, title_justify="left")
        for i, column in enumerate(columns):
            table.add_column(column, justify="right" if i and column else "left")
        for cells in rows:
            mine = cells[0] in report.own
            style = "red" if cells[-1].startswith("wrong") else "bold" if mine else ""
            table.add_row(*map(Text, cells), style=style)
        console.print(table)
    for text in report.footing:
        console.print(Text(text, "red" if text.startswith("wrong") else "dim"), soft_wrap=True)
