"""Adapters, and the examples that go through them: NumPy arrays in and out, and npselect agrees."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import json
import platform
import re
import runpy
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import children
import ml_dtypes
import numba
import numpy as np
import pytest

from npselect import gumbel_softmax, straight_through, testing
from npselect.testing import adapters, tolerance

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
DTYPES = ["float16", "bfloat16", "float32", "float64"]
FRAMEWORKS = ["torch", "jax", "tensorflow"]
FROM = {"torch": adapters.from_torch, "jax": adapters.from_jax, "tensorflow": adapters.from_tensorflow}
SUBJECTS = {
    "torch": ("detach", "function"),
    "jax": ("stop_gradient", "custom_vjp"),
    "tensorflow": ("stop_gradient", "custom_gradient"),
}
REFERENCE = [functools.partial(fn, backend="reference") for fn in (straight_through.forward, straight_through.backward)]
EVERY_SUBJECT = [(framework, name) for framework, names in SUBJECTS.items() for name in names]
of_every_framework = pytest.mark.parametrize("framework", FRAMEWORKS)
of_every_subject = pytest.mark.parametrize(("framework", "name"), EVERY_SUBJECT)


def needs(framework):
    """The framework's module; without it the test is skipped, and says why."""
    return pytest.importorskip(framework, reason=f"{framework} is not installed")


@functools.cache
def module(file):
    spec = importlib.util.spec_from_file_location(f"examples_{file}", EXAMPLES / f"{file}.py")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded  # where dataclasses and pickles look
    spec.loader.exec_module(loaded)
    return loaded


def example(framework):
    needs(framework)
    return module(f"{framework}_select")


def inputs(dtype, shape=(16, 10)):
    rng = np.random.default_rng(1)
    logits, grad_mask, noise = (scale * rng.standard_normal(shape) for scale in (3.0, 1.0, 2.0))
    return logits.astype(dtype), grad_mask.astype(dtype), noise.astype(dtype), rng.random(shape) < 0.7


def agree(implementation, dtype, temp=0.5, *, axis=-1, where=None, noise=None, shape=(16, 10)):
    """`implementation` and npselect answer alike: the mask exactly, the gradient within the bound of textbooks."""
    logits, grad_mask, *_ = inputs(dtype, shape)
    options = {"axis": axis, "where": where} | ({} if noise is None else {"noise": noise})
    operator = straight_through if noise is None else gumbel_softmax
    given = {key: value for key, value in options.items() if value is not None and (key, value) != ("axis", -1)}
    arguments = [array.copy() for array in (logits, grad_mask)]

    mask = implementation.forward(arguments[0], temp, **given)
    exact = operator.forward(logits, temp, backend="reference", **options)
    assert (type(mask), mask.shape, mask.dtype) == (np.ndarray, logits.shape, logits.dtype)
    np.testing.assert_array_equal(mask, exact)

    grad_logits = implementation.backward(arguments[1], arguments[0], temp, **given)
    exact = operator.backward(grad_mask, logits, temp, backend="reference", **options)
    assert (type(grad_logits), grad_logits.shape, grad_logits.dtype) == (np.ndarray, logits.shape, logits.dtype)
    added = logits.astype(np.float64) + (0.0 if noise is None else noise.astype(np.float64))
    rows = np.moveaxis(np.where(True if where is None else where, added, -np.inf), axis, -1)
    bound = tolerance.backward(np.moveaxis(grad_mask, axis, -1), rows, temp, dtype)
    bound = np.moveaxis(bound, -1, axis) + tolerance.ulp(exact, dtype) / 2
    assert tolerance.isclose(grad_logits, exact, bound).all()
    assert np.any(grad_logits != 0)
    for argument, array in zip(arguments, (logits, grad_mask), strict=True):
        np.testing.assert_array_equal(argument, array)


# ------------------------------------------------------------------------------------------------ right answers


@pytest.mark.frameworks
@of_every_subject
@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_with_npselect(framework, name, dtype):
    subject = getattr(example(framework), name)
    _, _, noise, where = inputs(dtype)
    agree(subject, dtype)
    agree(subject, dtype, temp=2.0, axis=0, where=where, noise=noise)


@pytest.mark.frameworks
@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_eager_jax_agrees(dtype):
    agree(adapters.from_jax(example("jax").stop_gradient_select), dtype)


@pytest.mark.frameworks
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_tf_function_agrees(dtype, jit_compile):
    tf = needs("tensorflow")
    for select in (example("tensorflow").stop_gradient_select, example("tensorflow").custom_gradient_select):
        agree(adapters.from_tensorflow(tf.function(select, jit_compile=jit_compile)), dtype, where=inputs(dtype)[3])


@pytest.mark.frameworks
@pytest.mark.filterwarnings(
    "ignore:.*should not be instantiated:DeprecationWarning"
)  # torch.compile does, of a Function
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("select", ["detach_select", "function_select"])
def test_torch_compile_agrees(select, dtype):
    torch = needs("torch")
    torch._dynamo.reset()
    compiled = torch.compile(getattr(example("torch"), select), backend="aot_eager")
    agree(adapters.from_torch(compiled), dtype, where=inputs(dtype)[3])


