"""The whole check: prepare, ask case after case, report."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from npselect import straight_through
from npselect.testing import temperature_causes
from npselect.testing.aliases import Dtype, Progress, SelectionFunctions, Tensor
from npselect.testing.case import Case
from npselect.testing.cases import all_cases, rounded
from npselect.testing.causes import likely_cause, setting_cause
from npselect.testing.dtypes import floating_dtype
from npselect.testing.families import Family, family_of
from npselect.testing.implementation import BACKWARD_ALONE, DECLARED, OPTIONS, options_of
from npselect.testing.judge import Observation, judge, not_asked
from npselect.testing.known import excused, known_failures
from npselect.testing.outcome import JUDGED, Outcome
from npselect.testing.profile import Profile, profile_name
from npselect.testing.report import Report
from npselect.tiers import choose

__all__ = ["assert_conforms", "check", "name_of", "versions"]

_COMMON = ("axis", "where", "noise")
"""Options that are told of, whatever the operator."""


@np.errstate(all="ignore")
def check(
    implementation: SelectionFunctions,
    *,
    operator: ModuleType = straight_through,
    dtypes: npt.DTypeLike | Sequence[npt.DTypeLike] | None = None,
    temp: float | None = None,
    profile: str = "standard",
    backend: str = "reference",
    cases: Iterable[Case] | None = None,
    known: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Run an implementation and the oracle on the same cases and compare.

    Each value is judged by a bound that follows from the operations behind it (`npselect.testing.tolerance`); there is
    no common tolerance. The mask must be exact.

    Parameters
    ----------
    implementation : object or module
        With ``forward(logits, temp) -> mask`` and ``backward(grad_mask, logits, temp) -> grad_logits`` over NumPy
        arrays of shape (rows, K), for example of `npselect.testing.from_torch`; `temp` is a float. Results have the
        shape and dtype of `logits`, depend on the arguments alone, and are the caller's to keep; arguments are not
        written to. Both functions may take the keywords ``axis``, ``where``, ``noise`` and ``index``, as in
        `npselect.reinmax`, and ``forward_temp``, ``unimix`` and ``gap``, as in `npselect.gumbel_softmax`,
        `npselect.categorical` and `npselect.gapped`, and backward ``sample_noise``, as in `npselect.gumbel_rao`; what
        they do not take is not asked, and the report says so. With
        ``axis``, arrays have one, two or three axes. An attribute ``flushes_subnormals = True`` declares that the
        arithmetic takes subnormal numbers for 0, ``normalises_logits = True`` that the logits' logsumexp is subtracted
        from them first, ``row_temp = True`` that `temp` may also be an array, in the dtype of the logits, that
        broadcasts against them with length 1 along the axis of the candidates: a temperature for each row. A function
        ``backward_temp(grad_mask, logits, temp) -> grad_temp``, with the same options, returns the gradient of `temp`
        in its shape; it is asked in most cases of up to 32,768 entries. Both are asked of what has them.
    operator : module, optional
        `npselect.straight_through`; or `npselect.gumbel_softmax`: then noise is given in every case, and the
        implementation must take it; or `npselect.reinmax`, `npselect.categorical`, `npselect.gapped` or
        `npselect.gumbel_rao`: likewise an index, of int64 in the shape of the logits without the axis, as frameworks
        draw one; and in the last of them the noise of the samples given that choice, which forward may take too. (What
        draws its own noise is for `check_sampling_op`.) What is called straight-through of a sample is one of three
        things, which `npselect.categorical` tells apart; the cause says which was seen, or of which other operator the
        gradient is.
    dtypes : dtype or sequence of dtypes, optional
        Of the arrays, and what the implementation is held to: some of float16, bfloat16, float32 and float64, NumPy's
        or a framework's (``torch.float32``); by default those of `cases`, or float32. In 16 bits, sums must be
        accumulated in more than 16.
    temp : float, optional
        The temperature of most cases, by default the operator's: 0.6, or 1.0 where a sample is drawn of the logits
        alone. It is rounded to the dtype before it is handed over, so that both sides compute with the same number.
    profile : {"standard", "strict"}, optional
        "standard" accepts every honest ``p = softmax(logits / temp); p * (g - sum(p * g)) / temp``. It judges finite
        logits and -inf candidates; where textbooks differ (NaN, +inf, no candidate at all, a cotangent that is not
        finite, a temperature that is none, overflow of logits / temp; arrays of one axis or of three, unless ``axis``
        is given), the outcome is shown and does not count. Another index than the oracle's is accepted if rounding can
        swap the two probabilities, but never a later one of equals, and not more often than rounding does. "strict"
        judges everything, by the bound of npselect's own tiers.
    backend : {"reference", "cpu"}, optional
        The tier that serves as the oracle. Its own error is allowed for.
    cases : iterable of Case, optional
        What to ask; everything by default. Cases of other dtypes or of another operator are left out.
    known : mapping of str to str, optional
        Failures that you know of: ids of cases, or patterns of them as in `fnmatch.fnmatchcase`, and reasons. A case
        that fails and that one matches is shown with the reason and does not count. A pattern may cover cases that
        pass. But if none of its cases fails, the report does: what is mended must leave the list.
    progress : callable, optional
        Called as ``progress(done, total, id)`` before each case and once after the last one.

    Returns
    -------
    Report
        ``report.ok`` says whether all is well, ``str(report)`` tells. An exception that the implementation raises in a
        case that is judged is a failure of that case; its warnings, and NumPy's floating-point errors, are ignored
        whatever `numpy.seterr` says, so that the report is the same under any state.

    Raises
    ------
    TypeError
        The implementation lacks `forward` or `backward`, or they cannot be called as above; `temp` is no number.
    ValueError
        An argument has a value that is not listed, `temp` is not positive and finite, an entry of `known` matches no
        case, or no case could be judged.
    ModuleNotFoundError
        bfloat16 was asked for and the package ml_dtypes is missing.
    RuntimeError
        The tier that was named does not run here.

    Examples
    --------
    >>> from npselect import straight_through, testing
    >>> report = testing.check(straight_through)
    >>> print(report.summary[-1])
    PASSED: 104 of 104 cases

    A sampled index is given where the operator is `npselect.reinmax`:

    >>> from npselect import reinmax
    >>> def forgets_the_sample(grad_mask, logits, temp, *, index):
    ...     return straight_through.backward(grad_mask, logits, temp)
    >>> implementation = testing.from_array_functions(reinmax.forward, forgets_the_sample)
    >>> testing.check(implementation, operator=reinmax).likely_cause
    'backward: the gradient of straight-through alone'

    A failure that is known must stay one until it leaves the list:

    >>> def backward(grad_mask, logits, temp):
    ...     return straight_through.backward(grad_mask, logits, temp) + 0 * logits  # NaN at -inf
    >>> implementation = testing.from_array_functions(straight_through.forward, backward)
    >>> cases = [testing.find_case("float32/edge/-inf"), testing.find_case("float32/edge/ties")]
    >>> report = testing.check(implementation, cases=cases, known={"float32/edge/-inf": "issue 12"})
    >>> print(report.summary[-1])
    PASSED: 1 of 2 cases, and 1 known to fail
    """
    profile_name(profile)
    given = None if cases is None else list(cases)
    forms = _dtypes(dtypes, given)
    family = family_of(operator)
    temp = family.temp if temp is None else temp
    if not isinstance(temp, Real):
        raise TypeError(f"temp is {temp!r}; it takes a number")
    temp = float(temp)
    for form in forms:
        if not (np.isfinite(rounded(temp, form)) and rounded(temp, form) > 0):
            raise ValueError(f"temp is {temp}, in {form.name} {rounded(temp, form)}; it must be positive and finite")
    choose(backend)
    options = _options(implementation, family)
    accepted = Profile(profile, backend, **{name: bool(getattr(implementation, name, False)) for name in DECLARED})
    row_temp = bool(getattr(implementation, "row_temp", False))
    by_temp = family.learns_temp and _by_temp(implementation)

    if given is None:
        learned = bool(row_temp or by_temp)
        asked = [case for form in forms for case in all_cases(form, temp, operator, learned_temp=learned)]
        asked = [case for case in asked if row_temp or case.row_temp is None]
    else:
        asked = [case for case in given if case.logits.dtype in forms and case.family is family]
    known = known_failures(known, [case.id for case in asked])
    outcomes: list[Outcome] = []
    observations: list[Observation] = []
    for done, case in enumerate(asked):
        if progress is not None:
            progress(done, len(asked), case.id)
        if missing := [name for name in case.needs if name not in options and not (row_temp and name == "row_temp")]:
            outcomes.append(not_asked(case, " and no ".join(missing)))
            continue
        find = getattr(case, "found_by", None)  # of one that is known to be what `find_case` finds
        if cases is None:
            find = f"{case.id!r}{'' if temp == family.temp else f', temp={temp!r}'}"
        outcome, observation = judge(implementation, case, accepted, find)
        outcomes.append(excused(outcome, known))
        if observation is not None and outcomes[-1].verdict != "known":
            observations.append(observation)
    if progress is not None:
        progress(len(asked), len(asked), "")
    if not any(outcome.verdict in JUDGED for outcome in outcomes):
        count = len(asked if given is None else given)
        left_out = f", {count - len(asked)} of them being of other dtypes or of another operator" * (count > len(asked))
        why = next((outcome.note.rpartition("; ")[2] for outcome in outcomes), "nothing was checked")
        why = why if all(outcome.verdict == "not asked" for outcome in outcomes) else "nothing was checked"
        raise ValueError(f"none of {count} cases could be judged{left_out}: {why}")

    failed = any(outcome.verdict == "failed" for outcome in outcomes)
    return Report(
        name_of(implementation),
        family.name,
        tuple(name for name in OPTIONS if name in options and (name in _COMMON or name in family.takes)),
        accepted.flushes_subnormals,
        accepted.normalises_logits,
        tuple(form.name for form in forms),
        temp,
        profile,
        backend,
        tuple(outcomes),
        _near_ties_allowed(outcomes),
        _cause(observations) if failed else None,
        versions(),
        row_temp,
        by_temp,
        known,
    )


