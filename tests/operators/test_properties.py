"""What holds for every input, on both tiers: found out by hypothesis, with tolerances from the bounds alone."""

from __future__ import annotations

import math
from typing import Any

import exact
import inputs
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inputs import DTYPES
from mpmath import mp, mpf

from npselect import straight_through
from npselect.testing import tolerance

dtypes = pytest.mark.parametrize("dtype", list(DTYPES))
backends = pytest.mark.parametrize("backend", ["cpu", "reference"])


def both(test: Any) -> Any:
    """For every dtype, on both tiers."""
    return dtypes(backends(test))


def numbers(low: float, high: float, *, grid: int | None = None) -> Any:
    """Floats or, with `grid`, multiples of ``2**-grid``, which sums and differences keep exact."""
    if grid is None:
        return st.floats(low, high, allow_subnormal=False).map(lambda x: 0.0 if abs(x) < 1e-3 else x)
    return st.integers(math.ceil(low * 2**grid), math.floor(high * 2**grid)).map(lambda i: i / 2**grid)


@st.composite
def problems(draw: Any, *, grid: int | None = None, most: int = 40, spread: float = 20) -> Any:
    """One row: logits, grad_mask, another cotangent, temp, and where or None with a candidate at least."""
    choices = draw(st.integers(1, most))
    row = st.lists(numbers(-spread, spread, grid=grid), min_size=choices, max_size=choices)
    cotangent = st.lists(numbers(-8, 8, grid=grid), min_size=choices, max_size=choices)
    w, g, v = draw(row), draw(cotangent), draw(cotangent)
    where = draw(st.none() | st.lists(st.booleans(), min_size=choices, max_size=choices).filter(any))
    temp = draw(st.sampled_from([0.25, 0.6, 1.0, 3.0]))
    return w, g, v, temp, where


def arrays(dtype: str, problem: Any) -> Any:
    """A problem in a dtype: logits, g, v, temp as it is used, where."""
    w, g, v, temp, where = problem
    w, g, v = (np.array(x).astype(DTYPES[dtype]) for x in (w, g, v))
    return w, g, v, float(inputs.compute_type(dtype)(temp)), None if where is None else np.array(where)


def rows(w: Any, *cotangents: Any, where: Any) -> list[Any]:
    """As the tolerance module wants them: cotangents, then logits with -inf at excluded entries; one row each."""
    w = w.astype(np.float64)
    if where is not None:
        w = np.where(where, w, -np.inf)
    return [x.astype(np.float64)[None] for x in (*cotangents, w)]


def allowed(name: str, dtype: str, w: Any, *cotangents: Any, temp: float, where: Any) -> Any:
    """Half the bound of a function of the kernels, and half a last place for the reference's rounding."""
    bound = getattr(tolerance, name)(*rows(w, *cotangents, where=where), temp, dtype, tolerance.KERNELS)
    return [0.5 * part[0] for part in bound] if isinstance(bound, tuple) else 0.5 * bound[0]


def f64(x: Any) -> Any:
    return np.asarray(x).astype(np.float64)


# ------------------------------------------------------------------------------------------------ symmetries


@both
@settings(max_examples=25)
@given(problem=problems(grid=2), shift=st.integers(-50, 50))
def test_shift_invariance(dtype: str, backend: str, problem: Any, shift: int) -> None:
    """Logits shifted by what leaves their differences exact: the same bits. So for the cotangent, on the same grid."""
    w, g, v, temp, where = arrays(dtype, problem)
    if dtype == "bfloat16":  # eight bits: a coarser grid
        w, g, v = (np.round(f64(x)).astype(w.dtype) for x in (w, g, v))
    moved, moved_g = (f64(w) + shift).astype(w.dtype), (f64(g) + shift).astype(w.dtype)
    assert np.array_equal(f64(moved) - shift, f64(w))
    assert np.array_equal(f64(moved_g) - shift, f64(g))
    options: dict[str, Any] = {"where": where, "backend": backend}

    def results(w: Any, g: Any) -> list[Any]:
        return [
            straight_through.forward(w, temp, **options),
            straight_through.soft(w, temp, **options),
            straight_through.backward(g, w, temp, **options),
            straight_through.backward_temp(g, w, temp, **options),
            *straight_through.double_backward(v, g, w, temp, **options),
        ]

    before = results(w, g)
    for after in (results(moved, g), results(w, moved_g)):
        for x, y in zip(before, after, strict=True):
            assert np.array_equal(f64(x), f64(y))


