"""What `npselect.testing` accepts, asks, reports and refuses. Faults and bounds: test_faults, test_tolerance."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import time
from dataclasses import FrozenInstanceError
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
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
    small_cases,
    soft_gradient,
    total,
    with_options,
)

import npselect
from npselect import bench, gumbel_softmax, noise, straight_through, testing
from npselect.testing import tolerance
from npselect.testing.compare import within_rounding
from npselect.testing.profile import Profile

ROOT = Path(__file__).parents[2]
OPERATORS = [straight_through, gumbel_softmax]


@pytest.fixture(autouse=True)
def _remembered(monkeypatch):
    monkeypatch.setattr(sys.modules["npselect.testing.check"], "all_cases", small_cases)


@pytest.fixture
def with_large_cases(_remembered, monkeypatch):
    """Those of many rows and of long ones too, which take most of the time and ask for nothing but their size."""
    monkeypatch.setattr(sys.modules["npselect.testing.check"], "all_cases", remembered_cases)


def last_of_equals(w, temp):
    return one_hot(w.shape[-1] - 1 - np.argmax(w[:, ::-1], axis=-1, keepdims=True), w)


def temp_forgotten(g, w, temp):
    return temp * soft_gradient(g, w, temp)


def failed(report):
    return {case.name for case in report.cases if case.verdict == "failed"}


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
    return remembered_cases(np.dtype(dtype), 0.6, operator, learned_temp=False)


def slow_but(quick):
    """All honest ones in all dtypes; `quick` says which of them in the README's command."""
    pairs = [(name, dtype) for name in HONEST for dtype in DTYPES]
    return [pytest.param(*pair, marks=[pytest.mark.slow] * (not quick(*pair))) for pair in pairs]


@pytest.mark.usefixtures("with_large_cases")
@pytest.mark.parametrize(("name", "dtype"), slow_but(lambda name, dtype: name == "divide first" or dtype == "float32"))
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
    assert report.options == (("axis", "where") if operator is straight_through else ("axis", "where", "noise"))


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


# ------------------------------------------------------------------------------------------------ what is asked


def test_what_textbooks_differ_in_is_shown_not_judged():
    report = testing.check(implementation(hard, soft_gradient))
    shown = {case.name: case.verdict for case in report.cases if case.verdict in ("agrees", "differs")}
    assert shown["edge/NaN"] == "differs"
    assert shown["edge/K=0"] == "agrees"
    assert "edge/temp=nan" in shown
    assert f"shown for information, not judged: {len(shown)} cases" in str(report)


def test_an_error_where_textbooks_differ_does_not_count():
    def careful(logits, temp):
        if not np.all(np.isfinite(logits) | np.isneginf(logits)):
            raise ValueError("not finite")
        return hard(logits, temp)

    report = testing.check(implementation(careful, soft_gradient))
    assert report.ok
    assert {case.name: case.verdict for case in report.cases}["edge/NaN beside"] == "differs"


def test_axes_that_no_axis_was_given_for_are_shown_and_in_strict_judged():
    def of_the_first(logits, temp):
        """What PyTorch's softmax does with no dim given: the first axis of three, and of one, else the second."""
        return straight_through.forward(logits, temp, axis=0 if logits.ndim in (1, 3) else 1)

    subject = implementation(of_the_first, straight_through.backward)
    shown = {case.name: case for case in testing.check(subject).cases}
    assert (shown["edge/one axis"].verdict, shown["edge/three axes"].verdict) == ("agrees", "differs")
    report = testing.check(subject, profile="strict")
    assert [case.name for case in report.cases if case.verdict == "failed"] == ["edge/three axes"]
    assert "rows lie along the last axis" in str(report)

    def of_a_row(logits, temp):
        return np.atleast_2d(straight_through.forward(logits, temp))

    report = testing.check(implementation(of_a_row, straight_through.backward), profile="strict")
    (failed,) = [case for case in report.cases if case.verdict == "failed"]
    assert failed.name == "edge/one axis"
    assert "returns shape (1, 5); expected (5,)" in str(failed.difference)

    def of_an_item(logits, temp):
        """One selection for each of the first axis's entries."""
        flat = logits.reshape(len(logits), -1) if logits.ndim == 3 else logits
        return straight_through.forward(flat, temp).reshape(logits.shape)

    report = testing.check(implementation(of_an_item, straight_through.backward), profile="strict")
    assert [case.name for case in report.cases if case.verdict == "failed"] == ["edge/three axes"]


