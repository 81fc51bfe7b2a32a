"""The CUDA tier: the kernels of `npselect.tiers.cuda.kernels` over all rows of a batch, on the caller's stream.

The row functions take NumPy arrays, which are copied over and back, and `DeviceArray`s, which stay where they are. How
a row is shared out among threads depends on its length, and on whether the arrays start at multiples of 16 bytes and
all rows at whole quads: see `npselect.tiers.cuda.teams`. No result depends on that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from npselect._arithmetic.order import LANES, SEGMENT
from npselect._gpu import driver as memory
from npselect._gpu.array import DeviceArray
from npselect._gpu.launch import Launcher
from npselect._stream import StreamNumbers
from npselect.tiers.cuda import kernels
from npselect.tiers.cuda.loads import computed_in
from npselect.tiers.cuda.noise import PAIRS, draw
from npselect.tiers.cuda.teams import WARP, Team
from npselect.tiers.cuda.variant import Variant

__all__ = ["backward", "backward_temp", "double_backward", "gumbel", "index", "mask", "soft"]

Array = npt.NDArray[Any]
_KINDS = {"float16": np.uint16, "bfloat16": np.int16, "float32": np.float32, "float64": np.float64}
_SHARED_THREADS = 128  # of a block that has several rows
_MOST_THREADS = 512  # of a block


def mask(logits: Any, noise: Any, where: Any, out: Any) -> None:
    """The exact one-hot of the selected candidate."""
    _run(kernels.mask, 1, _kind(out.dtype), logits, noise, where, out)


def index(logits: Any, noise: Any, where: Any, out: Any) -> None:
    """Index of the selected candidate, -1 where nothing is selected."""
    _run(kernels.index, 1, _kind(logits.dtype), logits, noise, where, out)


def soft(logits: Any, noise: Any, temp: Any, where: Any, out: Any) -> None:
    """``probs = softmax(logits / temp)``."""
    _run(kernels.soft, 1, _kind(out.dtype), logits, noise, where, out, temp=temp)


def backward(grad_mask: Any, logits: Any, noise: Any, temp: Any, where: Any, out: Any) -> None:
    """The softmax's Jacobian times `grad_mask`."""
    _run(kernels.backward, 2, _kind(out.dtype), logits, noise, where, out, temp=temp, grad=grad_mask)


