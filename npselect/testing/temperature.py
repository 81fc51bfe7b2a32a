"""The temperature as something learned: how far its gradient may be off, the comparison, cases that ask, and causes.

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

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from npselect.testing import tolerance
from npselect.testing.case import Case
from npselect.testing.compare import Allowed, Errors, bits
from npselect.testing.explain import Answer, explain
from npselect.testing.report import Difference

__all__ = ["MISTAKES", "ROW_MISTAKES", "bound", "compare_temps", "judged_temps", "likely_cause", "temperature_cases"]

Array = npt.NDArray[Any]
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


def _summed(case: Case, shares: Array) -> Array:
    """What the rows have, (rows,), summed for each temperature, flat."""
    return np.bincount(_groups(case), shares, minlength=int(np.prod(np.shape(case.given_temp))))


def _sizes(case: Case, how: Allowed) -> tuple[Array, Array]:
    """The candidates' w, and A: (rows, K)."""
    candidates, arithmetic = case.w > -np.inf, how.arithmetic
    top = np.max(case.w, axis=-1, keepdims=True, initial=-np.inf)
    distance = np.where(candidates, np.abs(case.w - top), 0.0)
    w = np.where(candidates, case.w, 0.0)
    if arithmetic.exact_differences:
        return w, distance
    return w, np.maximum(distance, np.where(candidates, arithmetic.sizes(case.w, case.added), 0.0))


def bound(case: Case, how: Allowed) -> Array:
    """How far grad_temp may be from the oracle's, in the shape of the temperature: see the module's text."""
    with np.errstate(all="ignore"):
        form, temps = tolerance.Format.of(case.logits.dtype), np.broadcast_to(case.temps, (len(case.w), 1))
        grads, errors = np.abs(case.rows(case.grad_logits).astype(np.float64)), case.allowed(how)
        _, size = _sizes(case, how)
        count = _summed(case, np.full(len(case.w), float(case.w.shape[-1])))[_groups(case)][:, None]
        depth = count - 1 if form.unit <= _ACCUMULATED else 1 + count * _ACCUMULATED / form.unit
        relative = (depth + 6) * form.unit
        relative = np.where(relative < 1, relative / (1 - relative), np.inf)
        least = form.lost(how.flushes_subnormals)
        terms = (errors + relative * (grads + errors)) * size / temps
        lost = least * (1 + 1 / temps + (grads + errors) * (1 + temps))
        total = _summed(case, np.sum(np.where(case.w > -np.inf, terms + lost, 0.0), axis=-1)) + form.tiny
        exact = np.asarray(case.grad_temp, np.float64)
        return total.reshape(exact.shape) + tolerance.ulp(exact, case.logits.dtype) / 2


def judged_temps(case: Case, how: Allowed) -> Array:
    """The temperatures whose gradients count, bool in their shape: those whose rows all count, and give no overflow.

    In ``"standard"``, rows with a logit of -inf do not count: autodiff multiplies it by 0. Those with ``where`` do.
    """
    with np.errstate(all="ignore"):
        form, temps = tolerance.Format.of(case.logits.dtype), case.temps
        w, size = _sizes(case, how)
        g = np.where(case.w > -np.inf, np.abs(case.rows(case.grad_mask.astype(np.float64))), 0.0)
        squared = np.broadcast_to(np.square(temps), (len(w), 1))
        largest = np.max(2 * np.maximum(g, 1) * np.maximum(size, 1) * np.maximum(1, 1 / squared), axis=-1, initial=0.0)
        fits = (largest <= form.largest) & (squared[:, 0] * form.tiny <= 1) & (squared[:, 0] >= form.tiny)
        rows = case.judged(how) & (fits | ~np.all(np.isfinite(g), axis=-1))
        if how.profile == "standard":
            excluded = False if case.where is None else ~case.rows(np.broadcast_to(case.where, case.logits.shape))
            rows &= ~np.any((case.rows(case.logits) == -np.inf) & ~excluded, axis=-1)
        terms = np.abs(case.rows(case.grad_logits).astype(np.float64)) * size / temps
        finite = ~(_summed(case, np.sum(terms, axis=-1)) > form.largest)
        alone = _summed(case, np.where(rows, 0.0, 1.0)) == 0
    return np.asarray(alone & finite).reshape(np.shape(case.given_temp))


