"""The device against the CPU tier, bit for bit: the checks of tests/cuda_device, within a budget.

`correctness` has a process for each dtype and noise; most of its time is spent on compiling, one kernel after another.
"""

from __future__ import annotations

import time

from cuda_device import large as large_arrays
from cuda_device import many as many_elements
from cuda_device.correctness import cases, check, more_axes
from cuda_device.frameworks import check_frameworks, check_stream
from cuda_device.noise_and_selection import check_gumbel, check_selection
from cuda_device.refusals import check_refusals

from gpu import REST
from gpu.device import find
from gpu.report import Report
from npselect.bench.devices import FUNCTIONS, Host, device
from npselect.bench.devices.arrays import host_dtype

__all__ = ["CHOICES", "correctness", "large", "many"]

# The classes of kernels first, then the rest: a process that runs out of time has seen each.
CHOICES = (10, 1000, 4097, 50257, 64, 1, 2, 3, 8, 31, 32, 33, 100, 1024, 1025, 16384, 131072)
QUICK = (10, 33, 1000, 4097)
OTHERS = ("more axes", "noise", "selection", "refusals", "host arrays", "frameworks", "stream")


def correctness(report: Report, part: str) -> None:
    """Every function through the public interface; then noise, selection, refusals, arrays of all frameworks."""
    dtype, _, sampled = part.removesuffix(REST).partition(" ")
    choices = QUICK if report.quick else CHOICES
    units: list[int | str] = [*choices[:4], *OTHERS, *choices[4:8]]
    if part.endswith(REST):
        units = [*choices[8:]]
    elif sampled != "seed":
        units += choices[8:]
    if not units:
        return
    arrays = find(report)
    host_dtype(dtype)  # raises where bfloat16 has no package
    functions = tuple(each for each in FUNCTIONS if each.noise == sampled)
    for unit in report.units(units):
        if isinstance(unit, int):
            check(report, arrays, dtype, cases(dtype, unit), "", functions)
        elif unit == "more axes":
            check(report, arrays, dtype, more_axes(dtype), "axes", functions)
        elif unit == "host arrays":
            check(report, Host(), dtype, cases(dtype, 33), "host", functions)
        elif unit == "noise":
            if sampled == "seed" and dtype in ("float32", "float64"):
                check_gumbel(report, arrays, dtype)
        elif sampled:
            continue
        elif unit == "selection":
            check_selection(report, arrays, dtype)
        elif unit == "refusals":
            check_refusals(report, arrays, dtype)
        elif dtype == "float32":
            with report.attempt(unit):
                check_frameworks(report) if unit == "frameworks" else check_stream(report, arrays)


def many(report: Report, part: str) -> None:
    """Every one of a hundred million elements."""
    arrays = find(report)
    elements = many_elements.ELEMENTS // 50 if report.quick else many_elements.ELEMENTS
    labels = {f"{name}, K {choices}": (name, choices) for name, choices in many_elements.UNITS}
    for unit in report.units(labels, each=6):
        with report.attempt(unit):
            begun = time.monotonic()
            many_elements.check_many(report, arrays, *labels[unit], elements)
            report.fact(f"{unit}, seconds", round(time.monotonic() - begun, 1))


def large(report: Report, part: str) -> None:
    """Both ends of arrays of more than 2**31 elements, and the places where a 32-bit number ends."""
    arrays = find(report)
    if arrays.name == "numba":
        report.note("numba alone would fill 8 GB from the host; torch or CuPy draws them on the device: left out")
        return
    memory = device()["memory_bytes"]
    labels = {f"{name}, {dtype}, K {choices}": (name, dtype, choices) for name, dtype, choices in large_arrays.UNITS}
    for unit in report.units(labels, each=4):
        elements = (1 << 24) + 7 if report.quick else large_arrays.ELEMENTS
        needed = large_arrays.bytes_of(*labels[unit], elements)
        if needed > 0.85 * memory:
            report.note(f"{unit}: {needed / 1e9:.0f} GB do not fit")
            continue
        with report.attempt(unit):
            large_arrays.check_large(report, arrays, *labels[unit], elements)
