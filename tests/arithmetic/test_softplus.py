"""``log(1 + exp(u))`` and what it is made of: within what is claimed, and the same bits compiled as run in Python."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import numpy.typing as npt
import pytest
from mpmath import mp, mpf
from numba import njit

from npselect._arithmetic import exponential, simd, softplus

Array = npt.NDArray[Any]
UNIT = {np.float32: 2.0**-24, np.float64: 2.0**-53}
types = pytest.mark.parametrize("kind", [np.float32, np.float64])


@njit
def _log1p(x: Any, out: Any) -> None:
    for i in range(len(x)):
        out[i] = softplus.log1p(x[i])


@njit
def _softplus(u: Any, tail: Any, down: Any, up: Any, high: Any, low: Any) -> None:
    constants = exponential.exp_constants(u[0] - u[0])
    for i in range(len(u)):
        high[i], low[i] = softplus.softplus(u[i], tail[i], down[i], up[i], constants)


@njit
def _softplus_of_vectors(u: Any, tail: Any, down: Any, up: Any, high: Any, low: Any) -> None:
    constants = exponential.exp_constants(u[0] - u[0])
    for i in range(0, len(u), simd.WIDTH):
        a, b, c, d = simd.load(u, i), simd.load(tail, i), simd.load(down, i), simd.load(up, i)
        s, t = softplus.softplus(a, b, c, d, constants)
        simd.store(high, i, s)
        simd.store(low, i, t)


@njit
def _log_two_words(x: Any, high: Any, low: Any) -> None:
    for i in range(len(x)):
        high[i], low[i] = softplus.log_two_words(x[i])


@njit
def _both_exps(t: Any, tail: Any, out: Any, sooner: Any) -> None:
    constants = exponential.exp_constants(out[0] - out[0])
    for i in range(len(t)):
        out[i], sooner[i] = exponential.exp(t[i], tail[i]), exponential.exp_sooner(t[i], tail[i], constants)


def same_bits(x: Array, y: Array) -> bool:
    integer = np.int32 if x.dtype == np.float32 else np.int64
    return bool(np.all((x.view(integer) == y.view(integer)) | (np.isnan(x) & np.isnan(y))))


@types
def test_log1p(kind: Any) -> None:
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.uniform(0, 1, 800), np.exp(rng.uniform(-80, 0, 200)), [0.0, 1.0]]).astype(kind)
    out = np.empty_like(x)
    _log1p(x, out)
    assert same_bits(out, np.array([softplus.log1p(one) for one in x], kind))
    with mp.workprec(200):
        errors = [abs(mpf(float(y)) / mpmath.log1p(mpf(float(v))) - 1) for v, y in zip(x, out, strict=True) if v]
    assert out[x == 0].tolist() == [0.0]
    assert 0.5 * UNIT[kind] < max(errors) < 2.6 * UNIT[kind]


def arguments(kind: Any) -> tuple[Array, ...]:
    """Numbers of all sizes with a second word, multiplied with a power of two."""
    rng = np.random.default_rng(2)
    lowest = 87.0 if kind is np.float32 else 708.0
    sizes = np.concatenate([np.exp(rng.uniform(-20, 8, 400)), lowest * rng.uniform(0.9, 1.1, 80), [0.0, 1e30]])
    sizes = np.pad(sizes, (0, -len(sizes) % simd.WIDTH), constant_values=1.0)
    down = np.where(rng.random(len(sizes)) < 0.7, 1.0, 2.0**-64).astype(kind)
    u = (sizes * rng.choice([-1.0, 1.0], len(sizes))).astype(kind) * down
    tail = (rng.uniform(-0.5, 0.5, len(u)) * np.spacing(u)).astype(kind)
    return u, tail, down, 1 / down


@types
def test_softplus(kind: Any) -> None:
    given = arguments(kind)
    (high, low), (other, other_low) = ([np.empty_like(given[0]) for _ in range(2)] for _ in range(2))
    _softplus(*given, high, low)
    _softplus_of_vectors(*given, other, other_low)
    assert same_bits(high, other)
    assert same_bits(low, other_low)
    constants = exponential.exp_constants(kind(0))
    with np.errstate(all="ignore"):
        plain = np.array([softplus.softplus(*one, constants) for one in zip(*given, strict=True)], kind)
    assert same_bits(high, plain[:, 0].copy())
    assert same_bits(low, plain[:, 1].copy())
    worst, least = 0.0, float(np.exp(-87.0 if kind is np.float32 else -708.0))
    for u, tail, down, _, s, t in zip(*given, high, low, strict=True):
        with mp.workprec(2000):
            exact = (mpf(float(u)) + mpf(float(tail))) / mpf(float(down))
            x = mpmath.log1p(mpmath.exp(-abs(exact)))
            error = abs((mpf(float(s)) + mpf(float(t))) / mpf(float(down)) - max(exact, 0) - x)
            worst = max(worst, float(max(error - least, 0) / (x * UNIT[kind] + abs(exact) * UNIT[kind] ** 2)))
    assert 1 < worst < 6


@types
def test_softplus_of_what_is_no_number(kind: Any) -> None:
    u = np.array([np.inf, -np.inf, np.nan, 1.0], kind)
    tail = np.array([np.nan, 0.0, 0.0, np.nan], kind)
    one, high, low = np.ones(4, kind), np.empty(4, kind), np.empty(4, kind)
    _softplus(u, tail, one, one, high, low)
    assert np.isnan(low[[0, 2, 3]]).all()
    assert (high[1], low[1]) == (0, 0)


@types
def test_exp_sooner_has_the_bits_of_exp(kind: Any) -> None:
    rng = np.random.default_rng(3)
    lowest = -104.0 if kind is np.float32 else -745.25
    t = np.concatenate([lowest * rng.uniform(0, 1.02, 1500), -np.exp(rng.uniform(-40, 3, 300)), [0.0, -0.0, -np.inf]])
    t = t.astype(kind)
    with np.errstate(invalid="ignore"):
        tail = (rng.uniform(-2, 2, len(t)) * np.spacing(t)).astype(kind)
    out, sooner = np.empty_like(t), np.empty_like(t)
    _both_exps(t, tail, out, sooner)
    assert same_bits(out, sooner)
    assert np.count_nonzero((out > 0) & (out < np.finfo(kind).tiny)) > 50
    constants = exponential.exp_constants(kind(0))
    with np.errstate(all="ignore"):
        assert same_bits(
            out, np.array([exponential.exp_sooner(*one, constants) for one in zip(t, tail, strict=True)], kind)
        )
    _both_exps(np.full(1, np.nan, kind), np.zeros(1, kind), out, sooner)
    assert sooner[0] == 0


@types
def test_log_two_words(kind: Any) -> None:
    rng = np.random.default_rng(4)
    x = np.concatenate([[1.0, 2.0], np.exp(rng.uniform(0, 20, 200)), 1 + np.exp(rng.uniform(-30, 0, 200))]).astype(kind)
    high, low = np.empty_like(x), np.empty_like(x)
    _log_two_words(x, high, low)
    assert same_bits(np.stack([high, low], 1), np.array([softplus.log_two_words(one) for one in x], kind))
    assert (high[0], low[0]) == (0, 0)
    with mp.workprec(300):
        exact = [mpmath.log(mpf(float(one))) for one in x]
        errors = [abs((mpf(float(a)) + mpf(float(b))) / y - 1) for a, b, y in zip(high, low, exact, strict=True) if y]
    assert max(errors) < UNIT[kind] ** 2
