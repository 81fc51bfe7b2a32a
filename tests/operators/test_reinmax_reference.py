"""The reference's choice, and its ReinMax against the published definition: at most 0.501 units in the last place."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import exact
import inputs
import numpy as np
import numpy.typing as npt
import pytest
from inputs import DTYPES, Batch

from npselect import reference

Array = npt.NDArray[Any]
ALLOWED = 0.501
EMPTY, INVALID, REFUSED = -1, -2, -3
NAN, INF = np.nan, np.inf
dtypes = pytest.mark.parametrize("dtype", list(DTYPES))


def reinmax(g: Any, logits: Any, d: Any, temp: Any = 1.0, where: Any = None, dtype: str = "float64") -> Array:
    """Over rows; temp is one for all, or one a row."""
    g, logits = (np.asarray(x).astype(DTYPES[dtype]) for x in (g, logits))
    temps = np.asarray(temp, inputs.compute_type(dtype)).reshape(-1)
    out = np.empty_like(logits)
    reference.reinmax(g, logits, np.asarray(d, np.int64), temps, where, out)
    return out


def textbook(g: Any, logits: Any, d: Any, temp: Any = 1.0) -> Array:
    """The published lines, in float64."""

    def softmax(t: Array) -> Array:
        e = np.exp(t - np.max(t, axis=-1, keepdims=True))
        return np.asarray(e / np.sum(e, axis=-1, keepdims=True))

    def product(x: Array) -> Array:
        return np.asarray(x * (g - np.sum(x * g, axis=-1, keepdims=True)))

    g, logits = np.asarray(g, np.float64), np.asarray(logits, np.float64)
    one_hot = np.eye(logits.shape[-1])[np.asarray(d)]
    return 2 * product((softmax(logits / temp) + one_hot) / 2) - product(softmax(logits)) / 2


# ------------------------------------------------------------------------------------------------ the choice


ROWS = {  # logits, where, what argmax chooses, and indices with what becomes of each
    "any": ([0, 2, 1], [1, 1, 1], 1, {0: 0, 1: 1, 2: 2, -1: REFUSED, 3: REFUSED, -2: REFUSED}),
    "ties": ([-0.0, 0.0, -1], [1, 1, 1], 0, {1: 1}),
    "excluded": ([5, 2, 1], [0, 1, 1], 1, {0: REFUSED, 1: 1, 2: 2, -1: REFUSED}),
    "-inf": ([-INF, 2, 1], [1, 1, 1], 1, {0: REFUSED, 2: 2, -1: REFUSED}),
    "garbage": ([NAN, INF, -INF], [0, 0, 0], EMPTY, {-1: EMPTY, 0: REFUSED, 2: REFUSED, 3: REFUSED}),
    "NaN": ([NAN, 2, 1], [1, 1, 1], INVALID, {0: INVALID, 1: INVALID, -1: INVALID, 3: REFUSED, -2: REFUSED}),
    "+inf": ([0, INF, 1], [1, 1, 1], INVALID, {0: INVALID, 1: INVALID, -1: INVALID, -3: REFUSED}),
    "nothing but -inf": ([-INF, 7, -INF], [1, 0, 1], INVALID, {0: INVALID, 1: INVALID, -1: INVALID, 4: REFUSED}),
    "NaN excluded": ([NAN, 2, 1], [0, 1, 1], 1, {0: REFUSED, 2: 2}),
}


@dtypes
@pytest.mark.parametrize("name", ROWS)
def test_choice(dtype: str, name: str) -> None:
    row, offered, chosen, indices = ROWS[name]
    logits, where = np.array([row]).astype(DTYPES[dtype]), np.array([offered], bool)

    def choice(index: int | None) -> int:
        out = np.full(1, 99)
        reference.choice(logits, None, None if index is None else np.array([index]), where, out)
        return int(out[0])

    assert choice(None) == chosen
    assert {index: choice(index) for index in indices} == indices
    assert choice(2**62) == choice(-(2**62)) == REFUSED
    plain = np.full(1, 99)
    reference.index(logits, None, where, plain)
    assert plain[0] == max(chosen, -1)
    mask, mask_at = np.empty_like(logits), np.empty_like(logits)
    reference.mask(logits, None, where, mask)
    reference.mask_at(np.array([chosen]), mask_at)
    for result in (mask, mask_at):
        wanted = [[NAN] * 3] if chosen == INVALID else [[float(j == chosen) for j in range(3)]]
        np.testing.assert_array_equal(result.astype(np.float64), wanted)
        assert not np.signbit(result.astype(np.float64)[result == 0]).any()


def test_choice_with_noise() -> None:
    """It selects; whether it makes a row invalid is for the sum to say."""
    logits = np.array([[0.0, 1.0, 2.0]] * 5)
    noise = np.array([[3, 0, 0], [0, 0, -INF], [NAN, 0, 0], [0, INF, 0], [-INF] * 3])
    out = np.empty(5, np.int64)
    reference.choice(logits, noise, None, None, out)
    assert out.tolist() == [0, 1, INVALID, INVALID, INVALID]


# ------------------------------------------------------------------------------------------------ the definition


DRAWN = {
    "any": lambda w, rng: rng.integers(len(w)),
    "likely": lambda w, _: np.argmax(w),
    "unlikely": lambda w, _: np.argmin(w),
}


def drawn(rows: list[exact.Row], how: str) -> list[int]:
    """A candidate of each row, -1 where there is none."""
    rng, found = np.random.default_rng(9), []
    for row in rows:
        here = row.candidates
        found.append(here[int(DRAWN[how](np.array([row.w[i] for i in here]), rng))] if here else -1)
    return found


def worst(batch: Batch, dtype: str, how: str) -> float:
    rows = exact.rows(*batch)
    d = drawn(rows, how)
    expected = [exact.exact_reinmax(row, one, dtype) for row, one in zip(rows, d, strict=True)]
    actual = reinmax(batch.g, batch.logits, d, batch.temp, batch.where, dtype)
    return exact.worst(actual, expected, dtype)[0]


@dtypes
@pytest.mark.parametrize("choices", [1, 2, 5, 33])
def test_random(dtype: str, choices: int, record: Callable[[str, float], None]) -> None:
    for how in DRAWN:
        found = worst(inputs.random(dtype, 2000 // (choices + 10), choices, choices), dtype, how)
        record(f"{dtype} reinmax random", found)
        assert found <= ALLOWED, how


@dtypes
@pytest.mark.parametrize("family", list(inputs.adversarial("float32", 2, 2, 0)))
def test_adversarial(dtype: str, family: str, record: Callable[[str, float], None]) -> None:
    """Saturated rows, ties, cancelling sums, huge and tiny temperatures, the ends of the range: 27 families."""
    for choices, rows in ((3, 8), (8, 4)):
        batch = inputs.adversarial(dtype, rows, choices, choices)[family]
        for how in DRAWN:
            found = worst(batch, dtype, how)
            record(f"{dtype} reinmax adversarial", found)
            assert found <= ALLOWED, how


@dtypes
def test_cancelling_means(dtype: str, record: Callable[[str, float], None]) -> None:
    """One cotangent of each row makes ``2 q (h - a / 2)`` equal ``p (h - b)`` but for its own rounding."""
    made = inputs.random(dtype, 300, 5, 17)._replace(where=None)
    rows = exact.rows(*made)
    d = np.array(drawn(rows, "any"))
    i, at = (d + 1) % 5, np.arange(300)
    g = made.g.astype(np.float64)
    for _ in range(60):  # the result is linear in g_i, which the secant makes 0
        slope = textbook(np.eye(5)[i], made.logits, d, made.temp)[at, i]
        g[at, i] -= textbook(g, made.logits, d, made.temp)[at, i] / slope
    made.g[...] = g.astype(made.g.dtype)
    left = reinmax(made.g, made.logits, d, made.temp, dtype=dtype).astype(np.float64)[at, i]
    kept = np.argsort(np.abs(left) / np.abs(g).max(axis=1))[:60]
    expected = [exact.exact_reinmax(row, one, dtype) for row, one in zip(exact.rows(*made), d, strict=True)]
    actual = reinmax(made.g, made.logits, d, made.temp, dtype=dtype)
    found = exact.worst(actual[kept], [expected[k] for k in kept], dtype)[0]
    record(f"{dtype} reinmax cancelling", found)
    assert found <= ALLOWED


def test_planted_faults_are_seen() -> None:
    """What the judge is for: each way to get the published line wrong is millions of last places off."""
    batch = inputs.random("float64", 20, 5, 3)._replace(where=None)
    g, w, temp = batch.g, batch.logits, batch.temp
    rows = exact.rows(*batch)
    d = np.array(drawn(rows, "any"))
    expected = [exact.exact_reinmax(row, one, "float64") for row, one in zip(rows, d, strict=True)]
    right, half = textbook(g, w, d, temp), textbook(g, w, d, 1.0)
    at_p = np.array(
        [[float(x) for x in exact.exact(row._replace(temp=1.0), "float64", ["backward"])["backward"]] for row in rows]
    )
    assert exact.worst(right, expected, "float64")[0] < 1e6
    for wrong in ((right + at_p / 2) / 2 - at_p / 2, right + at_p / 2, right / temp, half, -right):
        assert exact.worst(wrong, expected, "float64")[0] > 1e6


# ------------------------------------------------------------------------------------------------ what is to be seen


def test_digits_of_a_saturated_row() -> None:
    """Where ``p_0`` is rounded to 1, nothing is left of the textbook's ``g_0 - <p, g>``."""
    g, w = [[1.0, 0.0]], [[0.0, -50.0]]
    share = float(np.exp(-50.0) / (1 + np.exp(-50.0)))
    np.testing.assert_allclose(reinmax(g, w, [0]), [[share / 2, -share / 2]], rtol=4e-16)
    assert abs(share / 2 - 9.6e-23) < 1e-24
    assert textbook(g, w, [0])[0, 0] == 0.0


