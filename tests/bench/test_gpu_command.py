"""bench/gpu.py where there is no GPU: the machinery with sections that misbehave, and the comparison with faults."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
from gpu import SECTIONS

ROOT = Path(__file__).parents[2]

# A command of its own, whose sections are those of the file pretended.py (not fakes.py: tests/fakes is a package, and
# may come first on the path); it believes in a GPU.
COMMAND = """\
import sys
from gpu import Section
from gpu.command import main

names = sys.argv.pop(1).split(",")
parts = {"several": ("a", "b", "c")}
sections = [Section(name, f"pretended:{name}", 60, name, parts.get(name, ("",)), silence=1.5) for name in names]
sys.exit(main(sections=sections, find_device=lambda: None))
"""

FAKES = """\
import ctypes, os, subprocess, sys, time

def good(report, part):
    report.line("check", what="f", elements=10, differing=0)
    report.line("timing", what="f", of_copy=0.5, samples=[1.0, float("nan")])

def wrong(report, part):
    report.line("check", what="f", elements=10, differing=1, first=[{"at": [0]}])

def raising(report, part):
    report.line("check", what="f", elements=3, differing=0)
    raise LookupError("nothing there")

def attempting(report, part):
    with report.attempt("the first half"):
        raise LookupError("nothing there")
    report.line("check", what="f", elements=4, differing=0)

def lost(report, part):
    report.alive = lambda: False
    for unit in report.units(["one", "two", "three"]):
        with report.attempt(unit):
            report.line("check", what=unit, elements=1, differing=0)
            if unit == "two":
                raise RuntimeError("an illegal memory access was encountered")

def exiting(report, part):
    report.line("check", what="f", elements=5, differing=0)
    report.stream.write('{"kind": "check", "half a li')
    report.stream.flush()
    print("last words", flush=True)
    os._exit(7)

def crashing(report, part):
    for unit in report.units(["one", "two", "three"]):
        report.line("check", what=unit, elements=1, differing=0)
        if unit == "two":
            ctypes.string_at(0)

def hanging(report, part):
    for unit in report.units(["one", "two", "three"], each=0.5):
        report.line("check", what=unit, elements=1, differing=0)
        if unit == "two":
            time.sleep(1000)

def endless(report, part):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    report.fact("child", child.pid)
    while True:
        report.line("check", what="f", elements=1, differing=0)
        time.sleep(0.1)

def babbling(report, part):
    report.stream.write('no json\\n[1]\\n{"text": 1}\\n')
    report.line("check", what="f", elements=2, differing=0)

def several(report, part):
    report.fact(part, part)
    if part == "b":
        os.abort()

def patient(report, part):
    report.fact("patient", True)
    for unit in report.units(range(1000), each=0.5):
        time.sleep(0.2)
