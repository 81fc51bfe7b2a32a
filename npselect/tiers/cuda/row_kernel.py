"""Kernels over rows: what each declares, and how its body becomes a kernel for a variant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from npselect._gpu.aliases import Function
from npselect._gpu.launch import Kernel
from npselect.tiers.cuda.arguments import SIGNATURE, Operands, Source
from npselect.tiers.cuda.staging import through_tiles
from npselect.tiers.cuda.teams import placing
from npselect.tiers.cuda.variant import Variant

__all__ = ["RowKernel", "row_kernel"]


@dataclass(frozen=True, eq=False)
class RowKernel:
    """A kernel over rows, made for each variant that is asked for.

    Attributes
    ----------
    body : callable
        Makes, of a variant, what each thread runs: ``body(source, operands, place, n)``, n being the number of columns,
        and 0 beyond the last row.
    arrays_in_registers : int
        How many numbers of each column a thread keeps from pass to pass.
    cotangents, results : int
        How many of either have the logits' shape.
    reads_logits : bool
        Whether there are logits.
    """

    body: Callable[[Variant], Function]
    arrays_in_registers: int
    cotangents: int
    results: int
    reads_logits: bool

    def of(self, variant: Variant) -> Kernel:
        """The kernel for a variant."""
        return _kernel(self, variant)


def row_kernel(
    *, arrays_in_registers: int, cotangents: int = 0, results: int = 1, reads_logits: bool = True
) -> Callable[[Callable[[Variant], Function]], RowKernel]:
    """Declare what a kernel keeps, reads and writes."""
    return lambda body: RowKernel(body, arrays_in_registers, cotangents, results, reads_logits)


@cache
def _kernel(rows: RowKernel, variant: Variant) -> Kernel:
    body, placed = rows.body(variant), placing(variant.team, variant.threads)
    if variant.team.tiled:
        body = through_tiles(variant, body, rows.cotangents, rows.results, rows.reads_logits)

    def kernel(source: Source, operands: Operands) -> None:
        place = placed()
        # n is computed before the call: Python 3.12 and newer compile `body(..., a if b else c)` to two calls, one for
        # either case, and the threads of a warp would wait for each other in different shuffles
        n = source.choices if place.row < source.rows else 0
        body(source, operands, place, n)

    return Kernel(kernel, SIGNATURE, variant.threads)
