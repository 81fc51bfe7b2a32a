"""Both passes of the selection: against finite differences by mpmath, and against mask -> einsum."""

import copy
import itertools
import math
import multiprocessing
import pickle
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import mpmath
import numpy as np
import pytest
from exact import formulas
from inputs import DTYPES, compute_type
from mpmath import mp, mpf

from npselect import gumbel_softmax, noise, reinmax, selection, straight_through
from npselect.testing import tolerance

nan, inf = np.nan, np.inf
BACKENDS = ["reference", "cpu"]
OPERATORS = ["straight_through", "gumbel_softmax, seed", "gumbel_softmax, noise"]
K, D = 4, 3
SHAPES = [
    ((K, D), (K,)),
    ((K, D), (5, K)),  # a codebook
    ((5, K, D), (K,)),
    ((3, K, D), (3, K)),
    ((1, K, D), (2, 1, K)),
    ((5, 1, K, D), (3, K)),
    ((2, 3, 1, K, D), (1, 3, 2, K)),
    ((3, 1, 1, K, D), (1, 1, 3, K)),
    ((2, K, 1), (3, 1, K)),
    ((3, 1, D), (2, 1, 1)),
]


class Case(NamedTuple):
    """Arguments of both passes."""

    grad: Any
    x: Any
    logits: Any
    temp: Any
    where: Any
    reduce: bool
    operator_options: Any

    @property
    def batch(self):
        return np.broadcast_shapes(self.x.shape[:-2], self.logits.shape[:-1])

    @property
    def dtype(self):
        return np.result_type(self.x, self.logits, self.grad)

    @property
    def compute(self):
        return np.dtype(compute_type(self.dtype.name))

    @property
    def w(self):
        """The logits that the operator chooses by, noise included, in the type that it is added in."""
        own = np.dtype(compute_type(self.logits.dtype.name))
        options = self.operator_options
        added = (
            noise.gumbel(self.logits.shape, options["seed"], dtype=own) if "seed" in options else options.get("noise")
        )
        return self.logits.astype(own) + (0 if added is None else added.astype(own))

    @property
    def candidates(self):
        offered = True if self.where is None else self.where
        return np.broadcast_to(offered, self.logits.shape) & (self.logits > -inf)

    @property
    def temps(self):
        """As used, with the logits' number of axes."""
        return np.asarray(self.temp).astype(self.compute).astype(np.float64)

    @property
    def options(self):
        return {"where": self.where, "reduce": self.reduce, **self.operator_options}

    def forward(self, **options):
        return selection.forward(self.x, self.logits, self.temp, **self.options, **options)

    def backward(self, **options):
        return selection.backward(self.grad, self.x, self.logits, self.temp, **self.options, **options)


def case(x_shape, logits_shape, reduce=True, dtypes=("float64",) * 3, seed=0, operator="straight_through"):
    """A random one; every other seed excludes some candidates and gives every row of the logits its temperature."""
    rng = np.random.default_rng(seed)
    x_dtype, logits_dtype, grad_dtype = (np.dtype(DTYPES.get(name, name)) for name in dtypes)
    batch = np.broadcast_shapes(x_shape[:-2], logits_shape[:-1])
    x = rng.normal(scale=2, size=x_shape).astype(x_dtype)
    logits = rng.normal(scale=2, size=logits_shape).astype(logits_dtype)
    grad = rng.normal(scale=3, size=(*batch, *x_shape[-1 if reduce else -2 :])).astype(grad_dtype)
    temp, where = 0.6, None
    if seed % 2:
        temp = rng.uniform(0.3, 2, (*logits_shape[:-1], 1))
        where = rng.random(logits_shape) < 0.8
        if logits.dtype.kind not in "biu" and logits_shape[-1] > 1:
            logits[..., 1] = -inf
    options = {}
    if operator != "straight_through":
        options["operator"] = gumbel_softmax
        if operator.endswith("seed"):
            options["seed"] = 7
        else:
            options["noise"] = rng.gumbel(size=logits_shape[-1:] if seed % 2 else logits_shape)
    return Case(grad, x, logits, temp, where, reduce, options)


# ------------------------------------------------------------------------------------------------ two other ways


def at(shape, position):
    """Which item of an array with batch `shape` belongs to a position in the batch."""
    return tuple(i if n > 1 else 0 for i, n in zip(position[len(position) - len(shape) :], shape, strict=True))


def exactly(array):
    return np.vectorize(mpf, otypes=[object])(array.astype(np.float64))


