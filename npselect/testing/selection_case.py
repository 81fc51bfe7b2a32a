r"""A question to a selection layer: vectors, logits and a cotangent; the right answers, and how far others may be off.

For a row with the selected index m, and x the row's vectors or those that all rows share (a codebook)::

    chosen = x[m]                              exactly
    grad_x = grad_chosen at m, else 0          exactly; of c rows that select a shared vector, the sum
    g_j = <grad_chosen, x_j> for every j       grad_logits = operator.backward(g, logits)

A sum of c numbers in any order is wrong by at most ``gamma_{c-1} sum |grad_chosen|``, ``gamma_n = n u / (1 - n u)``,
in 16 bits too: scattered additions round each time, and c is small here. A dot product of D terms is wrong by
``eps_j = gamma_{D+1} sum_d |grad_chosen_d x_jd|``: a product, D - 1 additions, and the rounding of the result; in 16
bits the additions are done in 32. What eps makes of grad_logits, a linear function of g with the Jacobian
``(diag(p) - p p^T) / temp``, is at most::

    E_i = (P_i / temp) (eps_i + sum_j P_j eps_j)        P = p and its own error

beside the operator's own bound for g (`npselect.testing.tolerance`). E is taken twice, as the relative errors of the
operations behind it, below 1, apply to it as well. The oracle's g is a sum in float64, with an eps of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from npselect import selection
from npselect.testing import tolerance
from npselect.testing.aliases import Array, Options, Tensor
from npselect.testing.case import Case
from npselect.testing.compare import Errors, bits, malformed
from npselect.testing.families import exact_softmax
from npselect.testing.outcome import Difference
from npselect.testing.profile import STANDARD, Profile

__all__ = ["RESULTS", "SelectionCase"]

RESULTS = ("chosen", "grad_x", "grad_logits")
_ACCUMULATED = 2.0**-24


@dataclass(frozen=True, eq=False)
class SelectionCase:
    """One call of ``forward(x, logits, temp)`` and one of ``backward(grad_chosen, x, logits, temp)``.

    Attributes
    ----------
    name : str
        Its group, ``"codebook"``, ``"batch"`` or ``"where"``, and what sets it apart.
    note : str
        What it asks for, or which mistake it finds.
    x : ndarray, shape (K, D) or (rows, K, D)
        The vectors to choose from, shared by all rows or each row's own.
    logits : ndarray, shape (rows, K)
        No two of a row are so close that rounded probabilities could swap them, but for exact ties.
    grad_chosen : ndarray, shape (rows, D)
        The cotangent of what is chosen.
    temp : float
        A number of the dtype.
    where : ndarray of bool or None
        Which entries are candidates; all, if None.
    noise : ndarray or None
        What is added to the logits.
    flags : tuple of str
        ``"again"``: other things are asked before and after, and then it once more.
    operator : str
        The name of the operator that selects; by default the first that takes what is given.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import testing
    >>> case = testing.selection_cases()[0]
    >>> case.check_forward(case.x[np.argmax(case.logits, axis=-1)])
    """

    name: str
    note: str
    x: Array
    logits: Array
    grad_chosen: Array
    temp: float
    where: Array | None = None
    noise: Array | None = None
    flags: tuple[str, ...] = ()
    operator: str = ""

    @property
    def group(self) -> str:
        """``"codebook"``, ``"batch"`` or ``"where"``."""
        return self.name.partition("/")[0]

    @property
    def id(self) -> str:
        """The dtype and the name, as in ``"float32/codebook/ties"``; with noise, ``"gumbel/"`` in front."""
        return self.question.id

    def __str__(self) -> str:
        return self.id

    @property
    def options(self) -> Options:
        """Those of where and noise that are given."""
        return {name: getattr(self, name) for name in ("where", "noise") if getattr(self, name) is not None}

    # -------------------------------------------------------------------------------------------- the oracle

    @cached_property
    def _options(self) -> Options:
        return {**self.options, "operator": self.question.family.module, "backend": "reference"}

    @cached_property
    def chosen(self) -> Array:
        """The right forward result, shape (rows, D)."""
        return selection.forward(self.x, self.logits, self.temp, **self._options)

    @cached_property
    def _gradients(self) -> tuple[Array, Array]:
        return selection.backward(self.grad_chosen, self.x, self.logits, self.temp, **self._options)

    @property
    def grad_x(self) -> Array:
        """The right gradient of `x`."""
        return self._gradients[0]

    @property
    def grad_logits(self) -> Array:
        """The right gradient of the logits."""
        return self._gradients[1]

    # -------------------------------------------------------------------------------------------- in float64

    @cached_property
    def vectors(self) -> Array:
        """The vectors of every row: (rows, K, D)."""
        return np.broadcast_to(self.x.astype(np.float64), (len(self.logits), *self.x.shape[-2:]))

    def over_x(self, shares: Array) -> Array:
        """What each row gives each vector, (rows, K, D), in the shape of `x`."""
        return shares if self.x.ndim == 3 else np.sum(shares, axis=0)

    def to_vectors(self, weights: Array) -> Array:
        """What `x` receives if the rows' cotangents are given to its vectors by weights, (rows, K)."""
        return self.over_x(weights[:, :, None] * self.grad_chosen.astype(np.float64)[:, None])

    @cached_property
    def g(self) -> Array:
        """``<grad_chosen, x_j>``, the cotangent of the mask."""
        return np.asarray(np.einsum("bd,bkd->bk", self.grad_chosen.astype(np.float64), self.vectors))

    @cached_property
    def question(self) -> Case:
        """The operator's part: with `g`, in float64, as the cotangent of the mask."""
        return Case(self.name, self.note, self.logits, self.g, self.temp, where=self.where, noise=self.noise,
                    operator=self.operator)  # fmt: skip

    @cached_property
    def probs(self) -> Array:
        """Of the candidates: (rows, K)."""
        return exact_softmax(self.question.w, self.temp)

    @cached_property
    def mask(self) -> Array:
        """Of what is selected: (rows, K)."""
        return self.question.mask.astype(np.float64)

    # -------------------------------------------------------------------------------------------- the bounds

    @np.errstate(all="ignore")
    def allowed(self, result: str, profile: Profile) -> Array:
        """How far one of `RESULTS` may be from the oracle's."""
        if result == "chosen":
            return np.zeros(self.chosen.shape)
        return self._of_grad_x() if result == "grad_x" else self._of_grad_logits(profile)

    def _of_grad_x(self) -> Array:
        u, double = tolerance.Format.of(self.x.dtype).unit, 2.0**-53
        count = np.broadcast_to(self.over_x(self.mask[:, :, None]), self.x.shape)
        sizes = self.over_x(self.mask[:, :, None] * np.abs(self.grad_chosen.astype(np.float64))[:, None])
        once = tolerance.ulp(self.grad_x.astype(np.float64), self.x.dtype) / 2
        return np.where(count > 1, (_gamma(count - 1, u) + _gamma(count - 1, double)) * sizes + once, 0.0)

    def error_of_g(self, profile: Profile) -> Array:
        """Of the dot products, and of the oracle's: eps in the module's text."""
        form, features = tolerance.Format.of(self.logits.dtype), self.x.shape[-1]
        rounded = features + 1 if form.unit <= _ACCUMULATED else 3 + features * _ACCUMULATED / form.unit
        sizes = np.einsum("bd,bkd->bk", np.abs(self.grad_chosen.astype(np.float64)), np.abs(self.vectors))
        eps = (_gamma(rounded, form.unit) + _gamma(features, 2.0**-53)) * sizes
        return np.asarray(eps + features * form.lost(profile.flushes_subnormals))

    def _of_grad_logits(self, profile: Profile) -> Array:
        w, eps = self.question.w, self.error_of_g(profile)
        if w.size == 0:
            return np.zeros(w.shape)
        p = self.probs + tolerance.soft(w, self.temp, self.logits.dtype, profile.arithmetic)
        p = np.where(np.sum(w > -np.inf, axis=-1, keepdims=True) > 1, p, 0.0)
        moved = 2 * p * (eps + np.sum(p * eps, axis=-1, keepdims=True)) / self.temp
        own = self.question.allowed(profile) + tolerance.ulp(self.grad_logits.astype(np.float64), self.logits.dtype) / 2
        return np.where(p > 0, own + moved, 0.0)

    def judged(self, profile: Profile) -> bool:
        """Whether textbooks agree on it: all numbers are in the range of the dtype."""
        return bool(np.all(self.question.judged(profile)) and np.all(np.isfinite(self.allowed("grad_logits", profile))))

    # -------------------------------------------------------------------------------------------- somebody else's

    @np.errstate(all="ignore")
    def compare(self, result: str, answer: Tensor, profile: Profile) -> tuple[Difference | None, Errors]:
        """The first thing that is wrong with one of `RESULTS`; and the worst errors, if it is a gradient."""
        expected, actual = getattr(self, result), np.asarray(answer)
        if wrong := malformed(result, type(answer).__name__, actual, expected):
            return wrong, Errors()
        allowed = self.allowed(result, profile)
        wide, exact = actual.astype(np.float64), expected.astype(np.float64)
        error = np.abs(wide - exact)
        error = np.where(np.isnan(error), np.inf, error)
        fractions = np.where(error == 0, 0.0, error / allowed)
        errors = Errors()
        if error.size and result != "chosen":
            errors = Errors(float(np.max(error / tolerance.ulp(exact, expected.dtype))), float(np.max(fractions)))
        different = np.argwhere(~tolerance.isclose(actual, expected, allowed))
        if not len(different):
            return None, errors
        position = tuple(int(i) for i in different[0])
        a, e, limit = actual[position], expected[position], float(allowed[position])
        message = f"is {a!s}; expected {e!s}" + (f", give or take {limit:.2g}" if limit > 0 else "")
        conditioning = limit / float(tolerance.ulp(np.asarray(e, np.float64), expected.dtype))
        difference = Difference(result, message, position, float(a), float(e), limit, bits(a), bits(e), conditioning)
        return difference, errors

    def check_forward(self, chosen: Tensor) -> None:
        """Raise AssertionError if `chosen` is not what ``forward(x, logits, temp)`` must return."""
        __tracebackhide__ = True  # of pytest
        self._check(chosen=chosen)

    def check_backward(self, grad_x: Tensor, grad_logits: Tensor) -> None:
        """Raise AssertionError if these are not what ``backward(grad_chosen, x, logits, temp)`` must return."""
        __tracebackhide__ = True
        self._check(grad_x=grad_x, grad_logits=grad_logits)

    def _check(self, **answers: Tensor) -> None:
        __tracebackhide__ = True
        for result, answer in answers.items():
            difference, _ = self.compare(result, answer, STANDARD)
            if difference is not None:
                raise AssertionError(f"{self}: {difference} ({self.note})")


def _gamma(count: Array | float, unit: float) -> Array:
    return np.asarray(count * unit / (1 - np.minimum(count * unit, 0.5)))
