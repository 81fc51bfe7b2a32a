"""What checker, vectors, benchmarks and tests know of each operator: one record each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType, ModuleType

import numpy as np

from npselect import OPERATORS, categorical, gapped, gumbel_rao, gumbel_softmax, reinmax, straight_through
from npselect.testing import (
    mistakes_backward,
    mistakes_categorical,
    mistakes_forward,
    mistakes_gapped,
    mistakes_gumbel_rao,
    mistakes_reinmax,
    mistakes_settings,
    symptoms,
    tolerance_categorical,
    tolerance_gapped,
    tolerance_gumbel_rao,
    tolerance_reinmax,
)
from npselect.testing.aliases import Array, Settings
from npselect.testing.mistakes import Mistakes
from npselect.testing.mistakes_settings import SettingMistakes
from npselect.testing.question import Question
from npselect.testing.symptoms import Symptom
from npselect.testing.textbook import TEXTBOOKS, Textbook
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
    given : tuple of str
        The options that every case gives, which fix the choice, and the noise of samples given it; none, if the logits
        alone do.
    may_give : tuple of str
        Options by which other cases fix it, for implementations that take them.
    settings : tuple of mapping of str to float or str
        Which further cases set, for implementations that take them.
    setting_mistakes : SettingMistakes
        What mistakes make of those.
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
    given: tuple[str, ...] = ()
    may_give: tuple[str, ...] = ()
    settings: tuple[Settings, ...] = ()
    setting_mistakes: SettingMistakes = mistakes_settings.NONE
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
    def textbook(self) -> Textbook:
        """As textbooks have it."""
        return TEXTBOOKS[self.name]

    @property
    def takes(self) -> frozenset[str]:
        """The options that some of its cases give, but for those of every operator."""
        return frozenset((*self.given, *self.may_give, *(name for one in self.settings for name in one)))

    @property
    def learns_temp(self) -> bool:
        """Whether the temperature has a gradient."""
        return "backward_temp" in OPERATORS[self.name].functions


def _softmax_gradient(question: Question, arithmetic: Arithmetic) -> Array:
    g, dtype = question.rows(question.grad_mask), question.logits.dtype
    return tolerance_categorical.categorical(
        g,
        question.w,
        question.temps,
        dtype,
        arithmetic,
        question.added,
        forward_temp=question.forward_temp,
        unimix=question.unimix,
    )


def _second_order(question: Question, arithmetic: Arithmetic) -> Array:
    g, dtype = question.rows(question.grad_mask), question.logits.dtype
    return tolerance_reinmax.reinmax(g, question.w, question.choice, question.temps, dtype, arithmetic)


def _mean_of_samples(question: Question, arithmetic: Arithmetic) -> Array:
    g, dtype = question.rows(question.grad_mask), question.logits.dtype
    of_samples = question.choice, question.draws
    return tolerance_gumbel_rao.gumbel_rao(g, question.w, *of_samples, question.temps, dtype, arithmetic)


def _of_the_gap(question: Question, arithmetic: Arithmetic) -> Array:
    g, dtype = question.rows(question.grad_mask), question.logits.dtype
    return tolerance_gapped.gapped(g, question.w, question.choice, question.temps, dtype, arithmetic, gap=question.gap)


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
            ),
            Family(
                gumbel_softmax,
                "gumbel/",
                _softmax_gradient,
                mistakes_forward.with_noise(mistakes_forward.WRONG_SUMS),
                mistakes_backward.with_noise(mistakes_forward.WRONG_SUMS),
                given=("noise",),
                settings=({"forward_temp": 2.0}, {"forward_temp": 0.5}),
                setting_mistakes=mistakes_settings.GUMBEL,
            ),
            Family(
                reinmax,
                "reinmax/",
                _second_order,
                mistakes_reinmax.FORWARD,
                mistakes_reinmax.BACKWARD,
                given=("index",),
                forward_symptoms=symptoms.EITHER,
                backward_symptoms=symptoms.EITHER,
                has_layers=False,
            ),
            Family(
                categorical,
                "categorical/",
                _softmax_gradient,
                mistakes_categorical.FORWARD,
                mistakes_categorical.BACKWARD,
                given=("index",),
                may_give=("noise",),
                settings=(
                    {"forward_temp": 2.0},
                    {"forward_temp": 0.5},
                    {"unimix": 0.01},
                    {"forward_temp": 2.0, "unimix": 0.25},
                ),
                setting_mistakes=mistakes_settings.CATEGORICAL,
                forward_symptoms=symptoms.EITHER,
                has_layers=False,
            ),
            Family(
                gapped,
                "gapped/",
                _of_the_gap,
                mistakes_gapped.FORWARD,
                mistakes_gapped.BACKWARD,
                given=("index",),
                settings=({"gap": 0.25}, {"gap": 2}, {"gap": "adaptive"}),
                setting_mistakes=mistakes_settings.GAPPED,
                forward_symptoms=symptoms.EITHER,
                backward_symptoms=symptoms.EITHER,
                has_layers=False,
            ),
            Family(
                gumbel_rao,
                "gumbel_rao/",
                _mean_of_samples,
                mistakes_gumbel_rao.FORWARD,
                mistakes_gumbel_rao.BACKWARD,
                given=("index", "sample_noise"),
                forward_symptoms=symptoms.EITHER,
                backward_symptoms=symptoms.EITHER,
                has_layers=False,
            ),
        )
    }
)
"""The records, by the operators' names, in the order in which they came: see `by_default`."""


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
    """The record that was there first of which cases are given these options, or none."""
    return next(
        family for family in FAMILIES.values() if set(given) <= set(family.given) and bool(given) == bool(family.given)
    )


def _either(names: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
