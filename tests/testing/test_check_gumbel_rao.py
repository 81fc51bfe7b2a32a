"""Gumbel-Rao checked: its cases, honest implementations, planted faults with their causes, and who takes the noise."""

from __future__ import annotations

import numpy as np
import pytest
from checked import few_cases
from honest import DTYPES, implementation, one_hot, remembered_cases
from rao import HONEST, MISTAKES, textbook

from npselect import categorical, gumbel_rao, reinmax, testing
from npselect.testing.dtypes import floating_dtype
from npselect.testing.textbook import wide

CAUSES = {
    "logits added twice": "logits are added twice: to noise that has them already",
    "unconditional noise": "the noise is not that given the choice: the gradient of npselect.gumbel_softmax, averaged",
    "without log Z": "log(Z) is missing in the largest of the noisy logits",
    "the largest for log Z": "the largest logit is taken for log(Z)",
    "d's own logit for log Z": "the selected candidate's logit is taken for log(Z)",
    "the others cut off at the winner": "noisy logits above the selected one's are cut off there, not drawn below it",
    "without the logits": "the others' noisy logits leave out their logits",
    "without 1 / temp": "1/temp is missing",
    "a sum, not a mean": "samples are added up, not averaged",
    "the first sample alone": "the first sample is taken alone",
    "the mean of the softmaxes": "the softmaxes are averaged, not the gradients",
    "the sign": "the sign is flipped",
    "another candidate": "another candidate is taken for the selected one",
    "no noise": "the gradient of npselect.categorical",
}


def hard(logits, temp, *, index):
    return one_hot(index[..., None], logits)


def over_rows(formula):
    def backward(grad_mask, logits, temp, *, index, sample_noise):
        with np.errstate(all="ignore"):
            return formula(grad_mask, logits, index, sample_noise, logits.dtype.type(temp))

    return wide(backward)


def check(backward, dtype="float32", temp=0.6, forward=hard):
    cases = few_cases(gumbel_rao, temp, dtype)
    subject = implementation(forward, backward)
    return testing.check(subject, operator=gumbel_rao, dtypes=dtype, temp=temp, cases=cases)


# ------------------------------------------------------------------------------------------------ cases


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_case_has_an_index_and_noise_given_it(dtype):
    counts = set()
    for case in remembered_cases(floating_dtype(dtype), 1.0, gumbel_rao):
        assert case.id.startswith(f"gumbel_rao/{dtype}/")
        assert case.noise is None
        assert case.sample_noise.dtype == case.logits.dtype
        assert case.sample_noise.shape[1:] == case.logits.shape
        assert np.all(np.isfinite(case.sample_noise.astype(np.float64)))
        assert case.options.keys() - case.forward_options.keys() == {"sample_noise"}
        assert case.forward_options.keys() >= {"index"}
        counts.add(len(case.sample_noise))
    assert counts == {1, 2, 3}


def test_a_part_of_a_case_has_its_noise():
    case = testing.find_case("gumbel_rao/float32/random/K=7")
    part = case.part(slice(3, 5))
    np.testing.assert_array_equal(part.grad_logits, case.grad_logits[3:5])
    np.testing.assert_array_equal(part.bound, case.bound[3:5])
    np.testing.assert_array_equal(part.draws, case.draws[:, 3:5])


def test_cases_check_results():
    case = testing.find_case("gumbel_rao/float32/axis/1 of 3")
    case.check_forward(gumbel_rao.forward(case.logits, case.temp, **case.forward_options))
    grad_logits = gumbel_rao.backward(case.grad_mask, case.logits, case.temp, **case.options)
    case.check_backward(grad_logits)
    with pytest.raises(AssertionError, match="expected"):
        case.check_backward(-grad_logits)


# ------------------------------------------------------------------------------------------------ who is accepted


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [name for name in HONEST if name != "a race"])  # exp(logits) overflows
def test_honest_code_is_accepted(name, dtype):
    report = check(over_rows(HONEST[name]), dtype)
    assert report.ok, str(report)


@pytest.mark.parametrize("profile", ["standard", "strict"])
def test_our_own_is_accepted(profile):
    cases = [case for case in testing.cases(operator=gumbel_rao, options=["axis", "where"]) if case.logits.size < 2000]
    report = testing.check(gumbel_rao, operator=gumbel_rao, cases=cases, profile=profile)
    assert report.ok, str(report)
    assert report.options == ("axis", "where", "index", "sample_noise")


