"""The CUDA tier: its kernels over all rows of a batch, on the caller's stream.

The row functions take NumPy arrays, which are copied over and back, and `DeviceArray`s, which stay where they are.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from npselect._arithmetic.aliases import Where
from npselect._gpu.aliases import DType, HostArray, Kind
from npselect._gpu.array import DeviceArray
from npselect._gpu.driver import LEGACY, gpu
from npselect._operators import (
    BACKWARD,
    BACKWARD_TEMP,
    CHOICE,
    DOUBLE_BACKWARD,
    GAPPED,
    GAPPED_SOFT,
    INDEX,
    LOG,
    MASK,
    MASK_AT,
    MIXTURE,
    REINMAX,
    SOFT,
    Result,
    RowFunction,
)
from npselect._stream import ScaledNoise, StreamNumbers, unscaled
from npselect.tiers.cuda.arguments import Operands, Source
from npselect.tiers.cuda.double_backward import double_backward as double_backward_kernel
from npselect.tiers.cuda.gapped import gapped as gapped_kernel
from npselect.tiers.cuda.gapped import gapped_soft as gapped_soft_kernel
from npselect.tiers.cuda.kernels import backward as backward_kernel
from npselect.tiers.cuda.kernels import backward_temp as backward_temp_kernel
from npselect.tiers.cuda.kernels import mixture as mixture_kernel
from npselect.tiers.cuda.kernels import soft as soft_kernel
from npselect.tiers.cuda.noise import PAIRS, draw
from npselect.tiers.cuda.plan import plan
from npselect.tiers.cuda.reinmax import reinmax as reinmax_kernel
from npselect.tiers.cuda.row_kernel import RowKernel
from npselect.tiers.cuda.selecting import choice as choice_kernel
from npselect.tiers.cuda.selecting import index as index_kernel
from npselect.tiers.cuda.selecting import log as log_kernel
from npselect.tiers.cuda.selecting import mask as mask_kernel
from npselect.tiers.cuda.selecting import mask_at as mask_at_kernel
from npselect.tiers.cuda.selecting import totals as totals_kernel
from npselect.tiers.cuda.variant import computed_in

__all__ = [
    "KERNELS",
    "agrees",
    "backward",
    "backward_temp",
    "choice",
    "double_backward",
    "gapped",
    "gapped_soft",
    "gumbel",
    "index",
    "log",
    "mask",
    "mask_at",
    "mixture",
    "reinmax",
    "soft",
]

Rows: TypeAlias = HostArray | DeviceArray
"""(rows, K), C-contiguous; or a result of (rows,)."""
Noise: TypeAlias = Rows | StreamNumbers | ScaledNoise | None
Temps: TypeAlias = npt.NDArray[np.floating]

_KINDS = {"float16": np.uint16, "bfloat16": np.int16, "float32": np.float32, "float64": np.float64}

KERNELS = {
    MASK.name: (MASK, mask_kernel),
    INDEX.name: (INDEX, index_kernel),
    SOFT.name: (SOFT, soft_kernel),
    BACKWARD.name: (BACKWARD, backward_kernel),
    BACKWARD_TEMP.name: (BACKWARD_TEMP, backward_temp_kernel),
    DOUBLE_BACKWARD.name: (DOUBLE_BACKWARD, double_backward_kernel),
    CHOICE.name: (CHOICE, choice_kernel),
    MASK_AT.name: (MASK_AT, mask_at_kernel),
    REINMAX.name: (REINMAX, reinmax_kernel),
    GAPPED.name: (GAPPED, gapped_kernel),
    GAPPED_SOFT.name: (GAPPED_SOFT, gapped_soft_kernel),
    MIXTURE.name: (MIXTURE, mixture_kernel),
    LOG.name: (LOG, log_kernel),
}
"""The row functions of the tier and their kernels."""


def agrees(function: RowFunction, kernel: RowKernel) -> bool:
    """Whether a kernel reads and writes what its row function is declared to, and keeps no less than that needs."""
    kept = function.softmaxes + len(function.cotangents) + function.per_temp
    like_logits = sum(result is Result.LIKE_LOGITS for result in function.results)
    declared = len(function.cotangents), like_logits, bool({"logits", "x"} & {*function.reads})
    found = kernel.cotangents, kernel.results, kernel.reads_logits
    return kernel.arrays_in_registers >= kept and found == declared


for _function, _kernel in KERNELS.values():
    assert agrees(_function, _kernel), f"{_function.name}: its kernel declares otherwise"


def mask(logits: Rows, noise: Noise, where: Where, out: Rows) -> None:
    """The exact one-hot of the selected candidate."""
    _run(mask_kernel, _kind(out.dtype), logits, noise, where, out)


def index(logits: Rows, noise: Noise, where: Where, out: Rows) -> None:
    """Index of the selected candidate, -1 where nothing is selected."""
    _run(index_kernel, _kind(logits.dtype), logits, noise, where, out)


def soft(logits: Rows, noise: Noise, temp: Temps, where: Where, out: Rows) -> None:
    """``probs = softmax(logits / temp)``."""
    _run(soft_kernel, _kind(out.dtype), logits, noise, where, out, temp=temp)


def mixture(logits: Rows, temp: Temps, where: Where, unimix: float, out: Rows) -> None:
    """``(1 - unimix) softmax(logits / temp)``, and as much for each candidate as makes the sum 1."""
    _run(mixture_kernel, _kind(out.dtype), logits, None, where, out, temp=temp, unimix=unimix)


def log(x: Rows, out: Rows) -> None:
    """The logarithm of float64 numbers, in the dtype of `out`."""
    _run(log_kernel, _kind(out.dtype), x, None, None, out)


def backward(grad_mask: Rows, logits: Rows, noise: Noise, temp: Temps, where: Where, scale: float, out: Rows) -> None:
    """The softmax's Jacobian times `grad_mask`."""
    _run(backward_kernel, _kind(out.dtype), logits, noise, where, out, temp=temp, scale=scale, grad_mask=grad_mask)


