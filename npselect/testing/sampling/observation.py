"""What an op that draws its own noise is asked, and what it answers: one seed, one temperature, one K."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from npselect._places import as_numpy_sees
from npselect.testing.aliases import Array, Dtype, SamplingFunctions, Tensor
from npselect.testing.roundoff import TEXTBOOK, Arithmetic
from npselect.testing.sampler_questions import FormError, draw
from npselect.testing.sampler_statistics import Question
from npselect.testing.sampling.recovered import recovered_sample
from npselect.testing.tolerance_sampled import Sampled, sampled

__all__ = ["CONSTANT", "FORMS", "Gradient", "Observation", "Traits", "observe", "traits_of"]

FORMS = {True: "hard", False: "soft"}
CONSTANT = 16.0  # what is added to a cotangent of about 1


@dataclass(frozen=True)
class Traits:
    """What an op declares."""

    hard_and_soft: bool
    max_seed: int | None
    arithmetic: Arithmetic


def traits_of(op: SamplingFunctions) -> Traits:
    """What the attributes say, if there are any."""
    arithmetic = replace(
        TEXTBOOK,
        flushes_subnormals=bool(getattr(op, "flushes_subnormals", False)),
        normalises_logits=bool(getattr(op, "normalises_logits", False)),
    )
    return Traits(bool(getattr(op, "hard_and_soft", True)), getattr(op, "max_seed", None), arithmetic)


@dataclass(frozen=True)
class Gradient:
    """A gradient that was asked for: of the form `hard`, with the constant added to the cotangent or not."""

    hard: bool
    constant: bool
    cotangent: Array
    actual: Array


@dataclass(frozen=True)
class Observation:
    """What was seen. Arrays of shape (rows, K), in the dtypes that the op returned."""

    logits: Array
    temp: float
    seed: int
    index: Array | None  # (rows,): what the hard sample selects, if it has the shape of one
    hard: Array | None
    hard_error: str | None  # why it is none
    soft: Array | None  # the sample as returned; None where it is not one of the right shape, or there is no soft form
    soft_error: str | None
    gradients: tuple[Gradient, ...]
    gradient_errors: dict[bool, str] = field(default_factory=dict)
    sampled: Sampled | None = None  # what the soft sample tells, or, where there is none, the gradient

    @property
    def dtype(self) -> Dtype:
        """Of the logits."""
        return self.logits.dtype

    @property
    def candidates(self) -> Array:
        """Which entries are not excluded."""
        return np.asarray(self.logits > -np.inf)


def observe(
    op: SamplingFunctions, traits: Traits, question: Question, temp: float, seed: int, rng: np.random.Generator,
    chance: float,
) -> Observation:  # fmt: skip
    """Ask everything of one seed. `chance` is as in `npselect.testing.tolerance_sampled.sampled`."""
    logits = question.logits[question.vector]
    index, hard, hard_error = _hard(op, question, temp, seed)
    soft, soft_error = _soft(op, logits, temp, seed) if traits.hard_and_soft else (None, None)

    def backward(cotangent: Array, hard: bool) -> Array:
        call = f"backward(grad_sample, logits, {temp:g}, {hard}, {seed})"
        return _answer(lambda: op.backward(cotangent.copy(), logits.copy(), temp, hard, seed), logits, call)

    size = np.exp2(rng.integers(-3, 4, (len(logits), 1)))
    plain = (size * rng.standard_normal(logits.shape)).astype(logits.dtype)
    shifted = (plain.astype(np.float64) + CONSTANT * size).astype(logits.dtype)
    gradients, errors = [], {}
    for form in FORMS if traits.hard_and_soft else (True,):
        try:
            for constant, cotangent in enumerate((plain, shifted)):
                gradients.append(Gradient(form, bool(constant), cotangent, backward(cotangent, form)))
        except FormError as error:
            errors[form] = str(error)
    tells = None
    if traits.hard_and_soft and soft is not None and soft_error is None:
        tells = sampled(soft, logits, temp, traits.arithmetic, chance)
    elif not traits.hard_and_soft and index is not None and not errors:
        try:
            y, error_of_y = recovered_sample(
                lambda g: backward(g, True), logits, index, temp, traits.arithmetic, chance
            )
            tells = sampled(y, logits, temp, traits.arithmetic, chance, error_of_y)
        except FormError as error:
            errors[True] = str(error)
    return Observation(logits, temp, seed, index, hard, hard_error, soft, soft_error, tuple(gradients), errors, tells)


def _hard(
    op: SamplingFunctions, question: Question, temp: float, seed: int
) -> tuple[Array | None, Array | None, str | None]:
    """The index; the sample; and what is wrong with it."""
    seen: list[Array] = []

    def sample(logits: Array, seed: int) -> Tensor:
        answer = op.sample(logits, temp, True, seed)
        seen.append(np.asarray(as_numpy_sees(answer)))
        return answer

    try:
        return draw(sample, question, seed), seen[-1], None
    except FormError as error:
        mask = seen[-1]
        logits = question.logits[question.vector]
        if mask.shape != logits.shape or (mask.dtype.kind not in "biuf" and mask.dtype.name != "bfloat16"):
            return None, None, str(error)
        values = np.where(logits > -np.inf, np.nan_to_num(mask.astype(np.float64), nan=-1.0), -np.inf)
        return np.argmax(values, axis=-1), mask, str(error)


def _soft(op: SamplingFunctions, logits: Array, temp: float, seed: int) -> tuple[Array | None, str | None]:
    call = f"sample(logits, {temp:g}, False, {seed})"
    try:
        sample = _answer(lambda: op.sample(logits.copy(), temp, False, seed), logits, call)
    except FormError as error:
        return None, str(error)
    values, candidates = sample.astype(np.float64), logits > -np.inf
    for wrong, what in ((~np.isfinite(values), "finite numbers"), (values < 0, "probabilities")):
        if np.any(wrong & candidates):
            row, column = np.argwhere(wrong & candidates)[0]
            return sample, f"{call}: row {row} holds {values[row, column]:g} at candidate {column}; expected {what}"
    empty = ~np.any(np.where(candidates, values, 0.0) > 0, axis=-1)
    if np.any(empty):
        return sample, f"{call}: row {int(np.argmax(empty))} is 0 at every candidate; expected a sum of 1"
    return sample, None


def _answer(call: Callable[[], Tensor], logits: Array, name: str) -> Array:
    """The result of a call, if it has the shape of the logits."""
    try:
        answer = call()
        array = np.asarray(as_numpy_sees(answer))
    except Exception as error:
        error.add_note(f"raised by {name} with logits of shape {logits.shape} and dtype {logits.dtype}")
        raise
    if array.shape != logits.shape:
        returned = f"a {type(answer).__name__} of shape {array.shape}"
        raise FormError(f"{name} returns {returned}; expected an array of the shape of logits, {logits.shape}")
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise FormError(f"{name} returns dtype {array.dtype}; expected numbers")
    return array
