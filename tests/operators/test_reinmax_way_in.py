"""The way in for operators that draw: one of seed, noise and index; what an index may be; one choice for all."""

import itertools
import pickle

import numpy as np
import pytest

import npselect
from npselect import gumbel_softmax, reinmax, straight_through

RNG = np.random.default_rng(14)
LOGITS, GRAD = RNG.standard_normal((2, 4, 3)), RNG.standard_normal((2, 4, 3))
NOISE = RNG.gumbel(size=(2, 4, 3))
OPTIONS = {"backend": "reference"}


def calls(grad=GRAD, logits=LOGITS, **options):
    options = {**OPTIONS, **options}
    return {
        "forward": lambda **more: reinmax.forward(logits, **{**options, **more}),
        "index": lambda **more: reinmax.index(logits, **{**options, **more}),
        "backward": lambda **more: reinmax.backward(grad, logits, **{**options, **more}),
        "jvp": lambda **more: reinmax.jvp(grad, logits, **{**options, **more}),
    }


functions = pytest.mark.parametrize("name", list(calls()))


def published(grad, logits, temp, index):
    """The gradient by its definition, candidates along the last axis."""

    def softmax(w):
        e = np.exp(w - np.max(w, axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    def jacobian(x):
        return x * (grad - np.sum(x * grad, axis=-1, keepdims=True))

    drawn = np.arange(logits.shape[-1]) == index[..., None]
    return 2 * jacobian((softmax(logits / temp) + drawn) / 2) - jacobian(softmax(logits)) / 2


# ------------------------------------------------------------------------------------------------ one choice for all


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("given", [{"seed": 3}, {"seed": 3, "offset": 7}, {"noise": NOISE}, {"noise": NOISE[0, :1]}])
def test_the_sample_is_that_of_gumbel_softmax(given, axis):
    options = {**given, **OPTIONS, "axis": axis}
    index = gumbel_softmax.index(LOGITS, **options)
    assert np.array_equal(reinmax.index(LOGITS, **options), index)
    assert np.array_equal(reinmax.forward(LOGITS, **options), gumbel_softmax.forward(LOGITS, **options))
    for name, call in calls(axis=axis).items():
        assert np.array_equal(call(**given), call(index=index)), name
        assert call(**given).dtype == call(index=index).dtype


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("temp", [1.0, 1.3, 0.4])
def test_backward_is_as_published(temp, axis):
    index = gumbel_softmax.index(LOGITS, seed=1, axis=axis)
    moved = (np.moveaxis(array, axis, -1) for array in (GRAD, LOGITS))
    expected = np.moveaxis(published(*moved, temp, index), -1, axis)
    for function in (reinmax.backward, reinmax.jvp):
        found = function(GRAD, LOGITS, temp, index=index, axis=axis, **OPTIONS)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15)


def test_unbiased_for_quadratics_at_temp_1():
    """The mean over what may be drawn, weighted, is the gradient of the expected loss."""
    logits, linear, square = RNG.standard_normal(5), RNG.standard_normal(5), RNG.standard_normal((5, 5))
    square += square.T
    p = straight_through.soft(logits, 1.0, backend="reference")
    losses = linear + np.diag(square) / 2
    exact = p * (losses - p @ losses)
    mean = sum(
        p[d] * reinmax.backward(linear + square[d], logits, index=d, backend="reference") for d in range(len(logits))
    )
    np.testing.assert_allclose(mean, exact, rtol=0, atol=1e-12)


def test_digits_that_a_textbook_loses():
    """Of a saturated row, p (1 - p) is no 0."""
    grad = reinmax.backward([1.0, 0.0], np.array([0.0, -50.0]), index=0, **OPTIONS)
    p = np.exp(-50.0)
    np.testing.assert_allclose(grad, np.array([p, -p]) / 2, rtol=1e-13)


def test_soft_is_that_of_straight_through():
    for temp in (1.0, 0.3):
        assert np.array_equal(
            reinmax.soft(LOGITS, temp, axis=1, **OPTIONS), straight_through.soft(LOGITS, temp, axis=1, **OPTIONS)
        )
    with pytest.raises(TypeError, match="seed"):
        reinmax.soft(LOGITS, seed=1)


def test_the_choice_does_not_depend_on_the_cotangent():
    """float16 logits, and noise that decides in float32 what would be a tie in float16."""
    logits, noise = np.zeros((1, 2), np.float16), np.float32([[0.0, 1e-6]])
    for dtype, like in itertools.product(("float16", "float32", "float64"), (np.float16, np.float32)):
        grad = np.array([[1.0, 0.0]], dtype)
        assert reinmax.index(logits.astype(like), noise=noise, **OPTIONS).tolist() == [1]
        found = reinmax.backward(grad, logits.astype(like), noise=noise, **OPTIONS)
        assert found.tolist() == [[0.25, -0.25]]
        assert found.dtype == np.result_type(dtype, like)


# ------------------------------------------------------------------------------------------------ what may be given


@functions
def test_exactly_one_of_three(name):
    call, index = calls()[name], np.zeros((2, 4), int)
    with pytest.raises(TypeError, match="exactly one of seed=, noise= and index= must be given; none was"):
        call()
    for given in ({"seed": 1, "noise": NOISE}, {"seed": 1, "index": index}, {"noise": NOISE, "index": index}):
        with pytest.raises(TypeError, match=f"given; {'= and '.join(given)}= were"):
            call(**given)
    for given in ({"noise": NOISE}, {"index": index}):
        with pytest.raises(TypeError, match=f"offset is 3, .* it does not go with {next(iter(given))}="):
            call(**given, offset=3)


@functions
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", ">i4", "int64", "uint64"])
def test_an_index_is_of_any_integers(name, dtype):
    index = RNG.integers(0, 3, (2, 4))
    call = calls()[name]
    assert np.array_equal(call(index=index.astype(dtype)), call(index=index))
    assert np.array_equal(call(index=index.tolist()), call(index=index))
    turned = np.asfortranarray(index)
    assert np.array_equal(call(index=turned), call(index=index))


@functions
@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        (np.zeros((2, 4)), TypeError, "index has dtype float64; it takes integers"),
        (np.zeros((2, 4), bool), TypeError, "index has dtype bool; it takes integers"),
        (np.ma.zeros((2, 4), int), TypeError, "index is a masked array"),
        (np.zeros((2, 4, 3), int), ValueError, r"index has shape \(2, 4, 3\) and logits has shape \(2, 4, 3\)"),
        (np.zeros(4, int), ValueError, r"must have the shape of logits without axis 2, \(2, 4\)"),
        (0, ValueError, r"index has shape \(\)"),
        ([[0, 1, 2, 0], [0, 1, 3, -5]], ValueError, r"index\[1, 2\] is 3; it must name a candidate"),
        ([[0, 1, 2, 0], [0, 1, 2, -2]], ValueError, r"index\[1, 3\] is -2; it must"),
        ([[0, 1, 2, 0], [0, -1, 2, 2]], ValueError, r"index\[1, 1\] is -1; it must"),
        (np.full((2, 4), 2**64 - 1, np.uint64), ValueError, r"index\[0, 0\] is \d+; it must"),
    ],
)
def test_what_an_index_cannot_be(name, index, error, message):
    with pytest.raises(error, match=message):
        calls()[name](index=index)


