"""Adapters with transforms: honest functions pass in each; faults of a transformed path alone are found."""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from npselect import gumbel_softmax, straight_through, testing
from npselect.testing.adapters.transforms import jax_transforms, transformed

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.frameworks
of_a_function = "ignore:.*should not be instantiated:DeprecationWarning"  # torch.compile does, of a Function
of_all = functools.partial(pytest.param, marks=pytest.mark.slow)  # a smaller one stands beside it
of_script = "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"  # in torch's own modules


def needs(framework):
    return pytest.importorskip(framework, reason=f"{framework} is not installed")


@functools.cache
def example(framework):
    needs(framework)
    spec = importlib.util.spec_from_file_location(f"transformed_{framework}", EXAMPLES / f"{framework}_select.py")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


@functools.cache
def asked(operator=straight_through):
    """Cases of each kind and of few shapes, as each is compiled: axes, `where`, candidates of -inf, no rows."""
    rng = np.random.default_rng(21)
    shapes = {"rows": (9, 7), "axis=0": (7, 9), "axis=1": (2, 7, 3), "one axis": (7,), "no rows": (0, 7)}
    axes = {"axis=0": 0, "axis=1": 1, "one axis": 0}

    def case(name, number):
        shape, axis = shapes[name], axes.get(name, -1)
        logits, grad_mask, noise = rng.standard_normal((3, *shape)).astype(np.float32)
        options = {} if axis == -1 else {"axis": axis, "where": rng.random(shape) < 0.8}
        if name == "rows":
            logits[::3, ::2] = -np.inf
        if operator is gumbel_softmax:
            logits, noise = np.round(16 * logits) / 16, np.round(16 * noise) / 16  # whose sum is exact
            options["noise"] = noise
        return testing.Case(name, "", logits, grad_mask, (0.5, 1.5)[number % 2], **options)

    return [case(name, number) for number, name in enumerate(shapes)]


def report_of(adapter, fn, transforms, *, operator=straight_through, **options):
    cases = asked(operator)
    if adapter is testing.from_jax:  # which compiles each operation for each shape
        cases = [case for case in cases if case.name in ("rows", "axis=1", "no rows")]
    return testing.check(adapter(fn, transforms=transforms, **options), operator=operator, cases=cases)


def cause_of(adapter, fn, *transforms):
    """What is said of a function that is right as it is, and wrong in the transforms."""
    right = report_of(adapter, fn, ())
    assert right.ok, str(right)
    report = report_of(adapter, fn, transforms)
    assert not report.ok
    return " ".join(filter(None, [report.likely_cause, *(str(c.difference) for c in report.cases if c.difference)]))


# ------------------------------------------------------------------------------------------------ right answers


@pytest.mark.parametrize("transforms", [("vmap",), "checkpoint", ("autocast",), ("vmap", "autocast", "checkpoint")])
def test_torch_idiom_passes(transforms):
    select = example("torch").detach_select
    for operator in (straight_through, gumbel_softmax):
        report = report_of(testing.from_torch, select, transforms, operator=operator)
        assert report.ok, str(report)
        assert report.options == testing.check(testing.from_torch(select), cases=asked()[:1]).options


@pytest.mark.filterwarnings(of_script)
@pytest.mark.parametrize("transforms", [("compile",), of_all(("vmap", "compile"))])
def test_torch_idiom_passes_compiled(transforms):
    torch = needs("torch")
    torch._dynamo.reset()
    subject = testing.from_torch(example("torch").detach_select, transforms=transforms)
    report = testing.check(subject, cases=[case for case in asked() if case.name in ("rows", "axis=0")])
    assert report.ok, str(report)


@pytest.mark.parametrize("transforms", ["jit", ("vmap", "jit"), of_all(("vmap", "remat", "jit"))])
def test_jax_examples_pass(transforms):
    pairs = ((straight_through, "stop_gradient_select"), (gumbel_softmax, "custom_vjp_select"))
    for operator, select in pairs:
        report = report_of(testing.from_jax, getattr(example("jax"), select), transforms, operator=operator)
        assert report.ok, str(report)


