"""The device's arrays for a section: found, and told of."""

from __future__ import annotations

from gpu.report import Report
from npselect.bench import devices
from npselect.bench.devices import Arrays

__all__ = ["find"]


def find(report: Report) -> Arrays:
    """The arrays of the first framework that reaches the device; the report is told why others do not."""
    arrays, reasons = devices.find()
    report.fact("arrays", arrays.name)
    for reason in reasons:
        report.note(reason)
    report.alive = arrays.alive
    return arrays
