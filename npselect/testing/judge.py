"""Asking: one case put to an implementation and to the oracle, and how it went."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from npselect.testing.aliases import Array, SelectionFunctions
from npselect.testing.calls import OVERWRITTEN, Call, ask, fault, fitting, refusal
from npselect.testing.case import Case
from npselect.testing.compare import Errors, compare_gradients, compare_masks, within_rounding
from npselect.testing.implementation import for_forward, options_of
from npselect.testing.outcome import Difference, Outcome
from npselect.testing.profile import Profile
from npselect.testing.temperature import bound, compare_temps, judged_temps

__all__ = ["Observation", "judge", "not_asked"]


@dataclass(frozen=True, eq=False)
class Observation:
    """What an implementation returned for one case, for whoever looks for a cause. All arrays are (rows, K).

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
    grad_temp : ndarray or None
        The answer, whatever its shape.
    temps, temps_tolerance : ndarray or None
        Which gradients of temperatures were judged, bool in the temperature's shape, and their tolerance; None if the
        implementation has no `backward_temp`.
    """

    case: Case
    rows: Array
    near_ties: Array
    mask: Array | None
    grad_logits: Array | None
    expected_mask: Array
    expected_grad_logits: Array
    tolerance: Array
    grad_temp: Array | None = None
    temps: Array | None = None
    temps_tolerance: Array | None = None


class _Comparison(NamedTuple):
    """Both answers beside the oracle's."""

    difference: Difference | None
    near_ties: Array
    errors: Errors


_LARGEST_BY_TEMP = 1 << 15  # entries
_AGAIN = ", called again after other calls"


def judge(
    implementation: SelectionFunctions, case: Case, profile: Profile, find: str | None = None
) -> tuple[Outcome, Observation | None]:
    """Ask `implementation` and the oracle the same question, and compare.

    `find` is what `find_case` must be given to find the case, if it does. The second result is None where the oracle's
    answer is an error, or where nothing is judged.
    """
    outcome, observation = _judged(implementation, case, profile)
    if outcome.difference is None:
        return outcome, observation
    least = len(for_forward(implementation.forward, case.options)) < len(case.options)
    forward = "forward_options" if least else "options"
    return replace(outcome, reproduce=_reproduce(case, outcome.difference, find, forward)), observation


def _judged(implementation: SelectionFunctions, case: Case, profile: Profile) -> tuple[Outcome, Observation | None]:
    again = "again" in case.flags
    if again:
        _ask_others(implementation, case)
    calls = {direction: ask(implementation, direction, case) for direction in directions(implementation, case)}
    if again:
        _ask_others(implementation, case)
    seconds = sum(call.seconds for call in calls.values())
    if "error" in case.flags:
        difference = next(filter(None, map(refusal, calls.values())), None)
        strict = profile.name == "strict"
        return _outcome(case, strict, difference, judged_rows=strict * len(case.logits), seconds=seconds), None

    rows = case.judged(profile)
    judged = bool(np.any(rows)) or len(rows) == 0
    shown = rows if judged else np.ones_like(rows)
    difference, near, errors = _compared(case, calls, shown, profile)
    if again and difference is None:
        repeated = {direction: ask(implementation, direction, case) for direction in reversed(calls)}
        if later := _compared(case, repeated, shown, profile).difference:
            difference = replace(later, message=later.message + _AGAIN)
    if any(call.error for call in calls.values()) and not np.all(rows):
        judged = False  # the error may be about the rows that are not judged
    close, earlier = (some[rows] for some in _close_rows(case, profile))
    outcome = _outcome(
        case,
        judged,
        difference,
        judged_rows=int(np.sum(rows)),
        near_ties=int(np.sum(near)),
        close_rows=int(np.count_nonzero(close)),
        explained=float(np.count_nonzero(earlier)),
        ulp=errors.ulp,
        fraction=errors.fraction,
        seconds=seconds,
    )
    if not judged or case.origin is not None or "extreme" in case.flags:
        return outcome, None
    mask, grad_logits = case.expected(profile.backend)
    answers = fitting(case, calls["forward"], mask), fitting(case, calls["backward"], grad_logits)
    observation = Observation(
        case, rows, near, *answers, case.rows(mask), case.rows(grad_logits), case.allowed(profile)
    )
    if by_temp := calls.get("backward_temp"):
        temps, limits = judged_temps(case, profile), bound(case, profile)
        observation = replace(observation, grad_temp=by_temp.result, temps=temps, temps_tolerance=limits)
    return outcome, observation


def directions(implementation: SelectionFunctions, case: Case) -> tuple[str, ...]:
    """The functions that a case is put to: both or, if there is one that takes its options, `backward_temp` too.

    Not in the largest cases: the oracle's sums are exact, and its time is theirs. Nor where its answers are those of
    another case.
    """
    by_temp = getattr(implementation, "backward_temp", None)
    if by_temp is None or not case.family.learns_temp or case.origin is not None or case.logits.size > _LARGEST_BY_TEMP:
        return ("forward", "backward")
    takes = getattr(implementation, "options", None)
    takes = options_of(by_temp, ("grad_mask", "logits", "temp")) if takes is None else takes
    return ("forward", "backward", *["backward_temp"] * (takes >= case.options.keys()))


