"""compute-sanitizer over small shapes of every class of kernels: accesses out of bounds, and races in shared memory."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from cuda_device.correctness import cases

from gpu.report import Report
from npselect.bench.devices import FUNCTIONS

__all__ = ["run", "work"]

TOOLS = ("memcheck", "racecheck", "initcheck")
CHOICES = (3, 33, 1000, 1025, 4097, 20_000)
FOUND = 77  # the status with which it ends if it found something


def run(report: Report, part: str) -> None:
    tool = find_sanitizer()
    if tool is None:
        report.note("compute-sanitizer is not installed")
        return
    report.fact("compute-sanitizer", tool)
    tools = TOOLS[:1] if report.quick else TOOLS
    for i, each in enumerate(tools):
        for unit in report.units([each], each=15):
            seconds = max(10.0, report.left() / (len(tools) - i) - 1)
            with report.attempt(unit):
                _sanitize(report, tool, unit, seconds)


def find_sanitizer() -> str | None:
    """On the PATH, or in a toolkit."""
    places = sorted(Path("/usr/local").glob("cuda*/bin")) + sorted(Path("/usr/local").glob("cuda*/compute-sanitizer"))
    found = (shutil.which("compute-sanitizer", path=path) for path in (None, *map(str, places)))
    return next(filter(None, found), None)


def _sanitize(report: Report, tool: str, check: str, seconds: float) -> None:
    command = [tool, "--tool", check, "--error-exitcode", str(FOUND), "--print-limit", "20"]
    command += [sys.executable, "-m", "gpu.sections.sanitizer"]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds, check=False
        )
        text, code = done.stdout, done.returncode
    except subprocess.TimeoutExpired as error:
        output: Any = error.stdout or b""
        text, code = (output.decode(errors="replace") if isinstance(output, bytes) else output), None
    calls = text.count("\ncalled ") + text.startswith("called ")
    said = [line for line in text.splitlines() if line.startswith("=========")]
    report.fact(check, said[-1].strip("= ") if said else text.strip()[-200:])
    if code in (0, FOUND):
        report.line("check", what=check, elements=calls, differing=int(code == FOUND), first=said[:12])
    else:
        ended = f"was not through after {seconds:.0f} s" if code is None else f"ended with status {code}"
        tail = "\n".join(text.strip().splitlines()[-6:])
        report.note(f"{check} {ended}, {calls} calls done: {tail}")


def work() -> None:
    """What is run under the tool: arrays of the host, so that no framework has to be loaded."""
    made = {choices: list(cases("float32", choices, 37))[1:3] for choices in CHOICES}
    for each in sorted(FUNCTIONS, key=lambda each: (each.noise, each.name not in ("backward", "double_backward"))):
        for choices in CHOICES:  # all ways to share a row out, and then the next function: it will not get to the last
            for case in made[choices]:
                options: dict[str, Any] = {"noise": case.noise, "where": case.where, "backend": "cuda"}
                each(case.cotangents[2 - each.cotangents :], case.logits, case.temp, **options)
                print("called", each, choices, flush=True)


if __name__ == "__main__":
    work()
