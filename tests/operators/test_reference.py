"""The reference against the exact results: at most 0.501 units in the last place, 0.6 for float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import exact
import inputs
import mpmath
import numpy as np
import pytest
from inputs import DTYPES, Batch
from mpmath import mp, mpf

from npselect import straight_through
from npselect._oracle.numbers import Wide

ALLOWED = {"float16": 0.501, "bfloat16": 0.501, "float32": 0.501, "float64": 0.6}
dtypes = pytest.mark.parametrize("dtype", list(DTYPES))


def computed(batch: Batch, name: str) -> Any:
    """What the reference makes of a batch; backward_temp with one temperature a row."""
    logits, temp, where, g, v = batch
    options: dict[str, Any] = {"where": where, "backend": "reference"}
    if name == "soft":
        return straight_through.soft(logits, temp, **options)
    if name == "backward":
        return straight_through.backward(g, logits, temp, **options)
    if name == "backward_temp":
        return straight_through.backward_temp(g, logits, temp, **options)
    return straight_through.double_backward(v, g, logits, temp, **options)[name == "double_logits"]


def judged(batch: Batch, dtype: str, names: Any) -> dict[str, float]:
    """The worst error of each function over a batch."""
    rows = [exact.exact(row, dtype, names) for row in exact.rows(*batch)]
    return {name: exact.worst(computed(batch, name), [row[name] for row in rows], dtype)[0] for name in names}


# ------------------------------------------------------------------------------------------------ the judge is judged


@dtypes
def test_exact_of_two_candidates(dtype: str) -> None:
    """p = 1 / (1 + exp(x)) and its derivatives, which are other formulas than the judge's."""
    for difference, temp in ((0.0, 1.0), (1.5, 0.5), (-40.0, 0.25), (3.0, 2.0**-3), (-700.0, 1.0), (-60000.0, 1.0)):
        row = exact.Row([difference, 0.0], temp, [True, True], [2.0, 0.5], [-3.0, 1.0])
        values = exact.exact(row, dtype)
        with mp.workprec(200000 if difference < -1000 else 4000):
            x = mpf(difference) / temp
            p = 1 / (1 + mpmath.exp(-x))
            slope = mpmath.exp(-x) * p**2
            curve = slope * (1 - 2 * p)
            expected = {
                "soft": [p, 1 - p],
                "backward": [slope * 1.5 / temp, -slope * 1.5 / temp],
                "backward_temp": [-slope * 1.5 * x / temp],
                "double_mask": [slope * -4 / temp, slope * 4 / temp],
                "double_logits": [curve * 1.5 * -4 / temp**2, curve * 1.5 * 4 / temp**2],
            }
            for name, wanted in expected.items():
                for value, other in zip(values[name], wanted, strict=True):
                    assert abs(value - other) <= mpmath.ldexp(1, exact.FORMATS[dtype].place(other) - 11), name


def test_exact_formulas_by_differences() -> None:
    """The judge's derivatives are those of its own softmax: differences of steps of 2**-300 at 1000 bits."""
    rng = np.random.default_rng(5)
    w, g, v = ([mpf(x) for x in values] for values in rng.normal(size=(3, 5)).tolist())
    temp, step = mpf(0.7), mpmath.ldexp(1, -300)

    def slope(function: Callable[[mpf], mpf]) -> mpf:
        return (function(step) - function(-step)) / (2 * step)

    def moved(values: list[mpf], i: int, by: mpf) -> list[mpf]:
        return [x + by if i == j else x for j, x in enumerate(values)]

    def loss(w: list[mpf], temp: mpf) -> mpf:
        return mpmath.fdot(exact.formulas(w, temp, g, v, ["soft"])[0]["soft"], g)

    def second(w: list[mpf], g: list[mpf]) -> mpf:
        return mpmath.fdot(exact.formulas(w, temp, g, v, ["backward"])[0]["backward"], v)

    with mp.workprec(1000):
        values, _ = exact.formulas(w, temp, g, v)
        for i in range(5):
            assert abs(values["backward"][i] - slope(lambda x, i=i: loss(moved(w, i, x), temp))) < 1e-80
            assert abs(values["double_mask"][i] - slope(lambda x, i=i: second(w, moved(g, i, x)))) < 1e-80
            assert abs(values["double_logits"][i] - slope(lambda x, i=i: second(moved(w, i, x), g))) < 1e-80
        assert abs(values["backward_temp"][0] - slope(lambda x: loss(w, temp + x))) < 1e-80


@dtypes
def test_judge_rejects_one_ulp(dtype: str) -> None:
    batch = inputs.random(dtype, 6, 7, 11)
    values = [exact.exact(row, dtype, ["backward"])["backward"] for row in exact.rows(*batch)]
    best = np.array([[exact.rounded(x, dtype) for x in row] for row in values]).astype(DTYPES[dtype])
    assert exact.worst(best, values, dtype)[0] <= 0.5
    for i, j in [(0, 0), (3, 6), (5, 2)]:
        for direction in (-np.inf, np.inf):
            planted = best.copy()
            planted[i, j] = np.nextafter(best[i, j], np.array(direction, best.dtype))
            found, position = exact.worst(planted, values, dtype)
            assert 0.501 < found <= 1.5
            assert position == (i, j)


