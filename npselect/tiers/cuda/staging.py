"""Tiles: short rows that are not aligned, brought through shared memory.

The rows of a block lie one after another. Its threads copy them, as neighbours that load neighbouring numbers, to where
each thread finds those of its own row, and its results back. A kernel sees arrays in shared memory in the place of
addresses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from npselect._arithmetic.primitives import inlined
from npselect._gpu.intrinsics import barrier, cuda, load, store, thread
from npselect.tiers.cuda.teams import Place
from npselect.tiers.cuda.variant import Operands, Source, Variant

__all__ = ["through_tiles"]

Function = Callable[..., Any]


def _bringing(kind: Any, threads: int, each: int) -> Function:
    """``bring(address, tile, first, count)``: elements from `first` on; returns the tile."""
    nothing, most = kind(0), (each - 1) * threads

    @inlined
    def bring(address: Any, tile: Any, first: Any, count: Any) -> Any:
        x = cuda.local.array(each, kind)
        mine, left = first + thread(), np.int32(count - thread())
        if most < left:
            for i in range(each):
                x[i] = load(address, mine + i * threads, kind)
        else:
            for i in range(each):
                x[i] = load(address, mine + i * threads, kind) if i * threads < left else nothing
        for i in range(each):
            store(tile, thread() + i * threads, kind, x[i])
        return tile

    return bring


def _giving(kind: Any, threads: int, each: int) -> Function:
    """``give(address, tile, first, count)``: the other way."""
    most = (each - 1) * threads

    @inlined
    def give(address: Any, tile: Any, first: Any, count: Any) -> Any:
        mine, left = first + thread(), np.int32(count - thread())
        if most < left:
            for i in range(each):
                store(address, mine + i * threads, kind, load(tile, thread() + i * threads, kind))
        else:
            for i in range(each):
                if i * threads < left:
                    store(address, mine + i * threads, kind, load(tile, thread() + i * threads, kind))

    return give


@inlined
def _address(address: Any, tile: Any, first: Any, count: Any) -> Any:
    return address


@inlined
def _tile(address: Any, tile: Any, first: Any, count: Any) -> Any:
    return tile


def through_tiles(variant: Variant, body: Function, reads: int, writes: int) -> Function:
    """The body of a kernel that finds its rows, `reads` cotangents and `writes` results in shared memory."""
    kind, logits_kind, threads, team = variant.kind, variant.logits, variant.threads, variant.team
    length, rows_a_block = team.length, threads // team.group
    each = -(-length // team.group)  # elements that a thread copies
    room = threads * each
    bring_logits, bring, give = (
        _bringing(logits_kind, threads, each),
        _bringing(kind, threads, each),
        _giving(kind, threads, each),
    )
    bring_grad, bring_grad_grad = (bring if reads > i else _address for i in range(2))
    take, take2 = (_tile if writes > i else _address for i in range(2))
    give_out, give_out2 = (give if writes > i else _address for i in range(2))

    @inlined
    def tiled(source: Any, operands: Any, place: Any, n: Any) -> Any:
        logits_tile = cuda.shared.array(room, logits_kind)
        grad_tile = cuda.shared.array(room, kind)
        grad_grad_tile = cuda.shared.array(room, kind)
        row = place.row - place.local
        first, count = row * length, min(rows_a_block, source.rows - row) * length
        logits = bring_logits(source.logits, logits_tile, first, count)
        grad = bring_grad(operands.grad, grad_tile, first, count)
        grad_grad = bring_grad_grad(operands.grad_grad, grad_grad_tile, first, count)
        # a kernel's threads meet before they write, so results may take the place of what was read
        out, out2 = take(operands.out, grad_tile, first, count), take2(operands.out2, grad_grad_tile, first, count)
        barrier()
        body(
            Source(
                logits,
                source.noise,
                source.noise_stride,
                source.seed,
                source.offset,
                source.where,
                source.where_stride,
                source.rows,
                length,
            ),
            Operands(operands.temps, operands.temp, grad, grad_grad, out, out2),
            Place(min(place.row, source.rows - 1), place.local, place.lane, place.warp),  # of what lies elsewhere
            n,
        )
        barrier()
        give_out(operands.out, out, first, count)
        give_out2(operands.out2, out2, first, count)

    return tiled
