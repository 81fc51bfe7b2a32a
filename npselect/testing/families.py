"""What checker, vectors, benchmarks and tests know of each operator: one record each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType, ModuleType

import numpy as np

from npselect import OPERATORS, gumbel_softmax, reinmax, straight_through
from npselect.testing import (
    mistakes_backward,
    mistakes_forward,
    mistakes_reinmax,
    symptoms,
    tolerance,
    tolerance_reinmax,
)
from npselect.testing.aliases import Array
from npselect.testing.mistakes import Mistakes
from npselect.testing.question import Question
from npselect.testing.symptoms import Symptom
from npselect.testing.textbook import REINMAX, SURROGATE, Textbook
from npselect.testing.tolerance import Arithmetic

__all__ = ["FAMILIES", "GIVEN", "Family", "by_default", "exact_softmax", "family_of", "family_of_id"]

GIVEN = ("noise", "index")
"""The options by which a case may fix the choice."""


@dataclass(frozen=True)
class Family:
    """What is known of an operator, beside `npselect.OPERATORS`.

    Attributes
    ----------
    module : module
        The operator.
    prefix : str
        Of the ids of its cases.
    bound : callable
        ``bound(question, arithmetic)``: how far grad_logits may be from the exact one, (rows, K).
    forward_mistakes, backward_mistakes : tuple of (str, callable)
        What mistakes make of a question, by their causes.
    textbook : Textbook
        As textbooks have it.
    given : tuple of str
        The options by which a case fixes the choice, one of them in each case; none, if the logits alone do.
    forward_symptoms, backward_symptoms : tuple of callable
        What else tells of a cause.
    has_layers : bool
        Whether `npselect.selection` selects by it.
    has_vectors : bool
        Whether `write_vectors` writes its cases.
    """

    module: ModuleType
    prefix: str
    bound: Callable[[Question, Arithmetic], Array]
    forward_mistakes: Mistakes
    backward_mistakes: Mistakes
    textbook: Textbook
    given: tuple[str, ...] = ()
    forward_symptoms: tuple[Symptom, ...] = symptoms.FORWARD
    backward_symptoms: tuple[Symptom, ...] = symptoms.BACKWARD
    has_layers: bool = True
    has_vectors: bool = True

    @property
    def name(self) -> str:
        """Of the operator."""
        return self.module.__name__.rpartition(".")[-1]

    @property
    def temp(self) -> float:
        """The operator's default."""
        return OPERATORS[self.name].temp

    @property
    def learns_temp(self) -> bool:
        """Whether the temperature has a gradient."""
        return "backward_temp" in OPERATORS[self.name].functions


def _softmax_gradient(question: Question, arithmetic: Arithmetic) -> Array:
    g, dtype = question.rows(question.grad_mask), question.logits.dtype
    return tolerance.backward(g, question.w, question.temps, dtype, arithmetic, question.added)


def _second_order(question: Question, arithmetic: Arithmetic) -> Array:
    g, dtype = question.rows(question.grad_mask), question.logits.dtype
    return tolerance_reinmax.reinmax(g, question.w, question.choice, question.temps, dtype, arithmetic)


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        family.name: family
        for family in (
            Family(
                straight_through,
                "",
                _softmax_gradient,
                mistakes_forward.FORWARD,
                mistakes_backward.BACKWARD,
                SURROGATE,
            ),
            Family(
                gumbel_softmax,
                "gumbel/",
                _softmax_gradient,
                mistakes_forward.with_noise(mistakes_forward.WRONG_SUMS),
                mistakes_backward.with_noise(mistakes_forward.WRONG_SUMS),
                SURROGATE,
                given=("noise",),
            ),
            Family(
                reinmax,
                "reinmax/",
                _second_order,
                mistakes_reinmax.FORWARD,
                mistakes_reinmax.BACKWARD,
                REINMAX,
                given=("index",),
                forward_symptoms=symptoms.EITHER,
                backward_symptoms=symptoms.EITHER,
                has_layers=False,
            ),
        )
    }
)
"""The records, by the operators' names."""


def exact_softmax(logits: Array, temp: float) -> Array:
    """The probabilities of the oracle, in float64."""
    return straight_through.soft(logits.astype(np.float64), temp, backend="reference")


def family_of(operator: object, among: Collection[Family] | None = None) -> Family:
    """The record of a module, of all or of some.

    Raises
    ------
    ValueError
        It is none of them.
    """
    some = FAMILIES.values() if among is None else among
    for family in some:
        if family.module is operator:
            return family
    raise ValueError(f"operator is {operator!r}; it takes {_either([f'npselect.{family.name}' for family in some])}")


def family_of_id(id: str) -> Family:  # noqa: A002 the name of the attribute
    """The record of a case's id: that of the longest prefix."""
    fitting = (family for family in FAMILIES.values() if id.startswith(family.prefix))
    return max(fitting, key=lambda family: len(family.prefix))


def by_default(given: Collection[str]) -> Family:
    """The first record of which cases are given these options, or none."""
    return next(
        family for family in FAMILIES.values() if set(given) <= set(family.given) and bool(given) == bool(family.given)
    )


def _either(names: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
