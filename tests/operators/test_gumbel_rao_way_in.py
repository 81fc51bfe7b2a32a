"""What Gumbel-Rao's functions take, and what comes of it: the choice, noise of the samples, rows without a choice."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import npselect
from npselect import gumbel_rao, noise, straight_through

RNG = np.random.default_rng(11)
LOGITS, GRAD = RNG.standard_normal((2, 4, 3)), RNG.standard_normal((2, 4, 3))
DRAWS = RNG.gumbel(size=(5, 2, 4, 3))
INDEX = np.argmax(RNG.random((2, 4, 3)), axis=-1)
OPTIONS = {"backend": "reference"}
backwards = pytest.mark.parametrize("function", [gumbel_rao.backward, gumbel_rao.jvp], ids=["backward", "jvp"])


def published(grad, logits, temp, index, draws):
    """The definition in NumPy: the noisy logits given the choice, and the mean of their softmaxes' Jacobians."""
    log_sum = np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))
    drawn = np.eye(logits.shape[-1], dtype=bool)[index]
    results = []
    for g in draws:
        largest = log_sum + np.sum(g * drawn, axis=-1, keepdims=True)
        w = np.where(drawn, largest, -np.logaddexp(-largest, -logits - g)) / temp
        p = np.exp(w - np.max(w, axis=-1, keepdims=True))
        p /= np.sum(p, axis=-1, keepdims=True)
        results.append(p * (grad - np.sum(p * grad, axis=-1, keepdims=True)) / temp)
    return np.mean(results, axis=0)


# ------------------------------------------------------------------------------------------------ what comes out


@backwards
@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_it_is_as_published(function, backend, axis):
    index = np.argmax(RNG.random(LOGITS.shape), axis=axis)
    moved = (np.moveaxis(x, axis, -1) for x in (GRAD, LOGITS))
    draws = np.moveaxis(DRAWS, axis if axis < 0 else axis + 1, -1)
    for temp in (1.0, 0.4):
        expected = np.moveaxis(published(*moved, temp, index, draws), -1, axis)
        found = function(GRAD, LOGITS, temp, index=index, sample_noise=DRAWS, axis=axis, backend=backend)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)
        moved = (np.moveaxis(x, axis, -1) for x in (GRAD, LOGITS))


@backwards
def test_which_numbers_of_the_stream_it_takes(function):
    """The choice those of `forward`, and the samples those that follow, whether the choice is given or not."""
    for axis, dtype in ((-1, np.float64), (1, np.float32)):
        logits, grad, size = LOGITS.astype(dtype), GRAD.astype(dtype), LOGITS.size
        options = {"axis": axis, "backend": "cpu"}
        index = gumbel_rao.index(logits, seed=3, offset=7, **options)
        drawn = noise.gumbel((4, *LOGITS.shape), 3, offset=7 + size, dtype=dtype)
        expected = function(grad, logits, 0.7, index=index, sample_noise=drawn, **options)
        by_seed = function(grad, logits, 0.7, seed=3, offset=7, samples=4, **options)
        both = function(grad, logits, 0.7, seed=3, offset=7, samples=4, index=index, **options)
        assert np.array_equal(by_seed, expected)
        assert np.array_equal(both, expected)
        reference = function(grad, logits, 0.7, seed=3, offset=7, samples=4, axis=axis, **OPTIONS)
        np.testing.assert_allclose(reference, expected, rtol=0, atol=2e-6 if dtype == np.float32 else 1e-14)


def test_a_hundred_samples_by_default():
    expected = gumbel_rao.backward(GRAD, LOGITS, seed=3, samples=100)
    assert np.array_equal(gumbel_rao.backward(GRAD, LOGITS, seed=3), expected)
    assert np.array_equal(gumbel_rao.jvp(GRAD, LOGITS, 1.0, seed=3), expected)
    assert not np.array_equal(gumbel_rao.backward(GRAD, LOGITS, seed=3, samples=99), expected)


def test_forward_and_soft_are_those_of_others():
    for given in ({"seed": 4}, {"noise": DRAWS[0]}, {"index": INDEX}):
        index = gumbel_rao.index(LOGITS, **given, **OPTIONS)
        assert np.array_equal(index, npselect.reinmax.index(LOGITS, **given, **OPTIONS))
        assert np.array_equal(gumbel_rao.forward(LOGITS, **given, **OPTIONS), np.eye(3)[index])
    for temp in (1.0, 0.3):
        assert np.array_equal(
            gumbel_rao.soft(LOGITS, temp, axis=1, **OPTIONS), straight_through.soft(LOGITS, temp, axis=1, **OPTIONS)
        )


