"""The generator: known answers, faults found, and numbers where they belong in the stream."""

from __future__ import annotations

import builtins
import inspect
from typing import Any

import formulas
import numpy as np
import pytest
from formulas import compiled, gumbels, plain
from hard_numbers import uniforms

from npselect import noise
from npselect._arithmetic import gumbel
from npselect._oracle import philox as reference_philox
from npselect.tiers.cpu import noise as kernels

PHILOX_4X32 = [  # counter, key, output: the known answers of Random123
    ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
CONSTANTS_32 = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85)
CONSTANTS_64 = (0xD2E7470EE14C6C93, 0xCA5A826395121157), (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)


@pytest.mark.parametrize(("counter", "key", "output"), PHILOX_4X32)
def test_philox_known_answers(counter: Any, key: Any, output: Any) -> None:
    x = np.array([[*counter, *key]], np.uint64).T
    assert compiled(formulas.philox, x, 4)[:, 0].tolist() == list(output)
    assert plain(gumbel.philox, x)[:, 0].tolist() == list(output)
    assert reference_philox.philox(counter, key, *CONSTANTS_32, 32) == output
    assert [int(word[0]) for word in reference_philox.philox(x[:4], x[4:], *CONSTANTS_32, 32)] == list(output)


def split(number: int, count: int) -> tuple[int, ...]:
    """Words of 64 bits, the lowest first."""
    return tuple(number >> 64 * i & (2**64 - 1) for i in range(count))


def test_philox_with_64_bits_is_that_of_numpy() -> None:
    rng = np.random.default_rng(17)
    counters = [0, 2**64 - 1, 2**64 - 2, 2**128 - 1, 2**192 - 1, 2**256 - 1, 2**255, int.from_bytes(rng.bytes(32))]
    keys = [0, 1, 2**64 - 1, 2**64, 2**128 - 1, int.from_bytes(rng.bytes(16))]
    for counter in counters:
        for key in keys:
            drawn = np.random.Philox(counter=counter, key=key).random_raw(12).tolist()
            blocks = [split((counter + i) % 2**256, 4) for i in (1, 2, 3)]  # NumPy increments before use
            expected = [x for block in blocks for x in reference_philox.philox(block, split(key, 2), *CONSTANTS_64, 64)]
            assert drawn == expected


PHILOX_FAULTS = {
    "nine rounds": ("range", lambda _: builtins.range(9)),
    "eleven rounds": ("range", lambda _: builtins.range(11)),
    "half a word of 33 bits": ("_HALF_WORD", np.uint64(33)),
    "one multiplier for both": ("_MULTIPLIER0", gumbel._MULTIPLIER1),
    "bit of a multiplier": ("_MULTIPLIER1", gumbel._MULTIPLIER1 ^ np.uint64(2)),
    "bit of an increment": ("_WEYL0", gumbel._WEYL0 ^ np.uint64(1 << 31)),
}


@pytest.mark.parametrize("fault", PHILOX_FAULTS)
def test_philox_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gumbel, *PHILOX_FAULTS[fault], raising=False)
    for counter, key, output in PHILOX_4X32:
        words = plain(gumbel.philox, np.array([[*counter, *key]], np.uint64).T)[:, 0].tolist()
        assert words != list(output)


@pytest.mark.parametrize("order", ["x2, x3, x0, x1", "x1, x2, x3, x0", "x0, x3, x2, x1"])
def test_philox_with_words_rotated_is_found(order: str) -> None:
    source = inspect.getsource(gumbel.philox)
    left = "x0, x1, x2, x3 = (b"
    assert left in source
    names = dict(vars(gumbel))
    exec(source.replace(left, f"{order} = (b"), names)
    x = np.array([[*counter, *key] for counter, key, _ in PHILOX_4X32], np.uint64).T
    for words, (_, _, output) in zip(plain(names["philox"], x).T.tolist(), PHILOX_4X32, strict=True):
        assert words != list(output)


def word_of(number: int, seed: int) -> int:
    """Number n's 64 bits, as the page has them."""
    counter, key = (number // 2 % 2**32, number // 2 >> 32, 0, 0), (seed % 2**32, seed >> 32)
    x = reference_philox.philox(counter, key, *CONSTANTS_32, 32)
    return x[2 * (number % 2) + 1] << 32 | x[2 * (number % 2)]


@pytest.mark.parametrize("seed", [0, 2**32 - 1, 2**32, 0x0123456789ABCDEF, 2**64 - 1])
def test_numbers_are_where_they_belong(seed: int) -> None:
    """From even and odd numbers, within and across blocks of 64 and 2048, up to the stream's last."""
    for offset in (0, 1, 4095, 4096, 2**33 - 3, 2**33 - 2, 2**63 - 1, 2**64 - 8194, 2**64 - 8193):
        for size in (0, 1, 2, 3, 63, 64, 65, 2047, 2048, 2049, 4095, 4096, 4097):
            drawn = noise.gumbel(size, seed, offset=offset, dtype=np.float64)
            some = sorted(
                {
                    i
                    for i in (0, 1, 2, 62, 63, 64, 65, 2046, 2047, 2048, 2049, 4095, size - 2, size - 1)
                    if 0 <= i < size
                }
            )
            assert np.array_equal(drawn[some], gumbels(uniforms(word_of(offset + i, seed) for i in some)))
            at = np.empty(len(some))
            kernels.draw_at(np.uint64(seed), np.array([offset + i for i in some], np.uint64), at)
            assert np.array_equal(drawn[some], at)
    last = noise.gumbel(3, seed, offset=2**64 - 3, dtype=np.float64)
    assert np.array_equal(last, gumbels(uniforms(word_of(2**64 - 3 + i, seed) for i in range(3))))