def test_what_is_not_asked_is_said():
    plain = testing.check(implementation(hard, soft_gradient))
    skipped = [case for case in plain.cases if case.verdict == "not asked"]
    assert {case.group for case in skipped} == {"axis", "where"}
    assert all("the implementation takes no axis" in case.note for case in skipped if case.group == "axis")
    assert {case.name: case.note for case in skipped}["where/axis=1"].endswith("takes no axis and no where")
    assert f"not asked, for options that are not taken: {len(skipped)} cases" in plain.summary
    assert "takes no options" in str(plain)
    assert {group.name: group.not_asked for group in plain.groups} == {
        "digits": 0, "random": 0, "edge": 0, "axis": 6, "where": 9, "layout": 0
    }  # fmt: skip
    full = testing.check(with_options(hard, soft_gradient))
    assert not any(case.verdict == "not asked" for case in full.cases)
    assert "not asked, for" not in str(full)


@pytest.mark.parametrize("option", ["axis", "where"])
def test_one_option_alone_is_asked_alone(option):
    both = with_options(hard, soft_gradient)
    calls = []

    def forward(logits, temp, **given):
        calls.append(set(given))
        return both.forward(logits, temp, **given)

    def backward(grad_mask, logits, temp, **given):
        return both.backward(grad_mask, logits, temp, **given)

    report = testing.check(implementation(forward, backward, options=frozenset({option})))
    assert report.ok
    assert report.options == (option,)
    assert set.union(*calls) == {option}
    assert {case.group for case in report.cases if case.verdict == "not asked"} == {"axis", "where"} - (
        {"axis"} if option == "axis" else set()
    )


def test_an_option_of_one_pass_is_not_asked():
    both = with_options(hard, soft_gradient)
    report = testing.check(implementation(both.forward, soft_gradient))
    assert report.options == ()


def test_keyboard_interrupt_passes():
    def interrupted(logits, temp):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        testing.check(implementation(interrupted, soft_gradient))


def test_warnings_of_the_implementation_are_its_own():
    def noisy(logits, temp):
        np.log(np.zeros(1))
        return hard(logits, temp)

    assert testing.check(implementation(noisy, soft_gradient)).ok


def test_nothing_checked_is_an_error():
    with pytest.raises(ValueError, match="nothing was checked"):
        testing.check(straight_through, cases=[])
    only_nan = [testing.find_case("float32/edge/NaN")]
    with pytest.raises(ValueError, match="none of 1 cases could be judged: nothing was checked"):
        testing.check(straight_through, cases=only_nan)
    assert testing.check(straight_through, cases=only_nan, profile="strict").ok
    only_axis = [case for case in testing.cases(options=["axis"]) if case.group == "axis"]
    with pytest.raises(ValueError, match="none of 6 cases could be judged"):
        testing.check(implementation(hard, soft_gradient), cases=only_axis)
    of_another = testing.cases("float64")
    with pytest.raises(ValueError, match="nothing was checked"):
        testing.check(straight_through, dtypes="float32", cases=of_another)
    with pytest.raises(ValueError, match="nothing was checked"):
        testing.check(gumbel_softmax, operator=gumbel_softmax, cases=testing.cases())


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (SimpleNamespace(), r"has no function forward\(logits, temp\)"),
        (SimpleNamespace(forward=hard), r"has no function backward\(grad_mask, logits, temp\)"),
        (SimpleNamespace(forward=hard, backward=3), "has no function backward"),
        (implementation(lambda logits: logits, soft_gradient), r"cannot be called as forward\(logits, temp\)"),
        (implementation(hard, hard), r"cannot be called as backward\(grad_mask, logits, temp\)"),
        (implementation(lambda logits, temp, *, key: logits, soft_gradient), "key"),
    ],
)
def test_what_is_no_implementation_is_a_type_error(broken, message):
    with pytest.raises(TypeError, match=message):
        testing.check(broken)


