"""A question: one call of forward and one of backward, as data, and the oracle's answer.

The answers are computed when they are first asked for. Shapes are free: candidates lie along `axis`, and what is judged
row by row is laid out as (rows, K) by `Question.rows`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np

import npselect
from npselect import OPERATORS
from npselect.testing.aliases import Array, Options, Settings, Temp
from npselect.testing.implementation import BACKWARD_ALONE

__all__ = ["Origin", "Question"]

_PART = 2**16  # entries of a question that are judged at a time


class Origin(NamedTuple):
    """A small question with the answers of a large one, and which of its entries stands where.

    Row i of the large case has at j what row ``rows[i]`` of `case` has at ``columns[i, j]``: each of its entries once;
    or some of them many times, but these are no candidates worth the name: all of them together weigh less than
    ``2**-64`` of the largest. So the sums are the same beyond the last place of any dtype, and so are the gradients.
    """

    case: Question
    rows: Array
    columns: Array

    def taken(self, values: Array) -> Array:
        """What has the shape of the small case, (rows, K), as the large one has it."""
        return np.asarray(values[self.rows[:, None], self.columns])

    def answer(self, direction: str) -> Array:
        """The oracle's. The mask has its 1 at the first of the row's largest."""
        if direction == "backward":
            return self.taken(self.case.grad_logits)
        w = self.case.w
        largest = self.taken(w == np.max(w, axis=-1, keepdims=True))
        first = np.argmax(largest, axis=-1, keepdims=True)
        return np.asarray(np.arange(largest.shape[-1]) == first, self.case.logits.dtype)

    def part(self, rows: slice) -> Origin:
        """Of some of the large case's rows."""
        columns = self.columns if len(self.columns) == 1 else self.columns[rows]
        return Origin(self.case, self.rows[rows], columns)


