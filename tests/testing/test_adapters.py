"""Adapters, and the examples that go through them: NumPy arrays in and out, and npselect agrees."""

from __future__ import annotations

import functools
import re

import numba
import numpy as np
import pytest
from frameworks import (
    DTYPES,
    REFERENCE,
    SUBJECTS,
    agree,
    example,
    inputs,
    needs,
    of_every_framework,
    of_every_subject,
)

from npselect import gumbel_softmax, straight_through, testing
from npselect.testing import adapters


@pytest.mark.frameworks
@pytest.mark.parametrize(  # every dtype by one subject of a framework: arrays are the adapter's, not the subject's
    ("framework", "name", "dtype"),
    [
        (framework, name, dtype)
        for framework, names in SUBJECTS.items()
        for name, dtypes in zip(names, (DTYPES, ["float32"]), strict=True)
        for dtype in dtypes
    ],
)
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
        ("bfloat16", 2**16),
        ("float32", 2**16),
        pytest.param("bfloat16", 2**20, marks=pytest.mark.slow),
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
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
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
