"""Instructions an element, counted by valgrind: the same number on a busy machine as on a quiet one.

``python bench/count.py --cpu haswell`` counts what npselect's kernels issue when they are compiled for that processor,
whatever processor this is, as long as this one and valgrind can run the code (valgrind: no AVX-512). One process under
cachegrind imports everything and calls everything once; each count is then the difference of two forks of it, one that
worked on so many elements and one on twice as many. What a call costs whatever its size is in neither. One thread.

``--compile`` tells how long compiling takes instead: processor seconds of a first call, with an empty cache. The cache
is a new directory at each run, because numba does not notice changes in the modules that a kernel imports.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # npselect beside this file; the processes count the one that Python finds

from count_calls import ARRAYS, ELEMENTS, rows_of  # noqa: E402

from npselect._commands import CannotRunError, Parser, ended, line, progress_bar, writable  # noqa: E402
from npselect.bench.processor import restricted  # noqa: E402
from npselect.testing import DTYPES  # noqa: E402

Cell = tuple[str, str, int]  # function, dtype, choices
Progress = Callable[[int, int, str], object]

CHOICES = (8, 10, 64, 129, 1024, 32768)
FIRST_CALLS = (10, 1000)  # choices: a short row and a long one

EXAMPLE = """\
example:
  python bench/count.py --function backward --dtype float32 --choices 64 --choices 1024
  python bench/count.py --compile --cpu x86-64-v4
  PYTHONPATH=../another/clone python bench/count.py --json before.json
