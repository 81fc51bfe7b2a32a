"""What a child made by `os.fork` cannot do, if another thread was loading a tier or compiling at that moment.

That thread does not exist in the child, so nobody ever releases its locks there: a first call would wait for ever. It
raises instead. The parent cannot delay the fork until the other thread is done: by then `logging`, for one, has taken
its own locks for the fork, which that thread may need.
"""

from __future__ import annotations

import os
import sys
from threading import RLock
from typing import Any

__all__ = ["check", "loading"]

loading = RLock()  # held while a tier is loaded
_interrupted = False


def check() -> None:
    """Before anything is loaded or compiled.

    Raises
    ------
    RuntimeError
        It cannot be, in this child of a fork.
    """
    if _interrupted:
        raise RuntimeError(
            "this process was forked while another thread was in a first call, loading or compiling kernels; they can "
            "no longer be compiled here. Call npselect.warm_up before forking, or start processes by 'spawn' or "
            "'forkserver'"
        )


def _look() -> None:
    global _interrupted
    compiling = getattr(sys.modules.get("numba.core.compiler_lock"), "global_compiler_lock", None)
    locks: list[Any] = [loading] if compiling is None else [loading, compiling._lock]
    for lock in locks:
        if lock.acquire(blocking=False):
            lock.release()
        else:
            _interrupted = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_look)