def by_finite_differences(case):
    """The gradient of ``sum_b grad_chosen . sum_j p_j x_j`` in the logits; that of the hard choice, linear, in x."""
    x, w, grad = exactly(case.x), exactly(case.w), exactly(case.grad)
    candidates, temps = case.candidates, np.broadcast_to(case.temps, (*case.logits.shape[:-1], 1))
    batch = list(np.ndindex(case.batch))

    def worth(position):
        """What each candidate would bring: <grad_chosen, x_j>."""
        vectors, cotangent = x[at(x.shape[:-2], position)], grad[position]
        cotangents = [cotangent] * len(vectors) if case.reduce else cotangent
        return [mpmath.fsum(a * b for a, b in zip(v, c, strict=True)) for v, c in zip(vectors, cotangents, strict=True)]

    worths = {position: worth(position) for position in batch}

    def loss(row, logits):
        here = [j for j in range(len(logits)) if candidates[row][j]]
        e = [mpmath.exp(logits[j] / mpf(temps[row][0])) for j in here]
        total = mpmath.fsum(e)
        users = [position for position in batch if at(w.shape[:-1], position) == row]
        return mpmath.fsum(e_j / total * worths[p][j] for p in users for e_j, j in zip(e, here, strict=True))

    grad_logits, grad_x = (np.full(shape, mpf(0), dtype=object) for shape in (w.shape, x.shape))
    step = mpf(2) ** -100
    for row in np.ndindex(w.shape[:-1]):
        for i in np.flatnonzero(candidates[row]):
            up, down = w[row].copy(), w[row].copy()
            up[i], down[i] = up[i] + step, down[i] - step
            grad_logits[(*row, i)] = (loss(row, up) - loss(row, down)) / (2 * step)
    for position in batch:
        row = at(w.shape[:-1], position)
        if any(candidates[row]):
            m = max(np.flatnonzero(candidates[row]), key=lambda j: w[(*row, j)])  # max() takes the first of equals
            grad_x[(*at(x.shape[:-2], position), m)] += grad[position] if case.reduce else grad[(*position, m)]
    return grad_x, grad_logits


def unbroadcast(array, shape):
    """Summed to a shape that broadcasts to that of the array."""
    padded = (1,) * (array.ndim - len(shape)) + shape
    axes = tuple(i for i, (n, full) in enumerate(zip(padded, array.shape, strict=True)) if n != full)
    return array.sum(axis=axes, keepdims=True).reshape(shape)


def dots(grad, x, case):
    return unbroadcast(
        np.einsum("...d,...kd->...k" if case.reduce else "...kd,...kd->...k", grad, x), case.logits.shape
    )


def by_einsum(case, fault=None):
    """Mask, then einsum, in float64: chosen, grad_x and grad_logits, right or with a fault."""
    grad, x, logits = (a.astype(np.float64) for a in (case.grad, case.x, case.w))
    options = {"where": case.where, "backend": "reference"}
    mask = straight_through.forward(logits, case.temps, **options)
    chosen = np.einsum("...k,...kd->...d" if case.reduce else "...k,...kd->...kd", mask, x)
    grad_x = np.einsum("...k,...d->...kd" if case.reduce else "...k,...kd->...kd", mask, grad)
    grad_x = unbroadcast(np.broadcast_to(grad_x, (*case.batch, *case.x.shape[-2:])), case.x.shape)
    g = dots(grad, x, case)
    rows, x_rows, logits_rows = (math.prod(s) for s in (case.batch, x.shape[:-2], logits.shape[:-1]))
    if fault == "the selected candidate alone":
        g = g * mask
    elif fault == "a mean over what shares x":
        grad_x = grad_x * x_rows / rows
    elif fault == "a mean over what shares logits":
        g = g * logits_rows / rows
    elif fault == "no sum over what shares logits":
        first = tuple(slice(0, 1 if n == 1 else None) for n in (1,) * len(case.batch) + logits.shape[:-1])
        g = dots(grad[first[-len(case.batch) :]], x[:1], case)
    elif fault == "the wrong index":
        grad_x = np.roll(grad_x, 1, axis=-2)
    elif fault == "the softmax's weights":
        probs = straight_through.soft(logits, case.temps, **options)
        grad_x = unbroadcast(np.einsum("...k,...d->...kd", probs, grad), x.shape)
    return chosen, grad_x, straight_through.backward(g, logits, case.temps, **options)


# ------------------------------------------------------------------------------------------------ how far is too far


