"""The command: its options, its sections one after another within the budget, what it prints, and how it ends."""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from gpu import SECTIONS, WHOLE, Record, Section, summary, toolkit
from gpu.process import BENCH, end, run_section, start
from gpu.results import Results

__all__ = ["main"]

AT_LEAST = 6  # seconds below which no section is begun
NOTHING = "nothing measured"  # of a section that had but notes to make
ASKS_FOR_DEVICE = BENCH.parent / "npselect/bench/devices/nvidia.py"  # without loading npselect
KEPT_BACK = 4  # seconds for the summary, and for processes that end slowly

EPILOG = """\
Results: DIR/gpu.json (whole at any time; it grows section by section), DIR/raw.jsonl (every line as it came, with all
samples) and DIR/gpu.md (the summary).

Exit status: 0 all is well; 1 a section failed, or a bit differs; 2 there is no GPU, or the arguments are wrong;
130 interrupted.
"""


def main(
    arguments: Sequence[str] | None = None,
    sections: Sequence[Section] = SECTIONS,
    find_device: Callable[[], str | None] | None = None,
) -> int:
    """Run the command; `find_device` says why there is no GPU, or returns None."""
    options = _parse(arguments, sections)
    chosen = [section for section in sections if section.name in options.sections]
    options.written_for = sum(section.seconds for section in chosen)
    begun = time.monotonic()
    results = Results(
        options.out,
        command=["bench/gpu.py", *(sys.argv[1:] if arguments is None else arguments)],
        began=datetime.now(UTC).isoformat(timespec="seconds"),
        host={"python": platform.python_version(), "system": platform.platform(), "processors": os.cpu_count()},
        commit=_commit(),
        budget=options.budget,
        quick=options.quick,
    )
    with _interruptible():
        try:
            missing = (find_device or no_device)()
            if missing:
                for section in chosen:
                    print(f"{section.name}: skipped, no GPU here ({missing})")
                    results.section(section.name)["status"] = f"skipped: no GPU ({missing})"
                return 2
            with tempfile.TemporaryDirectory(prefix="gpu-sections-", ignore_cleanup_errors=True) as folder:
                _keep_machine_code()
                toolkit.point_at(Path(folder) / "toolkit")
                for i, section in enumerate(chosen):
                    left = options.budget - (time.monotonic() - begun) - KEPT_BACK
                    _one(section, left, options, results, Path(folder), last=i == len(chosen) - 1)
        except KeyboardInterrupt:
            results.content["interrupted"] = True
            print("interrupted")
            return 130
        finally:
            results.content["seconds"] = round(time.monotonic() - begun, 1)
            results.content["targets"] = summary.targets(results)
            results.save()
    text = summary.markdown(results)
    (options.out / "gpu.md").write_text(text, encoding="utf-8")
    print(f"\n{text}\n{results.path}, {results.content['seconds']:.0f} s of {options.budget:g}")
    return 0 if all(results.section(section.name)["status"] in ("ok", NOTHING) for section in chosen) else 1


def _one(
    section: Section, left: float, options: argparse.Namespace, results: Results, folder: Path, *, last: bool
) -> None:
    """One section: as long as it may take and, if it is the last, as long as there is."""
    entry = results.section(section.name)
    share = section.seconds * options.budget / min(WHOLE, options.written_for)
    seconds = left if last else min(left, share * (0.5 if options.quick else 1))
    if left < AT_LEAST:
        entry["status"] = f"skipped: {max(left, 0):.0f} s were left of the budget"
        print(f"{section.name}: {entry['status']}", flush=True)
        results.save()
        return
    saved = time.monotonic()

    def add(part: str, record: Record) -> None:
        nonlocal saved
        results.add(section.name, part, record)
        if time.monotonic() - saved > 5:
            results.save()
            saved = time.monotonic()

    entry["status"] = "interrupted"
    outcome = run_section(section, max(seconds, AT_LEAST / 2), folder, add, quick=options.quick)
    entry.update(status=outcome.status, seconds=round(outcome.seconds, 2), limit=round(seconds, 1))
    entry["digest"] = summary.digest(entry["records"])
    if entry["status"] == "ok" and summary.is_wrong(entry["records"]):
        entry["status"] = "wrong"
    elif entry["status"] == "ok" and entry["digest"].get("errors"):
        entry["status"] = "failed"
    elif entry["status"] == "ok" and all(record["kind"] == "note" for record in entry["records"]):
        entry["status"] = NOTHING
    results.save()
    print(summary.line(section.name, entry), flush=True)


def no_device() -> str | None:
    """Why there is no GPU, or None; asked in another process, lest a driver that hangs or crashes stop this one."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "device"
        process = start([sys.executable, "-P", str(ASKS_FOR_DEVICE)], log)
        try:
            status = process.wait(30)
        except subprocess.TimeoutExpired:
            return "the driver does not answer within 30 s"
        finally:
            end(process)
        said = log.read_text(errors="replace").strip().rpartition("\n")[2]
        return None if status == 0 else said or f"asking the driver ended with status {status}"


def _keep_machine_code() -> None:
    """One cache of compiled kernels for all sections, as old as the sources.

    numba's own caches do not notice a change in a file that a kernel merely imports.
    """
    digest = hashlib.sha256()
    for path in sorted((BENCH.parent / "npselect").rglob("*.py")):
        digest.update(path.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"npselect-gpu-{os.getuid()}-{digest.hexdigest()[:16]}"
    for part in (folder, folder / "driver"):
        part.mkdir(mode=0o700, exist_ok=True)
    os.environ.setdefault("NUMBA_CACHE_DIR", str(folder))
    os.environ.setdefault("CUDA_CACHE_PATH", str(folder / "driver"))  # of what the driver makes of them
    os.environ.setdefault("CUDA_CACHE_MAXSIZE", str(1 << 32))


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM, which a time limit sends, ends the command as Ctrl-C does; so does SIGINT, if a shell has it ignored."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _commit() -> str | None:
    """The checkout's commit, if git knows it; "+" if files differ from it."""
    try:
        ask = ["git", "-C", str(BENCH.parent), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
        return subprocess.run(ask, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _parse(arguments: Sequence[str] | None, sections: Sequence[Section]) -> argparse.Namespace:
    names = [section.name for section in sections]
    width = max(map(len, names), default=0)
    about = "\n".join(f"  {section.name:{width}}  {section.about}" for section in sections)
    parser = argparse.ArgumentParser(
        prog="python bench/gpu.py",
        description="Correctness and speed of npselect's CUDA tier on this machine's first NVIDIA GPU.",
        epilog=f"sections, in order:\n{about}\n\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where results go; made if need be")
    parser.add_argument("--budget", type=_seconds, default=WHOLE, metavar="S", help="seconds in all (%(default)s)")
    parser.add_argument(
        "--sections", type=lambda text: _names(text, names), default=names, metavar="A,B", help="only these (all)"
    )
    parser.add_argument("--quick", action="store_true", help="little of everything: to see that it works")
    return parser.parse_args(arguments)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds")
    return value


def _names(text: str, names: list[str]) -> list[str]:
    chosen = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in chosen if name not in names]
    if unknown or not chosen:
        raise argparse.ArgumentTypeError(
            f"{', '.join(unknown) or 'nothing'} is no section; there are {', '.join(names)}"
        )
    return chosen