def test_what_takes_no_noise_is_no_gumbel_softmax():
    with pytest.raises(TypeError, match=r"takes no noise=.*is for npselect.testing.check_sampler"):
        testing.check(implementation(hard, soft_gradient), operator=gumbel_softmax)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile": "lenient"}, "profile is 'lenient'"),
        ({"dtypes": "int32"}, "dtype is 'int32'"),
        ({"dtypes": "fp8"}, "dtype is 'fp8'"),
        ({"dtypes": ["float32", "fp8"]}, "dtype is 'fp8'"),
        ({"dtypes": []}, "dtypes is empty"),
        ({"operator": npselect.selection}, "operator is <module"),
        ({"temp": 0.0}, "temp is 0.0"),
        ({"temp": float("nan")}, "temp is nan"),
        ({"temp": 1e-30, "dtypes": "float16"}, "temp is 1e-30, in float16 0.0"),
        ({"temp": 1e30, "dtypes": "float16"}, "temp is 1e[+]30, in float16 inf"),
        ({"backend": "tpu"}, "backend is 'tpu'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        testing.check(straight_through, **options)


def test_bfloat16_without_ml_dtypes(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(ModuleNotFoundError, match="pip install ml_dtypes"):
        testing.check(straight_through, dtypes="bfloat16")


@pytest.mark.parametrize("dtype", [np.float16, np.dtype("float64"), ml_dtypes.bfloat16, "f4"])
def test_dtypes_as_numpy_has_them(dtype):
    few = testing.cases(dtype)[1:3]
    assert testing.check(straight_through, dtypes=dtype, cases=few).dtypes == (np.dtype(dtype).name,)


@pytest.mark.frameworks
@pytest.mark.parametrize("framework", ["torch", "jax.numpy", "tensorflow"])
@pytest.mark.parametrize("name", testing.DTYPES)
def test_dtypes_as_frameworks_have_them(framework, name):
    dtype = getattr(pytest.importorskip(framework), name)
    case = testing.find_case(f"{name}/edge/ties")
    assert testing.check(straight_through, dtypes=[dtype], cases=[case]).dtypes == (name,)
    assert testing.check(straight_through, dtypes=dtype, cases=[case]).dtypes == (name,)
    assert tolerance.soft([[0.0, 1.0]], 1.0, dtype).tolist() == tolerance.soft([[0.0, 1.0]], 1.0, name).tolist()
    if name == "float32":
        assert testing.cases(dtype)[0].logits.dtype == np.float32
        assert noise.gumbel(1, 1, dtype=dtype).dtype == np.float32
        assert bench.Problem("noise", 1, 2, dtype).dtype == name
    with pytest.raises(ValueError, match=r"dtype is .*int32.*; it takes one of 'float16'"):
        testing.check(straight_through, dtypes=[pytest.importorskip(framework).int32])


@pytest.mark.frameworks
def test_answers_may_be_tensors_that_require_a_gradient():
    torch = pytest.importorskip("torch")
    case = testing.find_case("bfloat16/random/K=5")
    answers = (torch.from_numpy(array.view(np.int16)) for array in (case.mask, case.grad_logits))
    mask, grad_logits = (bits.view(torch.bfloat16) for bits in answers)
    case.check_forward(mask)
    case.check_backward(grad_logits.clone().requires_grad_())
    with pytest.raises(AssertionError, match="forward"):
        case.check_forward(mask.flip(-1))
    leaf = torch.zeros((), requires_grad=True)
    learned = SimpleNamespace(
        forward=lambda logits, temp: torch.from_numpy(straight_through.forward(logits)) + leaf,
        backward=lambda g, logits, temp: torch.from_numpy(straight_through.backward(g, logits, temp)) + leaf,
    )
    assert testing.check(learned, cases=[testing.find_case("float32/random/K=5")]).ok
    bound = tolerance.backward(leaf.expand(1, 2), leaf.expand(1, 2), leaf + 1, torch.float32)
    assert bound.shape == (1, 2)
    assert tolerance.isclose(leaf, leaf, 0.0)


def test_temp_is_rounded_to_the_dtype():
    seen = set()

    def spying(logits, temp):
        seen.add(temp)
        return hard(logits, temp)

    report = testing.check(implementation(spying, soft_gradient), dtypes="float16", temp=0.6)
    assert report.temp == 0.6
    assert 0.60009765625 in seen  # the nearest multiple of 2**-11
    assert 0.6 not in seen
    assert all(isinstance(temp, float) for temp in seen)
    assert "temp 0.6 (rounded to the dtype)" in str(report)


def test_arguments_are_copies_and_options_are_named():
    case = testing.find_case("gumbel/float32/where/axis=1")
    seen = {}

    class Spy:
        def forward(self, *arguments, axis=-1, where=None, noise=None):
            seen["forward"] = arguments, {"axis": axis, "where": where, "noise": noise}
            return gumbel_softmax.forward(*arguments, axis=axis, where=where, noise=noise)

        def backward(self, *arguments, axis=-1, where=None, noise=None):
            seen["backward"] = arguments, {"axis": axis, "where": where, "noise": noise}
            return gumbel_softmax.backward(*arguments, axis=axis, where=where, noise=noise)

    assert testing.check(Spy(), operator=gumbel_softmax, cases=[case]).ok
    for direction, arrays in (("forward", [case.logits]), ("backward", [case.grad_mask, case.logits])):
        arguments, options = seen[direction]
        assert arguments[-1] == case.temp
        assert options["axis"] == case.axis == 1
        for given, own in zip([*arguments[:-1], options["where"], options["noise"]], [*arrays, case.where, case.noise],
                              strict=True):  # fmt: skip
            np.testing.assert_array_equal(given, own)
            assert not np.shares_memory(given, own)


def test_progress():
    calls = []
    report = testing.check(straight_through, progress=lambda *call: calls.append(call))
    assert [done for done, _, _ in calls] == list(range(len(report.cases) + 1))
    assert {total for _, total, _ in calls} == {len(report.cases)}
    assert [name for _, _, name in calls] == [*(case.id for case in report.cases), ""]


# ------------------------------------------------------------------------------------------------ the cases


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_cases_are_the_same_every_time(dtype, operator):
    once, again = (testing.cases(dtype, operator=operator, options=["axis", "where"], profile="strict") for _ in "12")
    assert [str(case) for case in once] == [case.id for case in again]
    assert len({case.id for case in once}) == len(once)
    prefix = "" if operator is straight_through else "gumbel/"
    for a, b in zip(once, again, strict=True):
        assert a.id == f"{prefix}{dtype}/{a.name}"
        for name in ("logits", "grad_mask", "where", "noise"):
            mine, other = getattr(a, name), getattr(b, name)
            assert (mine is None) == (other is None)
            assert mine is None or mine.tobytes() == other.tobytes()
        assert (a.noise is None) == (operator is straight_through)
        assert a.logits.dtype.name == a.grad_mask.dtype.name == dtype
        assert a.temp == float(np.asarray(a.temp).astype(a.logits.dtype))
    assert {case.group for case in once} == {"digits", "random", "edge", "axis", "where", "layout"}
    lengths = {case.logits.shape[case.axis] for case in once}
    assert lengths >= {1, 2, 3, 5, 7, 10, 33, 64, 100, 129, 1000, 1024, 1025, 4096}


@pytest.mark.parametrize("dtype", DTYPES)
def test_logits_and_noise_add_up_without_a_rounding_error(dtype):
    for case in testing.cases(dtype, operator=gumbel_softmax, options=["axis", "where"], profile="strict"):
        exact = case.logits.astype(np.float64) + case.noise.astype(np.float64)
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal((case.logits + case.noise).astype(np.float64), exact)


def test_cases_by_options_and_profile():
    plain = {case.id for case in testing.cases()}
    axis = {case.id for case in testing.cases(options=("axis",))}
    where = {case.id for case in testing.cases(options={"where"})}
    both = {case.id for case in testing.cases(options=["axis", "where"])}
    assert {name.split("/")[1] for name in axis - plain} == {"axis"}
    assert {name.split("/")[1] for name in where - plain} == {"where"}
    assert both - axis - where == {"float32/where/axis=1"}
    strict = {case.id for case in testing.cases(profile="strict")}
    assert plain < strict
    assert "float32/edge/NaN" in strict - plain
    assert not any("temp=" in name or "K=0" in name for name in strict)
    for case in testing.cases(options=["axis", "where"]):
        assert case.options.keys() == ({"axis"} if case.axis != -1 else set()) | (
            {"where"} if case.where is not None else set()
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"options": ["axes"]}, "options holds 'axes'"),
        ({"profile": "lenient"}, "profile is 'lenient'"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"operator": npselect.noise}, "operator is <module"),
    ],
)
def test_cases_refuse(arguments, message):
    with pytest.raises(ValueError, match=message):
        testing.cases(**arguments)


