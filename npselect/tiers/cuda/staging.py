"""Tiles: short rows that are not aligned, brought through shared memory.

The rows of a block lie one after another. Its threads copy them, as neighbours that load neighbouring numbers, to where
each thread finds those of its own row, and its results back. A kernel sees arrays in shared memory in the place of
addresses.
"""

from __future__ import annotations

import numpy as np

from npselect._arithmetic.primitives import inlined
from npselect._gpu.aliases import Address, Count, Function, Kind, Position, Shared
from npselect._gpu.elements import load, store
from npselect._gpu.intrinsics import barrier, cuda, thread
from npselect.tiers.cuda.arguments import Operands, Source
from npselect.tiers.cuda.teams import Place
from npselect.tiers.cuda.variant import Variant

__all__ = ["through_tiles"]


def _bringing(kind: Kind, threads: int, each: int) -> Function:
    """``bring(address, tile, first, count)``: elements from `first` on; returns the tile."""
    nothing, most = kind(0), (each - 1) * threads

    @inlined
    def bring(address: Address, tile: Shared, first: Position, count: Count) -> Shared:
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


def _giving(kind: Kind, threads: int, each: int) -> Function:
    """``give(address, tile, first, count)``: the other way."""
    most = (each - 1) * threads

    @inlined
    def give(address: Address, tile: Shared, first: Position, count: Count) -> None:
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
def _address(address: Address, tile: Shared, first: Position, count: Count) -> Address:
    return address


@inlined
def _tile(address: Address, tile: Shared, first: Position, count: Count) -> Shared:
    return tile


def through_tiles(variant: Variant, body: Function, cotangents: int, results: int, reads_logits: bool) -> Function:
    """The body of a kernel that finds its rows, so many cotangents and results, in shared memory."""
    kind, logits_kind, threads, team = variant.kind, variant.logits, variant.threads, variant.team
    length, rows_a_block = team.length, threads // team.group
    each = -(-length // team.group)  # elements that a thread copies
    room = threads * each
    bring = _bringing(kind, threads, each)
    bring_logits = _bringing(logits_kind, threads, each) if reads_logits else _address
    give = _giving(kind, threads, each)
    bring_grad_mask, bring_grad_grad = (bring if cotangents > i else _address for i in range(2))
    out_of, out_logits_of = (_tile if results > i else _address for i in range(2))
    give_out, give_out_logits = (give if results > i else _address for i in range(2))

    @inlined
    def tiled(source: Source, operands: Operands, place: Place, n: Count) -> None:
        logits_tile = cuda.shared.array(room, logits_kind)
        grad_mask_tile = cuda.shared.array(room, kind)
        grad_grad_tile = cuda.shared.array(room, kind)
        row = place.row - place.local
        first, count = row * length, min(rows_a_block, source.rows - row) * length
        logits = bring_logits(source.logits, logits_tile, first, count)
        grad_mask = bring_grad_mask(operands.grad_mask, grad_mask_tile, first, count)
        grad_grad = bring_grad_grad(operands.grad_grad_logits, grad_grad_tile, first, count)
        # staged results overwrite the staged cotangents: every thread of a row must have read them first
        out = out_of(operands.out, grad_mask_tile, first, count)
        out_logits = out_logits_of(operands.out_logits, grad_grad_tile, first, count)
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
            Operands(operands.temps, operands.temp, grad_mask, grad_grad, operands.choice, out, out_logits),
            Place(min(place.row, source.rows - 1), place.local, place.lane, place.warp),  # of what lies elsewhere
            n,
        )
        barrier()
        give_out(operands.out, out, first, count)
        give_out_logits(operands.out_logits, out_logits, first, count)

    return tiled
