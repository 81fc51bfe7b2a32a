"""What is computed of an entry and of a row: each formula of the kernels, once, for the CPU and for CUDA.

The notation is that of `npselect.reference`. Of a row with selected candidate m, whose logit is `top`::

    t_i = (logits_i - top) / temp      e_i = exp(t_i)             s = sum_i e_i       p_i = e_i / s
    h_i = grad_mask_i - grad_mask_m    d = sum_i p_i h_i          q = scale / (s temp)

Sums over a row are the callers', in the order of `npselect._arithmetic.order`; each is divided by s afterwards. The
arguments of a step are numbers of the compute type, or SIMD vectors of them, on the CPU. Where a product meets a sum
there is an `fma`. Callers pass `zero`, `one` and `half` in the compute type: an untyped constant would widen float32.

A result is rounded to zero with its sign, but an exact zero is +0: that is what ``fma(..., zero)`` is for.
"""

from __future__ import annotations

import numpy as np
from numba import types

from npselect._arithmetic.aliases import Choices, Chosen, Constants, Flag, Index, NumbaType, Number
from npselect._arithmetic.exponential import (
    Temperature,
    divided,
    divided_difference,
    exp,
    exp_normal,
    exp_sooner,
    near_difference,
)
from npselect._arithmetic.logarithm import log_triple_word, quick_minus_log
from npselect._arithmetic.primitives import compiles, fma, formula, inlined, select, two_sum
from npselect._arithmetic.softplus import softplus

__all__ = [
    "ADAPTIVE",
    "AT_SELECTED",
    "EMPTY",
    "INVALID",
    "REFUSED",
    "adaptive_gap",
    "canonical_nan",
    "capped",
    "capped_weight",
    "checked_index",
    "conditional_distance",
    "conditional_weight",
    "curvature",
    "double_entry",
    "exponent",
    "from_selected",
    "grad_entry",
    "is_finite",
    "log",
    "mixture_entry",
    "near_weight",
    "per_weight",
    "quick_log",
    "reinmax_cross",
    "reinmax_entry",
    "reinmax_selected",
    "sample_entry",
    "soft_entry",
    "temp_share",
    "temp_term",
    "unscaled",
    "weight",
    "weight_and_exponent",
]

# What stands in the place of the selected candidate's index where nothing can be selected.
EMPTY = -1  # `where` offers no candidate: the row's results are 0
INVALID = -2  # a candidate is NaN or +inf, or all are -inf: the row's results are NaN
REFUSED = -3  # the index that a caller gave is no candidate of the row: an error


# ------------------------------------------------------------------------------------------------ weights


@inlined
def weight_and_exponent(logit: Number, top: Number, temp: Temperature) -> tuple[Number, Number]:
    """``e_i = exp(t_i)`` and ``t_i = (logits_i - top) / temp``; 0 and -inf for a logit of -inf."""
    t, tail = divided_difference(logit, top, temp)
    return exp(t, tail), t


@inlined
def weight(logit: Number, top: Number, temp: Temperature) -> Number:
    """``e_i = exp(t_i)``."""
    t, tail = divided_difference(logit, top, temp)
    return exp(t, tail)


@inlined
def near_weight(logit: Number, top: Number, temp: Temperature, constants: Constants) -> Number:
    """The bits of `weight`, sooner, in a row that `is_near` holds for; the constants are those of `exp_constants`."""
    t, tail = near_difference(logit, top, temp)
    return exp_normal(t, tail, constants)


@inlined
def exponent(logit: Number, top: Number, temp: Temperature) -> Number:
    """``t_i = (logits_i - top) / temp``."""
    t, _ = divided_difference(logit, top, temp)
    return t


@inlined
def from_selected(cotangent: Number, selected: Number) -> Number:
    """``h_i = g_i - g_m``: the softmax's Jacobian takes no notice of a constant, and h_m is 0 exactly."""
    return cotangent - selected


@inlined
def per_weight(s: Number, temp: Temperature, scale: Number) -> Number:
    """``q = scale / (s temp)``, but for the temperature's own scale, with which each result is multiplied last."""
    return scale / (s * temp.scaled)


# ------------------------------------------------------------------------------------------------ results


@inlined
def soft_entry(e: Number, s: Number) -> Number:
    """``p_i = e_i / s``."""
    return e / s


@inlined
def grad_entry(e: Number, centred: Number, q: Number, temp: Temperature, zero: Number) -> Number:
    """``grad_logits_i = p_i (h_i - d) / temp = e_i (h_i - d) q``, of ``centred = h_i - d``."""
    return fma(e * centred * q, temp.scale, zero)


@inlined
def temp_term(e: Number, t: Number, centred: Number) -> tuple[Number, Number]:
    """The factors of ``grad_logits_i t_i``, but for q: ``e_i (h_i - d)`` and t_i, 0 where e_i is (t_i may be -inf)."""
    return e * centred, select(e > 0, t, e)