def random_rows(rows: int, choices: int, seed: int) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    g, w = rng.normal(size=(2, rows, choices)) * np.exp(rng.uniform(-2, 2, (2, rows, 1)))
    return g, w, rng.integers(choices, size=rows)


@pytest.mark.parametrize("temp", [1e-30, 0.3, 1.0, 1.4, 1e30])
def test_sums_to_zero(temp: float) -> None:
    """But for the entries' own roundings, 0.501 of a last place each, which is at most 2**-52 of an entry."""
    for choices in (2, 3, 10, 300):
        result = reinmax(*random_rows(40, choices, choices), temp)
        sums = [abs(sum(map(exact.Fraction, row.tolist()))) for row in result]
        assert all(s <= 0.501 * 2.0**-52 * np.abs(row).sum() for s, row in zip(sums, result, strict=True))


@pytest.mark.parametrize("temp", [0.3, 1.0, 1.4])
def test_constants_drop_out(temp: float) -> None:
    g, w, d = random_rows(50, 7, 1)
    g, w = np.round(g * 2**20) / 2**20, np.round(w * 2**20) / 2**20
    plain = reinmax(g, w, d, temp)
    np.testing.assert_array_equal(reinmax(g + 1000.0, w, d, temp), plain)
    np.testing.assert_array_equal(reinmax(g, w - 1000.0, d, temp), plain)
    np.testing.assert_array_equal(reinmax(np.full_like(g, 3.7), w, d, temp), 0.0)


