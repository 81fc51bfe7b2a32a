"""The CPU tier: the same bits whatever the batch, the layout, the threads or the processor; and calls from anywhere."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import inputs
import numpy as np
import pytest
from inputs import DTYPES, Batch

from npselect import gumbel_softmax, noise, straight_through
from npselect._threads import over_rows, thread_count

dtypes = pytest.mark.parametrize("dtype", list(DTYPES))
SHAPES = [(140_000, 2), (34_000, 8), (2_100, 129), (270, 1025), (54, 5000)]  # every one enough for seven threads
THREADS = "NPSELECT_NUM_THREADS"
FOLDERS = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]  # where a process finds this file


def all_functions(batch: Batch, **options: Any) -> list[Any]:
    """Every function of the operator on the CPU tier, one temperature a row."""
    logits, temp, where, g, v = batch
    options = {"where": where, "backend": "cpu", **options}
    return [
        straight_through.forward(logits, temp, **options),
        straight_through.index(logits, **options),
        straight_through.soft(logits, temp, **options),
        straight_through.backward(g, logits, temp, **options),
        straight_through.jvp(v, logits, temp, **options),
        straight_through.backward_temp(g, logits, temp, **options),
        *straight_through.double_backward(v, g, logits, temp, **options),
    ]


def digest(results: list[Any]) -> str:
    found = hashlib.sha256()
    for result in results:
        found.update(f"{result.dtype} {result.shape}".encode() + np.ascontiguousarray(result).tobytes())
    return found.hexdigest()


def fixed(dtype: str, rows: int, choices: int) -> Batch:
    """A batch with all that a row may hold: NaN and infinities, no candidates, spreads of any size."""
    made = inputs.random(dtype, rows, choices, choices)
    rng = np.random.default_rng(rows)
    for value in (np.nan, np.inf, -np.inf):
        made.logits[rng.random(rows) < 0.02, rng.integers(choices)] = value
        made.g[rng.random(rows) < 0.02, rng.integers(choices)] = value
    made.where[rng.random(rows) < 0.01] = False  # type: ignore[index]
    return made


@pytest.fixture(scope="module", params=list(DTYPES))
def whole(request: pytest.FixtureRequest) -> Iterator[tuple[str, list[tuple[Batch, list[Any]]]]]:
    """For one dtype: batches, and the results of one thread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(THREADS, "1")
        batches = [fixed(request.param, *shape) for shape in SHAPES]
        yield request.param, [(batch, all_functions(batch)) for batch in batches]


def same(results: list[Any], expected: list[Any]) -> bool:
    return digest(results) == digest(expected)


def test_digest_notices_one_bit() -> None:
    x = np.linspace(0, 1, 7)
    y = x.copy()
    y.view(np.uint8)[17] ^= 1
    assert digest([x]) == digest([x.copy()]) != digest([y])
    assert digest([np.float32(0.0)]) != digest([np.float32(-0.0)])


# ------------------------------------------------------------------------------------------------ the same bits


