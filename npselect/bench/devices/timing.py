"""Device times of calls that take turns, between events in the stream.

Before each timed call a copy keeps the device busy, so that what a call costs on the host does not show, and leaves
nothing of its arrays in the cache. Calls take turns in an order that moves on, so that a clock that sinks, sinks for
all. Buffers take turns too: what a call is given was last touched more than three times the L2 cache ago.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from npselect.bench.devices.arrays import Arrays, DeviceArray, Event, host_dtype
from npselect.bench.interleave import Times, ratio

__all__ = ["Call", "Pool", "interleaved", "measured", "percentiles"]

Call = Callable[[int], object]  # of the number of its turn

INPUTS = ("logits", "g", "v")  # roles: what is filled


class Pool:
    """Arrays of one dtype and `size` bytes each: `sets` of them of each role, written with normal numbers."""

    def __init__(self, arrays: Arrays, dtype: str, size: int, sets: int = 2) -> None:
        self.arrays, self.dtype, self.sets = arrays, dtype, sets
        self.itemsize = host_dtype(dtype).itemsize
        self.size = size // self.itemsize
        self.flat: dict[str, list[DeviceArray]] = {}

    def get(self, role: str, i: int, rows: int, choices: int) -> DeviceArray:
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
        """Bytes that `copy` reads and writes."""
        return 2 * self.size * self.itemsize


def interleaved(arrays: Arrays, calls: Mapping[str, Call], repeats: int, busy: Call, warm: int = 3) -> dict[str, Times]:
    """Seconds that each call took on the device, `repeats` times.

    ``busy`` is what keeps the device busy beforehand.
    """
    for i in range(warm):
        for call in calls.values():
            call(i)
    arrays.synchronize()
    names = list(calls)
    events: dict[str, list[tuple[Event, Event]]] = {name: [] for name in names}
    for i in range(repeats):
        for j in range(len(names)):
            name = names[(i + j) % len(names)]
            busy(i)
            first = arrays.event()
            calls[name](i)
            events[name].append((first, arrays.event()))
    arrays.synchronize()
    return {name: Times({i: arrays.seconds(*pair) for i, pair in enumerate(pairs)}) for name, pairs in events.items()}


def percentiles(times: Times) -> dict[str, float]:
    """The median and the tenths at both ends, in microseconds."""
    ordered = sorted(times.seconds.values())
    tenth = len(ordered) // 10
    return {"median_us": 1e6 * times.median, "p10_us": 1e6 * ordered[tenth], "p90_us": 1e6 * ordered[-1 - tenth]}


def measured(times: Times, moved: int, copy: Times, copied: int) -> dict[str, object]:
    """What is reported of a call that must move so many bytes, timed in turns with a copy of `copied`.

    ``of_copy`` is the median over the rounds, as in the reports of `npselect.bench`.
    """
    return {
        "bytes": moved,
        **percentiles(times),
        "gb_per_s": moved / times.median / 1e9,
        "copy_gb_per_s": copied / copy.median / 1e9,
        "of_copy": ratio(copy, times) * moved / copied,
        "samples": list(times.seconds.values()),
    }
