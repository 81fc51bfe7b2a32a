"""Sixteen rows at a time: what a row yields is its own, and the same as what the kernels for long rows make of it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import inputs
import numpy as np
import pytest
from digests import THREADS, all_functions, fixed, same
from inputs import DTYPES, Batch
from numba import njit

from npselect import gumbel_softmax, straight_through
from npselect._arithmetic import exponential, half, simd
from npselect._arithmetic.primitives import fma, select
from npselect.tiers.cpu import long_passes, long_rows, short_rows
from npselect.tiers.cpu import rows as cpu

FOLDERS = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]  # where a process finds this file
dtypes = pytest.mark.parametrize("dtype", list(DTYPES))
CHOICES = [1, 2, 3, 4, 5, 8, 10, 15, 16, 17, 31, 33, 64, 100, 127, 128]


def special(dtype: str, rows: int, choices: int) -> Batch:
    """A batch whose middle rows hold what a row may hold: each kind is alone among ordinary rows of its tile."""
    made = inputs.random(dtype, rows, choices, choices)
    where = np.ones((rows, choices), bool)
    made.logits[3, choices // 2], made.logits[4, -1] = np.nan, np.inf
    made.logits[5] = -np.inf
    made.logits[6, choices // 2] = -np.inf
    made.logits[7] = made.logits[7, 0]
    made.logits[8, ::2], made.logits[8, 1::2] = -0.0, 0.0
    made.g[9, choices // 2], made.g[10, 0] = np.nan, -np.inf
    where[11] = False
    where[12, ::2] = False
    where[13, 1:] = False
    made.g[13, 1:] = np.nan
    made.logits[18, 0] = np.nan
    return made._replace(where=where)


@dtypes
@pytest.mark.parametrize("choices", CHOICES)
def test_rows_are_their_own(dtype: str, choices: int) -> None:
    """Each row alone, and the batch from any row on: the borders of tiles fall everywhere."""
    batch = special(dtype, 37, choices)
    for offered in (batch, batch._replace(where=None)):
        expected = all_functions(offered)
        for r in range(37):
            assert same(all_functions(offered.rows(slice(r, r + 1))), [result[r : r + 1] for result in expected]), r
        for first, stop in ((1, 37), (5, 21), (5, 22), (15, 32), (16, 33), (20, 36)):
            part = slice(first, stop)
            assert same(all_functions(offered.rows(part)), [result[part] for result in expected]), part


@dtypes
@pytest.mark.parametrize("choices", [choices for choices in CHOICES if choices >= 2 * simd.WIDTH])
def test_same_bits_as_for_long_rows(dtype: str, choices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [special(dtype, 37, choices), fixed(dtype, 37, choices)]
    results = [all_functions(batch) for batch in batches]
    monkeypatch.setattr(short_rows, "MAX_SHORT_ROW", 0)
    assert all(same(all_functions(batch), expected) for batch, expected in zip(batches, results, strict=True))


@dtypes
@pytest.mark.parametrize("choices", [129, 1024, 1025, 1039, 1041, 2048, 2057, 2064, 5000])
def test_same_bits_segment_by_segment(dtype: str, choices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that scratch memory has no room for; some of them have their only candidate in the last segment."""
    batches = [special(dtype, 37, choices), fixed(dtype, 37, choices), special(dtype, 37, choices)]
    batches[2].where[20:, :-1] = False  # type: ignore[index]
    batches.append(batches[0]._replace(where=None))

    def results() -> list[Any]:
        found = [result for batch in batches for result in all_functions(batch)]
        for b in batches:
            found.append(gumbel_softmax.backward(b.g, b.logits, b.temp, where=b.where, seed=choices))
            found.append(gumbel_softmax.soft(b.logits, b.temp, where=b.where, noise=np.float32(b.v)))
        return found

    sizes = []
    buffer_size = long_passes.buffer_size
    monkeypatch.setattr(long_passes, "buffer_size", lambda *given: sizes.append(buffer_size(*given)) or sizes[-1])
    expected = results()
    assert set(sizes) == {-(-choices // 16) * 16}
    sizes.clear()
    monkeypatch.setattr(cpu, "ROW_MEMORY", 0)
    assert same(results(), expected)
    assert set(sizes) == {min(1024 + 16, -(-choices // 16) * 16)}


@dtypes
@pytest.mark.parametrize("choices", [5, 2000])
def test_there_is_one_nan(dtype: str, choices: int) -> None:
    """The sign of inf - inf is the processor's, that of NaN + NaN the compiler's: neither is a result's."""
    logits, g = np.zeros((6, choices), DTYPES[dtype]), np.zeros((6, choices), DTYPES[dtype])
    g[0, 1], g[1, 1], g[2, 1], g[3, 1], g[4, :2] = np.nan, -np.nan, np.inf, -np.inf, (np.inf, -np.inf)
    logits[5] = np.nan
    for temp in (np.full((6, 1), 0.6), 0.6):
        results = [straight_through.backward_temp(g * sign, logits, temp, backend="cpu") for sign in (1, -1)]
        results += [straight_through.backward(g * sign, logits, temp, backend="cpu")[:, 1] for sign in (1, -1)]
        for result in results:
            assert np.all(np.isnan(result.astype(np.float64)))
            assert not np.any(np.signbit(result.astype(np.float64)))


@dtypes
def test_nothing_is_written_beside_the_rows(dtype: str) -> None:
    """Entries before and behind `out` stay as they are, at every length of a tile's and a row's last part."""
    for choices in (1, 2, 3, 4, 8, 15, 16, 17, 33, 100, 130, 1025):
        for rows in (1, 2, 15, 16, 17, 18):
            batch = inputs.random(dtype, rows, choices, rows)
            guarded = np.full(rows * choices + 128, 7, DTYPES[dtype])
            out = guarded[64 : 64 + rows * choices].reshape(rows, choices)
            for call in (
                partial(straight_through.forward, batch.logits),
                partial(straight_through.soft, batch.logits, batch.temp),
                partial(straight_through.backward, batch.g, batch.logits, batch.temp),
            ):
                call(out=out)
                assert np.all(guarded[:64] == 7)
                assert np.all(guarded[64 + rows * choices :] == 7)


@pytest.mark.parametrize("row_memory", [cpu.ROW_MEMORY, 0])
@pytest.mark.parametrize("choices", [1, 33, 128, 129, 1025, 5000])
def test_kernels_stay_in_their_scratch_memory(
    choices: int, row_memory: int, guards: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "ROW_MEMORY", row_memory)
    for batch in (special("float32", 37, choices), inputs.random("float32", 17, choices, 1)):
        all_functions(batch)
        gumbel_softmax.backward(batch.g, batch.logits, batch.temp, where=batch.where, seed=1)
    assert len(guards) > 20
    assert all(np.all(guard == 7) for guard in guards)


def test_a_kernel_with_a_span_too_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is told by the record of its row function, when the tier is loaded."""
    cpu._check_buffers()
    for module in (long_rows, short_rows):
        with monkeypatch.context() as patch:
            patch.setattr(module.double_backward_rows, "buffers", 2)
            with pytest.raises(AssertionError, match=f"{module.__name__}.double_backward_rows has 2 buffers of 3"):
                cpu._check_buffers()


# ------------------------------------------------------------------------------------------------ SIMD vectors


@njit(error_model="numpy")
def _by_one(w: Any, top: Any, temp: Any, out: Any) -> None:
    for i in range(len(w)):
        t, tail = exponential.divided_difference(w[i], top[i], exponential.prepared(temp[i]))
        out[i] = select(w[i] != top[i], fma(exponential.exp(t, tail), t, -tail), tail)


@njit(error_model="numpy")
def _by_sixteen(w: Any, top: Any, temp: Any, out: Any) -> None:
    for i in range(0, len(w), simd.WIDTH):
        a, b = simd.load(w, i), simd.load(top, i)
        t, tail = exponential.divided_difference(a, b, exponential.prepared(simd.load(temp, i)))
        simd.store(out, i, select(a != b, fma(exponential.exp(t, tail), t, -tail), tail))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_formulas_take_simd_vectors(kind: Any) -> None:
    rng = np.random.default_rng(3)
    w = (rng.normal(size=16_000) * np.exp(rng.uniform(-80, 80, 16_000))).astype(kind)
    top = np.where(rng.random(16_000) < 0.1, w, np.abs(w) * kind(1.5)).astype(kind)
    w[::50], w[1::50] = -np.inf, -top[1::50]
    temp = np.exp(rng.uniform(-85, 85, 16_000)).astype(kind)
    one, sixteen = np.empty_like(w), np.empty_like(w)
    _by_one(w, top, temp, one)
    _by_sixteen(w, top, temp, sixteen)
    assert np.count_nonzero(one) > 10_000
    assert one.tobytes() == sixteen.tobytes()


@njit
def _widened(slots: Any, like: Any, out: Any) -> None:
    for i in range(0, len(slots), simd.WIDTH):
        simd.store(out, i, half.widen_vector(simd.load(slots, i), like))


@njit
def _narrowed(x: Any, like: Any, out: Any) -> None:
    for i in range(0, len(x), simd.WIDTH):
        simd.store(out, i, half.narrow_vector(simd.load(x, i), like))


@njit
def _narrowed_by_one(x: Any, out: Any) -> None:
    for i in range(len(x)):
        out[i] = half.narrow(x[i], out)


@pytest.mark.parametrize(("bits", "dtype"), [(np.uint16, "float16"), (np.int16, "bfloat16")])
def test_half_takes_simd_vectors(bits: Any, dtype: str) -> None:
    patterns = np.arange(65536, dtype=np.uint32)
    like = patterns.astype(np.uint16).view(bits)
    wide = np.empty(65536, np.float32)
    _widened(patterns.view(np.float32), like, wide)
    expected = np.array([half.widen(pattern) for pattern in like])
    nan = np.isnan(expected)  # an instruction has another of them than the formula
    assert np.array_equal(np.isnan(wide), nan)
    assert np.array_equal(wide.view(np.uint32)[~nan], expected.view(np.uint32)[~nan])
    x = np.random.default_rng(4).integers(0, 2**32, 2**20, np.uint32)
    x[:65536] = wide.view(np.uint32) + 1
    slots, one = np.empty(2**20, np.float32), np.empty(2**20, bits)
    _narrowed(x.view(np.float32), like, slots)
    _narrowed_by_one(x.view(np.float32), one)
    found = slots.view(np.uint32).astype(np.uint16)
    number = ~np.isnan(x.view(np.float32))
    assert np.array_equal(found.view(bits)[number], one[number])
    assert np.all(np.isnan(found.view(DTYPES[dtype])[~number].astype(np.float32)))
    assert np.count_nonzero(~number) > 1000


# ------------------------------------------------------------------------------------------------ memory


def memory_calls(choices: int) -> list[Callable[[], Any]]:
    """Calls with everything given that can be."""
    x = np.random.default_rng(5).normal(size=(2**22 // choices, choices)).astype(np.float32)
    out = np.empty_like(x)
    calls: list[Callable[[], Any]] = [
        partial(straight_through.forward, x, out=out),
        partial(straight_through.soft, x, out=out),
        partial(straight_through.backward, x, x, out=out),
        partial(straight_through.double_backward, x, x, x, out=(out, np.empty_like(x))),
        partial(gumbel_softmax.forward, x, seed=1, out=out),
        partial(gumbel_softmax.backward, x, x, seed=1, out=out),
    ]
    if choices >= 1024:  # it keeps a number a row
        calls.append(partial(straight_through.backward_temp, x, x))
    return calls


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("choices", [2, 8, 64, 1024, 32768, 131_072, 1_000_000])
def test_temporary_memory(choices: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte a thread and what the calls themselves take; noise is kept for a row at least."""
    monkeypatch.setenv(THREADS, str(threads))
    for call in memory_calls(choices):
        call()
        tracemalloc.start()
        call()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        row = choices * 4 if "seed" in call.keywords else 0
        assert peak < threads * (max(2**20, row) + 2**16), call.func


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of resident memory is reset and read by way of /proc")
def test_resident_memory() -> None:
    """What the kernels allocate tracemalloc does not see: the peak of the process, after a first call of each."""
    script = """
        import sys
        sys.path[:0] = {folders!r}
        from pathlib import Path
        import test_short_rows

        def resident(name):
            line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
            return int(line.split()[1])

        for choices in (2, 64, 1024, 32768):
            for call in test_short_rows.memory_calls(choices):
                call()
                try:
                    Path("/proc/self/clear_refs").write_text("5")
                except OSError:
                    print(0)
                    continue
                before = resident("VmRSS")
                call()
                print(resident("VmHWM") - before)
    """
    script = textwrap.dedent(script.format(folders=FOLDERS))
    environment = {**os.environ, THREADS: "2"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=200)
    assert done.returncode == 0, done.stderr
    grown = [int(line) for line in done.stdout.split()]
    assert len(grown) == 26
    assert max(grown) < 2 * 1024


def test_the_two_kinds_of_kernels_are_alike() -> None:
    rows = [name for name in long_rows.__all__ if name.endswith("_rows")]
    assert rows == [name for name in short_rows.__all__ if name.endswith("_rows")]
    assert short_rows.MAX_SHORT_ROW == 128