@pytest.mark.parametrize("temp", [0.3, 1.0, 1.4])
def test_the_map_is_symmetric(temp: float) -> None:
    for choices in (2, 5, 9):
        g, w, d = random_rows(50, choices, choices)
        v = np.random.default_rng(2).normal(size=g.shape)
        there, back = reinmax(g, w, d, temp), reinmax(v, w, d, temp)
        difference = np.abs(np.sum(there * v - back * g, axis=1))
        assert np.all(difference <= 4 * choices * 2.0**-53 * np.sum(np.abs(there * v) + np.abs(back * g), axis=1))


@dtypes
def test_zgr_at_temp_one(dtype: str) -> None:
    """``p_j h_j / 2``, and minus the sum of the others, bit for bit: both are exact, then rounded."""
    for choices in (2, 3, 10):
        batch = inputs.random(dtype, 100, choices, choices)
        rows = exact.rows(*batch)
        d = drawn(rows, "any")
        expected = [
            [exact.rounded(x, dtype) for x in exact.exact_reinmax(row, one, dtype, exact.zgr_formula)]
            for row, one in zip(rows, d, strict=True)
        ]
        actual = reinmax(batch.g, batch.logits, d, 1.0, batch.where, dtype)
        np.testing.assert_array_equal(actual.astype(np.float64), expected)


