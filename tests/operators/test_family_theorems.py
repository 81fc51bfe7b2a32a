"""What is claimed of `categorical`, `gapped` and of decoupled temperatures: proved by enumeration, or bit for bit."""

from __future__ import annotations

import itertools
from typing import Any

import mpmath
import numpy as np
import numpy.typing as npt
import pytest
from mpmath import mp, mpf

from npselect import categorical, gapped, gumbel_softmax, straight_through

Array = npt.NDArray[Any]
SIZES = (2, 3, 5, 12)
rng_of = np.random.default_rng


def logits_and_loss(choices: int) -> tuple[Array, Array]:
    w, b = rng_of(choices).normal(size=(2, choices))
    return 2 * w, b


def slope(function: Any, w: Array, i: int) -> float:
    """The derivative of a function of some logits by one of them, by differences at 60 digits."""
    with mp.workdps(60):
        fixed = [mpf(float(x)) for x in w]
        return float(mpmath.diff(lambda x: function([*fixed[:i], x, *fixed[i + 1 :]]), fixed[i]))


def mixture(w: list[mpf], forward_temp: float, unimix: float) -> list[mpf]:
    e = [mpmath.exp(x / mpf(forward_temp)) for x in w]
    s = mpmath.fsum(e)
    return [(1 - mpf(unimix)) * x / s + mpf(unimix) / len(w) for x in e]


def every_sample(w: Array) -> tuple[Array, Array]:
    """The logits once for each candidate, and the candidates."""
    return np.tile(w, (len(w), 1)), np.arange(len(w))


# ------------------------------------------------------------------------------------------------ categorical


@pytest.mark.parametrize(("forward_temp", "unimix"), [(1.0, 0.0), (1.0, 0.01), (1.0, 0.5), (1.7, 0.0), (0.6, 0.1)])
def test_categorical_is_unbiased_for_linear_losses_at_temp_one(forward_temp: float, unimix: float) -> None:
    """The mean over d, weighted by the law m of d, is the gradient of ``sum_d m_d b_d``."""
    for choices in SIZES:
        w, b = logits_and_loss(choices)
        rows, drawn = every_sample(w)
        given = {"index": drawn, "forward_temp": forward_temp, "unimix": unimix, "backend": "reference"}
        m = np.array([float(x) for x in mixture([mpf(float(x)) for x in w], forward_temp, unimix)])
        found = m @ categorical.backward(np.tile(b, (choices, 1)), rows, 1.0, **given)

        def expected_loss(w: list[mpf], b: Array = b) -> mpf:
            return mpmath.fsum(x * mpf(float(y)) for x, y in zip(mixture(w, forward_temp, unimix), b, strict=True))

        exact = np.array([slope(expected_loss, w, i) for i in range(choices)])
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-12)
        biased = m @ categorical.backward(np.tile(b, (choices, 1)), rows, 1.5, **given)
        assert np.max(np.abs(biased - exact)) > 1e-4


