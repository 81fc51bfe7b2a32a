"""The sections of ``bench/gpu.py``, in the order in which they run: the most important first.

Each section is a function ``run(report, part)`` in the file that bears its name. It runs in a process of its own
(`process`, `child`), so that neither a crash, nor a hang, nor a context that an illegal address has spoilt reaches the
next, and hands back what it finds line by line (`report`); `command` collects that in one file and `summary` draws the
conclusions. Arrays on the device are those of whichever framework is there (`device_arrays`).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SECTIONS", "WHOLE", "Section"]

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


def _section(name: str, seconds: float, about: str, **options: object) -> Section:
    return Section(name, f"gpu_sections.{name}:run", seconds, about, **options)  # type: ignore[arg-type]


SECTIONS = (
    _section("machine", 45, "versions, device, driver, clocks"),
    _section("compiling", 45, "what compiling kernels needs, and whether it is there"),
    _section("correctness", 200, "every function against the CPU tier, bit for bit", parts=PARTS),
    _section("copying", 25, "the bandwidth of a copy on the device"),
    _section("speed", 95, "bytes over time of every function, as a fraction of the copy"),
    _section("host", 25, "what a call costs on the host"),
    _section("peers", 75, "the same work in torch, Triton and CuPy"),
    _section("many", 60, "a hundred million elements against the CPU tier, bit for bit"),
    _section("large", 45, "an array of more than 2**31 elements"),
    _section("sanitizer", 75, "compute-sanitizer on small shapes", silence=WHOLE),
    _section("compiled", 90, "the same work in torch.compile"),
)