@pytest.mark.parametrize(("framework", "transforms"), [("torch", ("vmap", "checkpoint")), ("jax", ("vmap", "remat"))])
def test_learned_temperatures_are_mapped_too(framework, transforms):
    library = needs(framework)
    softmax = {"torch": lambda w: library.softmax(w, -1), "jax": lambda w: library.nn.softmax(w)}[framework]
    stopped = {"torch": lambda a: a.detach(), "jax": lambda a: library.lax.stop_gradient(a)}[framework]

    def select(logits, temp):
        probs = softmax(logits / temp)
        hard = probs * 0 + (
            probs >= probs.max(-1, keepdims=True) if framework == "jax" else probs >= probs.amax(-1, True)
        )
        return probs + stopped(hard - probs)

    adapter = {"torch": testing.from_torch, "jax": testing.from_jax}[framework]
    subject = adapter(select, row_temp=True, learned_temp=True, transforms=transforms)
    plain = adapter(select, row_temp=True, learned_temp=True)
    rng = np.random.default_rng(3)
    logits, grad_mask = rng.standard_normal((2, 6, 5)).astype(np.float32)
    for temp in (np.float32(0.7), rng.uniform(0.5, 2, (6, 1)).astype(np.float32)):
        assert subject.backward_temp(grad_mask, logits, temp).shape == np.shape(temp)
        for function in ("backward", "backward_temp"):
            got = getattr(subject, function)(grad_mask, logits, temp)
            np.testing.assert_allclose(got, getattr(plain, function)(grad_mask, logits, temp), rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------------------------------------ names


def test_unknown_names_are_refused():
    for framework, adapter, names in (
        ("torch", testing.from_torch, "compile, vmap, autocast, checkpoint"),
        ("jax", testing.from_jax, "jit, vmap, remat"),
    ):
        needs(framework)
        with pytest.raises(ValueError, match=rf"transforms names 'grad'; it takes some of {names}$"):
            adapter(lambda logits, temp: logits, transforms=["vmap", "grad"])
        with pytest.raises(ValueError, match="names 'pmap'"):
            adapter(lambda logits, temp: logits, transforms="pmap")


def test_the_first_is_next_to_the_function():
    needs("jax")
    log = []
    known = {
        name: functools.partial(lambda name, fn: lambda x, t: (log.append(name), fn(x, t))[1], name) for name in "ab"
    }
    assert transformed(lambda x, t: x, ["a", "b"], known)(1, 0.5) == 1
    assert log == ["b", "a"]
    assert set(jax_transforms(needs("jax"))) == {"jit", "vmap", "remat"}


# ------------------------------------------------------------------------------------------------ planted faults


def idiom(torch, logits, temp):
    probs = torch.softmax(logits / temp, -1)
    hard = torch.zeros_like(probs).scatter(-1, probs.argmax(-1, keepdim=True), 1.0)
    return probs, hard


def hand_written(torch, **more):
    """The mask with a gradient of its own, which may have a rule for vmap."""

    def forward(logits, temp):
        return idiom(torch, logits, temp)[1]

    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])
        ctx.temp = inputs[1]

    def backward(ctx, grad_mask):
        (logits,) = ctx.saved_tensors
        probs, _ = idiom(torch, logits, ctx.temp)
        return probs * (grad_mask - (probs * grad_mask).sum(-1, keepdim=True)) / ctx.temp, None

    named = {"forward": forward, "setup_context": setup_context, "backward": backward}
    methods = {name: staticmethod(method) for name, method in named.items()}
    return type("Select", (torch.autograd.Function,), methods | more)


