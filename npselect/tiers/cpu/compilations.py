"""What numba compiles, counted, and where it keeps the machine code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from numba.core import event

from npselect.tiers.cpu.cache import all_cached
from npselect.tiers.cpu.short_rows import mask_rows

__all__ = ["Compilations", "cache_folder", "compilations"]


class Compilations(event.Listener):  # type: ignore[misc]
    """Counts the kernels that numba compiles; a function that is compiled for a kernel does not count.

    Attributes
    ----------
    count : int
        How many; a kernel that comes from the cache does not count.
    """

    def __init__(self) -> None:
        self.count = 0
        self._depth = 0

    def on_start(self, _: event.Event) -> None:
        """Count it, unless another is under way."""
        self.count += not self._depth
        self._depth += 1

    def on_end(self, _: event.Event) -> None:
        """The compilation has ended."""
        self._depth -= 1


@contextmanager
def compilations() -> Iterator[Compilations]:
    """Count the compilations in the block."""
    listener = Compilations()
    with event.install_listener("numba:compile", listener):
        yield listener


def cache_folder() -> str | None:
    """The directory of the machine code; None if there is none, or something could not be written there."""
    path = mask_rows.stats.cache_path  # type: ignore[attr-defined]
    return None if path is None or not all_cached() else str(path)
