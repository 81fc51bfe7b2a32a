"""The selection by every operator of the family: by name, with its options; and the gradient of the temperature."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from inputs import DTYPES
from mpmath import mp, mpf
from selections import BACKENDS, case, exactly

from npselect import OPERATORS, selection, straight_through
from npselect.testing import tolerance

OPTIONS = {"forward_temp": 0.75, "unimix": 0.125, "gap": 2.0, "samples": 3}  # of numbers, where an operator takes them
ids = list(OPERATORS)
WITHOUT_TEMP = [name for name, record in OPERATORS.items() if "backward_temp" not in record.functions]
every_operator = pytest.mark.parametrize("name", ids)


def options_of(name: str) -> dict[str, Any]:
    taken = OPERATORS[name].options
    return {**({"seed": 3} if "seed" in taken else {}), **{key: OPTIONS[key] for key in taken if key in OPTIONS}}


def small_integers() -> tuple[Any, Any, Any]:
    """Grad_chosen, x and logits whose dot products are exact."""
    rng = np.random.default_rng(3)
    return rng.integers(-9, 9, (6, 4)) * 1.0, rng.integers(-9, 9, (5, 4)) * 0.5, rng.standard_normal((6, 5))


@every_operator
@pytest.mark.parametrize("backend", BACKENDS)
def test_by_name(name: str, backend: str) -> None:
    """Bit for bit what the operator's own functions give: ``x[index]``, and its backward at ``<grad_chosen, x_j>``."""
    grad, x, logits = small_integers()
    module, options = import_module(f"npselect.{name}"), {**options_of(name), "backend": backend}
    chosen = selection.forward(x, logits, operator=name, **options)
    m = module.index(logits, **options)
    assert np.array_equal(chosen, x[m])
    assert np.array_equal(chosen, selection.forward(x, logits, operator=module, **options))
    grad_x, grad_logits = selection.backward(grad, x, logits, 0.8, operator=name, **options)
    assert np.array_equal(grad_x, (np.arange(5)[:, None] == m) @ grad)
    assert np.array_equal(grad_logits, module.backward(grad @ x.T, logits, 0.8, **options))
    other = selection.backward(grad, x, logits, 0.8, operator=module, **options)[1]
    assert np.array_equal(grad_logits, other)
    by_default = selection.backward(grad, x, logits, operator=name, **options)[1]
    assert np.array_equal(by_default, module.backward(grad @ x.T, logits, OPERATORS[name].temp, **options))


@every_operator
def test_every_option_matters_or_is_refused(name: str) -> None:
    """It reaches the operator, whose own message follows; another's option is a TypeError with the operator's own."""
    grad, x, logits = small_integers()
    record, options = OPERATORS[name], options_of(name)
    for option in options:
        bad = {**options, option: -1}
        with pytest.raises(ValueError, match=option):
            selection.forward(x, logits, operator=name, **bad)
        with pytest.raises(ValueError, match=option):
            selection.backward(grad, x, logits, operator=name, **bad)
    taken = {*record.options_of("index"), *record.options_of("backward")}
    for option in (*OPTIONS, "seed", "temperature"):
        if option not in taken:
            takes = ", ".join(sorted({*taken, "backend", "nan_policy"}))
            match = f"operator 'npselect.{name}' takes no option {option}; it takes {takes}$"
            for call in (selection.forward, selection.backward, selection.backward_temp):
                if name in WITHOUT_TEMP and call is selection.backward_temp:
                    continue
                with pytest.raises(TypeError, match=match):
                    call(*(() if call is selection.forward else (grad,)), x, logits, operator=name, **{option: 1})


def test_names_that_there_are_none_of() -> None:
    for name in ("softmax", "selection", "npselect.reinmax", ""):
        with pytest.raises(ValueError, match=f"operator is '{name}'; it takes 'straight_through', 'gumbel_softmax', "):
            selection.forward([[1.0]], [0.0], operator=name)


def test_an_index_of_a_framework() -> None:
    grad, x, logits = small_integers()
    m = np.array([0, 1, 2, 3, 4, 0])
    assert np.array_equal(selection.forward(x, logits, operator="reinmax", index=m), x[m])
    grad_x, _ = selection.backward(grad, x, logits, 1.0, operator="reinmax", index=m)
    assert np.array_equal(grad_x, np.concatenate([grad[:1] + grad[5:], grad[1:5]]))


def test_an_operator_of_ones_own_gets_all_of_its_options() -> None:
    def index(logits: Any, where: Any, kind: str) -> Any:
        assert kind == "first"
        return np.zeros(np.shape(logits)[:-1], int)

    def backward(g: Any, logits: Any, temp: Any, where: Any, kind: str) -> Any:
        return g

    own = SimpleNamespace(index=index, backward=backward)
    assert selection.forward([[5.0], [6.0]], [0.0, 1.0], operator=own, kind="first").tolist() == [5.0]
    assert selection.backward([2.0], [[5.0], [6.0]], [0.0, 1.0], operator=own, kind="first")[1].tolist() == [10, 12]
    with pytest.raises(TypeError, match=r"takes no option sort; it takes kind$"):
        selection.forward([[5.0], [6.0]], [0.0, 1.0], operator=own, sort="first")
    with pytest.raises(TypeError, match="has no backward_temp"):
        selection.backward_temp([2.0], [[5.0], [6.0]], [0.0, 1.0], operator=own, kind="first")


