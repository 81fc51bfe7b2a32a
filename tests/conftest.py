"""What holds for all tests: hypothesis' profiles, numba's machine code, and which warnings are errors."""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import children
import pytest
from hypothesis import settings

# fakes are for a process of their own, see test_cuda.py and test_cuda_driver.py. types would compile kernels in each
# process that collects tests; test_types.py runs what is there.
collect_ignore = ["fakes", "types"]
collect_ignore_glob = ["*conftest.py"]  # several files of one name, which hold no doctests

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = str(ROOT / "npselect") + os.sep


def _sources() -> str:
    """A digest of the kernels: what was made of other sources, assembly too, is left where it is."""
    digest = hashlib.sha256()
    package = ROOT / "npselect"
    paths = sorted(path for room in ("_arithmetic", "tiers", "_gpu") for path in (package / room).rglob("*.py"))
    assert len(paths) >= 35, f"{package} holds {len(paths)} files of kernels only: has a folder moved?"
    for path in paths:
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


# Before numba is loaded. Processes that tests start take npselect from here too: numba's cache tells copies apart.
os.environ.setdefault("NUMBA_CACHE_DIR", str(ROOT / ".pytest_cache" / "numba" / _sources()))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))

settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


# ------------------------------------------------------------------------------------------------ warnings


def pytest_configure(config: pytest.Config) -> None:
    children.warned = list(config.getoption("pythonwarnings") or [])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """For ``-n``, whatever ``--dist``."""
    import parallel

    return parallel.Scheduling(config, log)


def _npselect_causes(category: type[Warning]) -> bool:
    """Whether npselect's code warns, or has called what warns so that npselect's users see it."""
    files: list[str] = []
    frame = sys._getframe(1).f_back
    while frame is not None:
        files.append(frame.f_code.co_filename)
        frame = frame.f_back
    ours = [file.startswith(PACKAGE) for file in files if file != warnings.__file__]
    return ours[0] or (any(ours) and not issubclass(category, children.FOR_AUTHORS))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Iterator[None]:
    """What npselect makes others warn of is an error too; pyproject.toml sees to what it warns of itself."""
    shown = warnings.showwarning

    def show(message: Any, category: Any, *place: Any, **line: Any) -> None:
        if _npselect_causes(category):
            raise message
        shown(message, category, *place, **line)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warnings, "showwarning", show)
        return (yield)


# ------------------------------------------------------------------------------------------------ what was found

_worst: dict[str, float] = {}


def _keep(what: str, value: float) -> None:
    _worst[what] = max(_worst.get(what, 0.0), float(value))


@pytest.fixture
def record() -> Callable[[str, float], None]:
    """``record(what, value)``: the largest value of each kind is printed at the end of ``pytest -v``."""
    return _keep


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # one of pytest-xdist's workers, which hands over what it found
        session.config.workeroutput["worst"] = _worst


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    for what, value in getattr(node, "workeroutput", {}).get("worst", {}).items():
        _keep(what, value)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if _worst and config.get_verbosity() > 0:
        terminalreporter.section("worst found")
        for what, value in sorted(_worst.items()):
            terminalreporter.line(f"{what:60} {value:.6g}")
