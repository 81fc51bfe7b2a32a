"""Which warnings are errors in these tests: what npselect's code warns of, and what its users see on account of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Tests of a run of their own, under the settings of this one.
PLANTED = """
import warnings
from pathlib import Path

import pytest

ROOT = {root!r}
OTHERS = "/somewhere/npselect/.venv/lib/python3.13/site-packages/other"


def function(module, path, code, **names):
    names |= {{"__name__": module, "warnings": warnings}}
    exec(compile("def function():\\n    return " + code, path, "exec"), names)
    return names["function"]


def ours(code, **names):
    return function("npselect.tiers.planted", ROOT + "/npselect/tiers/planted.py", code, **names)


def others(code, **names):
    return function("other.planted", OTHERS + "/planted.py", code, **names)


def warns(category, level=1):
    return f"warnings.warn('planted', {{category.__name__}}, stacklevel={{level}})"


@pytest.mark.parametrize("category", [UserWarning, RuntimeWarning, DeprecationWarning, PendingDeprecationWarning])
@pytest.mark.parametrize("level", [1, 2])
def test_error_npselect_warns(category, level):
    ours(warns(category, level))()


def test_error_npselect_is_warned_of_by_its_file():
    ours(f"warnings.warn_explicit('planted', UserWarning, {{ROOT + '/npselect/tiers/cpu/long_rows.py'!r}}, 1)")()


def test_error_numpy_warns_within_npselect():
    import numpy as np

    ours("np.float32(1) / np.float32(0)", np=np)()


def test_error_numpy_warns_in_its_own_code():
    import numpy as np

    ours("np.var(np.zeros(0))", np=np)()


@pytest.mark.parametrize("category", [UserWarning, FutureWarning])
def test_error_npselect_makes_another_warn(category):
    ours("called()", called=others(warns(category)))()


@pytest.mark.parametrize("category", [UserWarning, RuntimeWarning, DeprecationWarning])
@pytest.mark.parametrize("level", [1, 2])
def test_shown_another_warns(category, level):
    others(warns(category, level))()


def test_shown_another_is_warned_of_by_its_file():
    others(f"warnings.warn_explicit('planted', DeprecationWarning, {{OTHERS + '/file.py'!r}}, 1)")()


def test_shown_another_has_news_for_its_authors():
    ours("called()", called=others(warns(DeprecationWarning)))()
"""


def test_planted_warnings(tmp_path: Path) -> None:
    (tmp_path / "test_planted.py").write_text(PLANTED.format(root=str(ROOT)))
    options = ["-c", str(ROOT / "pyproject.toml"), "-p", "conftest", "-p", "no:cacheprovider", "-rA"]
    paths = [str(ROOT / "tests"), str(ROOT)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTEST_ADDOPTS": "", "PYTHONWARNINGS": ""}
    command = [sys.executable, "-m", "pytest", *options, str(tmp_path / "test_planted.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
    found = re.findall(r"^(PASSED|FAILED) \S*::test_(error|shown)", done.stdout, re.MULTILINE)
    assert sorted(set(found)) == [("FAILED", "error"), ("PASSED", "shown")], done.stdout
    assert (len(found), done.stdout.count("Warning: planted\n") > 0) == (21, True)
    assert "8 passed" in done.stdout