@dtypes
def test_judge_at_the_ends_of_the_range(dtype: str) -> None:
    largest, _, least, precision = inputs.limits(dtype)
    with mp.workprec(200):
        half = mpf(2) ** (exact.FORMATS[dtype].highest - precision)  # of the largest number's last place
        beyond, below = (mpf(largest) + half * (1 + x * mpf(2) ** -20) for x in (1, -1))
        assert exact.error(0.0, mpf(0), dtype) == 0
        assert exact.error(least, mpf(0), dtype) == 1
        assert exact.error(0.0, mpf(least) * 0.75, dtype) == 0.75
        assert exact.error(-0.0, mpf(2) ** -(10**6), dtype) < 1e-300
        assert exact.error(math.inf, mpf(largest) ** 2, dtype) == 0
        assert exact.error(-math.inf, mpf(largest) ** 2, dtype) > 1e3
        assert exact.error(largest, mpf(largest) ** 2, dtype) > 0.501
        assert exact.error(math.inf, beyond, dtype) <= 0.5
        assert exact.error(math.inf, below, dtype) > 0.5
        assert exact.error(largest, below, dtype) <= 0.5
        assert exact.error(math.nan, mpf(1), dtype) == math.inf


def test_rounded_halfway() -> None:
    assert [exact.rounded(mpf(x), "float16") for x in (2049.0, 2051.0, -2051.0, 2051.01)] == [2048, 2052, -2052, 2052]
    assert exact.rounded(mpf(65519.99), "float16") == 65504
    assert exact.rounded(mpf(65520), "float16") == math.inf
    assert exact.rounded(mpf(2) ** -25, "float16") == 0
    assert exact.rounded(mpf(3) * mpf(2) ** -25, "float16") == 2.0**-23


def test_precision_is_raised_until_it_is_enough() -> None:
    """1 + 2**-900 - 1: 128 and 256 bits agree on 0; the sizes of the terms say that this means nothing."""

    def compute() -> tuple[list[mpf], list[mpf]]:
        tiny = mpmath.ldexp(1, -900)
        return [((1 + tiny) - 1) * mpmath.ldexp(1, 900)], [mpmath.ldexp(2, 900)]

    assert exact.settle("float32", compute) == [1]


def test_no_agreement_is_an_error() -> None:
    with pytest.raises(ArithmeticError):
        exact.settle("float32", lambda: ([mpf(mp.prec)], [mpf(1)]))


@dtypes
def test_planted_fault_in_the_reference(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results an eighth to a quarter of their last place off, before they are rounded, are found."""
    batch = inputs.random(dtype, 400, 8, 3)
    honest = Wide.rounded
    shift = Wide.of(1.0) + Wide.of(0.25 * 2.0 ** -exact.FORMATS[dtype].precision)
    monkeypatch.setattr(Wide, "rounded", lambda self, dtype: honest(self * shift, dtype))
    assert judged(batch, dtype, ["backward"])["backward"] > ALLOWED[dtype]


# ------------------------------------------------------------------------------------------------ the reference


@dtypes
@pytest.mark.parametrize(("choices", "rows"), [(2, 600), (5, 800), (8, 1000), (33, 210)])
def test_random(dtype: str, choices: int, rows: int, record: Callable[[str, float], None]) -> None:
    """20,130 elements of each dtype."""
    batch = inputs.random(dtype, rows, choices, 100 + choices)
    few, most = rows // 5, ["soft", "backward"]
    for name, found in judged(batch.rows(slice(few)), dtype, exact.NAMES).items():
        record(f"{dtype} {name} random", found)
        assert found <= ALLOWED[dtype], name
    for name, found in judged(batch.rows(slice(few, None)), dtype, most).items():
        record(f"{dtype} {name} random", found)
        assert found <= ALLOWED[dtype], name


@dtypes
@pytest.mark.parametrize("shape", [(1, 1), (12, 1), (1, 7), ()])
def test_temperature_shared_by_rows(dtype: str, shape: tuple[int, ...], record: Callable[[str, float], None]) -> None:
    """The gradient of a temperature is summed over the rows that share it, and rounded once."""
    made = inputs.random(dtype, 84, 4, 6)
    logits, g, where = (part.reshape(12, 7, 4) for part in (made.logits, made.g, made.where))
    temp = made.temp[: math.prod(shape)].reshape((*shape, *([1] * (len(shape) // 2))))
    actual = straight_through.backward_temp(g, logits, temp, where=where, backend="reference")
    assert np.shape(actual) == temp.shape
    groups: dict[tuple[int, ...], list[exact.Row]] = {}
    temps = np.broadcast_to(temp, (12, 7, 1)).reshape(84, 1)
    for i, row in enumerate(exact.rows(made.logits, temps, made.where, made.g, made.g)):
        position = tuple(min(a, n - 1) for a, n in zip(divmod(i, 7), shape, strict=False))
        groups.setdefault(position, []).append(row)
    for position, group in groups.items():
        value = exact.exact_backward_temp(group, dtype)
        found = exact.error(float(np.reshape(actual, shape)[position]), value, dtype)
        record(f"{dtype} backward_temp shared", found)
        assert found <= ALLOWED[dtype]


FAMILIES = list(inputs.adversarial("float32", 2, 2, 0))


@dtypes
@pytest.mark.parametrize("family", FAMILIES)
def test_adversarial(dtype: str, family: str, record: Callable[[str, float], None]) -> None:
    """27 families of 120 elements each."""
    for choices, rows in ((3, 16), (8, 9)):
        batch = inputs.adversarial(dtype, rows, choices, choices)[family]
        for name, found in judged(batch, dtype, exact.NAMES).items():
            record(f"{dtype} {name} adversarial", found)
            assert found <= ALLOWED[dtype], name
