"""The stubs are those of the signatures, and the consumer that type checkers read is true when it runs."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import stubs

import npselect

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", npselect.OPERATORS)
def test_stubs_are_those_of_the_signatures(name):
    text = (stubs.PACKAGE / f"{name}.pyi").read_text(encoding="utf-8")
    assert text == stubs.stub(npselect.OPERATORS[name]), "renew them: python tests/stubs.py --write"


@pytest.mark.slow
def test_consumer_runs():
    """Types are a checker's to judge; the calls are ours. Slow: it compiles most kernels in three dtypes."""
    names = runpy.run_path(str(ROOT / "tests" / "types" / "consumer.py"))
    dtypes = {name: names[name].dtype.name for name in ("half", "single", "double", "whole", "flags")}
    assert list(dtypes.values()) == ["float16", "float32", "float64", "int64", "bool"]
