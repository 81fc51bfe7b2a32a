"""Device times of calls that take turns, between events in the stream.

Before each timed call a copy keeps the device busy, so that what a call costs on the host does not show, and leaves
nothing of its arrays in the cache. Calls take turns in an order that moves on, so that a clock that sinks, sinks for
all. Buffers take turns too: what a call is given was last touched more than three times the L2 cache ago.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Pool", "interleaved", "spread"]

INPUTS = ("logits", "g", "v")  # roles: what is filled


class Pool:
    """Arrays of one dtype and `size` bytes each: `sets` of them of each role, written with normal numbers."""

    def __init__(self, arrays: Any, dtype: str, size: int, sets: int = 2) -> None:
        self.arrays, self.dtype, self.sets = arrays, dtype, sets
        self.itemsize = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}[dtype]
        self.size = size // self.itemsize
        self.flat: dict[str, list[Any]] = {}

    def get(self, role: str, i: int, rows: int, choices: int) -> Any:
        """The i-th array of a role, as rows x choices; one of `INPUTS`, or an "out", which is not filled."""
        if role not in self.flat:
            if role.startswith("out"):
                made = [self.arrays.empty((self.size,), self.dtype) for _ in range(self.sets)]
            else:
                first = self.sets * INPUTS.index(role)
                made = [self.arrays.random(self.size, self.dtype, first + i) for i in range(self.sets)]
            self.flat[role] = made
        return self.flat[role][i % self.sets][: rows * choices].reshape(rows, choices)

    def copy(self, i: int) -> None:
        """All of one array into another: `copied` bytes read and written."""
        self.arrays.copy(self.get("out", i, 1, self.size), self.get("logits", i, 1, self.size))

    @property
    def copied(self) -> int:
        return 2 * self.size * self.itemsize


def interleaved(
    arrays: Any, calls: Mapping[str, Callable[[int], Any]], repeats: int, busy: Callable[[int], Any], warm: int = 3
) -> dict[str, list[float]]:
    """Seconds that each call took on the device, `repeats` times; a call takes the number of its turn.

    ``busy`` is what keeps the device busy beforehand.
    """
    for i in range(warm):
        for call in calls.values():
            call(i)
    arrays.synchronize()
    names = list(calls)
    marks: dict[str, list[tuple[Any, Any]]] = {name: [] for name in names}
    for i in range(repeats):
        for j in range(len(names)):
            name = names[(i + j) % len(names)]
            busy(i)
            first = arrays.event()
            calls[name](i)
            marks[name].append((first, arrays.event()))
    arrays.synchronize()
    return {name: [arrays.seconds(*pair) for pair in pairs] for name, pairs in marks.items()}


def spread(samples: list[float], scale: float = 1e6) -> dict[str, float]:
    """The median and the tenths at both ends, in microseconds."""
    ordered = sorted(samples)
    tenth = len(ordered) // 10
    return {
        "median_us": scale * statistics.median(ordered),
        "p10_us": scale * ordered[tenth],
        "p90_us": scale * ordered[-1 - tenth],
    }
