"""The options that are numbers, `forward_temp`, `unimix` and `gap`: what they take, and what they say of all else."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from npselect import categorical, gapped, gumbel_softmax

LOGITS = np.array([[0.5, -1.0, 2.0]])
BY_NAME = {
    "forward_temp": [gumbel_softmax, categorical],
    "unimix": [categorical],
    "gap": [gapped],
}
SETTINGS = [(operator, name) for name, operators in BY_NAME.items() for operator in operators]
IDS = [f"{operator.__name__.rpartition('.')[-1]}-{name}" for operator, name in SETTINGS]


def calls(operator, name, value):
    yield lambda: operator.backward(LOGITS, LOGITS, seed=1, **{name: value})
    if operator is not gapped:  # whose sample does not depend on the gap
        yield lambda: operator.forward(LOGITS, seed=1, **{name: value})


@pytest.mark.parametrize(("operator", "name"), SETTINGS, ids=IDS)
@pytest.mark.parametrize(
    "half", [np.float32(0.5), np.array(0.5), Fraction(1, 2), Decimal("0.5")], ids=lambda x: type(x).__name__
)
def test_any_kind_of_number_will_do(operator, name, half):
    for found, expected in zip(calls(operator, name, half), calls(operator, name, 0.5), strict=True):
        assert np.array_equal(found(), expected())


@pytest.mark.parametrize(("operator", "name"), SETTINGS, ids=IDS)
@pytest.mark.parametrize("bad", ["1", b"1", True, None, [1.0], 1j, np.ma.masked_array(1.0)], ids=repr)
def test_what_is_no_number_is_refused(operator, name, bad):
    is_word = name == "gap" and bad == "1"
    message = r"gap is '1'; it takes a positive number or 'adaptive'" if is_word else rf"{name} is .*it takes a number"
    for call in calls(operator, name, bad):
        with pytest.raises(ValueError if is_word else TypeError, match=message):
            call()


@pytest.mark.parametrize(("operator", "name"), SETTINGS, ids=IDS)
@pytest.mark.parametrize("bad", [-1.0, np.inf, np.nan])
def test_what_is_out_of_range_is_refused(operator, name, bad):
    least = "be 0, or from" if name == "unimix" else "be positive and finite"
    for call in calls(operator, name, bad):
        with pytest.raises(ValueError, match=rf"{name} is {bad}; it must {least}"):
            call()
