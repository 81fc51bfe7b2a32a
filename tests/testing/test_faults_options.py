"""Planted mistakes with options and with noise: each is rejected, and its cause is named."""

from __future__ import annotations

import numpy as np
import pytest
from faults import f32, rejected
from honest import (
    hard,
    implementation,
    soft_gradient,
    with_options,
)

from npselect import gumbel_softmax

pytestmark = pytest.mark.usefixtures("small_checks")

# ------------------------------------------------------------------------------------------------ of options


def options_mistaken(change):
    """An honest implementation of other options: of those that `change` returns, given the logits and the options."""
    honest = with_options(hard, soft_gradient)

    def forward(logits, temp, *, axis=-1, where=None):
        return honest.forward(logits, temp, **change(logits, axis=axis, where=where))

    def backward(g, logits, temp, *, axis=-1, where=None):
        return honest.backward(g, logits, temp, **change(logits, axis=axis, where=where))

    return implementation(forward, backward)


def in_the_forward_pass_only(change):
    return implementation(options_mistaken(change).forward, options_mistaken(lambda w, **given: given).backward)


def in_the_backward_pass_only(change):
    return implementation(options_mistaken(lambda w, **given: given).forward, options_mistaken(change).backward)


def masked_afterwards(g, logits, temp, *, axis=-1, where=None):
    """What is no candidate still counts in the softmax."""
    gradient = with_options(hard, soft_gradient).backward(g, logits, temp, axis=axis)
    return gradient if where is None else gradient * where


def masked_by_a_number(g, logits, temp, *, axis=-1, where=None):
    """What is no candidate has a logit of 1 less than the smallest."""
    if where is not None and logits.size:
        logits = np.where(where, logits, np.min(logits) - 1)
    return with_options(hard, soft_gradient).backward(g, logits, temp, axis=axis)


def masked_by_zero(logits, temp, *, axis=-1, where=None):
    chosen_from = logits if where is None else logits * where
    return with_options(hard, soft_gradient).forward(chosen_from, temp, axis=axis)


def broadcast_to_rows(w, axis, where):
    """A mask of the last axis, wherever the candidates are."""
    return {"axis": axis, "where": None if where is None else np.broadcast_to(where, w.shape)[..., :1]}


def without(option):
    return lambda w, **given: {**given, option: {"axis": -1, "where": None}[option]}


def inverted(w, axis, where):
    return {"axis": axis, "where": None if where is None else ~where}


def counted_from_the_start(w, axis, where):
    """-2 as 2."""
    return {"axis": axis if axis == -1 else abs(axis), "where": where}


def laid_out(as_rows):
    """Honest on rows that `as_rows` makes of an array, given the axis: with the way back."""

    def forward(logits, temp, *, axis=-1):
        rows, back = as_rows(logits, axis)
        return back(hard(rows, temp))

    def backward(g, logits, temp, *, axis=-1):
        rows, back = as_rows(logits, axis)
        return back(soft_gradient(as_rows(g, axis)[0], rows, temp))

    return implementation(forward, backward)


def back_as_it_came(array, axis):
    """Transposed by the same permutation, which is its own inverse for any axis but the first of three."""
    order = [i for i in range(array.ndim) if i != axis % array.ndim] + [axis % array.ndim]
    moved = array.transpose(order)
    return moved.reshape(-1, moved.shape[-1]), lambda result: result.reshape(moved.shape).transpose(order)


def flattened_unmoved(array, axis):
    return array.reshape(-1, array.shape[axis]), lambda result: result.reshape(array.shape)


def an_item_a_row(array, axis):
    """All of an item's entries as one row."""
    moved = np.moveaxis(array, axis, -1)
    rows = moved.reshape(len(moved), -1) if array.ndim == 3 and axis == 2 else moved.reshape(-1, moved.shape[-1])
    return rows, lambda result: np.moveaxis(result.reshape(moved.shape), -1, axis)


def a_row_at_least(array, axis):
    array = np.atleast_2d(array)
    rows = np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])
    return rows, lambda result: np.moveaxis(result.reshape(np.moveaxis(array, axis, -1).shape), -1, axis)


honest_with_options = with_options(hard, soft_gradient)


