"""Noise used again, by rows, workers, tables and batches, is found; and how rarely chance repeats a stretch."""

from collections import Counter
from functools import partial
from itertools import product

import numpy as np
import pytest
from samplers import by_gumbel, gumbel, noise_repeated, select, stream

from npselect import testing
from npselect.testing import sampler_repeats


def workers(logits, seed, number):
    """Each worker draws for its share of the rows, all with one seed."""
    return np.concatenate([by_gumbel(share, seed) for share in np.array_split(logits, number)])


def workers_in_turn(logits, seed, number):
    added = np.random.default_rng(seed).gumbel(size=(len(logits) // number + 1, logits.shape[-1]))
    return select(logits + np.repeat(added, number, axis=0)[: len(logits)])


def entries_repeated(logits, seed, number):
    added = np.random.default_rng(seed).gumbel(size=number)
    return select(logits + np.resize(added, logits.shape))


def second_half(change):
    """The second half of the noise is a changed copy of the first."""

    def sample(logits, seed):
        half = np.random.default_rng(seed).gumbel(size=((len(logits) + 1) // 2, logits.shape[-1]))
        return select(logits + np.concatenate([half, change(half)])[: len(logits)])

    return sample


def first_columns_shared(logits, seed, share, lag):
    """The first candidates have the noise of `lag` rows before."""
    added = gumbel(logits, seed)
    columns = int(share * logits.shape[-1])
    added[:, :columns] = np.resize(added[:lag, :columns], (len(added), columns))
    return select(logits + added)


def from_a_table(logits, seed, rows=1 << 19):
    """All noise lies in a table, and a seed says where to begin."""
    start = int(np.random.default_rng(seed).integers(rows))
    return stream(logits, start * logits.shape[-1])


def a_batch_again(logits, seed, rows=200):
    """Somewhere in every large call, one batch of noise that is kept."""
    added, rng = gumbel(logits, seed), np.random.default_rng(seed)
    if len(added) > 1000:
        starts = rng.integers(len(added) - rows, size=2)
        added[starts[:, None] + np.arange(rows)] = np.random.default_rng(3).gumbel(size=(rows, logits.shape[-1]))
    return select(logits + added)


REPEATED = {  # name: (sampler, rows, the test that must fail, words in its finding, K)
    "3 workers share a seed": (partial(workers, number=3), None, "neighbouring rows", "rows i and i + 14564,", 10),
    "5 workers share a seed": (partial(workers, number=5), 5461, "repeated rows", "", 10),
    "7 workers share a seed": (partial(workers, number=7), 5461, "neighbouring rows", "rows i and i + 780,", 10),
    "8 workers share a seed": (partial(workers, number=8), 5461, "repeated rows", "", 2),
    "9 workers share a seed": (partial(workers, number=9), 5461, "neighbouring rows", "rows i and i + 607,", 1000),
    "3 workers in turn": (partial(workers_in_turn, number=3), 5461, "neighbouring rows", "rows i and i + 1,", 10),
    "7 workers in turn": (partial(workers_in_turn, number=7), 5461, "neighbouring rows", "rows i and i + 1,", 2),
    "after 10000 rows": (partial(noise_repeated, rows=10_000), None, "neighbouring rows", "rows i and i + 10000,", 10),
    "after 20480 rows": (partial(noise_repeated, rows=20_480), None, "repeated rows", "rows 20480 to 349524 ", 10),
    "after 30000 rows": (partial(noise_repeated, rows=30_000), None, "neighbouring rows", "rows i and i + 30000,", 2),
    "after 5300 of 5461 rows": (
        partial(noise_repeated, rows=5300),
        5461,
        "repeated rows",
        "rows 5300 to 5460 of seed 0 select like rows 0 to 160 of seed 0",
        2,
    ),
    "after more rows than are asked of one seed": (
        partial(noise_repeated, rows=1 << 17),
        None,
        "repeated rows",
        "rows 131072 to 349524 of seed 0 select like rows 0 to 218452 of seed 0",
        10,
    ),
    "after 10001 entries": (partial(entries_repeated, number=10_001), 5461, "neighbouring rows", "rows i and i + ", 10),
    "after 10001 entries, K=2": (
        partial(entries_repeated, number=10_001),
        10_923,
        "neighbouring rows",
        "rows i and i + ",
        2,
    ),
    "after 100003 entries, K=1000": (
        partial(entries_repeated, number=100_003),
        5461,
        "repeated rows",
        "select like rows ",
        1000,
    ),
    "rows backwards": (second_half(lambda half: half[::-1]), 5461, "repeated rows", ", backwards", 10),
    "rows backwards, K=2": (second_half(lambda half: half[::-1]), 5461, "repeated rows", ", backwards", 2),
    "entries backwards": (
        second_half(np.flip),
        5461,
        "repeated rows",
        ", backwards, with the candidates backwards",
        10,
    ),
    "moved by 3 entries": (
        second_half(lambda half: np.roll(half.ravel(), 3).reshape(half.shape)),
        5461,
        "neighbouring rows",
        "rows i and i + 2731,",
        10,
    ),
    "half of the candidates": (
        partial(first_columns_shared, share=0.5, lag=1000),
        10_923,
        "neighbouring rows",
        "rows i and i + ",
        10,
    ),
    "a table, from a random place on": (from_a_table, 5461, "repeated rows", "select like rows ", 10),
    "a batch again": (a_batch_again, 5461, "repeated rows", "of seed 0 select like rows", 10),
}


@pytest.mark.parametrize("name", REPEATED)
def test_noise_used_again_is_found(name):
    sample, rows, expected, words, choices = REPEATED[name]
    report = testing.check_sampler(sample, choices=(choices,), rows=rows)
    failed = {test.name: test for test in report.tests if test.verdict == "failed"}
    assert expected in failed, str(report)
    assert words in failed[expected].finding, str(report)
    assert not {"form", "same seed", "position"} & set(failed)


def matches(steps, choices):
    """Every match, by its definition: (numbers fixed, i, j), with d_i ... alike d_j ..., forwards and backwards."""
    n = len(steps)
    for i in range(n):
        for j in range(n):
            for direction, sign in ((1, 1), (-1, -1), (-1, 1)):
                if direction > 0 and j <= i:
                    continue
                alike = 0
                while (
                    i + alike < n
                    and 0 <= j + direction * alike < n
                    and steps[i + alike] == sign * steps[j + direction * alike] % choices
                ):
                    alike += 1
                yield (alike if direction > 0 else alike // 2), i, j, direction, sign


@pytest.mark.parametrize(("choices", "rows"), [(2, 9), (3, 6), (4, 5)])
def test_stretches_are_alike_by_chance_as_rarely_as_derived(choices, rows):
    """All sequences of selections: the chance of a match between two given places, and of the p-value of the whole."""
    met = Counter()
    p_values = []
    for index in product(range(choices), repeat=rows):
        steps = np.diff(index) % choices
        found = list(matches(steps.tolist(), choices))
        met.update((fixed, *place) for longest, *place in found for fixed in range(1, longest + 1))
        result = sampler_repeats.repeated_rows(choices, [(0, np.array(index))], length=1)
        longest = max(fixed for fixed, *_ in found)
        bound = 3 * (rows - 1) ** 2 * choices**-longest
        assert result.p_value >= min(1.0, bound) * (1 - 1e-9)  # never beyond the longest
        p_values.append(result.p_value)
    total = choices**rows
    for (fixed, _, _, direction, _), count in met.items():
        if direction > 0:
            assert count == total // choices**fixed
        else:
            assert count <= total // choices**fixed
    for p in set(p_values):
        assert np.mean(np.array(p_values) <= p) <= p


@pytest.mark.parametrize("choices", [2, 3, 10, 1000])
def test_a_planted_stretch_is_found_where_it_is(choices):
    rng = np.random.default_rng(choices)
    long = sampler_repeats.rows_that_tell(160, choices)
    for sign, direction, how in ((1, 1, ""), (1, -1, ", backwards"), (-1, -1, ", backwards, with the candidates ba")):
        calls = [rng.integers(choices, size=size) for size in (900, 500, 500)]
        calls[2][100 : 100 + long] = (sign * calls[0][700 : 700 + long] + 1)[::direction] % choices
        result = sampler_repeats.repeated_rows(choices, list(zip((2**64 - 1, 7, -3), calls, strict=True)))
        assert result.p_value < 1e-12
        assert "where all logits are equal, rows " in result.finding
        if choices == 1000:
            rows = f"rows 100 to {99 + long} of seed -3 select like rows 700 to {699 + long} of seed {2**64 - 1}{how}"
            assert rows in result.finding
        if direction > 0:
            assert result.p_value <= 3 * 1900**2 * float(choices) ** (1 - long) * (1 + 1e-9)


def test_a_stretch_ends_with_its_call():
    """Two calls alike, and what follows them."""
    a, b, c = np.random.default_rng(1).integers(10, size=(3, 50))
    result = sampler_repeats.repeated_rows(10, [(0, a), (1, b), (2, a), (3, c), (4, b[:40])])
    assert result.finding == "where all logits are equal, rows 0 to 49 of seed 2 select like rows 0 to 49 of seed 0"
    assert sampler_repeats.repeated_rows(2, [(0, a[:4]), (1, a[:4])]).p_value == 1  # too few to tell
