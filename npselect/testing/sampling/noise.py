r"""The law of the noise, as soft samples tell it.

Let ``X_i = exp(-noise_i)``: of Gumbel noise they are independent and exponential. A soft sample y shows ``temp log
y_i = logits_i + noise_i`` but for a constant of its row, hence the ratios of ``X_i = exp(logits_i - temp log y_i)``,
whatever the logits and the temperature. The shares ``B_i = X_i / sum_j X_j`` have Dirichlet's law with all parameters
1, each of them the law Beta(1, K - 1), K being the number of the row's candidates. So ::

    U_i = 1 - (1 - B_i)**(K - 1)

is uniform on (0, 1): exactly, for every op that is right. The largest noise has the smallest U. How many U lie below
``tau``, for tau = 1/2, 1/4, ..., and how many above ``1 - tau``, is compared with what is expected. Rows are
independent. The shares of a row are not, but negatively associated (K. Joag-Dev and F. Proschan, "Negative
association of random variables", Annals of Statistics 11, 1983), and so are increasing functions of them: so the
number of U below a threshold has tails below Chernoff's bound for independent ones, ``exp(-N D(x / N, tau))`` with
the relative entropy D. That is the p-value, times the number of thresholds and tails.

**Rounding.** A sample that is relatively off by rho moves ``log X_i`` by ``temp rho``; noise that is rounded, and
added with a rounding, by ``u (|noise_i| + |w_i|)`` more. So each U lies in an interval. To find that too few are
below a threshold, all are counted that may be; to find too many, only those that must be. Of an entry that has
underflown only the one end is known. So rounding takes from the power of the test, not from its validity.

**Equal numbers.** Where all logits are equal, two candidates have the same entry of a sample in binary64 if their
noise is the same, but for rounding. The difference of two Gumbel numbers has a density of 1/4 at most: it is less
than ``2**-49 (1 + temp)``, which rounding may hide, with probability ``2**-50 (1 + temp)``. Uniform numbers of 24
bits, as a generator for binary32 makes them, are equal once in ``2**24`` pairs, and a row of 1000 has half a million
pairs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from npselect.testing.aliases import Array
from npselect.testing.sampling.judge import Raw
from npselect.testing.tolerance_sampled import Sampled

__all__ = ["EQUAL", "LAW", "Shares", "below", "equal_numbers", "law_of_noise", "shares_of"]

LAW, EQUAL = "law of the noise", "equal noise"
_HALVINGS = 24  # the smallest threshold is 2**-24


class Shares(NamedTuple):
    """Both ends of U, of 1 - U likewise, over all candidates of rows that have several."""

    least: Array
    most: Array
    rest_least: Array
    rest_most: Array
    farthest: float  # the largest noise, about


@np.errstate(all="ignore")
def shares_of(tells: Sampled) -> Shares:
    """What the samples tell of the noise."""
    row, temp = tells.row, float(np.max(tells.row.temp))
    several = np.count_nonzero(tells.candidates, axis=-1) > 1
    candidates = tells.candidates & several[:, None]
    exponent = np.where(candidates, tells.logits - temp * np.log(np.where(candidates, row.p, 1.0)), -np.inf)
    exponent = exponent - np.max(exponent, axis=-1, keepdims=True)
    size = 2 * np.abs(tells.w) + np.abs(tells.logits)
    off = np.where(candidates, -temp * np.log1p(-np.minimum(tells.relative, 0.999)) + row.form.unit * size, 0.0)
    low, high = np.exp(exponent - off), np.exp(exponent + off)
    high = np.where(tells.underflown & candidates, np.inf, high)
    low_rest = np.maximum(np.sum(low, axis=-1, keepdims=True) - low, 0.0)
    unknown = np.sum(np.isinf(high), axis=-1, keepdims=True) - np.isinf(high) > 0  # whether another's end is not known
    high_rest = np.where(unknown, np.inf, np.sum(np.where(np.isinf(high), 0.0, high), axis=-1, keepdims=True)
                         - np.where(np.isinf(high), 0.0, high))  # fmt: skip
    share_low = np.where(np.isinf(high_rest), 0.0, low / (low + high_rest))
    share_high = np.where(np.isinf(high), 1.0, high / (high + low_rest))
    count = np.broadcast_to(np.count_nonzero(candidates, axis=-1)[:, None], candidates.shape)[candidates]
    low, high = (np.clip(share[candidates], 0.0, 1.0) for share in (share_low, share_high))
    logs = [(count - 1) * np.log1p(-share) for share in (low, high)]
    middle = np.sqrt(low * high) * count
    farthest = -math.log(np.min(middle[middle > 0], initial=1.0))
    return Shares(-np.expm1(logs[0]), -np.expm1(logs[1]), np.exp(logs[1]), np.exp(logs[0]), farthest)


def below(values: Array, thresholds: Array) -> Array:
    """How many values lie below each threshold."""
    return np.asarray(np.searchsorted(np.sort(values), thresholds))


@np.errstate(all="ignore")
def law_of_noise(shares: Shares) -> Raw:
    """The counts of U at both ends."""
    n = len(shares.least)
    if not n:
        return Raw(LAW, "passed", 0)
    tau = np.exp2(-np.arange(1.0, _HALVINGS + 1))
    comparisons = 4 * len(tau)
    log_p, finding = 0.0, ""
    for ends, end in (((shares.least, shares.most), "largest"), ((shares.rest_least, shares.rest_most), "smallest")):
        may, must = (below(values, tau) for values in ends)
        for x, too, side in ((may, may < n * tau, "at most"), (must, must > n * tau, "at least")):
            log_tail = np.where(too, -n * _entropy(x / n, tau), 0.0)
            worst = int(np.argmin(log_tail))
            if log_tail[worst] < log_p:
                log_p = float(log_tail[worst])
                finding = (
                    f"noise among the {end} {tau[worst]:.3g} of its law is drawn {side} {x[worst]} times in {n}, "
                    f"expected {n * tau[worst]:.1f}"
                )
    return Raw(LAW, "", comparisons, min(1.0, comparisons * math.exp(log_p)), None, finding or None)


def _entropy(q: Array, p: Array) -> Array:
    from scipy import special  # type: ignore[import-untyped]

    return np.asarray(special.rel_entr(q, p) + special.rel_entr(1 - q, 1 - p))


def equal_numbers(sample: Array, temp: float) -> Raw:
    """Rows of a soft sample of equal logits, in binary64, that have two equal entries."""
    rows, choices = sample.shape
    ordered = np.sort(sample.astype(np.float64), axis=-1)
    equal = (np.diff(ordered, axis=-1) == 0) & (ordered[:, 1:] > np.finfo(np.float64).tiny)
    found, all_found = int(np.count_nonzero(np.any(equal, axis=-1))), int(np.count_nonzero(equal))
    pairs = rows * choices * (choices - 1) // 2
    mean = pairs * (1 + temp) * 2.0**-50
    p_value = min(1.0, mean**found / math.factorial(min(found, 100)))
    finding = f"in {found} of {rows} rows of equal logits two of {choices} candidates have the same noise"
    if all_found:
        finding += f", as though it were made of {math.log2(pairs / all_found):.0f} bits"
    return Raw(EQUAL, "", pairs, p_value, None, finding)
