"""ReinMax checked: its cases, honest implementations, and planted faults with their causes."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from honest import DTYPES, implementation, one_hot, remembered_cases, softmax, total

import npselect
from npselect import reinmax, testing
from npselect.testing.dtypes import floating_dtype
from npselect.testing.families import FAMILIES
from npselect.testing.textbook import wide

ROOT = Path(__file__).parents[2]
FAMILY = FAMILIES["reinmax"]


def product(x, g):
    """``J(x) g``."""
    return x * (g - total(x * g))


def check(forward, backward, dtype="float32", temp=1.0, **options):
    subject = implementation(forward, backward)
    cases = remembered_cases(floating_dtype(dtype), temp, reinmax)
    return testing.check(subject, operator=reinmax, dtypes=dtype, temp=temp, cases=cases, **options)


def hard(logits, temp, *, index):
    return one_hot(index[..., None], logits)


def published(g, w, d, temp):
    """As it stands in the paper."""
    two = w.dtype.type(2)
    hot = one_hot(d[..., None], w)
    return two * product((softmax(w, temp) + hot) / two, g) - product(softmax(w, 1.0), g) / two


def from_drawn(g, w, d, temp):
    """Measured from the drawn entry."""
    at, half = d[..., None], w.dtype.type(0.5)
    h = g - np.take_along_axis(g, at, axis=-1)
    p, q = softmax(w, 1.0), softmax(w, temp)
    a, b = total(q * h), total(p * h)
    rest = q * (h - a * half) - p * half * (h - b)
    return np.where(np.arange(w.shape[-1]) == at, p * half * b - (q * a + a) * half, rest)


def in_dtype(formula):
    def backward(grad_mask, logits, temp, *, index):
        return formula(grad_mask, logits, index, logits.dtype.type(temp))

    return backward


def in_float64(formula):
    def backward(grad_mask, logits, temp, *, index):
        g, w = grad_mask.astype(np.float64), logits.astype(np.float64)
        return formula(g, w, index, np.float64(temp)).astype(logits.dtype)

    return backward


# ------------------------------------------------------------------------------------------------ cases


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_case_has_an_index(dtype):
    likely = unlikely = 0
    for case in remembered_cases(floating_dtype(dtype), 1.0, reinmax):
        shape = list(case.logits.shape)
        del shape[case.axis]
        assert case.index.dtype == np.int64
        assert case.index.shape == tuple(shape)
        assert case.noise is None
        assert case.origin is None
        assert case.id.startswith(f"reinmax/{dtype}/")
        if "error" in case.flags or not case.w.size:
            continue
        sound = np.any(case.w > -np.inf, axis=-1) & ~np.any(np.isnan(case.w) | (case.w == np.inf), axis=-1)
        assert np.all(np.isfinite(np.take_along_axis(case.w, case.choice[:, None], axis=-1))[sound])
        largest = case.choice == np.argmax(case.w, axis=-1)
        likely, unlikely = likely + np.sum(largest[sound]), unlikely + np.sum(~largest[sound])
        if case.name == "where/nothing offered":
            assert case.index.tolist().count(-1) == 2
    assert min(likely, unlikely) > 2000


def test_its_temperature_is_its_own_default():
    assert npselect.OPERATORS["reinmax"].temp == FAMILY.temp == 1.0
    assert testing.cases(operator=reinmax)[0].temp == 1.0
    assert testing.cases()[0].temp == np.float32(0.6)
    case = testing.find_case("reinmax/float32/random/K=10")
    assert case.temp == 1.0
    assert testing.find_case(case.id, temp=2.0).temp == 2.0
    report = testing.check(reinmax, operator=reinmax, cases=[case])
    assert report.temp == 1.0
    assert "temp 1 " in str(report)


def test_a_case_chooses_by_noise_and_weighs_the_logits_alone():
    """Where the sums are as they are here, the two differ."""
    w, noise = np.array([[0.0, 1.0, 2.0]]), np.array([[5.0, 0.0, 0.0]])
    case = testing.Case("a/case", "", w, np.ones((1, 3)), 1.0, noise=noise, operator="reinmax")
    assert case.choice.tolist() == [0]
    assert case.w.tolist() == w.tolist()
    assert case.chosen_from.tolist() == [[5.0, 1.0, 2.0]]
    other = testing.Case("a/case", "", w, np.ones((1, 3)), 1.0, noise=noise, operator="gumbel_softmax")
    assert other.w.tolist() == other.chosen_from.tolist() == [[5.0, 1.0, 2.0]]
    given = testing.Case("a/case", "", w, np.ones((1, 3)), 1.0, index=np.array([1]))
    assert given.operator == "reinmax"
    assert given.options.keys() == {"index"}
    assert given.mask.tolist() == [[0.0, 1.0, 0.0]]
    assert given.part(slice(0, 1)).index.tolist() == [1]
    case.check_forward(case.mask)
    case.check_backward(case.grad_logits)


# ------------------------------------------------------------------------------------------------ honest ones


HONEST = {
    "published": in_dtype(published),
    "from the drawn one": in_dtype(from_drawn),
    "in float64, rounded once": in_float64(published),
}


@pytest.mark.parametrize(("dtype", "temp"), [("float16", 1.0), ("float32", 1.0), ("float32", 0.6), ("float64", 1.0)])
@pytest.mark.parametrize("name", HONEST)
def test_honest_implementations_pass(name, dtype, temp):
    report = check(hard, HONEST[name], dtype, temp)
    assert report.ok, str(report)


def test_the_textbook_passes():
    subject = SimpleNamespace(forward=wide(FAMILY.textbook.forward), backward=wide(FAMILY.textbook.backward))
    report = testing.check(subject, operator=reinmax)
    assert report.ok, str(report)


@pytest.mark.parametrize("dtype", DTYPES)
def test_our_tiers_pass(dtype):
    cases = remembered_cases(floating_dtype(dtype), 1.0, reinmax)
    for profile in ("standard", "strict"):
        report = testing.check(reinmax, operator=reinmax, profile=profile, dtypes=dtype, cases=cases)
        assert report.ok, str(report)
        assert not any(case.verdict == "not asked" for case in report.cases)
    assert testing.check(reinmax, operator=reinmax, backend="cpu", dtypes=dtype, cases=cases).ok


@pytest.mark.frameworks
@pytest.mark.parametrize("dtype", ["float32"])
def test_the_published_code_passes_on_ordinary_rows(dtype):
    """By autograd of PyTorch: it takes a logarithm, so -inf gives NaN, and large logits cost digits."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    subject = runpy.run_path(str(ROOT / "examples" / "reinmax_select.py"))["published"]
    cases = [case for case in testing.cases(dtype, operator=reinmax) if case.group in ("digits", "random", "layout")]
    report = testing.check(subject, operator=reinmax, dtypes=dtype, cases=cases)
    assert report.ok, str(report)
    assert testing.check(subject, operator=reinmax, cases=[testing.find_case("reinmax/float32/edge/-inf")]).likely_cause


