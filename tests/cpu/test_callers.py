"""Calls of the CPU tier from anywhere: many threads, children, a process that ends; and how many threads they take."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from digests import FOLDER, THREADS, all_functions, digest, fixed, same
from inputs import DTYPES, Batch

from npselect import gumbel_softmax, straight_through
from npselect._threads import over_rows, thread_count

dtypes = pytest.mark.parametrize("dtype", list(DTYPES))


@pytest.mark.slow
def test_32_threads_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand calls from each, every fiftieth of them split over the pool that all share."""
    monkeypatch.setenv(THREADS, "3")
    small, large = fixed("float32", 5, 9), fixed("float32", 33_000, 8)
    work = [
        partial(straight_through.backward, b.g, b.logits, b.temp, where=b.where, backend="cpu") for b in (small, large)
    ]
    work += [
        partial(gumbel_softmax.backward, b.g, b.logits, b.temp, where=b.where, seed=3, backend="cpu")
        for b in (small, large)
    ]
    expected = [call().tobytes() for call in work]
    start = threading.Barrier(32)

    def caller(number: int) -> int:
        start.wait(timeout=60)
        right = 0
        for i in range(1000):
            which = 2 * (i % 2) + int((i + number) % 50 == 0)
            right += work[which]().tobytes() == expected[which]
        return right

    began = time.monotonic()
    with ThreadPoolExecutor(32) as callers:
        results = list(callers.map(caller, range(32), timeout=240))
    assert results == [1000] * 32
    assert time.monotonic() - began < 240


_AFTER_A_FORK = """
    import os, sys, time
    sys.path[:0] = [{folder!r}]
    os.environ["NPSELECT_NUM_THREADS"] = "3"
    import digests
    batch = digests.fixed("float32", 33_000, 8)
    expected = digests.digest(digests.all_functions(batch))  # the parent's pool is made and used

    def wait(child):
        for _ in range(600):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.1)
        os.kill(child, 9)
        raise SystemExit("a child hangs")

    for leave in (os._exit, sys.exit):
        child = os.fork()
        if child == 0:
            right = digests.digest(digests.all_functions(batch)) == expected
            leave(7 if right else 1)
        assert wait(child) == 7, leave
    assert digests.digest(digests.all_functions(batch)) == expected  # and the parent goes on
    print("ended")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_after_a_fork() -> None:
    """Children of a process whose pool has worked: their batches are split too; they leave by either door."""
    script = textwrap.dedent(_AFTER_A_FORK.format(folder=FOLDER))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ended\n"


def test_a_thread_that_outlives_the_main_one() -> None:
    """At the interpreter's end pools take no more work; a large batch is done all the same."""
    script = """
        import threading, time
        import numpy as np
        from npselect import noise
        expected = noise.gumbel(1_000_000, 1)
        def late():
            threading.main_thread().join()
            time.sleep(0.2)
            print(np.array_equal(noise.gumbel(1_000_000, 1), expected))
        threading.Thread(target=late).start()
    """
    environment = {**os.environ, THREADS: "2"}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


@pytest.mark.parametrize("threads", ["1", "2"])
def test_an_interrupt_ends_the_work(threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What raises, an interrupt too, ends the call soon, and nothing is written afterwards."""
    monkeypatch.setenv(THREADS, threads)
    begun: list[int] = []
    ended: list[int] = []

    def part(start: int, stop: int) -> None:
        begun.append(start)
        time.sleep(0.02)
        if len(begun) > 2:
            raise KeyboardInterrupt
        ended.append(start)

    rows = 2**30
    with pytest.raises(KeyboardInterrupt):
        over_rows(part, rows, 1)
    done = len(begun), len(ended)
    assert done[0] <= 6 < rows // 2**24
    time.sleep(0.2)
    assert (len(begun), len(ended)) == done


@dtypes
def test_memory_that_cannot_be_written(dtype: str, tmp_path: Path) -> None:
    """Writing a page of a file mapped for reading kills the process; no function may."""
    batch = fixed(dtype, 33_000, 8)
    parts = []
    for i, part in enumerate(batch):
        stored = part.view(np.uint16) if dtype == "bfloat16" and part.dtype == DTYPES[dtype] else part
        stored.tofile(tmp_path / str(i))
        mapped = np.memmap(tmp_path / str(i), stored.dtype, "r", shape=stored.shape)
        parts.append(mapped.view(part.dtype))
    before = digest(list(batch))
    assert same(all_functions(Batch(*parts)), all_functions(batch))
    assert digest(parts) == digest(list(batch)) == before


def test_threads_variable_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    large = np.zeros((33_000, 8))
    for wrong in ("0", "-1", "two", "1.5", "²"):
        monkeypatch.setenv(THREADS, wrong)
        with pytest.raises(ValueError, match=THREADS):
            straight_through.soft(large, backend="cpu")


def test_an_empty_number_of_threads_is_none_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(THREADS, raising=False)
    default = thread_count()
    monkeypatch.setenv(THREADS, "")
    assert thread_count() == default


@pytest.mark.parametrize(("given", "count"), [("3", 3), ("4,2", 4), (" 2 , 8", 2), ("007", 7)])
def test_openmp_may_say_how_many_threads(given: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Schedulers of clusters set it to what a job may use; npselect's own variable says more."""
    monkeypatch.delenv(THREADS, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert thread_count() == count
    monkeypatch.setenv(THREADS, "5")
    assert thread_count() == 5


@pytest.mark.parametrize("given", ["", " ", "0", "-1", "many", "1.5", "\u0663", ",4", "9" * 5000])
def test_what_openmp_would_not_take_is_ignored(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (THREADS, "OMP_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)
    default = thread_count()
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert thread_count() == default
