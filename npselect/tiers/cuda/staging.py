"""Tiles: short rows that are not aligned, staged in shared memory.

The rows of a block are contiguous. Its threads copy them to a tile with coalesced loads, and results from a tile with
coalesced stores. In between, each thread reads and writes its own row's entries in the tiles: a kernel's body is given
arrays in shared memory instead of addresses.
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


def _loading_tile(kind: Kind, threads: int, each: int) -> Function:
    """``load_tile(address, tile, first, count)``: elements from `first` on into the tile, which is returned."""
    nothing, most = kind(0), (each - 1) * threads

    @inlined
    def load_tile(address: Address, tile: Shared, first: Position, count: Count) -> Shared:
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

    return load_tile


def _storing_tile(kind: Kind, threads: int, each: int) -> Function:
    """``store_tile(address, tile, first, count)``: elements of the tile from `first` on."""
    most = (each - 1) * threads

    @inlined
    def store_tile(address: Address, tile: Shared, first: Position, count: Count) -> None:
        mine, left = first + thread(), np.int32(count - thread())
        if most < left:
            for i in range(each):
                store(address, mine + i * threads, kind, load(tile, thread() + i * threads, kind))
        else:
            for i in range(each):
                if i * threads < left:
                    store(address, mine + i * threads, kind, load(tile, thread() + i * threads, kind))

    return store_tile


@inlined
def _address(address: Address, tile: Shared, first: Position, count: Count) -> Address:
    return address


@inlined
def _tile(address: Address, tile: Shared, first: Position, count: Count) -> Shared:
    return tile


def through_tiles(variant: Variant, body: Function, cotangents: int, results: int, reads_logits: bool) -> Function:
    """A kernel's body, which finds so many cotangents and results in shared memory, and the logits if it reads them."""
    kind, logits_kind, threads, team = variant.kind, variant.logits, variant.threads, variant.team
    length, rows_a_block = team.length, threads // team.group
    each = -(-length // team.group)  # elements that a thread copies
    size = threads * each
    load_tile = _loading_tile(kind, threads, each)
    load_logits = _loading_tile(logits_kind, threads, each) if reads_logits else _address
    store_tile = _storing_tile(kind, threads, each)
    load_grad_mask, load_grad_grad = (load_tile if cotangents > i else _address for i in range(2))
    out_of, out_logits_of = (_tile if results > i else _address for i in range(2))
    store_out, store_out_logits = (store_tile if results > i else _address for i in range(2))

    @inlined
    def tiled(source: Source, operands: Operands, place: Place, n: Count) -> None:
        logits_tile = cuda.shared.array(size, logits_kind)
        grad_mask_tile = cuda.shared.array(size, kind)
        grad_grad_tile = cuda.shared.array(size, kind)
        row = place.row - place.local
        first, count = row * length, min(rows_a_block, source.rows - row) * length
        logits = load_logits(source.logits, logits_tile, first, count)
        grad_mask = load_grad_mask(operands.grad_mask, grad_mask_tile, first, count)
        grad_grad = load_grad_grad(operands.grad_grad_logits, grad_grad_tile, first, count)
        # staged results overwrite the staged cotangents: every thread of a row must have read them first
        out = out_of(operands.out, grad_mask_tile, first, count)
        out_logits = out_logits_of(operands.out_logits, grad_grad_tile, first, count)
        barrier()
        body(
            Source(
                logits,
                source.noise,
                source.noise_stride,
                source.noise_scale,
                source.seed,
                source.offset,
                source.where,
                source.where_stride,
                source.rows,
                length,
            ),
            Operands(
                operands.temps,
                operands.temp,
                operands.scale,
                operands.unimix,
                operands.gap,
                grad_mask,
                grad_grad,
                operands.choice,
                out,
                out_logits,
            ),
            Place(
                min(place.row, source.rows - 1), place.local, place.lane, place.warp
            ),  # a row to read from arrays that are not staged
            n,
        )
        barrier()
        store_out(operands.out, out, first, count)
        store_out_logits(operands.out_logits, out_logits, first, count)

    return tiled
