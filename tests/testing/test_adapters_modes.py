"""Adapters: subnormal numbers, errors, modes of a framework around a call, and the table of frameworks."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import json
import platform
import runpy
import subprocess
import sys
from dataclasses import FrozenInstanceError

import children
import numpy as np
import pytest
from frameworks import (
    DTYPES,
    EXAMPLES,
    FRAMEWORKS,
    FROM,
    ROOT,
    everything,
    inputs,
    module,
    needs,
    of_every_framework,
    some,
)

from npselect import gumbel_softmax, straight_through, testing
from npselect.testing import adapters, tolerance

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

    monkeypatch.setattr("npselect.testing.adapters.common.import_module", broken)
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
    assert isinstance(named, testing.Implementation)
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
