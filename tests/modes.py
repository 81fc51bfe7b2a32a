"""Threads whose arithmetic has unusual modes: set in the processor's register, by way of C's fesetenv."""

from __future__ import annotations

import ctypes
import platform
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

# Where fenv_t has the register, and its bits for: subnormals as zeros where they are read, and where they result; up,
# down, towards zero. AArch64 has one bit for the first two.
_MACHINES = {
    "x86_64": (28, (0x40, 0x8000, 0x4000, 0x2000, 0x6000)),
    "aarch64": (0, (1 << 24, 1 << 24, 1 << 22, 2 << 22, 3 << 22)),
}
_NAMES = ("read as zeros", "become zeros", "up", "down", "towards zero")

known = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in _MACHINES, reason="where the modes are is not known here"
)
place, _bits = _MACHINES.get(platform.machine(), (0, (0,) * 5))
MODES = {**dict(zip(_NAMES, _bits, strict=True)), "flushed": _bits[0] | _bits[1]}


def register() -> int:
    """The modes of this thread, and whatever else the register has; exceptions that were raised are left out."""
    environment = ctypes.create_string_buffer(256)
    ctypes.CDLL(None).fegetenv(environment)
    return int.from_bytes(environment[place : place + 4], "little") & ~0x3F


def set_modes(name: str) -> None:
    """For this thread."""
    library, environment = ctypes.CDLL(None), ctypes.create_string_buffer(256)
    library.fegetenv(environment)
    environment[place : place + 4] = (register() | MODES[name]).to_bytes(4, "little")
    library.fesetenv(environment)


def in_modes(name: str, call: Callable[[], Any]) -> Any:
    """What a call returns in a thread of those modes, which it has to leave as they are."""
    results: list[Any] = []
    errors: list[BaseException] = []

    def work() -> None:
        set_modes(name)
        before = register()
        try:
            results.append(call())
            assert register() == before != usual
        except BaseException as error:
            errors.append(error)

    usual = register()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def are_felt() -> bool:
    """Whether NumPy's own arithmetic is another than usual."""
    least, one = np.float64(np.array(1, np.int64).view(np.float64)), np.array([1.0, -1.0])
    sums = one + np.float64(2.0**-53) * np.array([1.5, -1.5]), one + np.array([2.0**-54, -(2.0**-54)])
    usual = np.array([1 + 2.0**-52, -1 - 2.0**-52])
    return bool(np.any(sums[0] != usual) or np.any(sums[1] != one) or not least * one[0] > 0)
