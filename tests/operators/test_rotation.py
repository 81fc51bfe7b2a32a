"""The rotation trick: against reflections by mpmath; what degenerate rows get; what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from inputs import DTYPES
from mpmath import mp, mpf
from numpy import inf, nan
from rotations import BITS, KINDS, by_reflections, exact, half_places, length, mirrors, pairs, reflected, used

from npselect import selection
from npselect.selection import rotation

BACKENDS = ["reference", "cpu"]
SIZES = ((1, 4), (2, 12), (3, 6), (8, 4), (33, 2))  # D, and how many rows
backends = pytest.mark.parametrize("backend", BACKENDS)


# ------------------------------------------------------------------------------------------------ the definition


@pytest.mark.parametrize("kind", KINDS)
def test_the_reflections_are_a_rotation_that_leads_from_e_to_q(kind: str) -> None:
    _, e, q = pairs(kind, 2, 4, "float64")
    for one, other in zip(e, q, strict=True):
        with mp.workprec(BITS):
            along, scale = mirrors(one, other)
            r = np.eye(4, dtype=int)
            for direction in along:
                r = reflected(direction, r)
            tiny = mpf(2) ** -500
            assert np.all(abs(r.T @ r - np.eye(4, dtype=int)) < tiny)
            assert abs(mp.det(mp.matrix(r.tolist())) - 1) < tiny
            assert np.all(abs(scale * (r @ exact(one)) - exact(other)) < tiny * length(exact(other)))
            e_unit, q_unit = (exact(x) / length(exact(x)) for x in (one, other))
            published = np.eye(4, dtype=int) + 2 * np.outer(q_unit, e_unit)
            bisector = (e_unit + q_unit) / length(e_unit + q_unit)
            assert np.all(abs(published - 2 * np.outer(bisector, bisector) - r) < tiny)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_by_reflections(kind: str, dtype: str, record: Any) -> None:
    for seed, (features, rows) in enumerate(SIZES):
        g, e, q = pairs(kind, rows, features, dtype, seed)
        expected = by_reflections(g, e, q)
        places = 2 * half_places(expected, dtype)
        result = rotation.backward(g, e, q, backend="reference")
        errors = np.abs(np.array([exact(row) for row in result.astype(np.float64)], object) - expected)
        assert np.all(errors / places <= 0.501)
        result = rotation.backward(g, e, q, backend="cpu")
        assert result.dtype == g.dtype
        fraction = used(result, expected, g, e, q, dtype)
        record(f"selection.rotation.backward, {dtype}: error / bound", fraction)
        assert fraction <= 0.5


def test_angles_and_lengths_are_kept() -> None:
    """``<grad_e, e> = <g, q>`` and ``|grad_e| = lambda |g|``; orthogonal to the plane, the gradient is lambda g."""
    g, e, q = pairs("any", 50, 6, "float64", 3)
    result = rotation.backward(g, e, q)

    def lengths(x: Any) -> Any:
        return np.linalg.norm(x, axis=-1)

    scale = lengths(q) / lengths(e)
    np.testing.assert_allclose(np.sum(result * e, -1), np.sum(g * q, -1), atol=1e-13 * np.max(lengths(g) * lengths(q)))
    np.testing.assert_allclose(lengths(result), scale * lengths(g), rtol=1e-14)
    plane = np.linalg.qr(np.stack([e, q], axis=-1))[0]
    apart = g - np.einsum("bdk,bck,bc->bd", plane, plane, g)
    np.testing.assert_allclose(rotation.backward(apart, e, q), scale[:, None] * apart, atol=1e-13 * np.max(scale))


def faulty(g: Any, e: Any, q: Any, fault: str) -> Any:
    """The published lines in longdouble, with a mistake."""
    g, e, q = (x.astype(np.longdouble) for x in (g, e, q))

    def size(x: Any) -> Any:
        return np.sqrt(np.sum(x * x, axis=-1, keepdims=True))

    def dot(x: Any, y: Any) -> Any:
        return np.sum(x * y, axis=-1, keepdims=True)

    along, toward, scale = e / size(e), q / size(q), size(q) / size(e)
    r = along + toward
    r = r if fault == "r is not normalised" else r / size(r)
    sign = -1 if fault == "the sign of the second term" else 1
    if fault == "R in the place of its transpose":
        along, toward = toward, along
    result = scale * (g - 2 * r * dot(r, g) + sign * 2 * along * dot(toward, g))
    if fault == "lambda is missing":
        result /= scale
    elif fault == "lambda is upside down":
        result /= scale**2
    elif fault == "the identity":
        result = g
    elif fault == "the gradient of lambda too":
        result -= along * dot(g, q) / size(e)  # of |q| / |e| in lambda R e
    return result


@pytest.mark.parametrize(
    "fault",
    [
        "none",
        "lambda is missing",
        "lambda is upside down",
        "r is not normalised",
        "the sign of the second term",
        "R in the place of its transpose",
        "the identity",
        "the gradient of lambda too",
    ],
)
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_the_comparison_rejects_faults(fault: str, dtype: str) -> None:
    g, e, q = pairs("any", 8, 5, dtype, 1)
    fraction = used(faulty(g, e, q, fault).astype(g.dtype), by_reflections(g, e, q), g, e, q, dtype)
    assert (fraction <= 0.5) == (fault == "none")


def test_the_published_lines_lose_digits_that_are_kept_here() -> None:
    g, e, q = pairs("one place off opposite", 20, 8, "float64")
    expected = by_reflections(g, e, q)
    assert used(faulty(g, e, q, "none"), expected, g, e, q, "float64") > 1
    assert used(rotation.backward(g, e, q), expected, g, e, q, "float64") < 0.1


def test_the_reference_is_not_certain_too_early() -> None:
    """A regression: 50 and 100 digits agreed that e + q is 0, 115 places further down it is not."""
    e, q = [1.71564707e121, 7.54368644e-11], [-3.36486596e134, 1.71598163e-147]
    g = [-0.89443746, 1.795889]
    with mp.workprec(BITS):
        expected = by_reflections(np.array([g]), np.array([e]), np.array([q]))[0]
        assert rotation.backward(g, e, q, backend="reference").tolist() == [float(value) for value in expected]


# ------------------------------------------------------------------------------------------------ degenerate rows


@backends
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_table(dtype: str, backend: str) -> None:
    rows = {
        "the same": ([3, -1, 0.5], [1, 2, 3], [1, 2, 3], [3, -1, 0.5]),
        "one direction": ([3, -1, 0.5], [1, 2, 3], [2, 4, 6], [6, -2, 1]),
        "opposite": ([25, 0, 1], [3, 4, 0], [-6, -8, 0], [14, -48, 2]),
        "q is 0": ([3, -1, 0.5], [1, 2, 3], [0, -0.0, 0], [0, 0, 0]),
        "e is 0": ([3, -1, 0.5], [0, -0.0, 0], [1, 2, 3], [3, -1, 0.5]),
        "both are 0": ([3, -1, 0.5], [0, 0, 0], [0, 0, 0], [0, 0, 0]),
        "g is 0": ([0, 0, 0], [1, 2, 3], [3, -2, 1], [0, 0, 0]),
        "a quarter turn": ([4, 6, 1], [2, 0, 0], [0, 1, 0], [3, -2, 0.5]),
        "NaN in e": ([1, 2, 3], [1, nan, 3], [1, 2, 3], [nan] * 3),
        "an infinity in q": ([1, 2, 3], [1, 2, 3], [1, 2, -inf], [nan] * 3),
        "NaN in g": ([1, nan, 3], [1, 2, 3], [3, 2, 1], [nan] * 3),
        "NaN in g, q is 0": ([1, nan, 3], [1, 2, 3], [0, 0, 0], [nan] * 3),
        "an infinity in g, e is 0": ([1, inf, 3], [0, 0, 0], [1, 2, 3], [nan] * 3),
        "the same again": ([3, -1, 0.5], [1, 2, 3], [1, 2, 3], [3, -1, 0.5]),
    }
    g, e, q, expected = (np.array([row[i] for row in rows.values()]).astype(DTYPES[dtype]) for i in range(4))
    result = rotation.backward(g, e, q, backend=backend)
    for name, one, right in zip(rows, result.astype(np.float64), expected.astype(np.float64), strict=True):
        if name in ("opposite", "a quarter turn"):
            np.testing.assert_allclose(one, right, rtol=1e-15, atol=1e-15)
        else:
            np.testing.assert_array_equal(one, right, err_msg=name)
    one, two, q = (np.array(x).astype(DTYPES[dtype]) for x in ([[3], [3]], [[2], [2]], [[1], [-4]]))
    assert rotation.backward(one, two, q, backend=backend).tolist() == [[1.5], [-6.0]]
    for nothing in (one[:, :0], one[:0]):
        assert rotation.backward(nothing, nothing, nothing, backend=backend).shape == nothing.shape


@backends
def test_what_does_not_change_is_copied(backend: str) -> None:
    """Bit for bit where ``q = e``, however large and small; and a scale by a power of two is exact."""
    g = np.array([[1e300, -1e-300, 0.1], [5e-324, -3e-320, 0.0], [0.1, 0.2, 0.3]])
    e = np.array([[1e-310, 1e300, -7.0], [0.1, 0.7, 1e-9], [1.0, 2.0, -0.3]])
    assert np.array_equal(rotation.backward(g, e, e, backend=backend), g)
    g, e, q = pairs("any", 3, 3, "float64")
    some = rotation.backward(g, e, q, backend=backend)
    for k in (-900, -41, 3, 800):
        assert np.array_equal(rotation.backward(g, np.ldexp(e, -k), q, backend=backend), np.ldexp(some, k))
        assert np.array_equal(rotation.backward(np.ldexp(g, k), e, q, backend=backend), np.ldexp(some, k))


def test_what_selection_offers_nothing_or_one_vector() -> None:
    codebook, e = np.array([[3.0, 4.0]]), np.array([[0.0, 2.0], [1.0, 0.0]])
    q = selection.forward(codebook, np.zeros((2, 1)), where=[[True], [False]])
    grad = np.array([[1.0, 5.0], [7.0, 7.0]])
    result = rotation.backward(grad, e, rotation.forward(e, q))
    np.testing.assert_allclose(result[0], 2.5 * np.array([1 * 0.8 - 5 * 0.6, 1 * 0.6 + 5 * 0.8]), rtol=1e-15)
    assert result[1].tolist() == [0, 0]
