"""For the tests of bench/gpu.py: what its modules import, and a report for its sections."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from npselect.bench.devices import Host

sys.path.append(str(Path(__file__).parents[2] / "bench"))  # last: files of its tests have the names of ours


@pytest.fixture(autouse=True)
def frameworks_as_they_were():
    """The sections have processes of their own, and leave gradients switched off there."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_grad_enabled(True)


@pytest.fixture
def processor():
    """Arrays of the host and the CPU tier, in place of the device."""
    return Host("cpu")


@pytest.fixture
def report(monkeypatch, processor):
    """A report to a text, with `found()` for its records; sections find the processor."""
    from gpu.report import Report
    from gpu.sections import checks, copying, host, peers, speed

    for module in (checks, copying, host, peers, speed):
        monkeypatch.setattr(module, "find", lambda report: processor)
    stream = io.StringIO()
    made = Report(stream, 300, quick=True)
    made.found = lambda kind=None: [
        record for record in map(json.loads, stream.getvalue().splitlines()) if kind in (None, record["kind"])
    ]
    return made