@pytest.mark.frameworks
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # in its own modules
def test_inductor_agrees():
    torch = needs("torch")
    torch._dynamo.reset()
    agree(adapters.from_torch(torch.compile(example("torch").detach_select)), "float32")


@functools.cache
def many_entries(dtype, least):
    """Two cases of together at least so many entries, whose answers are computed once."""
    rng = np.random.default_rng(2)
    made = []
    for shape, spread in (((least // 64, 32), 3.0), ((least // 2000 + 1, 1000), 1.0)):
        logits, grad_mask = (scale * rng.standard_normal(shape) for scale in (spread, 1.0))
        temp = float(np.asarray(0.6, dtype))
        made.append(testing.Case(f"random/{shape}", "", logits.astype(dtype), grad_mask.astype(dtype), temp))
    assert sum(case.logits.size for case in made) >= least
    return made


def variants(framework, inductor):
    """The idiom and the hand-written gradient, eager and compiled; `inductor` calls a C++ compiler for each shape."""
    written = example(framework)
    if framework == "torch":
        import torch

        for select in (written.detach_select, written.function_select):
            yield adapters.from_torch(select)
            yield adapters.from_torch(torch.compile(select, backend="aot_eager"))
        if inductor:
            yield adapters.from_torch(torch.compile(written.detach_select))
    elif framework == "jax":
        for select in (written.stop_gradient_select, written.custom_vjp_select):
            yield adapters.from_jax(select)
        yield from (written.stop_gradient, written.custom_vjp)  # under jax.jit
    else:
        import tensorflow as tf

        for select in (written.stop_gradient_select, written.custom_gradient_select):
            yield adapters.from_tensorflow(select)
            yield adapters.from_tensorflow(tf.function(select))


@pytest.mark.frameworks
@of_every_framework
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize(
    ("dtype", "entries"),
    [
        *((dtype, 2**16) for dtype in ("bfloat16", "float32", "float64")),
        *(pytest.param(dtype, 2**20, marks=pytest.mark.slow) for dtype in ("bfloat16", "float32")),
    ],
)
def test_many_entries_are_accepted(framework, dtype, entries, record):
    for implementation in variants(framework, inductor=dtype == "float32" or entries > 2**16):
        report = testing.check(implementation, dtypes=dtype, cases=many_entries(np.dtype(dtype), entries))
        assert report.ok, str(report)
        assert sum(case.judged_rows for case in report.cases) > 0.99 * sum(case.rows for case in report.cases)
        record(f"fraction of the bound, {framework} {dtype}", max(case.fraction for case in report.cases))


def test_array_functions_agree():
    @numba.njit
    def compiled(logits, temp, axis=-1):
        return logits / temp

    for dtype in DTYPES:
        subject = adapters.from_array_functions(*REFERENCE)
        agree(subject, dtype, axis=0, where=inputs(dtype)[3])
    assert adapters.from_array_functions(compiled, lambda grad_mask, logits, temp, axis: grad_mask).options == {"axis"}


@functools.cache
def asked(dtype, operator=straight_through, profile="standard"):
    """The cases, whose right answers are computed once."""
    return testing.cases(dtype, operator=operator, options=("axis", "where"), profile=profile)


def asked_of(framework, *arguments):
    """Large cases and, of JAX, all edges in float32 alone: it compiles for every shape and every set of options."""
    if framework != "jax":
        return [case for case in asked(*arguments) if case.origin is None or arguments[0] == "float32"]
    some = {"random/K=100", "where/axis=1"} | {f"edge/{name}" for name in ("ties", "-inf", "zero cotangent")}
    some |= {f"edge/{name}" for name in ("large temp", "large logits, small temp", "subnormal probabilities")}
    every_edge = arguments == ("float32",)
    return [case for case in asked(*arguments) if case.name in some or (every_edge and case.group == "edge")]


@pytest.mark.frameworks
@of_every_subject
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_examples_pass_the_check(framework, name, dtype):
    cases = asked_of(framework, dtype)
    report = testing.check(getattr(example(framework), name), dtypes=dtype, cases=cases)
    assert report.ok, str(report)
    assert all(case.verdict == "passed" for case in report.cases if "subnormal" not in case.name)
    assert len(report.cases) == len(cases) >= 7


@pytest.mark.frameworks
@of_every_framework
def test_examples_pass_the_check_with_noise(framework):
    cases = asked_of(framework, "float32", gumbel_softmax)
    report = testing.check(getattr(example(framework), SUBJECTS[framework][1]), operator=gumbel_softmax, cases=cases)
    assert report.ok, str(report)
    assert len(report.cases) == len(cases) >= 7


@pytest.mark.frameworks
@of_every_framework
def test_hand_written_gradients_pass_the_strict_check(framework):
    cases = asked_of(framework, "float32", straight_through, "strict")
    report = testing.check(getattr(example(framework), SUBJECTS[framework][1]), profile="strict", cases=cases)
    assert report.ok, str(report)


@pytest.mark.frameworks
def test_torch_refuses_what_npselect_refuses():
    for subject in (example("torch").detach, example("torch").function):
        for logits, temp in [([1.0, 2.0], temp) for temp in (0.0, -1.0, np.nan, np.inf)] + [([], 0.6)]:
            with pytest.raises(ValueError, match=f"temp is {temp}, of {len(logits)} candidates; both must be positive"):
                subject.forward(logits, temp)


@pytest.mark.frameworks
@of_every_framework
def test_what_the_examples_say_to_run_exists(framework):
    loaded = example(framework)
    named = re.findall(rf"examples/{framework}_select\.py:(\w+)", loaded.__doc__)
    assert tuple(named) == SUBJECTS[framework]
    assert all(isinstance(getattr(loaded, name), testing.Implementation) for name in named)


@pytest.mark.frameworks
@of_every_framework
def test_examples_draw_noise(framework):
    """Means of 20 000 draws: the standard deviation of Gumbel noise is 1.28, so that theirs is 0.009."""
    loaded, shape = example(framework), (2000, 10)
    if framework == "torch":
        torch = needs("torch")
        logits = torch.zeros(shape, dtype=torch.bfloat16)
        draws = [loaded.gumbel_noise(logits, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
        draws.append(loaded.gumbel_noise(logits, torch.Generator().manual_seed(3)))
    elif framework == "jax":
        jax = needs("jax")
        logits = jax.numpy.zeros(shape, "bfloat16")
        draws = [loaded.gumbel_noise(jax.random.key(seed), logits) for seed in (1, 1, 2, 3)]
    else:
        tf = needs("tensorflow")
        logits = tf.zeros(shape, tf.bfloat16)
        draws = [loaded.gumbel_noise(logits, tf.random.Generator.from_seed(seed)) for seed in (1, 1, 2, 3)]
        assert loaded.gumbel_noise(logits).shape == shape
    first, again, *others = (draw.numpy() if hasattr(draw, "numpy") else np.asarray(draw) for draw in draws)
    np.testing.assert_array_equal(first, again)
    for draw in (first, *others):
        assert (draw.shape, draw.dtype) == (shape, np.float32)
        assert np.all(np.isfinite(draw))
        assert abs(draw.mean() - np.euler_gamma) < 0.06
        assert abs(draw.std() - np.pi / 6**0.5) < 0.06
    assert not np.any(first == others[0])


@pytest.mark.frameworks
def test_custom_vjp_differentiates_temp_too():
    jax = needs("jax")
    logits, grad_mask, _, where = inputs("float32")
    select = functools.partial(example("jax").custom_vjp_select, where=where)
    _, pullback = jax.vjp(lambda temp: select(jax.numpy.array(logits), temp), 0.5)
    exact = straight_through.backward_temp(grad_mask, logits, 0.5, where=where)
    assert float(pullback(jax.numpy.array(grad_mask))[0]) == pytest.approx(float(exact), rel=1e-5)


# ------------------------------------------------------------------------------------------------ what fn is given


def recording(seen, framework):
    """A function that notes what it is given, and returns zeros that depend on the logits."""

    def fn(logits, temp, *, axis=None, where=None, noise=None):
        seen.update(logits=logits, temp=temp, axis=axis, where=where, noise=noise)
        return logits * 0

    return FROM[framework](fn)


@pytest.mark.frameworks
@of_every_framework
def test_options_arrive_as_tensors(framework):
    kind = {"torch": "Tensor", "jax": "Array", "tensorflow": "Tensor"}[framework]
    kind, seen = getattr(needs(framework), kind), {}
    for dtype in DTYPES:
        logits, grad_mask, noise, where = inputs(dtype)
        subject = recording(seen, framework)
        for call in (
            functools.partial(subject.forward, logits),
            functools.partial(subject.backward, grad_mask, logits),
        ):
            seen.clear()
            call(0.5, axis=0, where=where, noise=noise)
            assert all(isinstance(seen[name], kind) for name in ("logits", "where", "noise"))
            assert re.search(r"\bbool", str(seen["where"].dtype))
            assert dtype in str(seen["noise"].dtype)
            assert dtype in str(seen["logits"].dtype)
            assert (type(seen["temp"]), seen["temp"], type(seen["axis"]), seen["axis"]) == (float, 0.5, int, 0)
            call(0.5, where=None)
            assert seen["axis"] is seen["where"] is seen["noise"] is None


@pytest.mark.frameworks
@of_every_framework
def test_noise_keeps_its_own_dtype(framework):
    needs(framework)
    logits, _, noise, _ = inputs("float32")
    seen = {}
    for dtype in DTYPES:
        recording(seen, framework).forward(logits, 0.5, noise=noise.astype(dtype))
        assert dtype in str(seen["noise"].dtype)
        assert "float32" in str(seen["logits"].dtype)


def everything(logits, temp, *, axis=-1, where=None, noise=None):
    return logits * 1


def some(logits, temp, axis=-1, other=None):
    return logits * 1


class Callable:
    def __call__(self, logits, temp, where=None):
        return logits * 1


SIGNATURES = {
    "all": (everything, {"axis", "where", "noise"}),
    "one, not by keyword only": (some, {"axis"}),
    "none": (lambda logits, temp: logits * 1, set()),
    "anything": (lambda logits, temp, **options: logits * 1, {"axis", "where", "noise", "index"}),
    "anything at all": (lambda *arguments, **options: arguments[0] * 1, {"axis", "where", "noise", "index"}),
    "partial": (functools.partial(some, other=1), {"axis"}),
    "partial of a partial": (functools.partial(functools.partial(everything, axis=0)), {"axis", "where", "noise"}),
    "positional only": (lambda logits, temp, axis=-1, /: logits * 1, set()),
    "an object": (Callable(), {"where"}),
    "a method": (Callable().__call__, {"where"}),
}


@pytest.mark.frameworks
@of_every_framework
@pytest.mark.parametrize("kind", SIGNATURES)
def test_options_of_a_function(framework, kind):
    needs(framework)
    fn, options = SIGNATURES[kind]
    takes_exactly(FROM[framework](fn), options)


def takes_exactly(subject, options):
    logits, grad_mask, noise, where = inputs("float32")
    assert subject.options == options
    given = {"axis": -1, "where": where, "noise": noise, "index": np.zeros(len(logits), np.int64)}
    taken = {option: given[option] for option in options}
    np.testing.assert_array_equal(subject.forward(logits, 0.5, **taken), logits)
    np.testing.assert_array_equal(subject.backward(grad_mask, logits, 0.5, **taken), grad_mask)
    for option in given.keys() - options:
        words = rf"was given {option}; it takes {', '.join(sorted(options)) or 'no options'}"
        with pytest.raises(TypeError, match=re.escape(words)):
            subject.forward(logits, 0.5, **{option: given[option]})


@pytest.mark.frameworks
def test_options_of_what_torch_makes_of_a_function():
    torch = needs("torch")

    class Module(torch.nn.Module):
        def forward(self, logits, temp, *, noise=None):
            return logits * 1

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, logits, temp):
            return logits * 1

        @staticmethod
        def backward(ctx, grad_mask):
            return grad_mask, None

    compiled = functools.partial(torch.compile, backend="eager")
    for fn, options, name in [
        (compiled(everything), {"axis", "where", "noise"}, "everything"),
        (functools.partial(compiled(some), other=1), {"axis"}, "some"),
        (Module(), {"noise"}, "Module"),
        (functools.partial(Module()), {"noise"}, "Module"),
        (compiled(Module()), {"noise"}, "OptimizedModule"),
        (Function.apply, set(), "Function.apply"),
    ]:
        subject = adapters.from_torch(fn)
        takes_exactly(subject, options)
        assert subject.__name__ == name


@pytest.mark.frameworks
def test_options_of_what_jax_makes_of_a_function():
    jax = needs("jax")
    for fn, options in [
        (jax.jit(everything, static_argnames="axis"), {"axis", "where", "noise"}),
        (functools.partial(jax.jit(some), other=1), {"axis"}),
        (jax.checkpoint(some), {"axis"}),
    ]:
        subject = adapters.from_jax(fn)
        takes_exactly(subject, options)
        assert subject.name == ("some" if options == {"axis"} else "everything")


@pytest.mark.frameworks
def test_options_of_what_tensorflow_makes_of_a_function():
    tf = needs("tensorflow")

    class Module(tf.Module):
        @tf.function
        def __call__(self, logits, temp, *, noise=None):
            return logits * 1

    for fn, options, name in [
        (tf.function(everything), {"axis", "where", "noise"}, "everything"),
        (functools.partial(tf.function(some), other=1), {"axis"}, "some"),
        (tf.function(jit_compile=True)(some), {"axis"}, "some"),
        (Module(), {"noise"}, "Module"),
    ]:
        subject = adapters.from_tensorflow(fn)
        takes_exactly(subject, options)
        assert subject.__name__ == name


def test_array_functions_take_what_both_take():
    def backward(grad_mask, logits, temp, *, where=None, noise=None):
        return grad_mask

    assert adapters.from_array_functions(some, backward).options == set()
    assert adapters.from_array_functions(everything, backward).options == {"where", "noise"}
    assert adapters.from_array_functions(max, min).options == set()  # which have no signature


@pytest.mark.frameworks
def test_torch_puts_tensors_on_the_device():
    torch, seen = needs("torch"), []
    adapters.from_torch(lambda w, temp: (seen.append(w.device), torch.zeros(3))[1], device="meta").forward([1.0], 0.5)
    assert seen == [torch.device("meta")]


# ------------------------------------------------------------------------------------------------ what fn returns


def without_gradient(framework):
    """Functions whose mask does not depend on the logits, as the framework's autodiff sees it."""
    if framework == "torch":
        torch = needs("torch")
        weight = torch.nn.Parameter(torch.ones(()))
        return [
            lambda logits, temp: torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]),
            lambda logits, temp: torch.ones_like(logits),
            lambda logits, temp: logits.detach(),
            lambda logits, temp: weight * torch.ones_like(logits),
            torch.no_grad()(lambda logits, temp: logits * 1),
        ]
    if framework == "jax":
        jax = needs("jax")
        return [
            lambda logits, temp: jax.nn.one_hot(logits.argmax(-1), logits.shape[-1], dtype="int32"),
            lambda logits, temp: jax.nn.one_hot(logits.argmax(-1), logits.shape[-1], dtype="bool"),
            lambda logits, temp: jax.lax.stop_gradient(logits),
            lambda logits, temp: np.ones(logits.shape, np.float32),
        ]
    tf = needs("tensorflow")
    return [
        lambda logits, temp: tf.one_hot(tf.argmax(logits, -1), logits.shape[-1], dtype=tf.int32),
        lambda logits, temp: tf.one_hot(tf.argmax(logits, -1), logits.shape[-1]),
        lambda logits, temp: tf.stop_gradient(logits),
        tf.function(lambda logits, temp: tf.stop_gradient(logits)),
    ]


@pytest.mark.frameworks
@of_every_framework
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_gradient_is_a_gradient_of_zeros(framework, dtype):
    logits, grad_mask, *_ = inputs(dtype)
    for fn in without_gradient(framework):
        subject = FROM[framework](fn)
        assert subject.forward(logits, 0.5).shape == logits.shape
        grad_logits = subject.backward(grad_mask, logits, 0.5)
        assert grad_logits.dtype == logits.dtype
        np.testing.assert_array_equal(grad_logits, np.zeros_like(logits))


@pytest.mark.frameworks
@of_every_framework
def test_wrong_results_are_handed_on(framework):
    needs(framework)
    logits, grad_mask, *_ = inputs("float32")

    def narrowed(logits, temp):
        if framework == "tensorflow":
            tf = needs("tensorflow")
            return tf.cast(logits, tf.bfloat16)
        return logits.bfloat16() if framework == "torch" else logits.astype("bfloat16")

    dtype = FROM[framework](narrowed)
    assert dtype.forward(logits, 0.5).dtype == ml_dtypes.bfloat16
    assert dtype.backward(grad_mask, logits, 0.5).dtype == np.float32

    shape = FROM[framework](lambda logits, temp: logits[:, :2])
    assert shape.forward(logits, 0.5).shape == (16, 2)
    words = r"<lambda> returned shape \(16, 2\) and grad_mask has shape \(16, 10\)"
    with pytest.raises(ValueError, match=words):
        shape.backward(grad_mask, logits, 0.5)

    for answer in (None, "abc", (1, 2), [1.0]):
        nothing = FROM[framework](lambda logits, temp, answer=answer: answer)
        with pytest.raises(TypeError, match=f"returned a {type(answer).__name__}; expected a tensor of its framework"):
            nothing.forward(logits, 0.5)


@pytest.mark.frameworks
def test_the_gradient_of_a_gather_is_an_array():
    tf = needs("tensorflow")
    logits, grad_mask, *_ = inputs("float32")
    subject = adapters.from_tensorflow(lambda logits, temp: tf.gather(logits, range(16)))
    np.testing.assert_array_equal(subject.backward(grad_mask, logits, 0.5), grad_mask)


@pytest.mark.frameworks
@of_every_framework
def test_results_are_the_callers_own(framework):
    needs(framework)
    kept = []
    subject = FROM[framework](lambda logits, temp: (kept.append(logits), logits)[1])
    logits = inputs("float32")[0]
    mask = subject.forward(logits, 0.5)
    mask[:] = 7.0
    assert not np.any(np.asarray(kept[0].detach() if framework == "torch" else kept[0]) == 7.0)
    assert not np.any(logits == 7.0)


# ------------------------------------------------------------------------------------------------ arguments


@pytest.mark.frameworks
@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_functions_may_write_to_their_arguments(dtype):
    torch = needs("torch")

    def in_place(logits, temp, *, where=None, noise=None):
        if noise is not None:
            logits += noise.mul_(1)
        if where is not None:
            logits.masked_fill_(where.logical_not_(), -torch.inf)
        mask = torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1)
        probs = torch.softmax(logits.div_(temp), -1, dtype=torch.promote_types(logits.dtype, torch.float32))
        return (probs + (mask - probs).detach()).to(logits.dtype)

    logits, grad_mask, noise, where = inputs(dtype)
    noise = np.zeros_like(noise)
    arguments = [array.copy() for array in (logits, grad_mask, noise, where)]
    subject = adapters.from_torch(in_place)
    agree(subject, dtype)
    for call in (
        functools.partial(subject.forward, arguments[0]),
        functools.partial(subject.backward, arguments[1], arguments[0]),
    ):
        assert np.all(np.isfinite(call(0.5, noise=arguments[2], where=arguments[3]).astype(np.float64)))
    for argument, array in zip(arguments, (logits, grad_mask, noise, where), strict=True):
        np.testing.assert_array_equal(argument, array)


def test_array_functions_may_write_to_their_arguments():
    def forward(logits, temp, *, noise=None):
        logits += noise
        noise[:] = 0
        return logits

    def backward(grad_mask, logits, temp, *, noise=None):
        grad_mask /= temp
        return forward(logits, temp, noise=noise) * grad_mask

    arrays = inputs("float32")[:3]
    copies = [array.copy() for array in arrays]
    subject = adapters.from_array_functions(forward, backward)
    subject.forward(copies[0], 0.5, noise=copies[2])
    subject.backward(copies[1], copies[0], 0.5, noise=copies[2])
    for copy, array in zip(copies, arrays, strict=True):
        np.testing.assert_array_equal(copy, array)


@pytest.mark.frameworks
@of_every_framework
@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_arrays_of_any_layout(framework, dtype):
    needs(framework)
    subject = FROM[framework](lambda logits, temp: logits * 1)
    logits = inputs(dtype)[0]
    read_only = logits.copy()
    read_only.flags.writeable = False
    for given in (logits[::-1, ::2], logits.T, np.asfortranarray(logits), logits[:0], logits[0, 0], read_only):
        np.testing.assert_array_equal(subject.forward(given, 0.5), given)
        np.testing.assert_array_equal(subject.backward(given, given, 0.5), given)


@pytest.mark.frameworks
def test_jax_computes_in_64_bits_where_it_is_given_them_and_nowhere_else():
    jax = needs("jax")

    @jax.jit
    def select(logits, temp, *, noise=None):
        return jax.numpy.ones(logits.shape) * logits * 1 + (0 if noise is None else noise)

    subject = adapters.from_jax(select)
    for dtype in ("float32", "float64", "float32", "float64"):
        logits, grad_mask, noise, _ = inputs(dtype)
        assert subject.forward(logits, 0.5).dtype == dtype
        assert subject.backward(grad_mask, logits, 0.5).dtype == dtype
        assert subject.forward(logits, 0.5, noise=noise).dtype == dtype
        assert jax.numpy.ones(1).dtype == np.float32
    exact = 1 / np.arange(1, 10.0)
    np.testing.assert_array_equal(subject.forward(exact, 0.5), exact)


# ------------------------------------------------------------------------------------------------ subnormal numbers


@pytest.mark.frameworks
@of_every_framework
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="measured on x86-64")
def test_subnormal_numbers_are_flushed_as_declared(framework, dtype):
    loaded = needs(framework)
    compiled = {
        "torch": lambda fn: loaded.compile(fn, backend="aot_eager"),
        "jax": lambda fn: loaded.jit(fn),
        "tensorflow": lambda fn: loaded.function(fn),
    }[framework]
    exp = loaded.numpy.exp if framework == "jax" else loaded.exp
    form = tolerance.Format.of(dtype)
    tiny = np.full(32, form.tiny).astype(dtype)
    halved, logarithm = np.full(32, form.tiny / 2).astype(dtype), np.full(32, np.log(form.tiny) - 1.5).astype(dtype)
    for fn, given in [
        (lambda logits, temp: logits * temp, tiny),  # a product
        (lambda logits, temp: logits + logits, halved),  # a sum of what is read as 0
        (lambda logits, temp: exp(logits), logarithm),
    ]:
        for function in (fn, compiled(fn)):
            subject = FROM[framework](function)
            flushed = subject.forward(given, 0.5) == 0
            assert flushed.all() == flushed.any() == (subject.flushes_subnormals and dtype != "float16")
    assert np.all(tiny / np.array(2, dtype) > 0)  # NumPy, in the same thread, is as it was


