"""`check_selection`: honest layers are accepted, by hand, by its command and in frameworks; the bound is derived."""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
import pytest
from frameworks import needs
from honest import DTYPES, IN_FRAMEWORKS
from layers import backward, forward, layer

from npselect import cli, gumbel_softmax, selection, straight_through, testing

pytestmark = pytest.mark.usefixtures("remembered_selections")
OPERATORS = [straight_through, gumbel_softmax]
LAYER_FROM = {
    "torch": testing.layer_from_torch,
    "jax": testing.layer_from_jax,
    "tensorflow": testing.layer_from_tensorflow,
}


# ------------------------------------------------------------------------------------------------ an honest textbook


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
@pytest.mark.parametrize(("framework", "dtype"), IN_FRAMEWORKS)
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