@inlined
def temp_share(total: Number, s: Number, temp: Temperature, scale: Number) -> Number:
    """A row's share of grad_temp, ``-sum_i grad_logits_i t_i``, of the sum of the products of `temp_term`."""
    return -total * scale / (s * temp.scaled) * temp.scale


@inlined
def curvature(h_centred: Number, k_centred: Number, zero: Number) -> Number:
    """``c_i = (h_i - d) (k_i - sum_j p_j k_j)``, k being what h is, of grad_grad_logits."""
    return fma(h_centred, k_centred, zero)


@inlined
def double_entry(e: Number, centred: Number, q: Number, temp: Temperature, zero: Number) -> Number:
    """``grad_logits_i = p_i (c_i - sum_j p_j c_j) / temp**2``, of ``centred = c_i - sum_j p_j c_j``."""
    return fma(e * centred * q * temp.scale * temp.reciprocal_hi, temp.scale, zero)


# ------------------------------------------------------------------------------------------------ mixture


@inlined
def mixture_entry(e: Number, s: Number, kept: Number, share: Number) -> Number:
    """``(1 - unimix) p_i + unimix / n``, of ``kept = 1 - unimix`` and ``share = unimix / n``, of a candidate."""
    return fma(e / s, kept, share)


@formula
def log(x: Number) -> Number:
    """``log(x)`` of a float64 that is 0 or normal; -inf of 0, NaN of NaN. Within half a unit, and very little more."""
    if not x > 0:
        return np.float64(-np.inf) if x == 0 else x
    high, _, _ = log_triple_word(x, np.float64(0), np.float64(0))
    return high


_MARGIN = np.float64(2.0**-43)  # twice as much as `quick_minus_log` may be wrong by, relatively


@formula
def quick_log(x: Number) -> Number:
    """``log(x)`` of a float64 rounded to float32: by the quick logarithm, unless that leaves it in doubt."""
    if x > 0:
        y = -quick_minus_log(x)
        margin = abs(y) * _MARGIN
        low, high = np.float32(y - margin), np.float32(y + margin)
        if low == high:
            return low + np.float32(0)  # the logarithm of 1 is +0
    return np.float32(log(x))


# ------------------------------------------------------------------------------------------------ a row's end


@formula
def is_finite(x: Number) -> Flag:
    """Of a scalar: a row whose d is not finite has NaN at its candidates."""
    return abs(x) < np.inf


@formula
def canonical_nan(x: Number, nan: Number) -> Number:
    """x, or the one NaN that results have: the sign of another depends on a compiler's order of operands."""
    return x if x == x else nan


# ------------------------------------------------------------------------------------------------ reinmax

# With a given choice m, p of the logits at temperature 1 (weights e_p, their sum s_p) and q at temp (e_q, s_q):
# a = sum_j q_j h_j and b = sum_j p_j h_j, where h_m = 0. The surrogate's Jacobian times g is
#
#     ((2 q_j - p_j) h_j - (q_j a - p_j b)) / 2        at j != m
#     (-a - (q_m a - p_m b)) / 2                       at m
#
# m need not be the largest logit: weights are measured from the largest one, cotangents from m's. The difference of
# two products is taken as Kahan does, with its rounding errors: at temp = 1, where p is q, it is exactly 0, and what is
# left is ``p_j h_j / 2``, however small beside p_j a.


@inlined
def reinmax_cross(p: Number, q: Number, a: Number, b: Number, zero: Number) -> Number:
    """``q_j a - p_j b``."""
    w = fma(p, b, zero)
    return fma(q, a, -w) - fma(p, b, -w)


@inlined
def reinmax_entry(p: Number, q: Number, h: Number, a: Number, b: Number, half: Number, zero: Number) -> Number:
    """``((2 q_j - p_j) h_j - (q_j a - p_j b)) / 2``; 0 at excluded entries."""
    return fma(fma(q + (q - p), h, -reinmax_cross(p, q, a, b, zero)), half, zero)


@inlined
def reinmax_selected(p: Number, q: Number, a: Number, b: Number, half: Number, zero: Number) -> Number:
    """``(-a - (q_m a - p_m b)) / 2``."""
    return fma(-a - reinmax_cross(p, q, a, b, zero), half, zero)


# ------------------------------------------------------------------------------------------------ gapped

