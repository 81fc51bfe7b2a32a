"""The gradient of a learned temperature, and a temperature for each row: the bound, honest code and frameworks."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
from frameworks import FROM, needs
from honest import DTYPES, IN_FRAMEWORKS, total
from learned_temp import backward, backward_temp, forward, in_order, judged, subject, temp_cases

from npselect import gumbel_softmax, straight_through, testing
from npselect.testing import temperature
from npselect.testing.dtypes import floating_dtype
from npselect.testing.profile import Profile
from npselect.testing.temperature_cases import temperature_cases

OPERATORS = [straight_through, gumbel_softmax]


# ------------------------------------------------------------------------------------------------ an honest textbook


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("operator", OPERATORS)
def test_honest_is_accepted(operator, dtype, record):
    for by_temp in (backward_temp, in_order):
        report = judged(subject(backward_temp=by_temp), dtype, operator)
        assert report.ok, str(report)
        assert report.likely_cause is None
        worst = max(case.fraction for case in report.cases if case.group == "temp" and case.fraction >= 0)
        record(f"error/bound with learned temperatures, {dtype}", worst)
        assert worst < 0.9


@pytest.mark.parametrize(
    "dtype", ["float32", *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in DTYPES if dtype != "float32")]
)
@pytest.mark.parametrize("operator", OPERATORS)
def test_own_operators_pass_strict(operator, dtype):
    module = SimpleNamespace(**{name: getattr(operator, name) for name in ("forward", "backward", "backward_temp")})
    module.row_temp = True
    report = judged(module, dtype, operator, profile="strict")
    assert report.ok, str(report)
    assert all(case.verdict == "passed" for case in report.cases)


def test_what_is_declared_is_asked(monkeypatch):
    def few_cases(dtype, temp, operator, learned_temp=False):
        return [*temp_cases(dtype)[:3], *(temperature_cases(dtype, temp) if learned_temp else ())]

    monkeypatch.setattr(sys.modules["npselect.testing.check"], "all_cases", few_cases)
    small = {"dtypes": "float16"}
    bare = testing.check(SimpleNamespace(forward=forward, backward=backward), **small)
    assert (bare.row_temp, bare.backward_temp) == (False, False)
    assert len(bare.cases) == 3
    rows = testing.check(SimpleNamespace(forward=forward, backward=backward, row_temp=True), **small)
    assert sum(case.group == "temp" for case in rows.cases) == len(list(temperature_cases(np.dtype("float16"), 0.6)))
    assert "a temperature for each row" in rows.heading[1]
    given = judged(SimpleNamespace(forward=forward, backward=backward))
    skipped = {case.name for case in given.cases if case.verdict == "not asked"}
    assert skipped == {case.name for case in temp_cases("float32") if case.row_temp is not None}


def test_what_is_declared_must_be_callable():
    with pytest.raises(TypeError, match=r"backward_temp\(grad_mask, logits, temp\)"):
        testing.check(subject(backward_temp=lambda logits: logits))
    with pytest.raises(TypeError, match=r"has no function backward_temp\(grad_mask, logits, temp\)"):
        testing.check(subject(backward_temp=0.5))


def test_a_case_by_its_id():
    for operator, prefix in zip(OPERATORS, ("", "gumbel/"), strict=True):
        case = testing.find_case(f"{prefix}float32/temp/of a row")
        assert case.given_temp.shape == (64, 1)
        case.check_forward(operator.forward(case.logits, case.given_temp, **case.options))
        case.check_backward(operator.backward(case.grad_mask, case.logits, case.given_temp, **case.options))


# ------------------------------------------------------------------------------------------------ the bound


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_oracle_and_the_bound_by_mpmath(dtype):
    """In mpmath from the definition: the derivative of ``sum_rows <g, softmax(w / temp)>`` by finite differences."""
    rng = np.random.default_rng(4)
    w, g = rng.normal(size=(2, 5, 4)).astype(dtype)
    temp = float(np.asarray(0.6, dtype))
    case = testing.Case("many/temp", "", w, g, temp)

    def value(temp):
        rows = [[mpmath.exp(mpmath.mpf(float(x)) / temp) for x in row] for row in w]
        return sum(mpmath.mpf(float(c)) * e / sum(es) for es, cs in zip(rows, g, strict=True)
                   for e, c in zip(es, cs, strict=True))  # fmt: skip

    with mpmath.workdps(60):
        step = mpmath.mpf(10) ** -20
        exact = float((value(temp + step) - value(temp - step)) / (2 * step))
    allowed = float(temperature.bound(case, Profile("standard")))
    assert abs(float(case.grad_temp) - exact) < min(allowed, 1e-2 * abs(exact) + 1e-6)
    assert abs(float(backward_temp(g, w, temp)) - exact) < allowed
    assert 0 < allowed < {"float16": 0.1, "bfloat16": 0.8}.get(dtype, 1e-4) * abs(exact) * 40


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logits_that_are_normalised_first(dtype):
    """Equal logits are 0 apart and at 0, and their logarithms of probabilities are not: roundings have a size."""

    def normalised(w):
        z = w - np.max(w, axis=-1, keepdims=True)
        return z - np.log(total(np.exp(z)))

    def of_both(grad_mask, logits, temp):
        y = normalised(logits)
        grads = backward(grad_mask, y, temp)
        return grads - np.exp(y) * total(grads)

    def by_temp(grad_mask, logits, temp):
        return backward_temp(grad_mask, normalised(logits), temp)

    g = np.random.default_rng(8).standard_normal((40, 7))
    equal = testing.Case("many/equal", "", np.zeros_like(g, dtype), g.astype(dtype), 0.75)
    cases = [equal, *(case for case in temp_cases(dtype) if case.group == "temp" and not case.options)]
    given = {"forward": lambda logits, temp: forward(normalised(logits), temp), "backward": of_both}
    honest = subject(**given, backward_temp=by_temp, normalises_logits=True)
    assert np.any(by_temp(equal.grad_mask, equal.logits, equal.temp) != equal.grad_temp)
    report = testing.check(honest, cases=cases)
    assert report.ok, str(report)
    honest.backward_temp = lambda *given: by_temp(*given) / 2
    assert not testing.check(honest, cases=cases).ok


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bound_does_not_hide_what_is_wrong(dtype):
    """Where nothing cancels: a wrong sign, no gradient or half of one are seen in 16 bits, too."""
    allowed = {"float16": 1 / 8, "bfloat16": 0.9, "float32": 1e-3, "float64": 1e-12}[dtype]
    for case in temperature_cases(floating_dtype(dtype), 0.6):
        if case.note == "the gradient of temp, in which nothing cancels":
            limit, exact = temperature.bound(case, Profile("standard")), np.abs(case.grad_temp.astype(np.float64))
            assert np.median(limit / exact) < allowed, case.id


# ------------------------------------------------------------------------------------------------ frameworks


def torch_select(logits, temp, *, where=None):
    import torch

    temp = torch.as_tensor(temp, dtype=logits.dtype)
    t = logits / temp
    t = t if where is None else t.masked_fill(~where, -torch.inf)
    probs = torch.softmax(t, -1)
    mask = torch.zeros_like(t).scatter(-1, t.argmax(-1, keepdim=True), 1.0)
    return probs + (mask - probs).detach()


def jax_select(logits, temp, *, where=None):
    import jax

    jnp = jax.numpy
    t = logits / jnp.asarray(temp, logits.dtype)
    t = t if where is None else jnp.where(where, t, -jnp.inf)
    probs = jax.nn.softmax(t, -1)
    mask = jax.nn.one_hot(jnp.argmax(t, -1), t.shape[-1], dtype=t.dtype)
    return probs + jax.lax.stop_gradient(mask - probs)


def tensorflow_select(logits, temp, *, where=None):
    import tensorflow as tf

    t = logits / tf.convert_to_tensor(temp, logits.dtype)
    t = t if where is None else tf.where(where, t, tf.cast(-np.inf, t.dtype))
    probs = tf.nn.softmax(t, -1)
    mask = tf.one_hot(tf.argmax(t, -1), t.shape[-1], dtype=t.dtype)
    return probs + tf.stop_gradient(mask - probs)


SELECT = {"torch": torch_select, "jax": jax_select, "tensorflow": tensorflow_select}


@pytest.mark.frameworks
@pytest.mark.parametrize(("framework", "dtype"), IN_FRAMEWORKS)
def test_frameworks_are_accepted(framework, dtype, record):
    needs(framework)
    adapted = FROM[framework](SELECT[framework], row_temp=True, learned_temp=True)
    report = judged(adapted, dtype, few=True)
    assert report.ok, str(report)
    assert {case.verdict for case in report.cases} == {"passed"}
    assert (report.row_temp, report.backward_temp) == (True, True)
    worst = max(case.fraction for case in report.cases if case.group == "temp" and case.fraction >= 0)
    record(f"error/bound with learned temperatures, {framework}, {dtype}", worst)


@pytest.mark.frameworks
@pytest.mark.parametrize("framework", ["torch", "tensorflow", pytest.param("jax", marks=pytest.mark.slow)])
def test_a_detached_temperature_is_named(framework):
    needs(framework)

    def detached(logits, temp):
        if framework == "torch":
            temp = temp.detach() if hasattr(temp, "detach") else temp
        elif framework == "jax":
            temp = __import__("jax").lax.stop_gradient(temp)
        else:
            temp = __import__("tensorflow").stop_gradient(temp)
        return SELECT[framework](logits, temp)

    report = judged(FROM[framework](detached, row_temp=True, learned_temp=True), few=True)
    assert report.likely_cause == "backward_temp: temp is detached: its gradient is 0"