def test_the_sample_does_not_depend_on_the_cotangent():
    """Noise is float32 of float16 and float32 logits, whatever the dtype of the result."""
    logits = LOGITS.astype(np.float16)
    for backend in ("reference", "cpu"):
        wide = gumbel_rao.backward(GRAD, logits, seed=5, samples=3, backend=backend)
        narrow = gumbel_rao.backward(GRAD.astype(np.float32), logits, seed=5, samples=3, backend=backend)
        assert (wide.dtype, narrow.dtype) == (np.float64, np.float32)
        np.testing.assert_allclose(narrow, wide, rtol=0, atol=1e-5)
        drawn = noise.gumbel((3, *logits.shape), 5, offset=logits.size, dtype=np.float32)
        index = gumbel_rao.index(logits, seed=5, backend=backend)
        given = gumbel_rao.backward(GRAD, logits, index=index, sample_noise=drawn.astype(np.float64), backend=backend)
        assert np.array_equal(wide, given)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("choices", [4, 200])
def test_rows_without_a_choice(backend, choices):
    """Nothing offered: zeros; NaN, +inf or nothing but -inf: NaN; what is excluded is ignored, whatever it holds."""
    logits, grad = RNG.standard_normal((2, 8, choices))
    draws, where = RNG.gumbel(size=(2, 8, choices)), np.ones((8, choices), bool)
    where[0] = False
    logits[1, 2], logits[2, 3], logits[3] = np.nan, np.inf, -np.inf
    where[4, 1:], logits[5, 1:] = False, -np.inf
    grad[6, 0] = np.nan
    logits[4, 1], grad[4, 1], grad[5, 1], draws[:, 4, 1], draws[0, 5, 2] = np.nan, np.inf, np.nan, np.nan, np.inf
    where[6, 2], where[7, 1], draws[1, 7, 1], grad[7, 1] = False, False, -np.inf, np.nan
    index = np.zeros(8, int)
    index[0] = -1
    for temp in (0.5, 1e-30):
        found = gumbel_rao.backward(grad, logits, temp, index=index, sample_noise=draws, where=where, backend=backend)
        assert not found[0].any()
        assert np.isnan(found[1:4]).all()
        assert not found[4:6].any()
        assert np.isnan(found[6][where[6]]).all()
        assert found[6, 2] == 0
        assert np.isfinite(found[7]).all()
        assert found[7, 1] == 0
        np.testing.assert_allclose(found[7].sum() if temp > 1e-9 else 0.0, 0, atol=1e-14)
    assert not np.signbit(found[[0, 4, 5]]).any()


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_noise_that_is_not_finite(backend, bad):
    draws = DRAWS.copy()
    draws[3, 1, 2, 0] = bad
    found = gumbel_rao.backward(GRAD, LOGITS, index=INDEX, sample_noise=draws, backend=backend)
    expected = gumbel_rao.backward(GRAD, LOGITS, index=INDEX, sample_noise=DRAWS, backend=backend)
    expected[1, 2] = np.nan
    assert np.array_equal(found, expected, equal_nan=True)
    with pytest.raises(ValueError, match=r"sample_noise is .* at a candidate, and nan_policy is 'raise'"):
        gumbel_rao.backward(GRAD, LOGITS, index=INDEX, sample_noise=draws, nan_policy="raise", backend=backend)
    where = np.ones(LOGITS.shape, bool)
    where[1, 2, 0] = INDEX[1, 2] == 0
    if INDEX[1, 2] != 0:
        options = {"index": INDEX, "sample_noise": draws, "where": where}
        gumbel_rao.backward(GRAD, LOGITS, nan_policy="raise", backend=backend, **options)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_huge_logits_and_tiny_temperatures_are_exact(backend):
    logits = np.array([[1e30, -1e30, 0.0], [0.0, 1.0, -1.0], [1e30, 1e30, -1e30]])
    grad, draws = np.array([[1.0, 2.0, 3.0]] * 3), np.zeros((2, 3, 3))
    found = gumbel_rao.backward(grad, logits, 1.0, index=[0, 0, 0], sample_noise=draws, backend=backend)
    assert not found[0].any()
    u = np.log(2.0)
    e = np.exp(-np.log1p(np.exp(u)))
    np.testing.assert_allclose(found[2], [-e / (1 + e) ** 2, e / (1 + e) ** 2, 0.0], rtol=1e-14)
    found = gumbel_rao.backward(grad, logits, 1e-30, index=[0, 1, 1], sample_noise=draws, backend=backend)
    assert not found.any()


# ------------------------------------------------------------------------------------------------ what may be given


