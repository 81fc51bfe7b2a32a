"""`check_selection`: honest layers are accepted, planted faults are rejected by name, and the bound is derived."""

from __future__ import annotations

import functools
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from honest import DTYPES, hard, soft_gradient, softmax
from test_adapters import needs
from test_learned_temp import EVERY

import npselect
from npselect import cli, gumbel_softmax, selection, straight_through, testing

OPERATORS = [straight_through, gumbel_softmax]
LAYER_FROM = {
    "torch": testing.layer_from_torch,
    "jax": testing.layer_from_jax,
    "tensorflow": testing.layer_from_tensorflow,
}


_cases = functools.cache(testing.selection_cases)  # with their answers, which take most of the time


@pytest.fixture(autouse=True)
def _remembered(monkeypatch):
    def remembered(dtype, temp, *, operator, options, x_axes):
        return _cases(dtype, temp, operator=operator, options=options, x_axes=x_axes)

    monkeypatch.setattr(sys.modules["npselect.testing.selection_check"], "selection_cases", remembered)


# ------------------------------------------------------------------------------------------------ an honest textbook


def chosen_from(logits, where, noise):
    w = logits if noise is None else logits + noise
    return w if where is None else np.where(where, w, w.dtype.type(-np.inf))


def wide(array):
    return array.astype(np.float32) if array.dtype.itemsize == 2 else array


def forward(x, logits, temp, *, where=None, noise=None):
    w = chosen_from(logits, where, noise)
    if len(w) == 0:
        return np.zeros((0, x.shape[-1]), x.dtype)
    index = np.argmax(w, axis=-1)
    return x[index] if x.ndim == 2 else x[np.arange(len(w)), index]


def products(grad_chosen, x):
    return np.einsum("bd,...kd->bk" if x.ndim == 2 else "bd,bkd->bk", wide(grad_chosen), wide(x)).astype(x.dtype)


def to_x(grad_chosen, x, weights):
    shares = wide(weights)[:, :, None] * wide(grad_chosen)[:, None]
    return (shares if x.ndim == 3 else np.sum(shares, axis=0)).astype(x.dtype)


def backward(grad_chosen, x, logits, temp, *, where=None, noise=None):
    w = chosen_from(logits, where, noise)
    if len(w) == 0:
        return np.zeros_like(x), np.zeros_like(logits)
    return to_x(grad_chosen, x, hard(w, temp)), soft_gradient(products(grad_chosen, x), w, temp)


def layer(**changes):
    return SimpleNamespace(**({"forward": forward, "backward": backward, "x_axes": (2, 3)} | changes))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("operator", OPERATORS)
def test_honest_is_accepted(operator, dtype, record):
    report = testing.check_selection(layer(), operator=operator, dtypes=dtype)
    assert report.ok, str(report)
    assert report.likely_cause is None
    assert all(case.verdict == "passed" for case in report.cases)
    assert {case.group for case in report.cases} == {"codebook", "batch", "where"}
    worst = max(case.fraction for case in report.cases if case.fraction >= 0)
    record(f"error/bound of selection layers, {dtype}", worst)
    assert worst < 0.9


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
@pytest.mark.parametrize("temp", [0.05, 30.0])
def test_honest_is_accepted_at_other_temperatures(dtype, temp):
    report = testing.check_selection(layer(), dtypes=dtype, temp=temp)
    assert report.ok, str(report)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("operator", OPERATORS)
def test_own_layer_is_accepted(operator, dtype):
    own = layer(
        forward=partial(selection.forward, operator=operator),
        backward=partial(selection.backward, operator=operator),
        options=frozenset({"where", "noise"}),
    )
    report = testing.check_selection(own, operator=operator, dtypes=dtype)
    assert report.ok, str(report)


def test_what_is_not_declared_is_not_asked():
    plain = layer(
        forward=lambda x, logits, temp: forward(x, logits, temp),
        backward=lambda g, x, logits, temp: backward(g, x, logits, temp),
        x_axes=(2,),
    )
    report = testing.check_selection(plain)
    assert report.ok
    assert {case.group for case in report.cases} == {"codebook"}
    own_vectors = testing.check_selection(layer(x_axes=(3,)))
    assert {case.name for case in own_vectors.cases if case.group == "where"} == {"where/batch"}
    assert not any(case.group == "codebook" for case in own_vectors.cases)


def test_the_oracle_by_hand():
    """The expected values, from the definition, in float64."""
    for case in testing.selection_cases("float64", options=["where"], x_axes=(2, 3)):
        w = case.logits if case.where is None else np.where(case.where, case.logits, -np.inf)
        for row in range(len(w)):
            x = case.x if case.x.ndim == 2 else case.x[row]
            m = min(j for j in range(len(x)) if w[row, j] == max(w[row]))
            assert case.chosen[row].tolist() == x[m].tolist()
            e = [np.exp((v - w[row, m]) / case.temp) for v in w[row]]
            p = [v / sum(e) for v in e]
            g = [float(sum(a * b for a, b in zip(case.grad_chosen[row], v, strict=True))) for v in x]
            mean = sum(a * b for a, b in zip(p, g, strict=True))
            right = [a * (b - mean) / case.temp for a, b in zip(p, g, strict=True)]
            np.testing.assert_allclose(case.grad_logits[row], right, rtol=1e-9, atol=1e-12)
        if case.x.ndim == 2:
            expected = np.zeros(case.x.shape)
            for row in range(len(w)):
                expected[np.argmax(w[row])] += case.grad_chosen[row]
            np.testing.assert_allclose(case.grad_x, expected, rtol=1e-12, atol=1e-13)


