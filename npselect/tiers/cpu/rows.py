"""The CPU tier: the kernels over all rows of a batch, in as many threads as pay for it.

Noise is drawn for as many rows at a time as a processor's cache holds, for one at least, and added to a copy of their
logits; it is never kept for the whole batch.
"""

from __future__ import annotations

import sys
from functools import lru_cache, partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from npselect._arithmetic.half import compute_type, stored
from npselect._arithmetic.simd import WIDTH
from npselect._modes import in_usual_modes
from npselect._operators import OPERATORS
from npselect._stream import SampleNumbers, ScaledNoise, StreamNumbers, unscaled
from npselect._threads import over_rows
from npselect._tuning import CACHE_LINE, NOISE_BLOCK, ROW_MEMORY, SAMPLES_AT_ONCE, SMALL_BATCH, TEMPS_KEPT
from npselect.tiers.cpu import long_passes, long_rows, short_rows
from npselect.tiers.cpu.compile import RowKernel
from npselect.tiers.cpu.noise import add_rows, draw, draw_at, perturb, perturb_at
from npselect.tiers.cpu.rotation import rotation

__all__ = [
    "backward",
    "backward_temp",
    "choice",
    "double_backward",
    "gapped",
    "gapped_soft",
    "gumbel",
    "gumbel_rao",
    "index",
    "log",
    "mask",
    "mask_at",
    "mixture",
    "reinmax",
    "rotation",
    "soft",
]

Array: TypeAlias = npt.NDArray[Any]
Noise: TypeAlias = Array | StreamNumbers | ScaledNoise | None
Draws: TypeAlias = Array | SampleNumbers
Compute: TypeAlias = Any  # the type float32 or float64
_EVERYWHERE = np.empty((0, 0), dtype=np.bool_)
_NO_INDEX = np.empty(0, dtype=np.int64)
_ANY_MEMORY = sys.maxsize  # bytes: buffers with a number for each entry of a row


def mask(logits: Array, noise: Noise, where: Array | None, out: Array) -> None:
    """The exact one-hot of the selected candidate."""
    _run("mask_rows", compute_type(out), logits, noise, where, out)


def index(logits: Array, noise: Noise, where: Array | None, out: Array) -> None:
    """Index of the selected candidate, -1 where nothing is selected."""
    _run("index_rows", compute_type(logits), logits, noise, where, out)


def soft(logits: Array, noise: Noise, temp: Array, where: Array | None, out: Array) -> None:
    """``probs = softmax(logits / temp)``."""
    _run("soft_rows", compute_type(out), logits, noise, temp, where, out)


def mixture(logits: Array, temp: Array, where: Array | None, unimix: float, out: Array) -> None:
    """``(1 - unimix) softmax(logits / temp)``, and as much for each candidate as makes the sum 1."""
    mix = _numbers(compute_type(out), 1.0 - unimix, unimix)
    _run("mixture_rows", compute_type(out), logits, None, temp, where, mix, out)


def log(x: Array, out: Array) -> None:
    """The logarithm of float64 numbers, in the dtype of `out`."""
    _run("log_rows", compute_type(out), x, None, out)


def backward(
    grad_mask: Array, logits: Array, noise: Noise, temp: Array, where: Array | None, scale: float, out: Array
) -> None:
    """The softmax's Jacobian times `grad_mask`."""
    compute = compute_type(out)
    _run("backward_rows", compute, logits, noise, grad_mask, temp, where, _numbers(compute, scale), out)


def backward_temp(
    grad_mask: Array, logits: Array, noise: Noise, temp: Array, where: Array | None, scale: float, out: Array
) -> None:
    """The gradient of each temperature, summed like a row over the ``rows // temps`` rows that share it."""
    compute = compute_type(out)
    per_row = np.empty(len(logits), compute)
    _run("backward_temp_rows", compute, logits, noise, grad_mask, temp, where, _numbers(compute, scale), per_row)
    _run("sum_rows", compute, per_row.reshape(len(out), -1), None, out)


def double_backward(
    grad_grad_logits: Array,
    grad_mask: Array,
    logits: Array,
    noise: Noise,
    temp: Array,
    where: Array | None,
    scale: float,
    out_grad_mask: Array,
    out_logits: Array,
) -> None:
    """The gradient of `backward`."""
    compute = compute_type(out_logits)
    arrays = grad_grad_logits, grad_mask, temp, where, _numbers(compute, scale), out_grad_mask, out_logits
    _run("double_backward_rows", compute, logits, noise, *arrays)


