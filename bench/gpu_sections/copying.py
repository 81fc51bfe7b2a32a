"""The bandwidth of a copy on the device, bytes read plus bytes written: what all else is measured against."""

from __future__ import annotations

from gpu_sections.device_arrays import find
from gpu_sections.report import Report
from gpu_sections.timing import Pool, interleaved, spread

__all__ = ["run"]


def run(report: Report, part: str) -> None:
    arrays = find(report)
    busy = Pool(arrays, "float32", 1 << 27)
    sizes = [28] if report.quick else [28, 29, 30, 31]  # logarithms of bytes: of 0.5 to 4 GB of traffic
    for unit in report.units(sizes):
        with report.attempt(f"a copy of 2**{unit} bytes"):
            pool = Pool(arrays, "float32", 1 << unit)
            for again in (1, 2):  # the difference between the two is noise
                samples = interleaved(arrays, {"copy": pool.copy}, 10 if report.quick else 30, busy.copy)["copy"]
                found = spread(samples)
                gb_per_s = pool.copied / found["median_us"] / 1e3
                fields = {"bytes": pool.copied, "gb_per_s": gb_per_s, **found, "samples": samples}
                report.line("timing", what="copy", again=again, **fields)
                report.fact(f"2**{unit} bytes, time {again}", f"{gb_per_s:.0f} GB/s")