# ------------------------------------------------------------------------------------------------ planted faults


def parts(g, w, d, temp):
    """p, q, the one-hot, and the two products."""
    p, q, hot = softmax(w, 1.0), softmax(w, temp), one_hot(d[..., None], w)
    return p, q, hot, 2 * product((q + hot) / 2, g), product(p, g) / 2


def without_the_factor(g, w, d, temp):
    _, _, _, first, second = parts(g, w, d, temp)
    return first / 2 - second


def without_the_one_hot(g, w, d, temp):
    _, q, _, _, second = parts(g, w, d, temp)
    return 2 * product(q, g) - second


def half_of_probs(g, w, d, temp):
    _, q, _, _, second = parts(g, w, d, temp)
    return 2 * product(q / 2, g) - second


def sum_for_mean(g, w, d, temp):
    _, q, hot, _, second = parts(g, w, d, temp)
    return 2 * product(q + hot, g) - second


def temp_swapped(g, w, d, temp):
    p, q, hot, _, _ = parts(g, w, d, temp)
    return 2 * product((p + hot) / 2, g) - product(q, g) / 2


FAULTS = {
    "2 J(pi1) g missing its factor 2": without_the_factor,
    "the sampled one-hot left out of pi1": without_the_one_hot,
    "the sampled one-hot left out of pi1, half": half_of_probs,
    "divided by temp": lambda g, w, d, temp: published(g, w, d, temp) / temp,
    "2 J(pi1) g is divided by temp": lambda g, w, d, temp: np.subtract(
        parts(g, w, d, temp)[3] / temp, parts(g, w, d, temp)[4]
    ),
    "multiplied by temp": lambda g, w, d, temp: published(g, w, d, temp) * temp,
    "mean over candidates": lambda g, w, d, temp: published(g, w, d, temp) / w.shape[-1],
    "the gradient of straight-through alone": lambda g, w, d, temp: product(softmax(w, temp), g) / temp,
    "the gradient of straight-through alone, p": lambda g, w, d, temp: product(softmax(w, 1.0), g),
    "- J(p) g / 2 is missing": lambda g, w, d, temp: parts(g, w, d, temp)[3],
    "- J(p) g / 2 missing its factor 1/2": lambda g, w, d, temp: np.subtract(
        parts(g, w, d, temp)[3], 2 * parts(g, w, d, temp)[4]
    ),
    "J(p) g / 2 is added, not subtracted": lambda g, w, d, temp: np.add(*parts(g, w, d, temp)[3:]),
    "temp is ignored, as though it were 1": lambda g, w, d, temp: published(g, w, d, 1.0),
    "temp in both softmaxes": lambda g, w, d, temp: published(g, w / temp, d, 1.0),
    "temp in the wrong softmax": temp_swapped,
    "the softmax is taken of logits * temp": lambda g, w, d, temp: published(g, w, d, 1 / temp),
    "pi1 is the sum of probs and mask, not their mean": sum_for_mean,
    "the largest is taken for what was sampled": lambda g, w, d, temp: published(g, w, np.argmax(w, axis=-1), temp),
    "the sign is flipped": lambda g, w, d, temp: -published(g, w, d, temp),
    "the gradient of the hard mask, which is 0": lambda g, w, d, temp: 0 * g,
    "grad_mask is passed straight through (identity)": lambda g, w, d, temp: g,
    "mean over the batch": lambda g, w, d, temp: published(g, w, d, temp) / len(w),
    "the gradient is clipped at 1": lambda g, w, d, temp: np.clip(published(g, w, d, temp), -1, 1),
    "no gradient to what was not selected": lambda g, w, d, temp: published(g, w, d, temp) * one_hot(d[..., None], w),
}


