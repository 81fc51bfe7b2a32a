"""A machine without a device: why there is none, and that looking at arrays loads no CUDA."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
from arrays import random

import npselect
from npselect import straight_through as st

pytest.importorskip("numba.cuda", reason="needs numba.cuda, which the device arrays' kernels are compiled by")


def run(code, **environment):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=120).stdout


DETAIL = "import npselect; print(npselect.backends()['cuda'].detail)"


def test_without_numba_cuda_it_is_said_how_to_install_it():
    hidden = "import importlib.util as u; f = u.find_spec; u.find_spec = lambda n: n != 'numba_cuda' and f(n) or None; "
    output = run(hidden + DETAIL)
    assert "pip install 'npselect[cuda]'" in output
    assert output.count("\n") == 1


@pytest.mark.skipif(find_spec("numba_cuda") is None, reason="numba-cuda is not installed")
def test_why_there_is_no_device_is_said_in_one_line():
    assert run(DETAIL, NUMBA_ENABLE_CUDASIM="1").startswith("numba simulates CUDA here")
    assert "NUMBA_DISABLE_CUDA" in run(DETAIL, NUMBA_DISABLE_CUDA="1", NUMBA_ENABLE_CUDASIM="0")
    assert run(DETAIL, NUMBA_ENABLE_CUDASIM="0").count("\n") == 1


def test_looking_at_arrays_loads_no_cuda():
    code = """
import sys
import numpy as np
import npselect
npselect.straight_through.forward(np.ones((2, 3)))
names = ("numba.cuda", "numba_cuda", "cuda", "npselect._gpu")
print(sorted(name for name in sys.modules if name.startswith(names)))
"""
    assert run(code).strip() == "[]"


@pytest.mark.skipif(npselect.backends()["cuda"].available, reason="there is a device here")
def test_the_cuda_tier_says_why_it_does_not_run():
    with pytest.raises(RuntimeError, match=r"^backend 'cuda' does not run here: \w.+$"):
        st.forward(random((3, 4)), backend="cuda")
