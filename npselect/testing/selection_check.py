"""A whole selection layer judged: what it chooses, and both of its gradients."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from types import ModuleType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from npselect import straight_through
from npselect.testing.aliases import Array, LayerFunctions, Progress, Tensor
from npselect.testing.cases import rounded
from npselect.testing.check import name_of, versions
from npselect.testing.dtypes import floating_dtype
from npselect.testing.families import Family, family_of
from npselect.testing.implementation import OPTIONS, options_of
from npselect.testing.known import excused, known_failures
from npselect.testing.outcome import JUDGED, Difference, Outcome
from npselect.testing.profile import Profile
from npselect.testing.report import Report
from npselect.testing.selection_case import RESULTS, SelectionCase
from npselect.testing.selection_cases import LAYERS, selection_cases
from npselect.testing.selection_causes import SelectionObservation, likely_cause

__all__ = ["check_selection"]

_ARGUMENTS = {"forward": ("x", "logits", "temp"), "backward": ("grad_chosen", "x", "logits", "temp")}


@np.errstate(all="ignore")
def check_selection(
    layer: LayerFunctions,
    *,
    operator: ModuleType = straight_through,
    dtypes: npt.DTypeLike | Sequence[npt.DTypeLike] = "float32",
    temp: float = 0.6,
    known: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Judge a layer that selects one of K vectors: x and logits in, the chosen vector out, a gradient for both.

    The chosen vector must be exactly that of the selected index. The gradient of `x` is the cotangent there, exactly,
    summed over the rows that share `x`, and exactly 0 elsewhere. That of the logits has a bound that follows from the
    operations of an honest layer (`SelectionCase`): ``g_j = <grad_chosen, x_j>`` of every vector, the selected and the
    others, through the gradient of the operator.

    Parameters
    ----------
    layer : object or module
        With ``forward(x, logits, temp) -> chosen`` and ``backward(grad_chosen, x, logits, temp) -> (grad_x,
        grad_logits)`` over NumPy arrays: `x` of shape (K, D), a codebook that all rows share, `logits` of shape
        (rows, K), `grad_chosen` and `chosen` of shape (rows, D). For example of `npselect.testing.layer_from_torch`.
        Results have the dtype of the arguments, and are the caller's to keep; arguments are not written to. Both
        functions may take the keywords ``where`` and ``noise``. An attribute ``x_axes = (2, 3)`` declares that `x` may
        also have the shape (rows, K, D), ``x_axes = (3,)`` that it must. An attribute ``flushes_subnormals = True`` is
        as in `npselect.testing.check`. What is not declared is not asked.
    operator : module, optional
        How the index is selected, and differentiated: `npselect.straight_through`, or `npselect.gumbel_softmax`; then
        noise is given in every case, and the layer must take it.
    dtypes : dtype or sequence of dtypes, optional
        Some of float16, bfloat16, float32 and float64. In 16 bits, dot products must be accumulated in more than 16.
    temp : float, optional
        The temperature of most cases, rounded to the dtype.
    known : mapping of str to str, optional
        Failures that you know of, as in `npselect.testing.check`.
    progress : callable, optional
        Called as ``progress(done, total, id)`` before each case and once after the last one.

    Returns
    -------
    Report
        ``report.ok`` says whether all is well, ``str(report)`` tells.

    Raises
    ------
    TypeError
        The layer lacks `forward` or `backward`, or they cannot be called as above; `temp` is no number.
    ValueError
        An argument has a value that is not listed, `temp` is not positive and finite, an entry of `known` matches no
        case, or no case could be judged.
    ModuleNotFoundError
        bfloat16 was asked for and the package ml_dtypes is missing.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from npselect import selection, straight_through, testing
    >>> testing.check_selection(selection).ok
    True
    >>> def backward(grad_chosen, x, logits, temp):
    ...     grad_x, _ = selection.backward(grad_chosen, x, logits, temp)
    ...     mask = straight_through.forward(logits, temp)
    ...     return grad_x, straight_through.backward(mask * (grad_chosen @ x.T), logits, temp)
    >>> layer = SimpleNamespace(forward=selection.forward, backward=backward)
    >>> testing.check_selection(layer).likely_cause
    'grad_logits: <grad_chosen, x> of the selected vector alone'
    """
    if not isinstance(temp, Real):
        raise TypeError(f"temp is {temp!r}; it takes a number")
    several = isinstance(dtypes, (list, tuple, set, frozenset))
    forms = list(dict.fromkeys(floating_dtype(dtype) for dtype in (dtypes if several else [dtypes])))
    if not forms:
        raise ValueError("dtypes is empty; it takes at least one dtype")
    for form in forms:
        if not 0 < rounded(float(temp), form) < np.inf:
            raise ValueError(f"temp is {temp}, in {form.name} {rounded(temp, form)}; it must be positive and finite")
    family = family_of(operator, LAYERS)
    options = _options(layer, family)
    x_axes = tuple(getattr(layer, "x_axes", (2,)))
    profile = Profile("standard", flushes_subnormals=bool(getattr(layer, "flushes_subnormals", False)))
    asked = [
        case
        for form in forms
        for case in selection_cases(form, float(temp), operator=operator, options=options, x_axes=x_axes)
    ]
    known = known_failures(known, [case.id for case in asked])
    outcomes: list[Outcome] = []
    seen: list[SelectionObservation] = []
    for done, case in enumerate(asked):
        if progress is not None:
            progress(done, len(asked), case.id)
        outcome, observation = _judged(layer, case, profile)
        reproduce = _reproduce(case, float(temp), options, x_axes, outcome.difference)
        outcomes.append(excused(replace(outcome, reproduce=reproduce), known))
        if outcomes[-1].verdict in ("passed", "failed"):
            seen.append(observation)
    if progress is not None:
        progress(len(asked), len(asked), "")
    if not any(outcome.verdict in JUDGED for outcome in outcomes):
        raise ValueError(f"none of {len(asked)} cases could be judged: nothing was checked")
    return Report(
        name_of(layer),
        f"selection by {family.name}",
        tuple(name for name in OPTIONS if name in options),
        profile.flushes_subnormals,
        profile.normalises_logits,
        tuple(form.name for form in forms),
        float(temp),
        profile.name,
        profile.backend,
        tuple(outcomes),
        {},
        likely_cause(seen, profile) if any(outcome.verdict == "failed" for outcome in outcomes) else None,
        versions(),
        known=known,
    )