def test_a_case_is_found_by_its_id():
    for known in [*testing.cases(operator=gumbel_softmax), *testing.cases("float16")][::7]:
        case = testing.find_case(known.id)
        assert case.id == known.id
        assert case.logits.tobytes() == known.logits.tobytes()
    assert testing.find_case("float64/random/K=2", temp=2.0).temp == 2.0
    for unknown in ("float32/random/K=6", "K=3", "", "float8/random/K=3", "gumbel/float32/edge/near ties"):
        with pytest.raises(ValueError, match=f"id is '{unknown}'"):
            testing.find_case(unknown)


def test_a_case_has_the_answers():
    case = testing.find_case("float32/where/axis=1")
    np.testing.assert_array_equal(case.mask, straight_through.forward(case.logits, case.temp, **case.options))
    assert case.mask.dtype == case.grad_logits.dtype == np.float32
    assert case.bound.shape == case.grad_logits.shape == case.logits.shape == (3, 8, 5)
    assert np.all(case.bound[~case.where] < 1e-44)
    assert np.all(case.bound[case.where] > 1e-44)
    for row, choice in ((0, 0), (7, 3), (14, 7)):
        assert case.rows(case.logits)[row, choice] == case.logits[case.position(row, choice)]
    np.testing.assert_array_equal(case.unrows(case.rows(case.logits)), case.logits)