# ------------------------------------------------------------------------------------------------ the temperature


def worth(this: Any, row: Any, logits: Any, temp: Any) -> Any:
    """``<grad_chosen, sum_j p_j x_j>`` of one row, in many digits."""
    e = [mp.exp(value / temp) if there else mpf(0) for value, there in zip(logits, this.candidates[row], strict=True)]
    total = mp.fsum(e)
    grad, x = exactly(this.grad[row]), exactly(this.x)
    return mp.fsum(e_j / total * mp.fdot(grad, x_j) for e_j, x_j in zip(e, x, strict=True))


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("shared", [True, False])
def test_the_temperatures_gradient_by_finite_differences(shared: bool, dtype: str) -> None:
    """The bound is the operator's own, and what the dot products add to it, by the derivative by g.

    That is ``p_i (t_i - sum_j p_j t_j) / temp``, with t measured from the largest. A dot product of D terms is off by
    at most ``D u / (1 - D u)`` of its terms' sizes. Rows that share a temperature are added; the result is rounded.
    """
    this = case((4, 3), (5, 4), dtypes=(dtype,) * 3, seed=1)
    temp = np.array(0.75) if shared else np.linspace(0.5, 2.0, 5).reshape(5, 1)
    given = temp.astype(np.float32 if dtype == "float16" else np.float64)
    with mp.workprec(300):
        step, logits = mpf(2) ** -80, exactly(this.logits)
        temps = np.broadcast_to(given, (5, 1)).astype(np.float64)[:, 0]
        each = [
            (worth(this, r, logits[r], mpf(t) + step) - worth(this, r, logits[r], mpf(t) - step)) / (2 * step)
            for r, t in enumerate(temps.tolist())
        ]
        expected = np.array([float(value) for value in each])
    compute = np.dtype(np.float32 if dtype == "float16" else np.float64)
    unit = tolerance.Format.of(compute).unit
    grad, x, w = (values.astype(np.float64) for values in (this.grad, this.x, this.logits))
    w = np.where(this.candidates, w, -np.inf)
    t = np.where(this.candidates, (w - w.max(axis=-1, keepdims=True)) / temps[:, None], 0.0)
    p = np.where(this.candidates, np.exp(t), 0.0)
    p /= p.sum(axis=-1, keepdims=True)
    slope = p * (np.abs(t) + np.sum(p * np.abs(t), axis=-1, keepdims=True)) / temps[:, None]
    dots = 3 * unit / (1 - 3 * unit) * (np.abs(grad) @ np.abs(x).T)
    far = tolerance.backward_temp(grad @ x.T, w, temps[:, None], compute, tolerance.KERNELS)
    far = far + (1 + 2.0**-20) * np.sum(slope * dots, axis=-1)  # p is rounded here
    if shared:
        expected, far = expected.sum(), far.sum() + 5 * unit * np.abs(expected).sum()
    else:
        expected, far = expected[:, None], far[:, None]
    far = far + tolerance.ulp(np.asarray(expected), dtype) / 2
    for backend in BACKENDS:
        result = selection.backward_temp(this.grad, this.x, this.logits, temp, where=this.where, backend=backend)
        assert result.dtype == DTYPES[dtype]
        assert result.shape == temp.shape
        assert np.all(np.abs(result.astype(np.float64) - expected) <= far)


def test_the_temperatures_gradient_is_the_operators() -> None:
    grad, x, logits = small_integers()
    for name in set(ids) - set(WITHOUT_TEMP):
        module, options = import_module(f"npselect.{name}"), options_of(name)
        for temp in (0.7, np.full((1, 1), 0.7), np.linspace(0.5, 1, 6)[:, None]):
            result = selection.backward_temp(grad, x, logits, temp, operator=name, **options)
            right = module.backward_temp(grad @ x.T, logits, temp, **options)
            assert np.shape(result) == np.shape(temp)
            np.testing.assert_array_equal(result, right)
    apart = selection.backward_temp(grad[:, None] * np.eye(5)[0][:, None], x, logits, reduce=False)
    right = straight_through.backward_temp((grad @ x.T) * np.eye(5)[0], logits)
    np.testing.assert_array_equal(apart, right)
    wide = selection.backward_temp(grad.astype(np.float32), x, logits.astype(np.float32))
    assert isinstance(wide, np.float64)


@pytest.mark.parametrize("name", WITHOUT_TEMP)
def test_an_operator_without_a_gradient_of_the_temperature(name: str) -> None:
    grad, x, logits = small_integers()
    match = rf"operator 'npselect.{name}' has no backward_temp: .* one are straight_through, gumbel_softmax"
    with pytest.raises(TypeError, match=match):
        selection.backward_temp(grad, x, logits, operator=name, **options_of(name))