def test_unbiased_for_quadratics_at_temp_one() -> None:
    """``L(z) = z'Az / 2 + b'z``: the mean over d is the gradient of ``sum_d p_d L(e_d)``, which is ``J(p) L``."""
    for choices in (2, 3, 5, 12):
        rng = np.random.default_rng(choices)
        a, b, w = rng.normal(size=(choices, choices)), rng.normal(size=choices), 2 * rng.normal(size=choices)
        a = a + a.T
        p = np.exp(w) / np.sum(np.exp(w))
        losses = np.diag(a) / 2 + b
        exact_gradient = p * (losses - p @ losses)
        one_hots = np.eye(choices)
        estimates = reinmax(one_hots @ a + b, np.tile(w, (choices, 1)), range(choices))
        np.testing.assert_allclose(p @ estimates, exact_gradient, rtol=0, atol=1e-12)
        biased = reinmax(one_hots @ a + b, np.tile(w, (choices, 1)), range(choices), 1.5)
        assert np.max(np.abs(p @ biased - exact_gradient)) > 1e-3


def test_the_bias_at_other_temperatures() -> None:
    """Linear losses: ``q g - (q <q + p, g> + p <q - p, g>) / 2``, where ``J(p) g`` would be right."""
    for choices, temp in itertools.product((2, 5, 12), (0.5, 1.0, 1.5, 1e30)):
        rng = np.random.default_rng(choices)
        g, w = rng.normal(size=choices), rng.normal(size=choices)
        p, q = (np.exp(t) / np.sum(np.exp(t)) for t in (w, w / temp))
        estimates = reinmax(np.tile(g, (choices, 1)), np.tile(w, (choices, 1)), range(choices), temp)
        np.testing.assert_allclose(p @ estimates, q * g - (q * ((q + p) @ g) + p * ((q - p) @ g)) / 2, atol=1e-14)
        if temp == 1.0:
            np.testing.assert_allclose(p @ estimates, p * (g - p @ g), atol=1e-14)


# ------------------------------------------------------------------------------------------------ degenerate rows


@dtypes
def test_degenerate_rows(dtype: str) -> None:
    g, w = [[1.0, 2.0, 4.0]] * 6, [[0, 1, 2], [0, NAN, 1], [0, 0, 0], [-INF, 3, -INF], [5, 1, 3], [0, 1, 2]]
    where = np.array([[1, 1, 1], [1, 1, 1], [0, 0, 0], [1, 1, 1], [0, 0, 1], [1, 1, 1]], bool)
    for temp in (0.5, 1.0, 2.0):
        result = reinmax(g, w, [2, INVALID, EMPTY, 1, 2, INVALID], temp, where, dtype).astype(np.float64)
        assert np.all(result[0] != 0)
        np.testing.assert_array_equal(result[1:], [[NAN] * 3, [0] * 3, [0] * 3, [0] * 3, [NAN] * 3])
        np.testing.assert_array_equal(reinmax([[3.0], [-2.0]], [[1.0], [-1e4]], [0, 0], temp, None, dtype), 0.0)


@dtypes
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_cotangents_that_are_not_finite(dtype: str, bad: float) -> None:
    """At a candidate they spoil their row's candidates; at an excluded entry they are ignored."""
    g = np.array([[bad, 2, 4], [1, bad, 4], [1, 2, 4], [1, 2, bad]])
    w = [[0, 1, -INF], [0, -INF, 2], [0, 1, 2], [0, 1, 2]]
    where = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 0]], bool)
    result = reinmax(g, w, [1, 2, 0, 1], 1.5, where, dtype)
    np.testing.assert_array_equal(result[0].astype(np.float64), [NAN, NAN, 0])
    clean = reinmax(np.where(np.isfinite(g), g, 0), w, [1, 2, 0, 1], 1.5, where, dtype)
    np.testing.assert_array_equal(result[1:], clean[1:])
    assert np.isfinite(result[1:].astype(np.float64)).all()