def test_flushing_is_declared():
    def backward(grad_mask, logits, temp):
        return grad_mask

    assert not adapters.from_array_functions(some, backward).flushes_subnormals
    assert adapters.from_array_functions(some, backward, flushes_subnormals=True).flushes_subnormals
    for framework in FRAMEWORKS:
        if importlib.util.find_spec(framework):
            assert FROM[framework](some).flushes_subnormals == (framework != "torch")
            for declared in (False, True):
                assert FROM[framework](some, flushes_subnormals=declared).flushes_subnormals == declared


# ------------------------------------------------------------------------------------------------ errors and names


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_missing_framework_is_named(framework, monkeypatch):
    monkeypatch.setitem(sys.modules, framework, None)
    words = f"from_{framework} needs the package {framework}, which is not installed: pip install {framework}"
    with pytest.raises(ModuleNotFoundError, match=words):
        FROM[framework](some)


def test_what_a_framework_lacks_is_its_own_message(monkeypatch):
    def broken(name):
        raise ModuleNotFoundError("No module named 'sympy'", name="sympy")

    monkeypatch.setattr(adapters, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="No module named 'sympy'"):
        adapters.from_torch(some)


@pytest.mark.frameworks
def test_a_bfloat16_tensor_needs_ml_dtypes(monkeypatch):
    torch = needs("torch")
    subject = adapters.from_torch(lambda logits, temp: logits.to(torch.bfloat16))
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(ModuleNotFoundError, match="needs the package ml_dtypes: pip install ml_dtypes"):
        subject.forward(np.ones(3, np.float32), 0.5)


