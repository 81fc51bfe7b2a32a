"""Where libNVVM is, without which numba-cuda compiles nothing: in a wheel, or in a CUDA toolkit.

numba-cuda finds it in the wheel nvidia-nvvm where that is installed, not where it lies on PYTHONPATH; in the folders of
the loader; and in nvvm/lib64 of CUDA_HOME. In a toolkit put together from wheels it is in lib64 instead.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["contents", "point_at"]

LIBRARIES = ("nvvm/lib64/libnvvm.so*", "lib64/libnvvm.so*", "lib/libnvvm.so*")
PARTS = (*LIBRARIES, "nvvm/libdevice/*.bc", "bin/ptxas", "bin/compute-sanitizer", "lib64/libnvrtc.so*")


def folders() -> list[Path]:
    """Folders that may hold a CUDA toolkit, or what of it a wheel brings."""
    named = [Path(name) for name in map(os.environ.get, ("CUDA_HOME", "CUDA_PATH")) if name]
    wheels = (Path(folder) / "nvidia" / "cu13" for folder in sys.path if folder)
    found = [*named, *sorted(Path("/usr/local").glob("cuda*")), *wheels]
    return [folder for folder in dict.fromkeys(found) if folder.is_dir()]


def contents() -> dict[str, list[str]]:
    """What of a toolkit each of the folders has."""
    return {
        str(folder): [str(path.relative_to(folder)) for part in PARTS for path in sorted(folder.glob(part))]
        for folder in folders()
    }


def point_at(links: Path) -> None:
    """Set CUDA_HOME, unless it is set: to a toolkit with libNVVM or, where that is not as usual, to `links` to it."""
    if os.environ.get("CUDA_HOME"):
        return
    for folder in folders():
        libraries = [path for pattern in LIBRARIES for path in sorted(folder.glob(pattern))]
        device = folder / "nvvm" / "libdevice"
        if not libraries or not device.is_dir():
            continue
        if libraries[0].parent != folder / "nvvm" / "lib64":
            (links / "nvvm" / "lib64").mkdir(parents=True)
            (links / "nvvm" / "lib64" / "libnvvm.so.4").symlink_to(libraries[-1].resolve())
            (links / "nvvm" / "libdevice").symlink_to(device.resolve())
            folder = links
        os.environ["CUDA_HOME"] = str(folder)
        return
