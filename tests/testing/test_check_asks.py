"""What `check` asks, of whom, and what it refuses."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
from honest import (
    hard,
    implementation,
    soft_gradient,
    with_options,
)

import npselect
from npselect import bench, gumbel_softmax, noise, straight_through, testing
from npselect.testing import tolerance

pytestmark = pytest.mark.usefixtures("small_checks")

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
    with pytest.raises(TypeError, match=r"takes no noise=.*is for npselect.testing.check_sampling_op"):
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