# With a given choice m, weights are ``e_m = 1`` and, for the others, ``e_j = min(exp((logits_j - top) / temp), cap)``
# with ``cap = exp(-gap / temp)``. The gap is in two words: that of float64 is not rounded to float32.
#
# The adaptive gap is ``-log(1 - p) / p`` of the share p that m has of the softmax at temperature 1. With ``own``, m's
# weight, ``rest``, the sum of the others', and ``u = 1 + own / rest = 1 / (1 - p)``, it is ``u log(u) / (u - 1)``. As
# Kahan found for log(1 + x), that of the rounded u is right, as the function is flat: its derivative is between 0 and
# 1/2 and u's error is relative. Where m leads by so much that rest is below 2**-64, cap is next to the largest of the
# others' weights, and it is as well to have none: the difference is below 2**-64 times the gap over temp, which is
# below 2**10 where exp(-gap / temp) is not 0.

ADAPTIVE = 0.0  # stands in the place of the gap


@inlined
def capped_weight(gap: Number, gap_tail: Number, temp: Temperature) -> Number:
    """``cap = exp(-gap / temp)``."""
    return weight(-gap, gap_tail, temp)


@inlined
def capped(e: Number, cap: Number) -> Number:
    """``min(e, cap)``; a weight of 0 stays as it is."""
    return select(e > cap, cap, e)


def adaptive_gap(own: Number, rest: Number) -> Number:
    """``-log(1 - p) / p`` in float64, ``p = own / (own + rest)``; 0 where no weight need be capped."""
    return _adaptive_gap(own, rest, isinstance(own, np.float32))


@formula
def _adaptive_gap(own: Number, rest: Number, quick: Flag) -> Number:
    wide = np.float64(rest)
    if not wide >= 2.0**-64:
        return np.float64(0)
    u = np.float64(1) + np.float64(own) / wide
    if u == 1:
        return u
    logarithm = -quick_minus_log(u) if quick else log(u)
    return u / (u - np.float64(1)) * logarithm


@compiles(adaptive_gap)
def _adaptive_gap_of(own: NumbaType, rest: NumbaType) -> Chosen:
    quick = own == types.float32
    return lambda own, rest: _adaptive_gap(own, rest, quick)


@formula
def checked_index(given: Index, choices: Choices, found: Index, is_candidate: Flag) -> Index:
    """The index that a caller gave for a row, or its state, or REFUSED.

    `found` is the row's own choice: an index, EMPTY or INVALID. `is_candidate`: whether the given entry is offered and
    above -inf.
    """
    if given < EMPTY or given >= choices:
        return REFUSED
    if found == INVALID:
        return INVALID
    if found == EMPTY:
        return EMPTY if given == EMPTY else REFUSED
    return given if given >= 0 and is_candidate else REFUSED


# ------------------------------------------------------------------------------------------------ gumbel_rao

# Of the noisy logits, given that the largest is m's, one sample is made of the noise G (see `npselect.reference`):
#
#     t_j = -log(1 + exp(v_j + G_m - G_j)) / temp        v_j = log(sum_i exp(logits_i - top)) - (logits_j - top)
#
# and t_m = 0. v_j and the logarithm are kept as two words, and multiplied with the temperature's prescale.

AT_SELECTED = -1024.0  # v_m, as good as -inf: exp(v_m) vanishes, so that t_m is 0


@inlined
def conditional_distance(
    logit: Number, top: Number, log_sum: Number, log_sum_tail: Number, temp: Temperature
) -> tuple[Number, Number]:
    """v_j, never below 0; inf for a logit of -inf."""
    a, b = fma(logit, temp.prescale, temp.zero), fma(top, temp.prescale, temp.zero)  # products that meet sums
    z, z_tail = two_sum(b, -a)
    v, v_tail = two_sum(z, fma(log_sum, temp.prescale, temp.zero))
    return v, v_tail + fma(log_sum_tail, temp.prescale, z_tail)


@inlined
def unscaled(temp: Temperature, one: Number) -> Temperature:
    """A temperature whose scale is 1, as the compiler then knows."""
    return Temperature(temp.scaled, one, one, one, temp.reciprocal_hi, temp.reciprocal_lo, temp.zero)


@inlined
def conditional_weight(
    v: Number, v_tail: Number, selected: Number, noise: Number, temp: Temperature, up: Number, constants: Constants
) -> Number:
    """``exp(t_j)``, of ``selected = G_m`` and ``noise = G_j``; 0 for v = inf. ``up = 1 / prescale``.

    The difference of the two is rounded, and once more with the second word of v; their sum with v has two words.
    """
    u, u_tail = two_sum(v, (selected - noise) * temp.prescale + v_tail)
    s, s_tail = softplus(u, u_tail, temp.prescale, up, constants)
    t, t_tail = divided(-s, -s_tail, temp)
    return exp_sooner(t, t_tail, constants)


@inlined
def sample_entry(e: Number, centred: Number, q: Number, before: Number) -> Number:
    """``before + p_i (h_i - d) / (samples temp)`` as in `grad_entry`, of ``centred = h_i - d``."""
    return fma(e * centred, q, before)
