"""Straight-through in its dialects, and other members of the family: whoever gets another than was asked for is told.

Each published gradient is handed to the check of another operator, which names what it saw.
"""

from __future__ import annotations

import numpy as np
import published
import pytest
from checked import few_cases
from honest import hard, implementation, softmax

from npselect import categorical, gapped, gumbel_softmax, reinmax, straight_through, testing

SAME = "distributions of torch and distrax and Dreamer have it: that is npselect.categorical at temp=1"


def at(logits, temp, *, index):
    return published.mask_of(index, logits)


def cause(operator, backward, forward=at, temp=0.6, **options):
    subject = implementation(forward, backward)
    report = testing.check(subject, operator=operator, temp=temp, cases=few_cases(operator, temp), **options)
    return None if report.ok else report.likely_cause


def without_sample(function):
    """For operators that choose the largest: of its index."""

    def backward(grad_mask, logits, temp):
        return function(grad_mask, logits, temp, index=np.argmax(logits, axis=-1))

    return backward


def with_noise(function):
    """For operators that are given noise: the index is that of the largest sum."""

    def backward(grad_mask, logits, temp, *, noise):
        return function(grad_mask, logits, temp, index=np.argmax(logits + noise, axis=-1))

    return backward


def moved(gap):
    def backward(grad_mask, logits, temp, *, index):
        wide = (x.astype(np.float64) for x in (grad_mask, logits))
        return gapped.backward(*wide, temp, index=index, gap=gap, backend="reference").astype(logits.dtype)

    return backward


def second_order(grad_mask, logits, temp, *, index):
    wide = (x.astype(np.float64) for x in (grad_mask, logits))
    return reinmax.backward(*wide, temp, index=index, backend="reference").astype(logits.dtype)


# ------------------------------------------------------------------------------------------------ the three


def test_the_sample_of_probs_and_the_gradient_of_probs_at_temp_is_the_operator():
    assert cause(categorical, published.of_reinmax_and_gst) is None


@pytest.mark.parametrize("temp", [0.6, 1.5])
def test_that_without_a_temperature_is_named(temp):
    told = f"backward: the gradient is J(softmax(logits)) g whatever temp is, as {SAME}"
    assert cause(categorical, published.of_distributions, temp=temp) == told
    assert cause(categorical, published.of_distributions, temp=1.0) == told  # some cases have temperatures of their own


def test_that_of_the_sample_at_temp_is_named():
    def backward(grad_mask, logits, temp, *, index=None, noise=None):
        return published.of_reinmax_and_gst(grad_mask, logits, temp, index=index)

    told = cause(categorical, backward, published.mask_of_vector_quantize)
    assert told == (
        "forward: the sample is that of softmax(logits / temp), as vector-quantize-pytorch draws it: that is "
        "npselect.categorical with forward_temp=temp, temp=1"
    )


def test_all_three_are_accepted_as_what_they_are():
    cases = [case for case in few_cases(categorical, 0.6) if not case.settings]
    ones = [case for case in few_cases(categorical, 1.0) if case.temp == 1]
    assert testing.check(
        implementation(at, published.of_reinmax_and_gst), operator=categorical, temp=0.6, cases=cases
    ).ok
    assert testing.check(implementation(at, published.of_distributions), operator=categorical, cases=ones).ok
    case = next(case for case in few_cases(categorical, 0.6) if case.settings == {"forward_temp": 2.0})
    case.check_backward(published.of_reinmax_and_gst(case.grad_mask, case.logits, 2 * case.temp, index=case.index))


@pytest.mark.parametrize("unimix", [0.01, 0.25])
def test_dreamers_mixture_is_accepted(unimix):
    case = next(case for case in few_cases(categorical, 1.0) if case.settings.get("unimix") == unimix)
    settings = {"unimix": unimix}
    plain = testing.Case(
        "a/case", "", case.logits, case.grad_mask, 1.0, index=case.index, operator="categorical", settings=settings
    )
    plain.check_backward(published.dreamer(case.grad_mask, case.logits, 1.0, index=case.index, unimix=unimix))
    with pytest.raises(AssertionError, match="backward"):
        plain.check_backward(published.dreamer(case.grad_mask, case.logits, 1.0, index=case.index))


# ------------------------------------------------------------------------------------------------ the family


def identity(grad_mask, logits, temp, *, index):
    return grad_mask.copy()


FAMILY = {
    "the gradient of npselect.reinmax": (second_order, [straight_through, gumbel_softmax, categorical, gapped]),
    "the gradient of npselect.gapped": (moved(1.0), [straight_through, gumbel_softmax, categorical, reinmax]),
    "the gradient of npselect.gapped with gap='adaptive'": (
        moved("adaptive"),
        [straight_through, categorical, reinmax],
    ),
    "the gradient of npselect.categorical": (published.of_reinmax_and_gst, [gapped]),
    "the gradient of npselect.categorical at temp=1": (published.of_distributions, [gapped]),
    "the gradient of straight-through alone": (published.of_reinmax_and_gst, [reinmax]),
    "grad_mask is passed straight through (identity)": (identity, [straight_through, categorical, reinmax, gapped]),
    "the gap is taken for 'adaptive'": (moved("adaptive"), [gapped]),
}


