"""Kernels over ranges of rows, in as many threads as the batch is worth.

The threads are those of a `ThreadPoolExecutor` made at the first batch that wants one, once per process: a child made
by `os.fork` finds another process id and makes its own. numba's threading layers are not used: they abort the process
when two threads call at once or after a fork.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import lru_cache
from itertools import pairwise

__all__ = ["VARIABLE", "over_rows", "thread_count"]

VARIABLE = "NPSELECT_NUM_THREADS"
_WORTH_THREADS = 1 << 18  # elements; below, handing work over costs more than it saves
_LEAST = 1 << 15  # elements of a range
_AT_A_TIME = 1 << 24  # elements; no call of a kernel keeps an interrupt waiting for longer than that takes


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

    Four ranges a thread, so that a thread on a busy processor is not waited for by all the others; this thread takes
    ranges too. Whether it returns or raises, an interrupt included, no range is still being worked on.
    """
    size = rows * choices
    if size < _WORTH_THREADS:
        part(0, rows)
        return
    threads = thread_count()
    parts = 1 if threads == 1 else min(4 * threads, size // _LEAST)
    parts = min(max(parts, size // _AT_A_TIME), rows)
    ranges = pairwise([rows * i // parts for i in range(parts + 1)])  # whoever is free takes the next

    def work() -> None:
        try:
            for start, stop in ranges:
                part(start, stop)
        except BaseException:
            deque(ranges, maxlen=0)  # nobody begins another
            raise

    futures: list[Future[None]] = []
    try:
        with suppress(RuntimeError):  # at the interpreter's end, pools take no more work
            futures.extend(_pool(os.getpid(), threads).submit(work) for _ in range(min(threads, parts) - 1))
        work()
        for future in futures:
            future.result()
    except BaseException:
        deque(ranges, maxlen=0)
        for future in futures:
            future.cancel()
        wait(futures)
        raise


@lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:  # noqa: ARG001 a fork must not find its parent's
    return ThreadPoolExecutor(max(threads - 1, 1), thread_name_prefix="npselect")
