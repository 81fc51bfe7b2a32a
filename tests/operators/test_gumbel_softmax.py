"""Gumbel-softmax is straight-through selection of logits + noise, bit for bit; and its noise knows its place.

The truth table, with noise of 0, is in test_straight_through.py; the distribution in test_gumbel_softmax_draws.py, and
as a sampler in test_sampler.py.
"""

from __future__ import annotations

import tracemalloc
from types import ModuleType
from typing import Any

import inputs
import numpy as np
import pytest
from arrays import backends
from inputs import DTYPES

from npselect import gumbel_softmax, noise, straight_through
from npselect.tiers import choose

dtypes = pytest.mark.parametrize("dtype", list(DTYPES))
SEED, OFFSET = 2**63 + 5, 2**40 + 1


def logits_of(dtype: str, shape: tuple[int, ...], seed: int = 0) -> Any:
    """Logits with all that a row may hold: NaN, infinities, ties."""
    rng = np.random.default_rng(seed)
    logits = (2 * rng.normal(size=shape)).astype(DTYPES[dtype])
    logits[rng.random(shape) < 0.1] = -np.inf
    for value in (np.nan, np.inf):
        logits[rng.random(shape) < 0.01] = value
    return logits


def cotangent(dtype: str, shape: tuple[int, ...], seed: int) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(DTYPES[dtype])


def same(x: Any, y: Any) -> bool:
    return bool(x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes())


def perturbed(logits: Any, seed: int = SEED, offset: int = OFFSET) -> Any:
    """``logits + noise`` in the type that noise is added in."""
    wide = inputs.compute_type(logits.dtype.name)
    return logits.astype(wide) + noise.gumbel(logits.shape, seed, offset=offset, dtype=wide)


def functions(operator: ModuleType, logits: Any, g: Any, v: Any, temp: Any, **options: Any) -> dict[str, Any]:
    """All seven, as arrays by name; index, which takes no temp, too."""
    index = operator.index(logits, **options)
    grad_grad_mask, grad_logits = operator.double_backward(v, g, logits, temp, **options)
    return {
        "forward": operator.forward(logits, temp, **options),
        "soft": operator.soft(logits, temp, **options),
        "index": index,
        "backward": operator.backward(g, logits, temp, **options),
        "jvp": operator.jvp(v, logits, temp, **options),
        "backward_temp": np.asarray(operator.backward_temp(g, logits, temp, **options)),
        "grad_grad_mask": grad_grad_mask,
        "grad_logits": grad_logits,
    }


# ------------------------------------------------------------------------------------------------ the same bits


@backends
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("shape", "axis", "temp_shape"),
    [
        ((40, 7), -1, ()),
        ((40, 7), -1, (40, 1)),
        ((7, 40), 0, (1, 40)),
        ((5, 6, 7), 1, (5, 1, 1)),
        ((5, 6, 7), 1, (1, 1, 7)),
        ((5, 6, 7), 0, (1, 6, 1)),
        ((5, 6, 7), -1, (6, 1)),
        ((3, 4, 5, 6), 2, (1, 4, 1, 1)),
        ((9,), 0, ()),
        ((2, 5000), -1, (2, 1)),
        ((5000, 2), 0, ()),
        ((129, 1), -1, ()),
    ],
)
def test_equals_straight_through(
    backend: str, dtype: str, shape: tuple[int, ...], axis: int, temp_shape: tuple[int, ...]
) -> None:
    logits, g, v = logits_of(dtype, shape), cotangent(dtype, shape, 1), cotangent(dtype, shape, 2)
    temp = np.random.default_rng(3).uniform(0.3, 2.0, temp_shape)
    where = np.isfinite(logits) & (np.random.default_rng(4).random(shape) < 0.8)
    w = perturbed(logits)
    for offers in (None, where):  # without, and with a finite gradient of temp
        options: dict[str, Any] = {"axis": axis, "where": offers, "backend": backend}
        expected = functions(straight_through, w, g, v, temp, **options)
        by_seed = functions(gumbel_softmax, logits, g, v, temp, seed=SEED, offset=OFFSET, **options)
        given = noise.gumbel(shape, SEED, offset=OFFSET, dtype=logits.dtype)
        by_array = functions(gumbel_softmax, logits, g, v, temp, noise=given, **options)
        for name, result in expected.items():
            assert same(by_seed[name], result), name
            assert same(by_array[name], result), name