@pytest.mark.frameworks
@of_every_framework
def test_errors_pass_through(framework):
    needs(framework)

    def failing(logits, temp):
        raise KeyError("mine")

    logits, grad_mask, *_ = inputs("float32")
    subject = FROM[framework](failing)
    for call in (lambda: subject.forward(logits, 0.5), lambda: subject.backward(grad_mask, logits, 0.5)):
        with pytest.raises(KeyError, match="mine"):
            call()


@pytest.mark.frameworks
@of_every_framework
def test_what_is_no_function_of_logits_and_temp(framework):
    needs(framework)

    def one(logits):
        return logits

    def three(logits, temp, hard):
        return logits

    def sampled(logits, temp, *, noise):
        return logits

    with pytest.raises(TypeError, match=r"one cannot be called as one\(logits, temp\): too many positional arguments"):
        FROM[framework](one)
    with pytest.raises(TypeError, match=r"three cannot be called as three\(logits, temp\): missing a required"):
        FROM[framework](three)
    with pytest.raises(TypeError, match=r"expected a function to call as int\(logits, temp\), was given 3"):
        FROM[framework](3)

    assert FROM[framework](sampled).options == {"noise"}


def test_array_functions_must_fit():
    with pytest.raises(TypeError, match=r"<lambda> cannot be called as <lambda>\(grad_mask, logits, temp\): too many"):
        adapters.from_array_functions(some, lambda grad_mask: grad_mask)
    with pytest.raises(TypeError, match=r"cannot be called as <lambda>\(logits, temp\): "):
        adapters.from_array_functions(lambda: 0, some)


