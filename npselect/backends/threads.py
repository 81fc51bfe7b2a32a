"""Kernels over ranges of rows, in as many threads as the batch is worth.

The threads are those of a `ThreadPoolExecutor` made at the first batch that wants one, once per process: a child made
by `os.fork` finds another process id and makes its own. numba's threading layers are not used: they abort the process
when two threads call at once or after a fork.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

__all__ = ["VARIABLE", "over_rows", "thread_count"]

VARIABLE = "NPSELECT_NUM_THREADS"
_WORTH_A_THREAD = 32768  # elements; below, handing work over costs more than it saves


def thread_count() -> int:
    """How many threads a large batch is split over: NPSELECT_NUM_THREADS, or the usable processors."""
    given = os.environ.get(VARIABLE)
    if not given:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not given.isascii() or not given.isdigit() or int(given) == 0:
        raise ValueError(f"the environment variable {VARIABLE} is {given!r}; it takes a positive whole number")
    return int(given)


def over_rows(part: Callable[[int, int], None], rows: int, choices: int) -> None:
    """Call ``part(start, stop)`` so that the ranges cover all rows; small batches stay in this thread.

    Four ranges a thread, so that a thread on a busy processor is not waited for by all the others.
    """
    size = rows * choices
    threads = 1 if size < 2 * _WORTH_A_THREAD else thread_count()
    parts = 1 if threads == 1 else min(4 * threads, size // _WORTH_A_THREAD, rows)
    if parts == 1:
        part(0, rows)
        return
    bounds = [rows * i // parts for i in range(parts + 1)]
    list(_pool(os.getpid(), threads).map(part, bounds[:-1], bounds[1:]))


@lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:  # noqa: ARG001 a fork must not find its parent's
    return ThreadPoolExecutor(threads, thread_name_prefix="npselect")
