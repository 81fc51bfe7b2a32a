"""Compile ahead of time: every kernel of the CPU tier that a later call can need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from npselect import noise, selection
from npselect._dtypes import FLOATING, DType, Shape, computed_in, dtype_name, ml_dtypes_bfloat16
from npselect._operators import OPERATORS, Operator

__all__ = ["warm_up"]

_CHOICES = (1, 2, 3, 4, 8, 10, 16, 33, 128, 129, 1025)  # lengths at which kernels, or their branches, differ
_ROWS = 17

Call = Callable[[], object]
Options = dict[str, Any]


def warm_up(
    dtypes: npt.DTypeLike | Iterable[npt.DTypeLike] = "float32",
    operators: str | Iterable[str] = tuple(OPERATORS),
    *,
    progress: Callable[[int, int, str], object] | None = None,
) -> int:
    """Compile the CPU tier's kernels now, so that later calls need not: not in this process, and not in others.

    A first call compiles for some seconds. Where machine code can be kept (in the directory that ``NUMBA_CACHE_DIR``
    names, else beside the package or in the user's cache directory) later processes find it, if they run on the same
    kind of processor: call this, or the command ``npselect warm-up``, when a container's image is built or before
    workers start.

    Parameters
    ----------
    dtypes : str, dtype or iterable of them, optional
        Of the arrays to come: float16, bfloat16, float32, float64, NumPy's or a framework's.
    operators : str or iterable of str, optional
        Names of `npselect.OPERATORS`, all by default. What `npselect.selection` and `npselect.noise` take is theirs.
    progress : callable, optional
        Called as ``progress(done, total, text)``.

    Returns
    -------
    int
        How many kernels were compiled: 0 if all were there.

    Raises
    ------
    ValueError
        A dtype or an operator that there is none of.
    RuntimeError
        The CPU tier does not run here.
    ModuleNotFoundError
        bfloat16 was asked for and the package ml_dtypes is missing.

    Warns
    -----
    RuntimeWarning
        Once in a process, that machine code cannot be kept, or what was kept cannot be read and is compiled again.

    Examples
    --------
    >>> import npselect
    >>> number = npselect.warm_up("float32", "straight_through")
    >>> npselect.warm_up("float32", "straight_through")  # all are there
    0
    """
    names = [_name(dtype) for dtype in _several(dtypes)]
    several = list(_several(operators))
    for operator in several:
        if not isinstance(operator, str) or operator not in OPERATORS:
            raise ValueError(f"operator is {operator!r}; it takes one of {', '.join(map(repr, OPERATORS))}")
    wanted = {name: ml_dtypes_bfloat16() if name == "bfloat16" else np.dtype(name) for name in names}
    compilations = _counter()
    calls = [
        (f"{operator}.{function}, {name}", call)
        for operator in several
        for name, dtype in wanted.items()
        for function, call in _calls(operator, dtype)
    ]
    with compilations() as found:
        for done, (text, call) in enumerate(calls):
            if progress is not None:
                progress(done, len(calls), text)
            call()
    if progress is not None:
        progress(len(calls), len(calls), "")
    return int(found.count)


def _several(values: Any) -> Iterable[Any]:
    return values if np.iterable(values) and not isinstance(values, str) else (values,)


def _name(dtype: DType) -> str:
    name = dtype_name(dtype)
    if name not in FLOATING:
        raise ValueError(f"dtype is {name!r}; it takes one of {', '.join(map(repr, FLOATING))}")
    return name


def _counter() -> Any:
    from npselect.tiers import choose

    choose("cpu")  # which says why, if it does not run
    return import_module("npselect.tiers.cpu.compilations").compilations


def _calls(name: str, dtype: DType) -> Iterator[tuple[str, Call]]:
    """Every function of an operator, in all ways that have kernels of their own."""
    operator, module, wide = OPERATORS[name], import_module(f"npselect.{name}"), computed_in(dtype)
    if "seed" in operator.options:
        yield "noise", partial(noise.gumbel, _ROWS, 1, dtype=wide, backend="cpu")
    vectors = np.zeros((_ROWS, 1), dtype)
    yield "selection.rotation", partial(selection.rotation.backward, vectors, vectors, vectors, backend="cpu")
    for choices in _CHOICES:
        shape = (_ROWS, choices)
        ways = _ways(operator, "forward", shape, wide)
        grad_chosen, x, logits = (np.zeros(some, dtype) for some in ((_ROWS, 1), (choices, 1), shape))
        options: Options = {"operator": module, "backend": "cpu", **ways[0]}
        yield "selection", partial(selection.backward, grad_chosen, x, logits, **options)
        for function, row_function in operator.functions.items():
            arrays = [logits] * (1 + len(row_function.cotangents))
            for way in _ways(operator, function, shape, wide):
                for where in (None, np.ones(shape, np.bool_)):
                    call = partial(getattr(module, function), *arrays, where=where, backend="cpu", **way)
                    yield function, call


def _ways(operator: Operator, function: str, shape: Shape, wide: DType) -> list[Options]:
    """Options that lead to different kernels: none; noise, drawn in row order or not, or given; an index; a mixture."""
    options = operator.options_of(function)
    index = np.zeros(shape[:1], np.int64)
    ways: list[Options] = []
    if "samples" in options:
        drawn: Options = {"seed": 1, "samples": 2}
        return [drawn, {**drawn, "axis": 0}, {"sample_noise": np.zeros((1, *shape), wide), "index": index}]
    if "seed" in options:
        ways += [{"seed": 1}, {"seed": 1, "axis": 0}]
    if "noise" in options:
        ways.append({"noise": np.zeros(shape, wide)})
    if "index" in options:
        ways.append({"index": index})
    if "unimix" in options and ways:
        ways.append({"seed": 1, "unimix": 0.5})
    return ways or [{}]