def choice(logits: Array, noise: Noise, index: Array | None, where: Array | None, out: Array) -> None:
    """Each row's choice: that of ``argmax(logits + noise)`` or the given `index`, checked; else why there is none."""
    given = _NO_INDEX if index is None else index
    _run("choice_rows", compute_type(logits), logits, noise, given, where, out)


def mask_at(choice: Array, out: Array) -> None:
    """The exact one-hot of each row's choice."""
    _run("mask_at_rows", compute_type(out), out, None, choice)


def reinmax(grad_mask: Array, logits: Array, choice: Array, temp: Array, where: Array | None, out: Array) -> None:
    """ReinMax's Jacobian, which depends on the choice, times `grad_mask`."""
    _run("reinmax_rows", compute_type(out), logits, None, grad_mask, choice, temp, where, out)


def gapped(
    grad_mask: Array, logits: Array, choice: Array, temp: Array, where: Array | None, gap: float, out: Array
) -> None:
    """GST's Jacobian, which depends on the choice, times `grad_mask`."""
    compute = compute_type(out)
    _run("gapped_rows", compute, logits, None, grad_mask, choice, temp, where, _two_words(compute, gap), out)


def gapped_soft(logits: Array, choice: Array, temp: Array, where: Array | None, gap: float, out: Array) -> None:
    """GST's probabilities, which depend on the choice."""
    compute = compute_type(out)
    _run("gapped_soft_rows", compute, logits, None, choice, temp, where, _two_words(compute, gap), out)