@both
@settings(max_examples=25)
@given(problem=problems())
def test_gradient_sums_to_zero(dtype: str, backend: str, problem: Any) -> None:
    """Over the candidates, to the sum of the bounds; the probabilities to one."""
    w, g, _, temp, where = arrays(dtype, problem)
    gradient = f64(straight_through.backward(g, w, temp, where=where, backend=backend))
    probs = f64(straight_through.soft(w, temp, where=where, backend=backend))
    assert abs(math.fsum(gradient)) <= np.sum(allowed("backward", dtype, w, g, temp=temp, where=where))
    assert abs(math.fsum(probs) - 1) <= np.sum(allowed("soft", dtype, w, temp=temp, where=where))
    if where is not None:
        assert not np.any(gradient[~where])
        assert not np.any(probs[~where])


@both
@settings(max_examples=25)
@given(problem=problems(), data=st.data())
def test_permutation_equivariance(dtype: str, backend: str, problem: Any, data: Any) -> None:
    """The order of the sums changes, hence the bits: both are within half the bound of the same exact result."""
    w, g, v, temp, where = arrays(dtype, problem)
    order = np.array(data.draw(st.permutations(range(len(w)))))
    offered = None if where is None else where[order]
    x = straight_through.backward(g, w, temp, where=where, backend=backend)
    y = straight_through.backward(g[order], w[order], temp, where=offered, backend=backend)
    limit = 2 * allowed("backward", dtype, w, g, temp=temp, where=where)
    assert np.all(np.abs(f64(x)[order] - f64(y)) <= limit[order])
    x = straight_through.double_backward(v, g, w, temp, where=where, backend=backend)[1]
    y = straight_through.double_backward(v[order], g[order], w[order], temp, where=offered, backend=backend)[1]
    limit = 2 * allowed("double_backward", dtype, w, v, g, temp=temp, where=where)[1]
    assert np.all(np.abs(f64(x)[order] - f64(y)) <= limit[order])
    candidates = f64(w) if where is None else np.where(where, f64(w), -np.inf)
    if np.count_nonzero(candidates == candidates.max()) == 1:  # of equals the first is taken, in any order
        x = straight_through.forward(w, where=where, backend=backend)
        assert np.array_equal(f64(x)[order], f64(straight_through.forward(w[order], where=offered, backend=backend)))


@both
@settings(max_examples=15)
@given(problem=problems(most=9, spread=4))
def test_jacobian(dtype: str, backend: str, problem: Any) -> None:
    """Column by column: symmetric and positive semidefinite to the bounds, and its rows sum to zero."""
    w, _, v, temp, where = arrays(dtype, problem)
    eye = np.eye(len(w)).astype(w.dtype)
    columns, limits = [], []
    for unit in eye:
        columns.append(f64(straight_through.backward(unit, w, temp, where=where, backend=backend)))
        limits.append(allowed("backward", dtype, w, unit, temp=temp, where=where))
    jacobian, limit = np.array(columns), np.array(limits)
    assert np.all(np.abs(jacobian - jacobian.T) <= limit + limit.T)
    assert np.all(np.abs(jacobian.sum(axis=0)) <= limit.sum(axis=0) + 1e-14 * np.abs(jacobian).sum(axis=0))
    # x J x >= 0 for the exact J; the computed one is off by the limits, NumPy's float64 by far less than 1e-14
    x = f64(v)
    slack = np.abs(x) @ (limit + 1e-14 * np.abs(jacobian)) @ np.abs(x)
    assert x @ jacobian @ x >= -slack
    # Weyl: eigenvalues move by no more than the norm of what is added
    assert np.linalg.eigvalsh((jacobian + jacobian.T) / 2).min() >= -np.linalg.norm(limit + 1e-14 * np.abs(jacobian))


