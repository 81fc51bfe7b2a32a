"""What is timed: an operator on arrays of one shape and dtype, and the bytes that it must move at the least."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from npselect import OPERATORS as RECORDS
from npselect import noise
from npselect._operators import Result, RowFunction
from npselect.testing.aliases import Array, Dtype, Options
from npselect.testing.cases import rounded
from npselect.testing.dtypes import floating_dtype
from npselect.testing.families import FAMILIES, Family

__all__ = ["CALLS", "OPERATORS", "QUICK_SHAPES", "SAMPLES", "SHAPES", "WIDTH", "Problem", "chosen", "least_bytes"]


WIDTH = 16
"""Of the vectors that `npselect.selection` selects from."""

SAMPLES = 4
"""Over which `npselect.gumbel_rao` takes its mean."""

CALLS = ("forward", "backward", "forward+backward")
OPERATORS = (*FAMILIES, "selection", "noise")

_ELEMENTS = 1 << 23
_STEPS = {"float16": 2.0**-5, "bfloat16": 2.0**-3}
_CHOICES = (2, 8, 10, 16, 32, 64, 1024, 32768, 50257)
SHAPES = (*((_ELEMENTS // choices, choices) for choices in _CHOICES), (32, 10))
"""Rows and choices: 8.4 million elements whatever the number of choices, and a small call, of which latency is left."""
QUICK_SHAPES = ((1024, 64), (16, 4096), (32, 10))


@dataclass(frozen=True)
class Problem:
    """One operator, one shape, one dtype, and the arrays that all peers are given.

    Attributes
    ----------
    operator : str
        One of `OPERATORS`.
    rows, choices : int
        Of the logits. There are as many numbers of noise; `npselect.selection` selects from vectors of `WIDTH`.
    dtype : str
        Of all arrays; one of NumPy or of a framework becomes its name.
    temp : float
        The temperature; it is rounded to the dtype.
    seed : int
        Of the arrays, and of the noise that is drawn.

    Examples
    --------
    >>> from npselect.bench import Problem
    >>> problem = Problem("straight_through", rows=32, choices=10)
    >>> problem.logits.shape
    (32, 10)
    >>> problem.bytes("forward"), problem.bytes("backward"), problem.bytes("forward+backward")
    (2560, 3840, 6400)
    """

    operator: str
    rows: int
    choices: int
    dtype: str = "float32"
    temp: float = 0.6
    seed: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", self.form.name)
        temp = rounded(self.temp, self.form)
        if not 0 < temp < np.inf:
            raise ValueError(f"temp is {self.temp}, in {self.dtype} {temp}; it must be positive and finite")
        object.__setattr__(self, "temp", temp)

    @property
    def family(self) -> Family | None:
        """What is known of the operator; None of "selection" and "noise"."""
        return FAMILIES.get(self.operator)

    @property
    def draws(self) -> bool:
        """Whether the operator samples."""
        return self.family is not None and bool(self.family.given)

    @property
    def shape(self) -> tuple[int, int]:
        """Of the logits."""
        return self.rows, self.choices

    @property
    def size(self) -> int:
        """Of the logits, in elements."""
        return self.rows * self.choices

    @property
    def calls(self) -> tuple[str, ...]:
        """Which of `CALLS` there are: noise has no backward."""
        return CALLS[:1] if self.operator == "noise" else CALLS

    @property
    def form(self) -> Dtype:
        """The dtype."""
        return floating_dtype(self.dtype)

    @property
    def wide(self) -> Dtype:
        """What noise is drawn in, and what 16-bit numbers are computed in."""
        return np.dtype(np.float64 if self.form == np.float64 else np.float32)

    @cached_property
    def logits(self) -> Array:
        """Normal, with a standard deviation of 3."""
        logits = self._normal(0, self.shape, 3.0)
        return self._on_grid(logits) if self.draws else logits

    @cached_property
    def grad_mask(self) -> Array:
        """Normal."""
        return self._normal(1, self.shape)

    @cached_property
    def x(self) -> Array:
        """What `npselect.selection` selects from, shape (rows, choices, WIDTH): normal."""
        return self._normal(2, (*self.shape, WIDTH))

    @cached_property
    def grad_chosen(self) -> Array:
        """The cotangent of what is selected, shape (rows, WIDTH): normal."""
        return self._normal(3, (self.rows, WIDTH))

    @cached_property
    def noise(self) -> Array:
        """Gumbel noise, for those to whom it is given."""
        return self._on_grid(noise.gumbel(self.noise_shape, self.seed, dtype=self.wide)).astype(self.form, copy=False)

    @property
    def averages(self) -> bool:
        """Whether the gradient is a mean over samples given the choice."""
        return self.family is not None and "sample_noise" in self.family.given

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Of all noise: that of the choice, in the logits' shape; with noise of samples, that is the first array."""
        return (1 + SAMPLES, *self.shape) if self.averages else self.shape

    def given(self, noise: Array) -> Options:
        """The options by which the choice of this noise is given: itself, or what it selects; and noise of samples."""
        assert self.family is not None
        if "index" not in self.family.given:
            return {"noise": noise}
        if noise.shape == self.shape:
            return {"index": chosen(self.logits, noise)}
        return {"index": chosen(self.logits, noise[0]), "sample_noise": noise[1:]}

    @np.errstate(all="ignore")
    def _on_grid(self, values: Array) -> Array:
        """In 16 bits, so that the sum with the noise is exact: some add in 16 bits, and some in 32."""
        if self.form.itemsize > 2:
            return values
        step = _STEPS[self.dtype]
        return np.asarray((np.round(np.clip(values.astype(np.float32), -15, 15) / step) * step).astype(self.form))

    @np.errstate(all="ignore")
    def _normal(self, stream: int, shape: tuple[int, ...], scale: float = 1.0) -> Array:
        drawn = np.random.default_rng([self.seed, stream]).standard_normal(shape, np.float32)
        drawn *= np.float32(scale)
        return drawn.astype(self.form, copy=False)

    def bytes(self, call: str) -> int:
        """The bytes that must be read and written at the least, whoever computes it and however.

        forward reads the logits and writes the mask; backward reads logits and grad_mask and writes grad_logits. Noise
        is written. Of `x`, forward reads what is selected alone; backward reads all of it and writes grad_x. Both
        together are the sum, since the backward pass cannot begin before the forward pass has ended.
        """
        batch, vectors, chosen = self.size, self.size * WIDTH, self.rows * WIDTH
        if self.operator == "selection":
            forward, backward = batch + 2 * chosen, 2 * batch + 2 * vectors + chosen
        elif self.operator == "noise":
            forward, backward = batch, 0
        else:
            functions = RECORDS[self.operator].functions
            forward, backward = (least_bytes(functions[name], *self.shape) for name in ("forward", "backward"))
        moved = {"forward": forward, "backward": backward, "forward+backward": forward + backward}[call]
        return moved * self.form.itemsize


def chosen(logits: Array, noise: Array) -> Array:
    """The index of the largest of each row, added in the type of the noise."""
    return np.asarray(np.argmax(logits.astype(noise.dtype, copy=False) + noise, axis=-1))


def least_bytes(function: RowFunction, rows: int, choices: int, itemsize: int = 1) -> int:
    """Every input of a row function read once, every output written once; of one temperature nothing is counted."""
    batch = rows * choices * itemsize
    written = {Result.LIKE_LOGITS: batch, Result.INDEX: 8 * rows, Result.PER_TEMP: 0}
    return (1 + len(function.cotangents)) * batch + sum(written[result] for result in function.results)