# ------------------------------------------------------------------------------------------------ in a test suite

SUITE = """
import numpy as np
import pytest

import npselect
from npselect import gumbel_softmax, straight_through
from npselect.testing import cases


def softmax(w, temp):
    e = np.exp((w - w.max(axis=-1, keepdims=True)) / w.dtype.type(temp))
    return e / e.sum(axis=-1, keepdims=True)


def forward(w, temp):
    return (np.arange(w.shape[-1]) == w.argmax(axis=-1)[..., None]).astype(w.dtype)


def backward(g, w, temp):
    p = softmax(w, temp)
    return p * (g - (p * g).sum(axis=-1, keepdims=True)) / w.dtype.type(temp)


@pytest.mark.parametrize("case", npselect.testing.cases(), ids=str)
def test_mine(case):
    case.check_forward(forward(case.logits, case.temp))
    case.check_backward(backward(case.grad_mask, case.logits, case.temp))


@pytest.mark.parametrize("case", cases("float64", operator=gumbel_softmax), ids=str)
def test_with_noise(case):
    case.check_forward(forward(case.logits + case.noise, case.temp))
    case.check_backward(backward(case.grad_mask, case.logits + case.noise, case.temp))


@pytest.mark.parametrize("case", cases(options=("axis", "where"), profile="strict"), ids=str)
def test_with_options(case):
    case.check_forward(straight_through.forward(case.logits, case.temp, **case.options), profile="strict")
    grad_logits = straight_through.backward(case.grad_mask, case.logits, case.temp, **case.options)
    case.check_backward(grad_logits, profile="strict")


@pytest.mark.parametrize("case", cases()[1:5], ids=str)
def test_wrong(case):
    case.check_backward(case.temp * backward(case.grad_mask, case.logits, case.temp))
"""


