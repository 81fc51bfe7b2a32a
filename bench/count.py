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
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

CHOICES = (8, 10, 64, 129, 1024, 32768)
DTYPES = ("float16", "bfloat16", "float32", "float64")
ARRAYS = {  # what a function takes before temp
    "forward": ("logits",),
    "index": ("logits",),
    "soft": ("logits",),
    "backward": ("grad", "logits"),
    "backward_temp": ("grad", "logits"),
    "double_backward": ("grad_grad", "grad", "logits"),
    "gumbel_forward": ("logits",),
    "gumbel_backward": ("grad", "logits"),
}
ELEMENTS = 1 << 16  # twice as many are still few enough for one thread and one range
FIRST_CALLS = (10, 1000)  # choices: a short row and a long one

EXAMPLE = """\
example:
  python bench/count.py --function backward --dtype float32 --choices 64 --choices 1024
  python bench/count.py --compile --cpu x86-64-v4
  PYTHONPATH=../another/clone python bench/count.py --json before.json
exit status: 0 all was counted, 2 it could not be, 130 interrupted
"""


class CannotCountError(Exception):
    """Why there is nothing to print, in a few words."""


# ------------------------------------------------------------------------------------------------ in the processes


def call(function: str, dtype: str, choices: int, rows: int) -> Callable[[], object]:
    """A call of npselect with arrays of its own, results included; few exponentials are 0."""
    noisy, name = function.startswith("gumbel_"), function.removeprefix("gumbel_")
    operator = import_module("npselect.gumbel_softmax" if noisy else "npselect.straight_through")
    kind = np.dtype(getattr(import_module("ml_dtypes"), dtype) if dtype == "bfloat16" else dtype)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((rows, choices)).astype(kind) for _ in ARRAYS[function]]
    options: dict[str, Any] = {"seed": 1} if noisy else {}
    temps = [] if name == "index" else [0.6]
    result = getattr(operator, name)(*arrays, *temps, **options)
    return partial(getattr(operator, name), *arrays, *temps, **options, out=result)


