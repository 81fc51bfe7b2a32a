"""The command ``npselect``: it loads, asks `npselect.testing`, `bench`, `survey` or `tiers`, and prints.

Exit status: 0 all is well, 1 an implementation is wrong, 2 it could not be run, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import npselect
from npselect import testing
from npselect._commands import CannotRunError, Parser, ended, line, load, progress_bar, writable
from npselect.bench import command as bench_command
from npselect.survey import command as survey_command
from npselect.testing.families import FAMILIES
from npselect.testing.vectors import WRITTEN

__all__ = ["main"]

_EXAMPLE = """\
example:
  npselect check examples/numpy_select.py
  npselect check my_module.py:MySelection --dtype float16 --json report.json
  npselect check package.module:selection
  npselect bench examples/numpy_select.py --quick

SUBJECT is FILE.py or package.module, or an object in either, named after a colon; the current directory is importable.
It holds forward(logits, temp) and backward(grad_mask, logits, temp) over NumPy arrays of shape (rows, K).
exit status: 0 all cases pass, 1 the implementation is wrong, 2 it could not be run
"""


_OPERATORS = [*FAMILIES]
_GIVEN = ", ".join(
    f"{family.name} gives {' and '.join(f'{option}=' for option in family.given)}"
    for family in FAMILIES.values()
    if family.given
)


_TEMPS = ", ".join(f"{family.temp:g} for {family.name}" for family in FAMILIES.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments : sequence of str, optional
        Without the name of the program; by default those of the process.

    Returns
    -------
    int
        The exit status.

    Examples
    --------
    >>> from npselect.cli import main
    >>> main(["check", "missing.py"])
    2
    """
    try:
        return ended("npselect", lambda: _run(sys.argv[1:] if arguments is None else arguments))
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"npselect: error: the report cannot be written: {error.strerror}", file=sys.stderr)
        return 2


