"""What is being loaded or compiled is finished before a process forks.

A lock that another thread holds when a process forks, nobody in the child will ever release: there a first call would
wait for ever. As the standard library does for its own locks, a fork takes them first, and so waits until a tier is
loaded or a kernel compiled.
"""

from __future__ import annotations

import os
import sys
from threading import RLock
from typing import Any

__all__ = ["loading"]

loading = RLock()  # held while a tier is loaded
_held: list[Any] = []


def _take() -> None:
    """Ours before numba's, which is held while anything is compiled: that is the order of a first call, too."""
    loading.acquire()
    _held.append(loading)
    compiling = getattr(sys.modules.get("numba.core.compiler_lock"), "global_compiler_lock", None)
    if compiling is not None:
        compiling.acquire()
        _held.append(compiling)


def _give_back() -> None:
    while _held:
        _held.pop().release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_take, after_in_parent=_give_back, after_in_child=_give_back)
