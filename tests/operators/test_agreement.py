"""The CPU tier against the reference: the same selection everywhere, the rest within half the proven bound.

The bound is that of `npselect.testing.tolerance` for the kernels' arithmetic, in the dtype's own unit. Independent of
both tiers: `scipy.special.softmax` and `numpy.argmax`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import inputs
import ml_dtypes
import numpy as np
import pytest
import scipy.special
from inputs import DTYPES, Batch

from npselect import straight_through
from npselect.testing import tolerance

dtypes = pytest.mark.parametrize("dtype", list(DTYPES))
Record = Callable[[str, float], None]
NAMES = ("soft", "backward", "jvp", "backward_temp", "double_mask", "double_logits")
FAMILIES = sorted(set(inputs.adversarial("float32", 2, 2, 0)) - set(inputs.adversarial("float32", 2, 2, 0, wild=False)))


def computed(batch: Batch, backend: str) -> dict[str, Any]:
    logits, temp, where, g, v = batch
    options: dict[str, Any] = {"where": where, "backend": backend}
    double_mask, double_logits = straight_through.double_backward(v, g, logits, temp, **options)
    backward = straight_through.backward(g, logits, temp, **options)
    return {
        "soft": straight_through.soft(logits, temp, **options),
        "backward": backward,
        # the same map, as test_properties says; the reference takes seconds for it
        "jvp": backward if backend == "reference" else straight_through.jvp(g, logits, temp, **options),
        "backward_temp": straight_through.backward_temp(g, logits, temp, **options),
        "double_mask": double_mask,
        "double_logits": double_logits,
    }


def excluded(batch: Batch) -> Batch:
    """With -inf for what `where` excludes, and without the rows in which nothing is left."""
    logits = batch.logits.astype(np.float64)
    if batch.where is not None:
        logits = np.where(batch.where, logits, -np.inf)
    kept = np.any(logits > -np.inf, axis=1)
    return Batch(logits, batch.temp.astype(np.float64), kept, batch.g, batch.v)


def bounds(batch: Batch, dtype: str) -> dict[str, Any]:
    """What the tolerance module allows, over the rows that `excluded` keeps."""
    logits, temp, kept, g, v = excluded(batch)
    logits, temp, g, v = (part[kept] for part in (logits, temp, g, v))
    with np.errstate(invalid="ignore"):
        g, v = g.astype(np.float64), v.astype(np.float64)
    options = (logits, temp, dtype, tolerance.KERNELS)
    double_mask, double_logits = tolerance.double_backward(v, g, *options)
    backward = tolerance.backward(g, *options)
    return {
        "soft": tolerance.soft(*options),
        "backward": backward,
        "jvp": backward,
        "backward_temp": tolerance.backward_temp(g, *options)[:, None],
        "double_mask": double_mask,
        "double_logits": double_logits,
    }


def design_bound(batch: Batch, dtype: str) -> Any:
    """The bound of `backward` written down before there were kernels, to see how far from it they are."""
    logits, temp, kept, g, _ = excluded(batch)
    w, temp, g = logits[kept], temp[kept], g[kept].astype(np.float64)
    u, n = 2.0 ** -inputs.limits(dtype)[3], tolerance.KERNELS.depth(w.shape[1])
    m = np.argmax(w, axis=1, keepdims=True)
    with np.errstate(all="ignore"):
        t = np.where(w > -np.inf, (w - np.take_along_axis(w, m, 1)) / temp, -np.inf)
        p = np.exp(t) / np.sum(np.exp(t), axis=1, keepdims=True)
        t = np.where(p > 0, t, 0.0)
        h = np.where(w > -np.inf, g - np.take_along_axis(g, m, 1), 0.0)
        d = np.sum(p * h, axis=1, keepdims=True)
        delta = u * (2 * np.abs(t) + 2 * np.sum(p * np.abs(t), axis=1, keepdims=True) + 2 + n)
        mean = np.sum(p * np.abs(h) * (delta + n * u), axis=1, keepdims=True)
        return p / temp * ((delta + 3 * u) * np.abs(h - d) + mean) + inputs.limits(dtype)[1]


def fractions(actual: Any, expected: Any, bound: Any) -> Any:
    """|actual - expected| in bounds: 0 where both are the same number, or NaN; infinite where that means nothing.

    An infinity stands for the largest number of its dtype: a bound beyond that allows it.
    """
    largest = float(ml_dtypes.finfo(actual.dtype).max)
    actual, expected = (np.clip(x.astype(np.float64), -largest, largest) for x in (actual, expected))
    with np.errstate(all="ignore"):
        found = np.abs(actual - expected) / bound
    same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    return np.where(same, 0.0, np.where(np.isnan(found), np.inf, found))


def compare(batch: Batch, dtype: str, record: Record, what: str) -> None:
    """The CPU tier within half the bound of the reference, in all its soft functions."""
    kept = excluded(batch).where
    assert kept is not None
    actual, expected, allowed = computed(batch, "cpu"), computed(batch, "reference"), bounds(batch, dtype)
    for name in NAMES:
        assert actual[name].shape == expected[name].shape
        assert actual[name].dtype == expected[name].dtype == DTYPES[dtype]
        assert np.array_equal(actual[name][~kept], expected[name][~kept])
        found = fractions(actual[name][kept], expected[name][kept], 0.5 * allowed[name])
        if found.size:
            worst = np.unravel_index(np.argmax(found), found.shape)
            record(f"fraction of B/2, {name} {dtype}{', ends of the range' if what in FAMILIES else ''}", found[worst])
            assert found[worst] <= 1, (what, name, worst)
    if kept.any():
        literal = fractions(actual["backward"][kept], expected["backward"][kept], 0.5 * design_bound(batch, dtype))
        lowest = float(batch.temp.min())
        which = next(f"temp from {limit:.0e}" for limit in (1e-9, 9e-31, 0.0) if lowest >= limit)
        record(f"fraction of the design's B/2, backward {dtype}, {which}", np.max(literal))


# ------------------------------------------------------------------------------------------------ the selection


@dtypes
@pytest.mark.parametrize("rows", [2**14, pytest.param(2**20, marks=pytest.mark.slow)])
def test_selection_of_many_rows(dtype: str, rows: int) -> None:
    """Forward and index, with ties planted in every fourth row."""
    rng = np.random.default_rng(1)
    choices = 8
    logits = rng.standard_normal((rows, choices), np.float32).astype(DTYPES[dtype])
    logits[::4, rng.integers(choices)] = logits[::4, rng.integers(choices)]
    logits[1::4] = rng.integers(-1, 2, (rows // 4, choices))
    logits[5::64, ::3] = -0.0
    selected = straight_through.index(logits, backend="cpu")
    assert np.array_equal(selected, np.argmax(logits, axis=1))
    assert np.array_equal(selected, straight_through.index(logits, backend="reference"))
    mask = straight_through.forward(logits, backend="cpu")
    assert np.array_equal(mask.view(np.uint8), straight_through.forward(logits, backend="reference").view(np.uint8))
    assert np.array_equal(np.argmax(mask, axis=1), selected)
    assert np.count_nonzero(mask) == rows


@dtypes
@pytest.mark.parametrize("choices", [1, 2, 3, 127, 128, 129, 130, 1023, 1024, 1025, 5000])
def test_selection(dtype: str, choices: int) -> None:
    rng = np.random.default_rng(choices)
    logits = rng.integers(-40, 41, (60, choices)).astype(DTYPES[dtype])  # ties almost everywhere
    where = rng.random(logits.shape) < 0.7
    logits[rng.random(logits.shape) < 0.02] = -np.inf
    logits[7, choices // 2], logits[8, -1] = np.nan, np.inf
    for offered in (None, where, where[:1]):
        results = [
            (
                straight_through.forward(logits, where=offered, backend=backend).astype(np.float64),
                straight_through.index(logits, where=offered, backend=backend),
            )
            for backend in ("cpu", "reference")
        ]
        assert np.array_equal(results[0][0], results[1][0], equal_nan=True)
        assert np.array_equal(results[0][1], results[1][1])


# ------------------------------------------------------------------------------------------------ the soft passes


@dtypes
@pytest.mark.parametrize("choices", [1, 2, 3, 5, 8, 31, 127, 128, 129, 255, 1000, 1023, 1024, 1025, 2049, 4096, 5000])
def test_random(dtype: str, choices: int, record: Record) -> None:
    rows = max(3, min(400, 8_000 // choices))
    compare(inputs.random(dtype, rows, choices, choices), dtype, record, "random")


@dtypes
def test_random_of_a_vocabulary(dtype: str, record: Record) -> None:
    compare(inputs.random(dtype, 1, 50257, 2), dtype, record, "random")


@dtypes
@pytest.mark.parametrize("choices", [2, 8, 129, 1025])
def test_adversarial(dtype: str, choices: int, record: Record) -> None:
    rows = max(6, min(100, 1500 // choices))
    for family, batch in inputs.adversarial(dtype, rows, choices, choices, wild=False).items():
        compare(batch, dtype, record, family)


@dtypes
@pytest.mark.parametrize("choices", [2, 8])
@pytest.mark.parametrize("family", FAMILIES)
def test_ends_of_the_range(dtype: str, family: str, choices: int, record: Record) -> None:
    """Cotangents up to a quarter of the largest number, as far as the kernels promise; temperatures at both ends."""
    batch = inputs.adversarial(dtype, 60, choices, 4)[family]
    with np.errstate(all="ignore"):
        quarter = DTYPES[dtype].type(0.25 / choices)
        compare(batch._replace(g=batch.g * quarter, v=batch.v * quarter), dtype, record, family)


@dtypes
@pytest.mark.parametrize("choices", [1, 2, 3, 8, 128, 129, 1025])
def test_up_to_the_limits(dtype: str, choices: int, record: Record) -> None:
    rows = max(12, min(300, 6000 // choices))
    compare(inputs.at_the_limits(dtype, rows, choices, choices), dtype, record, "at the limits")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("choices", [2, 129])
def test_beyond_the_limits(dtype: str, choices: int) -> None:
    """Differences, products of differences and sums over rows up to the largest number, and beyond it: NaN, as said."""
    number = np.dtype(dtype).type
    largest = number(np.finfo(dtype).max)
    where = np.arange(choices) < 2

    def row(a: Any, b: Any) -> Any:
        return np.array([[a, b] + [0] * (choices - 2)], dtype)

    def opposite(x: Any) -> Any:
        return row(x, -x)

    def beyond(x: Any) -> Any:
        return np.nextafter(x, largest)

    def is_finite(name: str, *arguments: Any) -> bool:
        """Whether the CPU tier's result is, which is NaN otherwise; the reference's is finite."""
        results = []
        for backend in ("cpu", "reference"):
            result = getattr(straight_through, name)(*arguments, where=where, backend=backend)
            result = result[1] if name == "double_backward" else result
            results.append(result[:, :2] if np.ndim(result) == 2 and result.shape[1] > 1 else np.asarray(result))
        assert np.all(np.isfinite(results[1]))
        finite = np.isfinite(results[0])
        assert np.all(finite) or np.all(np.isnan(results[0]))
        return bool(np.all(finite))

    half, part = largest / 2, largest / number(2**22)
    assert is_finite("backward", opposite(half), row(0, -1), 4.0)
    assert not is_finite("backward", opposite(beyond(half)), row(0, -1), 4.0)
    g = opposite(2.0**20)
    assert is_finite("double_backward", opposite(part), g, row(0, -1e4), 1.0)
    assert not is_finite("double_backward", opposite(beyond(part)), g, row(0, -1e4), 1.0)
    g, logits = np.concatenate([opposite(half), opposite(-half)] * 2), np.repeat(row(0, -0.25), 4, axis=0)
    assert is_finite("backward_temp", g, logits, np.full((4, 1), 0.25))
    assert not is_finite("backward_temp", g, logits, 0.25)


@dtypes
@pytest.mark.parametrize("temp", [1e-30, 1e-10, 1e-3, 0.6, 1e3, 1e10, 1e30])
def test_one_temperature(dtype: str, temp: float, record: Record) -> None:
    """A scalar temperature, whose gradient is a sum over rows: the sum's roundings are added to the rows' bounds.

    Shares that are wrong by B_r add up to a sum wrong by ``sum_r B_r + n u sum_r |share_r|``, n the depth of the sum,
    and the result is rounded once more.
    """
    rows, choices = 500, 9
    made = inputs.random(dtype, rows, choices, 17)
    largest = inputs.limits(dtype)[0]
    scale = min(1.0, largest * temp * 1e-3, largest * temp**2 * 1e-4)  # lest everything overflows
    g = (made.g.astype(np.float64) * scale).astype(DTYPES[dtype])
    logits = (made.logits.astype(np.float64) * min(temp, 1e2)).astype(DTYPES[dtype])
    tau = inputs.compute_type(dtype)(temp)
    batch = Batch(logits, np.full((rows, 1), tau), made.where, g, made.v)
    kept = excluded(batch).where
    compare(batch, dtype, record, f"temp {temp}")
    options: dict[str, Any] = {"where": batch.where}
    actual = straight_through.backward_temp(g, logits, temp, backend="cpu", **options)
    expected = straight_through.backward_temp(g, logits, temp, backend="reference", **options)
    share = straight_through.backward_temp(g, logits, batch.temp, backend="reference", **options)[kept]
    unit = 2.0 ** -inputs.limits(dtype)[3]
    allowed = np.sum(bounds(batch, dtype)["backward_temp"]) + 2 * unit * abs(float(expected))
    allowed += (tolerance.KERNELS.depth(rows) + 1) * unit * np.sum(np.abs(share.astype(np.float64)))
    found = fractions(actual, expected, 0.5 * allowed)
    record(f"fraction of B/2, backward_temp of all rows {dtype}", found)
    assert found <= 1
    for name in ("soft", "backward"):  # a scalar is the same as that temperature in every row
        function = getattr(straight_through, name)
        arguments = (logits,) if name == "soft" else (g, logits)
        assert np.array_equal(
            function(*arguments, temp, backend="cpu", **options).astype(np.float64),
            function(*arguments, batch.temp, backend="cpu", **options).astype(np.float64),
        )


# ------------------------------------------------------------------------------------------------ independent


@dtypes
@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("choices", [2, 10, 200, 3000])
def test_softmax_by_scipy(dtype: str, backend: str, choices: int) -> None:
    """Probabilities and the textbook's gradient in float64, which SciPy and NumPy compute by the textbook.

    For float64 itself both sides may be wrong: the kernels by half their bound, the textbook by its own.
    """
    rng = np.random.default_rng(choices)
    logits = (3 * rng.normal(size=(40, choices))).astype(DTYPES[dtype])
    g = rng.normal(size=logits.shape).astype(DTYPES[dtype])
    w, cotangent = logits.astype(np.float64), g.astype(np.float64)
    temp = float(inputs.compute_type(dtype)(0.7))
    probs = scipy.special.softmax(w / temp, axis=1)
    gradient = probs * (cotangent - np.sum(probs * cotangent, axis=1, keepdims=True)) / temp
    for name, expected in (("soft", probs), ("backward", gradient)):
        arguments = (w,) if name == "soft" else (cotangent, w)
        bound = getattr(tolerance, name)
        allowed = 0.5 * bound(*arguments, temp, dtype, tolerance.KERNELS) + bound(*arguments, temp, "float64")
        arguments = (logits,) if name == "soft" else (g, logits)
        actual = getattr(straight_through, name)(*arguments, temp, backend=backend)
        assert np.max(fractions(actual, expected, allowed)) <= 1
    assert np.array_equal(straight_through.index(logits, backend=backend), np.argmax(w, axis=1))


# ------------------------------------------------------------------------------------------------ planted faults


@dtypes
@pytest.mark.parametrize("name", NAMES)
def test_faults_are_found(dtype: str, name: str, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    """One entry of one row off by one bound, or NaN, or a sign: `compare` must not accept any of them."""
    batch = inputs.random(dtype, 30, 6, 1)
    compare(batch, dtype, lambda *_: None, "honest")
    honest, allowed = computed(batch, "cpu"), bounds(batch, dtype)[name]
    kept = np.flatnonzero(excluded(batch).where)
    row = np.argmax(np.max(np.abs(honest[name][kept].astype(np.float64)), axis=1))
    column = np.argmax(np.abs(honest[name][kept[row]].astype(np.float64)))
    value = float(honest[name][kept[row], column])
    for planted in (value + 1.01 * allowed[row, column], value - 1.01 * allowed[row, column], np.nan, np.inf, -value):
        wrong = {key: values.copy() for key, values in honest.items()}
        wrong[name][kept[row], column] = planted
        if abs(float(wrong[name][kept[row], column]) - value) <= 0.9 * allowed[row, column]:
            continue  # the dtype has no number there
        both = {"cpu": wrong, "reference": computed(batch, "reference")}
        with monkeypatch.context() as patch:
            patch.setitem(globals(), "computed", lambda batch, backend, both=both: both[backend])
            with pytest.raises(AssertionError, match=name):
                compare(batch, dtype, lambda *_: None, "planted")
