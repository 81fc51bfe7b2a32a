"""`categorical` and `gapped` checked: their cases, and our own tiers, in both profiles and by either oracle."""

from __future__ import annotations

import numpy as np
import pytest
from honest import remembered_cases

from npselect import categorical, gapped, gumbel_softmax, testing
from npselect.testing.dtypes import floating_dtype


def cases_of(operator, dtype="float32"):
    temp = 0.6 if operator is gumbel_softmax else 1.0
    return remembered_cases(floating_dtype(dtype), temp, operator)


@pytest.mark.parametrize("operator", [categorical, gapped])
def test_every_case_fixes_the_choice(operator):
    prefix, by_noise = f"{operator.__name__.rpartition('.')[-1]}/", 0
    for case in cases_of(operator):
        assert case.id.startswith(f"{prefix}float32/")
        assert (case.index is None) != (case.noise is None)
        assert case.origin is None
        by_noise += case.noise is not None
        if case.noise is not None:
            np.testing.assert_array_equal(case.chosen_from, case.w + case.rows(case.noise).astype(np.float64))
            assert case.needs == ("noise",)
    assert by_noise == (2 if operator is categorical else 0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("operator", [categorical, gapped])
def test_our_tiers_pass(operator, dtype):
    """By the reference, whose answers are remembered; the CPU's kernels are what is asked."""
    cases = cases_of(operator, dtype)
    for profile in ("standard", "strict"):
        report = testing.check(operator, operator=operator, profile=profile, dtypes=dtype, cases=cases)
        assert report.ok, str(report)
        assert not any(case.verdict == "not asked" for case in report.cases)


def test_decoupled_temperatures_pass():
    cases = [case for case in cases_of(gumbel_softmax) if case.settings]
    assert {case.forward_temp for case in cases} == {0.5, 2.0}
    for profile in ("standard", "strict"):
        assert testing.check(gumbel_softmax, operator=gumbel_softmax, profile=profile, cases=cases).ok


def test_the_gradient_of_the_temperature_is_asked_for():
    """That of the product, times the other one."""
    cases = [case for case in testing.cases(operator=categorical, options=("forward_temp", "unimix")) if case.settings]

    class Doubled:
        forward, backward = staticmethod(categorical.forward), staticmethod(categorical.backward)

        @staticmethod
        def backward_temp(grad_mask, logits, temp, *, index, where=None, forward_temp=1.0, unimix=0.0):
            given = {"index": index, "where": where, "forward_temp": forward_temp, "unimix": unimix}
            return categorical.backward_temp(grad_mask, logits, temp, **given) / forward_temp

    assert testing.check(categorical, operator=categorical, cases=cases).ok
    assert not testing.check(Doubled(), operator=categorical, cases=cases).ok


def test_near_ties_of_a_mixture_are_where_its_logarithm_says():
    w, noise = np.random.default_rng(2).normal(size=(2, 5, 4))
    settings = {"unimix": 0.5, "forward_temp": 2.0}
    case = testing.Case("a/case", "", w, w, 1.0, noise=noise, operator="categorical", settings=settings)
    p = np.exp(w / 2) / np.sum(np.exp(w / 2), axis=-1, keepdims=True)
    np.testing.assert_allclose(case.chosen_from, np.log(p / 2 + 1 / 8) + noise, rtol=1e-13)
    case.check_forward(categorical.forward(w, noise=noise, **settings))