def rows_of(choices: int, times: int) -> int:
    """So many rows that short ones fill whole tiles of sixteen."""
    return times * max(1, ELEMENTS // choices // 16 * 16 or ELEMENTS // choices)


def inside(cells: list[tuple[str, str, int]], counts: Path | None) -> None:
    """Call everything once and, under valgrind, once more in each of two forks a cell."""
    for function, dtype, choices in cells:
        small, large = (call(function, dtype, choices, rows_of(choices, times)) for times in (1, 2))
        for one in (small, large):
            one()
        if counts is None:
            continue
        for times, one in ((1, small), (2, large)):
            child = os.fork()
            if child == 0:
                one()
                (counts / f"{os.getpid()}.cell").write_text(json.dumps([function, dtype, choices, times]))
                os._exit(0)
            _, status = os.waitpid(child, 0)
            if status:
                raise CannotCountError(f"{function}, {dtype}, {choices} choices: status {status}")


def first_calls(choices: int) -> None:
    """Processor seconds of the first calls of a process, as JSON."""
    started = time.process_time()
    import_module("npselect.backends.cpu")
    seconds = {"import": time.process_time() - started}
    logits = np.zeros((1, choices), np.float32)
    operator = import_module("npselect.straight_through")
    for name, arrays in (("forward", (logits,)), ("backward", (logits, logits))):
        started = time.process_time()
        getattr(operator, name)(*arrays)
        seconds[name] = time.process_time() - started
    print(json.dumps(seconds))


# ------------------------------------------------------------------------------------------------ around them


def process(cpu: str, cache: Path, arguments: list[str], command: list[str] | None = None) -> str:
    """What this file prints as a process whose kernels are compiled for a processor."""
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
    run = subprocess.run(
        [*(command or []), sys.executable, __file__, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        last = next(iter(reversed(run.stderr.strip().splitlines())), "no message")
        raise CannotCountError(f"a process compiled for {cpu} ended with status {run.returncode}: {last}")
    return run.stdout


@contextmanager
def temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="npselect-count-") as name:
        yield Path(name)


def counted(cpu: str, cells: list[tuple[str, str, int]]) -> dict[tuple[str, str, int], float]:
    """Instructions an element of each cell."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise CannotCountError("there is no valgrind on the path; install it (Debian: apt-get install valgrind)")
    with temporary() as folder:
        cache, counts = folder / "cache", folder / "counts"
        counts.mkdir()
        text = json.dumps(cells)
        process(cpu, cache, ["--inside", text])
        command = [valgrind, "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
        command.append(f"--log-file={counts}/%p.log")
        process(cpu, cache, ["--inside", text, "--counts", str(counts)], command)
        return differences(counts)


def differences(counts: Path) -> dict[tuple[str, str, int], float]:
    """What the logs of the forks say, an element."""
    found: dict[tuple[str, str, int], dict[int, int]] = {}
    for path in counts.glob("*.cell"):
        function, dtype, choices, times = json.loads(path.read_text())
        found.setdefault((function, dtype, choices), {})[times] = instructions(path.with_suffix(".log"))
    return {cell: (each[2] - each[1]) / (rows_of(cell[2], 1) * cell[2]) for cell, each in found.items()}


def instructions(log: Path) -> int:
    for text in log.read_text().splitlines():
        words = text.split()  # ==1234== I refs: 1,234,567
        if words[1:3] in (["I", "refs:"], ["I", "refs"]):
            return int(words[-1].replace(",", ""))
    raise CannotCountError(f"valgrind counted nothing: {log.read_text().strip()[-200:]}")


def table(found: dict[tuple[str, str, int], float]) -> str:
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


def compiled(cpu: str) -> dict[int, dict[str, float]]:
    """Processor seconds of first calls with an empty cache, by choices."""
    found = {}
    for choices in FIRST_CALLS:
        with temporary() as cache:
            found[choices] = json.loads(process(cpu, cache, ["--first-calls", str(choices)]))
    return found


def compile_table(found: dict[int, dict[str, float]]) -> str:
    lines = ["| float32 | import | forward | backward |", "|---|---|---|---|"]
    for choices, seconds in found.items():
        cells = [f"{seconds[name]:.2f}" for name in ("import", "forward", "backward")]
        lines.append(f"| K = {choices:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------------ the command


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
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
    options.add_argument("--inside", type=json.loads, help=argparse.SUPPRESS)
    options.add_argument("--counts", type=Path, help=argparse.SUPPRESS)
    options.add_argument("--first-calls", type=int, help=argparse.SUPPRESS)
    return options


def positive(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= ELEMENTS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of choices from 1 to {ELEMENTS}")
    return int(text)


def count(options: argparse.Namespace) -> None:
    if options.compile:
        seconds = compiled(options.cpu)
        print(f"Processor seconds, cache empty, code for {options.cpu}:\n\n{compile_table(seconds)}")
        written: Any = {"cpu": options.cpu, "seconds": seconds}
    else:
        cells = [
            (function, dtype, choices)
            for function in options.function or ("forward", "backward", "soft")
            for dtype in options.dtype or DTYPES
            for choices in options.choices or CHOICES
        ]
        found = counted(options.cpu, cells)
        found = {cell: found[cell] for cell in cells}
        print(f"Instructions an element, code for {options.cpu}:\n\n{table(found)}")
        keys = ("function", "dtype", "choices", "instructions")
        written = {
            "cpu": options.cpu,
            "counts": [dict(zip(keys, (*cell, value), strict=True)) for cell, value in found.items()],
        }
    if options.json is not None:
        options.json.write_text(json.dumps(written, indent=1) + "\n")


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        if options.inside is not None:
            inside(options.inside, options.counts)
        elif options.first_calls is not None:
            first_calls(options.first_calls)
        else:
            count(options)
    except (CannotCountError, OSError) as error:
        print(f"count: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("count: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
