"""Writing vectors, by function and by command."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from written_vectors import ENVIRONMENT, FILES, digests, load

from npselect import straight_through, testing
from npselect.cli import main

pytestmark = pytest.mark.usefixtures("remembered_vectors")

# ------------------------------------------------------------------------------------------------ writing


def write(folder, **options):
    return testing.write_vectors(folder, **{"dtypes": "float32", "operators": straight_through} | options)


def test_names_and_order(tmp_path):
    out = tmp_path / "new" / "folder"
    seen = []
    paths = write(out, dtypes=iter([np.float32, "float16", np.dtype("f4")]), progress=lambda *step: seen.append(step))
    assert paths == [out / "straight_through-float16.json", out / "straight_through-float32.json"]
    assert sorted(path.name for path in out.iterdir()) == [*(path.name for path in paths), "vectors.schema.json"]
    total = len(seen) - 1
    assert [step[:2] for step in seen] == [(done, total) for done in range(total + 1)]
    assert seen[0][2] == "float16/digits/1797x10"
    assert seen[-1][2] == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtypes": "float8"}, "dtype is 'float8'; it takes one of"),
        ({"dtypes": ["float32", np.int8]}, "it takes one of 'float16'"),
        ({"dtypes": []}, "dtypes is empty; it takes some of float16, bfloat16, float32, float64"),
        ({"operators": ()}, "operators is empty; it takes some of straight_through, gumbel_softmax"),
        ({"operators": [straight_through, np]}, "operator is <module 'numpy'"),
        ({"operators": "straight_through"}, "operator is 'straight_through'; it takes npselect.straight_through, "),
        ({"operators": [None]}, "operator is None; it takes"),
    ],
)
def test_bad_arguments(tmp_path, options, message):
    with pytest.raises(ValueError, match=r"it takes") as raised:
        write(tmp_path, **options)
    assert message in str(raised.value)
    assert not [*tmp_path.iterdir()]


def test_bfloat16_without_ml_dtypes(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install ml_dtypes"):
        testing.write_vectors(tmp_path)
    assert not [*tmp_path.iterdir()]
    assert write(tmp_path, dtypes="float16")
    with pytest.raises(ModuleNotFoundError, match=r"pip install ml_dtypes"):
        load(folder, "straight_through", "bfloat16")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_what_was_there_stays_if_writing_fails(tmp_path, monkeypatch, error):
    (path,) = write(tmp_path)
    path.write_text("old")
    whole = Path.write_bytes

    def half(self, data):
        if "float32" not in self.name:
            return whole(self, data)
        whole(self, data[: len(data) // 2])
        raise error

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(type(error)):
        write(tmp_path)
    assert path.read_text() == "old"
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name, "vectors.schema.json"]


def test_files_are_as_others_are(tmp_path):
    (tmp_path / "touched").touch()
    (path,) = write(tmp_path)
    assert path.stat().st_mode == (tmp_path / "touched").stat().st_mode


# ------------------------------------------------------------------------------------------------ the command


def cannot_run(capsys, *arguments):
    """The one line on stderr."""
    assert main(["vectors", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("npselect: error: ")
    assert err.count("\n") == 1
    return err


def test_command(folder, tmp_path, capsys):
    out = tmp_path / "out"
    dtypes = ["--dtype", "float32", "--dtype", "float16"]
    assert main(["vectors", "--out", str(out), *dtypes, "--operator", "gumbel_softmax"]) == 0
    lines, err = capsys.readouterr()
    assert err == ""
    names = ["gumbel_softmax-float16.json", "gumbel_softmax-float32.json"]
    assert sorted(path.name for path in out.iterdir()) == [*names, "vectors.schema.json"]
    expected = []
    for name in names:
        whole = (out / name).read_bytes()
        assert whole == (folder / name).read_bytes()
        count = len(json.loads(whole)["cases"])
        expected.append(
            [name, str(count), "cases", str(len(whole)), "bytes", "sha256", hashlib.sha256(whole).hexdigest()]
        )
    assert [line.split() for line in lines.splitlines()[:-1]] == expected
    assert lines.splitlines()[-1].endswith(f"bytes, and vectors.schema.json in {out}")


def test_command_by_default(folder, tmp_path, capsys):
    assert main(["vectors", "--out", str(tmp_path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(FILES) + 1
    assert digests(tmp_path) == digests(folder)


def test_command_help(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["vectors", "--help"])
    assert ended.value.code == 0
    words = capsys.readouterr().out
    for option in ("--out DIR", "--dtype", "--operator"):
        assert option in words


def test_command_cannot_run(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").touch()
    assert "required: --out" in cannot_run(capsys)
    assert f"--out {tmp_path / 'file'}: Not a directory" in cannot_run(capsys, "--out", tmp_path / "file")
    assert "Not a directory" in cannot_run(capsys, "--out", tmp_path / "file" / "folder")
    assert "invalid choice: 'int8'" in cannot_run(capsys, "--out", tmp_path, "--dtype", "int8")
    assert "invalid choice: 'sparsemax'" in cannot_run(capsys, "--out", tmp_path, "--operator", "sparsemax")

    def full(self, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        assert f"--out {tmp_path}: No space left on device" in cannot_run(capsys, "--out", tmp_path)
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    assert "pip install ml_dtypes" in cannot_run(capsys, "--out", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


_NOT_THE_SUPERUSER = """
import os, sys
from pathlib import Path
from npselect.cli import main
outer = Path(sys.argv[1])
# loads all modules, which others may not read
main(["vectors", "--out", str(outer / "open"), "--dtype", "bfloat16", "--operator", "straight_through"])
if os.geteuid() == 0:
    os.setuid(65534)
codes = [main(["vectors", "--out", str(path)]) for path in (outer / "closed", outer / "closed" / "x")]
assert codes == [2, 2], codes
"""


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="this system has no such permissions")
def test_command_may_not_write():
    """In a child that is not the superuser, who may write everywhere."""
    with tempfile.TemporaryDirectory() as outer:
        closed = Path(outer) / "closed"
        Path(outer).chmod(0o755)
        closed.mkdir(mode=0o555)
        command = [sys.executable, "-c", _NOT_THE_SUPERUSER, outer]
        done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr
        lines = [f"npselect: error: --out {path}: Permission denied" for path in (closed, closed / "x")]
        assert done.stderr.splitlines() == lines


@pytest.mark.skipif(not Path("/proc").exists(), reason="a folder in which nobody may write exists on Linux alone")
def test_command_in_a_folder_of_the_system(capsys):
    assert "--out /proc: " in cannot_run(capsys, "--out", "/proc")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_command_interrupted(folder, tmp_path):
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from npselect.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "vectors", "--out", str(tmp_path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    until = time.monotonic() + 30
    while not (tmp_path / "vectors.schema.json").exists() and time.monotonic() < until:
        time.sleep(0.002)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=30)
    assert (child.returncode, out, err) == (130, "", "npselect: interrupted\n")
    assert {path.suffix for path in tmp_path.iterdir()} == {".json"}
    assert digests(tmp_path).items() < digests(folder).items()
