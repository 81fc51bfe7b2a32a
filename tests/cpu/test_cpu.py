"""The CPU tier: the same bits whatever the batch, the layout, the threads or the processor."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from digests import FOLDER, THREADS, all_functions, digest, fixed, same, small_digest
from inputs import DTYPES, Batch

from npselect import straight_through
from npselect._threads import over_rows

dtypes = pytest.mark.parametrize("dtype", list(DTYPES))
SHAPES = [(140_000, 2), (34_000, 8), (2_100, 129), (270, 1025), (54, 5000)]  # every one enough for seven threads


@pytest.fixture(scope="module", params=list(DTYPES))
def whole(request: pytest.FixtureRequest) -> Iterator[tuple[str, list[tuple[Batch, list[Any]]]]]:
    """For one dtype: batches, and the results of one thread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(THREADS, "1")
        batches = [fixed(request.param, *shape) for shape in SHAPES]
        yield request.param, [(batch, all_functions(batch)) for batch in batches]


def test_digest_notices_one_bit() -> None:
    x = np.linspace(0, 1, 7)
    y = x.copy()
    y.view(np.uint8)[17] ^= 1
    assert digest([x]) == digest([x.copy()]) != digest([y])
    assert digest([np.float32(0.0)]) != digest([np.float32(-0.0)])


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
    sys.path[:0] = [{folder!r}]
    import digests
    print(digests.small_digest({dtype!r}))
    from npselect.tiers.cpu import long_rows
    print(any("vfmadd" in code for code in long_rows.backward_rows.inspect_asm().values()))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processor", "dtype"), [("generic", "bfloat16"), ("generic", "float64"), ("haswell", "float32")]
)
def test_processors(processor: str, dtype: str, tmp_path: Path) -> None:
    """Compiled for the least that a processor of this kind can do, in both compute types, and for more: the same bits.

    The least has no fma instruction. Those that have one differ in how much they do at once, which one dtype shows.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("the processors' names are those of x86-64")
    if not Path("/proc/cpuinfo").exists() or "avx2" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor, as far as can be seen, does not run what is compiled for haswell")
    about = {"NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": ""}
    script = textwrap.dedent(_IN_A_PROCESS.format(folder=FOLDER, dtype=dtype))
    environment = {**os.environ, **about}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=1500)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [small_digest(dtype), str(processor != "generic")]
