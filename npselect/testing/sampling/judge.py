"""What is judged of an observation, but for chance: the form, the gradients, excluded candidates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from npselect.testing.aliases import Array
from npselect.testing.sampling.observation import FORMS, Gradient, Observation
from npselect.testing.tolerance_sampled import Sampled

__all__ = ["JUDGED", "Raw", "judged_by_bounds"]

JUDGED = (
    "one-hot",
    "hard and soft",
    "soft sample",
    "gradient of the hard form",
    "gradient of the soft form",
    "constants drop out",
    "excluded candidates",
)
"""The names of the tests, in order."""
_NO_SOFT = "as it has no soft form"
_OF_SOFT = ("hard and soft", "soft sample", "gradient of the soft form")


class Raw(NamedTuple):
    """A test whose p-value, if any, is not yet corrected for the number of tests."""

    name: str
    verdict: str  # "passed", "failed", "not asked", "not run"; "" where the p-value decides
    comparisons: int = 0
    p_value: float | None = None
    fraction: float | None = None
    finding: str | None = None


def judged_by_bounds(seen: Observation, hard_and_soft: bool) -> Iterator[Raw]:
    """A result for each of `JUDGED`."""
    for name in JUDGED:
        if not hard_and_soft and name in _OF_SOFT:
            yield Raw(name, "not asked", finding=_NO_SOFT)
        else:
            yield _TESTS[name](seen)


def _verdict(name: str, comparisons: int, finding: str | None, fraction: float | None = None) -> Raw:
    return Raw(name, "passed" if finding is None else "failed", comparisons, None, fraction, finding)


def _one_hot(seen: Observation) -> Raw:
    return _verdict("one-hot", seen.logits.size, seen.hard_error)


def _hard_and_soft(seen: Observation) -> Raw:
    """The hard sample selects the largest entry of the soft one, but for ties that rounding makes."""
    name = "hard and soft"
    if seen.index is None or seen.soft is None or seen.sampled is None:
        return Raw(name, "not run")
    return _verdict(name, len(seen.index), not_the_largest(seen, seen.sampled, "of the soft sample"))


def not_the_largest(seen: Observation, tells: Sampled, of_what: str) -> str | None:
    """A row whose hard sample selects an entry that is certainly not the largest."""
    assert seen.index is not None
    p = tells.row.p
    off = np.minimum(tells.relative, 1.0)
    selected = np.take_along_axis(p * (1 + off), seen.index[:, None], axis=-1)
    lowest = np.max(p * (1 - off), axis=-1, keepdims=True)
    wrong = ~(selected[:, 0] >= lowest[:, 0])
    if not np.any(wrong):
        return None
    row = int(np.argmax(wrong))
    best = int(np.argmax(p[row]))
    return (
        f"seed {seen.seed}: row {row} selects candidate {seen.index[row]}, which has {p[row, seen.index[row]]:.3g} "
        f"{of_what}, where candidate {best} has {p[row, best]:.3g}; so in {int(np.sum(wrong))} of {len(p)} rows"
    )


def _soft_sample(seen: Observation) -> Raw:
    """Not negative, finite, and of the sum 1."""
    name = "soft sample"
    if seen.soft_error is not None or seen.sampled is None or seen.soft is None:
        return _verdict(name, seen.logits.size, seen.soft_error or "there is none")
    tells = seen.sampled
    total = np.sum(np.where(seen.candidates, seen.soft.astype(np.float64), 0.0), axis=-1)
    row = tells.row
    allowed = np.sum(row.p * tells.relative, axis=-1) + seen.logits.shape[-1] * row.least + row.form.unit
    fractions = np.abs(total - 1) / allowed
    worst = int(np.argmax(np.where(np.isnan(fractions), np.inf, fractions)))
    finding = f"row {worst} has the sum {total[worst]:.9g}; rounding explains 1 and {allowed[worst]:.3g} more or less"
    return _verdict(name, len(total), None if fractions[worst] <= 1 else finding, float(fractions[worst]))


def _gradient(seen: Observation, hard: bool) -> Raw:
    name = f"gradient of the {FORMS[hard]} form"
    if hard in seen.gradient_errors:
        return _verdict(name, 0, seen.gradient_errors[hard])
    if seen.sampled is None:
        return Raw(name, "not run")
    result = _compared(
        name, seen, seen.sampled, [one for one in seen.gradients if one.hard == hard and not one.constant]
    )
    if hard and seen.soft is None and result.verdict == "passed" and seen.index is not None:
        finding = not_the_largest(seen, seen.sampled, "by the gradient")
        return result if finding is None else result._replace(verdict="failed", finding=finding)
    return result


def _constants(seen: Observation) -> Raw:
    """The gradient of a cotangent to which a constant was added, and the sum of every gradient."""
    name = "constants drop out"
    if seen.sampled is None or not seen.gradients:
        return Raw(name, "not run")
    tells = seen.sampled
    result = _compared(name, seen, tells, [one for one in seen.gradients if one.constant])
    for one in seen.gradients:
        total = np.abs(np.sum(np.where(seen.candidates, one.actual.astype(np.float64), 0.0), axis=-1))
        bound = np.sum(tells.bound(one.cotangent), axis=-1)
        bound = bound + np.finfo(np.float64).eps * np.sum(np.abs(tells.gradient(one.cotangent)), axis=-1)
        wrong = ~(total <= bound)
        if np.any(wrong) and result.verdict == "passed":
            row = int(np.argmax(wrong))
            finding = (
                f"{FORMS[one.hard]} form, row {row}: the gradient has the sum {total[row]:.3g}; rounding explains "
            )
            result = result._replace(verdict="failed", finding=f"{finding}{bound[row]:.3g}")
    return result._replace(comparisons=result.comparisons + len(seen.gradients) * len(seen.logits))


def _compared(name: str, seen: Observation, tells: Sampled, gradients: list[Gradient]) -> Raw:
    fraction, finding, count = 0.0, None, 0
    for one in gradients:
        expected, bound = tells.gradient(one.cotangent), tells.bound(one.cotangent)
        actual = one.actual.astype(np.float64)
        off = np.where(seen.candidates, np.abs(actual - expected), 0.0)
        part = np.where(off == 0, 0.0, np.where(np.isnan(off), np.inf, off / bound))
        count += int(np.count_nonzero(seen.candidates))
        worst = np.unravel_index(np.argmax(part), part.shape)
        if part[worst] > fraction:
            fraction = float(part[worst])
            finding = (
                f"seed {seen.seed}, {FORMS[one.hard]} form: row {worst[0]}, candidate {worst[1]}: {actual[worst]:.6g}, "
                f"expected {expected[worst]:.6g} +- {bound[worst]:.2g}; {int(np.sum(part > 1))} of {part.size} entries "
                "are so"
            )
    return _verdict(name, count, finding if fraction > 1 else None, fraction)


def _excluded(seen: Observation) -> Raw:
    """Nothing at a logit of -inf: not in the soft sample, not in a gradient; of the hard sample `_one_hot` sees it."""
    name = "excluded candidates"
    arrays: list[tuple[str, Array]] = [
        (f"the gradient of the {FORMS[one.hard]} form", one.actual) for one in seen.gradients
    ]
    if seen.soft is not None:
        arrays.insert(0, ("the soft sample", seen.soft))
    if not arrays:
        return Raw(name, "not run")
    out = ~seen.candidates
    for what, array in arrays:
        wrong = out & (array.astype(np.float64) != 0)
        if np.any(wrong):
            row, column = np.argwhere(wrong)[0]
            value = float(array[row, column])
            return _verdict(
                name,
                len(arrays) * int(np.sum(out)),
                f"{what} is {value:.3g} at row {row}, candidate {column}, whose logit is -inf; expected 0",
            )
    return _verdict(name, len(arrays) * int(np.sum(out)), None)


_TESTS = {
    "one-hot": _one_hot,
    "hard and soft": _hard_and_soft,
    "soft sample": _soft_sample,
    "gradient of the hard form": lambda seen: _gradient(seen, True),
    "gradient of the soft form": lambda seen: _gradient(seen, False),
    "constants drop out": _constants,
    "excluded candidates": _excluded,
}
