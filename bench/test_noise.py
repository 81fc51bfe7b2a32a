"""Gumbel noise, `npselect.noise` beside other generators; each is judged by what it samples."""

import pytest


@pytest.mark.operator("noise", dtypes=["float32", "float64"])
def test_noise(measure, problem, call, peer):
    measure(problem, call, peer)