@dataclass(frozen=True, eq=False)
class Question:
    """One call of ``forward(logits, temp)`` and one of ``backward(grad_mask, logits, temp)``.

    The attributes are those of `npselect.testing.Case`, which adds the judgement.
    """

    name: str
    note: str
    logits: Array
    grad_mask: Array
    temp: float
    axis: int = -1
    where: Array | None = None
    noise: Array | None = None
    flags: tuple[str, ...] = ()
    origin: Origin | None = None
    row_temp: Array | None = None
    operator: str = ""
    index: Array | None = None
    settings: Settings = field(default_factory=dict)
    sample_noise: Array | None = None

    @property
    def group(self) -> str:
        """One of "digits", "random", "edge", "axis", "where", "layout", "temp" and "setting"."""
        return self.name.partition("/")[0]

    @property
    def options(self) -> Options:
        """The options that an implementation must take for this case, by name."""
        options: Options = {} if self.axis == -1 else {"axis": self.axis}
        for name in ("where", "noise", "index", "sample_noise"):
            if getattr(self, name) is not None:
                options[name] = getattr(self, name)
        return options | dict(self.settings)

    @property
    def forward_options(self) -> Options:
        """Those among the options that `forward` must take too."""
        return {name: value for name, value in self.options.items() if name not in BACKWARD_ALONE}

    @property
    def needs(self) -> tuple[str, ...]:
        """What an implementation must take for this case: its options, and ``"row_temp"`` where rows have their own."""
        return (*self.options, *["row_temp"] * (self.row_temp is not None))

    @property
    def given_temp(self) -> Temp:
        """The temperature as an implementation is given it: a float, or an array."""
        return self.temp if self.row_temp is None else self.row_temp

    @property
    def forward_temp(self) -> float:
        """What noise is multiplied by, and the temperature."""
        return float(self.settings.get("forward_temp", 1.0))

    @property
    def unimix(self) -> float:
        """The share of the uniform distribution."""
        return float(self.settings.get("unimix", 0.0))

    @property
    def gap(self) -> float | str:
        """By which the selected candidate leads, where it has to."""
        return self.settings.get("gap", 1.0)

    # -------------------------------------------------------------------------------------------- the oracle

    @cached_property
    def mask(self) -> Array:
        """The right forward result."""
        return self.answer("forward")

    @cached_property
    def grad_logits(self) -> Array:
        """The right backward result, rounded once."""
        return self.answer("backward")

    @cached_property
    def grad_temp(self) -> Array:
        """The right gradient of the temperature, in its shape, rounded once."""
        return self.answer("backward_temp")

    def answer(self, direction: str, backend: str = "reference") -> Array:
        """What the operator returns, or raises."""
        if self.origin is not None and backend == "reference" and direction != "backward_temp":
            return self.origin.answer(direction)
        function = getattr(getattr(npselect, self.operator), direction)
        if direction == "forward":
            return np.asarray(function(self.logits, self.given_temp, **self.forward_options, backend=backend))
        return np.asarray(function(self.grad_mask, self.logits, self.given_temp, **self.options, backend=backend))

    def expected(self, backend: str) -> tuple[Array, Array]:
        """The mask and the gradient of the oracle that is asked."""
        if backend == "reference":
            return self.mask, self.grad_logits
        return self.answer("forward", backend), self.answer("backward", backend)

    # -------------------------------------------------------------------------------------------- as rows

    def rows(self, array: Array) -> Array:
        """An array of the shape of `logits` as (rows, K)."""
        moved = np.moveaxis(array, self.axis, -1)
        return moved.reshape(math.prod(moved.shape[:-1]), moved.shape[-1])

    def unrows(self, rows: Array) -> Array:
        """An array of (rows, K) in the shape of `logits`."""
        moved = np.moveaxis(self.logits, self.axis, -1)
        return np.moveaxis(rows.reshape(moved.shape), -1, self.axis)

    def position(self, row: int, choice: int) -> tuple[int, ...]:
        """Where in `logits` an entry of (rows, K) stands."""
        shape = list(self.logits.shape)
        axis = self.axis % len(shape)
        del shape[axis]
        place = [int(i) for i in np.unravel_index(row, shape)] if shape else []
        return (*place[:axis], choice, *place[axis:])

    def part(self, rows: slice) -> Self:
        """Some of the rows, as a question of their own; of two axes, with the candidates along the last."""

        def some(option: Array | None, choices: int = self.logits.shape[-1]) -> Array | None:
            return None if option is None else np.broadcast_to(option, (len(self.logits), choices))[rows]

        return replace(
            self,
            logits=self.logits[rows],
            grad_mask=self.grad_mask[rows],
            where=some(self.where),
            noise=some(self.noise),
            origin=None if self.origin is None else self.origin.part(rows),
            row_temp=some(self.row_temp, 1),
            index=None if self.index is None else self.index[rows],
            sample_noise=None if self.sample_noise is None else self.sample_noise[:, rows],
        )

    def parts(self) -> Iterator[tuple[slice, Self]]:
        """All rows, so many at a time as fit into a small memory, if the answers need not be computed."""
        if self.origin is None:
            yield slice(None), self
            return
        rows, choices = self.logits.shape
        step = max(1, _PART // choices)
        for first in range(0, rows, step):
            some = slice(first, min(first + step, rows))
            yield some, self.part(some)

    @cached_property
    def w(self) -> Array:
        """What is weighed: (rows, K) in float64, with the noise if it counts, and -inf at excluded entries."""
        return self._candidates(None if self._weighs_logits_alone else self.noise)

    @cached_property
    def chosen_from(self) -> Array:
        """What the choice is the largest of, likewise; if an index is given, 0 there and -inf elsewhere."""
        if self.index is not None:
            return np.where(np.arange(self.w.shape[-1]) == self.choice[:, None], 0.0, -np.inf)
        if self.unimix and self.drawn_with is not None:
            return self._log_mixture + self.drawn_with / self.forward_temp
        return self._candidates(self.noise) if self._weighs_logits_alone else self.w

    @cached_property
    def choice(self) -> Array:
        """The selected column of each row, (rows,); of a row that selects nothing, any number."""
        if self.index is not None:
            return np.asarray(self.index).reshape(-1)
        return np.asarray(np.argmax(self.chosen_from, axis=-1))

    @property
    def _weighs_logits_alone(self) -> bool:
        """Whether the noise is forgotten once the choice is made."""
        return "index" in OPERATORS[self.operator].options

    @property
    def _log_mixture(self) -> Array:
        """The logarithm of what is sampled from, -inf at excluded entries."""
        with np.errstate(all="ignore"):
            e = np.exp((self.w - np.max(self.w, axis=-1, keepdims=True)) / self.forward_temp)
            uniform = 1 / np.count_nonzero(self.w > -np.inf, axis=-1, keepdims=True)
            mixture = (1 - self.unimix) * e / np.sum(e, axis=-1, keepdims=True) + self.unimix * uniform
            return np.where(self.w > -np.inf, np.log(mixture), -np.inf)

    def _candidates(self, noise: Array | None) -> Array:
        w = self.logits.astype(np.float64)
        with np.errstate(invalid="ignore"):
            if noise is not None:
                w = w + self.forward_temp * noise.astype(np.float64)
        return self.rows(w if self.where is None else np.where(self.where, w, -np.inf))

    @property
    def added(self) -> Array | None:
        """The noise that is weighed too, as (rows, K), if there is any."""
        return None if self._weighs_logits_alone else self.drawn_with

    @property
    def drawn_with(self) -> Array | None:
        """What is added to the logits before the choice, as (rows, K), if anything is."""
        if self.noise is None:
            return None
        noise = self.rows(np.broadcast_to(self.noise, self.logits.shape))
        return noise if self.forward_temp == 1 else self.forward_temp * noise.astype(np.float64)

    @cached_property
    def draws(self) -> Array:
        """The noise of samples given the choice: (samples, rows, K) in float64, with no sample if there is none."""
        if self.sample_noise is None:
            return np.empty((0, *self.w.shape))
        return np.stack([self.rows(noise.astype(np.float64)) for noise in self.sample_noise])

    @cached_property
    def temps(self) -> Temp:
        """What the weighed logits of each row are divided by: a float, or (rows, 1) in float64.

        That is the temperature times `forward_temp`, rounded to the type that the operators compute in.
        """
        if self.row_temp is None:
            return self._with_forward_temp(self.temp)
        shape = list(self.logits.shape)
        shape[self.axis] = 1
        return self._with_forward_temp(self.rows(np.broadcast_to(self.row_temp.astype(np.float64), shape)))

    def _with_forward_temp(self, temp: Temp) -> Temp:
        if self.forward_temp == 1:
            return temp
        wide = np.float64 if self.logits.dtype == np.float64 else np.float32
        product = (self.forward_temp * np.asarray(temp, np.float64)).astype(wide).astype(np.float64)
        return product if product.ndim else float(product)