@pytest.mark.parametrize("temp", [1.0, 0.6])
@pytest.mark.parametrize("fault", FAULTS)
def test_backward_faults_are_found_and_named(fault, temp):
    report = check(hard, in_float64(FAULTS[fault]), temp=temp)
    assert not report.ok
    assert report.likely_cause == f"backward: {fault.partition(', half')[0].partition(', p')[0]}"


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("fault", [*FAULTS][:4])
def test_they_are_named_in_other_dtypes_too(fault, dtype):
    report = check(hard, in_float64(FAULTS[fault]), dtype)
    assert report.likely_cause == f"backward: {fault.partition(', half')[0]}"


FORWARD_FAULTS = {
    "index= is ignored: the largest is selected": lambda w, temp, index: one_hot(
        np.argmax(w, axis=-1, keepdims=True), w
    ),
    "the index is counted from 1": lambda w, temp, index: one_hot(index[..., None] - 1, w),
    "the first row's index is used in all rows": lambda w, temp, index: one_hot(
        np.zeros_like(index)[..., None] + index.ravel()[:1], w
    ),
    "always the first": lambda w, temp, index: one_hot(np.zeros_like(index)[..., None], w),
    "probs instead of the mask": lambda w, temp, index: softmax(w, temp),
    "pi1 instead of the mask": lambda w, temp, index: (softmax(w, temp) + one_hot(index[..., None], w)) / 2,
    "the surrogate instead of the mask": lambda w, temp, index: (
        softmax(w, temp) + one_hot(index[..., None], w) - softmax(w, 1.0) / 2
    ),
    "the index is carried as uint8": lambda w, temp, index: one_hot(index.astype(np.uint8)[..., None], w),
}


@pytest.mark.parametrize("fault", FORWARD_FAULTS)
def test_forward_faults_are_found_and_named(fault):
    def forward(logits, temp, *, index):
        return FORWARD_FAULTS[fault](logits, temp, index).astype(logits.dtype)

    report = check(forward, in_float64(published))
    assert not report.ok
    assert report.likely_cause == f"forward: {fault}"


def test_faults_with_options_are_named():
    def backward(grad_mask, logits, temp, *, index, where=None):
        return reinmax.backward(grad_mask, logits, temp, index=index)

    def forward(logits, temp, *, index, where=None):
        return reinmax.forward(logits, temp, index=index, where=where)

    report = testing.check(SimpleNamespace(forward=forward, backward=backward), operator=reinmax)
    assert report.likely_cause == "backward: where= is ignored"


def test_the_first_term_of_a_saturated_row_needs_the_tight_form():
    """On saturated rows the published form returns 0 where 9.6e-23 is right: strict refuses it, standard does not."""
    w, g = np.array([[0.0, -50.0]]), np.array([[1.0, 0.0]])
    case = testing.Case("a/saturated row", "", w, g, 1.0, index=np.array([0]))
    assert case.grad_logits[0, 0] == pytest.approx(np.exp(-50.0) / 2, rel=1e-12)
    lost = published(g, w, np.array([0]), 1.0)
    assert lost[0, 0] == 0
    case.check_backward(lost)
    with pytest.raises(AssertionError, match=r"backward\[0, 0\] is 0\.0; expected 9\.6"):
        case.check_backward(lost, profile="strict")


# ------------------------------------------------------------------------------------------------ what is asked for


def test_an_index_must_be_taken():
    with pytest.raises(TypeError, match=r"takes no index=, which operator=reinmax gives"):
        testing.check(npselect.gumbel_softmax, operator=reinmax)


def test_index_is_not_told_of_where_none_is_given():
    def forward(logits, temp, **options):
        return npselect.straight_through.forward(logits, temp, **options)

    def backward(grad_mask, logits, temp, **options):
        return npselect.straight_through.backward(grad_mask, logits, temp, **options)

    report = testing.check(implementation(forward, backward), cases=[testing.find_case("float32/edge/ties")])
    assert report.options == ("axis", "where", "noise")


def test_no_gradient_of_a_temperature_is_asked_for():
    subject = implementation(reinmax.forward, reinmax.backward, backward_temp=npselect.straight_through.backward_temp)
    report = testing.check(subject, operator=reinmax, cases=[testing.find_case("reinmax/float32/random/K=10")])
    assert report.ok
    assert not report.backward_temp
