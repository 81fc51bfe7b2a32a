"""What a launch did: instructions by class, and the sectors of 32 bytes that it asked memory for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ptx.program import Instruction

__all__ = ["Counts", "classes"]

_SECTOR = 32


@dataclass
class Counts:
    issued: Counter[str] = field(default_factory=Counter)  # instructions of warps, by class
    done: Counter[str] = field(default_factory=Counter)  # instructions of threads
    sectors: int = 0  # asked for by a warp at a time
    least_sectors: int = 0  # in which what it asked for would have had room

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.issued + other.issued,
            self.done + other.done,
            self.sectors + other.sectors,
            self.least_sectors + other.least_sectors,
        )

    def went_through(self, classes: Counter[str], threads: int, warps: int) -> None:
        for name, count in classes.items():
            self.issued[name] += count * warps
            self.done[name] += count * threads

    def asked(self, warps: Any, addresses: Any, nbytes: int) -> None:
        """One instruction's accesses to global memory; none of them is in two sectors, being aligned."""
        first = np.uint64(addresses.min() // _SECTOR * _SECTOR)
        offsets = (addresses - first).astype(np.int64)
        span = int(offsets.max()) + _SECTOR
        self.sectors += len(np.unique(warps * (span // _SECTOR + 1) + offsets // _SECTOR))
        each = np.unique(warps * span + offsets) // span
        self.least_sectors += int((-(-np.bincount(each) * nbytes // _SECTOR)).sum())


def classes(instructions: Iterable[Instruction]) -> Counter[str]:
    return Counter(_class_of(instruction.opcode) for instruction in instructions)


def _class_of(opcode: str) -> str:
    name, *rest = opcode.split(".")
    if name in ("ld", "st"):
        return "global" if rest[0] == "global" else "other memory"
    if name in ("shfl", "mov"):
        return {"shfl": "shuffle", "mov": "move"}[name]
    if name in ("bra", "bar", "ret"):
        return "control"
    if "f64" in rest or "f32" in rest:
        return "float64" if "f64" in rest else "float32"
    return "predicate" if rest[-1] == "pred" else ("int64" if "64" in opcode else "int32")
