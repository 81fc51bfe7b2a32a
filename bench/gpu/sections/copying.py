"""The bandwidth of a copy on the device, bytes read plus bytes written: what all else is measured against."""

from __future__ import annotations

from gpu.device import find
from gpu.report import Report
from npselect.bench.devices import Pool, interleaved, percentiles

__all__ = ["run"]


def run(report: Report, part: str) -> None:
    arrays = find(report)
    busy = Pool(arrays, "float32", 1 << 27)
    sizes = [28] if report.quick else [28, 29, 30, 31]  # logarithms of bytes: of 0.5 to 4 GB of traffic
    for unit in report.units(sizes):
        with report.attempt(f"a copy of 2**{unit} bytes"):
            pool = Pool(arrays, "float32", 1 << unit)
            for again in (1, 2):  # the difference between the two is noise
                times = interleaved(arrays, {"copy": pool.copy}, 10 if report.quick else 30, busy.copy)["copy"]
                gb_per_s = pool.copied / times.median / 1e9
                fields = {"bytes": pool.copied, "gb_per_s": gb_per_s, **percentiles(times)}
                report.line("timing", what="copy", again=again, **fields, samples=list(times.seconds.values()))
                report.fact(f"2**{unit} bytes, time {again}", f"{gb_per_s:.0f} GB/s")
