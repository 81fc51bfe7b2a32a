"""Samplers tested as samplers: honest ones pass, at the stated rate; faults are rejected, each by its test."""

import hashlib
import json
import re
import subprocess
import sys
import zlib
from collections import Counter
from dataclasses import FrozenInstanceError
from functools import partial
from itertools import combinations, product
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from scipy import stats

from npselect import gumbel_softmax, noise, testing
from npselect.testing import sampler, sampler_repeats, sampler_statistics

ROOT = Path(__file__).parents[2]
TESTS = [
    "form",
    "same seed",
    "other seed",
    "each frequency",
    "mean logit",
    "all frequencies",
    "neighbouring rows",
    "neighbouring seeds",
    "position",
    "far seeds",
    "repeated rows",
]


def one_hot(index, choices):
    return (np.arange(choices) == index[:, None]).astype(np.float32)


def select(w):
    return one_hot(np.argmax(w, axis=-1), w.shape[-1])


def gumbel(logits, seed):
    return np.random.default_rng(seed).gumbel(size=logits.shape)


def softmax(logits):
    e = np.exp(logits.astype(np.float64) - np.max(logits, axis=-1, keepdims=True).astype(np.float64))
    return e / np.sum(e, axis=-1, keepdims=True)


# ------------------------------------------------------------------------------------------------ honest samplers


def by_gumbel(logits, seed):
    return select(logits + gumbel(logits, seed))


def by_gumbel_float32(logits, seed):
    u = np.random.default_rng(seed).random(logits.shape, dtype=np.float32)
    with np.errstate(divide="ignore"):
        return select(logits.astype(np.float32) - np.log(-np.log(u)))


def by_inverse(logits, seed, u=None):
    below = np.cumsum(softmax(logits), axis=-1)
    u = np.random.default_rng(seed).random(len(logits)) if u is None else u
    return one_hot(np.sum(below <= u[:, None] * below[:, -1:], axis=-1), logits.shape[-1])


def by_multinomial(logits, seed):
    return np.random.default_rng(seed).multinomial(1, softmax(logits))


def by_exponential_race(logits, seed):
    times = np.random.default_rng(seed).exponential(size=logits.shape)
    return select(softmax(logits) / times)


def at_a_temperature(logits, seed):
    return select((logits + gumbel(logits, seed)) / 0.1)


def straight_through_idiom(logits, seed):
    probs = softmax(logits + gumbel(logits, seed)).astype(np.float32)
    return probs + (select(probs) - probs)


def by_old_generator(logits, seed):
    return select(logits + np.random.RandomState(seed).gumbel(size=logits.shape))


def in_place(logits, seed):
    logits += gumbel(logits, seed).astype(logits.dtype)
    return select(logits)


HONEST = [
    by_gumbel,
    by_gumbel_float32,
    by_inverse,
    by_multinomial,
    by_exponential_race,
    at_a_temperature,
    straight_through_idiom,
    by_old_generator,
    in_place,
]


@pytest.mark.parametrize("sample", HONEST)
def test_honest_is_accepted(sample):
    report = testing.check_sampler(sample, choices=(2, 10, 100), rows=4099)
    assert report.ok, str(report)
    assert [test.name for test in report.tests] == 3 * TESTS


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_honest_is_accepted_in_every_dtype_at_full_size(dtype):
    seen = set()

    def sample(logits, seed):
        seen.add((logits.dtype.name, logits.shape, type(seed)))
        return by_gumbel(logits.astype(np.float32), seed)

    choices = (2, 10, 1000) if dtype == "float32" else (2, 10)
    report = testing.check_sampler(sample, dtype=dtype, choices=choices)
    assert report.ok, str(report)
    sizes = {(43691, 2), (43691, 10), (5461, 1000)}
    assert {shape for _, shape, _ in seen} >= {size for size in sizes if size[1] in choices}
    assert {(name, kind) for name, _, kind in seen} == {(dtype, int)}