def _options(layer: LayerFunctions, family: Family) -> frozenset[str]:
    """Those of where and noise that both functions take."""
    taken = []
    for name, arguments in _ARGUMENTS.items():
        function, call = getattr(layer, name, None), f"{name}({', '.join(arguments)})"
        if not callable(function):
            raise TypeError(f"{name_of(layer)} has no function {call}")
        try:
            taken.append(options_of(function, arguments))
        except TypeError as error:
            raise TypeError(f"{name_of(layer)} cannot be called as {call}: {error}") from None
    options = frozenset(getattr(layer, "options", taken[0] & taken[1])) - {"axis"}
    for option in family.given:
        if option not in options:
            raise TypeError(f"{name_of(layer)} takes no {option}=, which operator={family.name} gives")
    return options & {"where", *family.given}


# ------------------------------------------------------------------------------------------------ asking


class _Call(NamedTuple):
    """How a function answered: with arrays by name, as they are and as they were; or with what went wrong."""

    arrays: dict[str, Tensor]
    copies: dict[str, Array | None]
    difference: Difference | None
    seconds: float


def _call(layer: LayerFunctions, direction: str, case: SelectionCase) -> _Call:
    given = {name: getattr(case, name) for name in _ARGUMENTS[direction]} | case.options
    copies = {name: value.copy(order="K") if isinstance(value, np.ndarray) else value for name, value in given.items()}
    names = RESULTS[:1] if direction == "forward" else RESULTS[1:]
    none: dict[str, Array | None] = dict.fromkeys(names)
    start = time.perf_counter()
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            answer = getattr(layer, direction)(
                *(copies[name] for name in _ARGUMENTS[direction]), **{name: copies[name] for name in case.options}
            )
    except (Exception, SystemExit) as error:
        message = f"raises {type(error).__name__}: {next(iter(str(error).splitlines()), 'no message')}"
        return _Call(dict(none), none, Difference(direction, message), time.perf_counter() - start)
    seconds = time.perf_counter() - start
    if direction == "forward":
        answer = (answer,)
    if not isinstance(answer, (tuple, list)) or len(answer) != len(names):
        message = f"returns {type(answer).__name__}; expected a tuple of {' and '.join(names)}"
        return _Call(dict(none), none, Difference(direction, message), seconds)
    for name, value in given.items():
        if isinstance(value, np.ndarray) and copies[name].tobytes() != value.tobytes():
            difference = Difference(direction, f"writes to its argument {name}")
            return _Call(dict(none), none, difference, seconds)
    arrays = dict(zip(names, answer, strict=True))
    return _Call(arrays, {name: np.array(value) for name, value in arrays.items()}, None, seconds)


