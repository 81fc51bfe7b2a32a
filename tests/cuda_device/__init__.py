"""What needs a GPU and judges correctness: the CUDA tier against the CPU tier, bit for bit.

`bench/gpu.py` runs these checks where pytest is not installed, within a budget. So they are functions of a `Log`, which
says what is done with a finding; test_cuda_device.py runs them for pytest, in which any difference fails.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

__all__ = ["Counts", "Log"]

Counts = dict[str, Any]  # calls, elements, differing; of what differs also its kinds, the case and the first


class Log(Protocol):
    """What a check writes to."""

    def line(self, kind: str, **fields: Any) -> None:
        """Write a finding; those of kind "check" have `differing`."""

    def note(self, text: str) -> None:
        """Write what a reader should know."""

    def beat(self) -> None:
        """Show that this process does not hang."""

    def attempt(self, where: str) -> AbstractContextManager[None]:
        """Do with an exception what is to be done with it."""