@pytest.mark.parametrize("form", [bool, np.int8, np.float16, ml_dtypes.bfloat16, np.float64, np.ndarray.tolist])
def test_any_form_of_a_one_hot(form):
    def sample(logits, seed):
        mask = by_gumbel(logits, seed)
        return form(mask) if callable(form) and not isinstance(form, type) else mask.astype(form)

    report = testing.check_sampler(sample, choices=(3,), rows=257)
    assert report.ok, str(report)


@pytest.mark.parametrize(("dtype", "choices"), [("float32", (2, 10, 1000)), ("float64", (2, 10))])
def test_gumbel_softmax_is_a_sampler(dtype, choices):
    report = testing.check_sampler(
        lambda logits, seed: gumbel_softmax.forward(logits, seed=seed), dtype=dtype, choices=choices
    )
    assert report.ok, str(report)


# ------------------------------------------------------------------------------------------------ false alarms


def alarms(sample, runs, first=0, **options):
    """How many checks of an honest sampler fail, and the p-values of all."""
    options = {"choices": (2, 10), "vectors": 8, "rows": 129, "seeds": 5, "false_alarm": 0.05, **options}
    reports = [testing.check_sampler(sample, seed=first + 1000 * run, **options) for run in range(runs)]
    p_values = np.array([[test.p_value or 1.0 for test in report.tests] for report in reports])
    return sum(not report.ok for report in reports), p_values


@pytest.mark.parametrize("sample", [by_gumbel, by_inverse])
def test_an_honest_sampler_fails_as_rarely_as_stated(sample, monkeypatch):
    monkeypatch.setattr("npselect.testing.sampler_questions._FAR_SEEDS", 16)
    failed, p_values = alarms(sample, 120)
    assert stats.binom.sf(failed - 1, 120, 0.05) > 1e-3, failed
    assert np.mean(p_values < 0.5) > 1e-3  # p-values that are always 1 would pass as well


@pytest.mark.slow
def test_lags_and_far_seeds_alone_fail_an_honest_sampler_as_rarely_as_stated(monkeypatch):
    """So few bits of a stretch and of a call that chance decides; the whole false alarm on these tests, and each."""
    monkeypatch.setattr("npselect.testing.sampler._TOLD", 20)
    monkeypatch.setattr("npselect.testing.sampler_repeats._BITS", 12)
    runs = 150
    failed, p_values = alarms(by_inverse, runs, first=2 * 10**6, choices=(2,), rows=300, seeds=3)
    assert stats.binom.sf(failed - 1, runs, 0.05) > 1e-3, failed
    seen = dict(zip(TESTS, p_values.T, strict=True))
    for name in ("neighbouring rows", "neighbouring seeds", "far seeds", "repeated rows"):
        for level in (0.05, 0.3):
            below = int(np.sum(seen[name] < level))
            assert stats.binom.sf(below - 1, runs, level / 9) > 1e-3, (name, level, below)


def test_conditional_p_values_are_uniform_however_few_samples_there_are():
    rng = np.random.default_rng(1)
    p = softmax(rng.standard_normal((1, 40)))[0]
    for n in (1, 20, 1000):
        logs = np.concatenate([sampler_statistics._conditional(rng.multinomial(n, p), p, rng) for _ in range(1000)])
        if n >= 20:
            assert stats.kstest(np.exp(-logs / 2), "uniform").pvalue > 1e-3


def test_tails_over_different_logits_are_bounded_by_the_binomial():
    """Hoeffding 1956, theorem 4, on which `_each_frequency` rests, by the exact distribution of the sum."""
    rng = np.random.default_rng(2)
    for _ in range(20):
        p = rng.random(30) ** rng.integers(1, 6)
        exact = np.ones(1)
        for q in p:
            exact = np.convolve(exact, [1 - q, q])
        k, mean = np.arange(31), np.sum(p)
        below, above = stats.binom.cdf(k, 30, mean / 30), stats.binom.sf(k - 1, 30, mean / 30)
        assert np.all(np.cumsum(exact)[k <= mean - 1] <= below[k <= mean - 1] * (1 + 1e-9))
        assert np.all(np.cumsum(exact[::-1])[::-1][k >= mean + 1] <= above[k >= mean + 1] * (1 + 1e-9))