@backends
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bits_add_noise_in_float32(backend: str, dtype: str) -> None:
    """The sum is not rounded to 16 bits; the results are, once."""
    shape = (60, 9)
    logits, g, v = logits_of(dtype, shape), cotangent(dtype, shape, 1), cotangent(dtype, shape, 2)
    w, temp = perturbed(logits), np.float32([0.7])
    assert w.dtype == np.float32
    results = functions(gumbel_softmax, logits, g, v, 0.7, seed=SEED, offset=OFFSET, backend=backend)
    for name in ("forward", "soft", "backward", "jvp", "grad_grad_mask", "grad_logits"):
        assert results[name].dtype == DTYPES[dtype]
    tier = choose(backend)
    out, other = np.empty_like(logits), np.empty_like(logits)
    fill: Any
    for name, fill in [
        ("forward", lambda: tier.mask(w, None, None, out)),
        ("soft", lambda: tier.soft(w, None, temp, None, out)),
        ("backward", lambda: tier.backward(g, w, None, temp, None, 1.0, out)),
        ("jvp", lambda: tier.backward(v, w, None, temp, None, 1.0, out)),
        ("grad_logits", lambda: tier.double_backward(v, g, w, None, temp, None, 1.0, other, out)),
        ("grad_grad_mask", lambda: tier.double_backward(v, g, w, None, temp, None, 1.0, out, other)),
    ]:
        fill()
        assert same(results[name], out), name
    assert same(results["index"], straight_through.index(w, backend=backend))
    if backend == "cpu":  # computed in float32 and rounded once: what NumPy makes of the float32 result
        wide = straight_through.backward(g.astype(np.float32), w, 0.7).astype(logits.dtype)
        assert same(results["backward"], wide)


@backends
def test_the_dtype_of_a_cotangent_does_not_touch_the_noise(backend: str) -> None:
    """A float64 cotangent of float32 logits: float32 noise, the choice of the forward pass, a float64 result."""
    logits, g = logits_of("float32", (300, 11)), cotangent("float64", (300, 11), 1)
    w = perturbed(logits).astype(np.float64)
    for name in ("backward", "jvp", "backward_temp"):
        result = getattr(gumbel_softmax, name)(g, logits, seed=SEED, offset=OFFSET, backend=backend)
        assert same(np.asarray(result), np.asarray(getattr(straight_through, name)(g, w, backend=backend))), name
    results = gumbel_softmax.double_backward(g, logits, logits, seed=SEED, offset=OFFSET, backend=backend)
    expected = straight_through.double_backward(g, logits, w, backend=backend)
    assert all(map(same, results, expected))


@backends
@dtypes
def test_the_relaxed_sample_is_that_of_the_choice(backend: str, dtype: str) -> None:
    """Index, mask and the largest probability, each of its own call. (Gradients: `test_equals_straight_through`.)"""
    logits = cotangent(dtype, (200, 6), 5)
    index = gumbel_softmax.index(logits, seed=3, backend=backend)
    mask = gumbel_softmax.forward(logits, seed=3, backend=backend)
    probs = gumbel_softmax.soft(logits, 0.01, seed=3, backend=backend).astype(np.float64)
    assert np.array_equal(np.argmax(mask, axis=-1), index)
    assert np.array_equal(np.argmax(probs, axis=-1), index)


# ------------------------------------------------------------------------------------------------ places


@backends
@dtypes
def test_a_shard_selects_what_the_whole_does(backend: str, dtype: str) -> None:
    logits = logits_of(dtype, (7, 50, 3))
    whole = gumbel_softmax.soft(logits, seed=1, offset=100, backend=backend)
    for i in range(7):
        shard = gumbel_softmax.soft(logits[i], seed=1, offset=100 + i * 150, backend=backend)
        assert same(shard, whole[i])
    assert same(
        gumbel_softmax.soft(logits[2, 7:20], seed=1, offset=100 + 2 * 150 + 7 * 3, backend=backend), whole[2, 7:20]
    )


@backends
def test_axis_and_layout_do_not_move_the_noise(backend: str) -> None:
    """Equal logits: the largest noise is selected, along any axis of the array as given, whatever lies in memory."""
    shape = (4, 5, 6)
    drawn = noise.gumbel(shape, 9)
    for axis in range(3):
        for logits in (np.zeros(shape, np.float32), np.zeros(shape[::-1], np.float32).T, np.zeros((), np.float32)):
            given = np.broadcast_to(logits, shape)
            index = gumbel_softmax.index(given, seed=9, axis=axis, backend=backend)
            assert np.array_equal(index, np.argmax(drawn, axis=axis))