def assert_conforms(implementation: SelectionFunctions, **options: Any) -> None:
    """Raise AssertionError, with the report as its message, unless `implementation` passes `check`.

    Parameters
    ----------
    implementation, **options
        As in `check`, which see also for other errors.

    Raises
    ------
    AssertionError
        A case that is judged has failed.

    Examples
    --------
    >>> from npselect import gumbel_softmax, testing
    >>> testing.assert_conforms(gumbel_softmax, operator=gumbel_softmax)
    """
    __tracebackhide__ = True  # of pytest
    report = check(implementation, **options)
    if not report.ok:
        raise AssertionError(str(report))


def _cause(observations: Sequence[Observation]) -> str | None:
    """Of what is wrong with one temperature and no settings; or else with these; or with many, or their gradients."""
    plain = [seen for seen in observations if seen.case.row_temp is None]
    cause = likely_cause([seen for seen in plain if not seen.case.settings])
    cause = cause or setting_cause([seen for seen in plain if seen.case.settings])
    return "; ".join(filter(None, (cause, temperature_causes.likely_cause(observations, alone=cause is None)))) or None


def _near_ties_allowed(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """In how many rows of a dtype another index may be.

    As many as equal numbers explain; of the other close rows, what exp and rounding turn around by chance: a few, five
    times the root of their number.
    """
    limits = {}
    for dtype in dict.fromkeys(outcome.dtype for outcome in outcomes):
        close_rows = sum(outcome.close_rows for outcome in outcomes if outcome.dtype == dtype)
        explained = sum(outcome.explained for outcome in outcomes if outcome.dtype == dtype)
        if close_rows:
            limits[dtype] = int(explained + 5 * (close_rows - explained) ** 0.5 + 1)
    return limits


def _dtypes(dtypes: Tensor, cases: list[Case] | None) -> list[Dtype]:
    if dtypes is None:
        dtypes = [case.logits.dtype for case in cases] if cases else ["float32"]
    several = isinstance(dtypes, (list, tuple, set, frozenset))
    forms = list(dict.fromkeys(floating_dtype(dtype) for dtype in (dtypes if several else [dtypes])))
    if not forms:
        raise ValueError("dtypes is empty; it takes at least one dtype")
    return forms


def _options(implementation: SelectionFunctions, family: Family) -> frozenset[str]:
    """Which of the options both functions take, or backward alone where forward need not."""
    forward = _taken(implementation, "forward", ("logits", "temp")).union(BACKWARD_ALONE)
    backward = _taken(implementation, "backward", ("grad_mask", "logits", "temp"))
    options = frozenset(getattr(implementation, "options", forward & backward))
    for option in family.given:
        if option not in options:
            raise TypeError(
                f"{name_of(implementation)} takes no {option}=, which operator={family.name} gives; what draws its own "
                "noise is for npselect.testing.check_sampling_op"
            )
    return options


def _by_temp(implementation: SelectionFunctions) -> bool:
    """Whether it declares the gradient of the temperature; a `TypeError` if that cannot be called."""
    if getattr(implementation, "backward_temp", None) is None:
        return False
    _taken(implementation, "backward_temp", ("grad_mask", "logits", "temp"))
    return True


def _taken(implementation: SelectionFunctions, name: str, arguments: tuple[str, ...]) -> frozenset[str]:
    function = getattr(implementation, name, None)
    call = f"{name}({', '.join(arguments)})"
    if not callable(function):
        raise TypeError(f"{name_of(implementation)} has no function {call}")
    try:
        return options_of(function, arguments)
    except TypeError as error:
        is_class = isinstance(implementation, type)
        hint = "; it is a class, give an instance" if is_class else ""
        raise TypeError(f"{name_of(implementation)} cannot be called as {call}: {error}{hint}") from None


def name_of(implementation: object) -> str:
    """What a report calls somebody's function, object or module."""
    return str(getattr(implementation, "__name__", type(implementation).__name__))


def versions() -> dict[str, str]:
    """Of Python and the packages involved."""
    import npselect

    return {"npselect": npselect.__version__, "numpy": np.__version__, "python": platform.python_version()}
