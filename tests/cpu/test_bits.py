"""The CPU tier has the bits that tests/bits.sha256 pins."""

from __future__ import annotations

from collections import Counter
from typing import Any

import bits
import numpy as np
import pytest

PINNED = bits.FILE.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("dtype", list(bits.DTYPES))
def test_no_bit_has_changed(dtype: str) -> None:
    found = list(bits.lines([dtype]))
    assert found == [line for line in PINNED if f", {dtype}, " in line]


def test_every_row_function_is_pinned() -> None:
    count = len(bits.DTYPES) * len(bits.CHOICES) * len(bits.NOISES)
    found = Counter(line.split("  ")[1].split(",")[0] for line in PINNED)
    assert found == dict.fromkeys(bits.FUNCTIONS, count)


@pytest.mark.parametrize("function", bits.FUNCTIONS)
def test_one_bit_is_noticed(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any result, in the last place of one entry."""
    honest = bits.call

    def one_bit_off(*given: Any, **options: Any) -> tuple[Any, ...]:
        made = honest(*given, **options)
        last = np.array(made[-1], ndmin=1)
        last.view(np.uint8).reshape(-1)[0] ^= 1
        return (*made[:-1], last.reshape(np.shape(made[-1])))

    expected = list(bits.lines(["float32"], [3], [function]))
    assert set(expected) <= set(PINNED)
    monkeypatch.setattr(bits, "call", one_bit_off)
    assert not set(bits.lines(["float32"], [3], [function])) & set(PINNED)


def test_inputs_hold_what_they_say() -> None:
    for dtype in bits.DTYPES.values():
        given = bits.inputs(dtype, 129)
        wide = given["logits"].astype(np.float64)
        assert np.isnan(wide[3]).sum() == np.isposinf(wide[4]).sum() == 1
        assert np.isneginf(wide[5]).all()
        assert np.isfinite(wide[12:]).all()
        assert len(np.unique(wide[20])) > 60
        assert not given["where"][12].any()
        assert given["where"][13].sum() <= 1