def gumbel_rao(
    grad_mask: Array, logits: Array, choice: Array, draws: Draws, temp: Array, where: Array | None, out: Array
) -> None:
    """Gumbel-Rao's Jacobian, a mean over samples that depends on the choice, times `grad_mask`."""
    compute, choices = compute_type(out), logits.shape[1]
    if choices <= short_rows.MAX_SHORT_ROW:
        rows: RowKernel = short_rows.gumbel_rao_rows
        scratch_size = short_rows.scratch_size(rows.buffers)
    else:
        rows = long_rows.gumbel_rao_rows
        scratch_size = long_passes.scratch_size(choices, rows.buffers, np.dtype(compute).itemsize, _ANY_MEMORY)
    samples, none = len(draws), np.empty(0, compute)
    inputs = [stored(array) for array in (logits, grad_mask, choice)]
    others = [temp, _EVERYWHERE if where is None else stored(where)]
    results = stored(out)

    def run_given(noise: Array, start: int, stop: int) -> None:
        scratch = _aligned(scratch_size, compute)
        rows(*inputs, noise, len(logits), compute(samples), *others, none, results, start, stop, scratch)

    def run_drawn(numbers: SampleNumbers, start: int, stop: int) -> None:
        """Some rows after others and, of these, some samples after others."""
        scratch = _aligned(scratch_size, compute)
        several = max(1, min(samples, SAMPLES_AT_ONCE, NOISE_BLOCK // choices))
        step = min(max(1, NOISE_BLOCK // (several * choices)), stop - start)
        noise = np.empty(several * step * choices, numbers.first.dtype)
        sums = none if several == samples else np.empty(_in_vectors(step) * _in_vectors(choices), compute)
        for first in range(start, stop, step):
            last = min(first + step, stop)
            n = last - first
            these, those = ([_rows(array, first, last) for array in some] for some in (inputs, others))
            sums[...] = 0
            for sample in range(0, samples, several):
                some = noise[: min(several, samples - sample) * n * choices].reshape(-1, n, choices)
                for i, drawn in enumerate(some):
                    _draw(numbers[sample + i], first, last, drawn)
                added = _in_type(some.reshape(-1, choices), compute)
                rows(*these, added, n, compute(samples), *those, sums, results[first:last], 0, n, scratch)

    if isinstance(draws, SampleNumbers):
        over_rows(partial(run_drawn, draws), len(logits), samples * choices)
    else:
        given = stored(_in_type(draws.reshape(-1, choices), compute))
        over_rows(partial(run_given, given), len(logits), samples * choices)


def gumbel(seed: int, first: int, out: Array) -> None:
    """The noise from number `first` on, into an array of one axis."""

    def draw_range(start: int, stop: int) -> None:
        draw(np.uint64(seed), np.uint64(first + start), out[start:stop])

    over_rows(draw_range, len(out), 1)


def _numbers(compute: Any, *values: float) -> Array:
    """Numbers that all rows share, as a kernel takes them."""
    return _array(compute, values)


@lru_cache(maxsize=TEMPS_KEPT)
def _array(compute: Any, values: tuple[float, ...]) -> Array:
    return np.array(values, compute)


def _two_words(compute: Compute, value: float) -> Array:
    """A number, and what is lost of it in the compute type."""
    return _numbers(compute, value, value - float(compute(value)))


def _run(
    name: str,
    compute: Compute,
    logits: Array,
    noise: Noise,
    *arrays: Array | None,
) -> None:
    """A kernel over all rows; each call of it gets scratch memory of its own."""
    added, noise_scale = unscaled(noise)
    choices = logits.shape[1]
    if choices <= short_rows.MAX_SHORT_ROW:
        rows: RowKernel = getattr(short_rows, name)
        scratch_size = short_rows.scratch_size(rows.buffers)
    else:
        rows = getattr(long_rows, name)
        memory = ROW_MEMORY - (0 if added is None else max(choices, NOISE_BLOCK) * added.dtype.itemsize)
        scratch_size = long_passes.scratch_size(choices, rows.buffers, np.dtype(compute).itemsize, memory)
    values = stored(logits)
    inputs = [_EVERYWHERE if array is None else stored(array) for array in arrays]

    def run_range(start: int, stop: int) -> None:
        scratch = (np.empty if (stop - start) * choices < SMALL_BATCH else _aligned)(scratch_size, compute)
        if added is None:
            rows(values, *inputs, start, stop, scratch)
            return
        step = min(max(1, NOISE_BLOCK // choices), stop - start)
        perturbed = np.empty((step, choices), added.dtype)
        for first in range(start, stop, step):
            last = min(first + step, stop)
            _perturb(values, added, noise_scale, first, last, perturbed[: last - first])
            rows(
                _in_type(perturbed, compute),
                *(_rows(array, first, last) for array in inputs),
                0,
                last - first,
                scratch,
            )

    over_rows(run_range, *logits.shape)


@in_usual_modes
def _in_type(logits: Array, compute: Compute) -> Array:
    return logits.astype(compute, copy=False)


def _aligned(size: int, compute: Compute) -> Array:
    """Memory that starts at a cache line."""
    memory = np.empty(size + CACHE_LINE // 4, compute)
    start = -memory.__array_interface__["data"][0] % CACHE_LINE // memory.itemsize
    return memory[start : start + size]


def _rows(array: Array, first: int, last: int) -> Array:
    """Some rows of an array; all of one that is shared by the rows, or absent."""
    return array[first:last] if len(array) > 1 else array


def _perturb(
    values: Array, noise: Array | StreamNumbers, noise_scale: float, first: int, last: int, out: Array
) -> None:
    """Some rows of ``logits + noise_scale noise``, in the type of the noise, to which 16-bit logits are widened."""
    some, scale = values[first:last], out.dtype.type(noise_scale)
    if isinstance(noise, np.ndarray):
        add_rows(some, stored(_rows(noise, first, last)), scale, out)
    elif noise.in_order:
        number = np.uint64(noise.offset + first * values.shape[1])
        perturb(some.reshape(-1), np.uint64(noise.seed), number, scale, out.reshape(-1))
    else:
        numbers = noise.numbers(first, last).reshape(-1)
        perturb_at(some.reshape(-1), np.uint64(noise.seed), numbers, scale, out.reshape(-1))


def _draw(noise: StreamNumbers, first: int, last: int, out: Array) -> None:
    """The noise of some rows."""
    if noise.in_order:
        draw(np.uint64(noise.seed), np.uint64(noise.offset + first * out.shape[1]), out.reshape(-1))
    else:
        draw_at(np.uint64(noise.seed), noise.numbers(first, last).reshape(-1), out.reshape(-1))


def _in_vectors(size: int) -> int:
    """So many numbers in whole SIMD vectors."""
    return -(-size // WIDTH) * WIDTH


def _check_buffers() -> None:
    """Whether both kernels of each row function have the buffers that its record calls for.

    That is one for the weights of each softmax, one for each cotangent, and one for what a temperature's gradient sums.
    """
    for operator in OPERATORS.values():
        for function in operator.functions.values():
            expected = function.softmaxes + len(function.cotangents) + function.per_temp
            for module in (long_rows, short_rows):
                found = getattr(module, f"{function.name}_rows").buffers
                if found < expected:
                    raise AssertionError(f"{module.__name__}.{function.name}_rows has {found} buffers of {expected}")


_check_buffers()
