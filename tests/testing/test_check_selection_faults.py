"""`check_selection`: planted faults are rejected by name, errors are failures, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from honest import hard, soft_gradient, softmax
from layers import backward, forward, layer, products, to_x, wide

import npselect
from npselect import gumbel_softmax, testing

pytestmark = pytest.mark.usefixtures("remembered_selections")


def mask_of(w):
    return hard(w, 1.0) if w.size else w


def no_rows(function):
    """Nothing is wrong with no rows."""

    def guarded(grad_chosen, x, logits, temp):
        right = backward(grad_chosen, x, logits, temp)
        return right if len(logits) == 0 else function(right, grad_chosen, x, logits, temp)

    return guarded


def with_x(function):
    """A layer whose grad_x is another."""
    return layer(backward=no_rows(lambda right, *given: (function(right[0], *given).astype(right[0].dtype), right[1])))


def with_logits(function):
    """A layer whose grad_logits are others."""
    return layer(backward=no_rows(lambda right, *given: (right[0], function(right[1], *given).astype(right[1].dtype))))


def chosen(function):
    def other(x, logits, temp):
        return forward(x, logits, temp) if len(logits) == 0 else function(x, logits, temp).astype(x.dtype)

    return layer(forward=other, backward=lambda g, x, logits, temp: backward(g, x, logits, temp))


def mixed(weights, x):
    return np.einsum("bk,kd->bd" if x.ndim == 2 else "bk,bkd->bd", wide(weights), wide(x)).astype(x.dtype)


def up_to_rounding(x, logits, temp):
    soft = mixed(softmax(logits, temp), x)
    return soft + (forward(x, logits, temp) - soft)


def last_of_equals(x, logits, temp):
    return mixed(mask_of(np.ascontiguousarray(logits[:, ::-1]))[:, ::-1], x)


def assigned(order):
    def grad_x(right, grad_chosen, x, logits, temp):
        if x.ndim == 3:
            return right
        out, index = np.zeros_like(x), np.argmax(logits, axis=-1)
        out[index[::order]] = grad_chosen[::order]
        return out

    return grad_x


def per_count(right, grad_chosen, x, logits, temp):
    count = np.bincount(np.argmax(logits, axis=-1), minlength=logits.shape[-1])
    return right / np.maximum(count, 1)[:, None].astype(x.dtype) if x.ndim == 2 else right


def of_the_selected(right, grad_chosen, x, logits, temp):
    return soft_gradient(mask_of(logits) * products(grad_chosen, x), logits, temp)


FAULTS = {
    "soft mixture": (
        chosen(lambda x, w, t: mixed(softmax(w, t), x)),
        "chosen: the soft mixture probs @ x is returned, not the selected vector",
    ),
    "up to rounding": (
        chosen(up_to_rounding),
        "chosen: the selected vector up to rounding: soft + (hard - soft) is not hard",
    ),
    "last of equals": (chosen(last_of_equals), "chosen: the last of equals is selected"),
    "smallest": (chosen(lambda x, w, t: mixed(mask_of(-w), x)), "chosen: the smallest is selected"),
    "weighted": (
        chosen(lambda x, w, t: mixed(mask_of(w) * softmax(w, t), x)),
        "chosen: the selected vector is multiplied by its probability",
    ),
    "wrong axis": (chosen(lambda x, w, t: mixed(mask_of(w.T).T, x)), "chosen: wrong axis"),
    "mean": (
        chosen(lambda x, w, t: mixed(np.ones_like(w) / w.dtype.type(w.shape[-1]), x)),
        "chosen: the mean of all vectors",
    ),
    "x detached": (with_x(lambda right, *_: 0 * right), "grad_x: x is detached: its gradient is 0"),
    "probs to x": (
        with_x(lambda right, g, x, w, t: to_x(g, x, softmax(w, t))),
        "grad_x: every vector has a gradient, by probs instead of the mask",
    ),
    "all of x": (
        with_x(lambda right, g, x, w, t: to_x(g, x, np.ones_like(w))),
        "grad_x: every vector has the whole gradient",
    ),
    "batch mean": (
        with_x(lambda right, g, x, w, t: right / len(w)),
        "grad_x: the mean over the rows, not the sum",
    ),
    "mean of those that select": (
        with_x(per_count),
        "grad_x: the mean over the rows that select a vector, not the sum",
    ),
    "last row": (
        with_x(assigned(1)),
        "grad_x: assigned, not added: of the rows that select a vector the last one",
    ),
    "first row": (
        with_x(assigned(-1)),
        "grad_x: assigned, not added: of the rows that select a vector the first one",
    ),
    "sign of x": (with_x(lambda right, *_: -right), "grad_x: the sign is flipped"),
    "not summed": (
        with_x(lambda right, g, x, w, t: to_x(g, np.broadcast_to(x, (len(w), *x.shape[-2:])), mask_of(w))),
        "grad_x: not summed over the rows that share x",
    ),
    "leak": (with_x(lambda right, *_: right + np.float32(1e-12)), None),
    "selected only": (
        with_logits(of_the_selected),
        "grad_logits: <grad_chosen, x> of the selected vector alone",
    ),
    "mean of features": (
        with_logits(lambda right, g, x, w, t: right / x.shape[-1]),
        "grad_logits: the mean over the features, not the sum",
    ),
    "no softmax": (
        with_logits(lambda right, g, x, w, t: products(g, x)),
        "grad_logits: <grad_chosen, x> itself, without the softmax's Jacobian",
    ),
    "logits detached": (
        with_logits(lambda right, *_: 0 * right),
        "grad_logits: the gradient of the hard mask, which is 0",
    ),
    "1/temp": (with_logits(lambda right, g, x, w, t: right * np.float32(t)), "grad_logits: 1/temp is missing"),
    "sign": (with_logits(lambda right, *_: -right), "grad_logits: the sign is flipped"),
    "batch": (with_logits(lambda right, g, x, w, t: right / len(w)), "grad_logits: mean over the batch"),
    "axis of probs": (
        with_logits(lambda right, g, x, w, t: soft_gradient(products(g, x).T, w.T, t).T),
        "grad_logits: wrong axis",
    ),
    "half": (with_logits(lambda right, *_: right / 2), None),
    "a row": (with_logits(lambda right, *_: np.roll(right, 1, axis=0)), None),
    "swapped": (layer(backward=lambda *given: backward(*given)[::-1]), None),
    "one of two": (layer(backward=lambda *given: backward(*given)[1]), None),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_rejected(name):
    subject, cause = FAULTS[name]
    for x_axes in {(2,), (2, 3)} if name != "not summed" else {(2,)}:
        subject.x_axes = x_axes
        report = testing.check_selection(subject)
        assert not report.ok
        assert report.likely_cause == cause
        found(report, subject)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize(
    "name",
    ["soft mixture", "x detached", "probs to x", "batch mean", "last row", "selected only", "logits detached", "sign"],
)
def test_fault_is_rejected_in_every_dtype(name, dtype):
    subject, cause = FAULTS[name]
    report = testing.check_selection(subject, dtypes=dtype)
    assert not report.ok
    assert report.likely_cause == cause


def found(report, subject):
    """Run the line that the report gives for the first case, and look whether it shows a difference."""
    case = next(case for case in report.cases if case.verdict == "failed")
    printed = []
    exec(case.reproduce, {"npselect": npselect, "implementation": subject, "print": lambda *what: printed.append(what)})
    (what,) = printed
    assert len(what) == 1 or what[0] != what[1]


def test_wrong_options_are_named():
    ignored = layer(
        forward=lambda x, logits, temp, *, where=None: forward(x, logits, temp),
        backward=lambda g, x, logits, temp, *, where=None: backward(g, x, logits, temp, where=where),
    )
    report = testing.check_selection(ignored)
    assert report.likely_cause == "chosen: where= is ignored"
    assert {case.group for case in report.cases if case.verdict == "failed"} == {"where"}
    quiet = layer(
        forward=lambda x, logits, temp, *, noise: forward(x, logits, temp),
        backward=lambda g, x, logits, temp, *, noise: backward(g, x, logits, temp, noise=noise),
    )
    assert testing.check_selection(quiet, operator=gumbel_softmax).likely_cause == "chosen: the noise is missing"


@pytest.mark.parametrize("name", ["x", "logits", "grad_chosen"])
def test_writing_to_an_argument_is_rejected(name):
    def writing(grad_chosen, x, logits, temp):
        result = backward(grad_chosen, x, logits, temp)
        {"x": x, "logits": logits, "grad_chosen": grad_chosen}[name][...] += 1
        return result

    report = testing.check_selection(layer(backward=writing))
    assert f"backward writes to its argument {name}" in str(report)


def test_state_between_calls_is_found():
    class Remembers:
        def forward(self, x, logits, temp):
            self.mask = mask_of(logits)
            return forward(x, logits, temp)

        def backward(self, grad_chosen, x, logits, temp):
            return to_x(grad_chosen, x, self.mask), backward(grad_chosen, x, logits, temp)[1]

    class OneBuffer:
        buffers = {}  # noqa: RUF012 shared on purpose

        def forward(self, x, logits, temp):
            result = forward(x, logits, temp)
            buffer = self.buffers.setdefault(result.shape, np.empty_like(result))
            buffer[...] = result
            return buffer

        backward = staticmethod(backward)

    for subject in (Remembers(), OneBuffer()):
        report = testing.check_selection(subject)
        assert [case.name for case in report.cases if case.verdict == "failed"] == ["codebook/called again"]


def test_errors_of_the_layer_are_failures():
    report = testing.check_selection(layer(forward=lambda x, logits, temp: 1 / 0))
    assert not report.ok
    assert "raises ZeroDivisionError: division by zero" in str(report)


def test_what_is_refused():
    with pytest.raises(TypeError, match=r"has no function backward\(grad_chosen, x, logits, temp\)"):
        testing.check_selection(SimpleNamespace(forward=forward))
    with pytest.raises(TypeError, match=r"cannot be called as forward\(x, logits, temp\)"):
        testing.check_selection(layer(forward=lambda x: x))
    with pytest.raises(TypeError, match="takes no noise=, which operator=gumbel_softmax gives"):
        testing.check_selection(FAULTS["sign"][0], operator=gumbel_softmax)
    with pytest.raises(ValueError, match=r"x_axes is \(4,\); it takes 2"):
        testing.check_selection(layer(x_axes=(4,)))
    with pytest.raises(ValueError, match="operator is None; it takes"):
        testing.check_selection(layer(), operator=None)
    with pytest.raises(ValueError, match="it must be positive and finite"):
        testing.check_selection(layer(), temp=0.0)
    with pytest.raises(TypeError, match="temp is 'hot'; it takes a number"):
        testing.check_selection(layer(), temp="hot")
    with pytest.raises(ValueError, match="dtypes is empty"):
        testing.check_selection(layer(), dtypes=[])
    with pytest.raises(ValueError, match="options holds 'axis'; it takes 'where'"):
        testing.selection_cases(options=["axis"])
