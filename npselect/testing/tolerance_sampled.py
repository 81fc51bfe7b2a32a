r"""The bound of the gradient of an op that draws its own noise, its own soft sample standing in for the noise.

Notation of `npselect.testing.tolerance`: u, tau, eps, pi, B. Let ``w = logits + noise`` be what the op computes with
and ``y = softmax(w / temp)`` exactly. Of either form, soft or hard, the gradient is, to the last digit::

    G_i = y_i (g_i - sum_j y_j g_j) / temp

Nobody but the op knows the noise; but the soft sample of the same seed is a rounding of y, and y says all that the
gradient needs. The gradient that is compared is that of ``p = Y / sum(Y)``, with Y the sample as it was returned.
What that costs is how far the probabilities behind the op's gradient may be from p. They may be the sample itself, or
numbers of their own: autodiff of a logsumexp takes another exponential, and two programs may be compiled apart.

**One exponent, two softmaxes.** Both start from the same ``s = fl(w / temp)``, whose own error cancels. After that

    exp(fl(s_i - s_m)) / sum:              u |t_i|                 (to base 2, 3 u |t_i|)
    exp(fl(s_i - L)), L = logsumexp(s):    u |log y_i|
    exp(fl(fl(s_i - s_m) - log sum)):      u (|t_i| + |log y_i|)

besides ``2 eps u`` for exp and u for a division or the last rounding. So an entry of either has an error of its own
of ``a_i = u (3 |t_i| + |log y_i| + 2 eps + 1)`` at most, and a factor that it shares with its row: the rounding of
the sum or of L. Of the sample that factor is seen, ``c = |sum(Y) - 1|``, and p is without it, but for ``sum_j p_j
a_j``. The factor of the other softmax is the same or, where it is none, that of a sum of its own, ``S(p) + sum_j p_j
rho_j``. So the probabilities behind the gradient are ``p_i (1 + delta_i)`` with::

    delta_i = 2 a_i + 2 sum_j p_j a_j + 2 v_i + 2 sum_j p_j v_j + c + S(p) + sum_j p_j rho_j

where ``v_i = u (|w_i| + |w_m|) / temp`` stands for two programs that round ``w / temp`` each in its own way. In 16
bits that is taken with the unit of binary32, in which compilers keep what they do not store: programs of which one
rounds the exponent to 16 bits and the other does not have samples of their own, each with its own gradient. An
exponential in 16 bits is taken for one of binary32 that is rounded, with an eps of 1.

With ``delta_i p_i`` in the place of ``pi_i p_i``, B is the bound.

**Remainder.** The errors in exponents are taken by ``expm1``. Products of two errors are covered by taking ``p_i (1 +
delta_i) / (1 - delta_i)`` for ``p_i`` in B, and ``delta_i p_i / (1 - delta_i)`` for ``delta_i p_i``. Where delta_i
reaches 1, nothing is known but that probabilities lie between 0 and 1.

**A single candidate** has the probability 1, and a gradient of 0. But a quotient may be taken by the reciprocal, of few
digits and then refined, so the bound is as elsewhere: ``fl(1 * fl(1 / 1))`` is not 1 everywhere.

**The sample itself** is as far from y as any softmax, ``pi_i``; one by its logarithm, whose L is ``u |w_m| / temp + u
log K`` off and has a logarithm in it, by ``u |log y_i| + (2 eps + 2) u log K`` more.

**The size of w.** tau holds ``(|w_i| + |w_m|) / temp``, for the rounding of ``w / temp``. The sample shows
differences of w only: ``w_i - w_m = temp t_i`` with ``t_i = log(Y_i / Y_m)``. But noise that is Gumbel's tells more.
``X_i = exp(-noise_i)`` are independent and exponential, and ``X_i = exp(-w_m) a_i`` with ``a_i = exp(logits_i - temp
t_i)`` known. Their sum is ``exp(-w_m) A`` with ``A = sum_i a_i``, has the law Gamma(K), and is independent of their
ratios, which are all that the t_i tell. So ``w_m = log A - log E`` with E of Gamma(K), and outside of E's quantiles q
and 1 - q it lies with probability 2 q. Where an entry of the sample has underflown, A is not known; there the noise
is taken to lie in (-40, 40), which one number in 2e17 does not.

**Where the soft sample is not to be had**, the gradient tells it: see `npselect.testing.sampling.recovered`. What it
tells has an error of its own, which is added to delta_i.

**Underflow.** An entry of the sample below the smallest normal number is wrong by half the smallest subnormal, and
the entry behind the gradient likewise: `least` counts twice more. What underflows to 0 is taken for half of that.

**What is compared** is computed in binary64, p included: the B of that, with a pi of four roundings, is added.

Sources: as of `npselect.testing.tolerance`; the law of ratios and sum of exponential numbers: E. Lukacs, "A
characterization of the gamma distribution", Annals of Mathematical Statistics 26, 1955.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from npselect.testing.aliases import Array
from npselect.testing.roundoff import Arithmetic, Format, Row, also_through_logsumexp, row_of, sum_of_row

__all__ = ["Sampled", "sampled"]

_BINARY32 = 2.0**-24
_BINARY64 = Format.of("float64")
_FARTHEST = 40.0  # noise is nearer to 0: beyond it lies one draw of exp(40) = 2e17


@dataclass(frozen=True)
class Sampled:
    """What a soft sample tells of the op's numbers: arrays of float64, shape (rows, K).

    Attributes
    ----------
    row : Row
        The softmax of `w`, with its errors: `row.p` is the sample, scaled to a sum of 1.
    w : ndarray
        The perturbed logits but for a constant of the row, of the largest sizes that they may have; -inf at excluded
        entries.
    logits : ndarray
        As given.
    relative : ndarray
        The error of the sample, relatively.
    apart : ndarray
        What the probabilities behind the gradient may be off the sample, relatively: ``delta_i``.
    underflown : ndarray of bool
        Candidates of which the sample has underflown: they may be less than they seem.
    """

    row: Row
    w: Array
    logits: Array
    relative: Array
    apart: Array
    underflown: Array

    @property
    def candidates(self) -> Array:
        """Which entries are not excluded."""
        return self.row.candidates

    def _at_candidates(self, values: Array) -> Array:
        return np.where(self.candidates, values, 0.0)

    @np.errstate(all="ignore")
    def gradient(self, grad_sample: Array) -> Array:
        """``p (g - <p, g>) / temp``, of the cotangent as measured from the largest entry."""
        size, _, _, scale = self.row.centred(grad_sample)
        return self.row.only(self.row.over_temp(self.row.p * size, scale))

    @np.errstate(all="ignore")
    def bound(self, grad_sample: Array) -> Array:
        """What an honest gradient may be off `gradient`."""
        rest = 1 - np.minimum(self.apart, 0.999)
        off = np.minimum(self.apart * self.row.p / rest, 1.0)
        grown = np.minimum(self.row.p * (1 + self.apart) / rest, 1.0)
        worst = self.row._replace(p=grown, p_pi=off, least=4 * self.row.least)
        size, _, _, scale = self.row.centred(grad_sample)
        _, error, entering, _ = worst.centred(grad_sample)
        bound = worst.over_temp(worst.product(size, error), scale) + worst.floor(size, entering, scale, worst.temp)
        computed = self.row._replace(form=_BINARY64, p_pi=self.row.p * 4 * _BINARY64.unit)
        _, error, _, _ = computed.centred(grad_sample)
        bound = self._at_candidates(bound + computed.over_temp(computed.product(size, error), scale))
        if self.row.arithmetic.normalises_logits:
            gradient = self._at_candidates(worst.over_temp(grown * np.abs(size), scale)) + bound
            bound = self._at_candidates(also_through_logsumexp(worst, bound, gradient, self.logits, None))
        return bound


def sampled(
    sample: Array,
    logits: Array,
    temp: float,
    arithmetic: Arithmetic,
    chance: float,
    recovered: Array | None = None,
) -> Sampled:
    """What a soft sample tells, and how far it can be trusted.

    Parameters
    ----------
    sample : ndarray, shape (rows, K)
        The soft sample: not negative, finite, not all 0.
    logits : ndarray, shape (rows, K)
        In the dtype of the op, with -inf at excluded entries and at least one finite entry a row.
    temp : float
        As rounded to that dtype.
    arithmetic : Arithmetic
        Of the op.
    chance : float
        That the size of w is more than is allowed for, for each row.
    recovered : ndarray, shape (rows, K), optional
        The relative error of `sample`, if it is none that the op returned, but what its gradient tells.
    """
    with np.errstate(all="ignore"):
        given = logits.astype(np.float64)
        candidates = given > -np.inf
        form = Format.of(logits.dtype)
        lost = form.lost(arithmetic.flushes_subnormals)
        y = np.where(candidates, sample.astype(np.float64), 0.0)
        underflown = candidates & (y < lost)
        off_sum = np.abs(sum_of_row(y) - 1)
        y = np.where(underflown, lost / 2, y)
        t = np.log(y / np.max(y, axis=-1, keepdims=True))
        w = np.where(candidates, temp * t - _largest_size(given, temp * t, candidates, underflown, chance), -np.inf)
        if form.unit > _BINARY32:
            arithmetic = replace(arithmetic, exp_ulp=min(1.0, arithmetic.exp_ulp))
        plain = replace(arithmetic, normalises_logits=False)
        row = row_of(w, temp, logits.dtype, plain)._replace(p=y / sum_of_row(y))
        unit, eps, log_k = form.unit, 2 * arithmetic.exp_ulp, np.log(np.maximum(sum_of_row(candidates), 1))
        log_p = np.abs(np.log(np.where(candidates, row.p, 1.0)))
        size = np.where(candidates, np.abs(w), 0.0)
        own = unit * (3 * np.abs(row.t) + log_p + eps + 1)
        apart = 2 * own + 2 * min(unit, _BINARY32) * (size + np.max(size, axis=-1, keepdims=True)) / temp
        apart = np.expm1(np.where(candidates, apart, 0.0))
        apart = apart + sum_of_row(row.p * (apart + row.rho)) + off_sum + row.summed(row.p)
        relative = np.where(candidates, row.p_pi / row.p, 0.0) + np.expm1(unit * (log_p + (eps + 2) * log_k))
        if recovered is not None:
            apart, relative = apart - off_sum + recovered, relative + recovered
        return Sampled(
            row._replace(arithmetic=arithmetic),
            w,
            given,
            np.where(candidates, relative, 0.0),
            np.where(candidates, apart, 0.0),
            underflown,
        )


def _largest_size(logits: Array, below: Array, candidates: Array, underflown: Array, chance: float) -> Array:
    """What ``|w_m|`` does not exceed, shape (rows, 1); `below` is ``w - w_m``."""
    from scipy import special  # type: ignore[import-untyped]

    count = sum_of_row(candidates)
    exponents = np.where(candidates, logits - below, -np.inf)
    log_a = special.logsumexp(exponents, axis=-1, keepdims=True)
    least, most = (np.log(quantile(count, chance)) for quantile in (special.gammaincinv, special.gammainccinv))
    size = np.maximum(np.abs(log_a - least), np.abs(log_a - most))
    far = np.max(np.where(candidates, np.abs(logits), 0.0), axis=-1, keepdims=True) + _FARTHEST
    return np.asarray(np.where(np.any(underflown, axis=-1, keepdims=True), far, np.minimum(size, far)))
