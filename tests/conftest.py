"""What holds for all tests: hypothesis' profiles, and where numba keeps its machine code."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# For a process of their own, see test_cuda.py and test_cuda_driver.py.
collect_ignore = ["launched.py", "simulated.py", "simulator.py"]

ROOT = Path(__file__).resolve().parent.parent


def _sources() -> str:
    """A digest of the kernels: numba's cache looks at a kernel's own file, not at the helpers which that imports."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "npselect" / "backends").glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


os.environ.setdefault("NUMBA_CACHE_DIR", str(ROOT / ".pytest_cache" / "numba" / _sources()))  # before numba is loaded

settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

_worst: dict[str, float] = {}


@pytest.fixture
def record() -> Callable[[str, float], None]:
    """``record(what, value)``: the largest value of each kind is printed at the end of ``pytest -v``."""

    def keep(what: str, value: float) -> None:
        _worst[what] = max(_worst.get(what, 0.0), float(value))

    return keep


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if _worst and config.get_verbosity() > 0:
        terminalreporter.section("worst found")
        for what, value in sorted(_worst.items()):
            terminalreporter.line(f"{what:60} {value:.6g}")
