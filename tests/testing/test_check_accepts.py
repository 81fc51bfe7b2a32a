"""What `check` accepts: honest code, near ties, subnormal numbers that are declared to be flushed."""

from __future__ import annotations

import runpy
import time
from functools import partial

import numpy as np
import pytest
from checked import OPERATORS, ROOT, failed, last_of_equals, temp_forgotten
from honest import (
    DTYPES,
    HONEST,
    by_jacobian,
    by_scipy,
    hard,
    hard_by_probs,
    implementation,
    in_a_loop,
    one_hot,
    remembered_cases,
    soft_gradient,
    total,
    with_options,
)

from npselect import gumbel_softmax, straight_through, testing
from npselect.testing import tolerance
from npselect.testing.compare import within_rounding
from npselect.testing.dtypes import floating_dtype
from npselect.testing.profile import Profile

pytestmark = pytest.mark.usefixtures("small_checks")

# ------------------------------------------------------------------------------------------------ what is accepted


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", HONEST)
def test_honest_is_accepted(name, dtype):
    for operator in OPERATORS:
        report = testing.check(with_options(*HONEST[name]), dtypes=dtype, operator=operator)
        assert report.ok, str(report)
        assert report.likely_cause is None
        assert {case.group for case in report.cases if case.verdict == "passed"} > {"random", "axis", "where"}


def all_cases_of(dtype, operator):
    """As `check` asks for them, so that the answers are remembered."""
    return remembered_cases(floating_dtype(dtype), 0.6, operator, learned_temp=False)


IN_LARGE_CASES = [  # long sums come out worst in the shortest dtype, which is asked of all; others say little more
    *(("divide first", dtype) for dtype in DTYPES),
    *((name, "float32") for name in HONEST if name != "divide first"),
    *(pytest.param(name, "bfloat16", marks=pytest.mark.slow) for name in HONEST if name != "divide first"),
]


@pytest.mark.usefixtures("with_large_cases")
@pytest.mark.parametrize(("name", "dtype"), IN_LARGE_CASES)
def test_honest_is_accepted_in_large_cases(name, dtype):
    for operator in OPERATORS:
        report = testing.check(with_options(*HONEST[name]), dtypes=dtype, operator=operator)
        assert report.ok, str(report)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_scipy_is_accepted(dtype):
    report = testing.check(implementation(hard, by_scipy), dtypes=dtype)
    assert report.ok, str(report)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backward", [by_jacobian, in_a_loop])
def test_honest_but_slow_is_accepted(backward, dtype):
    small = [case for case in testing.cases(dtype) if case.logits.shape[-1] <= 10 and len(case.logits) <= 512]
    report = testing.check(implementation(hard, backward), dtypes=dtype, cases=small)
    assert report.ok, str(report)
    assert len(report.cases) > 25


@pytest.mark.parametrize("temp", [1e-3, 7.0, 1e3, 6e4])
@pytest.mark.parametrize("dtype", DTYPES)
def test_honest_is_accepted_at_any_temperature(dtype, temp):
    for name in ("argmax of probs", "difference first"):
        report = testing.check(implementation(*HONEST[name]), dtypes=dtype, temp=temp)
        assert report.ok, str(report)


@pytest.mark.parametrize("temp", [1e-30, 1e30])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_temperatures_at_the_ends_of_the_range(dtype, temp):
    """Where textbooks overflow, nothing counts; what does not overflow passes in strict."""
    assert testing.check(implementation(*HONEST["divide first"]), dtypes=dtype, temp=temp).ok
    assert testing.check(straight_through, dtypes=dtype, temp=temp, profile="strict").ok


TIERS = [
    *(
        (operator, *tier, dtype)
        for operator in OPERATORS
        for tier in (("cpu", np.inf), ("reference", 2**14))
        for dtype in DTYPES
    ),
    *(
        pytest.param(operator, "reference", np.inf, dtype, marks=pytest.mark.slow)
        for operator, dtypes in zip(OPERATORS, (("bfloat16", "float32"), ("float16", "float64")), strict=True)
        for dtype in dtypes
    ),
]