def test_an_implementation_is_frozen_and_has_a_name():
    named = adapters.from_array_functions(everything, lambda g, logits, temp: g, name="mine")
    assert named.name == named.__name__ == "mine"
    assert adapters.Implementation.__name__ == "Implementation"
    with pytest.raises(FrozenInstanceError):
        named.name = "yours"


def test_importing_and_using_array_functions_loads_no_framework():
    code = """
import json, sys
from npselect.testing import from_array_functions
from npselect import straight_through
from_array_functions(straight_through.forward, straight_through.backward).forward([1.0, 2.0], 0.5)
print(json.dumps(sorted(sys.modules)))
"""
    command = [*children.python(), "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {name.split(".")[0] for name in json.loads(done.stdout)} & {*FRAMEWORKS, "ml_dtypes", "keras"}


# ------------------------------------------------------------------------------------------------ the table


@functools.cache
def compared():
    """The example's names, and the lines that it prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        names = runpy.run_path(str(EXAMPLES / "compare_frameworks.py"), run_name="__main__")
    return names, printed.getvalue().splitlines()


def cells(line):
    return line.removeprefix("| ").removesuffix(" |").split(" | ")


@pytest.mark.frameworks
def test_frameworks_are_compared():
    names, lines = compared()
    assert lines[0] == "| input | npselect | torch | jax | tensorflow |"
    table = [cells(line) for line in lines[2:]]
    assert [row[0] for row in table] == [text for text, *_ in names["QUESTIONS"]]
    answers = {row[0]: dict(zip(names["COLUMNS"], row[1:], strict=True)) for row in table}
    for text, answer in answers.items():
        for framework in FRAMEWORKS:
            assert (answer[framework] == "not installed") == (importlib.util.find_spec(framework) is None), text
    npselect = [answer["npselect"] for answer in answers.values()]
    assert npselect.count("ValueError") == 3
    assert npselect.count("NaN row") == 3


@pytest.mark.frameworks
def test_docs_show_what_frameworks_do():
    """Column by column; which lone entries oneDNN makes NaN depends on the processor."""
    for framework in FRAMEWORKS:
        pytest.importorskip(framework, reason=f"{framework} is not installed: the table cannot be measured again")
    measured = [cells(line) for line in compared()[1]]
    page = (ROOT / "docs" / "why" / "frameworks.md").read_text(encoding="utf-8")
    readme = [cells(line) for line in page.splitlines()]
    first = readme.index(measured[0])
    shown = readme[first : first + len(measured)]
    assert len(measured) > 12
    for row, expected in zip(shown, measured, strict=True):
        assert row[:-1] == expected[:-1]
        assert row[-1] == expected[-1] or "nan" in row[-1].lower() + expected[-1].lower()


def test_a_missing_framework_is_a_column_without_answers(monkeypatch):
    for framework in FRAMEWORKS:
        monkeypatch.setitem(sys.modules, framework, None)
    compare = module("compare_frameworks")
    for row in compare.rows():
        assert row[1] != "not installed"
        assert row[2:] == ["not installed"] * 3


# ------------------------------------------------------------------------------------------------ what is set around it


def short_cases():
    return [case for case in testing.cases() if case.logits.size < 700]


@pytest.mark.frameworks
@pytest.mark.parametrize("mode", ["no_grad", "inference_mode", "set_grad_enabled"])
def test_torch_modes_around_a_check(mode):
    torch = needs("torch")

    def idiom(logits, temp):
        probs = torch.softmax(logits / temp, -1)
        hard = torch.zeros_like(probs).scatter_(-1, probs.argmax(-1, keepdim=True), 1.0)
        return probs + (hard - probs).detach()

    around = torch.set_grad_enabled(False) if mode == "set_grad_enabled" else getattr(torch, mode)()
    with around:
        report = testing.check(adapters.from_torch(idiom), cases=short_cases())
        assert report.ok, str(report)
        assert not torch.is_grad_enabled()
        assert torch.is_inference_mode_enabled() == (mode == "inference_mode")
    assert torch.is_grad_enabled()


@pytest.mark.frameworks
def test_jax_modes_around_a_check():
    jax = needs("jax")

    def idiom(logits, temp):
        probs = jax.nn.softmax(logits / temp)
        hard = jax.nn.one_hot(probs.argmax(-1), logits.shape[-1], dtype=logits.dtype)
        return probs + jax.lax.stop_gradient(hard - probs)

    subject = adapters.from_jax(idiom)
    cases = [testing.find_case(f"float32/{name}") for name in ("edge/-inf", "edge/NaN", "random/K=7")]
    layer = adapters.layer_from_jax(lambda x, logits, temp: idiom(logits, temp) @ x)
    x, logits, ones = np.float32([[1], [2]]), np.float32([[np.nan, 1], [0, 1]]), np.ones((2, 1), np.float32)
    for around in (jax.debug_nans(True), jax.debug_infs(True), jax.transfer_guard("disallow")):
        with around:
            report = testing.check(subject, cases=cases)
            assert report.ok, str(report)
            assert np.isnan(layer.forward(x, logits, 1.0)).tolist() == [[True], [False]]
            assert np.isnan(layer.backward(ones, x, logits, 1.0)[1]).all(-1).tolist() == [True, False]


@pytest.mark.frameworks
def test_layers_in_jax_of_float64_cotangents():
    needs("jax")
    layer = adapters.layer_from_jax(lambda x, logits, temp: x[logits.argmax(-1)])
    grad_x, _ = layer.backward(np.full((1, 1), 0.1), np.ones((2, 1)), np.zeros((1, 2)), 1.0)
    assert grad_x[0, 0] == 0.1  # in float64


@pytest.mark.frameworks
def test_tensorflow_must_record_gradients():
    tf = needs("tensorflow")
    subject = adapters.from_tensorflow(lambda logits, temp: tf.nn.softmax(logits / temp))
    ones = np.float32([[1, 1]])
    with tf.GradientTape() as outer, outer.stop_recording():
        np.testing.assert_array_equal(subject.backward(ones, ones, 1.0), 0 * ones)
    with tf.Graph().as_default(), pytest.raises(RuntimeError, match=r"outside of tf\.function"):
        subject.forward(ones, 1.0)
    with tf.init_scope(), pytest.raises(RuntimeError, match="records nothing here; call from_tensorflow outside"):
        subject.backward(ones, ones, 1.0)


@pytest.mark.frameworks
def test_layers_in_tensorflow_must_record_gradients():
    tf = needs("tensorflow")
    layer = adapters.layer_from_tensorflow(lambda x, logits, temp: tf.nn.softmax(logits / temp) @ x)
    ones = np.float32([[1, 1], [1, 1]])
    with tf.Graph().as_default(), pytest.raises(RuntimeError, match=r"layer_from_tensorflow needs eager execution"):
        layer.forward(ones, ones, 1.0)
    with tf.init_scope(), pytest.raises(RuntimeError, match="records nothing here; call layer_from_tensorflow"):
        layer.backward(ones, ones, ones, 1.0)
    whole = adapters.layer_from_tensorflow(lambda x, logits, temp: tf.argmax(logits, -1))
    for grad in whole.backward(np.ones(2), ones, ones, 1.0):  # as a selection's: integers have no gradient
        np.testing.assert_array_equal(grad, 0 * ones)


# ------------------------------------------------------------------------------------------------ normalised logits


@pytest.mark.frameworks
@pytest.mark.parametrize("operator", [straight_through, gumbel_softmax])
def test_normalised_logits_are_declared_or_named(operator):
    """The arithmetic of RelaxedOneHotCategorical of PyTorch and Pyro."""
    torch = needs("torch")

    def relaxed(logits, temp, *, noise=None):
        logits = logits - logits.logsumexp(-1, keepdim=True)
        scores = (logits if noise is None else logits + noise) / temp
        probs = (scores - scores.logsumexp(-1, keepdim=True)).exp()
        hard = torch.zeros_like(probs).scatter_(-1, probs.argmax(-1, keepdim=True), 1.0)
        return probs + (hard - probs).detach()

    cases = [case for case in testing.cases(operator=operator) if case.logits.size < 5000]
    declared = testing.check(adapters.from_torch(relaxed, normalises_logits=True), operator=operator, cases=cases)
    assert declared.ok, str(declared)
    assert declared.normalises_logits
    assert "declared to normalise logits" in str(declared)
    assert max(case.fraction for case in declared.cases if case.fraction > 0) < 0.5
    report = testing.check(adapters.from_torch(relaxed), operator=operator, cases=cases)
    assert not report.ok
    assert str(report.likely_cause).endswith("normalised first, which normalises_logits = True declares")
    for wrong in (
        lambda logits, temp, *, noise=None: relaxed(logits, 1.01 * temp, noise=noise),
        lambda logits, temp, *, noise=None: relaxed(logits, temp, noise=noise).detach(),
        lambda logits, temp, *, noise=None: relaxed(logits * temp, temp, noise=noise),
    ):
        subject = adapters.from_torch(wrong, normalises_logits=True)
        assert not testing.check(subject, operator=operator, cases=cases[:12]).ok
