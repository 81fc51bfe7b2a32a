"""Every function against the CPU tier, bit for bit, through the public interface.

The device's arrays go in, what comes out was filled with poison before, and is compared as integers. Every function is
called in several cases: scalar and many temperatures, `where`, memory that begins at an odd element, another axis, more
axes, no rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from cuda_device import Counts, Log
from cuda_device.comparison import compare, count
from cuda_device.inputs import Batch, batch, finite_batch, rows_of
from npselect.bench.devices import FUNCTIONS, Arrays, Function
from npselect.bench.devices.arrays import DeviceArray, Shape, host_dtype
from npselect.bench.devices.functions import Operators, results
from npselect.testing.aliases import Array

__all__ = ["Case", "cases", "check", "more_axes"]


class Case(NamedTuple):
    """Arguments of a call, as NumPy arrays; `skew` elements lie before each in its memory."""

    name: str
    cotangents: tuple[Array, Array]
    logits: Array
    temp: Array | float
    noise: Array
    where: Array | None = None
    axis: int = -1
    skew: int = 0


def cases(dtype: str, choices: int, rows: int | None = None) -> Iterator[Case]:
    """Rows whose results are numbers, then rows of all kinds in several ways."""
    rows = rows or rows_of(choices)
    made = finite_batch(dtype, rows // 2 + 1, choices, 1)
    yield Case("finite", (made.grad_grad_logits, made.grad_mask), made.logits, 0.6, made.noise)
    made = batch(dtype, rows, choices, 1)
    pair = made.grad_grad_logits, made.grad_mask
    yield Case("one temp", pair, made.logits, 0.6, made.noise)
    yield Case("temps, where, skewed", pair, made.logits, made.temps, made.noise, made.where, skew=1)
    yield Case("cold, one where", pair, made.logits, 0.03, made.noise[:1], made.where[-1:], skew=3)
    yield Case("hot", pair, made.logits, 30.0, made.noise)


def more_axes(dtype: str) -> Iterator[Case]:
    """Other axes, more of them, temperatures that rows share, and no rows at all."""

    def shaped(made: Batch, shape: Shape, axis: int) -> tuple[Any, ...]:
        def one(array: Array) -> Array:
            return np.ascontiguousarray(np.moveaxis(array.reshape(shape), -1, axis))

        return (one(made.grad_grad_logits), one(made.grad_mask)), one(made.logits), one(made.noise), one(made.where)

    for choices in (10, 100, 1025):
        made = finite_batch(dtype, 60, choices, 2)
        pair, logits, noise, where = shaped(made, (60, choices), 0)
        yield Case(f"axis 0, K {choices}", pair, logits, made.temps.reshape(1, 60), noise, where, 0)
        pair, logits, noise, where = shaped(made, (3, 4, 5, choices), 1)
        temps = made.temps.reshape(3, 4, 5)
        yield Case(f"axis 1 of 4, K {choices}", pair, logits, temps[:, None, :1, :], noise, where, 1)
        pair, logits, noise, where = shaped(made, (3, 4, 5, choices), 3)
        yield Case(f"shared temps, K {choices}", pair, logits, temps[0, :, :1, None], noise, where)
        yield Case(f"one row, K {choices}", (pair[0][0, 0, 0], pair[1][0, 0, 0]), logits[0, 0, 0], 0.6, noise[0, 0, 0])
    none = np.zeros((0, 10), host_dtype(dtype))
    yield Case("no rows", (none, none), none, 0.6, none.astype(made.noise.dtype))


def check(
    report: Log,
    arrays: Arrays,
    dtype: str,
    every_case: Iterator[Case],
    label: str = "",
    functions: tuple[Function, ...] = FUNCTIONS,
    operators: Operators | None = None,
) -> None:
    """Each function in each case: a line for each function, with what differed first.

    `operators` are called instead of npselect's where the device is meant.
    """
    given_and_placed = [(case, _placed(arrays, case)) for case in every_case]
    for function in functions:
        total: Counts = {"calls": 0, "elements": 0, "differing": 0}
        for case, placed in given_and_placed:
            choices = case.logits.shape[case.axis]
            report.beat()
            with report.attempt(f"{function}, {case.name}, {dtype}, K {choices}"):
                expected = results(_called(function, case))
                outs = _outs(arrays, function, case, dtype)
                out = tuple(outs) if len(outs) > 1 else outs[0]
                returned = _called(function, placed, out=out, backend=arrays.backend, operators=operators)
                for one, other in zip(results(returned), outs, strict=True):
                    if one is not other:
                        raise ValueError(f"returned a {type(one).__name__} that is not out")
                total["calls"] += 1
                for one, other in zip(outs, expected, strict=True):
                    count(total, compare(arrays.to_host(one), np.asarray(other)), case.name)
        if total["calls"]:
            report.line("check", what=str(function), dtype=dtype, choices=label or choices, **total)


def _placed(arrays: Arrays, case: Case) -> Case:
    """The case with its arrays on the device."""

    def there(value: Array | float | None) -> DeviceArray:
        return arrays.from_host(value, case.skew) if isinstance(value, np.ndarray) else value

    cotangents = there(case.cotangents[0]), there(case.cotangents[1])
    return case._replace(
        cotangents=cotangents,
        logits=there(case.logits),
        temp=there(case.temp),
        noise=there(case.noise),
        where=there(case.where),
    )


def _called(function: Function, case: Case, **options: Any) -> Any:
    given = case.cotangents[2 - function.cotangents :]
    return function(given, case.logits, case.temp, noise=case.noise, where=case.where, axis=case.axis, **options)


def _outs(arrays: Arrays, function: Function, case: Case, dtype: str) -> list[DeviceArray]:
    """What the results go into, full of poison."""
    wanted = function.outs(case.logits.shape, case.axis, np.shape(case.temp), dtype)
    outs = [arrays.empty(shape, form, case.skew) for shape, form in wanted]
    for out in outs:
        arrays.poison(out)
    return outs