@pytest.mark.parametrize(("operator", "backend", "entries", "dtype"), TIERS)
def test_own_tiers_pass_strict(operator, backend, entries, dtype):
    """The reference, which takes a minute for the largest cases, in those of up to so many entries."""
    tier = implementation(partial(operator.forward, backend=backend), partial(operator.backward, backend=backend))
    cases = [case for case in all_cases_of(dtype, operator) if case.logits.size <= entries]
    assert max(case.logits.shape[-1] for case in cases if case.origin is not None) > 4096
    report = testing.check(tier, operator=operator, dtypes=dtype, profile="strict", cases=cases)
    assert report.ok, str(report)
    assert all(case.verdict == "passed" for case in report.cases)
    assert all(case.judged_rows == case.rows for case in report.cases)
    more = () if operator is straight_through else ("noise", "forward_temp")
    assert report.options == ("axis", "where", *more)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_kernels_serve_as_the_oracle(dtype):
    assert testing.check(implementation(hard, soft_gradient), dtypes=dtype, backend="cpu").ok
    assert testing.check(straight_through, dtypes=dtype, backend="cpu", profile="strict").ok
    assert not testing.check(implementation(hard, temp_forgotten), backend="cpu").ok


def test_several_dtypes_at_once():
    report = testing.check(implementation(hard, soft_gradient), dtypes=("float32", "float64"))
    assert report.ok
    assert report.dtypes == ("float32", "float64")
    assert {group.dtype for group in report.groups} == {"float32", "float64"}


def test_one_last_place_off_is_accepted_and_a_hundred_are_not():
    case = testing.find_case("float32/random/K=10")
    at = np.unravel_index(np.argmin(case.bound / np.spacing(np.abs(case.grad_logits))), case.bound.shape)
    for places, accepted in ((1, True), (-1, True), (100, False), (-100, False)):
        result = case.grad_logits.copy()
        result[at] += places * np.spacing(result[at])
        subject = implementation(lambda w, t: case.mask, lambda g, w, t, result=result: result)
        report = testing.check(subject, cases=[case])
        assert report.ok is accepted
        assert report.cases[0].ulp == abs(places)
        if not accepted:
            assert report.cases[0].difference.position == at
            with pytest.raises(AssertionError, match=rf"backward\[{at[0]}, {at[1]}\]"):
                case.check_backward(result)


def test_strict_rejects_a_textbook():
    report = testing.check(implementation(hard, soft_gradient), profile="strict")
    assert {"random/constant cotangent", "edge/NaN", "edge/all -inf", "edge/temp=0.0"} <= failed(report)


@pytest.mark.usefixtures("with_large_cases")
def test_a_full_check_is_quick(record):
    example = runpy.run_path(str(ROOT / "examples" / "numpy_select.py"))
    remembered_cases.cache_clear()  # the oracle's time included
    start = time.perf_counter()
    report = testing.check(implementation(example["forward"], example["backward"]))
    record("seconds for a full check of examples/numpy_select.py", time.perf_counter() - start)
    assert report.ok


# ------------------------------------------------------------------------------------------------ near ties


def second_within_rounding(w, temp):
    """The second best wherever rounding might have it so: what hides behind that, if it is not counted."""
    mask = hard(w, temp)
    if not w.size:
        return mask
    case = testing.Case("a/case", "", w, w, temp)
    close = within_rounding(case, Profile("standard")) & (case.w < np.max(case.w, axis=-1, keepdims=True))
    sly = one_hot(np.argmax(np.where(close, case.w, -np.inf), axis=-1, keepdims=True), w)
    return np.where(np.any(close, axis=-1, keepdims=True), sly, mask).astype(w.dtype)


