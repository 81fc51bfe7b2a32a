"""The gradient of the temperature: how far it may be off, which of them are judged, and the comparison.

``t_i = w_i / temp`` up to a constant, hence for every temperature, over all rows that share it::

    grad_temp = -(1 / temp) sum_rows sum_i grad_logits_i z_i        z_i = w_i, or w_i - w_m, as sum_i grad_logits_i = 0

A dot product. Its N terms are summed in any order: each passes through N - 1 additions at most. Let ``A_i`` be the
larger of |w_i| and |w_i - w_m|, and B_i the bound of grad_logits_i (`npselect.testing.tolerance`, as is what takes the
place of |w_i| where logits are normalised first: then z_i may be y_i, of which w_i tells nothing). A term is wrong by
``B_i A_i`` and, relatively, by six roundings at most: of z_i, of temp**2 or a second division, of the division, of two
products, and of the result.
So the error is at most::

    (1 / temp) sum [ B_i A_i + (N + 6) u (|grad_logits_i| + B_i) A_i ]

with ``N u / (1 - N u)`` for N u, and 1 + N 2**-24 / u for N in 16 bits, where sums are accumulated in 32 and rounded
once. The bound is certain, no matter how the roundings fall. Where terms cancel it can exceed the sum itself; so there
are cases whose terms all have one sign. An operation that underflows adds half the smallest subnormal number, times
what comes after it: 1, 1 / temp, |grad_logits_i| or that times temp.

Source: N. J. Higham, "Accuracy and stability of numerical algorithms", 2002, section 3.1.
"""

from __future__ import annotations

import numpy as np

from npselect.testing import tolerance
from npselect.testing.aliases import Array
from npselect.testing.case import Case
from npselect.testing.compare import Errors, bits
from npselect.testing.outcome import Difference
from npselect.testing.profile import Profile

__all__ = ["bound", "compare_temps", "judged_temps", "summed"]

_ACCUMULATED = 2.0**-24


# ------------------------------------------------------------------------------------------------ the bound


def _groups(case: Case) -> Array:
    """Which temperature each row has, by its place in the flat array: shape (rows,)."""
    if case.row_temp is None:
        return np.zeros(len(case.w), np.intp)
    shape = list(case.logits.shape)
    shape[case.axis] = 1
    places = np.arange(case.row_temp.size).reshape(case.row_temp.shape)
    return np.moveaxis(np.broadcast_to(places, shape), case.axis, -1).reshape(-1)


def summed(case: Case, shares: Array) -> Array:
    """What the rows have, (rows,), summed for each temperature, flat."""
    return np.bincount(_groups(case), shares, minlength=int(np.prod(np.shape(case.given_temp))))


def _sizes(case: Case, profile: Profile) -> tuple[Array, Array]:
    """The candidates' w, and A: (rows, K)."""
    candidates, arithmetic = case.w > -np.inf, profile.arithmetic
    top = np.max(case.w, axis=-1, keepdims=True, initial=-np.inf)
    distance = np.where(candidates, np.abs(case.w - top), 0.0)
    w = np.where(candidates, case.w, 0.0)
    if arithmetic.exact_differences:
        return w, distance
    return w, np.maximum(distance, np.where(candidates, arithmetic.sizes(case.w, case.added), 0.0))


def bound(case: Case, profile: Profile) -> Array:
    """How far grad_temp may be from the oracle's, in the shape of the temperature: see the module's text."""
    with np.errstate(all="ignore"):
        form, temps = tolerance.Format.of(case.logits.dtype), np.broadcast_to(case.temps, (len(case.w), 1))
        grads, errors = np.abs(case.rows(case.grad_logits).astype(np.float64)), case.allowed(profile)
        _, size = _sizes(case, profile)
        count = summed(case, np.full(len(case.w), float(case.w.shape[-1])))[_groups(case)][:, None]
        depth = count - 1 if form.unit <= _ACCUMULATED else 1 + count * _ACCUMULATED / form.unit
        relative = (depth + 6) * form.unit
        relative = np.where(relative < 1, relative / (1 - relative), np.inf)
        least = form.lost(profile.flushes_subnormals)
        terms = (errors + relative * (grads + errors)) * size / temps
        lost = least * (1 + 1 / temps + (grads + errors) * (1 + temps))
        total = summed(case, np.sum(np.where(case.w > -np.inf, terms + lost, 0.0), axis=-1)) + form.tiny
        total = total * case.forward_temp  # the derivative by temp of the product of both
        exact = np.asarray(case.grad_temp, np.float64)
        return total.reshape(exact.shape) + tolerance.ulp(exact, case.logits.dtype) / 2


def judged_temps(case: Case, profile: Profile) -> Array:
    """The temperatures whose gradients count, bool in their shape: those whose rows all count, and give no overflow.

    In ``"standard"``, rows with a logit of -inf do not count: autodiff multiplies it by 0. Those with ``where`` do.
    """
    with np.errstate(all="ignore"):
        form, temps = tolerance.Format.of(case.logits.dtype), case.temps
        w, size = _sizes(case, profile)
        g = np.where(case.w > -np.inf, np.abs(case.rows(case.grad_mask.astype(np.float64))), 0.0)
        squared = np.broadcast_to(np.square(temps), (len(w), 1))
        largest = np.max(2 * np.maximum(g, 1) * np.maximum(size, 1) * np.maximum(1, 1 / squared), axis=-1, initial=0.0)
        fits = (largest <= form.largest) & (squared[:, 0] * form.tiny <= 1) & (squared[:, 0] >= form.tiny)
        rows = case.judged(profile) & (fits | ~np.all(np.isfinite(g), axis=-1))
        if profile.name == "standard":
            excluded = False if case.where is None else ~case.rows(np.broadcast_to(case.where, case.logits.shape))
            rows &= ~np.any((case.rows(case.logits) == -np.inf) & ~excluded, axis=-1)
        terms = np.abs(case.rows(case.grad_logits).astype(np.float64)) * size / temps
        finite = ~(summed(case, np.sum(terms, axis=-1)) > form.largest)
        alone = summed(case, np.where(rows, 0.0, 1.0)) == 0
    return np.asarray(alone & finite).reshape(np.shape(case.given_temp))


def compare_temps(
    case: Case, actual: Array, expected: Array, judged: Array, profile: Profile
) -> tuple[Difference | None, Errors]:
    """The first gradient of a temperature that counts and is beyond its bound; and the worst errors."""
    allowed = bound(case, profile)
    wide, exact = actual.astype(np.float64), expected.astype(np.float64)
    with np.errstate(all="ignore"):
        error = np.abs(wide - exact)
        same = (error <= allowed) | (wide == exact) | ~np.isfinite(wide) & ~np.isfinite(exact)
        compared = judged & np.isfinite(exact)
        error = np.where(np.isnan(error), np.inf, error)[compared]
        ulps = error / tolerance.ulp(exact, expected.dtype)[compared]
        fractions = np.where(error == 0, 0.0, error / allowed[compared])
    errors = Errors(float(np.max(ulps)), float(np.max(fractions))) if error.size else Errors()
    different = np.argwhere(judged & ~same)
    if not len(different):
        return None, errors
    position = tuple(int(i) for i in different[0])
    a, e, limit = actual[position], expected[position], float(allowed[position])
    message = f"is {a!s}; expected {e!s}, give or take {limit:.2g}"
    conditioning = limit / float(tolerance.ulp(np.asarray(e, np.float64), expected.dtype))
    difference = Difference(
        "backward_temp", message, position, float(a), float(e), limit, bits(a), bits(e), conditioning
    )
    return difference, errors
