"""Honest sums in any order are within the bounds, at any temperature; and what loses digits is not."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import pytest
from honest import hard, implementation, remembered_cases, soft_gradient, softmax, total

from npselect import straight_through, testing
from npselect.testing import tolerance
from npselect.testing.cases import rounded
from npselect.testing.dtypes import floating_dtype

TEMPS = [*np.round(np.arange(1, 81) * 0.05, 2), *np.round(np.geomspace(0.021, 19.9, 41), 4)]  # 121 of them
LONG = ["edge/ties in long rows", "random/K=1000", "random/K=1025", "random/few large"]


def by_order(order):
    def summed(values):
        index = order(np.abs(values))
        return np.cumsum(np.take_along_axis(values, index, axis=-1), axis=-1)[:, -1:]

    return summed


def in_blocks(values, size=64):
    parts = [np.cumsum(values[:, at : at + size], axis=-1)[:, -1:] for at in range(0, values.shape[-1], size)]
    return np.cumsum(np.concatenate(parts, axis=-1), axis=-1)[:, -1:]


def in_lanes(values, count=8):
    return np.cumsum(
        np.concatenate([np.cumsum(values[:, lane::count], axis=-1)[:, -1:] for lane in range(count)], axis=-1), axis=-1
    )[:, -1:]


SUMS = {
    "left to right": lambda values: np.cumsum(values, axis=-1)[:, -1:],
    "right to left": lambda values: np.cumsum(values[:, ::-1], axis=-1)[:, -1:],
    "largest first": by_order(lambda sizes: np.argsort(-sizes, axis=-1, kind="stable")),
    "smallest first": by_order(lambda sizes: np.argsort(sizes, axis=-1, kind="stable")),
    "blocks": in_blocks,
    "lanes": in_lanes,
    "pairwise": total,
}


def gradient(g, logits, temp, summed, difference_first=False):
    temp = logits.dtype.type(temp)
    if difference_first:
        e = np.exp((logits - np.max(logits, axis=-1, keepdims=True)) / temp)
    else:
        e = np.exp(logits / temp - np.max(logits / temp, axis=-1, keepdims=True))
    p = e / summed(e)
    return p * (g - summed(p * g)) / temp


def in_one_pass(g, logits, temp):
    """Maximum, sum and mean together; what there is so far is rescaled where a larger entry comes."""
    t = logits / logits.dtype.type(temp)
    top, s, d = t[:, 0].copy(), np.ones_like(t[:, 0]), g[:, 0].copy()
    for now, cotangent in zip(t.T[1:], g.T[1:], strict=True):
        larger = np.maximum(top, now)
        old, new = np.exp(top - larger), np.exp(now - larger)
        s, d, top = s * old + new, d * old + new * cotangent, larger
    p = np.exp(t - top[:, None]) / s[:, None]
    return p * (g - (d / s)[:, None]) / logits.dtype.type(temp)


def to_base_2(g, logits, temp):
    x = logits * (logits.dtype.type(np.log2(np.e)) / logits.dtype.type(temp))
    e = np.exp2(x - np.max(x, axis=-1, keepdims=True))
    p = e / SUMS["left to right"](e)
    return p * (g - SUMS["left to right"](p * g)) / logits.dtype.type(temp)


def fractions(case, actual):
    error = np.abs(actual.astype(np.float64) - case.grad_logits.astype(np.float64))
    return float(np.max(np.where(error == 0, 0, error / case.bound)))


def long_cases(dtype, temp, names=tuple(LONG)):
    form = floating_dtype(dtype)
    asked = [case for case in remembered_cases(form, 0.6, straight_through) if case.name in names]
    return [dataclasses.replace(case, temp=rounded(float(temp), form)) for case in asked]


@pytest.mark.parametrize("temps", [TEMPS[2:8], pytest.param(TEMPS, marks=pytest.mark.slow)], ids=["some", "all"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equal_terms_in_any_order_at_any_temperature(dtype, temps, record):
    """1,023 equal terms are rounded to the same side each time: errors are of the size of n, not of sqrt(n)."""
    worst = 0.0
    for temp in temps:
        (case,) = long_cases(dtype, temp, ("edge/ties in long rows",))
        arguments = case.grad_mask, case.logits, case.temp
        for summed in SUMS.values():
            worst = max(worst, *(fractions(case, gradient(*arguments, summed, first)) for first in (False, True)))
        worst = max(worst, fractions(case, in_one_pass(*arguments)), fractions(case, to_base_2(*arguments)))
    record(f"error/bound, {dtype}, equal terms in any order", worst)
    assert 0.5 < worst < 0.9


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_long_rows_in_any_order(dtype, record):
    """16 bits are computed in 32 and rounded once."""
    wide = np.float64 if dtype == "float64" else np.float32
    worst = 0.0
    for temp in (0.05, 0.6, 3.0):
        for case in long_cases(dtype, temp):
            g, logits = case.grad_mask.astype(wide), case.logits.astype(wide)
            ways = [functools.partial(gradient, summed=summed) for summed in SUMS.values()]
            ways += [to_base_2] + [in_one_pass] * (logits.shape[-1] < 2000)
            worst = max(worst, *(fractions(case, way(g, logits, case.temp).astype(case.logits.dtype)) for way in ways))
    record(f"error/bound, {dtype}, long rows in any order", worst)
    assert worst < 0.9


def test_a_plain_loop_passes_the_whole_check():
    for temp in (0.2, 0.35):
        subject = implementation(hard, functools.partial(gradient, summed=SUMS["left to right"]))
        report = testing.check(subject, temp=temp, cases=long_cases("float32", temp))
        assert report.ok, str(report)


def tree(rng, terms):
    """The terms added up two partial sums at a time, at random, in their own type."""
    terms = list(terms)
    while len(terms) > 1:
        i, j = sorted(rng.choice(len(terms), 2, replace=False))
        terms[i] = terms[i] + terms.pop(j)
    return terms[0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_bound_of_a_sum_holds_of_any_tree(dtype):
    rng = np.random.default_rng(5)
    form, worst = tolerance.Format.of(dtype), 0.0
    for spread in (0.0, 1.0, 10.0, 40.0):
        for count in (2, 3, 10, 300):
            x = np.exp(-spread * rng.random(count)).astype(dtype) / 3
            sums = [tree(rng, rng.permutation(x)) for _ in range(10)]
            sums += [np.cumsum(y)[-1] for y in (x, np.sort(x), np.sort(x)[::-1])]
            bound = float(tolerance.TEXTBOOK.summed(x.astype(np.float64), form)[0])
            exact = math.fsum(float(v) for v in x)
            errors = [abs(math.fsum([float(s), *(-float(v) for v in x)])) for s in sums]
            assert max(errors) <= bound <= 1.01 * count * form.unit * exact
            worst = max(worst, max(errors) / bound)
    assert worst > 0.5  # it is reached, within a factor of 2
    few = np.array([1.0, *[2.0**-40] * 10**4])
    assert tolerance.TEXTBOOK.summed(few, tolerance.Format.of("float32"))[0] < 2.0**-26


def test_chance_helps_no_sum_of_equals():
    x = np.full(1023, np.float32(np.exp(-3.0)))
    error = abs(float(np.cumsum(x)[-1]) - 1023 * float(x[0])) / (1023 * float(x[0]))
    worst = max(
        abs(float(np.cumsum(np.full(1023, v))[-1]) / (1023 * float(v)) - 1)
        for v in np.linspace(1, 2, 200, dtype=np.float32)
    )
    assert error < 1023 * 2.0**-24
    assert worst > 6 * 1023**0.5 * 2.0**-24  # what a statistical bound allows


def test_lost_digits_of_long_rows_are_found():
    """What is lost in long rows alone shows where few terms count."""

    def half_summed(g, logits, temp):
        if logits.shape[-1] <= 4096:
            return soft_gradient(g, logits, temp)
        p = softmax(logits, temp)
        return p * (g - total(p * g).astype(np.float16)) / logits.dtype.type(temp)

    report = testing.check(implementation(hard, half_summed), cases=long_cases("float32", 0.6))
    assert [case.name for case in report.cases if case.verdict == "failed"] == ["random/few large"]


def test_running_maxima_are_counted():
    """A term sees no more new maxima than there are larger values, nor than the row has."""
    rho = functools.partial(tolerance.TEXTBOOK.rescaled, form=tolerance.Format.of("float64"))
    rising, falling, equal = np.arange(64.0)[None], -np.arange(64.0)[None], np.ones((1, 64))
    unit = 9 * 2.0**-53
    np.testing.assert_array_equal(rho(rising) / unit, 63 - rising)
    np.testing.assert_array_equal(rho(falling) / unit, -falling)
    assert not rho(equal).any()
    random = np.random.default_rng(0).normal(size=(1, 4096))
    assert np.max(rho(random)) <= 30 * unit
    assert not tolerance.KERNELS.rescaled(random, tolerance.Format.of("float64")).any()
