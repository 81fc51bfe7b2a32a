"""What `numpy.seterr` was told is the caller's affair: no public function minds it, speaks of it or changes it.

Overflow, underflow and invalid operations are results here, and so they are in an implementation under test, whose
values alone are judged. What that raises under a state of its own is an error of its own.
"""

from __future__ import annotations

import tempfile
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import inputs
import numpy as np
import pytest

import npselect
from npselect import bench, gumbel_softmax, noise, selection, straight_through, testing
from npselect.testing import tolerance

STATES = ["raise", "call", "warn", "print"]
# Of these, the first two states must do: what calls nobody warns and prints no more.
SLOW = {"check", "check_sampling_op", "check_selection", "write_vectors", "run"}
TIERS = [*((dtype, "reference") for dtype in inputs.DTYPES), ("float32", "cpu")]
COTANGENTS = {"backward": 1, "jvp": 1, "backward_temp": 1, "double_backward": 2}


def harsh(dtype):
    """Logits and cotangents from subnormal to the largest, NaN and infinities; a NaN that signals, as casts tell."""
    largest, normal, least, _ = inputs.limits(dtype)
    rows = [
        [0, -90, -700, 1],
        [largest, -largest, 0, largest],
        [least, -least, normal, 0],
        [np.nan, 1, 2, 3],
        [np.inf, 0, 0, 0],
        [-np.inf] * 4,
    ]
    logits, grad = np.array(rows), np.array([[largest, -largest, least, 1]] * 6)
    with np.errstate(all="ignore"):
        logits, grad = logits.astype(inputs.DTYPES[dtype]), grad.astype(inputs.DTYPES[dtype])
    if dtype == "float32":
        logits.view(np.uint32)[3, 0] = 0x7F800001
    return logits, grad


