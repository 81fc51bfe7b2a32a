"""The examples do what their first lines say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def check(example, *options):
    command = [sys.executable, "-W", "error", "-m", "npselect", "check", str(EXAMPLES / example), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_numpy_select_passes(dtype):
    done = check("numpy_select.py", "--dtype", dtype)
    assert (done.returncode, done.stderr) == (0, "")
    assert "PASSED: 29 of 29 cases" in done.stdout


def test_numpy_select_is_what_check_checks_by_default():
    command = [sys.executable, "-m", "npselect", "check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("numpy_select, ")


def test_wrong_select_is_found_out(tmp_path):
    done = check("wrong_select.py", "--json", str(tmp_path / "report.json"))
    assert (done.returncode, done.stderr) == (1, "")
    assert "likely cause: backward: 1/temp is missing" in done.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["likely_cause"] == "backward: 1/temp is missing"
    assert not report["ok"]


def test_the_two_differ_in_the_forgotten_factor_alone():
    right, wrong = ((EXAMPLES / f"{name}_select.py").read_text().splitlines() for name in ("numpy", "wrong"))
    code = right.index("import numpy as np"), wrong.index("import numpy as np")
    different = [pair for pair in zip(right[code[0] :], wrong[code[1] :], strict=True) if pair[0] != pair[1]]
    assert [(a.removesuffix(" / temp"), b) for a, b in different] == [(different[0][1], different[0][1])]
