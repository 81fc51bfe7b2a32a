"""The arguments of a kernel over rows, declared once: names, types, and the record in which a kernel finds them.

From this come a kernel's signature, what its body is given, and what a launch sends.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple, TypeAlias, get_type_hints

from numba import types

__all__ = ["ARGUMENTS", "SIGNATURE", "Operands", "Source"]

_Address: TypeAlias = Annotated[Any, types.int64]
"""0: none."""
_Count: TypeAlias = Annotated[Any, types.int64]
_Word: TypeAlias = Annotated[Any, types.uint64]
_Real: TypeAlias = Annotated[Any, types.float64]


class Source(NamedTuple):
    """What the candidates of a row are read from."""

    logits: _Address
    noise: _Address
    noise_stride: _Count  # from row to row; 0: all rows share one
    noise_scale: _Real  # what an array of noise is multiplied by
    seed: _Word
    offset: _Word
    where: _Address
    where_stride: _Count
    rows: _Count
    choices: _Count


class Operands(NamedTuple):
    """What else a kernel reads, and where it writes."""

    temps: _Address
    temp: _Real  # if there is no address of temps
    scale: _Real  # of a gradient
    unimix: _Real
    gap: _Real
    grad_mask: _Address
    grad_grad_logits: _Address
    choice: _Address  # int64, a column for each row, or why there is none
    out: _Address
    out_logits: _Address


def _types(record: type[NamedTuple]) -> dict[str, Any]:
    hints = get_type_hints(record, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items()}


ARGUMENTS = {**_types(Source), **_types(Operands)}
"""The type of each by name, in the order in which the driver is given them."""

SIGNATURE = tuple(types.NamedTuple(list(_types(record).values()), record) for record in (Source, Operands))
