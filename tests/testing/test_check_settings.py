"""Planted faults of `gapped`, and of forward_temp, unimix and gap wherever they are: found, and named."""

from __future__ import annotations

import numpy as np
import pytest
from checked import few_cases
from honest import hard, implementation, softmax, total
from published import mask_of

from npselect import categorical, gapped, gumbel_softmax, testing


def product(p, g, temp):
    return p * (g - total(p * g)) / temp


def top_of(w):
    return np.max(w, axis=-1, keepdims=True)


def hot(w, index):
    return np.arange(w.shape[-1]) == index[..., None]


def wide(formula):
    """In float64, rounded once; rows without a candidate are left to whoever makes them."""

    def backward(grad_mask, logits, temp, **given):
        g, w = grad_mask.astype(np.float64), logits.astype(np.float64)
        with np.errstate(all="ignore"):
            return formula(g, w, float(temp), **given).astype(logits.dtype)

    return backward


def at(logits, temp, *, index, gap=1.0):
    return mask_of(index, logits)


def cause(operator, backward, forward=at, temp=0.6, dtype="float32"):
    subject = implementation(forward, backward)
    report = testing.check(subject, operator=operator, dtypes=dtype, temp=temp, cases=few_cases(operator, temp, dtype))
    return None if report.ok else report.likely_cause


# ------------------------------------------------------------------------------------------------ gapped


def moved(w, index, gap):
    return np.where(hot(w, index), top_of(w), np.minimum(w, top_of(w) - gap))


def right(g, w, temp, index, gap=1.0):
    return product(softmax(moved(w, index, gap), temp), g, temp)


def others_only(g, w, temp, index):
    return product(softmax(np.where(hot(w, index), w, np.minimum(w, top_of(w) - 1)), temp), g, temp)


def drawn_only(g, w, temp, index):
    return product(softmax(np.where(hot(w, index), top_of(w), w), temp), g, temp)


def all_others(g, w, temp, index):
    return product(softmax(np.where(hot(w, index), top_of(w), w - 1), temp), g, temp)


GAPPED = {
    "1/temp is missing": lambda g, w, temp, index: right(g, w, temp, index) * temp,
    "divided by temp twice": lambda g, w, temp, index: right(g, w, temp, index) / temp,
    "temp is ignored, as though it were 1": lambda g, w, temp, index: right(g, w, 1.0, index),
    "the gap is in units of temp": lambda g, w, temp, index: right(g, w, temp, index, temp),
    "there is no gap: the drawn candidate is moved up, and no other down": drawn_only,
    "the drawn candidate is not moved up to the largest": others_only,
    "all others are moved down by the gap, near or not (or the drawn candidate above the largest)": all_others,
    "the largest is taken for what was sampled": lambda g, w, temp, index: right(g, w, temp, np.argmax(w, -1)),
    "probs * grad_mask / temp, without the mean": lambda g, w, temp, index: (
        softmax(moved(w, index, 1.0), temp) * g / temp
    ),
    "mean over candidates": lambda g, w, temp, index: right(g, w, temp, index) / w.shape[-1],
    "the sign is flipped": lambda g, w, temp, index: -right(g, w, temp, index),
    "no gradient to what was not selected": lambda g, w, temp, index: right(g, w, temp, index) * hot(w, index),
}


@pytest.mark.parametrize("fault", GAPPED)
def test_faults_of_gapped_are_found_and_named(fault):
    assert cause(gapped, wide(lambda g, w, temp, index: GAPPED[fault](g, w, temp, index))) == f"backward: {fault}"


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_honest_implementations_of_gapped_pass(dtype):
    assert cause(gapped, wide(lambda g, w, temp, index: right(g, w, temp, index)), dtype=dtype) is None
    assert cause(gapped, lambda g, w, temp, *, index: right(g, w, w.dtype.type(temp), index), dtype=dtype) is None


def test_the_strict_profile_refuses_a_difference_that_loses_the_odds():
    """Where 1 - p is rounded to 0, a textbook's gradient is 0, and 2.9e-44 is right."""
    w, g = np.array([[0.0, -50.0]]), np.array([[1.0, 0.0]])
    settings = {"gap": "adaptive"}
    case = testing.Case("a/case", "", w, g, 0.5, index=np.array([0]), operator="gapped", settings=settings)
    assert case.grad_logits[0, 0] == pytest.approx(2 * np.exp(-100.0), rel=1e-12)
    case.check_backward(0 * g)
    with pytest.raises(AssertionError, match=r"backward\[0, 0\] is 0\.0; expected 7\.4"):
        case.check_backward(0 * g, profile="strict")


# ------------------------------------------------------------------------------------------------ settings


def with_gap(choose):
    """The gradient, with a gap that is chosen by what was given."""

    def backward(grad_mask, logits, temp, *, index, gap=1.0):
        g, w = grad_mask.astype(np.float64), logits.astype(np.float64)
        given = {"index": index, "gap": choose(gap, temp), "backend": "reference"}
        return gapped.backward(g, w, temp, **given).astype(logits.dtype)

    return backward


GAPS = {
    "gap is ignored, as though it were 1": lambda gap, temp: 1.0,
    "a gap that is an int is taken for 'adaptive', as the published code takes it": lambda gap, temp: (
        "adaptive" if isinstance(gap, int) else gap
    ),
    "'adaptive' is taken for a gap of 1": lambda gap, temp: 1.0 if gap == "adaptive" else gap,
}


@pytest.mark.parametrize("fault", GAPS)
def test_wrong_gaps_are_named(fault):
    assert cause(gapped, with_gap(GAPS[fault])) == f"backward: {fault}"


