"""Work on ranges of rows, in as many threads as pay for a batch of that size.

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

from npselect._tuning import LEAST_RANGE, MOST_AT_ONCE, RANGES_PER_THREAD, WORTH_THREADS

__all__ = ["VARIABLE", "over_rows", "thread_count"]

VARIABLE = "NPSELECT_NUM_THREADS"
_OPENMP = "OMP_NUM_THREADS"  # which schedulers of clusters and containers set


def thread_count() -> int:
    """How many threads a large batch is split over.

    NPSELECT_NUM_THREADS says it, or else OMP_NUM_THREADS, or else it is the number of usable processors.
    OMP_NUM_THREADS may have levels ("4,2"), of which the first counts. It is meant for others too, so a value that is
    no number is ignored.
    """
    given = os.environ.get(VARIABLE)
    if given:
        number = _positive(given)
        if number is None:
            raise ValueError(f"the environment variable {VARIABLE} is {given!r}; it takes a positive whole number")
        return number
    openmp = _positive(os.environ.get(_OPENMP, "").partition(",")[0].strip())
    if openmp is not None:
        return openmp
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _positive(text: str) -> int | None:
    return int(text) or None if text.isascii() and text.isdigit() and len(text) < 10 else None


def over_rows(function: Callable[[int, int], None], rows: int, choices: int) -> None:
    """Call ``function(start, stop)`` so that the ranges cover all rows; small batches stay in this thread.

    A thread takes several ranges, one after another; this thread takes ranges too. Whether it returns or raises, an
    interrupt included, no range is still being worked on.
    """
    size = rows * choices
    if size < WORTH_THREADS:
        function(0, rows)
        return
    threads = thread_count()
    count = 1 if threads == 1 else min(RANGES_PER_THREAD * threads, size // LEAST_RANGE)
    count = min(max(count, size // MOST_AT_ONCE), rows)
    ranges = pairwise([rows * i // count for i in range(count + 1)])  # a thread that is free takes the next

    def work() -> None:
        try:
            for start, stop in ranges:
                function(start, stop)
        except BaseException:
            deque(ranges, maxlen=0)  # no thread begins another
            raise

    futures: list[Future[None]] = []
    try:
        with suppress(RuntimeError):  # at the interpreter's end, pools take no more work
            futures.extend(_pool(os.getpid(), threads).submit(work) for _ in range(min(threads, count) - 1))
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