def test_forward_may_take_the_noise_too():
    """As a function that a framework differentiates does."""
    given = []

    def forward(logits, temp, *, index, sample_noise):
        given.append(sample_noise.shape[1:] == logits.shape)
        return hard(logits, temp, index=index)

    assert check(over_rows(textbook), forward=forward).ok
    assert given
    assert all(given)
    assert check(over_rows(textbook), forward=lambda logits, temp, index: hard(logits, temp, index=index)).ok
    for one in (forward, hard):
        subject = testing.from_array_functions(one, over_rows(textbook))
        assert testing.check(subject, operator=gumbel_rao, cases=few_cases(gumbel_rao)[:2]).ok


@pytest.mark.frameworks
def test_a_function_of_torch_takes_it_in_both_passes():
    torch = pytest.importorskip("torch")

    def select(logits, temp, *, index, sample_noise):
        log_z, drawn = torch.logsumexp(logits.detach(), -1, keepdim=True), index[..., None]
        best = log_z + sample_noise.gather(-1, drawn.expand(len(sample_noise), *drawn.shape))
        noisy = -torch.logaddexp(-best, -(logits.detach() + sample_noise))
        noisy = torch.where(torch.arange(logits.shape[-1]) == drawn, best, noisy)
        surrogate = torch.softmax((logits + (noisy - logits.detach())) / temp, -1).mean(0)
        return torch.zeros_like(logits).scatter(-1, drawn, 1.0) + (surrogate - surrogate.detach())

    cases = [case for case in few_cases(gumbel_rao) if np.all(np.isfinite(case.w))]
    report = testing.check(testing.from_torch(select), operator=gumbel_rao, cases=cases)
    assert report.ok, str(report)


# ------------------------------------------------------------------------------------------------ who is not


def test_every_mistake_has_its_cause():
    assert CAUSES.keys() == MISTAKES.keys()


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_refused_with_their_cause(mistake):
    report = check(over_rows(MISTAKES[mistake]))
    assert not report.ok
    assert report.likely_cause == f"backward: {CAUSES[mistake]}"


@pytest.mark.parametrize(
    ("cause", "backward"),
    [
        ("the noise is subtracted", lambda g, w, d, noises, temp: textbook(g, w, d, -noises, temp)),
        (
            "the noisy logits are not divided by temp",
            lambda g, w, d, noises, temp: textbook(g, w, d, noises, w.dtype.type(1)) / temp,
        ),
        (
            "the largest is taken for what was sampled",
            lambda g, w, d, noises, temp: textbook(g, w, np.argmax(w, axis=-1), noises, temp),
        ),
        ("divided by temp twice", lambda g, w, d, noises, temp: textbook(g, w, d, noises, temp) / temp),
    ],
)
def test_further_mistakes(cause, backward):
    assert check(over_rows(backward)).likely_cause == f"backward: {cause}"


def test_a_mask_of_the_largest_is_told():
    report = check(
        over_rows(textbook), forward=lambda logits, temp, index: one_hot(np.argmax(logits, -1)[..., None], logits)
    )
    assert report.likely_cause == "forward: index= is ignored: the largest is selected"


def test_its_relatives_are_told_apart():
    """Its gradient is not theirs."""
    second = lambda g, w, temp, *, index, sample_noise: reinmax.backward(g, w, temp, index=index)  # noqa: E731
    assert check(second).likely_cause == "backward: the gradient of npselect.reinmax"
    plain = lambda g, w, temp, *, index, sample_noise: categorical.backward(g, w, temp, index=index)  # noqa: E731
    assert check(plain).likely_cause == "backward: the gradient of npselect.categorical"


def test_the_line_that_reproduces_runs(capsys):
    subject = implementation(gumbel_rao.forward, over_rows(MISTAKES["the sign"]))
    broken = implementation(lambda logits, temp, index: 0 * logits, over_rows(textbook))
    for implementation_, right in ((subject, "backward"), (broken, "forward")):
        cases = few_cases(gumbel_rao)
        report = testing.check(implementation_, operator=gumbel_rao, cases=cases)
        outcome = next(outcome for outcome in report.cases if outcome.verdict == "failed")
        assert f"implementation.{right}(" in outcome.reproduce
        exec(outcome.reproduce, {"cases": cases, "implementation": implementation_})
        actual, expected = capsys.readouterr().out.split()
        assert actual != expected


@pytest.mark.parametrize("missing", ["index", "sample_noise"])
def test_what_takes_no_noise_is_told_so(missing):
    def backward(grad_mask, logits, temp, *, index):
        return logits

    def with_noise(grad_mask, logits, temp, *, sample_noise):
        return logits

    function = backward if missing == "sample_noise" else with_noise
    with pytest.raises(TypeError, match=f"takes no {missing}=, which operator=gumbel_rao gives"):
        testing.check(implementation(hard, function), operator=gumbel_rao)
