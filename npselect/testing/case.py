"""A case: a question, and the judgement of anybody's answers to it, each value by a bound of its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from npselect._places import as_numpy_sees
from npselect.testing import tolerance
from npselect.testing.aliases import Array, Tensor
from npselect.testing.compare import compare_gradients, compare_masks, malformed
from npselect.testing.families import FAMILIES, GIVEN, Family, by_default
from npselect.testing.outcome import Difference
from npselect.testing.profile import STANDARD, Profile, profile_name
from npselect.testing.question import Origin, Question

__all__ = ["Case", "Origin", "spread", "taken_from"]


@dataclass(frozen=True, eq=False)
class Case(Question):
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
        What is added to the logits, in their dtype. The sum has no rounding error in the dtype.
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
    operator : str
        The name of the operator that is asked about; by default the first that was there whose cases are given what
        this one is.
    index : ndarray of int64 or None
        What is selected in each row, in the shape of `logits` without `axis`; -1 where `where` offers nothing.
    settings : mapping of str to float or str
        Options that are the same for all rows, where they are not the operator's defaults: some of forward_temp,
        unimix and gap.
    sample_noise : ndarray or None
        The noise of samples given the choice, in the logits' dtype, with an axis of samples in front of their shape.

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

    def __post_init__(self) -> None:
        if not self.operator:
            given = [option for option in (*GIVEN, "sample_noise") if getattr(self, option) is not None]
            object.__setattr__(self, "operator", by_default(given).name)

    @property
    def family(self) -> Family:
        """What is known of its operator."""
        return FAMILIES[self.operator]

    @property
    def id(self) -> str:
        """The dtype and the name, as in ``"float32/random/K=100"``; of other operators, with their prefix in front."""
        return f"{self.family.prefix}{self.logits.dtype.name}/{self.name}"

    def __str__(self) -> str:
        return self.id

    @property
    def small(self) -> Case | None:
        """The case that its answers are taken from, if there is an origin."""
        if self.origin is None:
            return None
        assert isinstance(self.origin.case, Case)
        return self.origin.case

    @cached_property
    def bound(self) -> Array:
        """How far `backward` may be from `grad_logits`, entry by entry: of an honest textbook, and of rounding this."""
        return self.unrows(self.allowed(STANDARD))

    @cached_property
    def agreed(self) -> Array:
        """Rows on which every honest textbook has the same answer: bool, shape (rows,).

        Their logits are finite or -inf, at least one of them finite; temp is a temperature; the dtype represents
        logits / temp, and what is computed of grad_mask: its differences, and they over temp. What `where` excludes is
        a logit of -inf. There are two axes, unless `axis` is given: many a textbook takes (rows, K), and no other.
        """
        if self.origin is not None and self.small is not None:
            return np.asarray(self.small.agreed[self.origin.rows])
        excluded = self.w == -np.inf
        sound = np.all(np.isfinite(self.w) | excluded, axis=-1) & ~np.all(excluded, axis=-1)
        with np.errstate(all="ignore"):
            quotients = (np.where(excluded, 0.0, np.abs(self.w)) + self._drawn_further) / self.temps
            cotangents = 2 * self.rows(self.grad_mask.astype(np.float64)) / np.minimum(1.0, self.temps)
            largest = tolerance.Format.of(self.logits.dtype).largest
            fits = (quotients <= largest) & (np.abs(cotangents) <= largest)
        taken = self.logits.ndim == 2 or "axis" in self.options
        return np.asarray(sound & np.all(fits, axis=-1) & taken)

    @property
    def _drawn_further(self) -> Array | float:
        """How far noise of samples may take what is weighed from the logits: with the logarithms of sums around it."""
        if self.sample_noise is None:
            return 0.0
        return np.asarray(np.max(np.abs(self.draws), axis=0) + np.log(2.0 * self.w.shape[-1]))

    def allowed(self, profile: Profile) -> Array:
        """How far a gradient may be from the oracle's, (rows, K): by the bound of either."""
        if profile not in self._allowed:
            self._allowed[profile] = self._bounds(profile)
        return self._allowed[profile]

    @cached_property
    def _allowed(self) -> dict[Profile, Array]:
        return {}

    @np.errstate(all="ignore")
    def _bounds(self, profile: Profile) -> Array:
        if self.origin is not None and self.small is not None and self.small.w.shape[-1] == self.logits.shape[-1]:
            return self.origin.taken(self.small.allowed(profile))
        if self.w.size == 0:
            return np.zeros(self.w.shape)
        bound = self.family.bound(self, profile.arithmetic)
        if profile.backend == "reference":
            return np.asarray(bound + tolerance.ulp(self.rows(self.grad_logits), self.logits.dtype) / 2)
        return np.asarray(bound + self.family.bound(self, tolerance.KERNELS))

    # -------------------------------------------------------------------------------------------- somebody else's

    def check_forward(self, actual: Tensor, profile: str = "standard") -> None:
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

    def check_backward(self, actual: Tensor, profile: str = "standard") -> None:
        """Raise AssertionError if `actual` is not what ``backward(grad_mask, logits, temp, **options)`` must return.

        Parameters and errors as in `check_forward`.
        """
        __tracebackhide__ = True
        self._check("backward", actual, profile)

    def _check(self, direction: str, actual: Tensor, name: str) -> None:
        __tracebackhide__ = True  # of pytest
        difference = self._difference(direction, actual, name)
        if difference is not None:
            raise AssertionError(f"{self}: {difference} ({self.note})")

    @np.errstate(all="ignore")
    def _difference(self, direction: str, actual: Tensor, name: str) -> Difference | None:
        profile = Profile(profile_name(name))
        judged = self.judged(profile)
        result = np.asarray(as_numpy_sees(actual))
        expected = self.mask if direction == "forward" else self.grad_logits
        difference = malformed(direction, type(actual).__name__, result, expected)
        if difference is None and direction == "forward":
            difference, _ = compare_masks(self, result, expected, judged, profile)
        elif difference is None:
            difference, _ = compare_gradients(self, result, expected, judged, self.allowed(profile))
        return difference

    def judged(self, profile: Profile) -> Array:
        """Rows that count in a profile: bool, shape (rows,). No subnormal logit does where these may be flushed."""
        if self.origin is not None and self.small is not None:
            return np.asarray(self.small.judged(profile)[self.origin.rows])
        kept = ~np.any(self._subnormal, axis=-1) if profile.flushes_subnormals else np.ones(len(self.w), np.bool_)
        if profile.name == "strict":
            return np.asarray(kept)
        finite = np.isfinite(self.allowed(profile)) & np.isfinite(self.rows(self.grad_logits))
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
    return Case(name, note, logits, grad_mask, small.temp, noise=noise, flags=small.flags, origin=origin,
                operator=small.operator)  # fmt: skip


def taken_from(small: Case, large: Case) -> Case:
    """The large case as it is with another small one in the place of its own."""
    assert large.origin is not None
    return spread(large.name, large.note, large.origin._replace(case=small))
