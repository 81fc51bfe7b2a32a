r"""The soft sample behind a hard one, as its gradient tells it, for an op that has no soft form.

The gradient of a seed is a linear map of the cotangent, ``J g = y (g - <y, g>) / temp``, and may be asked as often as
one likes. With s the index that the hard sample selects, so that ``y_s`` is the largest, the one-hot of s gives::

    J e_s:   -y_s y_i / temp  at i != s,     y_s (1 - y_s) / temp  at s

From these follow all ratios but those to y_s: ``y_i / y_k = (J e_s)_i / (J e_s)_k`` for i, k other than s. Let k be
the largest of them and r the next. With the one-hot of k, ``(J e_k)_r = -y_k y_r / temp``, so

    y_k / y_s = (J e_k)_r / (J e_s)_r

and, as the sum is 1, y is known: by quotients alone, that is, with few roundings, and without regard to `temp`.
Whether ``J e_s`` is in proportion to ``1 / temp`` is left to be judged. Where there is no r, that is for K = 2 and
where all other entries have underflown, there is one unknown: ``v = y_s y_k = -temp (J e_s)_k``, hence ``y_s >= 1/2``
and::

    y_k = 2 v / (1 + sqrt(1 - 4 v))        which exists for 0 <= v <= 1/4

**Errors.** An entry of J is wrong by its bound, of the cotangent that it was asked with: `tolerance_sampled`'s, at
the y that was found. Of quotients the relative errors add up; the error of v becomes that of y_k by evaluation at
either end.

An op whose gradient is 0, or has the wrong sign, has no y that explains it. Then the sample that is returned is as
near as can be, and the gradients, which are judged by it, are not what it says.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from npselect.testing.aliases import Array
from npselect.testing.roundoff import Arithmetic, sum_of_row
from npselect.testing.tolerance_sampled import Sampled, sampled

__all__ = ["recovered_sample", "smaller_of"]


def recovered_sample(
    backward: Callable[[Array], Array],
    logits: Array,
    index: Array,
    temp: float,
    arithmetic: Arithmetic,
    chance: float,
) -> tuple[Array, Array]:
    """The soft sample and its relative error, both of float64 and shape (rows, K).

    Parameters
    ----------
    backward : callable
        ``backward(grad_sample) -> grad_logits``, of one seed.
    logits : ndarray, shape (rows, K)
        With -inf at excluded entries.
    index : ndarray, shape (rows,)
        What the hard sample of that seed selects.
    temp, arithmetic, chance
        As for `npselect.testing.tolerance_sampled.sampled`.
    """
    candidates = logits > -np.inf

    def one_hot(columns: Array) -> Array:
        return np.asarray((np.arange(logits.shape[-1]) == columns[:, None]).astype(logits.dtype))

    def at(values: Array, columns: Array) -> Array:
        return np.take_along_axis(values, columns[:, None], axis=-1)

    with np.errstate(all="ignore"):
        e_s = one_hot(index)
        by_s = np.where(candidates, backward(e_s).astype(np.float64), 0.0)
        others = np.where((e_s == 0) & candidates & np.isfinite(by_s), np.abs(by_s), -1.0)
        k = np.argmax(others, axis=-1)
        e_k = one_hot(k)
        by_k = np.where(candidates, backward(e_k).astype(np.float64), 0.0)
        r = np.argmax(np.where(e_k > 0, -1.0, others), axis=-1)
        ratio = at(by_k, r) / at(by_s, r)
        told = (r[:, None] != k[:, None]) & (at(others, r) > 0) & np.isfinite(ratio) & (ratio > 0)

        v = np.clip(np.abs(temp * at(by_s, k)), 0.0, 0.25)  # a wrong sign shows in what is judged
        small = smaller_of(v)
        ratio = np.where(told, ratio, small / (1 - small))
        largest = at(others, k)
        shares = np.where(others > 0, ratio * others / np.where(largest > 0, largest, 1.0), 0.0)
        shares = np.where(e_s > 0, 1.0, shares)
        y = np.asarray(shares / sum_of_row(shares))

        tells = sampled(y, logits, temp, arithmetic, chance, np.zeros_like(y))
        off_s, off_k = _off(tells, e_s), _off(tells, e_k)
        by_ratio = at(off_k, r) + at(off_s, r)
        by_root = np.maximum(*(np.abs(np.log(smaller_of(np.clip(v * (1 + sign * at(off_s, k)), 0.0, 0.25)) / small))
                               for sign in (-1, 1)))  # fmt: skip
        error = np.where(told, by_ratio, by_root) + np.where(e_k + e_s > 0, 0.0, off_s + at(off_s, k))
        error = np.where(np.isfinite(error), error, 1.0)
        return y, np.where(candidates, error + sum_of_row(np.where(candidates, y * error, 0.0)), 0.0)


def smaller_of(v: Array) -> Array:
    """The smaller of two numbers whose sum is 1 and whose product is v."""
    return np.asarray(2 * v / (1 + np.sqrt(1 - 4 * v)))


def _off(tells: Sampled, cotangent: Array) -> Array:
    """The error of a gradient, relatively."""
    return np.asarray(tells.bound(cotangent) / np.abs(tells.gradient(cotangent)))
