"""What a kernel of the CUDA tier is made for, and what it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from numba import types

from npselect.tiers.cuda.teams import Team

__all__ = ["ARGUMENTS", "Operands", "Source", "Variant"]

ARGUMENTS = {
    "logits": types.int64,  # an address, as all that have no other comment; 0: none
    "noise": types.int64,
    "noise_stride": types.int64,  # from row to row; 0: all rows share one
    "seed": types.uint64,
    "offset": types.uint64,
    "where": types.int64,
    "where_stride": types.int64,
    "temps": types.int64,
    "temp": types.float64,  # if there is no address of temps
    "grad": types.int64,
    "grad_grad": types.int64,
    "out": types.int64,
    "out2": types.int64,
    "rows": types.int64,
    "choices": types.int64,
}


@dataclass(frozen=True)
class Variant:
    """What a kernel is made for."""

    kind: Any  # of cotangents and results
    logits: Any  # kind of the logits
    noise: str  # "none", "array" or "drawn"
    team: Team
    resident: bool  # whether what a thread holds of a row is in registers, all at a time
    threads: int  # of a block


class Source(NamedTuple):
    """Where candidates come from."""

    logits: Any
    noise: Any
    noise_stride: Any
    seed: Any
    offset: Any
    where: Any
    where_stride: Any
    rows: Any
    choices: Any


class Operands(NamedTuple):
    """What else a kernel reads, and where it writes."""

    temps: Any
    temp: Any
    grad: Any
    grad_grad: Any
    out: Any
    out2: Any