def test_cases_can_be_checked_by_hand():
    for case in testing.selection_cases("float16"):
        case.check_forward(forward(case.x, case.logits, case.temp))
        case.check_backward(*backward(case.grad_chosen, case.x, case.logits, case.temp))
    case = testing.selection_cases()[0]
    with pytest.raises(AssertionError, match=r"float32/codebook/8x5: chosen\[0, 0\] is .*; expected"):
        case.check_forward(-case.chosen)
    with pytest.raises(AssertionError, match=r"grad_logits\[0, 0\] is .* give or take"):
        case.check_backward(case.grad_x, 2 * case.grad_logits)


# ------------------------------------------------------------------------------------------------ planted faults


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


def test_the_command(tmp_path, capsys):
    path = tmp_path / "layer.py"
    path.write_text("from npselect.selection import backward, forward\n")
    assert cli.main(["check", str(path), "--selection", "--json", str(tmp_path / "report.json")]) == 0
    assert "operator selection by straight_through" in capsys.readouterr().out
    assert '"operator": "selection by straight_through"' in (tmp_path / "report.json").read_text()
    assert cli.main(["check", str(path), "--selection", "--profile", "strict"]) == 2
    assert "--selection has one profile, standard, and one oracle, reference" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ frameworks


def torch_layer(x, logits, temp, *, where=None):
    import torch

    w = logits if where is None else logits.masked_fill(~where, -torch.inf)
    probs = torch.softmax(w / temp, -1)
    mask = torch.zeros_like(w).scatter(-1, w.argmax(-1, keepdim=True), 1.0)
    mask = probs + (mask - probs).detach()
    return mask @ x if x.ndim == 2 else (mask[:, :, None] * x).sum(1)


def jax_layer(x, logits, temp, *, where=None):
    import jax

    jnp = jax.numpy
    w = logits if where is None else jnp.where(where, logits, -jnp.inf)
    probs = jax.nn.softmax(w / jnp.asarray(temp, w.dtype), -1)
    mask = jax.nn.one_hot(jnp.argmax(w, -1), w.shape[-1], dtype=w.dtype)
    mask = probs + jax.lax.stop_gradient(mask - probs)
    return mask @ x if x.ndim == 2 else (mask[:, :, None] * x).sum(1)


def tensorflow_layer(x, logits, temp, *, where=None):
    import tensorflow as tf

    w = logits if where is None else tf.where(where, logits, tf.cast(-np.inf, logits.dtype))
    probs = tf.nn.softmax(w / tf.convert_to_tensor(temp, w.dtype), -1)
    mask = tf.one_hot(tf.argmax(w, -1), w.shape[-1], dtype=w.dtype)
    mask = probs + tf.stop_gradient(mask - probs)
    return mask @ x if x.shape.rank == 2 else tf.reduce_sum(mask[:, :, None] * x, 1)


LAYERS = {"torch": torch_layer, "jax": jax_layer, "tensorflow": tensorflow_layer}


@pytest.mark.frameworks
@pytest.mark.parametrize(("framework", "dtype"), EVERY)
def test_layers_of_frameworks_are_accepted(framework, dtype, record, monkeypatch):
    needs(framework)
    if framework != "torch":  # functions are compiled for every shape
        every = sys.modules["npselect.testing.selection_check"].selection_cases
        names = {"8x5", "K=D=rows", "one is selected", "orthogonal", "-inf", "long", "4 of 4x4", "codebook"}
        monkeypatch.setattr(
            sys.modules["npselect.testing.selection_check"],
            "selection_cases",
            lambda *given, **options: [
                case for case in every(*given, **options) if case.name.partition("/")[2] in names
            ],
        )
    report = testing.check_selection(LAYER_FROM[framework](LAYERS[framework], x_axes=(2, 3)), dtypes=dtype)
    assert report.ok, str(report)
    assert report.options == ("where",)
    worst = max(case.fraction for case in report.cases if case.fraction >= 0)
    record(f"error/bound of selection layers, {framework}, {dtype}", worst)


@pytest.mark.frameworks
def test_the_gradient_of_a_lookup_is_accepted_for_x_and_missed_for_the_logits():
    needs("torch")
    import torch

    def lookup(x, logits, temp):
        return x[logits.argmax(-1)]

    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            report = testing.check_selection(testing.layer_from_torch(lookup), dtypes=["float16", "float32"])
        assert report.likely_cause == "grad_logits: the gradient of the hard mask, which is 0"
        assert {case.difference.direction for case in report.cases if case.difference} == {"grad_logits"}


@pytest.mark.frameworks
def test_the_trick_on_the_vectors_is_rejected():
    """``soft + (hard - soft).detach()``: near the vector, not it; and x gets the gradient of the mixture."""
    needs("torch")
    import torch

    def trick(x, logits, temp):
        soft = torch.softmax(logits / temp, -1) @ x
        return soft + (x[logits.argmax(-1)] - soft).detach()

    report = testing.check_selection(testing.layer_from_torch(trick))
    assert report.likely_cause == (
        "chosen: the selected vector up to rounding: soft + (hard - soft) is not hard; "
        "grad_x: every vector has a gradient, by probs instead of the mask"
    )
