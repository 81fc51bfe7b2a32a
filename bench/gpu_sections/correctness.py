"""Every function against the CPU tier, bit for bit, through the public interface; processes for each dtype and noise.

Most of their time is spent on compiling, one kernel after another.

The device's arrays go in, what comes out was filled with poison before, and is compared as integers. Everything is
called in several cases (scalar and many temperatures, `where`, memory that begins at an odd element, another axis,
more axes, no rows), and so are noise, selection, arrays of the host, and what must be refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from gpu_sections import REST
from gpu_sections.comparison import compare, count
from gpu_sections.device_arrays import Host, find, host_dtype
from gpu_sections.frameworks import check_frameworks, check_stream
from gpu_sections.functions import FUNCTIONS, Function, results
from gpu_sections.inputs import Batch, batch, finite_batch, rows_of
from gpu_sections.noise_and_selection import check_gumbel, check_selection
from gpu_sections.refusals import check_refusals
from gpu_sections.report import Report

__all__ = ["CHOICES", "Case", "cases", "check", "more_axes", "run"]

# The classes of kernels first, then the rest: a process that runs out of time has seen each.
CHOICES = (10, 1000, 4097, 50257, 64, 1, 2, 3, 8, 31, 32, 33, 100, 1024, 1025, 16384, 131072)
QUICK = (10, 33, 1000, 4097)


class Case(NamedTuple):
    """Arguments of a call, as NumPy arrays; `skew` elements lie before each in its memory."""

    name: str
    cotangents: tuple[Any, Any]
    logits: Any
    temp: Any
    noise: Any
    where: Any = None
    axis: int = -1
    skew: int = 0


def run(report: Report, part: str) -> None:
    dtype, _, sampled = part.removesuffix(REST).partition(" ")
    choices = QUICK if report.quick else CHOICES
    last = ["more axes", "noise", "selection", "refusals", "host arrays", "frameworks", "stream"]
    units = [*choices[:4], *last, *choices[4:8]]
    if part.endswith(REST):
        units = [*choices[8:]]
    elif sampled != "seed":
        units += choices[8:]
    if not units:
        return
    arrays = find(report)
    host_dtype(dtype)
    functions = tuple(each for each in FUNCTIONS if each.noise == sampled)
    for unit in report.units(units):
        if unit == "more axes":
            check(report, arrays, dtype, more_axes(dtype), "axes", functions)
        elif unit == "host arrays":
            check(report, Host(), dtype, cases(dtype, 33), "host", functions)
        elif unit == "noise":
            if sampled == "seed" and dtype in ("float32", "float64"):
                check_gumbel(report, arrays, dtype)
        elif unit not in last:
            check(report, arrays, dtype, cases(dtype, unit), "", functions)
        elif sampled:
            continue
        elif unit == "selection":
            check_selection(report, arrays, dtype)
        elif unit == "refusals":
            check_refusals(report, arrays, dtype)
        elif dtype == "float32":
            with report.attempt(unit):
                check_frameworks(report) if unit == "frameworks" else check_stream(report, arrays)


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

    def shaped(made: Batch, shape: tuple[int, ...], axis: int) -> tuple[Any, ...]:
        def one(array: Any) -> Any:
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
    report: Report,
    arrays: Any,
    dtype: str,
    every_case: Iterator[Case],
    label: str = "",
    functions: tuple[Function, ...] = FUNCTIONS,
    operators: Mapping[str, Any] | None = None,
) -> None:
    """Each function in each case: a line for each function, with what differed first.

    `operators` are called instead of npselect's where the device is meant.
    """
    given_and_placed = [(case, _placed(arrays, case)) for case in every_case]
    for function in functions:
        total: dict[str, Any] = {"calls": 0, "elements": 0, "differing": 0}
        for case, placed in given_and_placed:
            choices = case.logits.shape[case.axis]
            report.beat()
            with report.attempt(f"{function}, {case.name}, {dtype}, K {choices}"):
                expected = results(function(case.cotangents[2 - function.cotangents :], *_rest(case), **_options(case)))
                given = placed.cotangents[2 - function.cotangents :]
                outs = _outs(arrays, function, case, dtype)
                out = tuple(outs) if len(outs) > 1 else outs[0]
                options = {**_options(placed), "out": out, "backend": arrays.backend, "operators": operators}
                returned = function(given, *_rest(placed), **options)
                for one, other in zip(results(returned), outs, strict=True):
                    if one is not other:
                        raise ValueError(f"returned a {type(one).__name__} that is not out")
                total["calls"] += 1
                for one, other in zip(outs, expected, strict=True):
                    count(total, compare(arrays.to_host(one), np.asarray(other)), case.name)
        if total["calls"]:
            report.line("check", what=str(function), dtype=dtype, choices=label or choices, **total)


def _placed(arrays: Any, case: Case) -> Case:
    """The case with its arrays on the device."""

    def there(value: Any) -> Any:
        return arrays.from_host(value, case.skew) if isinstance(value, np.ndarray) else value

    cotangents = there(case.cotangents[0]), there(case.cotangents[1])
    return case._replace(
        cotangents=cotangents,
        logits=there(case.logits),
        temp=there(case.temp),
        noise=there(case.noise),
        where=there(case.where),
    )


def _rest(case: Case) -> tuple[Any, Any]:
    return case.logits, case.temp


def _options(case: Case) -> dict[str, Any]:
    return {"noise": case.noise, "where": case.where, "axis": case.axis}


def _outs(arrays: Any, function: Function, case: Case, dtype: str) -> list[Any]:
    """What the results go into, full of poison."""
    wanted = function.outs(case.logits.shape, case.axis, np.shape(case.temp), dtype)
    outs = [arrays.empty(shape, kind, case.skew) for shape, kind in wanted]
    for out in outs:
        arrays.poison(out)
    return outs
