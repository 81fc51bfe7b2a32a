"""One call of an implementation, and what is wrong with the answer before its values are looked at."""

from __future__ import annotations

import time
import warnings
from typing import NamedTuple

import numpy as np

from npselect._places import as_numpy_sees
from npselect.testing.aliases import Array, SelectionFunctions
from npselect.testing.case import Case
from npselect.testing.compare import malformed
from npselect.testing.implementation import for_forward
from npselect.testing.layouts import like
from npselect.testing.outcome import Difference

__all__ = ["OVERWRITTEN", "Call", "ask", "fault", "fitting", "refusal"]

OVERWRITTEN = "returns an array that a later call overwrites"


class Call(NamedTuple):
    """How a function answered: with an array, or with what went wrong."""

    direction: str
    returned: str  # the type of what was returned
    array: Array | None
    result: Array | None  # a copy of it, as it was then
    error: BaseException | None
    wrote_to: str | None
    seconds: float

    @property
    def overwritten(self) -> bool:
        """Whether the array that was returned is another by now."""
        if self.array is None or self.result is None or self.array.dtype == object:
            return False
        return self.array.tobytes() != self.result.tobytes()


def ask(implementation: SelectionFunctions, direction: str, case: Case) -> Call:
    """One call with copies of the arrays; what it warns of is no matter of ours."""
    given: dict[str, object] = {} if direction == "forward" else {"grad_mask": case.grad_mask}
    options = case.options if direction != "forward" else for_forward(implementation.forward, case.options)
    given |= {"logits": case.logits, "temp": case.given_temp, **options}
    copies = {name: _copy(value) for name, value in given.items()}
    keywords = {name: copies[name] for name in options}
    positional = [value for name, value in copies.items() if name not in keywords]
    array, result, error, returned = None, None, None, ""
    start = time.perf_counter()
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            answer = getattr(implementation, direction)(*positional, **keywords)
            returned = type(answer).__name__
            array = np.asarray(as_numpy_sees(answer))
    except (Exception, SystemExit) as raised:
        error = raised
    seconds = time.perf_counter() - start
    if array is not None:
        result = array.copy()
    written = (name for name, value in given.items() if not _same(copies[name], value))
    return Call(direction, returned, array, result, error, next(written, None), seconds)


def _copy(value: object) -> object:
    return like(value, value) if isinstance(value, np.ndarray) else value


def _same(copy: object, value: object) -> bool:
    """Whether a copy of an argument is what it was."""
    return not (isinstance(copy, np.ndarray) and isinstance(value, np.ndarray)) or copy.tobytes() == value.tobytes()


def refusal(call: Call) -> Difference | None:
    """Where a ValueError is the right answer."""
    if isinstance(call.error, ValueError):
        return None
    if call.error is not None:
        return Difference(call.direction, f"raises {_described(call.error)}; expected ValueError")
    return Difference(call.direction, "returns without an error; expected ValueError")


def fault(call: Call, expected: Array) -> Difference | None:
    """What is wrong with an answer before its values are looked at."""
    if call.error is not None:
        return Difference(call.direction, f"raises {_described(call.error)}")
    assert call.result is not None
    if call.wrote_to is not None:
        return Difference(call.direction, f"writes to its argument {call.wrote_to}")
    if call.overwritten:
        return Difference(call.direction, OVERWRITTEN)
    return malformed(call.direction, call.returned, call.result, expected)


def fitting(case: Case, call: Call, expected: Array) -> Array | None:
    """The result, if it can be computed with: a wrong type of array tells nothing of the cause."""
    fits = call.result is not None and call.result.shape == expected.shape and call.result.dtype == expected.dtype
    return case.rows(call.result) if fits and call.result is not None else None


def _described(error: BaseException) -> str:
    first_line = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__