"""


def command(folder, sections, *options):
    (folder / "pretended.py").write_text(FAKES)
    (folder / "run.py").write_text(COMMAND)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT / "bench"), str(ROOT)])}
    arguments = [sys.executable, str(folder / "run.py"), sections, "--out", str(folder / "out"), *options]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def run(folder, sections, *options):
    process = command(folder, sections, *options)
    output, errors = process.communicate(timeout=60)
    assert errors == ""
    return process.returncode, output, read(folder)


def read(folder):
    def refuse(constant):
        raise ValueError(f"{constant} is no JSON")

    return json.loads((folder / "out" / "gpu.json").read_text(), parse_constant=refuse)


def elements(entry):
    return sum(record.get("elements", 0) for record in entry["records"])


def texts(entry, kind="error"):
    return "\n".join(
        f"{record.get('where')}: {record['text']}" for record in entry["records"] if record["kind"] == kind
    )


def test_all_is_well(tmp_path):
    status, output, found = run(tmp_path, "good")
    assert status == 0
    assert "good: ok, " in output
    entry = found["sections"]["good"]
    assert (entry["status"], elements(entry)) == ("ok", 10)
    assert "samples" not in entry["records"][1]
    raw = [json.loads(line) for line in (tmp_path / "out" / "raw.jsonl").read_text().splitlines()]
    assert raw[1]["samples"] == [1.0, "nan"]
    assert "| good | ok |" in (tmp_path / "out" / "gpu.md").read_text()


def test_whatever_fails_the_others_run(tmp_path):
    names = "raising,exiting,crashing,attempting,wrong,babbling,lost,several,good"
    status, output, found = run(tmp_path, names)
    assert status == 1
    sections = found["sections"]
    assert list(sections) == names.split(",")
    statuses = {name: entry["status"] for name, entry in sections.items()}
    assert (statuses.pop("good"), statuses.pop("wrong")) == ("ok", "wrong")
    assert set(statuses.values()) == {"failed"}
    found_elements = [elements(sections[name]) for name in ("raising", "exiting", "attempting", "wrong", "babbling")]
    assert found_elements == [3, 5, 4, 10, 2]
    assert "LookupError: nothing there" in texts(sections["raising"])
    assert "the first half: " in texts(sections["attempting"])
    assert "ended with status 7" in texts(sections["exiting"])
    assert "last words" in texts(sections["exiting"])
    assert texts(sections["babbling"]).count("no line of a section") == 3
    for name in names.split(","):
        assert f"{name}: {sections[name]['status']}, " in output


def test_a_crash_is_followed_by_the_rest(tmp_path):
    _, _, found = run(tmp_path, "crashing,lost")
    for name, how in (("crashing", "SIGSEGV"), ("lost", "status 1")):
        entry = found["sections"][name]
        done = [record["what"] for record in entry["records"] if record["kind"] == "check"]
        assert done == ["one", "two", "three"]
        assert how in texts(entry)
        assert f"{name} two" in texts(entry)


def test_a_part_that_crashes_leaves_its_neighbours(tmp_path):
    _, _, found = run(tmp_path, "several")
    entry = found["sections"]["several"]
    assert {record["name"] for record in entry["records"] if record["kind"] == "fact"} == {"a", "b", "c"}
    assert "several b: ended with signal SIGABRT" in texts(entry)


def test_a_hang_is_ended_and_followed_by_the_rest(tmp_path):
    begun = time.monotonic()
    status, _, found = run(tmp_path, "hanging,good", "--budget", "60")
    assert status == 1
    assert time.monotonic() - begun < 15
    entry = found["sections"]["hanging"]
    assert elements(entry) == 3
    assert "hanging two: no line for 1.5 s" in texts(entry)
    assert found["sections"]["good"]["status"] == "ok"


@pytest.mark.skipif(not Path("/proc").exists(), reason="whether a process runs is read in /proc, on Linux alone")
def test_the_budget_is_kept(tmp_path):
    begun = time.monotonic()
    status, output, found = run(tmp_path, "endless,patient,good", "--budget", "17")
    assert time.monotonic() - begun < 18
    assert status == 1
    entry = found["sections"]["endless"]
    assert entry["status"] == "out of time"
    assert elements(entry) > 5
    child = next(record["value"] for record in entry["records"] if record["kind"] == "fact")
    assert not running(child)
    assert found["sections"]["patient"]["status"] == "ok"
    assert "no time left for" in texts(found["sections"]["patient"], "note")
    assert found["sections"]["good"]["status"].startswith("skipped: ")
    assert "good: skipped: " in output


def running(process):
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc").exists(), reason="whether a process runs is read in /proc, on Linux alone")
@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(tmp_path, number):
    process = command(tmp_path, "good,endless,good")
    path = tmp_path / "out" / "raw.jsonl"
    deadline = time.monotonic() + 20
    while '"section": "endless"' not in (path.read_text() if path.exists() else ""):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "interrupted" in output
    found = read(tmp_path)
    assert found["interrupted"] is True
    assert found["sections"]["good"]["status"] == "ok"
    entry = found["sections"]["endless"]
    assert entry["status"] == "interrupted"
    assert not running(next(record["value"] for record in entry["records"] if record["kind"] == "fact"))


def test_without_a_gpu(tmp_path):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "gpu.py"), "--out", str(tmp_path / "out"), "--sections", "machine,many"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert time.monotonic() - begun < 10
    assert (done.returncode, done.stderr) == (2, "")
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["machine", "many"]
    assert all("no GPU" in line for line in lines)
    assert read(tmp_path)["sections"]["many"]["status"].startswith("skipped: no GPU")


@pytest.mark.parametrize("options", [["--budget", "0"], ["--sections", "nothing"], ["--budget", "soon"], []])
def test_wrong_arguments(tmp_path, options):
    out = ["--out", str(tmp_path)] if options else []
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "gpu.py"), *out, *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_every_section_is_there():
    for section in SECTIONS:
        module, _, name = section.function.partition(":")
        assert callable(getattr(import_module(module), name))


def test_help():
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "gpu.py"), "--help"], capture_output=True, text=True, check=True
    )
    for word in ("--budget", "--out", "--quick", "correctness", "gpu.json", "Exit status"):
        assert word in done.stdout
