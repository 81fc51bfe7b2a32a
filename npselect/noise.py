"""Gumbel noise that is a function: the same seed and the same place give the same number, on every machine.

Number n of a seed's stream is ``G_n = -log(-log(u_n))``, the nearest float64 to that, from the uniform ``u_n`` that the
counter-based generator Philox4x32-10 makes of the seed and of n alone. So noise need not be kept: it can be drawn again
in a backward pass, in parts, in any order, by many threads. G is never infinite: it lies in [-3.604, 36.74], as u never
reaches 0 or 1.

Philox: J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import SupportsIndex, TypeVar, overload

import numpy as np
import numpy.typing as npt

from npselect._call.arguments import outs, stream_of, whole
from npselect._call.layout import Form, fill_results, tier_and_memory
from npselect._dtypes import Array, Shape, dtype_name
from npselect._places import names_on_gpu
from npselect._stream import Block
from npselect.tiers import choose

__all__ = ["gumbel"]

Float = TypeVar("Float", np.float32, np.float64)


@overload
def gumbel(
    shape: SupportsIndex | Sequence[SupportsIndex],
    seed: SupportsIndex,
    *,
    offset: SupportsIndex = 0,
    within: tuple[Sequence[SupportsIndex], Sequence[SupportsIndex]] | None = None,
    out: Array | None = None,
    backend: str | None = None,
) -> npt.NDArray[np.float32]: ...
@overload
def gumbel(
    shape: SupportsIndex | Sequence[SupportsIndex],
    seed: SupportsIndex,
    *,
    offset: SupportsIndex = 0,
    within: tuple[Sequence[SupportsIndex], Sequence[SupportsIndex]] | None = None,
    dtype: type[Float],
    out: Array | None = None,
    backend: str | None = None,
) -> npt.NDArray[Float]: ...
@overload
def gumbel(
    shape: SupportsIndex | Sequence[SupportsIndex],
    seed: SupportsIndex,
    *,
    offset: SupportsIndex = 0,
    within: tuple[Sequence[SupportsIndex], Sequence[SupportsIndex]] | None = None,
    dtype: npt.DTypeLike | None = np.float32,
    out: Array | None = None,
    backend: str | None = None,
) -> Array: ...
def gumbel(
    shape: SupportsIndex | Sequence[SupportsIndex],
    seed: SupportsIndex,
    *,
    offset: SupportsIndex = 0,
    within: tuple[Sequence[SupportsIndex], Sequence[SupportsIndex]] | None = None,
    dtype: npt.DTypeLike | None = np.float32,
    out: Array | None = None,
    backend: str | None = None,
) -> Array:
    """Standard Gumbel noise: the numbers ``offset``, ``offset + 1``, ... of a seed's stream, in C order.

    With the key ``seed`` (low word first) and the counter ``n // 2`` (low word first, then two words of 0), Philox
    yields four words of 32 bits; an even n takes the first two, an odd n the last two, low word first, as 64 bits::

        u = ((bits >> 11) | 1) 2**-53        G = -log(-log(u))

    Parameters
    ----------
    shape : int or sequence of ints
        Of the result; () for a single number.
    seed : int
        From 0 to 2**64 - 1. Different seeds are different keys: their streams have nothing in common.
    offset : int, optional
        The first number's place in the stream, from 0 to 2**64 - 1. A shard that starts at the k-th element of an array
        draws its part of the array's noise with ``offset=k``.
    within : tuple of two sequences of ints, optional
        ``(whole, start)``: the result is that block of the noise of an array of shape `whole` that begins at the place
        `start`, ``gumbel(whole, seed)[start[0] : start[0] + shape[0], ...]``. Nothing else is drawn. `offset` is then
        the place of the whole array's first number.
    dtype : {float32, float64}, optional
        Float32 noise is float64 noise, rounded once. (Logits of 16 bits take noise in float32.)
    out : ndarray, optional
        Where the result goes; of the dtype, as for NumPy's generators.
    backend : {None, "reference", "cpu", "cuda"}, optional
        The tier. All have the same bits. None lets `out` decide, which may be an array on a GPU.

    Returns
    -------
    ndarray
        Independent draws from the distribution function ``exp(-exp(-x))``.

    Raises
    ------
    TypeError
        `seed`, `offset` or `shape` is not made of integers (a bool is none); another dtype; `out` cannot hold it.
    ValueError
        A negative length; `seed` or `offset` out of range; ``offset`` plus the size is beyond 2**64; the block does not
        lie within the whole.
    RuntimeError
        The tier that was named does not run here.

    Notes
    -----
    Nearest: before they are rounded, the kernels' numbers are wrong by less than ``2**-103``, or ``2**-110`` where
    ``|G| < 1``. By that bound one in ``2**54`` could still be rounded to the other neighbour; none is known. Float32
    noise cannot.

    Examples
    --------
    >>> from npselect import noise
    >>> noise.gumbel(3, seed=1)
    array([2.1956708, 1.0767357, 2.005843 ], dtype=float32)
    >>> noise.gumbel(2, seed=1, offset=1)
    array([1.0767357, 2.005843 ], dtype=float32)
    >>> whole = noise.gumbel((2, 3), seed=1)
    >>> bool((noise.gumbel((2, 1), seed=1, within=((2, 3), (0, 1))) == whole[:, 1:2]).all())
    True
    """
    stream = stream_of(seed, offset)
    lengths = _lengths(shape)
    size = math.prod(lengths)
    block = None if within is None else _block(lengths, within)
    stream.check_size(size if block is None else math.prod(block.whole))
    name = dtype_name(np.float32 if dtype is None else dtype)
    if name not in ("float32", "float64"):
        raise TypeError(f"dtype is {name}; noise is drawn in float32 or float64")
    drawn = np.dtype(name)
    given = {"out": outs(out, 1)[0]}
    tier, memory = tier_and_memory(backend, given, {}, names_on_gpu(given))
    holds = drawn if given["out"] is None else memory.writable(given["out"]).dtype
    if holds.newbyteorder("=") != drawn:
        raise TypeError(f"out has dtype {holds} and the noise is to be {drawn}; give out's dtype as dtype=")
    form = Form(lengths, range(len(lengths)), (size,), drawn)
    fill = partial(tier.gumbel, *stream)
    if block is not None and size:
        firsts, length = block.runs()
        if len(firsts) == 1:
            fill = partial(tier.gumbel, stream.seed, stream.offset + int(firsts[0]))
        else:
            host = choose("reference" if backend == "reference" else "cpu")
            flat = np.empty(size, drawn)
            for first, run in zip(firsts.tolist(), flat.reshape(-1, length), strict=True):
                host.gumbel(stream.seed, stream.offset + first, run)
            fill = partial(memory.fill_with, flat)
    result: Array
    (result,) = fill_results(memory, fill, [given["out"]], [form])
    return result


def _block(shape: Shape, within: tuple[Sequence[SupportsIndex], Sequence[SupportsIndex]]) -> Block:
    try:
        whole_shape, start = within
    except (TypeError, ValueError):
        raise TypeError(f"within is {within!r}; it takes a tuple (shape of the whole, start of the block)") from None
    block = Block(shape, _lengths(whole_shape, "within[0]"), _lengths(start, "within[1]"))
    ends = [first + length for first, length in zip(block.start, shape, strict=False)]
    if not len(shape) == len(block.whole) == len(block.start) or any(
        end > length for end, length in zip(ends, block.whole, strict=True)
    ):
        raise ValueError(
            f"a block of shape {shape} that starts at {block.start} does not lie within an array of shape {block.whole}"
        )
    return block


def _lengths(shape: SupportsIndex | Sequence[SupportsIndex], name: str = "shape") -> Shape:
    try:
        if isinstance(shape, (str, bytes)):
            raise TypeError
        lengths = tuple(whole(n, name) for n in (shape if np.iterable(shape) else (shape,)))
    except TypeError:
        raise TypeError(f"{name} is {shape!r}; it takes an integer or a sequence of integers") from None
    if any(length < 0 for length in lengths):
        raise ValueError(f"{name} is {lengths}; no length may be negative")
    return lengths
