"""What the machine is: versions, device, driver, clocks."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib import metadata

import npselect
from gpu.device import find
from gpu.report import Report
from npselect.bench.devices import device
from npselect.bench.report import cpu_model

__all__ = ["clocks", "run"]

PACKAGES = """
    numpy numba numba-cuda llvmlite scipy ml-dtypes torch triton jax jaxlib cupy-cuda13x cupy-cuda12x cuda-bindings
    cuda-core cuda-pathfinder nvidia-nvvm nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-nvjitlink
"""
ASKED = "driver_version,clocks.sm,clocks.mem,power.draw,temperature.gpu"
ALSO = (
    "clocks.max.sm,clocks.max.mem,power.limit,memory.used,mig.mode.current,ecc.mode.current,clocks_event_reasons.active"
)


def run(report: Report, part: str) -> None:
    with report.attempt("driver"):
        report.fact("device", device())
    with report.attempt("nvidia-smi"):
        now = clocks()
        report.fact("driver", now["driver_version"])
        report.fact("clocks", now)
    with report.attempt("nvidia-smi, further"):
        report.fact("settings", clocks(ALSO))
    versions = {"python": platform.python_version()}
    for package in PACKAGES.split():
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    report.fact("versions", versions)
    report.fact("processor", f"{os.cpu_count()} x {cpu_model()}")
    with report.attempt("backends"):
        report.fact("backends", {name: str(tier) for name, tier in npselect.backends().items()})
    with report.attempt("arrays"):
        find(report)


def clocks(asked: str = ASKED) -> dict[str, str]:
    """What nvidia-smi says of the first device just now."""
    where = shutil.which("nvidia-smi") or "/usr/bin/nvidia-smi"
    command = [where, "--id=0", "--format=csv,noheader", f"--query-gpu={asked}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
    if done.returncode:
        raise RuntimeError(f"nvidia-smi ended with {done.returncode}: {(done.stdout + done.stderr).strip()[-300:]}")
    return dict(zip(asked.split(","), (value.strip() for value in done.stdout.splitlines()[0].split(",")), strict=True))