def textbook(logits, temp):
    t = logits / np.asarray(temp, logits.dtype)
    e = np.exp(t - t.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def textbook_backward(grad_mask, logits, temp):
    p = textbook(logits, temp)
    return p * (grad_mask - (p * grad_mask).sum(axis=-1, keepdims=True)) / np.asarray(temp, logits.dtype)


TEXTBOOK = SimpleNamespace(__name__="textbook", forward=straight_through.forward, backward=textbook_backward)
PROBLEM = partial(bench.Problem, "straight_through", 32, 10)


@np.errstate(all="ignore")
def ways_of(module, logits):
    return [{}] if module is straight_through else [{"seed": 1}, {"noise": logits[::-1].astype(np.float64)}]


def operator_call(module, function, dtype, backend):
    """The longest way: another dtype of cotangents, a temperature a row, where, and an `out` that is too narrow."""
    logits, grad = harsh(dtype)
    options = {"where": np.arange(4) < 3, "backend": backend}
    temp = () if function == "index" else (np.full((6, 1), 1e-7),)
    count = COTANGENTS.get(function, 0)
    wide = np.float64 if dtype == "float32" else logits.dtype
    cotangents = [grad.astype(wide)] * count
    results = []
    for way in ways_of(module, logits):
        results.append(getattr(module, function)(*cotangents, logits, *temp, **options, **way))
        results.append(getattr(module, function)(*[grad] * count, logits, backend=backend, **way))
        if function in ("forward", "soft", "backward", "jvp") and dtype != "bfloat16":
            out = np.empty(logits.shape, np.float16)
            results.append(getattr(module, function)(*cotangents, logits, *temp, out=out, **options, **way))
    return results


def selected(function, dtype, backend):
    logits, grad = harsh(dtype)
    x = np.stack([grad[0], logits[0]], axis=-1)
    chosen = () if function == "forward" else (np.broadcast_to(grad[:, :1], (6, 2)),)
    options = [{"operator": gumbel_softmax, "seed": 1}, {}]
    return [getattr(selection, function)(*chosen, x, logits, 1e-7, backend=backend, **one) for one in options]


def of_vectors(module, function, dtype, backend):
    e, grad = harsh(dtype)
    q = e[::-1]
    return getattr(module, function)(*((grad,) if function == "backward" else ()), e, q, backend=backend)


def some_cases(dtype):
    return [case for case in testing.cases(dtype, profile="strict") if case.logits.size <= 64]


def written(dtype):
    with tempfile.TemporaryDirectory() as folder:
        paths = testing.write_vectors(folder, dtypes=dtype, operators=straight_through)
        cases = testing.load_vectors(folder)
        return [Path(path).read_bytes() for path in paths], [case.bound for case in cases if not case.flags]


def asked(dtype):
    case = testing.find_case(f"{dtype}/edge/large logits, small temp")
    bound = case.bound
    case.check_forward(case.mask)
    case.check_backward(case.grad_logits, "strict")
    with pytest.raises(AssertionError):
        case.check_forward(1 - case.mask, "strict")
    return case.mask, case.grad_logits, bound, testing.find_case(f"{dtype}/temp/of a row").grad_temp


def layers(dtype):
    results = []
    for case in testing.selection_cases(dtype, 1e-4, options=["where"], x_axes=(2, 3))[::3]:
        case.check_forward(case.chosen)
        case.check_backward(case.grad_x, case.grad_logits)
        results.append((case.chosen, case.grad_x, case.grad_logits))
    return results


def check_selection(dtype):
    report = testing.check_selection(selection, dtypes=dtype)
    assert report.ok
    return [(one.id, one.verdict, one.ulp) for one in report.cases]


def check(dtype):
    report = testing.check(TEXTBOOK, dtypes=dtype, cases=some_cases(dtype))
    assert report.ok
    return [(one.id, one.verdict, one.ulp) for one in report.cases]


def sampler():
    draw = partial(np.random.Generator.gumbel, size=(16, 2))

    def sample(logits, seed):
        g = np.concatenate([draw(np.random.default_rng([seed, i])) for i in range(len(logits) // 16)])
        return np.eye(2)[np.argmax(logits + np.exp(-1000.0) + g, axis=-1)]

    return str(testing.check_sampler(sample, choices=(2,), rows=1024, seeds=2))


def sampling_op():
    def sample(logits, temp, hard, seed):
        return (gumbel_softmax.forward if hard else gumbel_softmax.soft)(logits, temp, seed=seed)

    def backward(grad_sample, logits, temp, hard, seed):
        return gumbel_softmax.backward(grad_sample, logits, temp, seed=seed)

    return str(testing.check_sampling_op(testing.SamplingOp("own", sample, backward), temps=(1.0,), choices=(2,)))


def bounds(function, dtype):
    logits, grad = harsh(dtype)
    cotangents = [grad[:3]] * COTANGENTS.get(function, 0)
    return getattr(tolerance, function)(*cotangents, logits[:3], 1e-7, dtype)


def timed():
    effort = bench.Effort(rounds=1, seconds=1e-5)
    report = bench.run(TEXTBOOK, peers=["npselect"], shapes=[(8, 3)], dtypes=["float16"], effort=effort)
    return report.ok, [(one.call, one.peer) for one in report.timings]


# Every public function, by its module: what calls it, and must come to the same in every state.
CALLS = {
    straight_through: {},
    gumbel_softmax: {},
    npselect: {
        "backends": lambda: [*npselect.backends()],
        "differentiable_select": lambda: npselect.differentiable_select(harsh("float32")[0], backend="reference"),
        "warm_up": lambda: npselect.warm_up.__name__,
    },
    noise: {"gumbel": lambda: [noise.gumbel(500, 1, backend=one) for one in ("reference", "cpu")]},
    selection: {
        name: lambda name=name: [selected(name, *tier) for tier in TIERS]
        for name in ("forward", "backward", "backward_temp")
    },
    **{
        module: {
            name: lambda module=module, name=name: [of_vectors(module, name, *tier) for tier in TIERS]
            for name in ("forward", "backward")
        }
        for module in (selection.identity, selection.rotation)
    },
    testing: {
        "assert_conforms": lambda: testing.assert_conforms(TEXTBOOK, cases=some_cases("float64")),
        "cases": lambda: [case.id for case in testing.cases("float16", 1e-7, options=["row_temp"])],
        "check": lambda: [check(dtype) for dtype in ("float16", "float64")],
        "check_sampler": sampler,
        "check_sampling_op": sampling_op,
        "check_selection": lambda: [check_selection(dtype) for dtype in ("float16", "float64")],
        "check_vector_gradient": lambda: str(testing.check_vector_gradient(selection.rotation, dtypes="float64")),
        "find_case": lambda: [asked(dtype) for dtype in ("float16", "float64")],
        "load_vectors": lambda: None,  # by the next
        "selection_cases": lambda: [layers(dtype) for dtype in ("float16", "float64")],
        "write_vectors": lambda: written("float16"),
        "from_array_functions": lambda: testing.from_array_functions(
            straight_through.forward, textbook_backward
        ).forward(np.zeros((1, 2)), 0.6),
        # Frameworks have no error state; what the adapters do with NumPy is to copy.
        **{f"{kind}from_{name}": None for kind in ("", "layer_") for name in ("torch", "jax", "tensorflow")},
        **{f"from_{name}": None for name in ("paddle", "mlx", "tinygrad")},
        **{f"sampling_from_{name}": None for name in ("torch", "jax", "tensorflow", "paddle", "mlx", "tinygrad")},
    },
    tolerance: {
        "isclose": lambda: tolerance.isclose([1e308, 1e-308], [-1e308, 0.0], [np.inf, 1e-300]),
        "ulp": lambda: tolerance.ulp(np.array([np.nan, 5e-324, 1e308]), "float64"),
    },
    bench: {
        "run": timed,
        "compare": lambda: None,  # by `run`, and so are those that follow
        "own_fault": lambda: None,
        "prepared": lambda: None,
        "problems": lambda: [one.logits for one in bench.problems("gumbel_softmax", ["float16"], [(64, 16)])],
        "fault": lambda: bench.fault(
            PROBLEM("float16"), "forward", [straight_through.forward(PROBLEM("float16").logits)]
        ),
        "own_peer": None,  # no arithmetic in what is left
        "copies": None,
        "draw": None,
        "ratio": None,
        "thread_count": None,
        "threads_are": None,
        "turns": None,
    },
}
for module in (straight_through, gumbel_softmax):
    for function in module.__all__:
        CALLS[module][function] = lambda module=module, function=function: [
            operator_call(module, function, *tier) for tier in TIERS
        ]
for function in ("backward", "backward_temp", "double_backward", "near_tie", "soft"):
    CALLS[tolerance][function] = lambda function=function: [bounds(function, dtype) for dtype in ("float16", "float64")]


def test_no_public_function_is_left_out():
    for module, calls in CALLS.items():
        functions = {
            name for name in module.__all__ if callable(found := getattr(module, name)) and not isinstance(found, type)
        }
        functions -= {name for name in functions if isinstance(getattr(module, name), tolerance.Arithmetic)}
        assert functions == set(calls), module.__name__


def bits(result):
    """Whatever a call returned, as what can be compared."""
    if isinstance(result, (list, tuple)):
        return [bits(one) for one in result]
    if isinstance(result, (np.ndarray, np.generic)):
        return result.dtype.name, result.shape, result.tobytes()
    return result


@pytest.mark.parametrize(
    ("call", "states"),
    [
        pytest.param(call, STATES[:2] if name in SLOW else STATES, id=f"{module.__name__}.{name}")
        for module, calls in CALLS.items()
        for name, call in calls.items()
        if call is not None
    ],
)
def test_every_state_has_the_same_results(call, states, capfd):
    with np.errstate(all="ignore"):
        expected = repr(bits(call()))
    capfd.readouterr()
    heard = []
    for state in states:
        with warnings.catch_warnings(), np.errstate(all=state, call=lambda *what: heard.append(what)):
            warnings.simplefilter("error")
            before = np.geterr(), np.geterrcall()
            result = repr(bits(call()))
            assert (np.geterr(), np.geterrcall()) == before
        assert result == expected, state
    assert not heard
    assert capfd.readouterr() == ("", "")


def test_an_error_of_the_implementation_is_its_own():
    """Under the caller's state it is judged by its values; under one of its own, its exception is a failure."""

    def strict_backward(grad_mask, logits, temp):
        with np.errstate(under="raise"):
            return textbook_backward(grad_mask, logits, temp)

    case = testing.find_case("float64/edge/subnormal probabilities")
    own = SimpleNamespace(forward=straight_through.forward, backward=strict_backward)
    for state in STATES:
        with np.errstate(all=state, call=lambda *what: None):
            assert testing.check(TEXTBOOK, cases=[case]).ok
            (outcome,) = testing.check(own, cases=[case]).cases
        assert outcome.verdict == "failed"
        assert "FloatingPointError: underflow" in str(outcome.difference)
