"""Faults in the gradient of a learned temperature, and in a temperature for each row, are rejected by name."""

from __future__ import annotations

import numpy as np
import pytest
from honest import as_rows, hard
from learned_temp import backward, backward_temp, forward, judged, quotients, subject, summed

from npselect import gumbel_softmax, testing


def changed(change):
    """What an honest gradient of temp becomes, given it and temp."""

    def by_temp(grad_mask, logits, temp, **options):
        result = backward_temp(grad_mask, logits, temp, **options)
        return np.asarray(change(result, np.asarray(temp, logits.dtype), logits)).astype(logits.dtype)

    return by_temp


def of_the_selected(grad_mask, logits, temp, *, axis=-1, where=None):
    grads = backward(grad_mask, logits, temp, axis=axis, where=where)
    rows, back = as_rows(quotients(logits, 1, where, None), axis)
    grads = grads * back(hard(rows, 1.0))
    terms = np.where(grads == 0, grads, -grads * logits / np.asarray(temp, logits.dtype))
    return summed(terms, temp, logits.dtype)


def of_the_cotangent(grad_mask, logits, temp, *, axis=-1, where=None):
    terms = -grad_mask * logits / np.asarray(temp, logits.dtype)
    return summed(terms if where is None else np.where(where, terms, terms.dtype.type(0)), temp, logits.dtype)


def not_summed(grad_mask, logits, temp, **options):
    return -backward(grad_mask, logits, temp, **options) * logits / np.asarray(temp, logits.dtype)


def nan_at_minus_inf(grad_mask, logits, temp, *, axis=-1, where=None):
    w = quotients(logits, 1, where, None)
    with np.errstate(invalid="ignore"):
        terms = backward(grad_mask, logits, temp, axis=axis, where=where) * w / np.asarray(temp, w.dtype)
    return summed(-terms, temp, w.dtype)


def mean_of_rows(result, temp, logits):
    return result / np.asarray(logits.size // logits.shape[-1] // temp.size, result.dtype)


FAULTS = {
    "sign": (changed(lambda r, temp, w: -r), "the sign is flipped"),
    "detached": (changed(lambda r, temp, w: 0 * r), "temp is detached: its gradient is 0"),
    "1/temp missing": (changed(lambda r, temp, w: r * temp), "1/temp is missing"),
    "temp twice": (changed(lambda r, temp, w: r / temp), "divided by temp once more"),
    "inverse temperature": (changed(lambda r, temp, w: -r * temp * temp), "the gradient of 1/temp, not of temp"),
    "one for all": (changed(lambda r, temp, w: np.sum(r) + 0 * r), "one sum over all rows, for every temperature"),
    "selected only": (of_the_selected, "of the selected entries alone"),
    "cotangent": (of_the_cotangent, "grad_mask in place of grad_logits"),
    "not summed": (not_summed, "not summed to the shape of temp"),
    "NaN": (nan_at_minus_inf, None),
    "half": (changed(lambda r, temp, w: r / 2), None),
    "a third of the rows": (changed(lambda r, temp, w: r * (r.ndim > 0 or w.shape[0] < 500)), None),
    "float64": (lambda *a, **k: backward_temp(*a, **k).astype(np.float64), None),
    "raises": (lambda grad_mask, logits, temp: 1 / 0, None),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_rejected(name):
    by_temp, cause = FAULTS[name]
    report = judged(subject(backward_temp=by_temp))
    assert not report.ok
    assert report.likely_cause == (None if cause is None else f"backward_temp: {cause}")
    failed = [case for case in report.cases if case.verdict == "failed"]
    assert all(case.difference.direction == "backward_temp" for case in failed)
    if name == "NaN":
        assert {case.group for case in failed} == {"where", "temp"}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("name", ["sign", "detached", "1/temp missing", "temp twice"])
def test_fault_is_rejected_in_every_dtype(name, dtype):
    report = judged(subject(backward_temp=FAULTS[name][0]), dtype)
    assert report.likely_cause == f"backward_temp: {FAULTS[name][1]}"


def test_the_mean_is_named():
    both = {"mean_of_rows": lambda r, temp, w: r / 12, "entries": lambda r, temp, w: r / 48}
    names = ["the mean over the rows, not the sum", "the mean over all entries, not the sum"]
    cases = [case for case in testing.cases(options=["row_temp"]) if case.name == "temp/one sign"]
    for change, cause in zip(both.values(), names, strict=True):
        report = testing.check(subject(backward_temp=changed(change)), cases=cases)
        assert report.likely_cause == f"backward_temp: {cause}"


def test_missing_noise_is_named():
    def without(grad_mask, logits, temp, *, axis=-1, where=None, noise=None):
        grads = backward(grad_mask, logits, temp, axis=axis, where=where, noise=noise)
        return summed(-grads * logits / np.asarray(temp, logits.dtype), temp, logits.dtype)

    report = judged(subject(backward_temp=without), operator=gumbel_softmax)
    assert report.likely_cause == "backward_temp: the noise is missing"


def with_temps(change):
    """Both passes at other temperatures, where there are several."""

    def of(temp, logits):
        return change(temp, logits) if np.ndim(temp) else temp

    return subject(
        forward=lambda logits, temp, **options: forward(logits, of(temp, logits), **options),
        backward=lambda g, logits, temp, **options: backward(g, logits, of(temp, logits), **options),
        backward_temp=None,
    )


def along_the_choices(temp, logits):
    return temp.T if logits.shape == (16, 16) else temp


ROW_FAULTS = {
    "first": (lambda temp, w: temp.ravel()[0], "backward: the first row's temperature in all rows"),
    "mean": (lambda temp, w: np.mean(temp), "backward: the mean of the temperatures in all rows"),
    "other axis": (along_the_choices, "backward: the temperatures run along the choices"),
    "reversed": (lambda temp, w: temp[::-1] if temp.shape[0] > 1 else temp[:, ::-1], None),
    "next row": (lambda temp, w: np.roll(temp, 1), None),
}


@pytest.mark.parametrize("name", ROW_FAULTS)
def test_wrong_temperature_of_a_row_is_rejected(name):
    change, cause = ROW_FAULTS[name]
    report = judged(with_temps(change))
    assert not report.ok
    assert {case.group for case in report.cases if case.verdict == "failed"} == {"temp"}
    if cause is not None:
        assert report.likely_cause == cause


def test_a_learned_temperature_that_is_remembered_is_found():
    class Remembers:
        row_temp = True
        forward = staticmethod(forward)

        def backward(self, grad_mask, logits, temp):
            self.temp = temp
            return backward(grad_mask, logits, temp)

        def backward_temp(self, grad_mask, logits, temp):
            return backward_temp(grad_mask, logits, self.temp)

    report = judged(Remembers())
    assert [case.name for case in report.cases if case.verdict == "failed"] == ["temp/of a row, again"]
