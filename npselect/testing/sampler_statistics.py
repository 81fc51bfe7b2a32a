"""The statistics of a sampler's check: each test of one K, with a p-value that can be trusted however small it is.

A verdict on random numbers is a p-value, and at 1e-9, where many tests at once push it, the usual chi-square is wrong
by orders of magnitude unless every cell is full. Nothing here is asymptotic: for an honest sampler every number that is
compared has a known distribution, or a proven bound of its tail, however few samples there are:

- A row's selected index i, of probability ``p_i``, becomes the number ``V = p_0 + ... + p_(i-1) + U p_i``, with a
  uniform U drawn here. V is uniform on (0, 1) for any logits (Dunn and Smyth, "Randomized quantile residuals", 1996),
  so samples of different logits can be counted together; a *fifth* is which of five equal parts V lies in. The
  candidates are taken in the order of their index and, again, of their probability.
- Let a and b be the fifths of two rows. If the rows are independent, ``b + m a (mod 5)`` is uniform for every m, and
  these numbers are independent of each other along the rows ``i, i + lag, i + 2 lag, ...``, because they and the first
  row's fifth determine all the fifths: no pair need be left out for overlapping another. Five being a prime, m = 1 to 4
  see every dependence of two fifths and, to first order, nothing else: wrong frequencies change them by a product of
  two errors. So the counts at a lag are binomial for every lag, and all lags are counted at once, as correlations of
  the fifths' indicators, by the fast Fourier transform: whole numbers, which its rounding, some 1e-14 of the number of
  samples, cannot hide.
- How often a candidate is selected over different logits is a sum of unequal trials. Beyond 1 from its mean its tails
  are below those of the binomial distribution with the mean of the probabilities (Hoeffding, "On the distribution of
  the number of successes in independent trials", 1956, theorem 4).
- The sum of the selected logits is judged by Chernoff's bound (1952), ``E exp(c (sum - mean)) / exp(c (seen - mean))``
  for the best c, with the exact expectation. A temperature that is not 1 shows here before it shows anywhere else.
- All the counts ``x_1, x_2, ...`` of one logits vector together: given the ones before it, ``x_j`` is binomial with
  probability ``p_j / (p_j + p_(j+1) + ...)``. A uniform number between neighbouring values makes its p-value uniform,
  hence ``-2 ln p`` chi-square with 2 degrees of freedom, and the sum over all j and all logits exactly chi-square
  (Fisher's method). Candidates are put together until 10 samples are expected: that is for power, not for validity.

A test's smallest p-value is multiplied by the number of its comparisons, then by the number of tests (Bonferroni).
Where the comparisons are at many lags, those at a lag l have a share of the false alarms in proportion to
``1 / (1 + |l|)`` instead of equal shares, since faults at small lags are the likelier ones: the p-value is multiplied
by the inverse of its share. The shares add up to 1, so an honest sampler has a result below x with probability x at
most, as before. Tails that no comparison can decide by are not computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from npselect.testing.aliases import Array
from npselect.testing.sampler_report import SamplerTest

__all__ = [
    "Question",
    "all_frequencies",
    "binomial",
    "each_frequency",
    "judged",
    "mean_logit",
    "other_seed",
    "same_seed",
]

_TOGETHER = 10.0  # expected samples of the candidates that are counted together


class Question(NamedTuple):
    """What a sampler is asked for one K."""

    logits: Array  # (vectors, K), of the dtype under test
    probs: Array  # (vectors, K), exact
    vector: Array  # (rows,): which of the vectors a row holds

    @property
    def choices(self) -> int:
        """K."""
        return int(self.logits.shape[-1])


def same_seed(choices: int, index: Array, again: Array, seed: int) -> SamplerTest:
    """Whether a seed gives the same sample again."""
    differ = int(np.sum(index != again))
    finding = f"seed {seed}, given a second time, selects otherwise in {differ} of {len(index)} rows"
    verdict = "failed" if differ else "passed"
    return SamplerTest("same seed", choices, verdict, len(index), None, finding if differ else None)


def other_seed(name: str, question: Question, index: Array, seeds: Sequence[int]) -> SamplerTest:
    """Whether two seeds select the same in all rows, or a row selects the same for all seeds; rarely by chance."""
    rows, pairs = len(question.vector), len(seeds) * (len(seeds) - 1) // 2
    log_p, finding = 0.0, None
    stuck = np.flatnonzero(np.all(index == index[0], axis=0))
    if stuck.size:
        top = np.max(question.probs, axis=-1, keepdims=True)
        power = np.sum((question.probs / top) ** len(seeds), axis=-1)
        chance = (np.log(power) + len(seeds) * np.log(top[:, 0]))[question.vector[stuck]]
        row = stuck[np.argmin(chance)]
        log_p = float(np.min(chance))
        finding = f"row {row} selects candidate {index[0, row]} for each of {len(seeds)} seeds"
    ordered = sorted((selected.tobytes(), seed) for seed, selected in zip(seeds, index, strict=True))
    same = [(b - a, a, b) for (x, a), (y, b) in pairwise(ordered) if x == y]
    if same:
        _, a, b = min(same)
        log_p = float(np.sum(np.log(np.sum(question.probs**2, axis=-1))[question.vector]))
        finding = (
            f"seeds {a} and {b} select the same in all of {rows} rows; of {len(seeds)} seeds, "
            f"{len(seeds) - len(same)} select differently"
        )
        if b >= 2**31:
            finding += "; if it is not meant to take seeds as large, say so by max_seed="
    p_value = min(1.0, (rows + pairs) * float(np.exp(log_p)))
    return SamplerTest(name, question.choices, "", rows + pairs, p_value, finding)


def each_frequency(question: Question, counts: Array) -> SamplerTest:
    """Each candidate of each logits vector, and each candidate over all of them."""
    vectors, k = counts.shape
    n = np.sum(counts, axis=-1, keepdims=True)
    mean = np.sum(n * question.probs, axis=0, keepdims=True)
    total = np.broadcast_to(np.sum(n), (1, k))
    count = np.concatenate([counts, np.sum(counts, axis=0, keepdims=True)])
    n = np.concatenate([np.broadcast_to(n, counts.shape), total])
    p = np.minimum(np.concatenate([question.probs, mean / total]), 1.0)

    def where(at: tuple[int, ...]) -> str:
        of = "over all logits" if at[0] == vectors else f"of logits {_brief(question.logits[at[0]])}"
        return f"candidate {at[1]} {of} is selected"

    mixed = np.arange(vectors + 1)[:, None] == vectors
    return binomial("each frequency", k, count, n, p, where, mixed)


def mean_logit(question: Question, counts: Array) -> SamplerTest:
    """The sum of the selected logits, and the factor on all logits that would explain it."""
    p, n = question.probs, np.sum(counts, axis=-1)
    w = np.where(p > 0, question.logits.astype(np.float64), 0.0)
    w = np.where(p > 0, w - np.sum(p * w, axis=-1, keepdims=True), 0.0)
    total = float(np.sum(counts * w))

    low, high = 1 / 8, 8.0
    for _ in range(40):
        factor = (low * high) ** 0.5
        e = p * np.exp((factor - 1) * w)
        enough = n @ (np.sum(e * w, axis=-1) / np.sum(e, axis=-1)) >= total
        low, high = (low, factor) if enough else (factor, high)
    log_tail = float(n @ np.log(np.sum(e, axis=-1))) - (factor - 1) * total
    limit = " or more" if factor > 7.99 else " or less" if factor < 1 / 7.99 else ""
    finding = (
        f"the selected logits differ from the expected ones by {total / np.sum(n):.3g} on average, as though all "
        f"logits were multiplied by {factor:.3g}{limit}"
    )
    return SamplerTest("mean logit", question.choices, "", 1, min(1.0, 2 * float(np.exp(log_tail))), finding)


def all_frequencies(question: Question, counts: Array, rng: np.random.Generator) -> SamplerTest:
    """The sum of ``-2 ln p`` over the conditional counts of all logits vectors."""
    from scipy import stats  # type: ignore[import-untyped]

    def fisher(log: Array) -> float:
        return float(stats.chi2.sf(np.sum(log), 2 * len(log))) if len(log) else 1.0

    logs = [_conditional(x, p, rng) for x, p in zip(counts, question.probs, strict=True)]
    together = np.concatenate(logs)
    m, worst = len(together), int(np.argmin([fisher(log) for log in logs]))
    finding = (
        f"-2 ln p of {m} counts, each given the ones before it, is {np.sum(together):.1f} together, "
        f"expected {2 * m}; most of all with logits {_brief(question.logits[worst])}"
    )
    return SamplerTest("all frequencies", question.choices, "", m, fisher(together), finding)


def _conditional(count: Array, p: Array, rng: np.random.Generator) -> Array:
    """``-2 ln p`` of each count given the counts before it, the most probable candidates first."""
    from scipy import stats

    n = np.sum(count)
    order = np.argsort(-p, kind="stable")
    _, part = np.unique(np.floor(np.cumsum(n * p[order]) / _TOGETHER), return_inverse=True)
    x = np.bincount(part, count[order])
    q = np.bincount(part, p[order])
    left = np.cumsum(x[::-1])[::-1][:-1]
    given = np.minimum(q[:-1] / np.cumsum(q[::-1])[::-1][:-1], 1.0)
    x = x[:-1]
    within, u = stats.binom.pmf(x, left, given), rng.random(len(x))
    lower = stats.binom.cdf(x - 1, left, given) + u * within
    upper = stats.binom.sf(x, left, given) + (1 - u) * within
    return np.asarray(-2 * np.log(np.clip(2 * np.minimum(lower, upper), 1e-300, 1.0)))


def binomial(
    name: str,
    choices: int,
    count: Array,
    n: Array,
    p: Array,
    where: Callable[[tuple[int, ...]], str],
    mixed: Array | bool = False,
    inverse_share: Array | None = None,
) -> SamplerTest:
    """Counts, each by the tails of its binomial distribution; of mixed ones `p` is the mean of unequal trials.

    Most tails need not be computed: Chernoff's bound of a tail is ``exp(-n D)``, where the relative entropy D of
    ``count / n`` to p is at most ``(count - n p)**2 / (n**2 p (1 - p))``.
    """
    from scipy import special, stats

    inverse = np.asarray(count.size if inverse_share is None else inverse_share, np.float64)
    most, variance = count - n * p, n * p * (1 - p)
    np.square(most, out=most)
    most /= np.maximum(variance, np.finfo(np.float64).tiny, out=variance)
    most -= np.log(inverse)
    top = np.unravel_index(np.argmax(most), count.shape)
    q, of = count[top] / n[top], p[top]
    entropy = n[top] * (special.rel_entr(q, of) + special.rel_entr(1 - q, 1 - of))
    far = np.nonzero(most >= entropy - np.log(np.broadcast_to(inverse, count.shape)[top]))

    x, n, p, inverse, mixed = (np.broadcast_to(v, count.shape)[far] for v in (count, n, p, inverse, mixed))
    mean = n * p
    tail = np.where(x < mean, stats.binom.cdf(x, n, p), stats.binom.sf(x - 1, n, p))
    p_values = np.where(mixed & (np.abs(x - mean) < 1), 1.0, 2 * tail * inverse)
    worst = int(np.argmin(p_values))
    found = where(tuple(int(i[worst]) for i in far))
    finding = f"{found} {x[worst]:.0f} times in {n[worst]:.0f}, expected {mean[worst]:.1f}"
    return SamplerTest(name, choices, "", count.size, min(1.0, float(p_values[worst])), finding)


def judged(result: SamplerTest, tests: int, false_alarm: float) -> SamplerTest:
    """With the p-value corrected for the number of tests, and the verdict that follows."""
    if result.p_value is None:
        return result
    p_value = min(1.0, tests * result.p_value)
    if p_value < false_alarm:
        return replace(result, p_value=p_value, verdict="failed")
    return replace(result, p_value=p_value, verdict="passed", finding=None)


def _brief(logits: Array) -> str:
    """The first few of a vector."""
    shown = ", ".join(f"{float(w):.3g}" for w in logits[:4])
    return f"[{shown}{', ...' if len(logits) > 4 else ''}]"
