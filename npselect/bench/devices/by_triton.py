"""Forward and backward as fused Triton kernels: one program a row, or a few short rows; imported where Triton is.

A row of up to LONGEST choices is held by its program, as the fused softmax of Triton's tutorial holds it; of a longer
one, sums and maximum are taken on a first pass, with the running maximum of Milakov and Gimelshein 2018, and the second
pass writes.
"""

from __future__ import annotations

import triton
import triton.language as tl

from npselect.bench.devices.arrays import DeviceArray
from npselect.bench.devices.peers import DevicePeers

__all__ = ["peers"]

LONGEST = 16384
STEP = 8192  # of a longer row


@triton.jit
def forward_rows(out, logits, rows, choices, ROWS: tl.constexpr, BLOCK: tl.constexpr):  # noqa: N803
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    inside = (row < rows) & (column < choices)
    place = row * choices + column
    w = tl.load(logits + place, mask=inside, other=-float("inf")).to(tl.float32)
    selected = tl.argmax(w, 1)[:, None]
    tl.store(out + place, tl.where(column == selected, 1.0, 0.0).to(out.dtype.element_ty), mask=inside)


@triton.jit
def backward_rows(out, grad, logits, rows, choices, temp, ROWS: tl.constexpr, BLOCK: tl.constexpr):  # noqa: N803
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    inside = (row < rows) & (column < choices)
    place = row * choices + column
    w = tl.load(logits + place, mask=inside, other=-float("inf")).to(tl.float32)
    g = tl.load(grad + place, mask=inside, other=0.0).to(tl.float32)
    e = tl.exp((w - tl.max(w, 1)[:, None]) / temp)
    p = e / tl.sum(e, 1)[:, None]
    d = tl.sum(p * g, 1)[:, None]
    tl.store(out + place, (p * (g - d) / temp).to(out.dtype.element_ty), mask=inside)


@triton.jit
def forward_long(out, logits, choices, BLOCK: tl.constexpr):  # noqa: N803
    start = tl.program_id(0).to(tl.int64) * choices
    column = tl.arange(0, BLOCK)
    best = tl.full((BLOCK,), -float("inf"), tl.float32)
    at = tl.zeros((BLOCK,), tl.int32)
    for first in range(0, choices, BLOCK):
        inside = first + column < choices
        w = tl.load(logits + start + first + column, mask=inside, other=-float("inf")).to(tl.float32)
        at = tl.where(w > best, first + column, at)
        best = tl.maximum(best, w)
    selected = tl.min(tl.where(best == tl.max(best, 0), at, choices), 0)
    for first in range(0, choices, BLOCK):
        inside = first + column < choices
        one = tl.where(first + column == selected, 1.0, 0.0).to(out.dtype.element_ty)
        tl.store(out + start + first + column, one, mask=inside)


@triton.jit
def backward_long(out, grad, logits, choices, temp, BLOCK: tl.constexpr):  # noqa: N803
    start = tl.program_id(0).to(tl.int64) * choices
    column = tl.arange(0, BLOCK)
    top = tl.full((BLOCK,), -float("inf"), tl.float32)
    s = tl.zeros((BLOCK,), tl.float32)
    d = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, choices, BLOCK):
        inside = first + column < choices
        w = tl.load(logits + start + first + column, mask=inside, other=-float("inf")).to(tl.float32)
        g = tl.load(grad + start + first + column, mask=inside, other=0.0).to(tl.float32)
        higher = tl.maximum(top, w)
        e = tl.where(inside, tl.exp((w - higher) / temp), 0.0)
        kept = tl.where(top > -float("inf"), tl.exp((top - higher) / temp), 0.0)
        s = s * kept + e
        d = d * kept + e * g
        top = tl.where(inside, higher, top)
    highest = tl.max(top, 0)
    share = tl.where(top > -float("inf"), tl.exp((top - highest) / temp), 0.0)
    total = tl.sum(s * share, 0)
    mean = tl.sum(d * share, 0) / total
    for first in range(0, choices, BLOCK):
        inside = first + column < choices
        w = tl.load(logits + start + first + column, mask=inside, other=-float("inf")).to(tl.float32)
        g = tl.load(grad + start + first + column, mask=inside, other=0.0).to(tl.float32)
        result = tl.exp((w - highest) / temp) / total * (g - mean) / temp
        tl.store(out + start + first + column, result.to(out.dtype.element_ty), mask=inside)


def tile(choices: int) -> tuple[int, int, int]:
    """How many rows and columns a program takes, and how many warps."""
    block = triton.next_power_of_2(choices)
    rows = max(1, 1024 // block)
    return rows, block, min(16, max(4, rows * block // 512))


def peers() -> DevicePeers:
    """Each in any dtype but float64, in which they compute in float32."""
    return {"forward": {"Triton": _forward}, "backward": {"Triton": _backward}}


def _forward(g: DeviceArray, logits: DeviceArray, out: DeviceArray, temp: float) -> None:
    rows, choices = logits.shape
    if choices > LONGEST:
        forward_long[(rows,)](out, logits, choices, BLOCK=STEP, num_warps=16)
        return
    each, block, warps = tile(choices)
    forward_rows[(triton.cdiv(rows, each),)](out, logits, rows, choices, ROWS=each, BLOCK=block, num_warps=warps)


def _backward(g: DeviceArray, logits: DeviceArray, out: DeviceArray, temp: float) -> None:
    rows, choices = logits.shape
    if choices > LONGEST:
        backward_long[(rows,)](out, g, logits, choices, temp, BLOCK=STEP, num_warps=16)
        return
    each, block, warps = tile(choices)
    grid = (triton.cdiv(rows, each),)
    backward_rows[grid](out, g, logits, rows, choices, temp, ROWS=each, BLOCK=block, num_warps=warps)
