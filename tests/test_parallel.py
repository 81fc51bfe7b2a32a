"""Tests in several processes: what runs together, and that processes do not spoil the cache that they share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("nodeid", "expected"),
    [
        ("tests/test_cpu.py::test_threads[1-float16]", "float16"),
        ("tests/test_cpu.py::test_threads[bfloat16-7]", "bfloat16"),
        ("tests/test_testing.py::test_honest_is_accepted[in float64, rounded once-float32]", "float32"),
        ("tests/test_adapters.py::test_agrees_with_npselect[float16-jax-custom_vjp]", "jax"),
        ("tests/test_adapters.py::test_torch_compile_agrees[detach_select-float16]", "torch"),
        ("tests/test_bench.py::test_every_peer_is_right[tf.function-noise]", "tensorflow"),
        ("tests/test_cpu.py::test_after_a_fork", "tests/test_cpu.py"),
        ("README.md::README.md", "README.md"),
    ],
)
def test_groups(nodeid: str, expected: str) -> None:
    parallel = pytest.importorskip("parallel", reason="pytest-xdist is not installed")
    assert parallel.group(nodeid) == expected


SAVES = """
import sys
sys.path.insert(0, {tests!r})
import parallel
from numba.core.caching import IndexDataCacheFile
parallel.save_in_turn()
file = IndexDataCacheFile({folder!r}, "function", "stamp")
sys.stdin.readline()
for i in range(100):
    file.save((sys.argv[1], i), (sys.argv[1], i))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="files are locked there in another way")
def test_processes_save_in_turn(tmp_path: Path) -> None:
    """Nothing is lost, and each entry names the file that holds it."""
    pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    from numba.core.caching import IndexDataCacheFile

    code = SAVES.format(tests=str(ROOT / "tests"), folder=str(tmp_path))
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", code]
    writers = [
        subprocess.Popen([*command, name], stdin=subprocess.PIPE, env=environment, text=True) for name in ("a", "b")
    ]
    for writer in writers:  # both are ready, or about to be
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.close()
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    file = IndexDataCacheFile(str(tmp_path), "function", "stamp")
    keys = [(name, i) for name in ("a", "b") for i in range(100)]
    assert [file.load(key) for key in keys] == keys
    assert len(list(tmp_path.glob("*.nbc"))) == len(keys)