def of_mixture(g, w, temp, forward_temp=1.0, unimix=0.0):
    p = softmax(w, temp * forward_temp)
    m = (1 - unimix) * p + unimix * (w > -np.inf) / np.sum(w > -np.inf, axis=-1, keepdims=True)
    return product(m, g, temp * forward_temp)


def categorical_at(g, w, temp, forward_temp=1.0, unimix=0.0):
    return (1 - unimix) * product(softmax(w, temp * forward_temp), g, temp * forward_temp)


CATEGORICAL = {
    "forward_temp is ignored in the gradient: J(softmax(logits / temp)) g / temp": lambda g, w, temp, f, e: (
        categorical_at(g, w, temp, 1.0, e)
    ),
    "1/forward_temp is missing": lambda g, w, temp, f, e: categorical_at(g, w, temp, f, e) * f,
    "divided by forward_temp twice": lambda g, w, temp, f, e: categorical_at(g, w, temp, f, e) / f,
    "unimix is ignored: the factor 1 - unimix is missing": lambda g, w, temp, f, e: categorical_at(g, w, temp, f),
    "the factor 1 - unimix is there twice": lambda g, w, temp, f, e: categorical_at(g, w, temp, f, e) * (1 - e),
    "J(m) g of the mixture m, not (1 - unimix) J(p) g of the probabilities p": of_mixture,
}


def masked(w, where):
    return w if where is None else np.where(where, w, -np.inf)


@pytest.mark.parametrize("fault", CATEGORICAL)
def test_wrong_settings_of_categorical_are_named(fault):
    def backward(grad_mask, logits, temp, *, index, where=None, forward_temp=1.0, unimix=0.0):
        g, w = grad_mask.astype(np.float64), masked(logits.astype(np.float64), where)
        with np.errstate(all="ignore"):
            return CATEGORICAL[fault](g, w, float(temp), forward_temp, unimix).astype(logits.dtype)

    def forward(logits, temp, *, index, where=None, forward_temp=1.0, unimix=0.0):
        return mask_of(index, logits)

    assert cause(categorical, backward, forward) == f"backward: {fault}"


def perturbed(g, w, noise, divided, temp, divisor):
    return product(softmax(w / divided + noise, temp), g, divisor)


GUMBEL = {
    "forward_temp is ignored": lambda g, w, noise, f, temp: perturbed(g, w, noise, 1.0, temp, temp),
    "1/forward_temp is missing": lambda g, w, noise, f, temp: perturbed(g, w, noise, f, temp, temp),
    "divided by forward_temp twice": lambda g, w, noise, f, temp: perturbed(g, w, noise, f, temp, temp * f * f),
    "noise is divided by forward_temp too": lambda g, w, noise, f, temp: perturbed(
        g, w / f, noise / f, 1.0, temp, temp * f
    ),
}


@pytest.mark.parametrize("fault", GUMBEL)
def test_a_wrong_forward_temp_of_gumbel_softmax_is_named(fault):
    def backward(grad_mask, logits, temp, *, noise, forward_temp=1.0):
        g, w = grad_mask.astype(np.float64), logits.astype(np.float64)
        return GUMBEL[fault](g, w, noise.astype(np.float64), forward_temp, float(temp)).astype(logits.dtype)

    def forward(logits, temp, *, noise, forward_temp=1.0):
        return hard(logits / logits.dtype.type(forward_temp) + noise, temp)

    assert cause(gumbel_softmax, backward, forward) == f"backward: {fault}"


def test_a_forward_temp_that_changes_no_mask_is_named():
    def forward(logits, temp, *, noise, forward_temp=1.0):
        return hard(logits + noise, temp)

    def backward(grad_mask, logits, temp, *, noise, forward_temp=1.0):
        w, form = logits / logits.dtype.type(forward_temp) + noise, logits.dtype.type
        return product(softmax(w, temp), grad_mask, form(temp) * form(forward_temp))

    told = "forward: forward_temp is ignored, or the noise is divided by it too"
    assert cause(gumbel_softmax, backward, forward) == told


def test_what_takes_no_settings_is_not_asked_for_them():
    def backward(grad_mask, logits, temp, *, index):
        return right(grad_mask, logits, logits.dtype.type(temp), index)

    def forward(logits, temp, *, index):
        return mask_of(index, logits)

    report = testing.check(implementation(forward, backward), operator=gapped, cases=few_cases(gapped))
    assert report.ok
    assert report.options == ("index",)
    left_out = [case for case in report.cases if case.verdict == "not asked"]
    assert {case.name.partition("=")[0] for case in left_out} == {"setting/gap"}
    assert all("takes no" in case.note for case in left_out)


def test_cases_with_settings_are_asked_for_by_name():
    assert not any(case.settings for case in testing.cases(operator=gapped))
    found = {repr(case.settings) for case in testing.cases(operator=gapped, options=("gap",))}
    assert found == {"{}", "{'gap': 0.25}", "{'gap': 2}", "{'gap': 'adaptive'}"}
    case = testing.find_case("gumbel/float32/setting/forward_temp=0.5")
    assert case.options.keys() == {"noise", "forward_temp"}
    np.testing.assert_array_equal(case.w, case.logits + 0.5 * case.noise.astype(np.float64))
    assert case.temps == case.temp / 2
    with pytest.raises(ValueError, match="options holds 'margin'; it takes 'axis', 'where', 'row_temp', and"):
        testing.cases(operator=gapped, options=("margin",))
