"""The bounds: proven ones hold of honest implementations, over millions of values, and wrong ones do not hide below."""

from __future__ import annotations

import functools
import runpy
from pathlib import Path

import inputs
import ml_dtypes
import mpmath
import numpy as np
import pytest
from honest import DTYPES, HONEST, hard, implementation, softmax, total, with_options

from npselect import gumbel_softmax, straight_through, testing
from npselect.testing import tolerance
from npselect.testing.cases import rounded

NARROW = ["float16", "bfloat16"]
MILLION = 10**6
RANDOM = {2: 60_000, 3: 50_000, 10: 40_000, 100: 2500, 1000: 250}  # choices: rows


def of_many(dtypes, of_all=()):
    """A tenth of the values in each dtype; in the long sweeps all, in those that tell."""
    tenths = [pytest.param(dtype, 10, id=f"{dtype}-a tenth") for dtype in dtypes]
    every = [pytest.param(dtype, 1, id=f"{dtype}-all", marks=pytest.mark.slow) for dtype in of_all]
    return pytest.mark.parametrize(("dtype", "part"), tenths + every)


# ------------------------------------------------------------------------------------------------ millions of values


@functools.cache
def random_cases(dtype, part):
    return [
        _case(f"random K={k}", inputs.random(dtype, rows // part, k, seed=k)._replace(where=None), 0.6)
        for k, rows in RANDOM.items()
    ]


@functools.cache
def adversarial_cases(dtype, part):
    families = [inputs.adversarial(dtype, rows // part, k, seed=k) for k, rows in ((5, 4000), (64, 300))]
    cases = [
        _case(f"{name} K={batch.logits.shape[-1]}", batch) for family in families for name, batch in family.items()
    ]
    return [case for case in cases if 0 < case.temp < np.inf]


def _case(name, batch, temp=None):
    """At one temperature: if it is not given, a row's."""
    temp = rounded(float(batch.temp[0, 0]) if temp is None else temp, batch.logits.dtype)
    return testing.Case(f"many/{name}", "one of many", batch.logits, batch.g, temp, where=batch.where)


@functools.cache
def noisy_cases(dtype, part):
    """On a grid, where the sum of logits and noise is exact."""
    step = {"float16": 2.0**-5, "bfloat16": 2.0**-3}.get(dtype, 2.0**-12)
    rng, cases = np.random.default_rng(3), []
    for shape in ((rows // part, choices) for choices, rows in RANDOM.items()):
        logits, noise = (step * np.round(x / step) for x in (2 * rng.normal(size=shape), rng.gumbel(size=shape)))
        arrays = [x.astype(inputs.DTYPES[dtype]) for x in (logits, rng.normal(size=shape), np.minimum(noise, 8))]
        temp = rounded(0.6, arrays[0].dtype)
        cases.append(testing.Case(f"many/K={shape[1]}", "one of many", *arrays[:2], temp, noise=arrays[2]))
    return cases


def accepted(subject, cases, record, what, **options):
    """The number of values that were judged, all of them within the bound."""
    report = testing.check(subject, dtypes=cases[0].logits.dtype, cases=cases, **options)
    assert report.ok, str(report)
    passed = [(case, outcome) for case, outcome in zip(cases, report.cases, strict=True) if outcome.verdict == "passed"]
    worst = max(outcome.fraction for _, outcome in passed if outcome.fraction >= 0)
    record(f"error/bound, {report.profile}, {report.dtypes[0]}, {what}", worst)
    assert worst < 1
    return sum(outcome.judged_rows * case.logits.shape[case.axis] for case, outcome in passed)


@of_many(DTYPES, ["bfloat16", "float32"])
@pytest.mark.parametrize("name", HONEST)
def test_many_honest_values_are_within_the_bound(name, dtype, part, record):
    subject = with_options(*HONEST[name])
    count = accepted(subject, random_cases(dtype, part), record, "random")
    assert count > MILLION // part
    assert accepted(subject, adversarial_cases(dtype, part), record, "adversarial") > MILLION // 4 // part


@of_many(["float16", "float32", "float64"])
def test_many_values_of_the_example(dtype, part, record):
    example = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "numpy_select.py"))
    subject = implementation(example["forward"], example["backward"])
    assert accepted(subject, random_cases(dtype, part), record, "random") > MILLION // part


@of_many(DTYPES, ["bfloat16"])
@pytest.mark.frameworks
def test_many_values_of_gumbel_softmax_of_pytorch(dtype, part, record):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")

    def formula(logits, temp, *, noise):
        """`torch.nn.functional.gumbel_softmax` of version 2.13, hard=True, dim=-1, but for where the noise is from."""
        gumbels = (logits + noise) / temp
        y_soft = gumbels.softmax(-1)
        index = y_soft.max(-1, keepdim=True)[1]
        y_hard = torch.zeros_like(logits, memory_format=torch.legacy_contiguous_format).scatter_(-1, index, 1.0)
        return y_hard - y_soft.detach() + y_soft

    subject = testing.from_torch(formula)
    count = accepted(subject, noisy_cases(dtype, part), record, "gumbel_softmax of PyTorch", operator=gumbel_softmax)
    assert count > MILLION // part
    assert testing.check(subject, dtypes=dtype, operator=gumbel_softmax).ok


@of_many(DTYPES, DTYPES)
def test_many_values_of_our_own_are_within_the_tight_bound(dtype, part, record):
    def columns(case):
        names = ("logits", "grad_mask", "where", "noise")
        arrays = {name: None if getattr(case, name) is None else getattr(case, name).T for name in names}
        return testing.Case(f"{case.name}, axis=0", case.note, temp=case.temp, axis=0, **arrays)

    adversarial = [case for case in adversarial_cases(dtype, part) if "overflow" not in case.name]  # of the CPU, too
    cases = [*random_cases(dtype, part), *adversarial, *map(columns, adversarial[::3])]
    assert accepted(straight_through, cases, record, "npselect", profile="strict") > MILLION // part
    noisy = [*noisy_cases(dtype, part), columns(noisy_cases(dtype, part)[2])]
    assert (
        accepted(gumbel_softmax, noisy, record, "npselect, with noise", profile="strict", operator=gumbel_softmax)
        > MILLION // part
    )


MUTANTS = {
    "1/temp missing": lambda g, p, mask, temp: p * (g - total(p * g)),
    "no mean": lambda g, p, mask, temp: p * g / temp,
    "mask in the mean": lambda g, p, mask, temp: p * (g - total(mask * g)) / temp,
    "mask in front": lambda g, p, mask, temp: mask * (g - total(p * g)) / temp,
    "selected only": lambda g, p, mask, temp: mask * (p * (g - total(p * g)) / temp),
    "sum over the batch": lambda g, p, mask, temp: p * (g - np.sum(p * g)) / temp,
    "zero": lambda g, p, mask, temp: 0 * g,
    "another sign": lambda g, p, mask, temp: p * (total(p * g) - g) / temp,
    "temp twice": lambda g, p, mask, temp: p * (g - total(p * g)) / temp / temp,
}


@of_many(DTYPES)
@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_do_not_hide_below_the_bound(name, dtype, part):
    """Three in four of their values are beyond it; in 16 bits, where bounds are wide, one in eight."""
    beyond, count, worst = 0, 0, 0.0
    for case in random_cases(dtype, part):
        g, w, temp = case.grad_mask, case.logits, case.logits.dtype.type(case.temp)
        actual = MUTANTS[name](g, softmax(w, case.temp), hard(w, case.temp), temp).astype(np.float64)
        fractions = np.abs(actual - case.grad_logits.astype(np.float64)) / case.bound
        beyond, count, worst = beyond + np.sum(fractions > 1), count + fractions.size, max(worst, np.max(fractions))
    assert count > MILLION // part
    assert beyond / count > (1 / 8 if dtype in NARROW else 3 / 4)
    assert worst > {"float16": 10, "bfloat16": 3, "float32": 1e4, "float64": 1e12}[dtype]


# ------------------------------------------------------------------------------------------------ against exact results


def exact_backward(g, logits, temp):
    """p (g - <p, g>) / temp by mpmath, with twice the digits until nothing changes in float64."""

    def row(w, cotangent):
        w, cotangent = [mpmath.mpf(float(x)) for x in w], [mpmath.mpf(float(x)) for x in cotangent]
        e = [mpmath.exp((x - max(w)) / mpmath.mpf(temp)) for x in w]
        mean = sum(a * b for a, b in zip(e, cotangent, strict=True)) / sum(e)
        return [a / sum(e) * (b - mean) / mpmath.mpf(temp) for a, b in zip(e, cotangent, strict=True)]

    digits, last = 60, None
    while True:
        with mpmath.workdps(digits):
            now = np.array([[float(x) for x in row(*pair)] for pair in zip(logits, g, strict=True)])
        if last is not None and np.array_equal(now, last):
            return now
        digits, last = 2 * digits, now


def small(dtype, seed=1):
    rng = np.random.default_rng(seed)
    w = np.concatenate([spread * rng.standard_normal((12, 6)) for spread in (0.1, 1, 5, 30)])
    g = rng.standard_normal(w.shape)
    g[::3] = 1 + g[::3] / 64
    return g.astype(dtype), w.astype(dtype)


@pytest.mark.parametrize("dtype", [*NARROW, "float32"])
@pytest.mark.parametrize("name", HONEST)
def test_honest_errors_are_within_the_bound_and_wrong_ones_beyond(name, dtype):
    g, w = small(dtype)
    temp = float(np.asarray(0.6, dtype))
    exact = exact_backward(g, w, temp)
    bound = tolerance.backward(g, w, temp, dtype)
    actual = HONEST[name][1](g, w, temp).astype(np.float64)
    assert np.max(np.abs(actual - exact) / bound) < 1
    for mutant in (actual * temp, actual / temp, 0 * actual, -actual, g.astype(np.float64)):
        assert np.max(np.abs(mutant - exact) / bound) > 1


@pytest.mark.parametrize("dtype", [*NARROW, "float32"])
def test_kernel_errors_are_within_the_tight_bound(dtype):
    g, w = small(dtype, seed=2)
    temp = float(np.asarray(0.6, dtype))
    exact = exact_backward(g, w, temp)
    bound = tolerance.backward(g, w, temp, dtype, tolerance.KERNELS)
    assert np.all(bound <= tolerance.backward(g, w, temp, dtype))
    for backend in ("reference", "cpu"):
        actual = straight_through.backward(g, w, temp, backend=backend).astype(np.float64)
        assert np.max(np.abs(actual - exact) / bound) < 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_bound_is_zero_where_nothing_is_rounded(dtype):
    w = np.array([[1, -np.inf, 2], [-np.inf, 5, -np.inf]]).astype(dtype)
    bound = tolerance.backward(np.ones_like(w), w, 1.0, dtype)
    np.testing.assert_array_equal(bound > 0, [[True, False, True], [False, False, False]])


@pytest.mark.parametrize("dtype", DTYPES)
def test_bound_is_finite_for_huge_logits_and_tiny_temperatures(dtype):
    big, small = {"float16": (3e4, 1e-4), "float64": (1e300, 1e-300)}.get(dtype, (1e30, 1e-30))
    w = np.array([[big, 0, -big, big]]).astype(dtype)
    bound = tolerance.backward(np.ones_like(w), w, small, dtype, tolerance.KERNELS)
    assert np.all(np.isfinite(bound))


def test_bounds_at_the_largest_temperatures():
    """Cotangents, logits and temp times ``2**1020``: the results are the same, and so are the bounds."""
    rng = np.random.default_rng(8)
    w, g, v = rng.normal(size=(3, 20, 5))
    many = 2.0**1020

    def bounds(scale, g, v):
        options = np.ldexp(w, scale), np.ldexp(0.7, scale), "float64"
        backward, by_temp = tolerance.backward(g, *options), tolerance.backward_temp(g, *options)
        return [backward, by_temp, *tolerance.double_backward(v, g, *options)]

    expected = bounds(0, g, v)
    single = [x / y for x, y in zip(bounds(1020, many * g, v), expected, strict=True)]
    double = tolerance.double_backward(many * v, many * g, many * w, many * 0.7, "float64")[1] / expected[3]
    for ratio in (*single[:2], double):
        np.testing.assert_allclose(ratio, 1.0, rtol=1e-9)


@pytest.mark.parametrize(
    ("dtype", "value", "unit"),
    [
        ("float32", 1.0, 2.0**-23),
        ("float32", 1.9, 2.0**-23),
        ("float32", 0.0, 2.0**-149),
        ("float64", 2.0, 2.0**-51),
        ("float16", 1.0, 2.0**-10),
        ("float16", 1e-7, 2.0**-24),
        ("bfloat16", -1.0, 2.0**-7),
    ],
)
def test_ulp(dtype, value, unit):
    assert tolerance.ulp(np.array(value), dtype) == unit


@pytest.mark.parametrize("dtype", DTYPES)
def test_format_knows_the_largest_number(dtype):
    assert tolerance.Format.of(dtype).largest == float(ml_dtypes.finfo(dtype).max)
    assert tolerance.Format.of(dtype).tiny == float(ml_dtypes.finfo(dtype).smallest_normal)


def test_isclose():
    nan, inf = np.nan, np.inf
    actual = np.array([1.0, 1.5, nan, nan, inf, inf, -inf, 1.0, 1.25])
    exact = np.array([1.0, 1.0, nan, 1.0, inf, -inf, -inf, nan, 1.0])
    expected = [True, False, True, False, True, False, True, False, True]
    assert tolerance.isclose(actual, exact, 0.25).tolist() == expected
    with pytest.raises(ValueError, match=r"actual has shape \(9,\) and exact has shape \(3,\)"):
        tolerance.isclose(actual, exact[:3], 0.25)


def test_what_tolerances_refuse():
    w = [[1.0, 2.0, 3.0]]
    for temp in (-0.6, 0.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=r"temp is .*; it must be positive and finite"):
            tolerance.backward(w, w, temp, "float32")
    with pytest.raises(ValueError, match="dtype is int64; it takes one of float16"):
        tolerance.backward(w, w, 0.6, int)
    with pytest.raises(ValueError, match="the cotangent has shape"):
        tolerance.backward([[1.0, 2.0]], w, 0.6, "float32")
    with pytest.raises(ValueError, match="at least one candidate"):
        tolerance.soft(np.zeros((2, 0)), 0.6, "float32")
    assert tolerance.backward(w, w, 0.6, "float32").shape == (1, 3)
