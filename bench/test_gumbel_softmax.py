"""Forward, backward and both, `npselect.gumbel_softmax` beside its peers. Run ``python -m pytest bench``."""

import pytest


@pytest.mark.operator("gumbel_softmax")
def test_gumbel_softmax(measure, problem, call, peer):
    measure(problem, call, peer)
