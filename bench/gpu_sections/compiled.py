"""torch.compile beside npselect: last, as it compiles for seconds for every shape."""

from __future__ import annotations

from gpu_sections import kept
from gpu_sections.device_arrays import Torch
from gpu_sections.peers import compare_peers
from gpu_sections.report import Report

__all__ = ["run"]

CHOICES = (1024, 10, 4097, 16384, 131072, 256, 50257, 4096, 32, 1000)


def run(report: Report, part: str) -> None:
    arrays = Torch()
    report.alive = arrays.alive
    kept.install(report)
    from gpu_sections import torch_peers

    units = [("float32", choices) for choices in (CHOICES[:2] if report.quick else CHOICES)]
    compare_peers(report, arrays, lambda: [torch_peers.compiled()], [*units, ("bfloat16", 1024)], each=10)
