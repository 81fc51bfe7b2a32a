"""The limit of the machine: a copy that moves as many bytes, by one thread and by as many as everybody has."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise

import numpy as np

from npselect.bench.threads import thread_count
from npselect.testing.aliases import Timed

__all__ = ["COPIES", "copies"]

COPIES = ("copy", "copy, threads")


@contextmanager
def copies(moved: int) -> Iterator[dict[str, Timed]]:
    """Functions that read half as many bytes as are moved and write the other half; the faster one is the limit.

    Parameters
    ----------
    moved : int
        Bytes, read and written.

    Examples
    --------
    >>> from npselect.bench import copies
    >>> with copies(1024) as functions:
    ...     for copy in functions.values():
    ...         copy()
    """
    size = moved // 2
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    threads = thread_count()
    bounds = [size * i // threads for i in range(threads + 1)]
    parts = [(target[start:stop], source[start:stop]) for start, stop in pairwise(bounds)]
    with ThreadPoolExecutor(threads) as pool:

        def threaded() -> None:
            for future in [pool.submit(np.copyto, *part) for part in parts]:
                future.result()

        yield dict(zip(COPIES, (lambda: np.copyto(target, source), threaded), strict=True))
