"""Faults of samplers are rejected, each by its test."""

from functools import partial

import ml_dtypes
import numpy as np
import pytest
from samplers import by_gumbel, by_inverse, gumbel, noise_of_one_row, noise_repeated, scaled, select, softmax, stream

from npselect import testing


def noise_halved(logits, seed):
    return noise_repeated(logits, seed, (len(logits) + 1) // 2)


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


@pytest.mark.parametrize("seed", [0, 7000])
def test_noise_added_in_bfloat16_is_found_by_default(seed):
    def biased(logits, seed):
        noise = np.random.default_rng(seed).gumbel(size=logits.shape).astype(ml_dtypes.bfloat16)
        index = np.argmax(logits.astype(ml_dtypes.bfloat16) + noise, axis=-1)
        return np.arange(logits.shape[-1]) == index[:, None]

    report = testing.check_sampler(biased, seed=seed, choices=(2, 10))
    assert "each frequency" in {test.name for test in report.tests if test.verdict == "failed"}