def bound_of_grad_x(case, grad_x):
    """One vector is copied; n are added in float64, and the sum is rounded: half a unit in its last place."""
    rows, x_rows = math.prod(case.batch), math.prod(case.x.shape[:-2])
    if rows == x_rows:
        return np.zeros(case.x.shape)
    sizes = by_einsum(case._replace(grad=np.abs(case.grad.astype(np.float64))))[1]
    dtype = np.result_type(case.x, case.grad)
    return np.nan_to_num((rows // x_rows) * 2.0**-53 * sizes + tolerance.ulp(grad_x, dtype) / 2)


def bound_of_grad_logits(case, grad_logits):
    """What the dot products add to the operator's own bound, and one rounding.

    With u the unit roundoff of the type of the computation, a sum of n products g_j is wrong by at most
    ``n u / (1 - n u)`` times the sum of their sizes, in whatever order (Higham 2002, section 3.1), and by the smallest
    subnormal for each product that underflows: delta_j. The operator's map is linear in g, so that grad_logits_i is
    wrong by ``p_i (delta_i + sum_j p_j delta_j) / temp``. To this comes the operator's bound for the g it was given; it
    is taken at the exact g, the difference being of second order, while the tiers use half of it. Last, the rounding to
    the dtype of the result: half a unit in the last place.
    """
    form = tolerance.Format.of(case.compute)
    grad, x, w = (a.astype(np.float64) for a in (case.grad, case.x, case.w))
    terms = case.x.shape[-1] * math.prod(case.batch) // max(1, math.prod(case.logits.shape[:-1]))
    delta = terms * form.unit / (1 - terms * form.unit) * dots(np.abs(grad), np.abs(x), case) + terms * form.least
    w = np.where(case.candidates, w, -inf)
    with np.errstate(invalid="ignore", divide="ignore"):
        e = np.exp((w - w.max(axis=-1, keepdims=True)) / case.temps)
        p = np.where(case.candidates, e / e.sum(axis=-1, keepdims=True), 0.0)
    dots_bound = p * (delta + (p * delta).sum(axis=-1, keepdims=True)) / case.temps
    bound = tolerance.backward(dots(grad, x, case), w, case.temps, case.compute, tolerance.KERNELS)
    bound = bound + dots_bound * (1 + 2.0**-20) + tolerance.ulp(grad_logits, case.dtype) / 2  # p is rounded here
    return np.where(case.candidates, np.nan_to_num(bound), 0.0)


def assert_within(actual, expected, bound, dtype):
    assert actual.shape == expected.shape
    assert actual.dtype == dtype
    if expected.dtype == object:
        error = np.abs(actual.astype(np.float64) - expected).astype(np.float64)
        assert np.all(error <= bound), (actual, expected, bound)
        return float(np.max(np.divide(error, bound, where=bound > 0, out=np.zeros(bound.shape)), initial=0))
    assert np.all(tolerance.isclose(actual, expected, bound)), (actual, expected, bound)
    return 0.0


def assert_gradients(results, case, expected, factor=1):
    """How much of their bound the gradients in the logits use. What float64 found is itself within it: `factor` 2."""
    (grad_x, grad_logits), (exact_x, exact_logits) = results, expected
    with np.errstate(invalid="ignore"):
        bound_x = factor * bound_of_grad_x(case, exact_x.astype(np.float64))
        bound_logits = factor * bound_of_grad_logits(case, exact_logits.astype(np.float64))
    assert_within(grad_x, exact_x, bound_x, np.result_type(case.x, case.grad))
    return assert_within(grad_logits, exact_logits, bound_logits, case.dtype)


# ------------------------------------------------------------------------------------------------ the gradients


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("reduce", [True, False])
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_gradients_by_finite_differences(shapes, reduce, operator, dtype, record):
    for seed in range(2):
        this = case(*shapes, reduce, (dtype,) * 3, seed, operator)
        with mp.workprec(400):
            expected = by_finite_differences(this)
            for backend in BACKENDS:
                used = assert_gradients(this.backward(backend=backend), this, expected)
                record(f"selection.backward, {dtype}: error / bound", used)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("operator", OPERATORS[:2])
@pytest.mark.parametrize("reduce", [True, False])
@pytest.mark.parametrize("shapes", [*SHAPES, ((7, 1, 20, 33), (50, 20)), ((40, 33), (200, 40))], ids=str)
def test_both_passes_by_mask_and_einsum(shapes, reduce, operator, dtype):
    for seed in (2, 3):
        this = case(*shapes, reduce, (dtype,) * 3, seed, operator)
        chosen, *gradients = by_einsum(this)
        for backend in BACKENDS:
            actual = this.forward(backend=backend)
            assert actual.dtype == this.x.dtype
            np.testing.assert_array_equal(actual.astype(np.float64), chosen)
            assert_gradients(this.backward(backend=backend), this, gradients, factor=2)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("reduce", [True, False])
@pytest.mark.parametrize("shapes", [shapes for shapes in SHAPES if shapes[1][-1] > 1], ids=str)
def test_rows_that_are_nan_and_rows_without_a_candidate_by_mask_and_einsum(shapes, reduce, operator):
    for spoil in (0, -1):
        this = case(*shapes, reduce, seed=4, operator=operator)
        rows = this.logits.reshape(-1, this.logits.shape[-1])
        offered = np.ones(rows.shape, bool)
        rows[spoil, 2] = nan
        if len(rows) > 1:
            rows[-1 - spoil, 0], offered[-1 - spoil] = nan, False
        this = this._replace(where=offered.reshape(this.logits.shape))
        chosen, *gradients = by_einsum(this)
        assert np.isnan(chosen).any()
        for backend in BACKENDS:
            np.testing.assert_array_equal(this.forward(backend=backend), chosen)
            assert_gradients(this.backward(backend=backend), this, gradients, factor=2)


@pytest.mark.parametrize(
    "fault",
    [
        None,
        "the selected candidate alone",
        "a mean over what shares x",
        "a mean over what shares logits",
        "no sum over what shares logits",
        "the wrong index",
        "the softmax's weights",
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_comparison_rejects_faults(fault, dtype):
    this = case((5, 1, K, D), (3, K), dtypes=(dtype,) * 3)
    with mp.workprec(400):
        expected = by_finite_differences(this)
        results = [gradient.astype(this.dtype) for gradient in by_einsum(this, fault)[1:]]
        if fault is None:
            assert_gradients(results, this, expected)
        else:
            with pytest.raises(AssertionError):
                assert_gradients(results, this, expected)


@pytest.mark.parametrize(
    ("x", "logits", "grad", "grad_x", "grad_logits"),
    [
        ("float32", "float16", "float16", "float32", "float32"),
        ("float16", "float32", "float16", "float16", "float32"),
        ("float16", "float16", "float32", "float32", "float32"),
        ("bfloat16", "float32", "bfloat16", "bfloat16", "float32"),
        ("bfloat16", "bfloat16", "float64", "float64", "float64"),
        ("float64", "float32", "float32", "float64", "float64"),
        ("float32", "float64", "float32", "float32", "float64"),
        ("int32", "float32", "float32", "float64", "float64"),
        ("float32", "int8", "float32", "float32", "float64"),
        ("float32", "float32", "bool", "float64", "float64"),
        ("int64", "int64", "int64", "float64", "float64"),
    ],
)
@pytest.mark.parametrize("operator", OPERATORS[:2])
def test_dtypes_that_differ(operator, x, logits, grad, grad_x, grad_logits):
    for reduce, seed in itertools.product((True, False), range(2)):
        given = case((5, 1, K, D), (3, K), reduce, (x, logits, grad), seed, operator)
        floats = [a.astype(np.float64) if a.dtype.kind in "biu" else a for a in given[:3]]
        this = given._replace(grad=floats[0], x=floats[1], logits=floats[2])
        with mp.workprec(400):
            expected = by_finite_differences(this)
            for backend in BACKENDS:
                chosen = given.forward(backend=backend)
                assert chosen.dtype == this.x.dtype
                np.testing.assert_array_equal(chosen.astype(np.float64), by_einsum(this)[0])
                results = given.backward(backend=backend)
                assert [result.dtype.name for result in results] == [grad_x, grad_logits]
                assert_gradients(results, this, expected)


def test_many_small_shares_are_not_lost():
    rows = 4097
    grad = np.full((rows, 1), 2**-11, np.float16)
    grad[0] = 1  # where a sum in float16 stays
    grad_x, _ = selection.backward(grad, np.zeros((2, 1), np.float16), np.tile(np.float16([1, 0]), (rows, 1)))
    assert grad_x.tolist() == [[3.0], [0.0]]


def test_a_sum_beyond_the_dtype_is_infinite_and_no_warning():
    grad = np.full((3, 1), 6e4, np.float16)
    grad_x, _ = selection.backward(grad, np.zeros((2, 1), np.float16), np.zeros((3, 2), np.float16))
    assert grad_x.tolist() == [[inf], [0.0]]


# ------------------------------------------------------------------------------------------------ special inputs

X = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_each_row_gets(dtype, backend):
    """A codebook, and one row after another: selected, NaN, nothing offered, only -inf, tied."""
    x = np.array(X).astype(DTYPES[dtype])
    logits = np.array([[0, 2, 1], [0, nan, 1], [nan, inf, 0], [-inf, -inf, -inf], [1, 1, 0]]).astype(DTYPES[dtype])
    where = np.array([[True] * 3, [True] * 3, [False] * 3, [True] * 3, [True] * 3])
    options = {"where": where, "backend": backend}
    expected = np.array([[3, 4], [nan, nan], [0, 0], [nan, nan], [1, 2]])
    np.testing.assert_array_equal(selection.forward(x, logits, **options).astype(np.float64), expected)
    kept = selection.forward(x, logits, reduce=False, **options).astype(np.float64)
    np.testing.assert_array_equal(kept.sum(axis=1), expected)
    assert np.array_equal(np.isnan(kept).all(axis=(1, 2)), np.isnan(expected[:, 0]))
    assert not np.signbit(kept[[0, 2, 4]]).any()

    grad = np.array([[1, 0], [1, 1], [nan, inf], [1, 1], [0, 1]]).astype(DTYPES[dtype])
    grad_x, grad_logits = selection.backward(grad, x, logits, **options)
    assert np.isnan(grad_x.astype(np.float64)).all()
    finite = np.isfinite(grad_logits.astype(np.float64))
    assert finite.all(axis=1).tolist() == [True, False, True, False, True]
    assert finite.any(axis=1).tolist() == [True, False, True, False, True]
    assert not grad_logits[2].any()

    sound = [0, 2, 4]
    options["where"] = where[sound]
    grad_x, _ = selection.backward(grad[sound], x, logits[sound], **options)
    assert grad_x.tolist() == [[0, 1], [1, 0], [0, 0]]
    own = np.tile(x, (5, 1, 1))
    grad_x, again = selection.backward(grad, own, logits, where=where, backend=backend)
    assert np.isnan(grad_x.astype(np.float64)).all(axis=(1, 2)).tolist() == [False, True, False, True, False]
    assert grad_x[sound].tolist() == [[[0, 0], [1, 0], [0, 0]], [[0, 0]] * 3, [[0, 1], [0, 0], [0, 0]]]
    assert np.array_equal(np.isfinite(again.astype(np.float64)), finite)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("junk", [nan, inf, -inf])
def test_x_is_not_read_where_it_is_not_selected(junk, dtype, backend):
    x = np.array([[1, 2], [junk, 4], [junk, junk], [-0.0, 3]]).astype(DTYPES[dtype])
    logits = np.array([[2, 1, 0, 3], [2, 1, 0, -inf], [0, 2, 1, 0]]).astype(DTYPES[dtype])
    chosen = selection.forward(x, logits, backend=backend).astype(np.float64)
    np.testing.assert_array_equal(chosen, [[0, 3], [1, 2], [junk, 4]])
    assert np.signbit(chosen[0, 0])
    kept = selection.forward(x, logits[:2], reduce=False, backend=backend)
    np.testing.assert_array_equal(kept.astype(np.float64).sum(axis=1), [[0, 3], [1, 2]])

    for reduce in (True, False):
        grad = np.ones((3, 2) if reduce else (3, 4, 2), DTYPES[dtype])
        grad_x, grad_logits = selection.backward(grad, x, logits, reduce=reduce, backend=backend)
        assert grad_x.tolist() == [[1, 1], [1, 1], [0, 0], [1, 1]]
        assert not np.isfinite(grad_logits[0].astype(np.float64)).any()  # they might have been selected

        offered = np.array([True, False, False, True])
        options = {"where": offered, "reduce": reduce, "backend": backend}
        _, grad_logits = selection.backward(grad, x, logits, **options)
        assert np.isfinite(grad_logits.astype(np.float64)).all()
        clean = np.where(offered[:, None], x, np.zeros(1, x.dtype))
        np.testing.assert_array_equal(grad_logits, selection.backward(grad, clean, logits, **options)[1])
        by_logit = np.where(offered, logits, np.full(1, -inf, logits.dtype))
        np.testing.assert_array_equal(
            grad_logits, selection.backward(grad, x, by_logit, reduce=reduce, backend=backend)[1]
        )


def test_a_cotangent_that_is_not_finite_spoils_its_row_alone():
    x, logits = np.array(X), np.array([[0.0, 1.0, 0.5], [2.0, 1.0, 0.0]])
    grad = np.array([[nan, 1.0], [inf, 2.0]])
    grad_x, grad_logits = selection.backward(np.vstack([grad, [[1.0, 1.0]]]), x, np.vstack([logits, logits[:1]]))
    np.testing.assert_array_equal(grad_x, [[inf, 2], [nan, 2], [0, 0]])
    assert np.isfinite(grad_logits).all(axis=1).tolist() == [False, False, True]


def test_numbers_whose_dot_product_overflows_warn_of_nothing():
    x = np.full((3, 2), 3e38, np.float32)
    _, grad_logits = selection.backward(np.full((2, 2), 3e38, np.float32), x, np.zeros((2, 3), np.float32))
    assert grad_logits.shape == (2, 3)
    _, grad_logits = selection.backward(np.array([[nan, inf]] * 2), np.array([[inf, nan]] * 3), np.zeros((2, 3)))
    assert np.isnan(grad_logits).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_policy_raise(backend):
    x, logits = np.array(X), np.array([[0.0, 1.0, 0.5], [2.0, nan, 0.0]])
    options = {"nan_policy": "raise", "backend": backend}
    match = r"logits\[1, 1\] is nan.*nan_policy"
    with pytest.raises(ValueError, match=match):
        selection.forward(x, logits, **options)
    with pytest.raises(ValueError, match=match):
        selection.backward(np.ones((2, 2)), x, logits, **options)
    assert selection.forward(x, logits, where=~np.isnan(logits), **options).tolist() == [[3, 4], [1, 2]]


# ------------------------------------------------------------------------------------------------ shapes


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_choice(dtype, backend):
    x = np.array([[[1, 2]], [[3, 4]]]).astype(DTYPES[dtype])
    logits = np.array([[5], [-3]]).astype(DTYPES[dtype])
    assert selection.forward(x, logits, backend=backend).tolist() == [[1, 2], [3, 4]]
    grad_x, grad_logits = selection.backward(x[:, 0], x, logits, backend=backend)
    assert grad_x.tolist() == x.tolist()
    assert grad_logits.tolist() == [[0], [0]]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reduce", [True, False])
@pytest.mark.parametrize(
    ("x_shape", "logits_shape"),
    [
        ((K, 0), (5, K)),  # D = 0
        ((5, K, 0), (5, K)),
        ((K, 0), (K,)),
        ((K, D), (0, K)),  # no rows
        ((0, K, D), (K,)),
        ((0, K, D), (0, K)),
        ((0, K, D), (1, K)),
        ((1, K, D), (0, K)),
        ((2, 1, K, D), (0, K)),
        ((0, 1, K, D), (3, K)),
        ((0, K, 0), (K,)),
    ],
    ids=str,
)
def test_nothing_to_add_up(x_shape, logits_shape, reduce, backend):
    this = case(x_shape, logits_shape, reduce, ("float32",) * 3)
    chosen = this.forward(backend=backend)
    assert chosen.shape == this.grad.shape
    assert chosen.size == 0
    grad_x, grad_logits = this.backward(backend=backend)
    for gradient, shape in ((grad_x, x_shape), (grad_logits, logits_shape)):
        assert gradient.shape == shape
        assert gradient.dtype == np.float32
        assert not gradient.any()


@pytest.mark.parametrize("reduce", [True, False])
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_inputs_of_any_layout_are_only_read(shapes, reduce):
    this = case(*shapes, reduce, seed=1)
    _, *expected = by_einsum(this)

    def strided(array):
        wide = np.zeros([2 * n for n in array.shape], array.dtype).T
        view = wide[tuple(slice(None, None, -2) for _ in array.shape)].T
        view[...] = array
        view.flags.writeable = False
        return view

    arrays = {name: strided(getattr(this, name)) for name in ("grad", "x", "logits", "temp", "where")}
    odd = this._replace(**arrays)
    np.testing.assert_array_equal(odd.forward(), this.forward())
    assert_gradients(odd.backward(), this, expected, factor=2)
    swapped = this._replace(**{name: getattr(this, name).astype(">f8") for name in ("grad", "x", "logits")})
    assert swapped.forward().dtype.isnative
    np.testing.assert_array_equal(swapped.forward(), this.forward())
    assert_gradients(swapped.backward(), this, expected, factor=2)
    for name, array in arrays.items():
        assert np.array_equal(array, getattr(this, name))
    for result in (odd.forward(), this.forward(), *this.backward(), *odd.backward()):
        assert result.flags.writeable
        for array in (*arrays.values(), *this[:5]):
            assert not np.shares_memory(result, array)


def test_lists_and_where_that_broadcasts():
    chosen = selection.forward(X, [[0, 1, 2], [2, 1, 0]], where=[True, True, False])
    assert chosen.tolist() == [[3, 4], [1, 2]]
    nothing = {"where": False}
    assert selection.forward(X, [[0, 1, nan]], **nothing).tolist() == [[0, 0]]
    grad_x, grad_logits = selection.backward([[1, 1]], X, [[0, 1, nan]], **nothing)
    assert not grad_x.any()
    assert not grad_logits.any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sample_belongs_to_the_logits_as_given(backend):
    """All that share a row of the logits see one choice, that of the operator called by itself."""
    this = case((5, 1, K, D), (1, 6, K))
    options = {"seed": 3, "offset": 11, "backend": backend}
    m = gumbel_softmax.index(this.logits, **options)[0]
    assert len(set(m)) > 1
    assert not np.array_equal(m, straight_through.index(this.logits)[0])
    chosen = selection.forward(this.x, this.logits, operator=gumbel_softmax, **options)
    assert np.array_equal(chosen, this.x[:, 0, m])
    grad_x, _ = selection.backward(this.grad, this.x, this.logits, operator=gumbel_softmax, **options)
    assert np.array_equal(grad_x.any(axis=-1)[:, 0], np.tile(np.isin(np.arange(K), m), (5, 1)))
    with pytest.raises(TypeError, match="seed"):
        selection.forward(this.x, this.logits, operator=gumbel_softmax)


def test_the_operator_gets_the_logits_as_given():
    calls = []

    def index(logits, **options):
        calls.append((logits.shape, options))
        return straight_through.index(logits)

    def backward(g, logits, temp, **options):
        calls.append((g.shape, logits.shape, temp, options))
        return straight_through.backward(g, logits, temp)

    operator = SimpleNamespace(index=index, backward=backward)
    options = {"operator": operator, "seed": 7, "offset": 3}
    this = case((5, 1, K, D), (1, 3, K))
    selection.forward(this.x, this.logits, 0.5, **options)
    selection.backward(this.grad, this.x, this.logits, 0.5, **options)
    passed = {"where": None, "seed": 7, "offset": 3}
    assert calls[:2] == [((1, 3, K), passed)] * 2
    assert calls[2:] == [((1, 3, K), (1, 3, K), 0.5, passed)]


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("x_shape", "logits_shape", "match"),
    [
        ((3,), (3,), r"x has shape \(3,\) and logits has shape \(3,\); x takes \(\.\.\., K, D\)"),
        ((), (3,), "x takes"),
        ((3, 2), (), r"logits \(\.\.\., K\)"),
        ((3, 2), (4,), r"x has shape \(3, 2\) and logits has shape \(4,\).*with the same K"),
        ((2, 3), (5, 3), "with the same K"),
        ((4, 3, 2), (5, 3), r"x has shape \(4, 3, 2\) and logits has shape \(5, 3\).*must broadcast"),
        ((0, 3, 2), (5, 3), "must broadcast"),
        ((2, 0, 4), (2, 0), "no candidates along axis 1"),
    ],
    ids=str,
)
def test_shapes_that_do_not_fit(x_shape, logits_shape, match):
    x, logits = np.zeros(x_shape), np.zeros(logits_shape)
    with pytest.raises(ValueError, match=match):
        selection.forward(x, logits)
    with pytest.raises(ValueError, match=match):
        selection.backward(np.zeros((2, 4)), x, logits)


def test_the_cotangent_has_the_shape_of_what_was_chosen():
    x, logits = np.zeros((3, 2)), np.zeros((5, 3))
    for shape, reduce, expected in (
        ((2,), True, r"\(5, 2\)"),
        ((5, 3, 2), True, r"\(5, 2\)"),
        ((5, 2), False, r"\(5, 3, 2\)"),
        ((1, 2), True, r"\(5, 2\)"),
    ):
        with pytest.raises(ValueError, match=rf"grad_chosen has shape .* and chosen has shape {expected}; the two"):
            selection.backward(np.zeros(shape), x, logits, reduce=reduce)


def both(match, error, x=X, logits=(0.0, 1.0, 2.0), temp=0.6, **options):
    with pytest.raises(error, match=match):
        selection.forward(x, logits, temp, **options)
    with pytest.raises(error, match=match):
        selection.backward(np.ones(2, np.float32), x, logits, temp, **options)


def test_arguments_that_are_refused():
    both("operator is .* which has no function index", TypeError, operator=None)
    both(
        "which has no function backward; it takes a module like",
        TypeError,
        operator=SimpleNamespace(index=lambda: None),
    )
    both("takes no axis", TypeError, axis=0)
    both("takes no out", TypeError, out=np.zeros(2))
    both("tempo", TypeError, tempo=3)
    both("x has dtype complex128", TypeError, x=np.array(X, complex))
    both("logits has dtype object", TypeError, logits=np.array([None, 1, 2]))
    both("logits is a masked array", TypeError, logits=np.ma.array([0.0, 1.0, 2.0]))
    both("where has dtype int64", TypeError, where=np.array([0, 1, 1]))
    both(r"where has shape \(2,\)", ValueError, where=[True, False])
    both("backend is 'gpu'", ValueError, backend="gpu")
    with pytest.raises(TypeError, match="grad_chosen has dtype <U1"):
        selection.backward(["a", "b"], X, [0.0, 1.0, 2.0])


@pytest.mark.parametrize("temp", [0.0, -1.0, nan, inf, 1e-50])
def test_temp_must_be_positive_and_finite(temp):
    logits = np.array([0, 1, 2], np.float32)
    both("temp is", ValueError, np.array(X, np.float32), logits, temp)
    both("temp is", ValueError, np.array(X, np.float32), logits, [temp])


def test_shape_of_temp():
    both(r"temp has shape \(3,\)", ValueError, temp=np.ones(3))
    both(r"temp has shape \(2, 1\)", ValueError, temp=np.ones((2, 1)))


# ------------------------------------------------------------------------------------------------ the full size


def test_a_codebook_at_full_size():
    """What is as large as B x K: g and grad_logits, two arrays; all else is B x D or less, a sixteenth of one each.

    Measured: 2.005 arrays backward, 0.13 forward, where not even a mask is made. B x K x D would be 64 of them.
    """
    b, k, d = 65536, 1024, 64
    rng = np.random.default_rng(8)
    x, grad = (rng.standard_normal(shape, np.float32) for shape in ((k, d), (b, d)))
    logits = rng.standard_normal((b, k), np.float32)
    straight_through.backward(logits[:1], logits[:1])  # compiled before anything is measured

    peaks = []
    for call in (lambda: selection.forward(x, logits), lambda: selection.backward(grad, x, logits)):
        tracemalloc.start()
        try:
            result = call()
            peaks.append(tracemalloc.get_traced_memory()[1] / logits.nbytes)
        finally:
            tracemalloc.stop()
        if len(peaks) == 1:
            chosen = result
    grad_x, grad_logits = result
    assert peaks[0] < 0.5
    assert peaks[1] < 2.5

    m = np.argmax(logits, axis=-1)
    assert np.array_equal(chosen, x[m])
    for j in (0, 1, 500, k - 1):
        shares = grad[m == j].astype(np.float64)
        exact = np.array([math.fsum(column) for column in shares.T])
        bound = len(shares) * 2.0**-53 * np.abs(shares).sum(axis=0) + tolerance.ulp(exact, np.float32) / 2
        assert_within(grad_x[j], exact, bound, np.float32)
    for row in (0, 12345, b - 1):
        this = Case(grad[row], x, logits[row], 0.6, None, True, {})
        with mp.workprec(200):
            g = [mpmath.fdot(zip(exactly(this.grad), vector, strict=True)) for vector in exactly(x)]
            temp = mpf(float(np.float32(0.6)))
            exact = formulas(list(exactly(this.logits)), temp, g, g, ["backward"])[0]["backward"]
            exact = np.array(exact, dtype=object)
            bound = bound_of_grad_logits(this, exact.astype(np.float64))
            assert_within(grad_logits[row], exact, bound, np.float32)


# ------------------------------------------------------------------------------------------------ found by users


def test_sixteen_bits_are_rounded_once():
    """1 + 2**-8 + 2**-40 lies just above the middle of two bfloat16; by way of float32 it is taken for the middle."""
    grad = np.array([[1.0], [2.0**-8], [2.0**-40]]).astype(DTYPES["bfloat16"])
    x, logits = np.zeros((1, 1), grad.dtype), np.zeros((3, 1), grad.dtype)
    grad_x, _ = selection.backward(grad, x, logits)
    assert float(grad_x[0, 0]) == 1 + 2.0**-7


def test_the_reference_takes_dot_products_in_float64():
    rng = np.random.default_rng(5)
    x, logits, grad = (rng.standard_normal(shape).astype(np.float32) for shape in ((64, 48), (37, 64), (37, 48)))
    _, actual = selection.backward(grad, x, logits, backend="reference")
    wide = [array.astype(np.float64) for array in (grad, x, logits)]
    temp = float(np.float32(0.6))
    _, exact = selection.backward(*wide, temp, backend="reference")
    assert actual.dtype == np.float32
    assert np.max(np.abs(actual - exact) / np.spacing(np.abs(exact.astype(np.float32)))) < 0.75


def test_options_and_indices_of_an_operator():
    x, logits = np.zeros((3, 2)), np.zeros(3)
    with pytest.raises(TypeError, match=r"straight_through' takes no option tmep; it takes backend, nan_policy"):
        selection.forward(x, logits, tmep=1.0)
    with pytest.raises(TypeError, match="takes no option seed"):
        selection.backward(x[0], x, logits, seed=1)
    with pytest.raises(TypeError, match="no option tmep; it takes backend, index, nan_policy, noise, offset, seed"):
        selection.forward(x, logits, operator=reinmax, index=0, tmep=1.0)
    beyond = SimpleNamespace(index=lambda logits, where: np.int64(3), backward=straight_through.backward)
    with pytest.raises(ValueError, match=r"operator.index returned int64 of shape \(\); expected integers below 3"):
        selection.forward(x, logits, operator=beyond)


def test_a_broadcast_x_is_not_copied():
    x = np.broadcast_to(np.ones((1000, 64), np.float32), (500, 1000, 64))
    logits = np.zeros((500, 1000), np.float32)
    selection.forward(x, logits)
    tracemalloc.start()
    selection.forward(x, logits)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < x.nbytes / 100  # of 128 MB


# ------------------------------------------------------------------------------------------------ to other processes


@pytest.mark.parametrize(
    "operator", [straight_through, gumbel_softmax, reinmax], ids=lambda operator: operator.__name__
)
def test_a_partial_with_its_operator_travels(operator):
    """By pickle, by copy, and to a process that starts afresh: the same function, of the same module."""
    options = {} if operator is straight_through else {"seed": 3}
    x, logits = np.arange(6.0).reshape(3, 2), np.array([[0.0, 2.0, 1.0]])
    for function, arrays in ((selection.forward, (x, logits)), (selection.backward, (x[:1], x, logits))):
        call = partial(function, operator=operator, backend="reference", **options)
        expected = call(*arrays)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            other = pickle.loads(pickle.dumps(call, protocol))
            assert other.keywords["operator"] is operator
            assert other.func is function
        for other in (copy.copy(call), copy.deepcopy(call)):
            assert other.keywords["operator"] is operator
        np.testing.assert_equal(other(*arrays), expected)
    assert pickle.loads(pickle.dumps(operator)) is operator
    assert isinstance(operator, ModuleType)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        np.testing.assert_equal(pool.submit(call, *arrays).result(), expected)