def _run(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments, argparse.Namespace(arguments=arguments))
    if sys.stdout is None:
        raise CannotRunError("there is no standard output to write to")
    status = options.run(options)
    sys.stdout.flush()
    assert isinstance(status, int)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="npselect",
        description="Straight-through selection: check an implementation against the oracle, or time it beside others.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"npselect {npselect.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    check = commands.add_parser(
        "check",
        help="run an implementation and the oracle on the same cases and compare",
        description="Run an implementation and the oracle on the same cases and compare.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument(
        "subject",
        metavar="SUBJECT",
        nargs="?",
        default="examples/numpy_select.py",
        help="FILE.py[:NAME] or package.module[:NAME]: a module, or an object in it; NAME may be dotted "
        "(default: %(default)s)",
    )
    check.add_argument("--temp", type=float, help=f"temperature (default: {_TEMPS})")
    check.add_argument(
        "--dtype",
        choices=testing.DTYPES,
        action="append",
        help="of the arrays; may be given several times (default: float32)",
    )
    check.add_argument(
        "--operator",
        choices=_OPERATORS,
        default=_OPERATORS[0],
        help=f"what is implemented; {_GIVEN}, which the functions must take (default: %(default)s)",
    )
    check.add_argument(
        "--backend", choices=["reference", "cpu"], default="reference", help="the oracle (default: %(default)s)"
    )
    check.add_argument(
        "--profile",
        choices=testing.PROFILES,
        default="standard",
        help="standard accepts every honest textbook implementation, strict judges every case by npselect's own bound "
        "(default: %(default)s)",
    )
    check.add_argument(
        "--selection",
        action="store_true",
        help="what is checked is a whole layer: forward(x, logits, temp) returns the chosen vectors, and "
        "backward(grad_chosen, x, logits, temp) the gradients of x and of the logits",
    )
    check.add_argument(
        "--known",
        metavar=("CASE", "REASON"),
        nargs=2,
        action="append",
        default=[],
        help="a case that may fail, and must, and why; CASE is its id, or a pattern that covers several; may be given "
        "several times",
    )
    check.add_argument("--json", metavar="REPORT", type=Path, help="write the report to this file too")
    check.set_defaults(run=_check)

    vectors = commands.add_parser(
        "vectors",
        help="write the cases and their answers as JSON, for tests that cannot import Python",
        description="Write the cases and the oracle's answers as JSON, a file for each operator and dtype, and beside "
        "them the JSON Schema that says what they hold. The same bytes come out every time.",
    )
    vectors.add_argument(
        "--out", metavar="DIR", type=Path, required=True, help="where to; files that are there already are replaced"
    )
    vectors.add_argument(
        "--dtype",
        choices=testing.DTYPES,
        action="append",
        help="of the arrays; may be given several times (default: all of them)",
    )
    vectors.add_argument(
        "--operator", choices=[*WRITTEN], action="append", help="may be given several times (default: all)"
    )
    vectors.set_defaults(run=_vectors)

    bench_command.add_to(commands)
    survey_command.add_to(commands)

    warm_up = commands.add_parser(
        "warm-up",
        help="compile ahead of time, for the processes to come",
        description="Compile the CPU tier's kernels ahead of time and keep the machine code where later processes find "
        "it: in the directory that NUMBA_CACHE_DIR names, else beside the package or in the user's cache directory.",
    )
    warm_up.add_argument(
        "--dtype",
        choices=testing.DTYPES,
        action="append",
        help="of the arrays to come; may be given several times (default: float32)",
    )
    warm_up.add_argument(
        "--operator",
        choices=[*npselect.OPERATORS],
        action="append",
        help="may be given several times (default: all)",
    )
    warm_up.set_defaults(run=_warm_up)

    backends = commands.add_parser(
        "backends", help="what runs here, and why not where not", description="What runs here, and why not where not."
    )
    backends.set_defaults(run=_backends)
    return parser


# ------------------------------------------------------------------------------------------------ the commands


def _backends(_: argparse.Namespace) -> int:
    for tier in npselect.backends().values():
        print(tier)
    return 0


def _warm_up(options: argparse.Namespace) -> int:
    started = time.perf_counter()
    try:
        with progress_bar("compiling") as progress:
            count = npselect.warm_up(
                options.dtype or "float32", options.operator or npselect.OPERATORS, progress=progress
            )
    except (ImportError, RuntimeError) as error:
        raise CannotRunError(line(error)) from error
    except OSError as error:  # of numba, which writes to its cache
        raise CannotRunError(f"the machine code cannot be kept: {error.strerror or line(error)}") from error
    from npselect.tiers.cpu.compilations import cache_folder

    path = cache_folder()
    if path is None:
        raise CannotRunError("nothing is kept: no cache directory can be written; name one in NUMBA_CACHE_DIR")
    print(f"{count} kernels compiled in {time.perf_counter() - started:.1f} s, kept in {path}")
    return 0


def _vectors(options: argparse.Namespace) -> int:
    try:
        with progress_bar("writing vectors") as progress:
            paths = testing.write_vectors(
                options.out,
                dtypes=options.dtype or testing.DTYPES,
                operators=[getattr(npselect, name) for name in options.operator or WRITTEN],
                progress=progress,
            )
        written = [(path.name, len(testing.load_vectors(path)), path.read_bytes()) for path in paths]
    except OSError as error:
        raise CannotRunError(f"--out {options.out}: {error.strerror}") from error
    except ImportError as error:
        raise CannotRunError(line(error)) from error
    for name, cases, whole in written:
        print(f"{name:30} {cases:4} cases {len(whole):9} bytes  sha256 {sha256(whole).hexdigest()}")
    total = sum(len(whole) for *_, whole in written)
    print(f"{sum(cases for _, cases, _ in written)} cases, {total} bytes, and vectors.schema.json in {options.out}")
    return 0


def _check(options: argparse.Namespace) -> int:
    if options.selection and (options.profile, options.backend) != ("standard", "reference"):
        raise CannotRunError("--selection has one profile, standard, and one oracle, reference")
    implementation = load(options.subject)
    how = {} if options.selection else {"backend": options.backend, "profile": options.profile}
    how |= {} if options.temp is None else {"temp": options.temp}
    with writable(options.json) as file, progress_bar("checking") as progress:
        try:
            report = (testing.check_selection if options.selection else testing.check)(
                implementation,
                operator=getattr(npselect, options.operator),
                dtypes=options.dtype or ["float32"],
                known=dict(options.known),
                progress=progress,
                **how,
            )
        except (TypeError, ValueError, ImportError, RuntimeError) as error:
            raise CannotRunError(line(error)) from error
        if file is not None:
            file.write(report.to_json() + "\n")
    _show(report)
    return 0 if report.ok else 1


def _show(report: testing.Report) -> None:
    """Lines of any length; in colours on a terminal, if rich is installed. The verdict comes again at the end."""
    text = "\n".join([str(report), "", *report.verdict])
    if not sys.stdout.isatty():
        print(text)
        return
    try:
        from rich.console import Console
        from rich.text import Text
    except ImportError:
        print(text)
        return
    verdict = "bold green" if report.ok else "bold red"
    styles = {
        "dtype": "bold",
        "verdict": "bold",
        "failed": "bold red",
        "known": "yellow",
        "differs": "dim",
        "first": "bold",
    }
    lines = text.splitlines()
    console = Console()
    for each in lines:
        style = verdict if each == lines[0] else styles.get(next(iter(each.split()), ""), "")
        console.print(Text(each, style), soft_wrap=True)
