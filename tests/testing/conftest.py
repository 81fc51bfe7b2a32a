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