def test_a_function_without_a_rule_for_vmap():
    torch = needs("torch")
    select = hand_written(torch).apply
    assert "vmap support" in cause_of(testing.from_torch, lambda logits, temp: select(logits, temp), "vmap")
    ruled = hand_written(torch, generate_vmap_rule=True).apply
    report = report_of(testing.from_torch, lambda logits, temp: ruled(logits, temp), ("vmap", "checkpoint"))
    assert report.ok, str(report)


def test_a_wrong_rule_for_vmap():
    torch = needs("torch")

    def vmap(info, in_dims, logits, temp):  # it forgets the temperature's power: right forward, wrong backward
        return select.apply(logits, 2 * temp), 0

    select = hand_written(torch, vmap=staticmethod(vmap))
    assert "backward" in cause_of(testing.from_torch, lambda logits, temp: select.apply(logits, temp), "vmap")


def test_a_mask_that_autocast_makes_a_bfloat16():
    torch = needs("torch")

    def select(logits, temp):
        probs, hard = idiom(torch, logits, temp)
        return (probs + (hard - probs).detach()) @ torch.eye(logits.shape[-1], dtype=logits.dtype)

    assert "bfloat16" in cause_of(testing.from_torch, select, "autocast")


def test_a_detach_that_is_lost_in_a_checkpoint():
    torch = needs("torch")
    seen = []

    def select(logits, temp):  # a cache by identity, which the second run of a checkpoint hits
        if seen and seen[-1] is logits:
            return logits.detach()
        seen.append(logits)
        probs, hard = idiom(torch, logits, temp)
        return probs + (hard - probs).detach()

    assert "CheckpointError" in cause_of(testing.from_torch, select, "checkpoint")


def test_a_second_run_of_a_checkpoint_that_comes_out_otherwise():
    torch = needs("torch")
    seen = []

    def select(logits, temp):  # a schedule by identity: what is seen again is annealed
        if seen and seen[-1] is logits:
            temp = temp / 2
        seen.append(logits)
        probs, hard = idiom(torch, logits, temp)
        return probs + (hard - probs).detach()

    assert "backward" in cause_of(testing.from_torch, select, "checkpoint")


@pytest.mark.filterwarnings(of_script)
def test_what_is_done_while_compiling_alone():
    torch = needs("torch")
    torch._dynamo.reset()

    def select(logits, temp):
        probs, hard = idiom(torch, logits, 1.0 if torch.compiler.is_compiling() else temp)
        return probs + (hard - probs).detach()

    cases = [case for case in asked() if case.name == "rows"]
    right, wrong = (
        testing.check(testing.from_torch(select, transforms=transforms), cases=cases)
        for transforms in ((), ["compile"])
    )
    assert right.ok
    assert not wrong.ok
    assert wrong.likely_cause


def jax_idiom(jax, logits, temp):
    probs = jax.nn.softmax(logits / temp)
    hard = jax.nn.one_hot(probs.argmax(-1), logits.shape[-1], dtype=logits.dtype)
    return probs + jax.lax.stop_gradient(hard - probs)


def test_a_temperature_that_jit_hides():
    jax = needs("jax")

    def select(logits, temp):
        return jax_idiom(jax, logits, temp if isinstance(temp, float) else 1.0)

    assert "temp" in cause_of(testing.from_jax, select, "jit")


def test_a_temperature_that_is_read_as_a_float():
    jax = needs("jax")
    for transform in ("jit", "remat"):
        cause = cause_of(testing.from_jax, lambda logits, temp: jax_idiom(jax, logits, float(temp)), transform)
        assert "ConcretizationTypeError" in cause


def test_a_row_that_vmap_gives_alone():
    jax = needs("jax")

    def select(logits, temp):
        return jax_idiom(jax, logits, temp if logits.ndim > 1 else 1.0)

    cases = [case for case in asked() if case.name == "rows"]
    right, wrong = (
        testing.check(testing.from_jax(select, transforms=transforms), cases=cases) for transforms in ((), ["vmap"])
    )
    assert right.ok
    assert not wrong.ok
    assert "temp" in wrong.likely_cause
