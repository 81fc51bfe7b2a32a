"""What tests of the command share."""

from __future__ import annotations

import sys

import pytest
from commands import OBJECT, RIGHT, WRONG


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    for name, text in {"right.py": RIGHT, "wrong.py": WRONG, "thing.py": OBJECT}.items():
        (tmp_path / name).write_text(text)
    yield tmp_path
    for name in ("right", "wrong", "thing", "checked_right", "broken"):
        if name not in before:
            sys.modules.pop(name, None)
