"""The modes of a thread's arithmetic, which its results must not depend on.

A thread may have been told to flush subnormal numbers to zero (`torch.set_flush_denormal`, libraries built with fast
maths) or not to round to nearest (C's fesetround). The usual modes are those of IEEE 754 and of every new process. What
Python and NumPy compute for npselect is computed in these; the kernels set them for themselves
(`npselect.tiers.cpu.float_modes`), as they run in other threads too. `in_usual_modes` also sets NumPy's error state:
overflow and the like are results here, whatever `numpy.seterr` says.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np

__all__ = ["in_usual_modes", "usual_modes"]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

# From bits and powers of two alone: these are right whatever modes they are made in.
_LEAST: float = struct.unpack("<d", b"\x01" + b"\x00" * 7)[0]  # 2**-1074
_ONE, _QUARTER, _MOST = 1.0, float.fromhex("0x1p-54"), float.fromhex("0x1.8p-53")  # quarters of the last place of 1
_ROOM = 256  # bytes, where C's fenv_t takes 8 to 32


def _are_usual() -> bool:
    """Whether this thread keeps subnormal numbers, and rounds neither up, nor down, nor towards zero."""
    return _LEAST * _ONE > 0.0 and _ONE + _QUARTER == _ONE and _ONE + _MOST > _ONE


@contextmanager
def usual_modes() -> Iterator[None]:
    """Compute in the usual modes; afterwards this thread has those that it had.

    Raises
    ------
    RuntimeError
        They are others, and there is no way to change them here.
    """
    if _are_usual():
        yield
        return
    get, put = _functions()
    before = ctypes.create_string_buffer(_ROOM)
    get(before)
    put(ctypes.c_void_p(-1))  # C's FE_DFL_ENV
    try:
        if not _are_usual():
            raise _unusual()
        yield
    finally:
        put(before)


def in_usual_modes(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """The same function, which computes in the usual modes, and has NumPy signal nothing."""

    @wraps(function)
    def call(*args: Parameters.args, **options: Parameters.kwargs) -> Result:
        with np.errstate(all="ignore"):
            if _are_usual():
                return function(*args, **options)
            with usual_modes():
                return function(*args, **options)

    return call


@cache
def _functions() -> tuple[Any, Any]:
    """C's fegetenv and fesetenv, where -1 is known to stand for the modes of a new process."""
    if sys.platform != "linux":
        raise _unusual()
    try:
        library = ctypes.CDLL(None)
        return library.fegetenv, library.fesetenv
    except (AttributeError, OSError):
        raise _unusual() from None


def _unusual() -> RuntimeError:
    return RuntimeError(
        "in this thread arithmetic takes subnormal numbers for zeros or does not round to the nearest number, and "
        "npselect cannot change that here; undo it (torch.set_flush_denormal(False), C's fesetround(FE_TONEAREST)) or "
        "call from another thread"
    )