def backward_temp(grad_mask: Any, logits: Any, noise: Any, temp: Any, where: Any, out: Any) -> None:
    """The gradient of each temperature, summed like a row over the ``rows // temps`` rows that share it."""
    kind, rows = _kind(out.dtype), len(logits)
    per_row = DeviceArray.empty((rows,), np.dtype(computed_in(kind)), _stream(logits, grad_mask, out))
    _run(kernels.backward_temp, 3, kind, logits, noise, where, per_row, temp=temp, grad=grad_mask)
    _run(kernels.totals, 0, kind, per_row.reshape((len(out), rows // len(out))), None, None, out)


def double_backward(
    grad_grad_logits: Any,
    grad_mask: Any,
    logits: Any,
    noise: Any,
    temp: Any,
    where: Any,
    out_grad_mask: Any,
    out_logits: Any,
) -> None:
    """The gradient of `backward`."""
    operands = {"temp": temp, "grad": grad_mask, "grad_grad": grad_grad_logits, "out2": out_logits}
    _run(kernels.double_backward, 3, _kind(out_logits.dtype), logits, noise, where, out_grad_mask, **operands)


def gumbel(seed: int, first: int, out: Any) -> None:
    """The noise from number `first` on, into an array of one axis."""
    call = _Call(_stream(out))
    pairs = len(out) // 2 + 1
    draw(_kind(out.dtype))(-(-pairs // PAIRS), PAIRS, call.stream, seed, first, call.result(out), len(out))
    call.finish()


# ------------------------------------------------------------------------------------------------ one launch


@cache
def _kind(dtype: Any) -> Any:
    return _KINDS[dtype.name]


def _stream(*arrays: Any) -> int:
    """The caller's: that of the first array that has one."""
    for array in arrays:
        if isinstance(array, DeviceArray):
            return array.stream
    return memory.LEGACY


class _Call:
    """What a launch needs on the device, kept there until it is over, and what is to be brought back."""

    def __init__(self, stream: int) -> None:
        self.stream = stream
        self._copies: list[DeviceArray] = []
        self._results: list[tuple[Array, DeviceArray]] = []

    def source(self, array: Any) -> int:
        """The address of what is read; 0 for None."""
        if array is None:
            return 0
        if type(array) is not DeviceArray:
            array = DeviceArray.from_host(array, self.stream)
            self._copies.append(array)
        return int(array.address)

    def result(self, array: Any) -> int:
        """The address of what is written; 0 for None."""
        if array is None:
            return 0
        if type(array) is not DeviceArray:
            copy = DeviceArray.empty(array.shape, array.dtype, self.stream)
            self._results.append((array, copy))
            array = copy
        return int(array.address)

    def finish(self) -> None:
        """Bring the results back to the host."""
        for array, copy in self._results:
            memory.download(array, copy.address, self.stream)


def _quads(choices: int) -> int:
    """How many quads of a row, or of a segment of it, a thread holds."""
    return -(-min(choices, SEGMENT) // LANES)


def _team(choices: int, aligned: bool, most_threads: int, most_quads: int = 6) -> Team:
    if choices <= LANES:
        quads = -(-choices // 4)
        if aligned:
            held = min(quads, 2)
            return Team(True, held, 1 << (-(-quads // held) - 1).bit_length(), 1, False)
        groups = (g for g in (1, 2, 4, 8, 16) if quads <= most_quads * g)
        group = min(groups, key=lambda g: g * -(-quads // g))  # as few quads in all as can be
        return Team(False, -(-quads // group), group, 1, False, length=choices)
    segments = -(-choices // SEGMENT)
    rounds = -(-segments // (most_threads // WARP))
    return Team(aligned, _quads(choices), WARP, -(-segments // rounds), rounds > 1)


def _registers(held: int, kind: Any, quads: int, noise: str) -> tuple[bool, int]:
    """Whether a thread can hold its part of `held` rows in its registers, and how large its block may be."""
    words = held * 4 * quads * np.dtype(computed_in(kind)).itemsize // 4
    resident = words <= 128
    few = words > 64 or computed_in(kind) is np.float64 or noise == "drawn"  # threads, each with more registers
    most_threads = _SHARED_THREADS if quads < 8 else (256 if resident and few else 512)
    return resident, min(most_threads, _MOST_THREADS)


class _Plan(NamedTuple):
    """How a kernel is launched."""

    launch: Launcher
    threads: int
    rows_a_block: int


@cache
def _plan(
    kernel: Callable[[Variant], Launcher], held: int, kind: Any, logits: Any, noise: str, choices: int, aligned: bool
) -> _Plan:
    """`held` is how many numbers of a column the kernel would keep in registers; `logits` is their kind."""
    resident, most_threads = _registers(held, kind, _quads(choices), noise)
    team = _team(choices, aligned, most_threads, 3 if computed_in(kind) is np.float64 else 6)
    threads = WARP * team.warps if team.warps > 1 else _SHARED_THREADS
    launch = kernel(Variant(kind, logits, noise, team, resident, threads))
    return _Plan(launch, threads, threads // (team.group * team.warps))


def _run(
    kernel: Callable[[Variant], Launcher],
    held: int,
    kind: Any,
    logits: Any,
    noise: Any,
    where: Any,
    out: Any,
    temp: Array | None = None,
    grad: Any = None,
    grad_grad: Any = None,
    out2: Any = None,
) -> None:
    """A kernel over all rows, on one stream: its arguments are those of `device_arguments.ARGUMENTS`."""
    rows, choices = logits.shape
    call = _Call(_stream(logits, out))
    seed = offset = 0
    origin = "none" if noise is None else "array"
    if isinstance(noise, StreamNumbers):
        if noise.in_order:
            origin, seed, offset, noise = "drawn", noise.seed, noise.offset, None
        else:
            noise = _drawn(noise, call.stream)
    logits_at, noise_at, grad_at, grad_grad_at = map(call.source, (logits, noise, grad, grad_grad))
    out_at, out2_at = call.result(out), call.result(out2)
    addresses = logits_at | noise_at | grad_at | grad_grad_at | out_at | out2_at
    aligned = choices % 4 == 0 and addresses % 16 == 0
    plan = _plan(kernel, held, kind, _kind(logits.dtype), origin, choices, aligned)
    plan.launch(
        -(-rows // plan.rows_a_block),
        plan.threads,
        call.stream,
        logits_at,
        noise_at,
        choices if noise is not None and len(noise) > 1 else 0,
        seed,
        offset,
        call.source(where),
        choices if where is not None and len(where) > 1 else 0,
        0 if temp is None or len(temp) == 1 else call.source(temp),
        1.0 if temp is None else float(temp[0]),
        grad_at,
        grad_grad_at,
        out_at,
        out2_at,
        rows,
        choices,
    )
    call.finish()


def _drawn(noise: StreamNumbers, stream: int) -> DeviceArray:
    """Noise that does not follow the rows: drawn in the order of the logits as given, and brought into that of rows."""
    size = math.prod(noise.shape)
    flat = DeviceArray.empty((size,), noise.dtype, stream)
    gumbel(noise.seed, noise.offset, flat)
    choices = noise.shape[noise.order[-1]]
    return flat.reshape(noise.shape).transpose(noise.order).copy().reshape((size // choices, choices))
