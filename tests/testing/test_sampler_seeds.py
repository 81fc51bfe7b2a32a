"""Seeds of samplers: those that become one are found, far ones are asked, and honest seeds accepted."""

import hashlib
import re
import zlib
from itertools import combinations

import numpy as np
import pytest
from samplers import by_gumbel

from npselect import testing
from npselect.testing import sampler_questions

MAPS = {  # what a sampler may make of its seed
    "remainder by 256": lambda seed: seed % 256,
    "remainder by 1000": lambda seed: seed % 1000,
    "remainder by 9973": lambda seed: seed % 9973,
    "remainder by 65535": lambda seed: seed % 65535,
    "remainder by a million": lambda seed: seed % 10**6,
    "remainder by 2**31 - 1": lambda seed: seed % (2**31 - 1),
    "remainder by 2**32 - 1": lambda seed: seed % (2**32 - 1),
    "hash": hash,
    "float16": lambda seed: int(min(np.float16(min(seed, 60000)), 60000)),
    "float32": lambda seed: int(np.float32(seed)),
    "float64": lambda seed: int(float(seed)),
    "32 bits": lambda seed: seed & 0xFFFFFFFF,
    "31 bits": lambda seed: seed & 0x7FFFFFFF,
    "63 bits": lambda seed: seed & (2**63 - 1),
    "the upper 32 bits": lambda seed: (seed & (2**64 - 1)) >> 32,
    "without the last bit": lambda seed: seed & (2**64 - 2),
    "without a bit": lambda seed: seed & (2**64 - 1 - 2**45),
    "halves folded": lambda seed: (seed ^ seed >> 32) & 0xFFFFFFFF,
    "halves added": lambda seed: ((seed >> 32) + seed) & 0xFFFFFFFF,
    "saturated": lambda seed: min(seed, 2**31 - 1),
    "0 means the default": lambda seed: seed or 1,
    "size without sign": abs,
    "negative is 0": lambda seed: max(seed, 0),
    "4096 values": lambda seed: zlib.crc32(str(seed).encode()) & 0xFFF,
}


def with_seed(change):
    def sample(logits, seed):
        return by_gumbel(logits, change(seed))

    return sample


@pytest.mark.parametrize("name", MAPS)
def test_seeds_that_become_one_are_found(name):
    change = MAPS[name]
    report = testing.check_sampler(with_seed(change), choices=(10,), rows=100)
    failed = {test.name: test for test in report.tests if test.verdict == "failed"}
    assert "far seeds" in failed, str(report)
    a, b = re.match(
        r"seeds (-?\d+) and (-?\d+) select the same in all of 29 rows", failed["far seeds"].finding
    ).groups()
    assert a != b
    assert change(int(a)) == change(int(b))


HONEST_MAPS = {  # and the largest seed that they take
    "any": (lambda seed: seed if seed >= 0 else 2**80 - seed, 2**64 - 1),
    "two's complement": (lambda seed: seed % 2**64, 2**64 - 1),
    "scrambled": (lambda seed: (seed ^ 0x1234567890ABCDEF) * 0x9E3779B97F4A7C15 % 2**64, 2**64 - 1),
    "int64": (lambda seed: int(np.int64(seed)) % 2**64, 2**63 - 1),
    "uint32": (lambda seed: int(np.uint32(seed)), 2**32 - 1),
    "int32": (lambda seed: int(np.int32(seed)) % 2**32, 2**31 - 1),
    "uint8": (lambda seed: int(np.uint8(seed)), 2**8 - 1),
    "a list": (list(range(100)).__getitem__, 15),
}


@pytest.mark.parametrize("name", HONEST_MAPS)
def test_honest_seeds_are_accepted(name):
    change, largest = HONEST_MAPS[name]
    report = testing.check_sampler(with_seed(change), choices=(10,), rows=100)
    assert report.ok, str(report)
    assert report.max_seed == largest
    assert f"seeds 0 to 15 and others up to {largest}" in str(report)


def test_a_generator_of_32_bits_is_accepted_when_that_is_said():
    sample = with_seed(lambda seed: seed & 0xFFFFFFFF)
    assert not testing.check_sampler(sample, choices=(10,), rows=100).ok
    asked = []
    report = testing.check_sampler(
        lambda logits, seed: asked.append(seed) or sample(logits, seed), choices=(10,), rows=100, max_seed=2**32 - 1
    )
    assert report.ok, str(report)
    assert report.max_seed == 2**32 - 1
    assert 2**31 < max(asked) < 2**32
    assert min(asked) == 0


@pytest.mark.parametrize("largest", [3, 255, 1000, 2**31 - 1, 10**9, 2**32 - 1, 2**63 - 1, 2**64 - 1, 2**70])
def test_far_seeds(largest):
    far = sampler_questions.far_seeds(largest, (-2, -1), np.random.default_rng(largest))
    asked = set(far)
    assert len(far) == len(asked) <= 510
    assert min(far) == 0
    assert max(far) <= largest - 2  # -1 and -2, in two's complement, are largest and largest - 1
    width = (largest + 1).bit_length() - 1
    if width < 16:
        return
    assert len(far) == 510
    for bit in range(width):
        assert any(seed ^ (1 << bit) in asked for seed in asked), bit
    differences = {abs(a - b) for a, b in combinations(far, 2)}
    assert set(range(1, 2**14 + 1)) <= differences
    for number in (np.float32, np.float64) if width > 53 else (np.float32,):
        assert len({int(number(seed)) for seed in far}) < len(far)


def test_seeds_hashed_to_16_bits_are_found_almost_always():
    """By one of the three sets of far seeds of a check; twenty hashes."""
    for key in range(20):
        rng = np.random.default_rng(key)
        seeds = [sampler_questions.far_seeds(2**64 - 1, (-2, -1), rng) for _ in range(3)]
        assert any(len({hashlib.sha256(f"{key} {s}".encode()).digest()[:2] for s in of}) < len(of) for of in seeds)
