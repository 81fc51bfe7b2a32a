"""The gradient of a learned temperature, and a temperature for each row: the bound, honest code and planted faults."""

from __future__ import annotations

import functools
import sys
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
from honest import DTYPES, as_rows, hard, softmax, total
from test_adapters import FROM, needs

from npselect import gumbel_softmax, straight_through, testing
from npselect.testing import temperature
from npselect.testing.dtypes import floating_dtype
from npselect.testing.profile import Profile
from npselect.testing.temperature_cases import temperature_cases

OPERATORS = [straight_through, gumbel_softmax]


@functools.cache
def temp_cases(dtype, operator=straight_through):
    """Those of the temperature, and some others: ties, -inf, several axes, candidates that are not offered."""
    names = ("edge/ties", "edge/-inf", "random/K=10", "random/offset", "random/saturated", "edge/temp=0.0")
    options = ["axis", "where", "row_temp"]
    cases = testing.cases(dtype, operator=operator, options=options, profile="strict")
    return [case for case in cases if case.group in ("temp", "axis", "where") or case.name in names]


FEW = [
    "random/K=10",
    *(f"temp/{name}" for name in ("one sign", "of a row", "one in an array", "of a row, again", "where=")),
]


def judged(subject, dtype="float32", operator=straight_through, few=False, **options):
    """In few cases if functions are compiled for every shape."""
    cases = [case for case in temp_cases(dtype, operator) if not few or case.name in FEW]
    return testing.check(subject, cases=cases, dtypes=dtype, operator=operator, **options)


# ------------------------------------------------------------------------------------------------ an honest textbook


def chosen_from(logits, noise):
    return logits if noise is None else logits + noise


def quotients(logits, temp, where, noise):
    t = (chosen_from(logits, noise) / np.asarray(temp, logits.dtype)).astype(logits.dtype)
    return t if where is None else np.where(where, t, t.dtype.type(-np.inf))


def forward(logits, temp, *, axis=-1, where=None, noise=None):
    rows, back = as_rows(quotients(logits, np.asarray(1), where, noise), axis)
    return back(hard(rows, 1.0))


def backward(grad_mask, logits, temp, *, axis=-1, where=None, noise=None):
    rows, back = as_rows(quotients(logits, temp, where, noise), axis)
    p, g = softmax(rows, 1.0), as_rows(grad_mask, axis)[0]
    g = np.where(rows > -np.inf, g, g.dtype.type(0))
    return (back(p * (g - total(p * g))) / np.asarray(temp, logits.dtype)).astype(logits.dtype)


def summed(terms, like, dtype):
    """To the shape of the temperature, in no less than 32 bits."""
    wide = np.float32 if terms.dtype.itemsize == 2 else terms.dtype
    extra = terms.ndim - np.ndim(like)
    axes = tuple(i for i in range(terms.ndim) if i < extra or np.shape(like)[i - extra] == 1)
    result = np.sum(terms.astype(wide), axis=axes, keepdims=True)
    return result.reshape(np.shape(like)).astype(dtype)


def backward_temp(grad_mask, logits, temp, *, axis=-1, where=None, noise=None):
    grads = backward(grad_mask, logits, temp, axis=axis, where=where, noise=noise)
    w = chosen_from(logits, noise)
    terms = np.where(grads == 0, grads, grads * w / np.asarray(temp, w.dtype)).astype(w.dtype)
    return summed(-terms, temp, w.dtype)


def in_order(grad_mask, logits, temp, *, axis=-1, where=None, noise=None):
    """One term after another, as a loop adds them."""
    grads = backward(grad_mask, logits, temp, axis=axis, where=where, noise=noise)
    w, of = chosen_from(logits, noise), np.asarray(temp, logits.dtype)
    wide = np.float32 if w.dtype.itemsize == 2 else w.dtype
    terms = np.where(grads == 0, grads, grads * w).astype(wide)
    places = np.broadcast_to(np.arange(of.size).reshape(of.shape), w.shape).ravel()
    sums = np.zeros(of.size, wide)
    for place, term in zip(places, terms.ravel(), strict=True):
        sums[place] -= term
    return (sums.reshape(of.shape) / of.astype(wide)).astype(w.dtype)


def subject(**changes):
    functions = {"forward": forward, "backward": backward, "backward_temp": backward_temp, "row_temp": True}
    return SimpleNamespace(**functions | changes)


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


# ------------------------------------------------------------------------------------------------ planted faults


def changed(change):
    """What an honest gradient of temp becomes, given it and temp."""

    def by_temp(grad_mask, logits, temp, **options):
        result = backward_temp(grad_mask, logits, temp, **options)
        return np.asarray(change(result, np.asarray(temp, logits.dtype), logits)).astype(logits.dtype)

    return by_temp


def of_the_selected(grad_mask, logits, temp, *, axis=-1, where=None):
    grads = backward(grad_mask, logits, temp, axis=axis, where=where)
    rows, back = as_rows(quotients(logits, 1, where, None), axis)
    grads = grads * back(hard(rows, 1.0))
    terms = np.where(grads == 0, grads, -grads * logits / np.asarray(temp, logits.dtype))
    return summed(terms, temp, logits.dtype)


def of_the_cotangent(grad_mask, logits, temp, *, axis=-1, where=None):
    terms = -grad_mask * logits / np.asarray(temp, logits.dtype)
    return summed(terms if where is None else np.where(where, terms, terms.dtype.type(0)), temp, logits.dtype)


def not_summed(grad_mask, logits, temp, **options):
    return -backward(grad_mask, logits, temp, **options) * logits / np.asarray(temp, logits.dtype)


