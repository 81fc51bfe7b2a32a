"""The judgement of one case: shape, then dtype, then values, each value by a bound of its own.

Two profiles. ``"standard"`` accepts every honest textbook implementation: it judges the rows on which textbooks agree
(`textbooks_agree`) by their bound, and shows the rest. ``"strict"`` judges all rows by the bound of npselect's tiers.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from npselect import straight_through
from npselect.testing import tolerance
from npselect.testing.cases import Case
from npselect.testing.report import Difference, Outcome

__all__ = ["PROFILES", "Observation", "judge", "textbooks_agree"]

Array = npt.NDArray[Any]
PROFILES = {"standard": tolerance.TEXTBOOK, "strict": tolerance.KERNELS}


@dataclass(frozen=True, eq=False)
class Observation:
    """What an implementation returned for one case, for whoever looks for a cause.

    Attributes
    ----------
    case : Case
        The question.
    rows : ndarray of bool, shape (rows,)
        Those that were judged.
    near_ties : ndarray of bool, shape (rows,)
        Those where another index than the oracle's was accepted.
    mask, grad_logits : ndarray or None
        The answers; None where there was none of the right shape.
    expected_mask, expected_grad_logits : ndarray
        The oracle's.
    tolerance : ndarray
        Of grad_logits.
    """

    case: Case
    rows: Array
    near_ties: Array
    mask: Array | None
    grad_logits: Array | None
    expected_mask: Array
    expected_grad_logits: Array
    tolerance: Array


class _Call(NamedTuple):
    """How a function answered: with an array, or with what went wrong."""

    result: Array | None
    returned: str  # the type of what was returned
    error: BaseException | None
    wrote_to: str | None
    seconds: float


class _Errors(NamedTuple):
    """The worst errors of a gradient, in ULP and as a fraction of the tolerance; NaN if nothing was compared."""

    ulp: float = np.nan
    fraction: float = np.nan


def judge(implementation: Any, case: Case, profile: str, backend: str) -> tuple[Outcome, Observation | None]:
    """Ask `implementation` and the oracle the same question, and compare.

    The second result is None where the oracle's answer is an error, or where nothing is judged.
    """
    expected = _oracle(case, backend)
    forward = _call(implementation.forward, {"logits": case.logits}, case.temp)
    backward = _call(implementation.backward, {"grad_mask": case.grad_mask, "logits": case.logits}, case.temp)
    seconds = forward.seconds + backward.seconds
    if isinstance(expected, Exception):
        judged_rows = len(case.logits) if profile == "strict" else 0
        difference = _refusal("forward", forward, expected) or _refusal("backward", backward, expected)
        verdict = _verdict(profile == "strict", difference)
        return _outcome(case, verdict, judged_rows, 0, _Errors(), seconds, difference), None

    mask, grad_logits = expected
    allowed = _allowed(case, grad_logits, profile, backend)
    rows = np.ones(len(case.logits), np.bool_)
    if profile == "standard":
        rows = textbooks_agree(case) & np.all(np.isfinite(allowed) & np.isfinite(grad_logits), axis=-1)
    judged = bool(np.any(rows)) or len(rows) == 0
    shown = rows if judged else np.ones_like(rows)

    difference = _trouble("forward", forward, mask)
    near = np.zeros_like(rows)
    if difference is None:
        if profile == "standard":
            near = shown & _near_ties(case, forward.result, mask)
        difference = _compare_masks(forward.result, mask, shown & ~near)
    trouble = _trouble("backward", backward, grad_logits)
    errors = _Errors()
    if trouble is None:
        trouble, errors = _compare_gradients(case, backward.result, grad_logits, allowed, shown)
    difference = difference or trouble
    if (forward.error or backward.error) and not np.all(rows):
        judged = False  # the error may be about the rows that are not judged
    outcome = _outcome(
        case, _verdict(judged, difference), int(np.sum(rows)), int(np.sum(near)), errors, seconds, difference
    )
    if not judged:
        return outcome, None
    return outcome, Observation(
        case, rows, near, _fitting(forward, mask), _fitting(backward, mask), mask, grad_logits, allowed
    )


def textbooks_agree(case: Case) -> Array:
    """Rows for which every honest implementation has the same answer, as bools.

    Their logits are finite or -inf, at least one of them finite; grad_mask is finite; temp is a temperature; and the
    dtype represents logits / temp.
    """
    logits = case.logits.astype(np.float64)
    excluded = logits == -np.inf
    sound = np.all(np.isfinite(logits) | excluded, axis=-1) & ~np.all(excluded, axis=-1)
    sound &= np.all(np.isfinite(case.grad_mask.astype(np.float64)), axis=-1)
    with np.errstate(all="ignore"):
        quotients = np.where(excluded, 0.0, logits) / case.temp
        return np.asarray(sound & np.all(np.abs(quotients) <= tolerance.Format.of(case.logits.dtype).largest, axis=-1))


# ------------------------------------------------------------------------------------------------ asking


def _oracle(case: Case, backend: str) -> tuple[Array, Array] | Exception:
    try:
        return (
            straight_through.forward(case.logits, case.temp, backend=backend),
            straight_through.backward(case.grad_mask, case.logits, case.temp, backend=backend),
        )
    except ValueError as error:
        return error


def _allowed(case: Case, grad_logits: Array, profile: str, backend: str) -> Array:
    """How far a gradient may be from the oracle's: the implementation's bound and the oracle's own error."""
    dtype = case.logits.dtype
    if case.logits.size == 0:
        return np.zeros(case.logits.shape)
    bound = tolerance.backward(case.grad_mask, case.logits, case.temp, dtype, PROFILES[profile])
    if backend == "reference":
        return np.asarray(bound + tolerance.ulp(grad_logits, dtype) / 2)
    return np.asarray(bound + tolerance.backward(case.grad_mask, case.logits, case.temp, dtype, tolerance.KERNELS))


