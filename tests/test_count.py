"""bench/count.py without valgrind: what is called in which process, what the logs mean, and what goes wrong."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "bench" / "count.py"
CELL = ("index", "float32", 8)


def load():
    spec = importlib.util.spec_from_file_location("count", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


count = load()


def log(path, instructions):
    path.write_text(f"==7== Cachegrind\n==7== \n==7== I refs:        {instructions:,}\n")


def test_each_cell_is_called_in_two_forks(tmp_path):
    command = [sys.executable, str(SCRIPT), "--inside", json.dumps([CELL]), "--counts", str(tmp_path)]
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
        rows = count.rows_of(choices, 1)
        assert count.rows_of(choices, 2) == 2 * rows
        assert choices > 128 or rows % 16 == 0
        assert count.ELEMENTS / 2 < rows * choices <= count.ELEMENTS


def test_a_log_without_a_count(tmp_path):
    path = tmp_path / "1.log"
    path.write_text("==1== Fatal error at startup\n")
    with pytest.raises(count.CannotCountError, match="counted nothing: ==1== Fatal error"):
        count.instructions(path)


def test_table():
    found = {("soft", "float16", 8): 1.25, ("soft", "float16", 1024): 30.0}
    assert count.table(found).splitlines() == [
        "| function | dtype | K = 8 | K = 1,024 |",
        "|---|---|---|---|",
        "| soft | float16 | 1.2 | 30.0 |",
    ]


def test_no_valgrind(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    assert count.main([]) == 2
    assert "there is no valgrind on the path; install it" in capsys.readouterr().err


def test_interrupted(monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(count, "counted", interrupt)
    assert count.main([]) == 130
    assert capsys.readouterr().err == "count: interrupted\n"


def test_a_process_that_fails_says_why(tmp_path):
    with pytest.raises(count.CannotCountError, match=r"compiled for haswell ended with status 2: .* --inside"):
        count.process("haswell", tmp_path, ["--inside", "no JSON"])


@pytest.mark.parametrize("choices", ["0", "-1", "65537", "many"])
def test_bad_choices(capsys, choices):
    with pytest.raises(SystemExit) as error:
        count.main(["--choices", choices])
    assert error.value.code == 2
    assert "no number of choices from 1 to 65536" in capsys.readouterr().err or choices == "-1"


def test_json(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(count, "counted", lambda cpu, cells: dict.fromkeys(cells, 2.0))
    path = tmp_path / "counts.json"
    assert count.main(["--function", "soft", "--dtype", "float64", "--choices", "8", "--json", str(path)]) == 0
    assert "| soft | float64 | 2.0 |" in capsys.readouterr().out
    assert json.loads(path.read_text()) == {
        "cpu": "haswell",
        "counts": [{"function": "soft", "dtype": "float64", "choices": 8, "instructions": 2.0}],
    }