def test_categorical_is_biased_for_quadratic_losses() -> None:
    """Of ``z'Az / 2`` by ``J(p) (A p - diag(A) / 2)``; ReinMax has no bias there."""
    for choices in SIZES:
        rng = rng_of(choices)
        a = rng.normal(size=(choices, choices))
        a, (w, _) = a + a.T, logits_and_loss(choices)
        rows, drawn = every_sample(w)
        p = np.exp(w) / np.sum(np.exp(w))
        jacobian = np.diag(p) - np.outer(p, p)
        mean = p @ categorical.backward(np.eye(choices) @ a, rows, 1.0, index=drawn, backend="reference")
        bias = mean - jacobian @ (np.diag(a) / 2)
        np.testing.assert_allclose(bias, jacobian @ (a @ p - np.diag(a) / 2), atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_categorical_of_the_argmax_has_the_bits_of_straight_through(dtype: str, backend: str) -> None:
    for choices, temp in itertools.product((1, 2, 10, 300), (0.3, 1.0, 1e-30)):
        g, w, v = (3 * rng_of(choices).normal(size=(3, 5, choices))).astype(dtype)
        given = {"index": np.argmax(w, axis=-1), "backend": backend}
        plain = {"backend": backend}
        for name, arrays in (("forward", (w,)), ("backward", (g, w)), ("jvp", (v, w)), ("index", (w,))):
            temps = () if name == "index" else (temp,)
            ours = getattr(categorical, name)(*arrays, *temps, **given)
            assert ours.tobytes() == getattr(straight_through, name)(*arrays, *temps, **plain).tobytes(), name
        for name, arrays in (("soft", (w,)), ("backward_temp", (g, w)), ("double_backward", (v, g, w))):
            options = plain if name == "soft" else given
            ours = getattr(categorical, name)(*arrays, temp, **options)
            theirs = getattr(straight_through, name)(*arrays, temp, **plain)
            assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes(), name


def test_the_gradient_does_not_depend_on_the_sample() -> None:
    g, w = rng_of(0).normal(size=(2, 6, 7))
    given = {"forward_temp": 1.3, "unimix": 0.1, "backend": "reference"}
    one, other = (categorical.backward(g, w, 0.7, index=np.full(6, d), **given) for d in (0, 5))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("forward_temp", "unimix"), [(1.0, 0.0), (1.7, 0.0), (0.6, 0.1)])
def test_backward_is_the_derivative_of_soft(forward_temp: float, unimix: float) -> None:
    """Central differences at float64, where h**2 and the rounding over h are about 1e-9."""
    rng, h = rng_of(3), 3e-6
    for choices, temp in itertools.product((2, 5), (0.5, 1.4)):
        w, g = rng.normal(size=(2, 4, choices))
        some = {"forward_temp": forward_temp, "unimix": unimix, "backend": "reference"}
        given = {**some, "index": np.zeros(4, np.int64)}
        grad = categorical.backward(g, w, temp, **given)
        np.testing.assert_array_equal(categorical.jvp(g, w, temp, **given), grad)
        for i in range(choices):
            step = h * np.eye(choices)[i]
            up, down = (categorical.soft(w + sign * step, temp, **some) for sign in (1, -1))
            np.testing.assert_allclose(grad[:, i], np.sum(g * (up - down), axis=-1) / (2 * h), rtol=0, atol=1e-8)
        up, down = (categorical.soft(w, temp + sign * h, **some) for sign in (1, -1))
        by_temp = categorical.backward_temp(g, w, temp, **given)
        np.testing.assert_allclose(by_temp, np.sum(g * (up - down)) / (2 * h), rtol=0, atol=1e-7)
        v = rng.normal(size=w.shape)
        by_mask, by_logits = categorical.double_backward(v, g, w, temp, **given)
        np.testing.assert_allclose(by_mask, categorical.backward(v, w, temp, **given), rtol=1e-13, atol=0)
        for i in range(choices):
            step = h * np.eye(choices)[i]
            up, down = (categorical.backward(g, w + sign * step, temp, **given) for sign in (1, -1))
            np.testing.assert_allclose(by_logits[:, i], np.sum(v * (up - down), axis=-1) / (2 * h), rtol=0, atol=1e-7)


def test_soft_is_a_distribution() -> None:
    w = rng_of(4).normal(size=(6, 5))
    where = rng_of(5).random((6, 5)) < 0.7
    where[:, 0] = True
    p = categorical.soft(w, 0.7, unimix=0.2, where=where, backend="reference")
    np.testing.assert_allclose(np.sum(p, axis=-1), 1.0, rtol=1e-15)
    assert np.all(p[where] >= (0.2 / np.sum(where, axis=-1, keepdims=True) * np.ones_like(p))[where])
    assert not np.any(p[~where])
    uniform = categorical.soft(w, 0.7, unimix=1, backend="reference")
    np.testing.assert_array_equal(uniform, np.full_like(w, 0.2))
    gradient = categorical.backward(w, w, 0.7, unimix=1, index=np.zeros(6, np.int64), backend="reference")
    np.testing.assert_array_equal(gradient, 0.0)