@pytest.mark.parametrize("threads", ["1", "2", "7"])
def test_any_number_of_threads(threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPSELECT_NUM_THREADS", threads)
    for shape, axis in [((90_001, 3), -1), ((3, 90_001), 0), ((14, 20_001), -1), ((400, 7, 101), 1)]:
        logits, g = logits_of("float32", shape), cotangent("float32", shape, 1)
        result = gumbel_softmax.backward(g, logits, seed=2, axis=axis)
        assert same(result, straight_through.backward(g, perturbed(logits, 2, 0), axis=axis))


def test_read_only_inputs_stay_as_they_are() -> None:
    logits, given = logits_of("float32", (30, 5)), cotangent("float32", (5,), 1)
    copies = logits.copy(), given.copy()
    logits.flags.writeable = given.flags.writeable = False
    for backend in ("reference", "cpu"):
        gumbel_softmax.backward(logits, logits, seed=1, backend=backend)
        gumbel_softmax.backward(logits, logits, noise=given, backend=backend)
    assert same(logits, copies[0])
    assert same(given, copies[1])


@backends
@dtypes
def test_out_may_be_an_input(backend: str, dtype: str) -> None:
    shape = (50, 5)
    logits, g = logits_of(dtype, shape), cotangent(dtype, shape, 1)
    given = noise.gumbel(shape, 4, dtype=inputs.compute_type(dtype))
    expected = gumbel_softmax.backward(g, logits, noise=given, backend=backend)
    for name in ("logits", "g", "given"):
        arrays = {"logits": logits.copy(), "g": g.copy(), "given": given.copy()}
        out = arrays[name]
        gumbel_softmax.backward(arrays["g"], arrays["logits"], noise=arrays["given"], out=out, backend=backend)
        assert same(out, expected.astype(out.dtype))
        for seeded in ("logits", "g"):
            arrays = {"logits": logits.copy(), "g": g.copy()}
            gumbel_softmax.backward(arrays["g"], arrays["logits"], seed=4, out=arrays[seeded], backend=backend)
            assert same(arrays[seeded], expected)


def test_no_array_of_noise_is_held() -> None:
    """Beyond the result, what is allocated does not grow with the batch: three blocks of 16,384 numbers a thread."""
    logits = np.zeros((40_000, 100), np.float32)
    for call in (
        lambda: gumbel_softmax.forward(logits, seed=1),
        lambda: gumbel_softmax.backward(logits, logits, seed=1),
        lambda: gumbel_softmax.index(logits, seed=1),
    ):
        call()
        tracemalloc.start()
        result = call()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak - result.nbytes < 1_000_000


# ------------------------------------------------------------------------------------------------ given noise


@backends
@dtypes
def test_noise_broadcasts_and_is_rounded_to_the_type_of_the_sum(backend: str, dtype: str) -> None:
    logits = logits_of(dtype, (4, 5, 6))
    wide = inputs.compute_type(dtype)
    for shape in ((), (6,), (5, 1), (4, 1, 6), (1, 1, 1), (4, 5, 6)):
        given = np.random.default_rng(1).gumbel(size=shape)  # float64
        rounded = np.broadcast_to(given.astype(wide), logits.shape)
        for axis in (0, 1, 2):
            results = [
                gumbel_softmax.soft(logits, axis=axis, noise=added, backend=backend)
                for added in (given, given.tolist(), rounded, np.asfortranarray(rounded))
            ]
            assert all(same(result, results[0]) for result in results)
        w = logits.astype(wide) + rounded
        index = straight_through.index(w, backend=backend)
        assert np.array_equal(gumbel_softmax.index(logits, noise=given, backend=backend), index)
    assert same(
        gumbel_softmax.soft(logits, noise=2, backend=backend), gumbel_softmax.soft(logits, noise=2.0, backend=backend)
    )


# ------------------------------------------------------------------------------------------------ planted faults


def test_faults_are_found() -> None:
    """What the comparison with straight_through must not accept: noise moved by one, of another seed, or none."""
    logits, g, v = (cotangent("float32", (30, 7), seed) for seed in range(3))
    honest = functions(gumbel_softmax, logits, g, v, 0.6, seed=SEED, offset=OFFSET)
    for w in (
        perturbed(logits, offset=OFFSET + 1),
        perturbed(logits, seed=SEED + 1),
        logits,
        perturbed(logits.T.copy()).T,
    ):
        wrong = functions(straight_through, w, g, v, 0.6)
        assert not any(same(wrong[name], honest[name]) for name in honest)
