"""A gradient at the level of vectors judged: the copy of VQ-VAEs, or the rotation trick."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from npselect import selection
from npselect.testing import tolerance
from npselect.testing.aliases import Array, LayerFunctions, Progress
from npselect.testing.check import name_of, versions
from npselect.testing.compare import Errors, bits, malformed
from npselect.testing.dtypes import floating_dtype
from npselect.testing.explain import Answer, explain
from npselect.testing.known import excused, known_failures
from npselect.testing.outcome import Difference, Outcome
from npselect.testing.report import Report
from npselect.testing.vector_case import VectorCase, vector_cases
from npselect.testing.vector_causes import mistakes, predicted_within

__all__ = ["check_vector_gradient"]

_ARGUMENTS = {"forward": ("e", "q"), "backward": ("grad", "e", "q")}


class _Report(Report):
    """A report of what has no temperature."""

    @property
    def heading(self) -> list[str]:
        """The lines above the tables: what was checked."""
        return [
            f"{self.implementation}, checked with npselect {self.versions['npselect']}: {self.operator}, "
            f"oracle {self.backend}",
            f"dtype {' '.join(self.dtypes)}",
            "",
        ]


@np.errstate(all="ignore")
def check_vector_gradient(
    layer: LayerFunctions,
    *,
    operator: ModuleType = selection.rotation,
    dtypes: npt.DTypeLike | Sequence[npt.DTypeLike] = "float32",
    known: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Judge a quantiser's gradient: the encoder's output e and the code q in, q out, a gradient for e.

    Every entry has a bound, which follows from the operations of an honest implementation of the published lines.
    Forward, ``e + (q - e)`` and ``lambda R e`` may differ from q by rounding. Zero vectors and opposite ones are shown,
    not judged, for the rotation: textbooks disagree there.

    Parameters
    ----------
    layer : object or module
        With ``forward(e, q) -> q`` and ``backward(grad, e, q) -> grad_e`` over NumPy arrays of shape (rows, D). Results
        have the dtype of the arguments; arguments are not written to.
    operator : module, optional
        `npselect.selection.rotation` or `npselect.selection.identity`.
    dtypes : dtype or sequence of dtypes, optional
        Some of float16, bfloat16, float32 and float64.
    known : mapping of str to str, optional
        Failures that you know of, as in `npselect.testing.check`.
    progress : callable, optional
        Called as ``progress(done, total, id)`` before each case and once after the last one.

    Returns
    -------
    Report
        ``report.ok`` says whether all is well, ``str(report)`` tells. Its `temp` means nothing.

    Raises
    ------
    TypeError
        The layer lacks `forward` or `backward`.
    ValueError
        An argument has a value that is not listed, or an entry of `known` matches no case.
    ModuleNotFoundError
        bfloat16 was asked for and the package ml_dtypes is missing.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from npselect import selection, testing
    >>> testing.check_vector_gradient(selection.rotation).ok
    True
    >>> copy = SimpleNamespace(forward=selection.identity.forward, backward=selection.identity.backward)
    >>> testing.check_vector_gradient(copy).likely_cause
    'the cotangent as it is: the copy, no rotation'
    """
    if operator not in (selection.identity, selection.rotation):
        raise ValueError(f"operator is {operator!r}; it takes npselect.selection.rotation or .identity")
    for name, arguments in _ARGUMENTS.items():
        if not callable(getattr(layer, name, None)):
            raise TypeError(f"{name_of(layer)} has no function {name}({', '.join(arguments)})")
    several: Any = dtypes if isinstance(dtypes, (list, tuple, set, frozenset)) else [dtypes]
    forms = list(dict.fromkeys(floating_dtype(dtype) for dtype in several))
    if not forms:
        raise ValueError("dtypes is empty; it takes at least one dtype")
    asked = [case for form in forms for case in vector_cases(form, operator)]
    known = known_failures(known, [case.id for case in asked])
    outcomes, answers = [], []
    for done, case in enumerate(asked):
        if progress is not None:
            progress(done, len(asked), case.id)
        outcome, actual = _judged(layer, case)
        outcomes.append(excused(outcome, known))
        if case.judged:
            counts = np.ones(case.e.shape, np.bool_)
            answer = Answer(case, counts, actual, case.right("backward"), predicted_within(case))
            answers.append(answer.as_one_group())
    if progress is not None:
        progress(len(asked), len(asked), "")
    failed = any(outcome.verdict == "failed" for outcome in outcomes)
    return _Report(
        name_of(layer),
        operator.__name__.removeprefix("npselect."),
        (),
        False,
        False,
        tuple(form.name for form in forms),
        1.0,
        "standard",
        "reference",
        tuple(outcomes),
        {},
        explain(answers, mistakes(operator)) if failed else None,
        versions(),
        known=known,
    )


# ------------------------------------------------------------------------------------------------ asking


def _judged(layer: LayerFunctions, case: VectorCase) -> tuple[Outcome, Array | None]:
    """How a case went, and the gradient that was returned."""
    first, worst, returned, seconds = None, Errors(), None, 0.0
    for direction, names in _ARGUMENTS.items():
        given = {name: getattr(case, name).copy() for name in names}
        start = time.perf_counter()
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                answer = getattr(layer, direction)(*given.values())
        except (Exception, SystemExit) as error:
            message = f"raises {type(error).__name__}: {next(iter(str(error).splitlines()), 'no message')}"
            first = first or Difference(direction, message)
            continue
        finally:
            seconds += time.perf_counter() - start
        changed = [name for name, array in given.items() if array.tobytes() != getattr(case, name).tobytes()]
        actual = np.array(answer)
        difference = malformed(direction, type(answer).__name__, actual, case.right(direction))
        if difference is None:
            difference, errors = _compared(case, direction, actual)
            worst = worst.worse(errors)
            returned = actual if direction == "backward" else returned
        if changed:
            difference = Difference(direction, f"writes to its argument {changed[0]}")
        first = first or difference
    rows = len(case.e)
    verdict = ("passed", "failed") if case.judged else ("agrees", "differs")
    return Outcome(
        case.id,
        case.name,
        case.name.partition("/")[0],
        case.e.dtype.name,
        case.note,
        verdict[first is not None],
        rows=rows,
        judged_rows=rows * case.judged,
        ulp=worst.ulp,
        fraction=worst.fraction,
        seconds=seconds,
        difference=first,
    ), returned


def _compared(case: VectorCase, direction: str, actual: Array) -> tuple[Difference | None, Errors]:
    """The first entry that is too far off, if there is one; and the worst errors of the gradient."""
    right, allowed = case.right(direction), case.allowed(direction)
    allowed = np.where(np.isfinite(allowed), allowed, 0.0)  # of degenerate rows, which are only shown
    wide, exact = actual.astype(np.float64), right.astype(np.float64)
    error = np.abs(wide - exact)
    error = np.where(np.isnan(error), np.inf, error)
    errors = Errors()
    if direction == "backward" and case.judged:
        fractions = np.where(error == 0, 0.0, error / allowed)
        errors = Errors(float(np.max(error / tolerance.ulp(exact, right.dtype))), float(np.max(fractions)))
    different = np.argwhere(~tolerance.isclose(actual, right, allowed))
    if not len(different):
        return None, errors
    position = tuple(int(i) for i in different[0])
    a, e, limit = actual[position], right[position], float(allowed[position])
    message = f"is {a!s}; expected {e!s}" + (f", give or take {limit:.2g}" if limit > 0 else "")
    return Difference(direction, message, position, float(a), float(e), limit, bits(a), bits(e)), errors
