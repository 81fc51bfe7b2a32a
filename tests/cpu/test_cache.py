"""Machine code on disk: found again, by whoever; what is wrong with the files is told once, and is no error."""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import children
import numpy as np
import pytest
from numba.core import config

from npselect import _machine_code
from npselect.tiers.cpu import cache as cache_module
from npselect.tiers.cpu import compilations as compiling
from npselect.tiers.cpu.cache import CacheFiles
from npselect.tiers.cpu.compile import kernel

ROOT = Path(__file__).parents[2]
SOURCE = """
def double(x):
    for i in range(len(x)):
        x[i] *= 2
"""
RIGHT = [2.0, 4.0]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where entries are, and nothing has been told."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(_machine_code, "_warned", set())
    return tmp_path / "cache"


@pytest.fixture
def fresh(folder: Path, tmp_path: Path) -> Callable[[], Any]:
    """A small kernel, as it would be in one more process."""
    path = tmp_path / "doubling.py"
    path.write_text(SOURCE)

    def make() -> Any:
        spec = importlib.util.spec_from_file_location("doubling", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return kernel(module.double)

    return make


def doubled(made: Any, dtype: Any = np.float32) -> list[float]:
    x = np.array([1, 2], dtype)
    made(x)
    return x.tolist()


def loaded(made: Any) -> int:
    """How often machine code was found."""
    return sum(made.stats.cache_hits.values())


def entries(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.nbc"))


@pytest.fixture
def entry(fresh: Any, folder: Path) -> Path:
    """The file that one process has left."""
    assert doubled(fresh()) == RIGHT
    (path,) = entries(folder)
    return path


def test_what_was_kept_is_found(fresh: Any, folder: Path) -> None:
    first = fresh()
    assert doubled(first) == doubled(first, np.float64) == RIGHT
    assert loaded(first) == 0
    assert len(entries(folder)) == 2
    second = fresh()
    assert doubled(second) == doubled(second, np.float64) == RIGHT
    assert loaded(second) == 2
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == entries(folder)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut off": lambda content: content[: len(content) // 2],
    "cut off at the start": lambda content: content[:40],
    "one bit": lambda content: content[:-1000] + bytes([content[-1000] ^ 1]) + content[-999:],
    "something else": lambda _: b"\x80\x04K\x01.",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file(damage: str, fresh: Any, folder: Path, entry: Path) -> None:
    """Is compiled again, told once, and replaced."""
    whole = entry.read_bytes()
    for attempt in range(2):
        entry.write_bytes(DAMAGES[damage](whole))
        made = fresh()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert doubled(made) == RIGHT
        told = [str(each.message) for each in caught]
        assert len(told) == (attempt == 0), told
        assert all("cannot be read" in text and "compiled again" in text and str(entry) in text for text in told)
        assert loaded(made) == 0
    again = fresh()
    assert doubled(again) == RIGHT
    assert loaded(again) == 1
    assert entries(folder) == [entry]


def test_what_cannot_be_rebuilt(fresh: Any, folder: Path, entry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole file of which numba makes nothing."""
    save = CacheFiles.save
    monkeypatch.setattr(CacheFiles, "save", lambda self, key, data: save(self, key, "no machine code"))
    entry.unlink()
    assert doubled(fresh()) == RIGHT
    monkeypatch.setattr(CacheFiles, "save", save)
    with pytest.warns(RuntimeWarning, match="cannot be read"):
        assert doubled(fresh()) == RIGHT
    again = fresh()
    assert doubled(again) == RIGHT
    assert loaded(again) == 1


def test_a_file_that_cannot_be_opened(fresh: Any, entry: Path) -> None:
    """Neither to read nor to be replaced: a folder is in its place, which stops root too."""
    entry.unlink()
    entry.mkdir()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [doubled(fresh()) for _ in range(2)] == [RIGHT] * 2
    told = sorted(str(each.message) for each in caught)
    assert ["cannot be kept" in text for text in told] == [True, False]
    assert ["cannot be read" in text for text in told] == [False, True]
    assert "NUMBA_CACHE_DIR" in told[0]
    assert list(entry.parent.iterdir()) == [entry]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(fresh: Any, entry: Path) -> None:
    made = fresh()
    entry.parent.chmod(0o500)
    try:
        with pytest.warns(RuntimeWarning, match="cannot be kept"):
            assert doubled(made, np.float64) == RIGHT
        assert doubled(made) == RIGHT
        assert loaded(made) == 1
    finally:
        entry.parent.chmod(0o700)


def test_a_folder_that_has_gone(fresh: Any, folder: Path, entry: Path) -> None:
    """Is made again; if that cannot be, the call goes on."""
    made = fresh()
    shutil.rmtree(folder)
    assert doubled(made) == RIGHT
    assert entries(folder) == [entry]
    shutil.rmtree(folder)
    folder.write_text("a file")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert doubled(made, np.float64) == doubled(made, np.int64) == RIGHT
    told = sorted(str(each.message) for each in caught)
    assert ["cannot be kept" in text for text in told] == [True, False]
    assert ["cannot be read" in text for text in told] == [False, True]


def test_a_full_disk(fresh: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a file is none, and does not stay."""
    assert compiling.cache_folder() is not None
    write = Path.write_bytes

    def write_half(path: Path, content: bytes) -> int:
        write(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_half)
    made = fresh()
    with pytest.warns(
        RuntimeWarning, match=r"cannot be kept \(OSError: \[Errno \d+\] No space left on device\)"
    ) as caught:
        assert doubled(made) == doubled(made, np.float64) == RIGHT
    assert len(caught) == 1
    assert compiling.cache_folder() is None  # which the command says
    assert [path for path in folder.rglob("*") if path.is_file()] == []


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits there")
def test_files_that_may_not_grow(tmp_path: Path) -> None:
    """A limit that the system keeps, in a process of its own, which ends well."""
    path = tmp_path / "doubling.py"
    path.write_text(SOURCE)
    code = """
import resource, signal, sys
sys.path.insert(0, sys.argv[1])
import doubling, numpy as np
from npselect.tiers.cpu.compile import kernel
made = kernel(doubling.double)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
x = np.ones(2)
made(x)
made(x.astype("f"))
assert x.tolist() == [2, 2]
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    command = [*children.python(), "-W", "default::RuntimeWarning", "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("RuntimeWarning: npselect's machine code cannot be kept (OSError") == 1
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_a_change_of_any_source(fresh: Any, folder: Path, entry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file that the kernel's own does not name: in silence, in the place of what was."""
    before = entry.read_bytes()
    monkeypatch.setattr(_machine_code, "sources", lambda *_: "others")
    made = fresh()
    assert doubled(made) == RIGHT
    assert loaded(made) == 0
    assert entries(folder) == [entry]
    assert entry.read_bytes() != before


def test_sources_are_those_of_all_kernels() -> None:
    assert all(len(list((ROOT / folder.replace(".", "/")).glob("*.py"))) >= 10 for folder in cache_module._FOLDERS)


def test_sources_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_machine_code, "files", lambda _: tmp_path)
    found = [_machine_code.sources.__wrapped__("package")]
    for name, text in (("a.py", "x"), ("a.py", "y"), ("b.py", "y"), ("b.py", "")):
        (tmp_path / name).write_text(text)
        found.append(_machine_code.sources.__wrapped__("package"))
    assert len(set(found)) == len(found)
    (tmp_path / "c.txt").write_text("no source")
    assert _machine_code.sources.__wrapped__("package") == found[-1]


SAVES = """
import sys
from pathlib import Path
from npselect.tiers.cpu.cache import CacheFiles
entries = CacheFiles(Path(sys.argv[1]), "function")
sys.stdin.readline()
for i in range(100):
    entries.save((sys.argv[2], i), (sys.argv[2], i))
    entries.save(("both", i), ("both", i))
    assert entries.load(("both", i)) == ("both", i)
"""


def test_processes_that_keep_at_once(tmp_path: Path) -> None:
    """Of one function for several types, and for the same: nothing is lost, and nothing is half there."""
    command = [*children.python(), "-c", SAVES, str(tmp_path)]
    writers = [subprocess.Popen([*command, name], stdin=subprocess.PIPE, text=True) for name in ("a", "b")]
    for writer in writers:  # both are ready, or about to be
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.close()
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    found = CacheFiles(tmp_path, "function")
    keys = [(name, i) for name in ("a", "b", "both") for i in range(100)]
    assert [found.load(key) for key in keys] == keys
    assert len(list(tmp_path.iterdir())) == len(keys)
    found.flush()
    assert [found.load(key) for key in keys] == [None] * len(keys)
