"""The CPU tier's bits on AArch64, without such a machine: ``python bench/aarch64.py --work DIR``.

numba compiles the kernels here, with a target machine for AArch64 behind it (tests/aarch64.py), into a cache; a
Python for AArch64 in the emulator qemu finds them there, runs tests/bits.py and compares with tests/bits.sha256. It
counts what it compiles itself, which must be nothing: compiling in the emulator takes hours.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # npselect beside this file, whose bits these are

from npselect._commands import CannotRunError, Parser, ended  # noqa: E402
from npselect.testing import DTYPES  # noqa: E402

PACKAGES = ("numpy", "scipy", "numba", "llvmlite", "ml_dtypes")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
DEBIAN = (  # what Debian 12's Python loads for these packages
    "python3.11 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 libgcc-s1 libstdc++6 zlib1g "
    "libexpat1 libssl3 libffi8 libbz2-1.0 liblzma5 libcrypt1 libuuid1 libgomp1 libatomic1"
)
PROCESSOR = {"NUMBA_CPU_NAME": "neoverse-n1", "NUMBA_CPU_FEATURES": "", "NPSELECT_NUM_THREADS": "1"}

COMPILE = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever started this says that it was interrupted
sys.path.insert(0, "tests")
import aarch64
aarch64.generator()
import bits
for _ in bits.lines(sys.argv[1:]):  # of results that nothing was written to
    pass
"""
RUN = """
import platform, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
sys.path.insert(0, "tests")
import bits
from npselect.tiers.cpu.compilations import compilations

dtype = sys.argv[1]
sys.argv[1:] = ["--check", "--dtype", dtype]
with compilations() as found:
    status = bits.main()
print(f"{dtype} on {platform.machine()}: {found.count} kernels compiled there")
sys.exit(status or found.count > 0 or platform.machine() != "aarch64")
"""


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
        options = ["--only-binary=:all:", "--no-deps", "--no-compile", "--python-version=3.11", f"--target={site}"]
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


def run(arguments: list[str] | None) -> int:
    parser = Parser(
        prog="python bench/aarch64.py",
        description="Digests of the CPU tier's bits on AArch64, in an emulator, beside tests/bits.sha256.",
        epilog="exit status: 0 all are equal, 1 some differ, 2 it could not be run, 130 interrupted",
    )
    parser.add_argument(
        "--work", metavar="DIR", type=Path, required=True, help="where the AArch64 Python is, or is put (300 MB)"
    )
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="may be given several times (default: all)")
    options = parser.parse_args(arguments)
    try:
        return 0 if check(options.work.resolve(), options.dtype or list(DTYPES)) else 1
    except subprocess.CalledProcessError as error:
        raise CannotRunError(f"{error.cmd[0]} failed with status {error.returncode}; see above") from error
    except OSError as error:
        raise CannotRunError(f"--work {options.work}: {error.strerror}") from error


def main(arguments: list[str] | None = None) -> int:
    return ended("aarch64", lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