@pytest.mark.parametrize("threads", ["1", "2", "7"])
def test_threads(whole: Any, threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(THREADS, threads)
    for batch, expected in whole[1]:
        assert same(all_functions(batch), expected), batch.logits.shape


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_ranges_cover_all_rows(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batches of this file are split into at least as many ranges as threads, and a fault in one is not lost."""
    monkeypatch.setenv(THREADS, str(threads))
    for rows, choices in SHAPES:
        parts: list[tuple[int, int]] = []
        over_rows(lambda *ends, parts=parts: parts.append(ends), rows, choices)
        parts.sort()
        assert len(parts) == 1 if threads == 1 else threads <= len(parts) <= 4 * threads
        assert parts[0][0] == 0
        assert parts[-1][1] == rows
        assert all(a[1] == b[0] and a[0] < a[1] for a, b in pairwise(parts))

    def fails_at_the_end(start: int, stop: int) -> None:
        if stop == SHAPES[0][0]:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        over_rows(fails_at_the_end, *SHAPES[0])


def test_batches_split_anywhere(whole: Any) -> None:
    rng = np.random.default_rng(8)
    for batch, expected in whole[1]:
        cuts = np.sort(rng.choice(np.arange(1, len(batch.logits)), 6, replace=False))
        bounds = [0, *cuts.tolist(), len(batch.logits)]
        parts = [all_functions(batch.rows(slice(*ends))) for ends in pairwise(bounds)]
        assert same([np.concatenate(part) for part in zip(*parts, strict=True)], expected)


def test_row_by_row(whole: Any) -> None:
    """A sample of rows, each alone: as an array of one row, and as one of no more than its own axis."""
    for batch, expected in whole[1]:
        for r in np.random.default_rng(9).choice(len(batch.logits), 8, replace=False).tolist():
            alone = [result[r : r + 1] for result in expected]
            assert same(all_functions(batch.rows(slice(r, r + 1))), alone)
            row = batch.rows(r)
            flat = all_functions(row._replace(temp=row.temp[0]))
            assert same([np.asarray(x)[None] for x in flat[:5]], [x[0][None] for x in alone[:5]])
            assert flat[5].tobytes() == alone[5][0].tobytes()


def _unaligned(x: Any) -> Any:
    buffer = np.empty(x.nbytes + 1, np.uint8)
    moved = buffer[1:].view(x.dtype).reshape(x.shape)
    moved[...] = x
    assert x.dtype == bool or not moved.flags.aligned
    return moved


def _strided(x: Any) -> Any:
    wide = np.zeros((x.shape[0], 2 * x.shape[1]), x.dtype)
    wide[:, ::2] = x
    return wide[:, ::2]


def _read_only(x: Any) -> Any:
    copy = x.copy()
    copy.flags.writeable = False
    return copy


LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "C": np.array,
    "Fortran": np.asfortranarray,
    "strided": _strided,
    "every other row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "negative strides": lambda x: np.array(x[::-1, ::-1])[::-1, ::-1],
    "unaligned": _unaligned,
    "read-only": _read_only,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(whole: Any, layout: str) -> None:
    for batch, expected in whole[1][1:]:
        laid = Batch(*(LAYOUTS[layout](part) for part in batch))
        before = digest(list(laid))
        assert same(all_functions(laid), expected)
        assert digest(list(laid)) == before


def test_byte_swapped(whole: Any) -> None:
    dtype, batches = whole
    if dtype == "bfloat16":
        pytest.skip("NumPy cannot swap the bytes of a dtype that is not its own")
    for batch, expected in batches[1:]:
        swapped = [x.astype(x.dtype.newbyteorder()) for x in (batch.logits, batch.temp, batch.g, batch.v)]
        laid = Batch(swapped[0], swapped[1], batch.where, *swapped[2:])
        assert not laid.logits.dtype.isnative
        assert same(all_functions(laid), expected)


@dtypes
def test_broadcast(dtype: str) -> None:
    """One row that stands for 9,000, an array whose strides are 0."""
    batch = fixed(dtype, 3, 8).rows(slice(1, 2))
    single = all_functions(batch)
    shape = (33_000, 8)
    many = Batch(*(np.broadcast_to(part, (33_000, part.shape[1])) for part in batch))
    assert same(all_functions(many), [np.repeat(result, 33_000, axis=0) for result in single])
    some = batch._replace(where=None)
    expected = straight_through.soft(some.logits, 0.5, where=batch.where, backend="cpu")
    actual = straight_through.soft(np.broadcast_to(some.logits, shape), 0.5, where=batch.where, backend="cpu")
    assert same([actual], [np.repeat(expected, 33_000, axis=0)])


@dtypes
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
def test_any_axis(dtype: str, axis: int) -> None:
    """The candidates along any axis of three, and a temperature for every row."""
    batch = fixed(dtype, 900, 129)
    expected = all_functions(batch)

    def arranged(x: Any) -> Any:
        return np.moveaxis(x.reshape(30, 30, -1), -1, axis)

    results = all_functions(Batch(*(arranged(part) for part in batch)), axis=axis)
    for i, (result, wanted) in enumerate(zip(results, expected, strict=True)):
        wanted = wanted.reshape(30, 30) if i == 1 else arranged(wanted)
        assert result.shape == wanted.shape
        assert same([result], [wanted]), i


_IN_A_PROCESS = """
    import sys
    sys.path[:0] = {folders!r}
    import test_cpu
    for dtype in {dtypes!r}:
        print(dtype, test_cpu.small_digest(dtype))
    from npselect.tiers.cpu import long_rows
    print(any("vfmadd" in code for code in long_rows.backward_rows.inspect_asm().values()))
"""
SMALL = [(50, 1), (300, 5), (60, 129), (5, 1100)]


def small_digest(dtype: str) -> str:
    """Of all functions; of Gumbel-softmax's backward, in order and out of order; of noise."""
    batches = [fixed(dtype, *shape) for shape in SMALL]
    results = [result for batch in batches for result in all_functions(batch)]
    for b in batches:
        results.append(gumbel_softmax.backward(b.g, b.logits, b.temp, where=b.where, seed=5))
        results.append(gumbel_softmax.soft(b.logits.T, b.temp.T, axis=0, seed=6, offset=3))
    results.append(noise.gumbel(50_000, 7, dtype=inputs.compute_type(dtype)))
    return digest(results)


def _digests_for(processor: str | None, dtypes: list[str], folder: Path) -> list[str]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / (processor or "native"))}
    if processor:
        environment["NUMBA_CPU_NAME"] = processor
        environment["NUMBA_CPU_FEATURES"] = ""
    else:
        environment.pop("NUMBA_CPU_NAME", None)
    script = textwrap.dedent(_IN_A_PROCESS.format(folders=FOLDERS, dtypes=dtypes))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=1500)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_processors(tmp_path: Path) -> None:
    """Compiled for the least and the most that a processor of this kind can do: the same digests."""
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("the processors' names are those of x86-64")
    if not Path("/proc/cpuinfo").exists() or "avx2" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor, as far as can be seen, does not run what is compiled for haswell")
    # both compute types for each; None: what is here, compiled anew
    runs = [("generic", ["bfloat16", "float64"]), ("haswell", ["float32", "float64"]), (None, ["float32"])]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda run: _digests_for(*run, tmp_path), runs))
    for (processor, dtypes), lines in zip(runs, found, strict=True):
        fused = processor != "generic"  # which has not a single fma instruction
        assert lines == [*(f"{dtype} {small_digest(dtype)}" for dtype in dtypes), str(fused)]


# ------------------------------------------------------------------------------------------------ called from anywhere


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
    sys.path[:0] = {folders!r}
    os.environ["NPSELECT_NUM_THREADS"] = "3"
    import test_cpu
    batch = test_cpu.fixed("float32", 33_000, 8)
    expected = test_cpu.digest(test_cpu.all_functions(batch))  # the parent's pool is made and used

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
            right = test_cpu.digest(test_cpu.all_functions(batch)) == expected
            leave(7 if right else 1)
        assert wait(child) == 7, leave
    assert test_cpu.digest(test_cpu.all_functions(batch)) == expected  # and the parent goes on
    print("ended")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_after_a_fork() -> None:
    """Children of a process whose pool has worked: their batches are split too; they leave by either door."""
    script = textwrap.dedent(_AFTER_A_FORK.format(folders=FOLDERS))
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
