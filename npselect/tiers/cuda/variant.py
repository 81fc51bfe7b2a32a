"""What a kernel of the CUDA tier is made for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from npselect._gpu.aliases import Kind
from npselect.tiers.cuda.teams import Team, lanes_of

__all__ = ["Variant", "computed_in"]


def computed_in(kind: Kind) -> Kind:
    """The type that a kind of storage is computed in."""
    return np.float64 if kind is np.float64 else np.float32


@dataclass(frozen=True)
class Variant:
    """What a kernel is made for."""

    kind: Kind  # of cotangents and results
    logits: Kind  # of the logits
    noise: str  # "none", "array" or "drawn"
    team: Team
    resident: bool  # whether a thread keeps all its entries of a round in registers
    threads: int  # of a block

    @property
    def compute(self) -> Kind:
        """The type that is computed in."""
        return computed_in(self.kind)

    @property
    def column(self) -> Kind:
        """The type of a column's number."""
        return np.int64 if self.team.long else np.int32

    @property
    def quads_in_registers(self) -> int:
        """How many quads a thread has in registers at a time."""
        return self.team.quads if self.resident else 1

    @property
    def slots(self) -> int:
        """How many numbers that is."""
        return 4 * self.quads_in_registers

    @property
    def steps(self) -> int:
        """In how many chunks a thread works through its quads of a round."""
        return self.team.quads // self.quads_in_registers

    @property
    def reload(self) -> bool:
        """Whether a row is read again for each pass."""
        return self.steps > 1 or self.team.long

    @property
    def lanes(self) -> int:
        """How many lanes of a segment a thread adds up."""
        return lanes_of(self.team, self.quads_in_registers)
