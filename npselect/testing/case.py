"""A case: one question, the oracle's answer, and the judgement of anybody else's.

The answers are computed when they are first asked for. Shapes are free: candidates lie along `axis`, and what is judged
row by row is laid out as (rows, K) by `Case.rows`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from npselect import gumbel_softmax, straight_through
from npselect._places import as_numpy_sees
from npselect.testing import tolerance
from npselect.testing.compare import PROFILES, Allowed, compare_gradients, compare_masks, trouble

__all__ = ["Case", "Origin", "spread", "taken_from"]

Array = npt.NDArray[Any]
_PART = 2**16  # entries of a case that are judged at a time


class Origin(NamedTuple):
    """A small case with the answers of a large one, and which of its entries stands where.

    Row i of the large case has at j what row ``rows[i]`` of `case` has at ``columns[i, j]``: each of its entries once;
    or some of them many times, but these are no candidates worth the name: all of them together weigh less than
    ``2**-64`` of the largest. So the sums are the same beyond the last place of any dtype, and so are the gradients.
    """

    case: Case
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
class Case:
    """One call of ``forward(logits, temp)`` and one of ``backward(grad_mask, logits, temp)``.

    Attributes
    ----------
    name : str
        Its group and what sets it apart, as in ``"random/K=100"``.
    note : str
        What it asks for, or which mistake it finds.
    logits, grad_mask : ndarray
        Of the same shape, in the dtype under test.
    temp : float
        A number of that dtype.
    axis : int
        The axis of the candidates.
    where : ndarray of bool or None
        Which entries are candidates; all, if None.
    noise : ndarray or None
        What is added to the logits, in their dtype; then the operator is `npselect.gumbel_softmax`. The sum has no
        rounding error in the dtype.
    flags : tuple of str
        ``"ties"``: its rows were made so that rounded probabilities select otherwise. ``"pairs"``: two logits of a row
        are close. ``"again"``: `npselect.testing.check` asks other things before and after, and then once more.
        ``"error"``: the right answer is a ValueError. ``"numpy"``: strides are negative, which frameworks do not have.
        ``"extreme"``: its numbers, or its rows' bounds, are so large, small or far apart that wrong results tell
        nothing of their cause.
    origin : Origin or None
        Where the answers are taken from, instead of being computed.
    row_temp : ndarray or None
        The temperatures, in place of `temp`, if rows have their own: an array in the logits' dtype that broadcasts to
        `logits` with length 1 along `axis`.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import testing
    >>> case = testing.find_case("float32/edge/ties")
    >>> case.mask[0]
    array([0., 1., 0., 0.], dtype=float32)
    >>> case.check_forward(np.eye(4, dtype=np.float32)[[1, 0, 0, 0, 0, 2]])
    >>> case.check_forward(np.eye(4, dtype=np.float32)[[2, 0, 0, 0, 0, 2]])
    Traceback (most recent call last):
    ...
    AssertionError: float32/edge/ties: forward[0, 1] is 0.0; expected 1.0 (the lowest index among equals; -0 equals +0)
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

    @property
    def group(self) -> str:
        """``"digits"``, ``"random"``, ``"edge"``, ``"axis"``, ``"where"``, ``"layout"`` or ``"temp"``."""
        return self.name.partition("/")[0]

    @property
    def id(self) -> str:
        """The dtype and the name, as in ``"float32/random/K=100"``; with noise, ``"gumbel/"`` in front."""
        return f"{'' if self.noise is None else 'gumbel/'}{self.logits.dtype.name}/{self.name}"

    def __str__(self) -> str:
        return self.id

    @property
    def options(self) -> dict[str, Any]:
        """The options that an implementation must take for this case, by name: some of axis, where and noise."""
        options: dict[str, Any] = {} if self.axis == -1 else {"axis": self.axis}
        for name in ("where", "noise"):
            if getattr(self, name) is not None:
                options[name] = getattr(self, name)
        return options

    @property
    def needs(self) -> tuple[str, ...]:
        """What an implementation must take for this case: its options, and ``"row_temp"`` where rows have their own."""
        return (*self.options, *["row_temp"] * (self.row_temp is not None))

    @property
    def given_temp(self) -> Any:
        """The temperature as an implementation is given it: a float, or an array."""
        return self.temp if self.row_temp is None else self.row_temp

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

    @cached_property
    def bound(self) -> Array:
        """How far `backward` may be from `grad_logits`, entry by entry: of an honest textbook, and of rounding this."""
        return self.unrows(self.allowed(Allowed("standard")))

    def answer(self, direction: str, backend: str = "reference") -> Array:
        """What the operator returns, or raises."""
        if self.origin is not None and backend == "reference" and direction != "backward_temp":
            return self.origin.answer(direction)
        operator = straight_through if self.noise is None else gumbel_softmax
        arguments = (self.logits,) if direction == "forward" else (self.grad_mask, self.logits)
        return np.asarray(getattr(operator, direction)(*arguments, self.given_temp, **self.options, backend=backend))

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

    def part(self, rows: slice) -> Case:
        """Some of the rows, as a case of their own; of two axes, with the candidates along the last."""

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
        )

    def parts(self) -> Iterator[tuple[slice, Case]]:
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
        """What is chosen from: (rows, K) in float64, with the noise, and -inf at excluded entries."""
        w = self.logits.astype(np.float64)
        with np.errstate(invalid="ignore"):
            if self.noise is not None:
                w = w + self.noise.astype(np.float64)
        return self.rows(w if self.where is None else np.where(self.where, w, -np.inf))

    @property
    def added(self) -> Array | None:
        """The noise as (rows, K), if there is any."""
        return None if self.noise is None else self.rows(np.broadcast_to(self.noise, self.logits.shape))

    @cached_property
    def temps(self) -> Any:
        """The temperature of each row: a float, or (rows, 1) in float64."""
        if self.row_temp is None:
            return self.temp
        shape = list(self.logits.shape)
        shape[self.axis] = 1
        return self.rows(np.broadcast_to(self.row_temp.astype(np.float64), shape))

    @cached_property
    def agreed(self) -> Array:
        """Rows on which every honest textbook has the same answer: bool, shape (rows,).

        Their logits are finite or -inf, at least one of them finite; temp is a temperature; the dtype represents
        logits / temp, and what is computed of grad_mask: its differences, and they over temp. What `where` excludes is
        a logit of -inf. There are two axes, unless `axis` is given: many a textbook takes (rows, K), and no other.
        """
        if self.origin is not None:
            return np.asarray(self.origin.case.agreed[self.origin.rows])
        excluded = self.w == -np.inf
        sound = np.all(np.isfinite(self.w) | excluded, axis=-1) & ~np.all(excluded, axis=-1)
        with np.errstate(all="ignore"):
            quotients = np.where(excluded, 0.0, self.w) / self.temps
            cotangents = 2 * self.rows(self.grad_mask.astype(np.float64)) / np.minimum(1.0, self.temps)
            largest = tolerance.Format.of(self.logits.dtype).largest
            fits = (np.abs(quotients) <= largest) & (np.abs(cotangents) <= largest)
        taken = self.logits.ndim == 2 or "axis" in self.options
        return np.asarray(sound & np.all(fits, axis=-1) & taken)

    def allowed(self, how: Allowed) -> Array:
        """How far a gradient may be from the oracle's, (rows, K): by the bound of either."""
        if how not in self._allowed:
            self._allowed[how] = self._bounds(how)
        return self._allowed[how]

    @cached_property
    def _allowed(self) -> dict[Allowed, Array]:
        return {}

    @np.errstate(all="ignore")
    def _bounds(self, how: Allowed) -> Array:
        if self.origin is not None and self.origin.case.w.shape[-1] == self.logits.shape[-1]:
            return self.origin.taken(self.origin.case.allowed(how))
        dtype = self.logits.dtype
        g = self.rows(self.grad_mask)
        if self.w.size == 0:
            return np.zeros(self.w.shape)
        bound = tolerance.backward(g, self.w, self.temps, dtype, how.arithmetic, self.added)
        if how.backend == "reference":
            return np.asarray(bound + tolerance.ulp(self.rows(self.grad_logits), dtype) / 2)
        return np.asarray(bound + tolerance.backward(g, self.w, self.temps, dtype, tolerance.KERNELS))

    # -------------------------------------------------------------------------------------------- somebody else's

    def check_forward(self, actual: Any, profile: str = "standard") -> None:
        """Raise AssertionError if `actual` is not what ``forward(logits, temp, **options)`` must return.

        Parameters
        ----------
        actual : ndarray
            The result, of the shape and dtype of `logits`.
        profile : {"standard", "strict"}
            As in `npselect.testing.check`; in "standard", rows that are not judged may hold anything.
        """
        __tracebackhide__ = True
        self._check("forward", actual, profile)

    def check_backward(self, actual: Any, profile: str = "standard") -> None:
        """Raise AssertionError if `actual` is not what ``backward(grad_mask, logits, temp, **options)`` must return.

        Parameters and errors as in `check_forward`.
        """
        __tracebackhide__ = True
        self._check("backward", actual, profile)

    @np.errstate(all="ignore")
    def _check(self, direction: str, actual: Any, profile: str) -> None:
        __tracebackhide__ = True  # of pytest
        if profile not in PROFILES:
            raise ValueError(f"profile is {profile!r}; it takes one of {', '.join(map(repr, PROFILES))}")
        how = Allowed(profile)
        judged = self.judged(how)
        result = np.asarray(as_numpy_sees(actual))
        expected = self.mask if direction == "forward" else self.grad_logits
        difference = trouble(direction, type(actual).__name__, result, expected)
        if difference is None and direction == "forward":
            difference, _ = compare_masks(self, result, expected, judged, how)
        elif difference is None:
            difference, _ = compare_gradients(self, result, expected, judged, how)
        if difference is not None:
            raise AssertionError(f"{self}: {difference} ({self.note})")

    def expected(self, backend: str) -> tuple[Array, Array]:
        """The mask and the gradient of the oracle that is asked."""
        if backend == "reference":
            return self.mask, self.grad_logits
        return self.answer("forward", backend), self.answer("backward", backend)

    def judged(self, how: Allowed) -> Array:
        """Rows that count in a profile: bool, shape (rows,). No subnormal logit does where these may be flushed."""
        if self.origin is not None:
            return np.asarray(self.origin.case.judged(how)[self.origin.rows])
        kept = ~np.any(self._subnormal, axis=-1) if how.flushes_subnormals else np.ones(len(self.w), np.bool_)
        if how.profile == "strict":
            return np.asarray(kept)
        finite = np.isfinite(self.allowed(how)) & np.isfinite(self.rows(self.grad_logits))
        return np.asarray(kept & self.agreed & np.all(finite, axis=-1))

    @property
    def _subnormal(self) -> Array:
        """Logits that are below the smallest normal number, with the noise or without: bool, (rows, K)."""
        tiny = tolerance.Format.of(self.logits.dtype).tiny
        sizes = np.abs(np.stack([self.w, self.rows(self.logits.astype(np.float64))]))
        return np.asarray(np.any((sizes > 0) & (sizes < tiny), axis=0))


def spread(name: str, note: str, origin: Origin) -> Case:
    """The large case of an origin."""
    small = origin.case
    noise = None if small.noise is None else origin.taken(small.noise)
    logits, grad_mask = origin.taken(small.logits), origin.taken(small.grad_mask)
    return Case(name, note, logits, grad_mask, small.temp, noise=noise, flags=small.flags, origin=origin)


def taken_from(small: Case, large: Case) -> Case:
    """The large case as it is with another small one in the place of its own."""
    assert large.origin is not None
    return spread(large.name, large.note, large.origin._replace(case=small))