# ------------------------------------------------------------------------------------------------ decoupled


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("forward_temp", [1.0, 1, 2.0, 0.7])
def test_decoupled_is_gumbel_softmax_of_more_noise_at_both_temperatures(forward_temp: float, backend: str) -> None:
    """Of ``fl(forward_temp G)`` and ``fl(forward_temp temp)``, bit for bit; at 1 that is what it was."""
    for dtype, temp in itertools.product(("float32", "float64"), (0.5, 1.3)):
        form = np.dtype(dtype).type
        g, w, v, noise = rng_of(8).normal(size=(4, 5, 9)).astype(dtype)
        ours = {"noise": noise, "forward_temp": forward_temp, "backend": backend}
        theirs = {"noise": form(forward_temp) * noise, "backend": backend}
        both = float(form(forward_temp * temp))
        for name, arrays in (("forward", (w,)), ("backward", (g, w)), ("soft", (w,)), ("jvp", (v, w))):
            one = getattr(gumbel_softmax, name)(*arrays, temp, **ours)
            assert one.tobytes() == getattr(gumbel_softmax, name)(*arrays, both, **theirs).tobytes(), name
        one, other = gumbel_softmax.index(w, **ours), gumbel_softmax.index(w, **theirs)
        np.testing.assert_array_equal(one, other)
        one = gumbel_softmax.backward_temp(g, w, temp, **ours)
        other = forward_temp * gumbel_softmax.backward_temp(g, w, both, **theirs)
        np.testing.assert_allclose(one, other, rtol=4 * np.finfo(dtype).eps)
        for one, other in zip(
            gumbel_softmax.double_backward(v, g, w, temp, **ours),
            gumbel_softmax.double_backward(v, g, w, both, **theirs),
            strict=True,
        ):
            assert one.tobytes() == other.tobytes()


def test_decoupled_is_the_published_form() -> None:
    """Argmax of ``theta / tf + G``, and ``J(softmax((theta / tf + G) / temp)) g / (tf temp)`` (arXiv:2410.13331)."""
    g, w, noise = rng_of(9).normal(size=(3, 40, 6))
    for forward_temp, temp in itertools.product((0.5, 1.7, 3.0), (0.4, 1.0)):
        given = {"noise": noise, "forward_temp": forward_temp, "backend": "reference"}
        perturbed = w / forward_temp + noise
        e = np.exp((perturbed - np.max(perturbed, axis=-1, keepdims=True)) / temp)
        q = e / np.sum(e, axis=-1, keepdims=True)
        expected = q * (g - np.sum(q * g, axis=-1, keepdims=True)) / (forward_temp * temp)
        np.testing.assert_array_equal(gumbel_softmax.index(w, **given), np.argmax(perturbed, axis=-1))
        np.testing.assert_allclose(gumbel_softmax.backward(g, w, temp, **given), expected, rtol=0, atol=1e-13)
        np.testing.assert_allclose(gumbel_softmax.soft(w, temp, **given), q, rtol=0, atol=1e-14)


def test_the_three_dialects_draw_what_they_say() -> None:
    """By the argmax of perturbed logits: ``softmax(theta)``, or ``softmax(theta / tau)``, or a mixture with 1 / K."""
    w, noise = rng_of(10).normal(size=(2, 50, 6))
    tau = 1.8
    plain, tempered, mixed = (
        categorical.index(w, noise=noise, backend="reference", **given)
        for given in ({}, {"forward_temp": tau}, {"unimix": 0.3})
    )
    np.testing.assert_array_equal(plain, np.argmax(w + noise, axis=-1))
    np.testing.assert_array_equal(tempered, np.argmax(w / tau + noise, axis=-1))
    p = np.exp(w) / np.sum(np.exp(w), axis=-1, keepdims=True)
    np.testing.assert_array_equal(mixed, np.argmax(np.log(0.7 * p + 0.3 / 6) + noise, axis=-1))


# ------------------------------------------------------------------------------------------------ gapped


