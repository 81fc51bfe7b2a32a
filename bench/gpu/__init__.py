"""The sections of ``bench/gpu.py``, in the order in which they run: the most important first.

Each section is a function ``run(report, part)`` in `gpu.sections`. It runs in a process of its own (`process`,
`child`), so that neither a crash, nor a hang, nor a context that an illegal address has spoilt reaches the next, and
hands back what it finds line by line (`report`). `command` collects that in one file (`results`), and `summary` draws
the conclusions. What is judged is in tests/cuda_device, what is timed in npselect/bench/devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["SECTIONS", "WHOLE", "Record", "Section"]

Record = dict[str, Any]  # a line of a section, as in JSON
WHOLE = 540  # seconds: the budget that the sections' seconds are written for
DTYPES = ("float32", "bfloat16", "float16", "float64")
REST = ", the rest"  # what is drawn compiles for longest: two processes share it
PARTS = tuple(f"{dtype} {noise}".strip() for noise in ("", "seed", "noise", f"seed{REST}") for dtype in DTYPES)


@dataclass(frozen=True)
class Section:
    """What runs in a process of its own.

    Attributes
    ----------
    name : str
        What ``--sections`` calls it.
    function : str
        "module:function".
    seconds : float
        How long it may take, of `WHOLE`.
    about : str
        In a line.
    parts : tuple of str
        Processes of one section that run side by side: where nothing is timed.
    silence : float
        After so many seconds without a line a process is taken to hang.
    """

    name: str
    function: str
    seconds: float
    about: str
    parts: tuple[str, ...] = ("",)
    silence: float = 75


def _section(name: str, where: str, seconds: float, about: str, **options: Any) -> Section:
    return Section(name, f"gpu.sections.{where}", seconds, about, **options)


SECTIONS = (
    _section("machine", "machine:run", 45, "versions, device, driver, clocks"),
    _section("compiling", "compiling:run", 45, "what compiling kernels needs, and whether it is there"),
    _section("correctness", "checks:correctness", 200, "every function against the CPU tier, bit for bit", parts=PARTS),
    _section("copying", "copying:run", 25, "the bandwidth of a copy on the device"),
    _section("speed", "speed:run", 95, "bytes over time of every function, as a fraction of the copy"),
    _section("host", "host:run", 25, "what a call costs on the host"),
    _section("peers", "peers:run", 75, "the same work in torch, Triton and CuPy"),
    _section("many", "checks:many", 60, "a hundred million elements against the CPU tier, bit for bit"),
    _section("large", "checks:large", 45, "an array of more than 2**31 elements"),
    _section("sanitizer", "sanitizer:run", 75, "compute-sanitizer on small shapes", silence=WHOLE),
    _section("compiled", "peers:compiled", 90, "the same work in torch.compile"),
)
