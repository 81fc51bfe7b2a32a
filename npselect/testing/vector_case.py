r"""A question to a gradient at the level of vectors: e, q and a cotangent; the answers, and how far others may be off.

An honest implementation of `npselect.selection.rotation` follows the published lines. With u the unit roundoff of the
dtype, D terms in a sum of any order, and everything measured as vectors' lengths, to first order::

    e^, q^     off by  h = (D / 2 + 2) u                     D u for the sum of squares, halved by the root; a division
    r          off by  t = 4 h / |e^ + q^| + (D / 2 + 3) u   a sum of two that are off by h, divided by its length
    2 r <r, g>             by  (4 t + 2 (D + 2) u) |g|
    2 e^ <q^, g>           by  (4 h + 2 (D + 2) u) |g|
    lambda                 by  (D + 4) u of itself; the additions by 8 u |g|

Together that is at most ``lambda |g| u ((8 D + 32) / |e^ + q^| + 11 D + 52)``, which every entry of a row is allowed;
``lambda R e``, the forward pass, likewise with e in the place of g. To the copy of `npselect.selection.identity` only
its forward pass adds an error: ``e + (q - e)`` is off by ``u (|q_i - e_i| + |q_i|)``. The oracle's error is half a unit
in the last place.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from types import ModuleType

import numpy as np

from npselect import selection
from npselect.testing import tolerance
from npselect.testing.aliases import Array, Dtype

__all__ = ["VectorCase", "vector_cases"]


@dataclass(frozen=True, eq=False)
class VectorCase:
    """One call of ``forward(e, q)`` and one of ``backward(grad, e, q)``."""

    name: str
    note: str
    grad: Array
    e: Array
    q: Array
    operator: ModuleType
    judged: bool = True

    @property
    def id(self) -> str:
        """The dtype, the operator and the name."""
        return f"{self.e.dtype.name}/{self.operator.__name__.rpartition('.')[-1]}/{self.name}"

    @cached_property
    def wide(self) -> tuple[Array, Array, Array]:
        """The arrays in float64."""
        return self.grad.astype(np.float64), self.e.astype(np.float64), self.q.astype(np.float64)

    def right(self, direction: str) -> Array:
        """The oracle's answer."""
        if direction == "forward":
            return self.q
        return self._gradient

    @cached_property
    def _gradient(self) -> Array:
        result: Array = self.operator.backward(self.grad, self.e, self.q, backend="reference")
        return result

    def allowed(self, direction: str) -> Array:
        """How far each entry may be from that."""
        g, e, q = self.wide
        form = tolerance.Format.of(self.e.dtype)
        if self.operator is selection.identity:
            return form.unit * (np.abs(q - e) + np.abs(q)) if direction == "forward" else np.zeros(q.shape)
        terms, x, y = e.shape[-1], length(e), length(q)
        between = length(e / x + q / y)
        amplified = np.where(between > 0, (8 * terms + 32) / between, 0.0)  # of opposite vectors nothing is left
        bound = form.unit * (amplified + 11 * terms + 52) * y / x * length(e if direction == "forward" else g)
        half = tolerance.ulp(self.right(direction).astype(np.float64), self.e.dtype) / 2
        return np.broadcast_to(bound, q.shape) + half


def length(x: Array) -> Array:
    """Of each row's vector, (rows, 1)."""
    return np.asarray(np.linalg.norm(x, axis=-1, keepdims=True))


@cache
def vector_cases(dtype: Dtype, operator: ModuleType) -> tuple[VectorCase, ...]:
    """The questions: the same at every call; the oracle answers each once a process."""
    rng = np.random.default_rng(20241008)
    made = []

    def case(name: str, note: str, grad: Array, e: Array, q: Array, judged: bool = True) -> None:
        made.append(VectorCase(name, note, grad.astype(dtype), e.astype(dtype), q.astype(dtype), operator, judged))

    def vectors(rows: int, features: int) -> Array:
        return rng.standard_normal((rows, features))

    for features in (1, 2, 5, 64):
        g, e, q = (vectors(7, features) for _ in range(3))
        q = np.where(np.sum(e * q, axis=-1, keepdims=True) < 0, -q, q)
        case(f"random/D={features}", "at most a quarter turn apart, in both directions of each axis", g, e, q)
    g, e = vectors(6, 8), vectors(6, 8)
    case("angles/near", "a code that the encoder's output has almost reached", g, e, e + 0.03 * vectors(6, 8))
    case("angles/orthogonal", "a quarter turn", g, e, np.roll(e, 1, axis=-1) * np.tile([1, -1], 4))
    case("angles/obtuse", "more than a quarter turn", g, e, 0.7 * np.roll(e, 2, axis=-1) - e)
    case("sizes/far code", "lambda is large", g, e, 40 * np.roll(e, 1, axis=-1))
    case("sizes/near code", "lambda is small", g, e, np.roll(e, 1, axis=-1) / 40)
    case("sizes/one direction", "no rotation, lambda alone", g, e, e * 3)
    case("sizes/the same", "the gradient as it is", g, e, e)
    case("rows/one", "a batch of one", g[:1], e[:1], e[:1, ::-1])
    case("degenerate/q is 0", "lambda is 0", g, e, 0 * e, operator is selection.identity)
    case("degenerate/e is 0", "lambda is infinite", g, 0 * e, e, operator is selection.identity)
    case("degenerate/opposite", "e/|e| + q/|q| is 0", g, e, -e, operator is selection.identity)
    return tuple(made)