@both
@settings(max_examples=25)
@given(problem=problems())
def test_jvp_is_backward(dtype: str, backend: str, problem: Any) -> None:
    w, g, _, temp, where = arrays(dtype, problem)
    x = straight_through.jvp(g, w, temp, where=where, backend=backend)
    y = straight_through.backward(g, w, temp, where=where, backend=backend)
    assert x.dtype == y.dtype
    assert x.tobytes() == y.tobytes()


@both
@settings(max_examples=25)
@given(problem=problems(), data=st.data())
def test_adjoint(dtype: str, backend: str, problem: Any, data: Any) -> None:
    """<v, J g> = <J v, g>: what backward returns for one cotangent, seen from the other."""
    w, g, v, temp, where = arrays(dtype, problem)
    x = f64(straight_through.backward(g, w, temp, where=where, backend=backend))
    y = f64(straight_through.jvp(v, w, temp, where=where, backend=backend))
    slack = np.abs(f64(v)) @ allowed("backward", dtype, w, g, temp=temp, where=where)
    slack += np.abs(f64(g)) @ allowed("backward", dtype, w, v, temp=temp, where=where)
    assert abs(math.fsum(x * f64(v)) - math.fsum(y * f64(g))) <= slack + 1e-15 * (np.abs(x) @ np.abs(f64(v))) * 2


# ------------------------------------------------------------------------------------------------ powers of two


@both
@settings(max_examples=25)
@given(problem=problems(grid=3, spread=8), power=st.integers(-4, 4))
def test_temperature_of_a_power_of_two(dtype: str, backend: str, problem: Any, power: int) -> None:
    """With ``temp = 2**k``: ``soft(w, temp) == soft(w / temp, 1)``, and for the gradients, times temp.

    Bit for bit, where neither side underflows: scaling by a power of two is exact there, before the exponential and
    after the sums.
    """
    w, g, _, _, where = arrays(dtype, problem)
    temp = 2.0**power
    scaled = (f64(w) / temp).astype(w.dtype)
    assert np.array_equal(f64(scaled) * temp, f64(w))
    options: dict[str, Any] = {"where": where, "backend": backend}
    x, y = straight_through.soft(w, temp, **options), straight_through.soft(scaled, 1.0, **options)
    assert x.tobytes() == y.tobytes()
    assert np.array_equal(straight_through.index(w, **options), straight_through.index(scaled, **options))
    x, y = straight_through.backward(g, w, temp, **options), straight_through.backward(g, scaled, 1.0, **options)
    smallest = inputs.limits(dtype)[1] * 2.0 ** (abs(power) + inputs.limits(dtype)[3])
    normal = (np.abs(f64(x)) >= smallest) | (f64(x) == 0)
    assert np.array_equal(f64(x)[normal] * temp, f64(y)[normal])
    assert np.all(np.abs(f64(y)[~normal]) <= smallest * 2.0 ** (abs(power) + 1))


# ------------------------------------------------------------------------------------------------ against mpmath


@dtypes
@settings(max_examples=10)
@given(problem=problems(most=5, spread=4))
def test_double_backward_by_differences(dtype: str, problem: Any) -> None:
    """Differences of the exact backward at 500 bits, in steps of 2**-120: wrong by 2**-240 times a third derivative.

    That is below 2**(5 * 2 + 8), for temperatures from 1/4 and cotangents up to 8.
    """
    w, g, v, temp, where = arrays(dtype, problem)
    here = np.flatnonzero(np.ones(len(w), bool) if where is None else where).tolist()
    step = mpmath.ldexp(1, -120)

    def loss(w: list[mpf], g: list[mpf]) -> mpf:
        return mpmath.fdot(exact.formulas(w, mpf(temp), g, [mpf(0)] * len(w), ["backward"])[0]["backward"], exact_v)

    def slope(i: int, which: int) -> mpf:
        ends = []
        for sign in (1, -1):
            moved = [list(exact_w), list(exact_g)]
            moved[which][i] += sign * step
            ends.append(loss(*moved))
        return (ends[0] - ends[1]) / (2 * step)

    with mp.workprec(500):
        exact_w, exact_g, exact_v = ([mpf(float(x[i])) for i in here] for x in (w, g, v))
        wanted = [[slope(i, 1) for i in range(len(here))], [slope(i, 0) for i in range(len(here))]]
        for backend in ("cpu", "reference"):
            results = straight_through.double_backward(v, g, w, temp, where=where, backend=backend)
            limits = allowed("double_backward", dtype, w, v, g, temp=temp, where=where)
            for result, values, limit in zip(results, wanted, limits, strict=True):
                for i, value in zip(here, values, strict=True):
                    if backend == "cpu":
                        assert abs(mpf(float(result[i])) - value) <= float(limit[i]) + mpmath.ldexp(1, -200)
                    else:
                        place = mpmath.ldexp(1, exact.FORMATS[dtype].place(value))
                        assert abs(mpf(float(result[i])) - value) <= 0.6 * place + mpmath.ldexp(1, -200)


