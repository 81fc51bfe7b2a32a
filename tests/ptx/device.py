"""A machine in the place of a GPU: the CUDA tier runs as it stands, and its launches are interpreted.

Arrays lie at addresses beyond 2**32. A kernel may use the arrays whose addresses it is given, and no others; what is
brought back to the host must have been written, all of it.
"""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np

from ptx.counts import Counts
from ptx.machine import Kernel
from ptx.memory import Space
from ptx.program import read

__all__ = ["Device"]

_BASE, _SIZE = 0x7F5A_C000_0000, 1 << 26
_STEP, _GAP = 256, 256  # of addresses, as the driver gives them; bytes between arrays


class _Owner:
    def __init__(self, device: Device, address: int, nbytes: int) -> None:
        self.device, self.address, self.nbytes = device, address, nbytes

    def __del__(self) -> None:
        self.device.free(self)

    def check(self) -> None:
        """It is never closed."""


class Device:
    """The functions of `npselect._gpu.driver`; `counts` is what has been launched since it was cleared."""

    def __init__(self, capability: tuple[int, int] = (9, 0)) -> None:
        self.capability = capability
        self.memory = Space("global", _BASE, _SIZE)
        self.live: dict[int, int] = {}  # bytes, by address
        self.texts: dict[Any, str] = {}  # the PTX of each launcher that was used
        self.kernels: dict[Any, Kernel] = {}
        self.counts = Counts()
        self._end = _BASE + _GAP

    def install(self, patch: Any) -> Device:
        from numba.cuda import dispatcher

        from npselect._gpu import driver as device_memory
        from npselect._gpu import launch as device_launch
        from npselect.tiers.cuda import rows as cuda

        here = SimpleNamespace(compute_capability=self.capability)
        patch.setattr(dispatcher, "get_current_device", lambda: here)  # which numba asks when it compiles helpers
        functions = {
            "allocate": lambda nbytes, stream: self.allocate(nbytes),
            "current": lambda device: nullcontext(),
            "current_device": lambda: 0,
            "device_of": lambda address: 0,
            "download": self.download,
            "upload": self.upload,
            "settle": lambda stream: None,
            "synchronize": lambda stream: None,
            "wait": lambda stream, other: None,
        }
        for name, function in functions.items():
            patch.setattr(device_memory, name, function)
        patch.setattr(device_launch.Launcher, "__call__", lambda *given: self.launch(*given))
        from npselect import tiers

        load = tiers._load
        patch.setattr(tiers, "_load", lambda name: cuda if name == "cuda" else load(name))
        return self

    # -------------------------------------------------------------------------------------------- memory

    def allocate(self, nbytes: int, skew: int = 0) -> _Owner:
        """New memory, `skew` bytes after an aligned address."""
        if not self.live:
            self._end = _BASE + _GAP
        address = -(-(self._end + _GAP) // _STEP) * _STEP + skew
        self._end = address + nbytes
        self.memory.allot(address, nbytes)
        self.live[address] = nbytes
        return _Owner(self, address, nbytes)

    def free(self, owner: _Owner) -> None:
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

    def launch(self, launcher: Any, blocks: int, threads: int, stream: int, *scalars: Any) -> None:
        if launcher not in self.kernels:
            self.texts[launcher] = self.texts.get(launcher) or launcher.ptx(self.capability)
            self.kernels[launcher] = Kernel(read(self.texts[launcher]))
        given = [  # all that it may use
            (address, nbytes)
            for address, nbytes in self.live.items()
            if any(isinstance(scalar, int) and address <= scalar < address + nbytes for scalar in scalars)
        ]
        self.counts += self.kernels[launcher].run(blocks, threads, scalars, self.memory.only(given))