def compare_temps(
    case: Case, actual: Array, expected: Array, judged: Array, how: Allowed
) -> tuple[Difference | None, Errors]:
    """The first gradient of a temperature that counts and is beyond its bound; and the worst errors."""
    allowed = bound(case, how)
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


# ------------------------------------------------------------------------------------------------ what is asked


def temperature_cases(dtype: np.dtype[Any], temp: float) -> Iterator[Case]:
    """With a temperature for each row or, without `row_temp`, such that the gradient of one does not cancel."""
    rng = np.random.default_rng(20161103)

    @np.errstate(all="ignore")
    def case(name: str, note: str, shape: tuple[int, ...], temps: tuple[int, ...] | None = None, **more: Any) -> Case:
        if more.pop("one_sign", False):  # and small logits, hence few roundings: 16 bits see it too
            w = g = rng.uniform(-1, 1, shape)
            octaves = (0, 2)
        else:
            w, g, octaves = 2 * rng.standard_normal(shape), rng.standard_normal(shape), (-2, 2)
        row_temp = None if temps is None else (temp * 2.0 ** rng.uniform(*octaves, temps)).astype(dtype)
        return Case(f"temp/{name}", note, w.astype(dtype), g.astype(dtype), temp, **more, row_temp=row_temp)

    one_sign = "the gradient of temp, in which nothing cancels"
    yield case("one sign", one_sign, (12, 4), one_sign=True)
    yield case("one row", one_sign, (1, 3), one_sign=True)
    yield case("many rows", "the gradient of temp is summed over all rows", (700, 5), one_sign=True)
    yield case("of a row", "every row by its own temperature", (64, 10), (64, 1))
    yield case("of a row, one sign", one_sign, (24, 4), (24, 1), one_sign=True)
    yield case("as many rows as choices", "temperatures of rows: the other axis has the same length", (16, 16), (16, 1))
    yield case("one in an array", "a temperature of shape (1, 1) is that of all rows", (12, 7), (1, 1), one_sign=True)
    yield case("of one row", "one row, one temperature", (1, 8), (1, 1), one_sign=True)
    yield case("of a row, again", "results depend on the arguments alone", (16, 6), (16, 1), flags=("again",))
    yield case("of a column", "temperatures along the axis of the rows", (9, 20), (1, 20), axis=0, one_sign=True)
    yield case("of both axes", "a temperature for each row of either axis", (4, 9, 5), (4, 1, 5), axis=1)
    shared = "a temperature that is shared along one axis, and its gradient summed along it"
    yield case("shared along the first axis", shared, (6, 5, 4), (1, 1, 4), axis=1, one_sign=True)
    yield case("shared along a middle axis", shared, (3, 6, 5), (3, 1, 1), axis=2, one_sign=True)
    offered = rng.random((32, 8)) < 0.6
    offered[:, 2] = True
    yield case("where=", "what is no candidate has no share", (32, 8), (32, 1), where=offered, one_sign=True)
    offered = offered[:10]
    yield case("where=, one temp", "what is no candidate has no share", (10, 8), where=offered, one_sign=True)


# ------------------------------------------------------------------------------------------------ causes


def _shares(case: Case, grads: Array | None = None, w: Array | None = None) -> Array:
    """``-<grads, w> / temp`` for each row, in float64."""
    grads = case.rows(case.grad_logits.astype(np.float64)) if grads is None else grads
    w = np.where(case.w > -np.inf, case.w if w is None else w, 0.0)
    return np.asarray(-np.sum(grads * w, axis=-1) / np.broadcast_to(case.temps, (len(w), 1))[:, 0])


def _right(case: Case) -> Array:
    return np.asarray(case.grad_temp, np.float64).ravel()


def _temps(case: Case) -> Array:
    return np.asarray(case.given_temp, np.float64).ravel()


def _selected(case: Case) -> Array:
    mask = case.rows(case.mask.astype(np.float64))
    return _summed(case, _shares(case, mask * case.rows(case.grad_logits.astype(np.float64))))