def test_cases_parametrize_somebody_elses_tests(tmp_path):
    (tmp_path / "test_select.py").write_text(SUITE)
    options = ["-v", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "test_select.py"]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTEST_ADDOPTS": ""}
    command = [sys.executable, "-m", "pytest", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    good = len(testing.cases()) + len(testing.cases("float64", operator=gumbel_softmax))
    good += len(testing.cases(options=("axis", "where"), profile="strict"))
    assert f"3 failed, {good + 1} passed" in done.stdout, done.stdout  # with K=1 there is no gradient to be wrong
    assert "test_mine[float32/random/K=131072] PASSED" in done.stdout
    assert "test_with_noise[gumbel/float64/edge/ties] PASSED" in done.stdout
    assert "test_wrong[float32/random/K=3] FAILED" in done.stdout
    assert "AssertionError: float32/random/K=3: backward[0, 0] is " in done.stdout
    assert ", give or take " in done.stdout
    assert " (few choices)" in done.stdout


def test_checks_of_a_case_say_what_is_wrong():
    case = testing.find_case("gumbel/float32/axis/1 of 3")
    case.check_forward(case.mask, profile="strict")
    case.check_backward(case.grad_logits, profile="strict")
    assert case.check_forward(case.mask) is None
    wrong = case.grad_logits.copy()
    wrong[2, 3, 4] = 7
    expected = rf"{case.id}: backward\[2, 3, 4\] is 7.0; expected .*, give or take .* \({case.note}\)"
    with pytest.raises(AssertionError, match=expected):
        case.check_backward(wrong)
    with pytest.raises(AssertionError, match=r"forward\[0, .*, 0\] is 0.0; expected 1.0"):
        case.check_forward(0 * case.mask)
    with pytest.raises(AssertionError, match="returns dtype float64; expected float32"):
        case.check_forward(case.mask.astype(float))
    with pytest.raises(AssertionError, match=r"returns shape \(4, 5, 9\); expected \(4, 9, 5\)"):
        case.check_backward(np.moveaxis(case.grad_logits, 1, 2))
    with pytest.raises(AssertionError, match="returns a list; expected an array"):
        case.check_forward(case.mask.tolist())
    with pytest.raises(ValueError, match="profile is 'loose'"):
        case.check_forward(case.mask, profile="loose")


def test_checks_of_a_case_by_profile():
    case = testing.find_case("float32/edge/NaN beside")
    anything = case.mask.copy()
    anything[[1, 3]] = 5
    case.check_forward(anything)
    with pytest.raises(AssertionError, match=r"forward\[1, 0\] is 5.0; expected nan"):
        case.check_forward(anything, profile="strict")
    textbook = testing.find_case("float32/random/constant cotangent")
    result = soft_gradient(textbook.grad_mask, textbook.logits, textbook.temp)
    textbook.check_backward(result)
    with pytest.raises(AssertionError, match="constant cotangent: backward"):
        textbook.check_backward(result, profile="strict")


def test_a_case_of_ones_own():
    logits = np.array([[1.0, 2.0], [np.nan, 0.0]], np.float32)
    case = testing.Case("mine/two", "two rows", logits, np.ones_like(logits), 0.5)
    assert case.group == "mine"
    assert str(case) == "float32/mine/two"
    report = testing.check(implementation(hard, soft_gradient), cases=[case])
    assert (report.cases[0].rows, report.cases[0].judged_rows) == (2, 1)
    report = testing.check(implementation(hard, lambda g, w, t: g), cases=[case])
    assert "find_case" not in report.cases[0].reproduce
    assert report.cases[0].reproduce.startswith(
        "case = next(case for case in cases if case.id == 'float32/mine/two'); "
        "print(implementation.backward(case.grad_mask, case.logits, case.temp)["
    )


# ------------------------------------------------------------------------------------------------ the report


def test_assert_conforms():
    assert testing.assert_conforms(straight_through) is None
    with pytest.raises(AssertionError, match="likely cause: backward: 1/temp is missing"):
        testing.assert_conforms(implementation(hard, temp_forgotten), dtypes=("float32", "float64"))


@pytest.mark.parametrize("temp", [0.6, 0.3])
@pytest.mark.parametrize("operator", OPERATORS)
def test_the_first_failure_can_be_reproduced(operator, temp):
    subjects = [with_options(hard, temp_forgotten), with_options(last_of_equals, soft_gradient)]
    if operator is straight_through:
        subjects.append(implementation(hard, temp_forgotten))
    for subject in subjects:
        report = testing.check(subject, operator=operator, temp=temp)
        case = next(case for case in report.cases if case.verdict == "failed")
        for failure in [case, *(case for case in report.cases if case.verdict == "failed" and case.group == "where")][
            :2
        ]:
            printed, difference = [], failure.difference
            names = {
                "npselect": npselect,
                "implementation": subject,
                "print": lambda *what, to=printed: to.append(what),
            }
            exec(failure.reproduce, names)
            assert printed == [(difference.actual, difference.expected)]
        text = str(report)
        assert f"  case         {case.id}: {case.note}" in text
        assert f"  difference   {case.difference}" in text
        assert f"  reproduce    {case.reproduce}" in text
        for value, bits in (("actual", "actual_bits"), ("expected", "expected_bits")):
            bits = getattr(case.difference, bits)
            assert np.array(int(bits, 16), np.uint32).view(np.float32) == getattr(case.difference, value)
            assert f"{value} {bits}" in text
        if case.difference.direction == "backward":
            ulp = float(tolerance.ulp(np.array(case.difference.expected), "float32"))
            assert case.difference.conditioning == case.difference.tolerance / ulp
            assert f"errors of up to {case.difference.conditioning:.3g} ULP are honest there" in text


@pytest.mark.parametrize(
    ("dtype", "bits"), [("float16", "3c00"), ("bfloat16", "3f80"), ("float64", "3ff0000000000000")]
)
def test_bits_in_every_dtype(dtype, bits):
    report = testing.check(implementation(lambda w, t: 0 * w, soft_gradient), dtypes=dtype)
    difference = report.cases[0].difference
    assert (difference.actual_bits.strip("0"), difference.expected_bits) == ("", bits)
    assert len(difference.actual_bits) == len(bits)


def test_groups_count_all_cases():
    report = testing.check(implementation(last_of_equals, soft_gradient), dtypes=("float32", "float64"))
    assert [(group.dtype, group.name) for group in report.groups] == [
        (dtype, name)
        for dtype in ("float32", "float64")
        for name in ("digits", "random", "edge", "axis", "where", "layout")
    ]
    for group in report.groups:
        cases = [case for case in report.cases if (case.dtype, case.group) == group[:2]]
        counts = [
            sum(case.verdict in verdicts for case in cases)
            for verdicts in (["passed"], ["failed"], ["agrees", "differs"], ["not asked"])
        ]
        assert list(group[2:6]) == counts
        assert sum(counts) == len(cases)
        judged = [case.fraction for case in cases if case.verdict in ("passed", "failed") and case.fraction >= 0]
        np.testing.assert_equal(group.fraction, max(judged, default=np.nan))
        assert np.isnan(group.fraction) == (group.name in ("axis", "where"))
    edge = next(line for line in str(report).splitlines() if line.startswith("float32  edge"))
    assert edge.split()[2:6] == [str(count) for count in report.groups[2][2:6]]


def test_report_is_frozen():
    report = testing.check(straight_through, cases=testing.cases()[:2])
    with pytest.raises(FrozenInstanceError):
        report.dtype = "float64"
    with pytest.raises(FrozenInstanceError):
        report.cases[0].verdict = "failed"


@pytest.mark.parametrize(
    ("tested", "operator"),
    [
        (straight_through, straight_through),
        (implementation(hard, lambda g, w, t: np.nan * g), straight_through),
        (with_options(hard, temp_forgotten), gumbel_softmax),
    ],
)
def test_report_as_json(tested, operator):
    def strict(constant):
        raise AssertionError(constant)

    report = testing.check(tested, operator=operator, dtypes=("float32", "float16"))
    read = json.loads(report.to_json(), parse_constant=strict)
    assert read["schema"] == "npselect-report/2"
    assert read["ok"] is report.ok
    assert (read["dtypes"], read["temp"], read["profile"], read["backend"]) == (
        ["float32", "float16"], 0.6, "standard", "reference"
    )  # fmt: skip
    assert read["operator"] == operator.__name__.rpartition(".")[-1]
    assert read["options"] == list(report.options)
    assert read["likely_cause"] == report.likely_cause
    assert read["near_ties_allowed"] == report.near_ties_allowed
    assert set(read["versions"]) == {"npselect", "numpy", "python"}
    assert [group["name"] for group in read["groups"]] == [group.name for group in report.groups]
    assert [case["id"] for case in read["cases"]] == [case.id for case in report.cases]
    for case, outcome in zip(read["cases"], report.cases, strict=True):
        assert float(case["ulp"]) == pytest.approx(outcome.ulp, rel=0, abs=0, nan_ok=True)
        assert (case["difference"] is None) == (outcome.verdict in ("passed", "agrees", "not asked"))
        assert (case["reproduce"] is None) == (case["difference"] is None)


def test_no_framework_no_numba_is_loaded():
    code = "import sys, npselect.testing; npselect.testing.cases(); print(*sys.modules)"
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    assert not {"numba", "torch", "jax", "tensorflow", "scipy", "rich", "ml_dtypes", "pytest"} & set(loaded)


# ------------------------------------------------------------------------------------------------ results of no use


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda logits: None, "returns a NoneType; expected an array"),
        (lambda logits: logits.tolist(), "returns a list; expected an array"),
        (lambda logits: (row for row in logits), "returns a generator; expected an array"),
        (lambda logits: np.full(logits.shape, None), "returns a ndarray; expected an array"),
        (lambda logits: np.ma.masked_array(logits, mask=True), "returns a MaskedArray; expected an array"),
        (lambda logits: np.asmatrix(logits), "returns a matrix; expected an array"),
        (lambda logits: np.float32(1), r"returns shape (); expected (1797, 10)"),
        (lambda logits: np.full(logits.shape, "abc"), "returns dtype <U3; expected float32"),
        (lambda logits: np.zeros(logits.shape, "V8"), r"returns dtype |V8; expected float32"),
        (lambda logits: logits.astype(">f4"), r"returns dtype >f4; expected float32"),
        (lambda logits: logits.astype(np.complex64), "returns dtype complex64; expected float32"),
    ],
)
def test_results_that_are_no_arrays_of_the_dtype(answer, message):
    for direction in ("forward", "backward"):
        subject = SimpleNamespace(forward=straight_through.forward, backward=straight_through.backward)
        setattr(subject, direction, lambda *arguments: answer(arguments[-2]))
        report = testing.check(subject)
        assert not report.ok
        assert str(report.cases[0].difference) == f"{direction} {message}"
        assert report.likely_cause is None


