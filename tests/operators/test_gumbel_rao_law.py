"""What Gumbel-Rao claims of its samples' law, by Monte Carlo with fixed seeds: within 5 standard errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from npselect import gumbel_rao, gumbel_softmax, reinmax, straight_through

Array = npt.NDArray[Any]
LOGITS = np.array([0.3, -1.2, 1.0, -0.4])
GRAD = np.array([1.0, -0.5, 0.2, 2.0])
PROBS = straight_through.soft(LOGITS, 1.0, backend="reference")
temps = pytest.mark.parametrize("temp", [0.4, 1.0])


def repeated(rows: int) -> tuple[Array, Array]:
    return np.tile(GRAD, (rows, 1)), np.tile(LOGITS, (rows, 1))


def moments(x: Array) -> tuple[Array, Array]:
    """Means of the entries and of their products two by two, and the standard errors of these."""
    terms = np.concatenate([x, (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)], axis=1)
    return terms.mean(axis=0), terms.std(axis=0, ddof=1) / np.sqrt(len(x))


def agree(x: Array, y: Array) -> bool:
    (mean, error), (other, other_error) = moments(x), moments(y)
    return bool(np.all(np.abs(mean - other) <= 5 * np.hypot(error, other_error) + 1e-15))


@temps
@pytest.mark.parametrize("d", range(4))
def test_one_sample_has_the_law_of_what_rejection_leaves(temp: float, d: int) -> None:
    """The Gumbel-softmax's gradients with choice d, its other samples thrown away: first and second moments."""
    grad, logits = repeated(120_000)
    chosen = gumbel_softmax.index(logits, seed=1) == d
    rejection = gumbel_softmax.backward(grad, logits, temp, seed=1)[chosen]
    grad, logits = repeated(20_000)
    given = gumbel_rao.backward(grad, logits, temp, index=np.full(20_000, d), seed=2, samples=1)
    assert agree(given, rejection)
    other = gumbel_rao.backward(grad, logits, temp, index=np.full(20_000, (d + 1) % 4), seed=2, samples=1)
    assert not agree(other, rejection)


@temps
def test_with_its_own_choice_one_sample_has_the_law_of_the_gumbel_softmax(temp: float) -> None:
    grad, logits = repeated(40_000)
    one = gumbel_rao.backward(grad, logits, temp, seed=3, samples=1)
    assert agree(one, gumbel_softmax.backward(grad, logits, temp, seed=4))
    assert not agree(one, gumbel_softmax.backward(grad, logits, temp * 1.3, seed=4))


@temps
def test_the_mean_stays_and_the_variance_falls(temp: float) -> None:
    """Over the choices, weighted by their probabilities: the mean gradient of the Gumbel-softmax."""
    grad, logits = repeated(100_000)
    samples = gumbel_softmax.backward(grad, logits, temp, seed=5)
    error = samples.std(axis=0) / np.sqrt(len(samples))
    grad, logits = repeated(4)
    given = np.stack([
        gumbel_rao.backward(grad, logits, temp, index=np.arange(4), seed=seed, samples=400) for seed in range(60)
    ])  # fmt: skip
    means = np.einsum("d,sdk->sk", PROBS, given)
    errors = np.hypot(error, means.std(axis=0, ddof=1) / np.sqrt(len(means)))
    assert np.all(np.abs(means.mean(axis=0) - samples.mean(axis=0)) <= 5 * errors)
    grad, logits = repeated(4_000)
    averaged = gumbel_rao.backward(grad, logits, temp, seed=6, samples=50)
    assert np.all(averaged.var(axis=0) < 0.9 * samples.var(axis=0))