@backwards
def test_which_options_go_together(function):
    for given, message in (
        ({}, "exactly one of seed= and sample_noise= must be given, .*; neither was"),
        ({"index": INDEX}, "neither was"),
        ({"seed": 1, "sample_noise": DRAWS}, "both were"),
        ({"sample_noise": DRAWS}, "give the choice too, as index="),
        ({"sample_noise": DRAWS, "index": INDEX, "offset": 3}, "offset is 3, .* it does not go with sample_noise="),
        ({"seed": 1, "samples": True}, "samples is True, of type bool; it takes an integer"),
        ({"seed": 1, "samples": 2.0}, "samples is 2.0, of type float"),
    ):
        with pytest.raises(TypeError, match=message):
            function(GRAD, LOGITS, **given)
    for given, message in (
        ({"seed": 1, "samples": 0}, "samples is 0; there must be at least one"),
        ({"seed": 1, "samples": -5}, "samples is -5"),
        ({"sample_noise": DRAWS, "index": INDEX, "samples": 4}, "samples is 4 and sample_noise has 5; the two"),
        ({"sample_noise": DRAWS[0], "index": INDEX}, r"sample_noise has shape \(2, 4, 3\) and logits has"),
        ({"sample_noise": DRAWS[:, :1], "index": INDEX}, "sample_noise must have that shape behind an axis of samples"),
        ({"sample_noise": DRAWS[:0], "index": INDEX}, "at least one"),
        ({"seed": 1, "samples": 2, "offset": 2**64 - 71}, r"72 numbers are to be drawn"),
        ({"seed": 1, "index": np.full((2, 4), 3)}, r"index\[0, 0\] is 3; it must name a candidate"),
    ):
        with pytest.raises(ValueError, match=message):
            function(GRAD, LOGITS, **given)
    function(GRAD, LOGITS, sample_noise=DRAWS, index=INDEX, samples=np.int8(5), **OPTIONS)
    function(GRAD, LOGITS, seed=1, samples=2, offset=2**64 - 72, **OPTIONS)


def test_forward_takes_exactly_one():
    for function in (gumbel_rao.forward, gumbel_rao.index):
        for given in ({}, {"seed": 1, "index": INDEX}, {"seed": 1, "noise": DRAWS[0]}):
            with pytest.raises(TypeError, match="exactly one of seed=, noise= and index= must be given"):
                function(LOGITS, **given)


class OnGpu:
    """Says that it is on a GPU."""

    @property
    def __cuda_array_interface__(self):
        return {"shape": (2, 4, 3), "typestr": "<f8", "data": (256, False), "version": 3}


def test_it_runs_on_the_host_alone():
    calls = {
        "forward": lambda **more: gumbel_rao.forward(LOGITS, seed=1, **more),
        "index": lambda **more: gumbel_rao.index(LOGITS, seed=1, **more),
        "soft": lambda **more: gumbel_rao.soft(LOGITS, **more),
        "backward": lambda **more: gumbel_rao.backward(GRAD, LOGITS, seed=1, **more),
        "jvp": lambda **more: gumbel_rao.jvp(GRAD, LOGITS, seed=1, **more),
    }
    for call in calls.values():
        with pytest.raises(RuntimeError, match=r"backend is 'cuda', and npselect\.gumbel_rao runs on the host alone"):
            call(backend="cuda")
        with pytest.raises(RuntimeError, match="out lives on a GPU"):
            call(out=OnGpu())
    with pytest.raises(RuntimeError, match="logits lives on a GPU"):
        gumbel_rao.forward(OnGpu(), seed=1)
    with pytest.raises(RuntimeError, match="grad_mask lives on a GPU"):
        gumbel_rao.backward(OnGpu(), LOGITS, seed=1)


def test_no_rows_one_row_and_out():
    assert gumbel_rao.backward(np.zeros((0, 3)), np.zeros((0, 3)), seed=1).shape == (0, 3)
    empty = np.zeros((0, 3))
    assert gumbel_rao.backward(empty, empty, index=[], sample_noise=np.zeros((2, 0, 3))).shape == (0, 3)
    one = gumbel_rao.backward(GRAD[0, 0], LOGITS[0, 0], index=1, sample_noise=DRAWS[:, 0, 0])
    index = np.full((2, 4), 1)
    assert np.array_equal(one, gumbel_rao.backward(GRAD, LOGITS, index=index, sample_noise=DRAWS)[0, 0])
    out = np.empty_like(LOGITS)
    assert gumbel_rao.backward(GRAD, LOGITS, index=index, sample_noise=DRAWS, out=out) is out
    assert np.array_equal(out[0, 0], one)
    shared = DRAWS.copy()  # the result may overwrite the noise
    assert np.array_equal(gumbel_rao.backward(GRAD, LOGITS, index=index, sample_noise=shared, out=shared[2]), out)


def test_there_is_no_derivative_of_it():
    for name in ("backward_temp", "double_backward"):
        assert not hasattr(gumbel_rao, name)
    assert pickle.loads(pickle.dumps(gumbel_rao)) is gumbel_rao