def test_a_class_is_no_implementation():
    class Subject:
        def forward(self, logits, temp):
            return straight_through.forward(logits, temp)

        def backward(self, grad_mask, logits, temp):
            return straight_through.backward(grad_mask, logits, temp)

    with pytest.raises(TypeError, match="it is a class, give an instance"):
        testing.check(Subject)
    assert testing.check(Subject()).ok


def test_temp_is_a_number():
    with pytest.raises(TypeError, match=r"temp is '0.6'; it takes a number"):
        testing.check(straight_through, temp="0.6")
    report = testing.check(straight_through, temp=np.float32(0.5), cases=testing.cases()[:2])
    assert json.loads(report.to_json())["temp"] == 0.5
    for temp in (0, -1, np.nan):
        with pytest.raises(ValueError, match=r"temp is .* must be positive and finite"):
            testing.cases(temp=temp)


def test_the_dtypes_are_those_of_the_cases():
    given = [*testing.cases("float64")[:2], *testing.cases("float16")[:1]]
    assert testing.check(straight_through, cases=given).dtypes == ("float64", "float16")
    with pytest.raises(ValueError, match="none of 3 cases could be judged, 3 of them being of other dtypes"):
        testing.check(straight_through, cases=given, dtypes="float32")
    assert testing.check(straight_through, dtypes=["float32", np.float32], cases=testing.cases()[:1]).dtypes == (
        "float32",
    )
    assert [case.id for case in testing.cases(options="axis")] == [case.id for case in testing.cases(options=["axis"])]
