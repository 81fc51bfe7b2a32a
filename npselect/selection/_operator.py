"""The operator of a selection: by its name, a module of the family, or an object with the same functions."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy.typing as npt

from npselect._operators import OPERATORS, Operator

__all__ = ["has_function", "operator_of", "options_for", "temp_for"]

_COMMON = frozenset({"backend", "nan_policy"})  # which every function of every operator takes


def operator_of(operator: Any, options: Mapping[str, object], *functions: str) -> Any:
    """The operator's module or object, which has all the functions; the options are some that it takes."""
    if isinstance(operator, str):
        if operator not in OPERATORS:
            raise ValueError(
                f"operator is {operator!r}; it takes {', '.join(map(repr, OPERATORS))}, such a module, or an object "
                "with its functions"
            )
        operator = import_module(f"npselect.{operator}")
    for name in functions:
        if not has_function(operator, name):
            raise TypeError(
                f"operator is {operator!r}, which has no function {name}; it takes a module like "
                f"npselect.straight_through, or its name: {', '.join(map(repr, OPERATORS))}"
            )
    if "axis" in options:
        raise TypeError("selection takes no axis: the candidates are the last axis of logits and the last but one of x")
    if "out" in options:
        raise TypeError("selection takes no out: its results are new arrays")
    takes = _taken(operator, functions)
    if takes is not None and (unknown := sorted(set(options) - takes)):
        raise TypeError(
            f"operator {getattr(operator, '__name__', operator)!r} takes no option {unknown[0]}; it takes "
            f"{', '.join(sorted(takes))}"
        )
    return operator


def has_function(operator: object, name: str) -> bool:
    """Whether an operator has a function."""
    return callable(getattr(operator, name, None))


def options_for(operator: object, function: str, options: Mapping[str, object]) -> dict[str, Any]:
    """Those of the options that one of the operator's functions is given; all of them, if it is none of the family."""
    record = _record_of(operator)
    takes = options if record is None else _COMMON.union(record.options_of(function))
    return {name: value for name, value in options.items() if name in takes}


def temp_for(operator: object, temp: npt.ArrayLike | None) -> npt.ArrayLike:
    """A temperature or, for None, the operator's default; that of straight-through, if it is none of the family."""
    record = _record_of(operator)
    default = OPERATORS["straight_through"].temp if record is None else record.temp
    return default if temp is None else temp


def _record_of(operator: object) -> Operator | None:
    found = (record for name, record in OPERATORS.items() if sys.modules.get(f"npselect.{name}") is operator)
    return next(found, None)


def _taken(operator: object, functions: tuple[str, ...]) -> set[str] | None:
    """The options that an operator takes; None if it takes any.

    One of the family takes what any of the functions does. Another gets the same options in all of them.
    """
    record = _record_of(operator)
    if record is not None:
        return set(_COMMON.union(*(record.options_of(name) for name in functions)))
    taken: set[str] | None = None
    for name in functions:
        parameters = inspect.signature(getattr(operator, name)).parameters
        if all(parameter.kind != parameter.VAR_KEYWORD for parameter in parameters.values()):
            arrays = 1 if name == "index" else 3  # logits, or g, logits and temp
            named = {*list(parameters)[arrays:]} - {"where", "axis", "out"}
            taken = named if taken is None else taken & named
    return taken
