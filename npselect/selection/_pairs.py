"""What the gradients at the level of vectors share: encoder outputs e and selected vectors q, read and copied."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from npselect._call.arguments import promoted
from npselect._call.memory import AnyArray, AnyMemory
from npselect._dtypes import Array
from npselect._places import names_on_gpu
from npselect.selection._batches import read
from npselect.tiers import choose

__all__ = ["copied", "read_pair", "rotated"]


def read_pair(given: Mapping[str, object], backend: str | None) -> tuple[AnyMemory, dict[str, AnyArray]]:
    """Arrays of one shape (..., D), where they are."""
    memory, arrays = read(given, {}, backend)
    (first, one), *others = arrays.items()
    if one.ndim < 1:
        raise ValueError(f"{first} has shape {one.shape}; it takes vectors, (..., D)")
    for name, array in others:
        if array.shape != one.shape:
            raise ValueError(f"{first} has shape {one.shape} and {name} has shape {array.shape}; the two must be equal")
    return memory, arrays


def copied(name: str, given: Mapping[str, object], backend: str | None, *, common: bool) -> Array:
    """A new array that holds one of the arrays, in its own dtype or in the one that all have in common."""
    choose(backend, bool(names_on_gpu(given)))  # which says why, if it does not run
    memory, arrays = read_pair(given, backend)
    array = arrays[name]
    result = memory.empty(array.shape, promoted(arrays) if common else array.dtype.newbyteorder("="))
    if array.size:
        memory.copy_into(result, array)
    memory.finish()
    made: Array = memory.result(result)
    return made


def rotated(given: Mapping[str, object], backend: str | None) -> Array:
    """The gradient of the rotation trick, of `grad`, `e` and `q`."""
    on_gpu = names_on_gpu(given)
    if backend == "cuda" or (on_gpu and backend is None):
        what = f"{on_gpu[0]} lives on a GPU: copy it to the host" if on_gpu else "name one of these, or none"
        raise RuntimeError(
            f"backend 'cuda' has no kernel for the rotation trick; 'cpu' and 'reference' compute it; {what}"
        )
    tier: Any = choose(backend)
    memory, arrays = read_pair(given, backend)
    dtype, shape = promoted(arrays), arrays["grad"].shape
    result = memory.empty(shape, dtype)
    if result.size:
        rows = (math.prod(shape[:-1]), shape[-1])
        operands = [memory.as_rows(array, dtype) for array in arrays.values()]
        memory.run(tier.rotation, [*operands, result.reshape(rows)])
    made: Array = memory.result(result)
    return made
