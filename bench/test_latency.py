"""Small calls, of which nothing but the latency is left, of all operators."""

import pytest


@pytest.mark.operator("straight_through", shapes=[(1, 10), (32, 10)])
@pytest.mark.operator("gumbel_softmax", shapes=[(1, 10), (32, 10)])
@pytest.mark.operator("selection", shapes=[(1, 10), (32, 10)], dtypes=["float32"])
@pytest.mark.operator("noise", shapes=[(32, 10)], dtypes=["float32"])
def test_latency(measure, problem, call, peer):
    measure(problem, call, peer)