@functions
def test_an_index_for_no_rows(name):
    """An empty list is an index of no rows, though NumPy makes float64 of it; an empty float64 array is none."""
    call = calls(grad=GRAD[0, :0], logits=LOGITS[0, :0])[name]
    for index in ([], (), np.empty(0, int)):
        assert call(index=index).shape[:1] == (0,)
    with pytest.raises(TypeError, match="index has dtype float64; it takes integers"):
        call(index=np.empty(0))


@functions
def test_rows_without_a_choice(name):
    """Nothing offered: -1 alone; NaN rows: any index; an excluded candidate: none."""
    logits = np.array([[0.0, 1.0], [np.nan, 0.0], [-np.inf, -np.inf], [-np.inf, 0.0], [2.0, 1.0]])
    where = np.array([[False, False], [True, True], [True, True], [True, True], [False, True]])
    call = calls(np.ones_like(logits), logits, where=where)[name]
    result = call(index=[-1, 1, 0, 1, 1])
    if name == "index":
        assert result.tolist() == [-1, -1, -1, 1, 1]
    else:
        assert result[0].tolist() == [0.0, 0.0]
        assert np.isnan(result[1:3]).all()
        assert result[3:].tolist() == ([[0.0, 1.0], [0.0, 1.0]] if name == "forward" else [[0.0, 0.0], [0.0, 0.0]])
    for position, wrong in ((0, 0), (3, 0), (4, 0), (3, -1)):
        index = [-1, 1, 0, 1, 1]
        index[position] = wrong
        with pytest.raises(ValueError, match=rf"index\[{position}\] is {wrong}; "):
            call(index=index)


def test_no_rows_and_one_row():
    for call in calls(np.zeros((0, 3)), np.zeros((0, 3))).values():
        assert call(index=np.zeros(0, int)).size == 0
    assert reinmax.index([1.0, 2.0], index=1, **OPTIONS) == 1
    with pytest.raises(ValueError, match="index is 2; it must name"):
        reinmax.forward([1.0, 2.0], index=2, **OPTIONS)


@functions
def test_out_is_filled(name):
    index = RNG.integers(0, 3, (2, 4))
    expected = calls()[name](index=index)
    out = np.empty_like(expected)
    assert calls()[name](index=index, out=out) is out
    assert np.array_equal(out, expected)
    if name == "index":
        assert reinmax.index(LOGITS, index=index, out=index, **OPTIONS) is index


def test_there_is_no_derivative_of_it():
    for name in ("backward_temp", "double_backward"):
        assert not hasattr(reinmax, name)


def test_it_can_be_an_operator_of_selection():
    x, logits = RNG.standard_normal((3, 2)), RNG.standard_normal((4, 3))
    options = {"operator": pickle.loads(pickle.dumps(reinmax)), "seed": 2, **OPTIONS}
    chosen = npselect.selection.forward(x, logits, **options)
    assert np.array_equal(chosen, x[reinmax.index(logits, seed=2, **OPTIONS)])
    _, grad = npselect.selection.backward(np.ones_like(chosen), x, logits, 1.0, **options)
    expected = reinmax.backward(np.ones_like(chosen) @ x.T, logits, seed=2, **OPTIONS)
    np.testing.assert_allclose(grad, expected, rtol=0, atol=1e-15)
