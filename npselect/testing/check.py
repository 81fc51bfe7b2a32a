"""The whole check: prepare, ask case after case, report."""

from __future__ import annotations

import inspect
import platform
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from npselect.backends import choose
from npselect.testing.cases import Case, rounded
from npselect.testing.cases import cases as all_cases
from npselect.testing.causes import likely_cause
from npselect.testing.judge import PROFILES, judge
from npselect.testing.report import Outcome, Report

__all__ = ["DTYPES", "check", "floating_dtype", "name_of", "versions"]

DTYPES = ("float16", "bfloat16", "float32", "float64")


def check(
    implementation: Any,
    *,
    temp: float = 0.6,
    dtype: npt.DTypeLike = "float32",
    backend: str = "reference",
    profile: str = "standard",
    cases: Iterable[Case] | None = None,
    progress: Callable[[int, int, str], object] | None = None,
) -> Report:
    """Run an implementation and the oracle on the same cases and compare.

    Each value is judged by a bound that follows from the operations behind it (`npselect.testing.tolerance`); there is
    no common tolerance. The mask must be exact.

    Parameters
    ----------
    implementation : object or module
        With ``forward(logits, temp) -> mask`` and ``backward(grad_mask, logits, temp) -> grad_logits`` over NumPy
        arrays of shape (rows, K) and dtype `dtype`; `temp` is a float. Results have the shape and dtype of `logits`,
        and arguments are not written to.
    temp : float, optional
        The temperature of most cases. It is rounded to `dtype` before it is handed over, so that both sides compute
        with the same number.
    dtype : {"float16", "bfloat16", "float32", "float64"}, optional
        Of the arrays, and what the implementation is held to. In 16 bits, sums must be accumulated in more than 16.
    backend : {"reference", "cpu"}, optional
        The tier that serves as the oracle. Its own error is allowed for.
    profile : {"standard", "strict"}, optional
        "standard" accepts every honest ``p = softmax(logits / temp); p * (g - sum(p * g)) / temp``. It judges finite
        logits and -inf candidates; where textbooks differ (NaN, +inf, no candidate at all, a cotangent that is not
        finite, a temperature that is none, overflow of logits / temp), the outcome is shown and does not count. Another
        index than the oracle's is accepted if rounding can swap the two probabilities, but never a later one of equals.
        "strict" judges everything, by the bound of npselect's own tiers.
    cases : iterable of Case, optional
        What to ask; all of `npselect.testing.cases` by default.
    progress : callable, optional
        Called as ``progress(done, total, name)`` before each case and once after the last one.

    Returns
    -------
    Report
        ``report.ok`` says whether all is well, ``str(report)`` shows a table. An exception that the implementation
        raises in a case that is judged is a failure of that case.

    Raises
    ------
    TypeError
        The implementation lacks `forward` or `backward`, or they cannot be called as above.
    ValueError
        An argument has a value that is not listed, `temp` is not positive and finite, or no case could be judged.
    ModuleNotFoundError
        bfloat16 was asked for and the package ml_dtypes is missing.
    RuntimeError
        The tier that was named does not run here.

    Examples
    --------
    >>> from npselect import straight_through, testing
    >>> report = testing.check(straight_through)
    >>> print(report.summary[-1])
    PASSED: 29 of 29 cases
    """
    if profile not in PROFILES:
        raise ValueError(f"profile is {profile!r}; it takes one of {', '.join(map(repr, PROFILES))}")
    form = floating_dtype(dtype)
    given, temp = temp, rounded(temp, form)
    if not (np.isfinite(temp) and temp > 0):
        raise ValueError(f"temp is {given}, in {form.name} {temp}; it must be positive and finite")
    choose(backend)
    _check_signature(implementation, "forward", ("logits", "temp"))
    _check_signature(implementation, "backward", ("grad_mask", "logits", "temp"))

    asked = list(all_cases(form, temp) if cases is None else cases)
    outcomes: list[Outcome] = []
    observations = []
    for done, case in enumerate(asked):
        if progress is not None:
            progress(done, len(asked), case.name)
        outcome, observation = judge(implementation, case, profile, backend)
        outcomes.append(outcome)
        if observation is not None:
            observations.append(observation)
    if progress is not None:
        progress(len(asked), len(asked), "")
    if not any(outcome.verdict in ("passed", "failed") for outcome in outcomes):
        raise ValueError(f"none of {len(asked)} cases could be judged: nothing was checked")

    failed = any(outcome.verdict == "failed" for outcome in outcomes)
    cause = likely_cause(observations) if failed else None
    return Report(name_of(implementation), form.name, temp, profile, backend, tuple(outcomes), cause, versions())


def floating_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """One of `DTYPES`."""
    if isinstance(dtype, str) and dtype == "bfloat16":
        try:
            bfloat16: np.dtype[Any] = np.dtype(import_module("ml_dtypes").bfloat16)
            return bfloat16
        except ImportError:
            raise ModuleNotFoundError("dtype 'bfloat16' needs the package ml_dtypes: pip install ml_dtypes") from None
    try:
        form: np.dtype[Any] | None = np.dtype(dtype)
    except TypeError:
        form = None
    if form is None or form.name not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; it takes one of {', '.join(map(repr, DTYPES))}")
    return form


def _check_signature(implementation: Any, name: str, arguments: tuple[str, ...]) -> None:
    function = getattr(implementation, name, None)
    call = f"{name}({', '.join(arguments)})"
    if not callable(function):
        raise TypeError(f"{name_of(implementation)} has no function {call}")
    try:
        signature = inspect.signature(function)
    except ValueError:  # builtins may have none
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        hint = "; it is a class, give an instance" if inspect.isclass(implementation) else ""
        raise TypeError(f"{name_of(implementation)} cannot be called as {call}: {error}{hint}") from None


def name_of(implementation: Any) -> str:
    """What a report calls somebody's function, object or module."""
    return str(getattr(implementation, "__name__", type(implementation).__name__))


def versions() -> dict[str, str]:
    """Of Python and the packages involved."""
    import npselect

    return {"npselect": npselect.__version__, "numpy": np.__version__, "python": platform.python_version()}