def test_binomial_tails_hold_their_digits_far_out():
    """Values by mpmath: the sum of binomial(n, j) p**j (1 - p)**(n - j) over j, with 60 digits."""
    import mpmath

    def tail(js, n, p):
        with mpmath.workdps(60):
            p = mpmath.mpf(p)
            return float(mpmath.fsum(mpmath.binomial(n, j) * p**j * (1 - p) ** (n - j) for j in js))

    for count, n, p in [
        (20, 10_000, 1e-4),
        (0, 30_000, 1e-3),
        (2300, 10_000, 0.2),
        (1700, 10_000, 0.2),
        (1, 10, 1e-12),
    ]:
        above = count > n * p
        exact = tail(range(count, min(n, count + 2000) + 1) if above else range(count + 1), n, p)
        result = sampler_statistics._counted("", 2, np.array([count]), np.array([n]), np.array([p]), lambda at: "")
        assert result.p_value == pytest.approx(2 * exact, rel=1e-9)


def test_fifths_determine_each_other():
    """``b + m a`` along a chain of rows takes all sequences equally often: independent and uniform like the fifths."""
    fifths = np.stack(np.meshgrid(*[np.arange(5)] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    for m in range(1, 5):
        steps = (fifths[:, 1:] + m * fifths[:, :-1]) % 5
        _, count = np.unique(steps, axis=0, return_counts=True)
        assert count.tolist() == [5] * 125


# ------------------------------------------------------------------------------------------------ planted faults


def noise_of_one_row(logits, seed):
    return select(logits + np.random.default_rng(seed).gumbel(size=logits.shape[-1]))


def noise_repeated(logits, seed, rows):
    added = np.random.default_rng(seed).gumbel(size=(min(rows, len(logits)), logits.shape[-1]))
    return select(logits + np.resize(added, logits.shape))


def noise_halved(logits, seed):
    return noise_repeated(logits, seed, (len(logits) + 1) // 2)


def stream(logits, start, stride=None):
    """One stream for all seeds, beginning at `start`; a row takes its noise `stride` after the row before it."""
    rows, choices = logits.shape
    stride = choices if stride is None else stride
    drawn = noise.gumbel(stride * rows + choices, 5, offset=start, dtype=np.float64)
    return select(logits + np.lib.stride_tricks.sliding_window_view(drawn, choices)[: stride * rows : stride])


def overlapping_rows(logits, seed):
    rows, choices = logits.shape
    noise = np.random.default_rng(seed).gumbel(size=rows + choices)
    return select(logits + np.lib.stride_tricks.sliding_window_view(noise, choices)[:rows])


def antithetic(logits, seed):
    u = np.random.default_rng(seed).random(((len(logits) + 1) // 2, logits.shape[-1]))
    u = np.stack([u, 1 - u], axis=1).reshape(-1, logits.shape[-1])[: len(logits)]
    return select(logits - np.log(-np.log(u)))


def inverse_in_pairs(logits, seed):
    u = np.random.default_rng(seed).random(len(logits))
    return by_inverse(logits, seed, u=u[np.arange(len(u)) // 2 * 2])


def a_row_in_ten_repeats(logits, seed):
    noise = gumbel(logits, seed)
    noise[1::10] = noise[:-1:10]
    return select(logits + noise)


def normal(logits, seed, scale=1.0):
    return select(logits + scale * np.random.default_rng(seed).standard_normal(logits.shape))


def uniform(logits, seed):
    return select(logits + np.random.default_rng(seed).random(logits.shape))


def few_bits_of_noise(logits, seed):
    return select(np.round(4 * (logits + gumbel(logits, seed))))


def few_bits_of_u(logits, seed):
    u = (np.floor(256 * np.random.default_rng(seed).random(logits.shape)) + 0.5) / 256
    return select(logits - np.log(-np.log(u)))


def noise_in_bfloat16(logits, seed):
    return select(logits.astype(ml_dtypes.bfloat16) + gumbel(logits, seed).astype(ml_dtypes.bfloat16))


def no_last(logits, seed):
    noise = gumbel(logits, seed)
    noise[np.isfinite(logits[:, :-1]).any(axis=-1), -1] = -np.inf
    return select(logits + noise)


def no_tail(logits, seed):
    """Candidates beyond the last full block of 8 are not looked at."""
    noise = gumbel(logits, seed)
    whole = logits.shape[-1] // 8 * 8
    noise[np.isfinite(logits[:, :whole]).any(axis=-1), whole:] = -np.inf
    return select(logits + noise)


def last_block_without_noise(logits, seed):
    noise = gumbel(logits, seed)
    noise[len(logits) // 128 * 128 :] = 0
    return select(logits + noise)


def one_row_stuck(logits, seed):
    mask = by_gumbel(logits, seed)
    mask[700:701] = select(logits[700:701])
    return mask


def neighbours_logits(logits, seed):
    return by_gumbel(np.roll(logits, 1, axis=0), seed)


def global_state(logits, seed):
    return select(logits + _global.gumbel(size=logits.shape))


_global = np.random.default_rng(7)


def softmax_over_rows(logits, seed):
    return by_inverse(np.log(np.maximum(softmax(logits.T).T, 1e-300)), seed)


def softmax_twice(logits, seed):
    return by_gumbel(np.where(np.isneginf(logits), -np.inf, softmax(logits)), seed)


def minus_inf_as_zero(logits, seed):
    return by_gumbel(np.where(np.isneginf(logits), 0, logits), seed)


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


def changed(change):
    def sample(logits, seed):
        mask = by_gumbel(logits, seed)
        change(mask)
        return mask

    return sample


def two_ones(mask):
    mask[5] = 1


def no_ones(mask):
    mask[7] = 0


def nan_row(mask):
    mask[9] = np.nan


def halves(mask):
    mask[11] /= 2


def minus_ones(mask):
    mask[3] *= -1


FAULTS = {  # name: (sampler, the test that must fail, words in its finding, K)
    "noise of one row for all": (noise_of_one_row, "neighbouring rows", "rows i and i + ", (10,)),
    "noise repeats after 64 rows": (partial(noise_repeated, rows=64), "neighbouring rows", "rows i and i + ", (10,)),
    "noise of one half for both": (noise_halved, "neighbouring rows", "rows i and i + 5462", (10,)),
    "noise of a row overlaps the next": (overlapping_rows, "neighbouring rows", "rows i and i + ", (10,)),
    "the same, K=2": (overlapping_rows, "neighbouring rows", "rows i and i + 1,", (2,)),
    "antithetic neighbours": (antithetic, "neighbouring rows", "rows i and i + 1,", (10,)),
    "the same, K=2 ": (antithetic, "neighbouring rows", "rows i and i + 1,", (2,)),
    "one u for two rows": (inverse_in_pairs, "neighbouring rows", "rows i and i + 1,", (1000,)),
    "one row in ten repeats": (a_row_in_ten_repeats, "neighbouring rows", "rows i and i + 1,", (10,)),
    "the seed is ignored": (lambda w, seed: by_gumbel(w, 3), "other seed", "seeds 0 and 1 select the same", (2,)),
    "the seed is ignored ": (
        lambda w, seed: by_gumbel(w, 3),
        "neighbouring seeds",
        "row i of a seed, row i of the next",
        (2,),
    ),
    "the seed's last bit is ignored": (lambda w, seed: by_gumbel(w, seed // 2), "other seed", "seeds 0 and 1", (2,)),
    "seeds overlap by a row": (
        lambda w, s: stream(w, s * w.shape[-1]),
        "neighbouring seeds",
        "row i-1 of the next",
        (10,),
    ),
    "seeds overlap by a pair": (lambda w, s: stream(w, 2 * s), "neighbouring seeds", "row i of the next", (10,)),
    "seeds overlap by a pair, K=2": (lambda w, s: stream(w, 2 * s), "neighbouring seeds", "row i-1 of the next", (2,)),
    "seeds overlap by a block": (lambda w, s: stream(w, 256 * s), "neighbouring seeds", "row i-128 of the next", (2,)),
    "temp on logits alone": (lambda w, s: by_gumbel(w / 0.9, s), "mean logit", "multiplied by 1.11", (10,)),
    "the same, K=1000": (lambda w, s: by_gumbel(w / 0.9, s), "mean logit", "multiplied by 1.11", (1000,)),
    "temp on noise alone": (lambda w, s: by_gumbel(w * 0.6, s), "mean logit", "multiplied by 0.", (2,)),
    "the sign of the noise": (lambda w, s: select(w - gumbel(w, s)), "all frequencies", "", (10,)),
    "uniform noise": (uniform, "mean logit", "multiplied by", (2,)),
    "normal noise": (normal, "mean logit", "multiplied by", (2,)),
    "normal noise of Gumbel's variance": (partial(normal, scale=np.pi / 6**0.5), "all frequencies", "", (10,)),
    "softmax twice": (lambda w, s: by_inverse(softmax(w), s), "form", "whose logit is -inf", (10,)),
    "softmax twice but for -inf": (softmax_twice, "mean logit", "multiplied by", (10,)),
    "softmax over the rows": (softmax_over_rows, "all frequencies", "", (10,)),
    "logits of the row before": (neighbours_logits, "form", "whose logit is -inf", (10,)),
    "always the argmax": (lambda w, s: select(w), "each frequency", "is selected", (10,)),
    "always the argmax ": (lambda w, s: select(w), "mean logit", "multiplied by 8 or more", (10,)),
    "hardly any logits": (lambda w, s: by_gumbel(w * 0.01, s), "mean logit", "multiplied by 0.125 or less", (10,)),
    "noise rounded": (few_bits_of_noise, "each frequency", "over all logits", (2,)),
    "u of 8 bits": (few_bits_of_u, "all frequencies", "", (1000,)),
    "noise in bfloat16": (noise_in_bfloat16, "each frequency", "", (100,)),
    "last candidate never": (no_last, "each frequency", "candidate 9 ", (10,)),
    "last candidate never, K=1000": (no_last, "each frequency", "candidate 999 over all logits is selected 0", (1000,)),
    "last block of candidates never": (no_tail, "each frequency", "", (1001,)),
    "last block of rows without noise": (last_block_without_noise, "position", "rows 10", (10,)),
    "one row ignores the seed": (one_row_stuck, "other seed", "row 700 selects candidate", (100,)),
    "global state": (global_state, "same seed", "given a second time", (10,)),
    "-inf taken for 0": (minus_inf_as_zero, "form", "whose logit is -inf", (10,)),
    "probabilities": (lambda w, s: softmax(w), "form", "entries that are not 0; expected one", (10,)),
    "two ones": (changed(two_ones), "form", "row 5 has 10 entries that are not 0", (10,)),
    "no ones": (changed(no_ones), "form", "row 7 has 0 entries that are not 0", (10,)),
    "NaN": (changed(nan_row), "form", "row 9 has 10 entries that are not 0", (10,)),
    "0.5": (changed(halves), "form", "row 11 holds 0.5 at candidate", (10,)),
    "-1": (changed(minus_ones), "form", "row 3 holds -1.0 at candidate", (10,)),
    "index": (
        lambda w, s: np.argmax(w, axis=-1),
        "form",
        "returns a ndarray of shape (10923,); expected an array",
        (10,),
    ),
    "objects": (lambda w, s: by_gumbel(w, s).astype(object), "form", "returns dtype object; expected numbers", (10,)),
    "nothing": (lambda w, s: None, "form", "returns a NoneType of shape ()", (10,)),
}
ALONE = {  # faults that no other test can see
    "one row in ten repeats",
    "antithetic neighbours",
    "one row ignores the seed",
    "global state",
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_rejected_by_its_test(name):
    sample, expected, words, choices = FAULTS[name]
    report = testing.check_sampler(sample, choices=choices, rows=None if choices[0] >= 100 else 10_923)
    failed = {test.name: test for test in report.tests if test.verdict == "failed"}
    assert not report.ok
    assert expected in failed, str(report)
    assert words in failed[expected].finding, str(report)
    if name in ALONE or expected == "form":
        assert set(failed) == {expected}, str(report)


def test_softmax_at_a_slightly_wrong_temperature_is_found():
    for choices, factor in ((2, 1.03), (10, 1.02)):
        for wrong in (factor, 1 / factor):
            report = testing.check_sampler(partial(scaled, factor=wrong), choices=(choices,), seed=17)
            (test,) = [test for test in report.tests if test.name == "mean logit"]
            assert test.verdict == "failed", str(report)
            named = float(test.finding.rsplit(" ", 1)[-1])
            assert abs(named - wrong) < 0.01


def scaled(logits, seed, factor):
    return by_gumbel(logits * factor, seed)


def test_a_candidate_that_cannot_be_is_noticed_the_first_time():
    count, n = np.array([[1, 0]]), np.array([[10, 10]])
    test = sampler_statistics._counted(
        "", 2, count, n, np.array([[1e-30, 0.0]]), lambda at: f"candidate {at[1]} is selected"
    )
    assert test.p_value < 1e-27
    assert test.finding == "candidate 0 is selected 1 times in 10, expected 0.0"


# ------------------------------------------------------------------------------------------------ noise used again


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


def test_pairs_at_every_lag():
    fifths = np.random.default_rng(3).integers(5, size=(3, 40)).astype(np.uint8)
    same, following = sampler_statistics.pairs_of(fifths)
    for at, lag in enumerate(range(-39, 40)):
        rows = range(max(0, -lag), min(40, 40 - lag))
        for counts, seeds in ((same, [(0, 0), (1, 1), (2, 2)]), (following, [(0, 1), (1, 2)])):
            seen = Counter(5 * int(fifths[s, i]) + int(fifths[t, i + lag]) for s, t in seeds for i in rows)
            assert counts[:, at].tolist() == [seen[pair] for pair in range(25)]


def test_the_shares_of_all_lags_are_the_whole():
    """A p-value is at most the sum, over all comparisons, of their shares of it."""
    shares = []

    def counted(*arguments):
        shares.append(np.sum(np.broadcast_to(1 / arguments[-1], arguments[2].shape)))
        return original(*arguments)

    tables = {order: np.ones((25, 59)) for order in ("index", "probability")}
    original = sampler_statistics._counted
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampler_statistics, "_counted", counted)
        sampler_statistics.neighbouring_rows(3, tables)
        sampler_statistics.neighbouring_seeds(3, tables)
    assert shares == pytest.approx([1.0, 1.0])


def test_the_tail_that_decides_is_computed():
    """`_counted` leaves out tails by a bound; here all of them are computed."""
    rng = np.random.default_rng(4)
    for n, top in ((10, 1.0), (1000, 0.3), (100_000, 1e-4)):
        p = top * rng.random((40, 50))
        count = rng.binomial(n, p)
        share = np.exp(rng.uniform(5, 12, 50))
        result = sampler_statistics._counted("", 2, count, np.full(p.shape, n), p, str, False, share)
        tail = np.where(count < n * p, stats.binom.cdf(count, n, p), stats.binom.sf(count - 1, n, p))
        assert result.p_value == min(1.0, np.min(2 * tail * share))


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


# ------------------------------------------------------------------------------------------------ seeds


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
    far = sampler._far_seeds(largest, (-2, -1), np.random.default_rng(largest))
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
        seeds = [sampler._far_seeds(2**64 - 1, (-2, -1), rng) for _ in range(3)]
        assert any(len({hashlib.sha256(f"{key} {s}".encode()).digest()[:2] for s in of}) < len(of) for of in seeds)


# ------------------------------------------------------------------------------------------------ the interface


def test_after_a_wrong_form_the_next_choices_are_tested():
    def sample(logits, seed):
        return softmax(logits) if logits.shape[-1] == 3 else by_gumbel(logits, seed)

    report = testing.check_sampler(sample, choices=(3, 4), rows=100)
    verdicts = [test.verdict for test in report.tests]
    assert verdicts == ["failed", *10 * ["not run"], *11 * ["passed"]]
    assert not report.ok
    assert "not run: 10 tests" in str(report)
    assert report.summary[-1] == "FAILED: 1 of 12 tests"


def test_what_the_sampler_is_given():
    seen = []

    def sample(logits, seed):
        assert type(logits) is np.ndarray
        assert logits.flags.writeable
        assert logits.flags.c_contiguous
        seen.append((seed, logits.copy()))
        logits[:] = 1
        return by_gumbel(seen[-1][1], seed)

    report = testing.check_sampler(sample, choices=(5,), vectors=6, rows=61, seeds=3, seed=np.int64(40))
    assert report.ok, str(report)
    assert all(type(seed) is int for seed, _ in seen)
    equal = [(seed, logits) for seed, logits in seen if not np.any(logits)]
    assert [seed for seed, _ in equal[:2]] == [2**64 - 1, -2]  # what does it take?
    assert {logits.shape for _, logits in equal[:-1]} == {(42, 5)}
    assert equal[-1][0] == 40
    assert equal[-1][1].shape == (61, 5)
    seen = [(seed, logits) for seed, logits in seen if np.any(logits)]
    assert [seed for seed, _ in seen] == [40, 41, 42, 40]
    assert all(np.array_equal(logits, seen[0][1]) for _, logits in seen)
    logits = seen[0][1]
    assert logits.shape == (61, 5)
    assert len(np.unique(logits, axis=0)) == 6
    assert np.any(np.isneginf(logits))
    assert np.all(np.isfinite(logits).any(axis=-1))


def test_the_same_check_has_the_same_report():
    options = {"choices": (2, 5), "rows": 300, "seed": 3}
    assert str(testing.check_sampler(by_gumbel, **options)) == str(testing.check_sampler(by_gumbel, **options))
    other = testing.check_sampler(by_gumbel, **{**options, "seed": 4})
    assert [test.p_value for test in other.tests] != [
        test.p_value for test in testing.check_sampler(by_gumbel, **options).tests
    ]


def test_the_smallest_check():
    report = testing.check_sampler(by_gumbel, choices=(2,), vectors=1, rows=16, seeds=2)
    assert report.ok, str(report)
    report = testing.check_sampler(by_gumbel, choices=(1000,), rows=16, seeds=2)
    assert {test.name: test.comparisons for test in report.tests}["all frequencies"] == 0
    assert report.ok, str(report)
    report.to_json()


def test_many_seeds():
    assert testing.check_sampler(by_gumbel, choices=(40,), rows=40, seeds=500).ok
    report = testing.check_sampler(lambda logits, seed: select(logits), choices=(40,), rows=40, seeds=500)
    assert "other seed" in {test.name for test in report.tests if test.verdict == "failed"}


def test_an_error_of_the_sampler_is_the_callers():
    def sample(logits, seed):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        testing.check_sampler(sample, choices=(3,), rows=20, seed=9)
    assert caught.value.__notes__ == ["raised by sample(logits, 9) with logits of shape (20, 3) and dtype float32"]
    with pytest.raises(TypeError, match="positional argument"):
        testing.check_sampler(lambda logits: logits)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"choices": ()}, ValueError, "choices is empty: there is nothing to test"),
        ({"choices": 10}, TypeError, r"choices is 10; it takes a sequence of integers, such as \(10,\)"),
        ({"choices": (1,)}, ValueError, "each of choices is 1; it must be at least 2"),
        ({"choices": (2.5,)}, TypeError, "each of choices is 2.5; it takes an integer"),
        ({"choices": (3, 3)}, ValueError, r"choices is \(3, 3\); each K may be given once"),
        ({"vectors": 0}, ValueError, "vectors is 0; it must be at least 1"),
        ({"rows": 15}, ValueError, "rows is 15; it must be at least 16"),
        ({"rows": 20, "vectors": 30}, ValueError, "rows is 20; it must be at least 30"),
        ({"rows": "all"}, TypeError, "rows is 'all'; it takes an integer"),
        ({"seeds": 1}, ValueError, "seeds is 1; it must be at least 2"),
        ({"seed": -1}, ValueError, "seed is -1; it must be at least 0"),
        ({"max_seed": 14}, ValueError, "max_seed is 14; it must be at least 15"),
        ({"max_seed": 1e9}, TypeError, "max_seed is 1000000000.0; it takes an integer"),
        ({"seed": None}, TypeError, "seed is None; it takes an integer"),
        ({"false_alarm": 0}, ValueError, "false_alarm is 0; it must lie between 0 and 1"),
        ({"false_alarm": 1.0}, ValueError, "false_alarm is 1.0"),
        ({"false_alarm": float("nan")}, ValueError, "false_alarm is nan"),
        ({"false_alarm": "rare"}, TypeError, "false_alarm is 'rare'; it takes a number"),
        ({"dtype": "int32"}, ValueError, "dtype is 'int32'; it takes one of"),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        testing.check_sampler(by_gumbel, **options)


def test_what_is_no_sampler_is_a_type_error():
    with pytest.raises(TypeError, match=r"sample is 3; it takes a function sample\(logits, seed\)"):
        testing.check_sampler(3)


def test_report():
    report = testing.check_sampler(partial(scaled, factor=2), choices=(2, 10), rows=999, seed=5)
    text = str(report)
    assert report.heading[0].endswith("samples 15984 of K=2, 15984 of K=10")
    assert "dtype float32, 16 logits vectors for each K, seeds 5 to 20" in text
    failed = [test for test in report.tests if test.verdict == "failed"]
    assert {"each frequency", "mean logit", "all frequencies"} <= {test.name for test in failed}
    assert all(test.finding in text for test in failed)
    assert all(test.finding is None for test in report.tests if test.verdict == "passed")
    assert "tests that fail together may have one cause" in text
    assert report.summary[-1] == f"FAILED: {len(failed)} of 22 tests"
    assert len({line.index("verdict") for line in report.table[:1]}) == 1
    with pytest.raises(FrozenInstanceError):
        report.seed = 3
    with pytest.raises(FrozenInstanceError):
        report.tests[0].verdict = "passed"


def test_report_as_json():
    def strict(constant):
        raise AssertionError(constant)

    for sample in (by_gumbel, noise_of_one_row, lambda logits, seed: softmax(logits)):
        report = testing.check_sampler(sample, choices=(2, 5), rows=500)
        read = json.loads(report.to_json(), parse_constant=strict)
        assert read["schema"] == "npselect-sampler-report/1"
        assert read["ok"] is report.ok
        assert (read["rows"], read["seeds"], read["false_alarm"]) == ([500, 500], 16, 1e-6)
        assert [test["p_value"] for test in read["tests"]] == [test.p_value for test in report.tests]
        assert [test["finding"] for test in read["tests"]] == [test.finding for test in report.tests]


def test_only_a_check_loads_scipy():
    code = "import sys, npselect.testing; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"scipy", "numba"} & set(loaded.stdout.split())


@pytest.mark.parametrize("seed", [0, 7000])
def test_noise_added_in_bfloat16_is_found_by_default(seed):
    def biased(logits, seed):
        noise = np.random.default_rng(seed).gumbel(size=logits.shape).astype(ml_dtypes.bfloat16)
        index = np.argmax(logits.astype(ml_dtypes.bfloat16) + noise, axis=-1)
        return np.arange(logits.shape[-1]) == index[:, None]

    report = testing.check_sampler(biased, seed=seed, choices=(2, 10))
    assert "each frequency" in {test.name for test in report.tests if test.verdict == "failed"}
