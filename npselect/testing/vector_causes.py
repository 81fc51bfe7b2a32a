"""Likely causes of what is wrong with a gradient at the level of vectors: what each known mistake makes of a case."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np

from npselect import selection
from npselect.testing import tolerance
from npselect.testing.aliases import Array
from npselect.testing.vector_case import VectorCase, length

__all__ = ["mistakes", "predicted_within"]

Mistake = Callable[[VectorCase], Array]


def _parts(case: VectorCase) -> tuple[Array, Array, Array, Array, Array]:
    """g, e^, q^, r, and lambda, in float64."""
    g, e, q = case.wide
    along, toward = e / length(e), q / length(q)
    r = along + toward
    return g, along, toward, r / length(r), length(q) / length(e)


def _dot(x: Array, y: Array) -> Array:
    return np.asarray(np.sum(x * y, axis=-1, keepdims=True))


def _turned(g: Array, along: Array, toward: Array, r: Array, sign: float = 1.0) -> Array:
    return np.asarray(g - 2 * r * _dot(r, g) + sign * 2 * along * _dot(toward, g))


def _unscaled(case: VectorCase) -> Array:
    return _turned(*_parts(case)[:4])


def _transposed(case: VectorCase) -> Array:
    g, along, toward, r, scale = _parts(case)
    return scale * _turned(g, toward, along, r)


def _not_normalised(case: VectorCase) -> Array:
    g, along, toward, _, scale = _parts(case)
    return scale * _turned(g, along, toward, along + toward)


def _wrong_sign(case: VectorCase) -> Array:
    g, along, toward, r, scale = _parts(case)
    return np.asarray(scale * _turned(g, along, toward, r, sign=-1.0))


def _scale_not_held(case: VectorCase) -> Array:
    g, along, toward, r, scale = _parts(case)
    return np.asarray(scale * (_turned(g, along, toward, r) - along * _dot(toward, g)))


def _rotation_not_held(case: VectorCase) -> Array:
    g, along, toward, _, scale = _parts(case)
    return np.asarray(scale * along * _dot(toward, g))


def _reflected(case: VectorCase) -> Array:
    g, _, _, r, scale = _parts(case)
    return np.asarray(scale * (g - 2 * r * _dot(r, g)))


def predicted_within(case: VectorCase) -> Array:
    """As much is allowed of predictions: an honest implementation of a mistake has the errors of one without."""
    allowed = case.allowed("backward")
    return allowed if np.any(allowed) else np.full(allowed.shape, 16 * tolerance.Format.of(case.e.dtype).unit)


def mistakes(operator: ModuleType) -> tuple[tuple[str, Mistake], ...]:
    """What mistakes make of a case, by their names."""
    shared: tuple[tuple[str, Mistake], ...] = (
        ("e is detached: its gradient is 0", lambda case: np.zeros(case.e.shape)),
        ("the sign is flipped", lambda case: -case.right("backward").astype(np.float64)),
    )
    if operator is selection.identity:
        return (*shared, ("the rotation trick, not the copy", lambda case: _parts(case)[4] * _unscaled(case)))
    return (
        *shared,
        ("the cotangent as it is: the copy, no rotation", lambda case: case.wide[0]),
        ("lambda, |q| / |e|, is missing", _unscaled),
        ("lambda is upside down: |e| / |q|", lambda case: _unscaled(case) / _parts(case)[4]),
        ("lambda alone, no rotation", lambda case: _parts(case)[4] * case.wide[0]),
        ("r is not normalised", _not_normalised),
        ("the sign of 2 e^ <q^, g> is flipped", _wrong_sign),
        ("R in the place of its transpose: e and q are exchanged", _transposed),
        ("2 e^ <q^, g> is missing: a reflection", _reflected),
        ("lambda is not held: a gradient through |q| / |e|", _scale_not_held),
        ("R is not held: a gradient through the rotation", _rotation_not_held),
    )
