"""The CPU tier's bits on AArch64, without such a machine: ``python bench/aarch64.py --work DIR``.

numba compiles the kernels here, with a target machine for AArch64 behind it (tests/aarch64.py), into a cache; a
Python for AArch64 in the emulator qemu finds them there, runs tests/bits.py and compares with tests/bits.sha256. It
counts what it compiles itself, which must be nothing: compiling in the emulator takes hours.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DTYPES = ("float32", "float64", "float16", "bfloat16")
PACKAGES = ("numpy", "scipy", "numba", "llvmlite", "ml_dtypes")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
DEBIAN = (  # what Debian 12's Python loads for these packages
    "python3.11 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 libgcc-s1 libstdc++6 zlib1g "
    "libexpat1 libssl3 libffi8 libbz2-1.0 liblzma5 libcrypt1 libuuid1 libgomp1 libatomic1"
)
PROCESSOR = {"NUMBA_CPU_NAME": "neoverse-n1", "NUMBA_CPU_FEATURES": "", "NPSELECT_NUM_THREADS": "1"}

COMPILE = """
import sys
sys.path.insert(0, "tests")
import aarch64
aarch64.generator()
import bits
for _ in bits.lines(sys.argv[1:]):  # of results that nothing was written to
    pass
"""
RUN = """
import platform, sys
sys.path.insert(0, "tests")
from numba.core import event
import bits

class Names(event.Listener):
    names = []
    def on_start(self, happening):
        self.names.append(str(happening.data["dispatcher"]))
    def on_end(self, _):
        pass

dtype = sys.argv[1]
sys.argv[1:] = ["--check", "--dtype", dtype]
with event.install_listener("numba:compile", Names()):
    status = bits.main()
print(f"{dtype} on {platform.machine()}: {len(Names.names)} compiled there", *Names.names[:3])
sys.exit(status or bool(Names.names) or platform.machine() != "aarch64")
"""


class CannotRunError(Exception):
    """Why, in a few words."""


def prepare(work: Path) -> tuple[str, Path, Path]:
    """The emulator, and the folders of an AArch64 Python and of its packages, fetched if they are not there."""
    emulator = shutil.which("qemu-aarch64-static")
    if emulator is None:
        raise CannotRunError(
            "there is no qemu-aarch64-static on the path; install it (apt-get install qemu-user-static)"
        )
    if sys.version_info[:2] != (3, 11):
        raise CannotRunError("Debian 12 has Python 3.11, whose cached code no other finds; run this with Python 3.11")
    root, site, packages = work / "root", work / "site", work / "packages"
    if not (root / "usr" / "bin" / "python3.11").exists():
        packages.mkdir(parents=True, exist_ok=True)
        command = ["apt-get", "download", "-q", *(f"{name}:arm64" for name in DEBIAN.split())]
        if subprocess.run(command, cwd=packages, check=False).returncode:
            raise CannotRunError("no packages for arm64; run first: dpkg --add-architecture arm64 && apt-get update")
        for package in packages.glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(package), str(root)], check=True)
    if not (site / "numba").exists():
        wanted = [f"{name}=={version(name)}" for name in PACKAGES]
        options = [
            "--only-binary=:all:",
            "--no-deps",
            "--no-compile",
            "--python-version",
            "3.11",
            "--target",
            str(site),
        ]
        platforms = [f"--platform={platform}" for platform in PLATFORMS]
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", *options, *platforms, *wanted], check=True)
    return emulator, root, site


def process(command: list[str], **environment: str) -> int:
    return subprocess.run(command, cwd=ROOT, check=False, env={**os.environ, **PROCESSOR, **environment}).returncode


def check(work: Path, dtypes: list[str]) -> bool:
    """Whether all bits are those of the file."""
    emulator, root, site = prepare(work)
    good = True
    for dtype in dtypes:
        with tempfile.TemporaryDirectory(prefix="npselect-aarch64-") as cache:  # what is kept is not for here to load
            if process([sys.executable, "-c", COMPILE, dtype], PYTHONPATH=str(ROOT), NUMBA_CACHE_DIR=cache):
                raise CannotRunError(f"the kernels for {dtype} cannot be compiled; see above")
            command = [emulator, "-L", str(root), str(root / "usr" / "bin" / "python3.11"), "-c", RUN, dtype]
            paths = {"PYTHONHOME": str(root / "usr"), "PYTHONPATH": os.pathsep.join([str(ROOT), str(site)])}
            good &= process(command, **paths, NUMBA_CACHE_DIR=cache) == 0
    return good


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Digests of the CPU tier's bits on AArch64, in an emulator, beside tests/bits.sha256.",
        epilog="exit status: 0 all are equal, 1 some differ, 2 it could not be run, 130 interrupted",
    )
    parser.add_argument(
        "--work", metavar="DIR", type=Path, required=True, help="where the AArch64 Python is, or is put (300 MB)"
    )
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="may be given several times (default: all)")
    options = parser.parse_args()
    try:
        return 0 if check(options.work.resolve(), options.dtype or list(DTYPES)) else 1
    except (CannotRunError, OSError, subprocess.CalledProcessError) as error:
        print(f"aarch64: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("aarch64: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
