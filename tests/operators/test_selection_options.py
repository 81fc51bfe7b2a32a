"""The selection's arguments: its operator and that operator's options, and what is refused."""

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from numpy import inf, nan
from selections import BACKENDS, D, K, X, case

from npselect import gumbel_softmax, reinmax, selection, straight_through


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
