"""Arrays that lie in memory as others do not: copies, cases, and what takes their memory for contiguous."""

from __future__ import annotations

import numpy as np
import pytest
from honest import DTYPES, hard, implementation, remembered_cases, soft_gradient, with_options

from npselect import gumbel_softmax, straight_through, testing
from npselect.testing.dtypes import floating_dtype
from npselect.testing.layouts import laid_out, like, memory


def layouts(dtype="float32", operator=straight_through):
    return [case for case in remembered_cases(floating_dtype(dtype), 0.6, operator) if case.group == "layout"]


def test_copies_lie_as_the_original_does():
    base = np.arange(120.0).reshape(10, 12)
    views = [base, base.T, base[::2, 1::3], base[::-1, ::-2], base[:, 3:7], base[0], base[3, 4], base[:0]]
    views += [np.broadcast_to(base[0], (5, 12)), np.broadcast_to(base[0, 1], (3, 4)), np.asfortranarray(base)]
    views += [np.array(2.5), base[:1, :1][::-1]]
    for view in views:
        copy = like(view, view)
        np.testing.assert_array_equal(copy, view)
        if view.size:
            assert copy.strides == view.strides
        assert not np.shares_memory(copy, view)
        assert copy.flags.writeable
        flat, shape, strides = memory(view)
        assert len(flat) >= view.size
        again = np.lib.stride_tricks.as_strided(flat, shape, [8 * stride for stride in strides])
        np.testing.assert_array_equal(again, view)
        if view.size and min(view.strides, default=0) >= 0:
            assert again.strides == view.strides
    unaligned = np.zeros(33, np.int8)[1:].view(np.float64).reshape(2, 2)
    assert like(unaligned, unaligned).flags.aligned
    assert np.isnan(memory(laid_out([[1.0], [2.0]], (3, 1)))[0]).tolist() == [False, True, True, False]
    assert memory(laid_out(np.ones((4, 3)), (0, 1)))[0].size == 12  # whoever reads on reads NaN, and no foreign memory