OPTIONS = {
    "axis ignored": (options_mistaken(without("axis")), "axis= is ignored", "the candidates along the first axis"),
    "axis ignored, backward": (
        in_the_backward_pass_only(without("axis")),
        "backward: axis= is ignored",
        "the candidates along a middle axis",
    ),
    "axis -2 as 2": (options_mistaken(counted_from_the_start), None, "a negative axis counts from the end"),
    "axis: transposed back as it came": (laid_out(back_as_it_came), None, "the first of three axes"),
    "axis: flattened, not moved": (laid_out(flattened_unmoved), None, "the candidates along a middle axis"),
    "axis: an item is a row": (laid_out(an_item_a_row), None, "the last of three axes"),
    "axis: a row at least": (laid_out(a_row_at_least), None, "one axis, and nothing beside it"),
    "where ignored": (
        options_mistaken(without("where")),
        "where= is ignored",
        "what is no candidate is never selected",
    ),
    "where ignored, forward": (
        in_the_forward_pass_only(without("where")),
        "forward: where= is ignored",
        "what is no candidate is never selected",
    ),
    "where ignored, backward": (
        in_the_backward_pass_only(without("where")),
        "backward: where= is ignored",
        "its gradient is exactly 0",
    ),
    "where as what is excluded": (
        options_mistaken(inverted),
        "where= is taken for what is excluded",
        "what is no candidate is never selected",
    ),
    "where after the softmax": (
        implementation(honest_with_options.forward, masked_afterwards),
        None,
        "what is no candidate is never selected",
    ),
    "where by a number": (
        implementation(honest_with_options.forward, masked_by_a_number),
        None,
        "its gradient is exactly 0",
    ),
    "where by zero": (
        implementation(masked_by_zero, honest_with_options.backward),
        None,
        "what is no candidate is never selected",
    ),
    "where of the first entry": (options_mistaken(broadcast_to_rows), None, "where= and axis= together"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_fault_with_options_is_rejected(name):
    subject, cause, says = OPTIONS[name]
    report = rejected(subject, cause, says)
    groups = {case.group for case in report.cases if case.verdict == "failed"}
    assert groups <= {"axis", "where"}
    assert report.options == (("axis",) if name.startswith("axis:") else ("axis", "where"))


# ------------------------------------------------------------------------------------------------ of noise


def noise_mistaken(forward=None, backward=None):
    """An honest implementation of other noise: of what `forward` and `backward` make of noise and temp."""
    honest = with_options(hard, soft_gradient)
    forward, backward = (change or (lambda noise, temp: noise) for change in (forward, backward))
    return implementation(
        lambda w, temp, *, noise: honest.forward(w, temp, noise=forward(noise, f32(temp))),
        lambda g, w, temp, *, noise: honest.backward(g, w, temp, noise=backward(noise, f32(temp))),
    )


def swapped_with_noise(g, logits, temp, *, noise):
    return soft_gradient(logits, g + noise, temp)


def own_noise(noise, temp):
    return np.random.default_rng(1).gumbel(size=noise.shape).astype(noise.dtype)


def noise_clipped(noise, temp):
    return np.clip(noise, f32(-1), f32(1))


NOISE_MISTAKES = {
    "missing": (lambda noise, temp: 0 * noise, "noise is missing"),
    "of the first row": (lambda noise, temp: noise[:1] + 0 * noise, "the first row's noise is used in all rows"),
    "subtracted": (lambda noise, temp: -noise, "noise is subtracted"),
    "after the division": (lambda noise, temp: noise * temp, "noise is added after the division by temp"),
    "divided twice": (lambda noise, temp: noise / temp, "noise is divided by temp twice"),
    "of its own": (own_noise, None),
    "of the next row": (lambda noise, temp: np.roll(noise, 1, axis=0), None),
    "clipped": (noise_clipped, None),
    "doubled": (lambda noise, temp: 2 * noise, None),
}


@pytest.mark.parametrize("name", NOISE_MISTAKES)
def test_wrong_noise_is_rejected_in_either_pass(name):
    change, cause = NOISE_MISTAKES[name]
    for passes in ({"forward"}, {"backward"}, {"forward", "backward"}):
        subject = noise_mistaken(**dict.fromkeys(passes, change))
        report = rejected(subject, cause, "every row by itself", operator=gumbel_softmax)
        assert report.options == ("noise",)
        for direction in ("forward", "backward"):
            named = f"{cause} in the {direction} pass" in str(report.likely_cause)
            assert named == (direction in passes and cause is not None)


def test_swapped_arguments_are_named_with_noise():
    subject = implementation(noise_mistaken().forward, swapped_with_noise)
    rejected(subject, "grad_mask and logits are swapped", "the whole Jacobian", operator=gumbel_softmax)


@pytest.mark.parametrize("name", ["logits", "noise", "grad_mask"])
def test_writing_to_any_argument_is_rejected(name):
    def backward(grad_mask, logits, temp, *, noise):
        result = noise_mistaken().backward(grad_mask, logits, temp, noise=noise)
        {"logits": logits, "noise": noise, "grad_mask": grad_mask}[name][...] += 1
        return result

    subject = implementation(noise_mistaken().forward, backward)
    rejected(subject, None, f"backward writes to its argument {name}", operator=gumbel_softmax)


def test_writing_to_where_is_rejected():
    def forward(logits, temp, *, where=None):
        mask = honest_with_options.forward(logits, temp, where=where)
        if where is not None:
            where[...] = True
        return mask

    rejected(implementation(forward, honest_with_options.backward), None, "writes to its argument where")