def nan_at_minus_inf(grad_mask, logits, temp, *, axis=-1, where=None):
    w = quotients(logits, 1, where, None)
    with np.errstate(invalid="ignore"):
        terms = backward(grad_mask, logits, temp, axis=axis, where=where) * w / np.asarray(temp, w.dtype)
    return summed(-terms, temp, w.dtype)


def mean_of_rows(result, temp, logits):
    return result / np.asarray(logits.size // logits.shape[-1] // temp.size, result.dtype)


FAULTS = {
    "sign": (changed(lambda r, temp, w: -r), "the sign is flipped"),
    "detached": (changed(lambda r, temp, w: 0 * r), "temp is detached: its gradient is 0"),
    "1/temp missing": (changed(lambda r, temp, w: r * temp), "1/temp is missing"),
    "temp twice": (changed(lambda r, temp, w: r / temp), "divided by temp once more"),
    "inverse temperature": (changed(lambda r, temp, w: -r * temp * temp), "the gradient of 1/temp, not of temp"),
    "one for all": (changed(lambda r, temp, w: np.sum(r) + 0 * r), "one sum over all rows, for every temperature"),
    "selected only": (of_the_selected, "of the selected entries alone"),
    "cotangent": (of_the_cotangent, "grad_mask in place of grad_logits"),
    "not summed": (not_summed, "not summed to the shape of temp"),
    "NaN": (nan_at_minus_inf, None),
    "half": (changed(lambda r, temp, w: r / 2), None),
    "a third of the rows": (changed(lambda r, temp, w: r * (r.ndim > 0 or w.shape[0] < 500)), None),
    "float64": (lambda *a, **k: backward_temp(*a, **k).astype(np.float64), None),
    "raises": (lambda grad_mask, logits, temp: 1 / 0, None),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_rejected(name):
    by_temp, cause = FAULTS[name]
    report = judged(subject(backward_temp=by_temp))
    assert not report.ok
    assert report.likely_cause == (None if cause is None else f"backward_temp: {cause}")
    failed = [case for case in report.cases if case.verdict == "failed"]
    assert all(case.difference.direction == "backward_temp" for case in failed)
    if name == "NaN":
        assert {case.group for case in failed} == {"where", "temp"}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("name", ["sign", "detached", "1/temp missing", "temp twice"])
def test_fault_is_rejected_in_every_dtype(name, dtype):
    report = judged(subject(backward_temp=FAULTS[name][0]), dtype)
    assert report.likely_cause == f"backward_temp: {FAULTS[name][1]}"


def test_the_mean_is_named():
    both = {"mean_of_rows": lambda r, temp, w: r / 12, "entries": lambda r, temp, w: r / 48}
    names = ["the mean over the rows, not the sum", "the mean over all entries, not the sum"]
    cases = [case for case in testing.cases(options=["row_temp"]) if case.name == "temp/one sign"]
    for change, cause in zip(both.values(), names, strict=True):
        report = testing.check(subject(backward_temp=changed(change)), cases=cases)
        assert report.likely_cause == f"backward_temp: {cause}"


def test_missing_noise_is_named():
    def without(grad_mask, logits, temp, *, axis=-1, where=None, noise=None):
        grads = backward(grad_mask, logits, temp, axis=axis, where=where, noise=noise)
        return summed(-grads * logits / np.asarray(temp, logits.dtype), temp, logits.dtype)

    report = judged(subject(backward_temp=without), operator=gumbel_softmax)
    assert report.likely_cause == "backward_temp: the noise is missing"


def with_temps(change):
    """Both passes at other temperatures, where there are several."""

    def of(temp, logits):
        return change(temp, logits) if np.ndim(temp) else temp

    return subject(
        forward=lambda logits, temp, **options: forward(logits, of(temp, logits), **options),
        backward=lambda g, logits, temp, **options: backward(g, logits, of(temp, logits), **options),
        backward_temp=None,
    )


def along_the_choices(temp, logits):
    return temp.T if logits.shape == (16, 16) else temp


ROW_FAULTS = {
    "first": (lambda temp, w: temp.ravel()[0], "backward: the first row's temperature in all rows"),
    "mean": (lambda temp, w: np.mean(temp), "backward: the mean of the temperatures in all rows"),
    "other axis": (along_the_choices, "backward: the temperatures run along the choices"),
    "reversed": (lambda temp, w: temp[::-1] if temp.shape[0] > 1 else temp[:, ::-1], None),
    "next row": (lambda temp, w: np.roll(temp, 1), None),
}


@pytest.mark.parametrize("name", ROW_FAULTS)
def test_wrong_temperature_of_a_row_is_rejected(name):
    change, cause = ROW_FAULTS[name]
    report = judged(with_temps(change))
    assert not report.ok
    assert {case.group for case in report.cases if case.verdict == "failed"} == {"temp"}
    if cause is not None:
        assert report.likely_cause == cause


def test_a_learned_temperature_that_is_remembered_is_found():
    class Remembers:
        row_temp = True
        forward = staticmethod(forward)

        def backward(self, grad_mask, logits, temp):
            self.temp = temp
            return backward(grad_mask, logits, temp)

        def backward_temp(self, grad_mask, logits, temp):
            return backward_temp(grad_mask, logits, self.temp)

    report = judged(Remembers())
    assert [case.name for case in report.cases if case.verdict == "failed"] == ["temp/of a row, again"]


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


# JAX compiles each operation for each shape and dtype.
EVERY = [
    pytest.param(framework, dtype, marks=[pytest.mark.slow] * (framework == "jax"))
    for framework in SELECT
    for dtype in DTYPES
]


@pytest.mark.frameworks
@pytest.mark.parametrize(("framework", "dtype"), EVERY)
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
