"""What a launch asks of the driver, with one that is built here and only writes it down; it needs a C compiler."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")

if find_spec("numba_cuda") is None:
    pytest.skip("numba-cuda is not installed: pip install 'npselect[cuda]'", allow_module_level=True)
if COMPILER is None or sys.platform != "linux":
    pytest.skip("a driver is built for Linux, by a C compiler", allow_module_level=True)


def test_launches(tmp_path):
    library = tmp_path / "libcuda.so.1"
    options = [
        "-O1",
        "-fPIC",
        "-shared",
        "-Wl,-soname,libcuda.so.1",
        "-o",
        library,
        HERE / "stub_driver.c",
        "-lpthread",
    ]
    subprocess.run([COMPILER, *options], check=True, timeout=120)
    paths = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("LD_LIBRARY_PATH")]))
    result = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:The 'generic' unit:DeprecationWarning", HERE / "launched.py"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(HERE.parent), "LD_LIBRARY_PATH": paths, "NUMBA_ENABLE_CUDASIM": "0"},
        timeout=600,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout == "launched as they should be\n"
