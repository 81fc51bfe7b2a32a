"""Sums, products and logarithms of two and three words: proven bounds, and faults found."""

from __future__ import annotations

import math
from collections.abc import Callable

import formulas
import mpmath
import numpy as np
import pytest
from formulas import Record, compiled, flipped, plain
from hard_numbers import doubles, near, triple_arguments
from inputs import Array
from mpmath import mp, mpf

from npselect._arithmetic import logarithm


def relative_error(result: Array, exact: Callable[..., mpf], *arguments: Array) -> float:
    """The largest error of words that are rows, relative to the exact result of the arguments' sums."""
    found = 0.0
    with mp.workprec(400):
        for i in range(result.shape[1]):
            value = exact(*(mpmath.fsum(map(mpf, x[:, i].tolist())) for x in arguments))
            error = abs(mpmath.fsum(map(mpf, result[:, i].tolist())) - value)
            found = max(found, float(error / abs(value)) if value else math.inf * bool(error))
    return found


def test_products_and_sums(record: Record) -> None:
    rng = np.random.default_rng(6)
    a = doubles(np.concatenate([rng.uniform(1, 4, 5000), 1 + rng.uniform(0, 2.0**-40, 3000), near(2.0, 20)]))
    b = doubles(rng.permuted(a[0]) * rng.choice([-1, 1], a.shape[1]))
    found = relative_error(compiled(formulas.products, np.concatenate([a, b]), 2), lambda x, y: x * y, a, b)
    record("product of double words, of its bound", found * 2**102)
    assert found < 2.0**-102
    b = doubles(-a[0] / 2 * np.where(rng.random(a.shape[1]) < 0.5, 1 - 2.0**-51, rng.uniform(-1, 1, a.shape[1])))
    found = relative_error(compiled(formulas.sums, np.concatenate([a, b]), 2), lambda x, y: x + y, a, b)
    record("sum of double words, of its bound", found * 2**103)
    assert found < 2.0**-103
    b[:, :] = np.ldexp(b, 2)  # |a| < 2 |b|, so that it may cancel
    found = relative_error(compiled(formulas.sums, np.concatenate([a, b]), 2), lambda x, y: x + y, a, b)
    assert found > 2.0**-103


def test_log_of_one_plus(record: Record) -> None:
    rng = np.random.default_rng(9)
    sizes = np.concatenate([rng.uniform(-8.6, -8.49, 4000), rng.uniform(-60, -8.49, 4000)])
    z = doubles(np.exp2(sizes) * rng.choice([-1, 1], 8000))
    found = relative_error(compiled(formulas.logs_of_one_plus, z, 2), lambda x: mpmath.log(1 + x), z)
    record("log(1 + z), of its bound", found * 2**103)
    assert found < 2.0**-103


def triple_error(x: Array, result: Array, precision: int = 300) -> tuple[float, float]:
    """The largest error in units of ``2**-112`` and of ``2**-103 |log x|``."""
    absolute = relative = 0.0
    with mp.workprec(precision):
        for argument, words in zip(x.T.tolist(), result.T.tolist(), strict=True):
            value = mpmath.log(mpmath.fsum(map(mpf, argument)))
            error = abs(mpmath.fsum(map(mpf, words)) - value)
            absolute = max(absolute, float(error * 2**112))
            relative = max(relative, float(error / abs(value) * 2**103) if value else math.inf * bool(error))
    return absolute, relative


@pytest.mark.parametrize("where", triple_arguments())
def test_log_triple_word(where: str, record: Record) -> None:
    """Within the bounds that are derived beside it; and words that the next logarithm may take."""
    x, precision = triple_arguments()[where]
    result = compiled(formulas.words, x, 3)
    found = triple_error(x, result, precision)
    record(f"log_triple_word {where}, of 2**-112", found[0])
    record(f"log_triple_word {where}, of 2**-103 |log x|", found[1])
    assert max(found) < 1
    size = np.abs(result)
    assert np.all(size[1] <= size[0] * 2.0**-53 * (1 + 2.0**-12))
    assert np.all(size[2] <= size[1] * 3 * 2.0**-53)


def test_log_triple_word_of_one() -> None:
    assert compiled(formulas.words, np.array([[1.0], [0.0], [0.0]]), 3).tolist() == [[0.0]] * 3


FAULTS = {
    "bit of a first word": ("_TABLE1", 33),
    "bit of a second word": ("_TABLE2", 25),
    "bit of a third word": ("_TABLE3", 52),
    "bit of ln 2": ("_LN2_2", 35),
    "rotated table": ("_TABLE2", None),
    "coefficient": ("_T7", 20),
    "low coefficient": ("_T3_LOW", 50),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_log_triple_word_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    u = (2 * np.random.default_rng(2).integers(0, 2**52, 300) + 1) * 2.0**-53
    x = np.array([u, 0 * u, 0 * u])
    assert max(triple_error(x, plain(logarithm.log_triple_word, x))) < 1
    name, bit = FAULTS[fault]
    right = getattr(logarithm, name)
    if bit is None:
        wrong = np.roll(right, 1)
    else:
        wrong = flipped(right, bit) if right.ndim == 0 else np.array([flipped(word, bit) for word in right])
    monkeypatch.setattr(logarithm, name, wrong)
    assert max(triple_error(x, plain(logarithm.log_triple_word, x))) > 1