exit status: 0 all was counted, 2 it could not be, 130 interrupted
"""


def process(
    cpu: str,
    cache: Path,
    arguments: list[str],
    command: list[str] | None = None,
    tell: Callable[[], object] = lambda: None,
) -> str:
    """What count_calls.py prints as a process whose code is for a processor; `tell` is called meanwhile."""
    environment = {
        **os.environ,
        "NUMBA_CPU_NAME": cpu,
        "NUMBA_CPU_FEATURES": "",  # those of the name, not those of this processor
        "NUMBA_CACHE_DIR": str(cache),
        "NPSELECT_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
        # One instruction that clears thousands of bytes, `rep stosb`, valgrind counts as thousands.
        "GLIBC_TUNABLES": "glibc.cpu.x86_rep_stosb_threshold=1073741824",
    }
    words = [*(command or []), sys.executable, str(HERE / "count_calls.py"), *arguments]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        while True:
            try:
                out, err = run.communicate(timeout=0.5)
                break
            except subprocess.TimeoutExpired:
                tell()
            except BaseException:
                run.kill()
                raise
    if run.returncode:
        last = next(iter(reversed(err.strip().splitlines())), "no message")
        raise CannotRunError(f"a process compiled for {cpu} ended with status {run.returncode}: {last}")
    return out


@contextmanager
def temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="npselect-count-") as name:
        yield Path(name)


def counted(cpu: str, cells: list[Cell], progress: Progress | None = None) -> dict[Cell, float]:
    """Instructions an element of each cell."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise CannotRunError("there is no valgrind on the path; install it (Debian: apt-get install valgrind)")
    with temporary() as folder:
        cache, counts = folder / "cache", folder / "counts"
        counts.mkdir()

        def tell(text: str) -> None:
            if progress is not None:
                progress(len(list(counts.glob("*.cell"))), 2 * len(cells), text)

        text = json.dumps(cells)
        process(cpu, cache, ["calls", text], tell=lambda: tell("compiling"))
        command = [valgrind, "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
        command.append(f"--log-file={counts}/%p.log")
        process(cpu, cache, ["calls", text, str(counts)], command, lambda: tell("counting"))
        return differences(counts)


def differences(counts: Path) -> dict[Cell, float]:
    """What the logs of the forks say, an element."""
    found: dict[Cell, dict[int, int]] = {}
    for path in counts.glob("*.cell"):
        function, dtype, choices, times = json.loads(path.read_text())
        found.setdefault((function, dtype, choices), {})[times] = instructions(path.with_suffix(".log"))
    return {cell: (each[2] - each[1]) / (rows_of(cell[2], 1) * cell[2]) for cell, each in found.items()}


def instructions(log: Path) -> int:
    for text in log.read_text().splitlines():
        words = text.split()  # ==1234== I refs: 1,234,567
        if words[1:3] in (["I", "refs:"], ["I", "refs"]):
            return int(words[-1].replace(",", ""))
    raise CannotRunError(f"valgrind counted nothing: {log.read_text().strip()[-200:]}")


def table(found: dict[Cell, float]) -> str:
    """Functions and dtypes down, choices across."""
    choices = sorted({cell[2] for cell in found})
    lines = [
        "| function | dtype | " + " | ".join(f"K = {k:,}" for k in choices) + " |",
        "|---|---|" + "---|" * len(choices),
    ]
    for function, dtype in dict.fromkeys(cell[:2] for cell in found):
        cells = [f"{found[function, dtype, k]:.1f}" for k in choices]
        lines.append(f"| {function} | {dtype} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def compiled(cpu: str, progress: Progress | None = None) -> dict[int, dict[str, float]]:
    """Processor seconds of first calls with an empty cache, by choices."""
    found = {}
    for done, choices in enumerate(FIRST_CALLS):
        if progress is not None:
            progress(done, len(FIRST_CALLS), f"first calls, K = {choices:,}")
        with temporary() as cache:
            found[choices] = json.loads(process(cpu, cache, ["first", str(choices)]))
    return found


def compile_table(found: dict[int, dict[str, float]]) -> str:
    lines = ["| float32 | import | forward | backward |", "|---|---|---|---|"]
    for choices, seconds in found.items():
        cells = [f"{seconds[name]:.2f}" for name in ("import", "forward", "backward")]
        lines.append(f"| K = {choices:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------------ the command


def parser() -> argparse.ArgumentParser:
    options = Parser(
        prog="python bench/count.py",
        description="Instructions an element, or seconds of compilation, of npselect's kernels on one thread.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--cpu", default="haswell", help="by LLVM's name; this one must run it (default: %(default)s)")
    options.add_argument(
        "--function",
        choices=ARRAYS,
        action="append",
        help="may be given several times (default: forward, backward, soft)",
    )
    options.add_argument("--dtype", choices=DTYPES, action="append", help="may be given several times (default: all)")
    options.add_argument(
        "--choices",
        metavar="K",
        type=positive,
        action="append",
        help=f"may be given several times (default: {', '.join(map(str, CHOICES))})",
    )
    options.add_argument("--compile", action="store_true", help="processor seconds of first calls instead")
    options.add_argument("--json", metavar="FILE", type=Path, help="write the numbers to this file too")
    return options


def positive(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= ELEMENTS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of choices from 1 to {ELEMENTS}")
    return int(text)


def count(options: argparse.Namespace, progress: Progress | None) -> dict[str, Any]:
    """Print the table, and return what goes to the file."""
    if options.compile:
        seconds = compiled(options.cpu, progress)
        print(f"Processor seconds, cache empty, code for {options.cpu}:\n\n{compile_table(seconds)}")
        return {"cpu": options.cpu, "seconds": seconds}
    cells = [
        (function, dtype, choices)
        for function in options.function or ("forward", "backward", "soft")
        for dtype in options.dtype or DTYPES
        for choices in options.choices or CHOICES
    ]
    found = counted(options.cpu, cells, progress)
    found = {cell: found[cell] for cell in cells}
    print(f"Instructions an element, code for {options.cpu}:\n\n{table(found)}")
    keys = ("function", "dtype", "choices", "instructions")
    counts = [dict(zip(keys, (*cell, value), strict=True)) for cell, value in found.items()]
    return {"cpu": options.cpu, "counts": counts}


def run(arguments: list[str] | None) -> int:
    options = parser().parse_args(arguments)
    with writable(options.json) as file:
        if platform.machine() in ("x86_64", "AMD64"):  # else any name is taken as it is
            try:
                restricted(options.cpu)
            except ValueError as error:
                raise CannotRunError(f"--cpu {options.cpu}: {line(error)}") from error
        with progress_bar("counting") as progress:
            written = count(options, progress)
        if file is not None:
            file.write(json.dumps(written, indent=1) + "\n")
    return 0


def main(arguments: list[str] | None = None) -> int:
    return ended("count", lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