def by_moves(w: Array, drawn: Array, gap: float | str) -> Array:
    """As it is published: the drawn one goes up by what it lacks, the others down by what they are too near.

    ``theta + (max - theta_d) D - max(theta - max + gap, 0) (1 - D)``.
    """
    top, mask = np.max(w, axis=-1, keepdims=True), np.eye(w.shape[-1])[drawn]
    if gap == "adaptive":
        p = np.exp(w - top) / np.sum(np.exp(w - top), axis=-1, keepdims=True)
        of_drawn = np.sum(mask * p, axis=-1, keepdims=True)
        gap = -np.log1p(-of_drawn) / of_drawn
    lacks = top - np.sum(mask * w, axis=-1, keepdims=True)
    return w + lacks * mask - np.maximum(w - top + gap, 0.0) * (1 - mask)


@pytest.mark.parametrize("gap", [1.0, 1, 0.1, 20.0, "adaptive"])
def test_gapped_is_the_published_construction(gap: float | str) -> None:
    for choices, temp in itertools.product((2, 5, 12), (0.4, 1.0, 2.0)):
        rng = rng_of(choices)
        g, w = rng.normal(size=(2, 30, choices))
        drawn = rng.integers(choices, size=30)
        given = {"index": drawn, "gap": gap, "backend": "reference"}
        theta = by_moves(w, drawn, gap)
        e = np.exp((theta - np.max(theta, axis=-1, keepdims=True)) / temp)
        p = e / np.sum(e, axis=-1, keepdims=True)
        expected = p * (g - np.sum(p * g, axis=-1, keepdims=True)) / temp
        np.testing.assert_allclose(gapped.backward(g, w, temp, **given), expected, rtol=0, atol=1e-13)
        np.testing.assert_allclose(gapped.jvp(g, w, temp, **given), expected, rtol=0, atol=1e-13)
        np.testing.assert_allclose(gapped.soft(w, temp, **given), p, rtol=0, atol=1e-14)
        np.testing.assert_array_equal(gapped.forward(w, temp, **given), np.eye(choices)[drawn])
        assert np.all(np.argmax(theta, axis=-1) == drawn)


def test_a_small_gap_at_the_argmax_is_straight_through() -> None:
    """Where the largest is drawn, and leads by more than the gap, nothing is moved."""
    g, w = rng_of(12).normal(size=(2, 20, 5))
    w[:, 2] = np.max(w, axis=-1) + 1.5
    given = {"index": np.full(20, 2), "gap": 1.0, "backend": "reference"}
    np.testing.assert_array_equal(
        gapped.backward(g, w, 0.7, **given), straight_through.backward(g, w, 0.7, backend="reference")
    )


def test_the_adaptive_gap_is_one_for_what_is_unlikely_and_has_no_bound_for_what_is_likely() -> None:
    """Its limits: ``-log(1 - p) / p`` is 1 + p / 2 for small p; where p is 1, nothing is left of the gradient."""
    g = np.array([[1.0, -2.0, 0.5]])
    unlikely = np.array([[0.0, 0.0, -80.0]])
    given = {"index": np.array([2]), "backend": "reference"}
    np.testing.assert_allclose(
        gapped.backward(g, unlikely, 1.0, gap="adaptive", **given),
        gapped.backward(g, unlikely, 1.0, gap=1.0, **given),
        rtol=1e-14,
    )
    for row in ([[3.0]], [[-np.inf, 1.0]]):
        w = np.array(row)
        result = gapped.backward(
            np.ones_like(w), w, 1.0, index=np.array([w.shape[1] - 1]), gap="adaptive", backend="reference"
        )
        np.testing.assert_array_equal(result, 0.0)
    likely = gapped.backward(g, -unlikely, 1.0, gap="adaptive", index=np.array([2]), backend="reference")
    assert 0 < np.max(np.abs(likely)) < 1e-30


@pytest.mark.parametrize("gap", [0, 0.0, -1.0, np.inf, np.nan])
def test_a_gap_that_is_none_is_refused(gap: float) -> None:
    with pytest.raises(ValueError, match="gap"):
        gapped.backward(np.ones((1, 2)), np.ones((1, 2)), gap=gap, index=np.array([0]))


def test_frozen_terms_have_no_derivative() -> None:
    assert not hasattr(gapped, "backward_temp")
    assert not hasattr(gapped, "double_backward")
