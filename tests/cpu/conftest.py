"""What tests of the CPU tier share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from npselect.tiers.cpu import rows

GUARD = 4 * 5024  # numbers: as many as the spans of the longest row in these tests


@pytest.fixture
def guards(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The memory before and behind all scratch memory that is handed out, filled with 7."""
    found: list[Any] = []

    def guarded(size: int, compute: Any) -> Any:
        memory = np.full(2 * GUARD + size, 7, compute)
        found.extend((memory[:GUARD], memory[GUARD + size :]))
        return memory[GUARD : GUARD + size]

    monkeypatch.setattr(rows, "_aligned", guarded)
    monkeypatch.setattr(rows, "SMALL_BATCH", 0)
    return found
