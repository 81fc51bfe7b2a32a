"""How a kernel is launched: which threads share a row, what they keep in registers, how many rows a block has.

That depends on the rows' length, and on whether every row starts at a multiple of 16 bytes: see
`npselect.tiers.cuda.teams`. No result depends on it.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from npselect._arithmetic.order import LANES, SEGMENT
from npselect._gpu.aliases import Kind
from npselect._gpu.launch import Kernel
from npselect.tiers.cuda.row_kernel import RowKernel
from npselect.tiers.cuda.teams import WARP, Team
from npselect.tiers.cuda.variant import Variant, computed_in

__all__ = ["Plan", "plan", "quads_of_a_thread", "registers_for", "team_for", "variant_for"]

_SHARED_THREADS = 128  # of a block that has several rows
_MOST_THREADS = 512  # of a block


class Plan(NamedTuple):
    """How a kernel is launched."""

    kernel: Kernel
    threads: int  # of a block
    rows_a_block: int


@cache
def plan(rows: RowKernel, kind: Kind, logits: Kind, noise: str, choices: int, aligned: bool) -> Plan:
    """Of a kernel over rows of so many choices; `logits` is their kind, `kind` that of the results."""
    made_for = variant_for(rows, kind, logits, noise, choices, aligned)
    team, threads = made_for.team, made_for.threads
    return Plan(rows.of(made_for), threads, threads // (team.group * team.warps))


def variant_for(rows: RowKernel, kind: Kind, logits: Kind, noise: str, choices: int, aligned: bool) -> Variant:
    """What the kernel is made for."""
    resident, most_threads = registers_for(rows.arrays_in_registers, kind, quads_of_a_thread(choices), noise)
    team = team_for(choices, aligned, most_threads, 3 if computed_in(kind) is np.float64 else 6)
    threads = WARP * team.warps if team.warps > 1 else _SHARED_THREADS
    return Variant(kind, logits, noise, team, resident, threads)


def quads_of_a_thread(choices: int) -> int:
    """How many quads of a row, or of a segment of it, a thread of a warp has."""
    return -(-min(choices, SEGMENT) // LANES)


def team_for(choices: int, aligned: bool, most_threads: int, most_quads: int = 6) -> Team:
    """The team of a row."""
    if choices <= LANES:
        quads = -(-choices // 4)
        if aligned:
            each = min(quads, 2)
            return Team(True, each, 1 << (-(-quads // each) - 1).bit_length(), 1, False)
        groups = (g for g in (1, 2, 4, 8, 16) if quads <= most_quads * g)
        group = min(groups, key=lambda g: g * -(-quads // g))  # as few quads in all as can be
        return Team(False, -(-quads // group), group, 1, False, length=choices)
    segments = -(-choices // SEGMENT)
    rounds = -(-segments // (most_threads // WARP))
    return Team(aligned, quads_of_a_thread(choices), WARP, -(-segments // rounds), rounds > 1)


def registers_for(arrays: int, kind: Kind, quads: int, noise: str) -> tuple[bool, int]:
    """Whether a thread can keep its entries of so many arrays in registers, and how many threads a block may have."""
    words = arrays * 4 * quads * np.dtype(computed_in(kind)).itemsize // 4
    resident = words <= 128
    many_registers = words > 64 or computed_in(kind) is np.float64 or noise == "drawn"
    most_threads = _SHARED_THREADS if quads < 8 else (256 if resident and many_registers else 512)
    return resident, min(most_threads, _MOST_THREADS)
