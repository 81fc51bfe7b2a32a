"""Forward, backward and both, `npselect.straight_through` beside its peers. Run ``python -m pytest bench``."""

import pytest


@pytest.mark.operator("straight_through")
def test_straight_through(measure, problem, call, peer):
    measure(problem, call, peer)