@pytest.mark.parametrize("dtype", DTYPES)
def test_cases_lie_as_their_names_say(dtype):
    strides = {case.name: (case.logits.strides, case.grad_mask.strides) for case in layouts(dtype)}
    size = floating_dtype(dtype).itemsize
    wide, columns = (12 * size, size), (size, 32 * size)
    assert strides["layout/transposed logits"] == (columns, wide)
    assert strides["layout/transposed cotangent"] == (wide, columns)
    assert strides["layout/one row for all"] == (wide, (0, size))
    assert strides["layout/one number a row"] == (wide, (size, 0))
    assert strides["layout/one number"] == (wide, (0, 0))
    assert strides["layout/one row of logits"] == ((0, size), wide)
    noisy = {case.name: (case.logits.strides, case.grad_mask.strides) for case in layouts(dtype, gumbel_softmax)}
    assert noisy == {name: steps for name, steps in strides.items() if name != "layout/one row of logits"}
    asked = {case.name for case in testing.cases(dtype, profile="strict") if case.group == "layout"}
    assert asked == strides.keys() - {"layout/backwards"}
    assert all(np.all(case.grad_logits == 0) for case in layouts(dtype) if case.name.startswith("layout/one number"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_honest_layouts_are_accepted(dtype):
    subject = with_options(hard, soft_gradient)
    assert testing.check(subject, cases=layouts(dtype)).ok
    assert testing.check(straight_through, cases=layouts(dtype), profile="strict").ok
    noisy = layouts(dtype, gumbel_softmax)
    assert testing.check(subject, cases=noisy, operator=gumbel_softmax).ok
    assert testing.check(gumbel_softmax, cases=noisy, operator=gumbel_softmax, profile="strict").ok


# ------------------------------------------------------------------------------------------------ mistakes


def flat(array):
    """As a pointer and a length have it."""
    numbers, shape, _ = memory(array)
    return numbers[: array.size].reshape(shape)


MISTAKES = {  # name: (what an array is taken for, the cases in which that shows)
    "contiguous": (flat, {"transposed", "one", "cut out", "every other"}),
    "contiguous where they are transposed": (
        lambda array: flat(array) if array.flags.f_contiguous and not array.flags.c_contiguous else array,
        {"transposed"},
    ),
    "without a stride of 0": (lambda array: flat(array) if 0 in array.strides else array, {"one"}),
    "of adjacent choices": (
        lambda array: (
            np.lib.stride_tricks.as_strided(array, strides=(array.strides[0], array.itemsize))
            if array.ndim == 2 and 0 < array.strides[1] != array.itemsize and array.strides[0] > array.strides[1]
            else array
        ),
        {"every other"},
    ),
    "of rows one after another": (
        lambda array: (
            np.lib.stride_tricks.as_strided(array, strides=(array.shape[1] * array.strides[1], *array.strides[1:]))
            if array.ndim == 2 and array.strides[0] > array.shape[1] * array.strides[1] > 0
            else array
        ),
        {"cut out", "every other"},
    ),
    "forwards": (lambda array: array[::-1, ::-1] if min(array.strides, default=0) < 0 else array, {"backwards"}),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistaken_layouts_are_rejected(name):
    taken, shows = MISTAKES[name]
    cases = [*layouts(), *remembered_cases(floating_dtype("float32"), 0.6, straight_through)[3:9]]
    for which in ("logits", "grad_mask"):

        def change(array, here, which=which):
            return taken(array) if which == here else array

        subject = implementation(
            lambda w, t, change=change: hard(change(w, "logits"), t),
            lambda g, w, t, change=change: soft_gradient(change(g, "grad_mask"), change(w, "logits"), t),
        )
        report = testing.check(subject, cases=cases)
        failed = {case.name for case in report.cases if case.verdict == "failed"}
        assert not report.ok
        assert failed <= {case.name for case in layouts()}
        assert all(any(name.startswith(f"layout/{start}") for start in shows) for name in failed), failed
        if name == "contiguous":
            named = {"logits": "logits are", "grad_mask": "grad_mask is"}[which]
            assert f"backward: {named} taken for contiguous in memory" in str(report.likely_cause)


# ------------------------------------------------------------------------------------------------ PyTorch


def operation(torch, forward=lambda array: array, backward=lambda array: array):
    """A hand-written gradient, which does something to the tensors that arrive."""

    class Operation(torch.autograd.Function):
        @staticmethod
        def forward(ctx, logits, temp):
            logits = forward(logits)
            probs = torch.softmax(logits / temp, -1)
            ctx.save_for_backward(probs)
            ctx.temp = temp
            return torch.zeros_like(probs).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)

        @staticmethod
        def backward(ctx, grad_mask):
            (probs,) = ctx.saved_tensors
            grad_mask = backward(grad_mask)
            return probs * (grad_mask - (probs * grad_mask).sum(-1, keepdim=True)) / ctx.temp, None

    return Operation.apply


@pytest.mark.frameworks
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_torch_functions_that_take_memory_for_contiguous(dtype):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")

    def contiguous(tensor):
        return torch.as_strided(tensor, tensor.shape, torch.empty(tensor.shape).stride())

    def in_rows(tensor):
        return tensor.contiguous()

    cases = remembered_cases(floating_dtype(dtype), 0.6, straight_through)
    cases = [case for case in cases if case.group == "layout" or case.name == "random/K=10"]
    for honest in (operation(torch), operation(torch, in_rows, in_rows)):
        report = testing.check(testing.from_torch(honest), cases=cases)
        assert report.ok, str(report)
    for name, fault in {
        "grad_mask is": operation(torch, backward=contiguous),
        "logits are": operation(torch, forward=contiguous),
    }.items():
        report = testing.check(testing.from_torch(fault), cases=cases)
        failed = {case.name for case in report.cases if case.verdict == "failed"}
        assert f"backward: {name} taken for contiguous in memory" in str(report.likely_cause)
        assert len(failed) >= 4
        assert "random/K=10" not in failed


@pytest.mark.frameworks
def test_torch_tensors_lie_as_the_arrays_do():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    seen = []

    def see(logits, temp):
        seen.append(logits.stride())
        return logits * 1

    subject = testing.from_torch(see)
    for case in layouts():
        got = subject.backward(case.grad_mask, case.logits, case.temp)
        np.testing.assert_array_equal(got, case.grad_mask)
        expected = tuple(stride // 4 for stride in case.logits.strides)
        assert seen.pop() == (expected if min(expected) >= 0 else (12, 1))
    expanded = np.broadcast_to(np.float32([1, 2]), (3, 2))

    def writes(logits, temp):
        return logits.mul_(2)

    with pytest.raises(RuntimeError, match="more than one element"):
        testing.from_torch(writes).forward(expanded, 0.6)
    np.testing.assert_array_equal(testing.from_torch(writes).backward(expanded, expanded.copy(), 0.6), 2 * expanded)
    assert torch.is_grad_enabled()