@dtypes
@settings(max_examples=15)
@given(problem=problems(most=6))
def test_cpu_within_half_the_bound_of_the_exact(dtype: str, problem: Any) -> None:
    """The bounds without the reference in between."""
    w, g, v, temp, where = arrays(dtype, problem)
    values = exact.exact(exact.rows(w[None], np.array([[temp]]), where, g[None], v[None])[0], dtype)
    options: dict[str, Any] = {"where": where, "backend": "cpu"}
    double = straight_through.double_backward(v, g, w, temp, **options)
    double_limits = allowed("double_backward", dtype, w, v, g, temp=temp, where=where)
    for name, actual, limit in [
        ("soft", straight_through.soft(w, temp, **options), allowed("soft", dtype, w, temp=temp, where=where)),
        (
            "backward",
            straight_through.backward(g, w, temp, **options),
            allowed("backward", dtype, w, g, temp=temp, where=where),
        ),
        (
            "backward_temp",
            np.asarray(straight_through.backward_temp(g, w, temp, **options))[None],
            [allowed("backward_temp", dtype, w, g, temp=temp, where=where)],
        ),
        ("double_mask", double[0], double_limits[0]),
        ("double_logits", double[1], double_limits[1]),
    ]:
        for i, value in enumerate(values[name]):
            assert abs(mpf(float(actual[i])) - value) <= float(limit[i]), name


# ------------------------------------------------------------------------------------------------ planted faults

FAULTS = {
    "forgotten temperature": (test_cpu_within_half_the_bound_of_the_exact, "backward", lambda x, *_: x * 0.6),
    "no zero sum": (test_gradient_sums_to_zero, "backward", lambda x, *_: x + x.dtype.type(0.25)),
    "position": (test_permutation_equivariance, "backward", lambda x, *_: x * np.arange(1, len(x) + 1).astype(x.dtype)),
    "negative": (test_jacobian, "backward", lambda x, *_: -x),
    "jvp": (test_jvp_is_backward, "jvp", lambda x, *_: x * x.dtype.type(2)),
    "power": (test_temperature_of_a_power_of_two, "soft", lambda x, *_: x * x.dtype.type(0.875)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each property fails for an operator that does not have it, at one row of three candidates."""
    test, name, spoil = FAULTS[fault]
    honest = getattr(straight_through, name)
    problem = ([1.0, 0.0, 0.5], [1.0, 2.0, -3.0], [0.5, 1.0, 2.0], 0.6, None)
    arguments: dict[str, Any] = {"dtype": "float32", "problem": problem}
    if "backend" in test.hypothesis.inner_test.__code__.co_varnames:  # type: ignore[attr-defined]
        arguments["backend"] = "cpu"

    class Reversal:
        def draw(self, _: Any) -> list[int]:
            return [2, 0, 1]

    if name == "soft":
        # a fault that depends on the temperature
        spoiled = lambda *a, **k: spoil(honest(*a, **k)) if a[1] != 1.0 else honest(*a, **k)  # noqa: E731
        arguments["power"] = 2
    else:
        spoiled = lambda *a, **k: spoil(honest(*a, **k))  # noqa: E731
    if fault == "position":
        arguments["data"] = Reversal()
    run = test.hypothesis.inner_test  # type: ignore[attr-defined]
    run(**arguments)
    monkeypatch.setattr(straight_through, name, spoiled)
    with pytest.raises(AssertionError):
        run(**arguments)
