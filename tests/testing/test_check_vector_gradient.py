"""The checker of gradients at the level of vectors: honest code is accepted, planted faults are refused and named."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from inputs import DTYPES

from npselect import selection, testing
from npselect.selection import identity, rotation
from npselect.testing.vector_causes import mistakes

CAUSES = {name for operator in (identity, rotation) for name, _ in mistakes(operator)}


def size(x: Any) -> Any:
    return np.sqrt(np.sum(x * x, axis=-1, keepdims=True))


def dot(x: Any, y: Any) -> Any:
    return np.sum(x * y, axis=-1, keepdims=True)


def published(grad: Any, e: Any, q: Any, fault: str = "") -> Any:
    """In the arithmetic of the dtype, or with a mistake."""
    one, two = e.dtype.type(1), e.dtype.type(2)
    along, toward, scale = e / size(e), q / size(q), size(q) / size(e)
    r = along + toward
    if fault == "r is not normalised":
        scale = scale * one
    else:
        r = r / size(r)
    if fault == "R in the place of its transpose: e and q are exchanged":
        along, toward = toward, along
    second = two * r * dot(r, grad)
    third = two * along * dot(toward, grad)
    if fault == "the sign of 2 e^ <q^, g> is flipped":
        third = -third
    if fault == "2 e^ <q^, g> is missing: a reflection":
        third = third * (one - one)
    turned = grad - second + third
    return {
        "lambda, |q| / |e|, is missing": lambda: turned,
        "lambda is upside down: |e| / |q|": lambda: turned / scale,
        "lambda alone, no rotation": lambda: scale * grad,
        "the cotangent as it is: the copy, no rotation": lambda: grad.copy(),
        "e is detached: its gradient is 0": lambda: np.zeros_like(grad),
        "the sign is flipped": lambda: -scale * turned,
        "lambda is not held: a gradient through |q| / |e|": lambda: scale * turned - along * dot(grad, q) / size(e),
        "R is not held: a gradient through the rotation": lambda: scale * along * dot(toward, grad),
    }.get(fault, lambda: scale * turned)()


def by_matrices(grad: Any, e: Any, q: Any) -> Any:
    along, toward = e / size(e), q / size(q)
    r = (along + toward) / size(along + toward)
    two = e.dtype.type(2)
    matrices = np.eye(e.shape[-1], dtype=e.dtype) - two * (
        r[:, :, None] * r[:, None] - toward[:, :, None] * along[:, None]
    )
    return size(q) / size(e) * np.sum(matrices.astype(e.dtype) * grad[:, :, None], axis=1)


def with_an_epsilon(grad: Any, e: Any, q: Any) -> Any:
    """Lest zero vectors divide: it changes no other."""
    tiny = e.dtype.type(1e-12 if e.itemsize > 2 else 0)
    x, y = np.maximum(size(e), tiny), np.maximum(size(q), tiny)
    r = e / x + q / y
    r = r / np.maximum(size(r), tiny)
    two = e.dtype.type(2)
    return y / x * (grad - two * r * dot(r, grad) + two * (e / x) * dot(q / y, grad))


def layer(backward: Any, forward: Any = lambda e, q: q.copy()) -> Any:
    return SimpleNamespace(__name__="layer", forward=forward, backward=backward)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backward", [published, by_matrices, with_an_epsilon, rotation.backward])
def test_honest_code_is_accepted(backward: Any, dtype: str) -> None:
    def rotated(e: Any, q: Any) -> Any:
        with np.errstate(all="ignore"):
            return backward(e, q, e) * (dot(q, q) / dot(e, e))  # R^T from q to e is R

    for forward in (rotation.forward, rotated) if backward is published else (rotation.forward,):
        report = testing.check_vector_gradient(layer(backward, forward), dtypes=dtype)
        assert report.ok, str(report)
        assert report.likely_cause is None


@pytest.mark.parametrize("dtype", DTYPES)
def test_honest_copies_are_accepted(dtype: str) -> None:
    for one in (identity, layer(lambda grad, e, q: grad.copy(), lambda e, q: e + (q - e))):
        assert testing.check_vector_gradient(one, operator=identity, dtypes=dtype).ok


@pytest.mark.parametrize("fault", [name for name, _ in mistakes(rotation)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_faults_are_refused_and_named(fault: str, dtype: str) -> None:
    report = testing.check_vector_gradient(layer(lambda *given: published(*given, fault)), dtypes=dtype)
    assert not report.ok
    assert report.likely_cause == fault


@pytest.mark.parametrize(
    ("backward", "cause"),
    [
        (rotation.backward, "the rotation trick, not the copy"),
        (lambda grad, e, q: -grad, "the sign is flipped"),
        (lambda grad, e, q: np.zeros_like(e), "e is detached: its gradient is 0"),
        (lambda grad, e, q: grad * np.float32(1.001), None),
    ],
)
def test_faults_of_copies(backward: Any, cause: str | None) -> None:
    report = testing.check_vector_gradient(layer(backward), operator=identity)
    assert not report.ok
    assert report.likely_cause == cause


def test_what_is_told() -> None:
    def raises(*given: Any) -> Any:
        raise KeyError("no such thing")

    def writes(grad: Any, e: Any, q: Any) -> Any:
        grad *= 1.5
        return published(grad / np.float32(1.5), e, q)

    for backward, told in (
        (raises, "raises KeyError: 'no such thing'"),
        (writes, "writes to its argument grad"),
        (lambda *given: published(*given).astype("f8"), "returns dtype float64; expected float32"),
        (lambda *given: published(*given)[0], "returns shape"),
        (lambda *given: published(*given).tolist(), "returns a list; expected an array"),
        (lambda *given: published(*given) + np.float32(1e-3), "give or take"),
    ):
        report = testing.check_vector_gradient(layer(backward))
        assert not report.ok
        assert told in str(report)
    wrong = layer(published, lambda e, q: e.copy())
    assert "forward[0, 0] is" in str(testing.check_vector_gradient(wrong))
    report = testing.check_vector_gradient(rotation)
    assert "operator" not in str(report).split("dtype")[0]
    assert "selection.rotation, oracle reference" in str(report)
    assert '"schema"' in report.to_json()


def test_known_failures_and_progress() -> None:
    told: list[Any] = []
    lame = layer(lambda grad, e, q: grad.copy() if len(e) == 1 else published(grad, e, q))
    report = testing.check_vector_gradient(
        lame, known={"float32/rotation/rows/one": "a batch of one"}, progress=lambda *one: told.append(one)
    )
    assert report.ok
    assert told[0][:2] == (0, 15)
    assert told[-1] == (15, 15, "")


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"operator is .*; it takes npselect\.selection\.rotation or \.identity"):
        testing.check_vector_gradient(rotation, operator=selection)
    with pytest.raises(TypeError, match=r"has no function backward\(grad, e, q\)"):
        testing.check_vector_gradient(SimpleNamespace(forward=rotation.forward))
    with pytest.raises(ValueError, match="dtypes is empty"):
        testing.check_vector_gradient(rotation, dtypes=[])
    with pytest.raises(ValueError, match="matches no case"):
        testing.check_vector_gradient(rotation, known={"float32/rotation/nothing": "a reason"})