@pytest.mark.parametrize(
    ("told", "function", "operator"),
    [(told, function, operator) for told, (function, operators) in FAMILY.items() for operator in operators],
    ids=[f"{told}-{operator.__name__}" for told, (_, operators) in FAMILY.items() for operator in operators],
)
def test_a_relative_is_named(told, function, operator):
    ways = {straight_through: (without_sample, hard), gumbel_softmax: (with_noise, None)}
    wrap, forward = ways.get(operator, (lambda function: function, at))
    if forward is None:

        def forward(logits, temp, *, noise):
            return hard(logits + noise, temp)

    assert cause(operator, wrap(function), forward) == f"backward: {told}"


def test_the_gradient_of_gumbels_soft_sample_is_named():
    def backward(grad_mask, logits, temp, *, index=None, noise=None):
        perturbed = logits if noise is None else logits + noise
        return published.of_reinmax_and_gst(grad_mask, perturbed, temp, index=index)

    def forward(logits, temp, *, index=None, noise=None):
        return published.mask_of(np.argmax(logits + noise, -1) if index is None else index, logits)

    told = cause(categorical, backward, forward)
    assert told == "backward: the gradient of npselect.gumbel_softmax: at logits + noise, not at logits"


# ------------------------------------------------------------------------------------------------ published code


def ordinary(operator, temp=1.0, **settings):
    """Rows that are not at the ends of the range, with these settings."""
    wanted = [case for case in few_cases(operator, temp) if case.group == "random" or case.settings]
    return [case for case in wanted if case.settings == settings and "pairs" not in case.flags and case.where is None]


def test_reinmax_as_published_is_accepted_on_ordinary_rows():
    report = testing.check(implementation(at, published.reinmax), operator=reinmax, cases=ordinary(reinmax))
    assert report.ok, str(report)


def in_float64(grad_mask, logits, temp, *, index, gap=1.0):
    wide = (x.astype(np.float64) for x in (grad_mask, logits))
    return published.gst(*wide, temp, index=index, gap=gap).astype(logits.dtype)


def test_gst_as_published_is_accepted_where_its_gap_is_a_float_and_rows_are_flat():
    """Small gradients of a row lose their digits, as the row's mean is subtracted: refused where logits are spread."""
    w, g = np.random.default_rng(3).standard_normal((2, 200, 6)).astype(np.float32)
    index = np.random.default_rng(5).integers(6, size=200)
    case = testing.Case("a/case", "", w / 2, g, 1.0, index=index, operator="gapped")
    case.check_backward(published.gst(g, w / 2, 1.0, index=index))
    spread = {case.name: case for case in ordinary(gapped)}
    accepted = spread["random/K=3"]  # in float64 it keeps enough of them
    accepted.check_backward(in_float64(accepted.grad_mask, accepted.logits, 1.0, index=accepted.index))
    for refused, function in ((accepted, published.gst), (spread["random/saturated"], in_float64)):
        with pytest.raises(AssertionError, match="backward"):
            refused.check_backward(function(refused.grad_mask, refused.logits, 1.0, index=refused.index))


def test_gst_as_published_takes_an_int_for_the_adaptive_gap_and_clips_it():
    cases = [case for case in few_cases(gapped, 1.0) if case.settings and "," not in case.name]

    def forward(logits, temp, *, index, gap=1.0):
        return published.mask_of(index, logits)

    report = testing.check(implementation(forward, in_float64), operator=gapped, cases=cases)
    failed = {case.name for case in report.cases if case.verdict == "failed"}
    assert failed == {"setting/gap=2", "setting/gap=adaptive"}
    assert report.likely_cause == (
        "backward: a gap that is an int is taken for 'adaptive', and p_d is multiplied by 1 - 1e-5 there: so does the "
        "published code"
    )


def test_the_adaptive_gap_without_a_clip_has_no_answer_where_the_sample_is_certain():
    """By ``log(1 - p)`` and the row's mean: p rounds to 1, the gap is infinite, and so is the mean."""
    w, g = np.array([[0.0, -50.0]]), np.array([[1.0, 0.0]])
    case = testing.Case("a/case", "", w, g, 1.0, index=np.array([0]), operator="gapped", settings={"gap": "adaptive"})
    assert 0 < case.grad_logits[0, 0] < 1e-20
    case.check_backward(0 * g)  # as a textbook has it, in the profile "standard"
    clipped = published.gst(g, w, 1.0, index=np.array([0]), gap="adaptive")
    with pytest.raises(AssertionError, match="backward"):
        case.check_backward(np.full_like(g, np.nan))
    assert softmax(w, 1.0)[0, 0] == 1
    assert clipped[0, 0] == pytest.approx(0, abs=1e-15)