def _call(function: Callable[..., Any], arrays: dict[str, Array], temp: float) -> _Call:
    """One call with copies of the arrays; what it warns of is no matter of ours."""
    copies = {name: array.copy() for name, array in arrays.items()}
    result, error, returned = None, None, ""
    start = time.perf_counter()
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            answer = function(*copies.values(), temp)
            returned = type(answer).__name__
            result = np.asarray(answer)
    except (Exception, SystemExit) as raised:
        error = raised
    seconds = time.perf_counter() - start
    written = (name for name, array in arrays.items() if copies[name].tobytes() != array.tobytes())
    return _Call(result, returned, error, next(written, None), seconds)


# ------------------------------------------------------------------------------------------------ comparing


def _verdict(judged: bool, difference: Difference | None) -> str:
    if judged:
        return "passed" if difference is None else "failed"
    return "agrees" if difference is None else "differs"


def _outcome(
    case: Case,
    verdict: str,
    judged_rows: int,
    near_ties: int,
    errors: _Errors,
    seconds: float,
    difference: Difference | None,
) -> Outcome:
    rows = len(case.logits)
    return Outcome(case.name, case.note, verdict, rows, judged_rows, near_ties, *errors, seconds, difference)


def _refusal(direction: str, call: _Call, expected: Exception) -> Difference | None:
    """Where an error is the right answer."""
    if isinstance(call.error, type(expected)):
        return None
    name = type(expected).__name__
    if call.error is not None:
        return Difference(direction, f"raises {_described(call.error)}; expected {name}")
    return Difference(direction, f"returns without an error; expected {name}")


def _trouble(direction: str, call: _Call, expected: Array) -> Difference | None:
    """What is wrong with an answer before its values are looked at."""
    if call.error is not None:
        return Difference(direction, f"raises {_described(call.error)}")
    assert call.result is not None
    if call.wrote_to is not None:
        return Difference(direction, f"writes to its argument {call.wrote_to}")
    if call.result.dtype == object or call.returned in ("list", "tuple", "MaskedArray"):
        return Difference(direction, f"returns a {call.returned}; expected an array")
    if call.result.shape != expected.shape:
        return Difference(direction, f"returns shape {call.result.shape}; expected {expected.shape}")
    if call.result.dtype != expected.dtype:
        return Difference(direction, f"returns dtype {call.result.dtype}; expected {expected.dtype}")
    return None