def test_the_limit_is_reinmax_at_temperature_1() -> None:
    """ZGR, as the temperature falls: the distance falls in proportion to it."""
    grad, logits = repeated(4)
    limit = reinmax.backward(grad, logits, 1.0, index=np.arange(4))
    for temp in (0.3, 0.1, 0.03):
        many = np.stack([
            gumbel_rao.backward(grad, logits, temp, index=np.arange(4), seed=seed, samples=4_000) for seed in range(10)
        ])  # fmt: skip
        errors = many.std(axis=0, ddof=1) / np.sqrt(len(many))
        distance = np.abs(many.mean(axis=0) - limit)
        assert np.all(distance <= np.ptp(GRAD) / 4 * temp + 5 * errors)
    assert np.max(np.abs(gumbel_rao.backward(grad, logits, 1.0, index=np.arange(4), seed=1) - limit)) > 0.3


# ------------------------------------------------------------------------------------------------ published code


def by_exponentials(logits: Array, d: Array, exponentials: Array) -> Array:
    """The noisy logits as PyTorch code has them (nshepperd/gumbel-rao-pytorch): a race of exponential variables.

    The winner's clock is of rate Z, the others' are of rates exp(logits) and start when it has struck.
    """
    at = np.broadcast_to(d, exponentials.shape[:-1])[..., None]
    winner = np.take_along_axis(exponentials, at, axis=-1)
    rates = np.exp(logits)
    clock = winner / np.sum(rates, axis=-1, keepdims=True)
    others = clock + exponentials / rates
    return np.asarray(-np.log(np.where(np.arange(logits.shape[-1]) == at, clock, others)))


def gradient_at(w: Array, grad: Array, temp: float) -> Array:
    e = np.exp((w - np.max(w, axis=-1, keepdims=True)) / temp)
    p = e / np.sum(e, axis=-1, keepdims=True)
    return np.asarray(p * (grad - np.sum(p * grad, axis=-1, keepdims=True)) / temp)


def test_a_race_of_exponential_variables_is_the_same() -> None:
    rng = np.random.default_rng(7)
    logits, grad, d = rng.normal(size=(6, 5)), rng.normal(size=(6, 5)), rng.integers(0, 5, 6)
    noise = rng.gumbel(size=(3, 6, 5))
    w = by_exponentials(logits, d, np.exp(-noise))
    expected = np.mean(gradient_at(w, grad, 0.7), axis=0)
    found = gumbel_rao.backward(grad, logits, 0.7, index=d, sample_noise=noise)
    np.testing.assert_allclose(found, expected, atol=1e-13)


def test_and_overflows_in_float32_where_log_space_does_not() -> None:
    logits, noise = np.array([[89.0, 88.0]], np.float32), np.zeros((1, 1, 2), np.float32)
    with np.errstate(all="ignore"):
        w = by_exponentials(logits, np.array([0]), np.exp(-noise))
    assert not np.isfinite(w).all()
    grad = np.array([[1.0, 0.0]], np.float32)
    found = gumbel_rao.backward(grad, logits, index=[0], sample_noise=noise)
    shifted = gumbel_rao.backward(grad, logits - np.float32(88), index=[0], sample_noise=noise)
    np.testing.assert_allclose(found, shifted, rtol=1e-6)
    assert found[0, 0] > 0.1


def test_logits_added_twice_is_another_law() -> None:
    """SynJAX takes noise that has the logits in it, and adds them again: the mean is not the Gumbel-softmax's."""
    rng = np.random.default_rng(8)
    chosen = np.tile(np.arange(4), (50_000, 1))
    w = by_exponentials(LOGITS, chosen, rng.exponential(size=(50_000, 4, 4)))
    grad, logits = repeated(100_000)
    samples = gumbel_softmax.backward(grad, logits, 0.7, seed=9)
    for twice, accepted in ((False, True), (True, False)):
        found = np.einsum("d,sdk->sk", PROBS, gradient_at(w + LOGITS if twice else w, GRAD, 0.7))
        errors = np.hypot(*(x.std(axis=0) / np.sqrt(len(x)) for x in (found, samples)))
        assert np.all(np.abs(found.mean(axis=0) - samples.mean(axis=0)) <= 5 * errors) == accepted
