"""bench/count.py without valgrind: what is called in which process, what the logs mean, and what goes wrong."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "bench"
CELL = ("index", "float32", 8)
sys.path.append(str(BENCH))  # last: files of its tests have the names of ours

import count  # noqa: E402
from count_calls import ELEMENTS, rows_of  # noqa: E402


def log(path, instructions):
    path.write_text(f"==7== Cachegrind\n==7== \n==7== I refs:        {instructions:,}\n")


def test_each_cell_is_called_in_two_forks(tmp_path):
    command = [sys.executable, str(BENCH / "count_calls.py"), "calls", json.dumps([CELL]), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NPSELECT_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, timeout=300)
    calls = {path: json.loads(path.read_text()) for path in tmp_path.glob("*.cell")}
    assert sorted(calls.values()) == [[*CELL, 1], [*CELL, 2]]
    for path, (*_, times) in calls.items():
        log(path.with_suffix(".log"), 5_000_000_000 + times * 65536 * 3)
    assert count.differences(tmp_path) == {CELL: 3.0}
    log(next(path.with_suffix(".log") for path, cell in calls.items() if cell[-1] == 2), 5_000_000_000 + 4 * 65536 * 3)
    assert count.differences(tmp_path) == {CELL: 9.0}


def test_short_rows_fill_whole_tiles():
    for choices in count.CHOICES:
        rows = rows_of(choices, 1)
        assert rows_of(choices, 2) == 2 * rows
        assert choices > 128 or rows % 16 == 0
        assert ELEMENTS / 2 < rows * choices <= ELEMENTS


def test_a_log_without_a_count(tmp_path):
    path = tmp_path / "1.log"
    path.write_text("==1== Fatal error at startup\n")
    with pytest.raises(count.CannotRunError, match="counted nothing: ==1== Fatal error"):
        count.instructions(path)


def test_table():
    found = {("soft", "float16", 8): 1.25, ("soft", "float16", 1024): 30.0}
    assert count.table(found).splitlines() == [
        "| function | dtype | K = 8 | K = 1,024 |",
        "|---|---|---|---|",
        "| soft | float16 | 1.2 | 30.0 |",
    ]


@pytest.fixture
def any_processor(monkeypatch):
    monkeypatch.setattr(count, "restricted", lambda name: None)


def test_no_valgrind(any_processor, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    assert count.main([]) == 2
    assert "there is no valgrind on the path; install it" in capsys.readouterr().err


def test_interrupted(any_processor, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(count, "counted", interrupt)
    assert count.main([]) == 130
    assert capsys.readouterr().err == "count: interrupted\n"


def test_a_process_that_fails_says_why(tmp_path):
    with pytest.raises(count.CannotRunError, match=r"compiled for haswell ended with status 1: .*JSONDecodeError"):
        count.process("haswell", tmp_path, ["calls", "no JSON"])


def test_a_process_that_lasts_is_told_of(tmp_path):
    told = []
    code = "import time; time.sleep(1.2); print('done')"
    command = [sys.executable, "-c", code]  # and the script's name and arguments, which it does not read
    assert count.process("haswell", tmp_path, [], command, lambda: told.append(1)) == "done\n"
    assert len(told) in (1, 2)


def test_progress(monkeypatch, tmp_path):
    """A fork that has counted leaves a file: of two for each cell."""
    told = []

    def process(cpu, cache, arguments, command=None, tell=None):
        if command is not None:
            for name in ("1", "2", "3"):
                log(Path(arguments[-1]) / f"{name}.log", 65536 * 2 * int(name))
                (Path(arguments[-1]) / f"{name}.cell").write_text(json.dumps([*CELL, int(name)]))
        tell()

    monkeypatch.setattr(count, "process", process)
    monkeypatch.setattr(count.shutil, "which", lambda name: name)
    cells = [CELL, ("index", "float32", 10)]
    assert count.counted("haswell", cells, lambda *one: told.append(one)) == {CELL: 2.0}
    assert told == [(0, 4, "compiling"), (3, 4, "counting")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--choices", "0"], "'0' is no number of choices from 1 to 65536"),
        (["--choices=-1"], "'-1' is no number of choices from 1 to 65536"),
        (["--choices", "65537"], "'65537' is no number of choices from 1 to 65536"),
        (["--choices", "many"], "'many' is no number of choices from 1 to 65536"),
        (["--function", "sort"], "argument --function: invalid choice: 'sort'"),
        (["nonsense"], "unrecognized arguments: nonsense"),
        (["--json", "count.py"], "--json count.py: that is the name of a Python file"),
        (["--json", "no/such/folder.json"], "--json no/such/folder.json: No such file or directory"),
    ],
)
def test_bad_arguments(capsys, arguments, message):
    """In one line, before anything is compiled."""
    assert count.main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"count: error: {message}" if message[0] == "-" else "count: error: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="processors of the family x86-64 are told apart"
)
@pytest.mark.parametrize("name", ["haswel", ""])
def test_no_such_processor(capsys, name):
    assert count.main(["--cpu", name]) == 2
    assert capsys.readouterr().err.startswith(
        f"count: error: --cpu {name}: LLVM knows no x86-64 processor '{name}'; it knows haswell, "
    )


def test_json(any_processor, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(count, "counted", lambda cpu, cells, progress: dict.fromkeys(cells, 2.0))
    path = tmp_path / "counts.json"
    assert count.main(["--function", "soft", "--dtype", "float64", "--choices", "8", "--json", str(path)]) == 0
    assert "| soft | float64 | 2.0 |" in capsys.readouterr().out
    assert json.loads(path.read_text()) == {
        "cpu": "haswell",
        "counts": [{"function": "soft", "dtype": "float64", "choices": 8, "instructions": 2.0}],
    }
