"""A machine in the place of a GPU: the CUDA tier runs as it stands, and its launches are interpreted.

Arrays lie at addresses beyond 2**32. A kernel may use the arrays whose addresses it is given, and no others; what is
brought back to the host must have been written, all of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from fakes import installed

from npselect._gpu.driver import Allocation
from ptx.counts import Counts
from ptx.machine import Kernel
from ptx.memory import Space
from ptx.program import read

__all__ = ["Device"]

_BASE, _SIZE = 0x7F5A_C000_0000, 1 << 26
_STEP, _GAP = 256, 256  # of addresses, as the driver gives them; bytes between arrays


class _Memory(Allocation):
    def __init__(self, device: Device, address: int, nbytes: int) -> None:
        self.device, self.address, self.nbytes = device, address, nbytes

    def __del__(self) -> None:
        self.device.free(self)

    def check(self) -> None:
        """It is never closed."""


class Device:
    """A driver; `counts` is what has been launched since it was cleared."""

    def __init__(self, capability: tuple[int, int] = (9, 0)) -> None:
        self.capability = capability
        self.memory = Space("global", _BASE, _SIZE)
        self.live: dict[int, int] = {}  # bytes, by address
        self.texts: dict[Any, str] = {}  # the PTX of each kernel that was used
        self.kernels: dict[Any, Kernel] = {}
        self.counts = Counts()
        self._end = _BASE + _GAP

    @contextmanager
    def installed(self) -> Iterator[Device]:
        """Let it be the driver, and the device for which numba compiles helpers."""
        from numba.cuda import dispatcher

        from npselect.tiers.cuda import rows

        here = SimpleNamespace(compute_capability=self.capability)
        with mock.patch.object(dispatcher, "get_current_device", return_value=here), installed(self, rows):
            yield self

    def unavailable(self) -> str | None:
        return None

    def describe(self) -> str:
        return "an interpreter of PTX"

    def current_device(self) -> int:
        return 0

    def current(self, device: int) -> AbstractContextManager[None]:
        return nullcontext()

    def device_of(self, address: int) -> int:
        return 0

    def synchronize(self, stream: int) -> None:
        """Whatever it is asked has been done."""

    def wait(self, stream: int, other: int) -> None:
        """There is one order only."""

    def free_after(self, stream: int) -> None:
        """What is freed is used no more."""

    # -------------------------------------------------------------------------------------------- memory

    def allocate(self, nbytes: int, stream: int = 1, skew: int = 0) -> _Memory:
        """New memory, `skew` bytes after an aligned address."""
        if not self.live:
            self._end = _BASE + _GAP
        address = -(-(self._end + _GAP) // _STEP) * _STEP + skew
        self._end = address + nbytes
        self.memory.allot(address, nbytes)
        self.live[address] = nbytes
        return _Memory(self, address, nbytes)

    def free(self, owner: _Memory) -> None:
        del self.live[owner.address]
        self.memory.allot(owner.address, owner.nbytes, usable=False)

    def upload(self, address: int, array: Any, stream: int) -> None:
        self.memory.fill(address, np.ascontiguousarray(array).reshape(-1).view(np.uint8))

    def download(self, array: Any, address: int, stream: int) -> None:
        array.reshape(-1).view(np.uint8)[:] = self.memory.dump(address, array.nbytes)

    # -------------------------------------------------------------------------------------------- launches

    def clear(self) -> None:
        """Count anew."""
        self.counts = Counts()

    def launch(self, kernel: Any, blocks: int, threads: int, stream: int, arguments: tuple[Any, ...]) -> None:
        scalars = kernel.scalars(arguments)
        if kernel not in self.kernels:
            self.texts[kernel] = self.texts.get(kernel) or kernel.ptx(self.capability)
            self.kernels[kernel] = Kernel(read(self.texts[kernel]))
        given = [  # all that it may use
            (address, nbytes)
            for address, nbytes in self.live.items()
            if any(isinstance(scalar, int) and address <= scalar < address + nbytes for scalar in scalars)
        ]
        self.counts += self.kernels[kernel].run(blocks, threads, scalars, self.memory.only(given))