def _judged(layer: LayerFunctions, case: SelectionCase, profile: Profile) -> tuple[Outcome, SelectionObservation]:
    again = "again" in case.flags
    if again:
        _ask_others(layer, case)
    calls = [_call(layer, direction, case) for direction in _ARGUMENTS]
    if again:
        _ask_others(layer, case)
    difference, ulp, fraction = _compared(case, calls, profile)
    if again and difference is None:
        changed = [
            name
            for call in calls
            for name, array in call.arrays.items()
            if np.asarray(array).tobytes() != np.asarray(call.copies[name]).tobytes()
        ]
        if changed:
            difference = Difference(changed[0], "is an array that a later call overwrites")
        elif later := _compared(case, [_call(layer, direction, case) for direction in reversed(_ARGUMENTS)], profile)[
            0
        ]:
            difference = replace(later, message=f"{later.message}, called again after other calls")
    judged = case.judged(profile)
    verdict = ("passed", "failed") if judged else ("agrees", "differs")
    outcome = Outcome(
        case.id,
        case.name,
        case.group,
        case.logits.dtype.name,
        case.note,
        verdict[difference is not None],
        rows=len(case.logits),
        judged_rows=len(case.logits) * judged,
        ulp=ulp,
        fraction=fraction,
        seconds=sum(call.seconds for call in calls),
        difference=difference,
    )
    return outcome, SelectionObservation(case, {name: array for call in calls for name, array in call.copies.items()})


def _ask_others(layer: LayerFunctions, case: SelectionCase) -> None:
    """Questions of the same shapes, whatever the answers."""
    other = replace(case, logits=case.logits[::-1], grad_chosen=case.grad_chosen[::-1], x=case.x[..., ::-1, :])
    for asked in (other, replace(other, temp=2 * case.temp)):
        for direction in _ARGUMENTS:
            _call(layer, direction, asked)


def _compared(case: SelectionCase, calls: list[_Call], profile: Profile) -> tuple[Difference | None, float, float]:
    first, worst = None, (np.nan, np.nan)
    for call in calls:
        first = first or call.difference
        for name, array in call.copies.items():
            if call.difference is None:
                given = call.arrays[name]
                difference, errors = case.compare(name, array if isinstance(given, np.ndarray) else given, profile)
                first = first or difference
                worst = (float(np.fmax(worst[0], errors.ulp)), float(np.fmax(worst[1], errors.fraction)))
    return first, *worst


def _reproduce(
    case: SelectionCase, temp: float, options: frozenset[str], x_axes: tuple[int, ...], difference: Difference | None
) -> str | None:
    """A line that shows a difference, where `implementation` is what was checked."""
    if difference is None:
        return None
    given = [repr(case.logits.dtype.name), repr(temp)]
    if case.question.family.given:
        given.append(f"operator=npselect.{case.question.family.name}")
    given += [f"options={sorted(options)}"] * bool(options) + [f"x_axes={x_axes}"]
    found = f"case = next(c for c in npselect.testing.selection_cases({', '.join(given)}) if c.id == {case.id!r}); "
    direction = "forward" if difference.direction in ("forward", "chosen") else "backward"
    arguments = [f"case.{name}" for name in _ARGUMENTS[direction]] + ["**case.options"] * bool(case.options)
    call = f"implementation.{direction}({', '.join(arguments)})"
    if difference.position is None:
        return f"{found}print({call})"
    at = "" if direction == "forward" else f"[{RESULTS.index(difference.direction) - 1}]"
    position = list(difference.position)
    return f"{found}print({call}{at}{position}, case.{difference.direction}{position})"
