"""The statistics of `check_sampler`: p-values and tails beside exact ones, and their shares of the false alarm."""

from collections import Counter

import numpy as np
import pytest
from samplers import softmax
from scipy import stats

from npselect.testing import sampler_independence, sampler_statistics


def test_conditional_p_values_are_uniform_however_few_samples_there_are():
    rng = np.random.default_rng(1)
    p = softmax(rng.standard_normal((1, 40)))[0]
    for n in (1, 20, 1000):
        logs = np.concatenate([sampler_statistics._conditional(rng.multinomial(n, p), p, rng) for _ in range(1000)])
        if n >= 20:
            assert stats.kstest(np.exp(-logs / 2), "uniform").pvalue > 1e-3


def test_tails_over_different_logits_are_bounded_by_the_binomial():
    """Hoeffding 1956, theorem 4, on which `each_frequency` rests, by the exact distribution of the sum."""
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
        result = sampler_statistics.binomial("", 2, np.array([count]), np.array([n]), np.array([p]), lambda at: "")
        assert result.p_value == pytest.approx(2 * exact, rel=1e-9)


def test_fifths_determine_each_other():
    """``b + m a`` along a chain of rows takes all sequences equally often: independent and uniform like the fifths."""
    fifths = np.stack(np.meshgrid(*[np.arange(5)] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    for m in range(1, 5):
        steps = (fifths[:, 1:] + m * fifths[:, :-1]) % 5
        _, count = np.unique(steps, axis=0, return_counts=True)
        assert count.tolist() == [5] * 125


def test_a_candidate_that_cannot_be_is_noticed_the_first_time():
    count, n = np.array([[1, 0]]), np.array([[10, 10]])
    test = sampler_statistics.binomial(
        "", 2, count, n, np.array([[1e-30, 0.0]]), lambda at: f"candidate {at[1]} is selected"
    )
    assert test.p_value < 1e-27
    assert test.finding == "candidate 0 is selected 1 times in 10, expected 0.0"


def test_pairs_at_every_lag():
    fifths = np.random.default_rng(3).integers(5, size=(3, 40)).astype(np.uint8)
    same, following = sampler_independence.pairs_of(fifths)
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
    original = sampler_statistics.binomial
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampler_independence, "binomial", counted)
        sampler_independence.neighbouring_rows(3, tables)
        sampler_independence.neighbouring_seeds(3, tables)
    assert shares == pytest.approx([1.0, 1.0])


def test_the_tail_that_decides_is_computed():
    """`binomial` leaves out tails by a bound; here all of them are computed."""
    rng = np.random.default_rng(4)
    for n, top in ((10, 1.0), (1000, 0.3), (100_000, 1e-4)):
        p = top * rng.random((40, 50))
        count = rng.binomial(n, p)
        share = np.exp(rng.uniform(5, 12, 50))
        result = sampler_statistics.binomial("", 2, count, np.full(p.shape, n), p, str, False, share)
        tail = np.where(count < n * p, stats.binom.cdf(count, n, p), stats.binom.sf(count - 1, n, p))
        assert result.p_value == min(1.0, np.min(2 * tail * share))