@pytest.mark.parametrize("temp", [0.05, 0.6, 7.0, 1e3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_near_ties_are_counted(dtype, temp):
    honest = testing.check(implementation(hard_by_probs, soft_gradient), dtypes=dtype, temp=temp)
    assert honest.ok, str(honest)
    sly = testing.check(implementation(second_within_rounding, soft_gradient), dtypes=dtype, temp=temp)
    assert not failed(sly)
    assert not sly.ok
    assert sly.near_ties[dtype] > sly.near_ties_allowed[dtype] >= honest.near_ties[dtype]
    assert f"too many of them in {dtype}: {sly.near_ties[dtype]} in rows of random numbers, where" in str(sly)
    assert sly.summary[-1].startswith("FAILED: 0 of ")


def test_near_ties_of_one_dtype_do_not_make_up_for_those_of_another():
    def forward(w, temp):
        return (second_within_rounding if w.dtype == np.float32 else hard)(w, temp)

    report = testing.check(implementation(forward, soft_gradient), dtypes=("float16", "float32", "float64"))
    assert not report.ok
    assert sum(report.near_ties.values()) < sum(report.near_ties_allowed.values())
    assert "too many of them in float32: " in str(report)


def test_near_ties_are_counted_with_noise():
    for forward, ok in ((hard_by_probs, True), (second_within_rounding, False)):
        report = testing.check(with_options(forward, soft_gradient), operator=gumbel_softmax)
        assert report.ok is ok, str(report)


def test_strict_accepts_no_near_tie():
    for forward in (hard_by_probs, second_within_rounding):
        report = testing.check(implementation(forward, straight_through.backward), profile="strict")
        assert {"random/close pairs", "edge/near ties, large temp"} <= failed(report)
        assert report.near_ties == report.near_ties_allowed == {}


def test_a_near_tie_is_accepted_in_standard_only():
    close = [testing.find_case("float16/edge/near ties, large temp")]
    by_probs = implementation(hard_by_probs, soft_gradient)
    report = testing.check(by_probs, dtypes="float16", cases=close)
    assert report.ok
    assert report.cases[0].near_ties == 2
    assert "within the rounding of the probabilities: 2" in str(report)
    assert not testing.check(by_probs, dtypes="float16", profile="strict", cases=close).ok


def test_a_tie_is_no_near_tie():
    ties = [testing.find_case("float32/edge/ties")]
    report = testing.check(implementation(last_of_equals, soft_gradient), cases=ties)
    assert not report.ok
    assert report.cases[0].difference.position == (0, 1)


# ------------------------------------------------------------------------------------------------ subnormal numbers


def flushed(values):
    return np.where(np.abs(values) < tolerance.Format.of(values.dtype).tiny, values.dtype.type(0), values)


def flushing_gradient(g, w, temp):
    """Every operation takes subnormal numbers for 0, and returns 0 for them."""
    g, t = flushed(g), flushed(flushed(w) / w.dtype.type(temp))
    e = flushed(np.exp(flushed(t - np.max(t, axis=-1, keepdims=True))))
    p = flushed(e / flushed(total(e)))
    return flushed(flushed(p * flushed(g - flushed(total(flushed(p * g))))) / w.dtype.type(temp))


def flushing_two_terms(g, w, temp):
    t = flushed(w / w.dtype.type(temp))
    e = flushed(np.exp(flushed(t - np.max(t, axis=-1, keepdims=True))))
    p = flushed(e / flushed(total(e)))
    return flushed(flushed(flushed(p * g) - flushed(p * flushed(total(flushed(p * g))))) / w.dtype.type(temp))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backward", [flushing_gradient, flushing_two_terms])
def test_flushing_subnormals_must_be_declared(backward, dtype):
    for temp in (1e-3, 0.6):
        declared = implementation(hard, backward, flushes_subnormals=True)
        report = testing.check(declared, dtypes=dtype, temp=temp)
        assert report.ok, str(report)
        assert "declared to flush subnormals" in str(report)
        report = testing.check(implementation(hard, backward), dtypes=dtype, temp=temp)
        notes = {case.name: case.note for case in report.cases if case.verdict == "failed"}
        assert report.ok == (dtype == "bfloat16" and backward is flushing_two_terms)
        assert ("edge/subnormal logits" in notes) == (backward is flushing_gradient)  # which flushes the logits, too
        if dtype != "bfloat16":  # whose 8 bits know exp(-88) to a factor of 2
            assert notes["edge/subnormal probabilities"].startswith("small as they are, they count")
        if dtype == "float32" and backward is flushing_gradient:
            assert "subnormal numbers are taken for 0, which flushes_subnormals = True declares" in report.likely_cause


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_result_may_be_flushed(dtype):
    """The smallest normal number, which every bound includes, forgives that; not what it is multiplied by."""
    subject = implementation(hard, lambda g, w, temp: flushed(soft_gradient(g, w, temp)))
    assert testing.check(subject, dtypes=dtype).ok


def test_declaring_it_forgives_nothing_else():
    for backward in (temp_forgotten, lambda g, w, temp: 0 * g):
        assert not testing.check(implementation(hard, backward, flushes_subnormals=True)).ok