MISTAKES = (
    ("the sign is flipped", lambda case: -_right(case)),
    ("temp is detached: its gradient is 0", lambda case: 0 * _right(case)),
    ("1/temp is missing", lambda case: _right(case) * _temps(case)),
    ("divided by temp once more", lambda case: _right(case) / _temps(case)),
    ("the gradient of 1/temp, not of temp", lambda case: -_right(case) * _temps(case) ** 2),
    ("the mean over the rows, not the sum", lambda case: _right(case) / _summed(case, np.ones(len(case.w)))),
    (
        "the mean over all entries, not the sum",
        lambda case: _right(case) / _summed(case, np.full(len(case.w), case.w.shape[-1])),
    ),
    ("one sum over all rows, for every temperature", lambda case: np.sum(_right(case)) + 0 * _right(case)),
    ("of the selected entries alone", _selected),
    ("grad_mask in place of grad_logits", lambda case: _summed(case, _shares(case, _cotangent(case)))),
    (
        "the noise is missing",
        lambda case: _summed(case, _shares(case, w=case.rows(case.logits.astype(np.float64)))),
    ),
)
"""Mistakes of the gradient of temp: what it is then, flat, in float64."""


def _cotangent(case: Case) -> Array:
    return np.where(case.w > -np.inf, case.rows(case.grad_mask.astype(np.float64)), 0.0)


def _gradient(case: Case, temps: Array) -> Array:
    """grad_logits at other temperatures, (rows, 1) or less, flat."""
    g, t = _cotangent(case), case.w / temps
    e = np.exp(t - np.max(t, axis=-1, keepdims=True))
    p = e / np.sum(e, axis=-1, keepdims=True)
    return np.asarray(p * (g - np.sum(p * g, axis=-1, keepdims=True)) / temps).ravel()


def _along_the_choices(case: Case) -> Array:
    rows, choices = case.w.shape
    return _gradient(case, case.temps.T if rows == choices else case.temps)


ROW_MISTAKES = (
    ("the first row's temperature in all rows", lambda case: _gradient(case, case.temps[:1])),
    ("the mean of the temperatures in all rows", lambda case: _gradient(case, np.mean(case.temps))),
    ("the temperatures run along the choices", _along_the_choices),
    ("the temperatures in another order", lambda case: _gradient(case, case.temps[::-1])),
)
"""Mistakes of grad_logits where rows have temperatures of their own."""


def likely_cause(seen: Sequence[Any], alone: bool = True) -> str | None:
    """The mistake that explains the gradients of temp, or those of rows with temperatures of their own, or None.

    Parameters
    ----------
    seen : sequence of Observation
        Of the cases that were judged.
    alone : bool
        Whether grad_logits is right, or wrong without a cause, where there is one temperature.
    """
    rows = [_of_rows(one) for one in seen if one.case.row_temp is not None] if alone else []
    causes = {
        "backward": explain(rows, ROW_MISTAKES),
        "backward_temp": explain([_of_temps(one) for one in seen if one.temps is not None], MISTAKES),
    }
    if causes["backward_temp"] is None and any(_unsummed(one) for one in seen):
        causes["backward_temp"] = "not summed to the shape of temp"
    return "; ".join(f"{direction}: {cause}" for direction, cause in causes.items() if cause) or None


def _of_rows(seen: Any) -> Answer:
    rows = np.broadcast_to(seen.rows[:, None], seen.tolerance.shape).ravel()
    actual = None if seen.grad_logits is None else seen.grad_logits.ravel()
    return Answer(seen.case, rows, actual, seen.expected_grad_logits.ravel(), seen.tolerance.ravel())


def _of_temps(seen: Any) -> Answer:
    fits = seen.grad_temp is not None and seen.grad_temp.shape == seen.temps.shape
    actual = seen.grad_temp.ravel() if fits else None
    return Answer(seen.case, seen.temps.ravel(), actual, _right(seen.case), seen.temps_tolerance.ravel())


def _unsummed(seen: Any) -> bool:
    """Whether the gradient of temp has an entry for each row, or for each logit, of several that share one."""
    if seen.temps is None or seen.grad_temp is None:
        return False
    rows = seen.case.logits.shape
    shapes = {rows, (*rows[:-1], 1), rows[:-1]} - {seen.temps.shape}
    return seen.grad_temp.shape in shapes