def _fitting(call: _Call, expected: Array) -> Array | None:
    """The result, if it can be computed with: a wrong type of array tells nothing of the cause."""
    fits = call.result is not None and call.result.shape == expected.shape and call.result.dtype == expected.dtype
    return call.result if fits else None


def _described(error: BaseException) -> str:
    first_line = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__


def _near_ties(case: Case, actual: Array | None, expected: Array) -> Array:
    """Rows whose mask has its 1 elsewhere, at the first of equals, as near as rounding can bring two probabilities."""
    assert actual is not None
    rows, choices = expected.shape
    if rows == 0:
        return np.zeros(rows, np.bool_)
    index = np.argmax(actual == 1, axis=-1)[:, None]
    one_hot = np.all(actual.astype(np.float64) == (np.arange(choices) == index), axis=-1)
    logits = case.logits.astype(np.float64)
    chosen = np.take_along_axis(logits, index, axis=-1)
    with np.errstate(all="ignore"):
        gap = (np.max(logits, axis=-1, keepdims=True) - logits) / case.temp
        within = gap <= tolerance.near_tie(case.logits, case.temp, case.logits.dtype, PROFILES["standard"])
    first = np.argmax(logits == chosen, axis=-1)[:, None] == index
    near = one_hot[:, None] & first & np.take_along_axis(within, index, axis=-1)
    return np.asarray(near[:, 0] & ~np.all(actual == expected, axis=-1))


def _compare_masks(actual: Array | None, expected: Array, rows: Array) -> Difference | None:
    """Exactly +0 and 1, or NaN."""
    assert actual is not None
    same = (actual == expected) & (np.signbit(actual) == np.signbit(expected)) | np.isnan(actual) & np.isnan(expected)
    return _first("forward", actual, expected, None, same, rows)


def _compare_gradients(
    case: Case, actual: Array | None, expected: Array, allowed: Array, rows: Array
) -> tuple[Difference | None, _Errors]:
    assert actual is not None
    wide, exact = actual.astype(np.float64), expected.astype(np.float64)
    with np.errstate(all="ignore"):
        error = np.abs(wide - exact)
        same = (error <= allowed) | (wide == exact) | np.isnan(wide) & np.isnan(exact)
        cotangent = np.where(case.logits == -np.inf, 0, case.grad_mask.astype(np.float64))
        broken = ~np.all(np.isfinite(cotangent), axis=-1, keepdims=True)
        same |= broken & ~np.isfinite(wide) & ~np.isfinite(exact)
        compared = np.isfinite(exact) & rows[:, None]
        error = np.where(np.isnan(error), np.inf, error)[compared]
        ulps = error / tolerance.ulp(exact, expected.dtype)[compared]
        fractions = np.where(error == 0, 0.0, error / allowed[compared])
    errors = _Errors(float(np.max(ulps)), float(np.max(fractions))) if error.size else _Errors()
    return _first("backward", actual, expected, allowed, same, rows), errors


def _first(
    direction: str, actual: Array, expected: Array, allowed: Array | None, same: Array, rows: Array
) -> Difference | None:
    """The first position, in C order, of the rows that count where two arrays are not the same."""
    different = ~same & rows[:, None]
    if not np.any(different):
        return None
    row, choice = (int(i) for i in np.unravel_index(np.argmax(different), different.shape))
    position, limit = (row, choice), 0.0 if allowed is None else float(allowed[row, choice])
    message = f"is {actual[position]!s}; expected {expected[position]!s}"
    if limit > 0:
        message += f", give or take {limit:.2g}"
    return Difference(direction, message, position, float(actual[position]), float(expected[position]), limit)
