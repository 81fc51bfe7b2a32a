"""Vectors of 16 selected from, forward, backward and both, `npselect.selection` beside its peers."""

import pytest


@pytest.mark.operator("selection", shapes=[(8192, 64), (512, 1024)], dtypes=["float32", "float64"])
def test_selection(measure, problem, call, peer):
    measure(problem, call, peer)