def backward_temp(
    grad_mask: Rows, logits: Rows, noise: Noise, temp: Temps, where: Where, scale: float, out: Rows
) -> None:
    """The gradient of each temperature, summed like a row over the ``rows // temps`` rows that share it."""
    kind, rows = _kind(out.dtype), len(logits)
    per_row = DeviceArray.empty((rows,), np.dtype(computed_in(kind)), _stream(logits, grad_mask, out))
    _run(backward_temp_kernel, kind, logits, noise, where, per_row, temp=temp, scale=scale, grad_mask=grad_mask)
    _run(totals_kernel, kind, per_row.reshape((len(out), rows // len(out))), None, None, out)


def double_backward(
    grad_grad_logits: Rows,
    grad_mask: Rows,
    logits: Rows,
    noise: Noise,
    temp: Temps,
    where: Where,
    scale: float,
    out_grad_mask: Rows,
    out_logits: Rows,
) -> None:
    """The gradient of `backward`."""
    _run(
        double_backward_kernel,
        _kind(out_logits.dtype),
        logits,
        noise,
        where,
        out_grad_mask,
        temp=temp,
        scale=scale,
        grad_mask=grad_mask,
        grad_grad_logits=grad_grad_logits,
        out_logits=out_logits,
    )


def choice(logits: Rows, noise: Noise, index: Rows | None, where: Where, out: Rows) -> None:
    """Each row's choice: that of ``argmax(logits + noise)`` or the given `index`, checked; else why there is none."""
    _run(choice_kernel, _kind(logits.dtype), logits, noise, where, out, choice=index)


def mask_at(choice: Rows, out: Rows) -> None:
    """The exact one-hot of each row's choice."""
    _run(mask_at_kernel, _kind(out.dtype), None, None, None, out, choice=choice)


def reinmax(grad_mask: Rows, logits: Rows, choice: Rows, temp: Temps, where: Where, out: Rows) -> None:
    """ReinMax's Jacobian, which depends on the choice, times `grad_mask`."""
    _run(reinmax_kernel, _kind(out.dtype), logits, None, where, out, temp=temp, grad_mask=grad_mask, choice=choice)


def gapped(grad_mask: Rows, logits: Rows, choice: Rows, temp: Temps, where: Where, gap: float, out: Rows) -> None:
    """GST's Jacobian, which depends on the choice, times `grad_mask`."""
    kind = _kind(out.dtype)
    _run(gapped_kernel, kind, logits, None, where, out, temp=temp, gap=gap, grad_mask=grad_mask, choice=choice)


def gapped_soft(logits: Rows, choice: Rows, temp: Temps, where: Where, gap: float, out: Rows) -> None:
    """GST's probabilities, which depend on the choice."""
    _run(gapped_soft_kernel, _kind(out.dtype), logits, None, where, out, temp=temp, gap=gap, choice=choice)


def gumbel(seed: int, first: int, out: Rows) -> None:
    """The noise from number `first` on, into an array of one axis."""
    call = _Call(_stream(out))
    pairs = len(out) // 2 + 1
    draw(_kind(out.dtype))(-(-pairs // PAIRS), PAIRS, call.stream, seed, first, call.result(out), len(out))
    call.finish()


# ------------------------------------------------------------------------------------------------ one launch


@cache
def _kind(dtype: DType) -> Kind:
    return _KINDS[dtype.name]


def _stream(*arrays: Rows) -> int:
    """The caller's: that of the first array that has one."""
    for array in arrays:
        if isinstance(array, DeviceArray):
            return array.stream
    return LEGACY


class _Call:
    """The device copies that a launch needs, kept until it is over, and the results to copy back to the host."""

    def __init__(self, stream: int) -> None:
        self.stream = stream
        self._copies: list[DeviceArray] = []
        self._results: list[tuple[HostArray, DeviceArray]] = []

    def source(self, array: Rows | None) -> int:
        """The address of what is read; 0 for None."""
        if array is None:
            return 0
        if not isinstance(array, DeviceArray):
            array = DeviceArray.from_host(array, self.stream)
            self._copies.append(array)
        return int(array.address)

    def result(self, array: Rows | None) -> int:
        """The address of what is written; 0 for None."""
        if array is None:
            return 0
        if not isinstance(array, DeviceArray):
            copy = DeviceArray.empty(array.shape, array.dtype, self.stream)
            self._results.append((array, copy))
            array = copy
        return int(array.address)

    def finish(self) -> None:
        """Copy the results back to the host."""
        for array, copy in self._results:
            gpu().download(array, copy.address, self.stream)


def _run(
    kernel: RowKernel,
    kind: Kind,
    logits: Rows | None,
    noise: Noise,
    where: Where,
    out: Rows,
    temp: Temps | None = None,
    scale: float = 1.0,
    unimix: float = 0.0,
    gap: float = 0.0,
    grad_mask: Rows | None = None,
    grad_grad_logits: Rows | None = None,
    choice: Rows | None = None,
    out_logits: Rows | None = None,
) -> None:
    """A kernel over all rows, on one stream; `kind` is that of cotangents and results."""
    like = out if logits is None else logits
    rows, choices = like.shape
    call = _Call(_stream(like, out))
    added, noise_scale = unscaled(noise)
    seed = offset = 0
    origin = "none" if added is None else "array"
    if isinstance(added, StreamNumbers):
        if added.in_order and noise_scale == 1:
            origin, seed, offset, added = "drawn", added.seed, added.offset, None
        else:
            added = _drawn(added, call.stream)
    source = Source(
        logits=call.source(logits),
        noise=call.source(added),
        noise_stride=choices if added is not None and len(added) > 1 else 0,
        noise_scale=noise_scale,
        seed=seed,
        offset=offset,
        where=call.source(where),
        where_stride=choices if where is not None and len(where) > 1 else 0,
        rows=rows,
        choices=choices,
    )
    operands = Operands(
        temps=0 if temp is None or len(temp) == 1 else call.source(temp),
        temp=1.0 if temp is None else float(temp[0]),
        scale=scale,
        unimix=unimix,
        gap=gap,
        grad_mask=call.source(grad_mask),
        grad_grad_logits=call.source(grad_grad_logits),
        choice=call.source(choice),
        out=call.result(out),
        out_logits=call.result(out_logits),
    )
    addresses = source.logits | source.noise | operands.grad_mask | operands.grad_grad_logits
    addresses |= operands.out | operands.out_logits
    aligned = choices % 4 == 0 and addresses % 16 == 0
    planned = plan(kernel, kind, _kind(like.dtype), origin, choices, aligned)
    planned.kernel(-(-rows // planned.rows_a_block), planned.threads, call.stream, source, operands)
    call.finish()


def _drawn(noise: StreamNumbers, stream: int) -> DeviceArray:
    """Noise that is not in the order of the rows: drawn in the order of the logits as given, and transposed."""
    size = math.prod(noise.shape)
    flat = DeviceArray.empty((size,), noise.dtype, stream)
    gumbel(noise.seed, noise.offset, flat)
    choices = noise.shape[noise.order[-1]]
    return flat.reshape(noise.shape).transpose(noise.order).copy().reshape((size // choices, choices))
