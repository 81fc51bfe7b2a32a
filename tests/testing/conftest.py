"""What tests of the checker share."""

from __future__ import annotations

import functools
import sys

import pytest

from npselect import testing

_cases = functools.cache(testing.selection_cases)


@pytest.fixture
def remembered_selections(monkeypatch):
    """Cases with their answers, which take most of the time."""

    def remembered(dtype, temp, *, operator, options, x_axes):
        return _cases(dtype, temp, operator=operator, options=options, x_axes=x_axes)

    monkeypatch.setattr(sys.modules["npselect.testing.selection_check"], "selection_cases", remembered)


@pytest.fixture
def small(monkeypatch):
    """check_sampling_op with fewer rows and seeds than a user gets."""
    sizes = {"gradients": (13, 5e4), "samples": (11, 2e5), "many": (13, 3e5), "equal": (9, 1e5)}
    monkeypatch.setattr("npselect.testing.sampling.check._SIZES", sizes)
    monkeypatch.setattr("npselect.testing.sampling.check._SEEDS", 4)
    monkeypatch.setattr("npselect.testing.sampler_questions._FAR_SEEDS", 64)