def _ask_others(implementation: SelectionFunctions, case: Case) -> None:
    """Questions of the same shape, whatever the answers: at the same temperature, and at another."""
    other = replace(case, logits=case.logits[::-1].copy(), grad_mask=case.grad_mask[::-1].copy())
    doubled = None if case.row_temp is None else case.row_temp + case.row_temp
    for asked in (other, replace(other, temp=2 * case.temp, row_temp=doubled)):
        for direction in directions(implementation, case):
            ask(implementation, direction, asked)


def _compared(case: Case, calls: dict[str, Call], rows: Array, profile: Profile) -> _Comparison:
    """Part by part, as far as there are answers to be compared; the gradient of the temperature as a whole."""
    forward, backward = calls["forward"], calls["backward"]
    first, second = fault(forward, case.logits), fault(backward, case.logits)
    mask = None if first is not None else forward.result
    grad_logits = None if second is not None else backward.result
    near, errors = np.zeros_like(rows), Errors()
    for some, part in case.parts():
        expected_mask, expected_grad_logits = part.expected(profile.backend)
        if mask is not None:
            difference, near[some] = compare_masks(part, mask[some], expected_mask, rows[some], profile)
            first = first or _moved(difference, some)
        if grad_logits is not None:
            allowed = part.allowed(profile)
            difference, more = compare_gradients(part, grad_logits[some], expected_grad_logits, rows[some], allowed)
            second, errors = second or _moved(difference, some), errors.worse(more)
    third = None
    if by_temp := calls.get("backward_temp"):
        judged = judged_temps(case, profile)
        if by_temp.error is None or np.all(judged):
            third = fault(by_temp, case.grad_temp)
        if third is None and by_temp.result is not None:
            third, more = compare_temps(case, by_temp.result, case.grad_temp, judged, profile)
            errors = errors.worse(more)
    return _Comparison(first or second or third, near, errors)


def _moved(difference: Difference | None, rows: slice) -> Difference | None:
    """What was found in a part, with its position in the whole."""
    if difference is None or difference.position is None or rows.start is None:
        return difference
    row, *rest = difference.position
    return replace(difference, position=(rows.start + row, *rest))


def not_asked(case: Case, missing: str) -> Outcome:
    """A case with an option that the implementation does not take."""
    note = f"{case.note}; the implementation takes no {missing}"
    return Outcome(case.id, case.name, case.group, case.logits.dtype.name, note, "not asked")


def _outcome(case: Case, judged: bool, difference: Difference | None, **figures: Any) -> Outcome:
    if judged:
        verdict = "passed" if difference is None else "failed"
    else:
        verdict = "agrees" if difference is None else "differs"
    return Outcome(
        case.id,
        case.name,
        case.group,
        case.logits.dtype.name,
        case.note,
        verdict,
        rows=len(case.rows(case.logits)),
        **figures,
        difference=difference,
    )


def _reproduce(case: Case, difference: Difference, find: str | None, forward: str) -> str:
    """A line that shows a difference; `forward` is the name of the options that forward is given."""
    given = "case.temp" if case.row_temp is None else "case.row_temp"

    def line(direction: str, rows: str = "", temp: str = given) -> str:
        options = forward if direction == "forward" else "options"
        arguments = [f"case.logits{rows}", temp, *[f"**case.{options}"] * bool(case.options)]
        if direction != "forward":
            arguments.insert(0, f"case.grad_mask{rows}")
        return f"implementation.{direction}({', '.join(arguments)})"

    found = f"case = npselect.testing.find_case({find}); "
    if find is None:
        found = f"case = next(case for case in cases if case.id == {case.id!r}); "
    calls = [(direction, temp) for temp in (given, f"2 * {given}") for direction in ("forward", "backward")]
    others = "".join(f"{line(direction, '[::-1]', temp)}; " for direction, temp in calls)
    this = line(difference.direction)
    if difference.message == OVERWRITTEN:
        return f"{found}first = {this}; kept = first.copy(); {others}print((first != kept).sum())"
    if "again" in case.flags:
        found += others
    if difference.position is None:
        return f"{found}print({this})"
    at = f"[{', '.join(map(str, difference.position))}]" if difference.position else ""
    right = {"forward": "mask", "backward": "grad_logits", "backward_temp": "grad_temp"}[difference.direction]
    return f"{found}print({this}{at}, case.{right}{at})"


def _close_rows(case: Case, profile: Profile) -> tuple[Array, Array]:
    """In which rows rounding may bring others up to the selected one, and in which it takes one of them.

    Where it makes some of them equal, the first of these is taken: another than the right one only where one stands
    before it. That some become larger is left to chance. Cases with the flag "ties" were made for it, and do not count.
    """
    if (
        case.origin is not None and case.small is not None
    ):  # whose columns lie in another order: any of them may stand before it
        close, _ = _close_rows(case.small, profile)
        return close[case.origin.rows], close[case.origin.rows]
    w = case.chosen_from
    if profile.name == "strict" or "ties" in case.flags or w.size == 0:
        none = np.zeros(len(w), np.bool_)
        return none, none
    smaller = w < np.max(w, axis=-1, keepdims=True)
    others = within_rounding(case, profile) & smaller
    before = np.arange(w.shape[-1]) < np.argmax(w, axis=-1)[:, None]
    return np.any(others, axis=-1), np.any(others & before, axis=-1)
