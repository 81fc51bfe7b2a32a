"""What Gumbel-softmax draws: never what cannot be, the rest as often as it should; and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats
from arrays import backends

from npselect import gumbel_softmax


@backends
def test_what_is_not_finite_in_the_noise(backend: str) -> None:
    logits = np.zeros((1, 3))
    options: dict[str, Any] = {"backend": backend}
    assert gumbel_softmax.forward(logits, noise=[0, -np.inf, 1], **options).tolist() == [[0, 0, 1]]
    assert gumbel_softmax.backward([[1, np.nan, 0]], logits, noise=[0, -np.inf, 1], **options)[0, 1] == 0
    for given in ([0, np.nan, 1], [0, np.inf, 1], [-np.inf] * 3):
        assert np.isnan(gumbel_softmax.forward(logits, noise=given, **options)).all()
    assert np.isnan(gumbel_softmax.forward([[-np.inf, 0.0]], noise=[np.inf, 0.0], **options)).all()  # inf - inf
    with pytest.raises(ValueError, match=r"\(logits \+ noise\)\[0, 1\] is nan, and nan_policy is 'raise'"):
        gumbel_softmax.forward(logits, noise=[0, np.nan, 1], nan_policy="raise", **options)
    with pytest.raises(ValueError, match=r"logits\[0, 1\] is inf, and nan_policy is 'raise'"):
        gumbel_softmax.forward([[0, np.inf, 1]], seed=1, nan_policy="raise", **options)
    gumbel_softmax.forward(logits, noise=[0, np.nan, 1], where=[True, False, True], nan_policy="raise", **options)


def test_never_sampled() -> None:
    """Candidates of -inf, or that `where` excludes, in ten million draws; the others are."""
    rows, choices = 1_250_000, 8
    logits = np.zeros((rows, choices), np.float32)
    logits[:, 2] = -np.inf
    where = np.ones(choices, bool)
    where[5] = False
    counts = np.bincount(gumbel_softmax.index(logits, seed=5, where=where), minlength=choices)
    assert counts[2] == counts[5] == 0
    assert counts.sum() == rows
    assert scipy.stats.chisquare(np.delete(counts, [2, 5])).pvalue > 1e-4
    counts = gumbel_softmax.forward(logits, seed=6, where=where).sum(axis=0, dtype=np.float64)
    assert counts[2] == counts[5] == 0
    assert counts.sum() == rows


@pytest.mark.parametrize(
    ("choices", "vectors"), [(2, 50), (10, 50), (1000, 5), pytest.param(1000, 20, marks=pytest.mark.slow)]
)
def test_chi_square(choices: int, vectors: int) -> None:
    """The selected index of some logit vectors, drawn 20,000 times; Holm's correction at one in 10,000.

    Cells in which fewer than 10 are expected are put together. Logits wrong by a factor of 0.9 are noticed.
    """
    rng = np.random.default_rng(choices)
    draws, smallest, wrong = 20_000, [], []
    for seed in range(vectors):
        logits = rng.normal(size=choices) * rng.uniform(0.3, 3)
        expected = draws * np.exp(logits - np.logaddexp.reduce(logits))
        index = gumbel_softmax.index(np.broadcast_to(logits.astype(np.float32), (draws, choices)), seed=seed)
        observed = np.bincount(index, minlength=choices)
        smallest.append(p_value(observed, expected))
        scaled = np.exp(0.9 * logits - np.logaddexp.reduce(0.9 * logits))
        wrong.append(p_value(observed, draws * scaled))
    assert min(smallest) > 1e-4 / vectors
    assert min(wrong) < 1e-6


def p_value(observed: Any, expected: Any) -> float:
    few = expected < 10
    if np.any(few):
        observed = np.append(observed[~few], observed[few].sum())
        expected = np.append(expected[~few], expected[few].sum())
    if expected[-1] < 10:  # together still few: with the next
        observed, expected = (np.append(x[:-2], x[-2:].sum()) for x in (observed, expected))
    return float(scipy.stats.chisquare(observed, expected, sum_check=False).pvalue) if len(expected) > 1 else 1.0


ONES = np.ones((2, 3))
CALLS: dict[str, Callable[..., Any]] = {
    "forward": lambda **options: gumbel_softmax.forward(ONES, **options),
    "backward": lambda **options: gumbel_softmax.backward(ONES, ONES, **options),
    "soft": lambda **options: gumbel_softmax.soft(ONES, **options),
    "index": lambda **options: gumbel_softmax.index(ONES, **options),
    "jvp": lambda **options: gumbel_softmax.jvp(ONES, ONES, **options),
    "backward_temp": lambda **options: gumbel_softmax.backward_temp(ONES, ONES, **options),
    "double_backward": lambda **options: gumbel_softmax.double_backward(ONES, ONES, ONES, **options),
}


@backends
@pytest.mark.parametrize("name", CALLS)
def test_seed_and_noise_misused(name: str, backend: str) -> None:
    call = CALLS[name]
    with pytest.raises(TypeError, match="exactly one of seed= and noise= must be given; neither was"):
        call(backend=backend)
    with pytest.raises(TypeError, match="exactly one of seed= and noise= must be given; both were"):
        call(seed=1, noise=ONES, backend=backend)
    with pytest.raises(TypeError, match="offset is 3, a place in the stream of a seed; it does not go with noise="):
        call(noise=ONES, offset=3, backend=backend)
    for wrong in (True, 1.0, "1", [1, 2]):
        with pytest.raises(TypeError, match=r"seed is .*integer"):
            call(seed=wrong, backend=backend)
        with pytest.raises(TypeError, match=r"offset is .*integer"):
            call(seed=1, offset=wrong, backend=backend)
    for wrong in (-1, 2**64):
        with pytest.raises(ValueError, match=r"seed is .* at least 0 and less than"):
            call(seed=wrong, backend=backend)
    call(seed=1, offset=2**64 - 6, backend=backend)
    with pytest.raises(ValueError, match="offset is 18446744073709551611 and 6 numbers are to be drawn"):
        call(seed=1, offset=2**64 - 5, backend=backend)
    for shape in ((2,), (3, 2), (2, 2, 3)):
        with pytest.raises(ValueError, match=r"noise has shape .* and logits has shape \(2, 3\); noise must broadcast"):
            call(noise=np.zeros(shape), backend=backend)
    with pytest.raises(TypeError, match="noise has dtype complex128"):
        call(noise=1j, backend=backend)
    with pytest.raises(TypeError, match="noise is a masked array"):
        call(noise=np.ma.masked_array(ONES), backend=backend)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_no_rows_and_one_choice(backend: str) -> None:
    for shape in ((0, 3), (2, 0, 3)):
        logits = np.empty(shape, np.float32)
        for offset in (0, 2**64 - 1):
            assert gumbel_softmax.forward(logits, seed=1, offset=offset, backend=backend).shape == shape
            assert gumbel_softmax.backward_temp(logits, logits, seed=1, offset=offset, backend=backend) == 0
    with pytest.raises(ValueError, match="no candidates"):
        gumbel_softmax.forward(np.empty((3, 0)), seed=1, backend=backend)
    one = np.zeros((3, 1))
    assert gumbel_softmax.forward(one, seed=1, backend=backend).tolist() == [[1], [1], [1]]
    assert gumbel_softmax.backward(one + 5, one, seed=1, backend=backend).tolist() == [[0], [0], [0]]
