"""Both passes of the selection: against finite differences by mpmath, and against mask -> einsum."""

import itertools

import numpy as np
import pytest
from inputs import DTYPES
from mpmath import mp
from numpy import inf, nan
from selections import (
    BACKENDS,
    OPERATORS,
    SHAPES,
    D,
    K,
    assert_gradients,
    by_einsum,
    by_finite_differences,
    case,
)

from npselect import selection


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
