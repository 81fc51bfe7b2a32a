"""The CUDA tier without a device: its kernels in numba's simulator, and how it shares rows out.

What the kernels are compiled to is read in test_cuda_ptx.py; that this is what is loaded, in tests/fakes/launched.py.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import children
import numpy as np
import pytest

if find_spec("numba_cuda") is None:
    pytest.skip("numba-cuda is not installed: pip install 'npselect[cuda]'", allow_module_level=True)

from npselect._gpu.intrinsics import simulated
from npselect._operators import BACKWARD, BACKWARD_TEMP, MASK_AT
from npselect.tiers.cuda import kernels, rows, selecting
from npselect.tiers.cuda.plan import registers_for, team_for

ROOT = Path(__file__).parents[2]
GROUPS = ["shapes", "long_rows", "noises", "types", "on_the_device", "selections", "reinmax", "faults"]


def simulate(group):
    return subprocess.run(
        [
            *children.python(),
            "-m",
            "fakes.simulated",
            group,
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={
            **os.environ,
            "NUMBA_ENABLE_CUDASIM": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        },
        timeout=900,
    )


@pytest.fixture(scope="module")
def simulations():
    with ThreadPoolExecutor(2) as pool:
        yield {group: pool.submit(simulate, group) for group in GROUPS}


@pytest.mark.parametrize("group", GROUPS)
def test_same_bits_as_the_cpu(group, simulations):
    result = simulations[group].result()
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.strip()


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize(
    "choices", [1, 2, 3, 4, 5, 8, 10, 31, 64, 65, 128, 129, 256, 257, 1000, 1024, 1025, 16384, 10**6]
)
@pytest.mark.parametrize("most_threads", [64, 256, 512])
def test_a_team_covers_its_row(choices, aligned, most_threads):
    team = team_for(choices, aligned, most_threads)
    columns = 4 * team.group * team.quads
    rounds = -(-choices // (columns * team.warps))
    assert team.long == (rounds > 1)
    if team.warps == 1 and not team.long:
        assert columns >= choices
        assert team.quads == 1 or columns < 2 * choices
    else:
        assert team.group == 32
        assert columns == 1024
        assert columns * (team.warps - 1) < choices
    assert team.group * team.warps <= most_threads


@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("held", [0, 1, 2, 3])
def test_blocks_that_keep_rows_in_registers_find_them(held, kind):
    for quads in (1, 2, 4, 8):
        resident, most_threads = registers_for(held, kind, quads, "none")
        words = held * 4 * quads * (2 if kind is np.float64 else 1)
        assert not resident or words * most_threads <= 32768  # half of them: the other half is for what is computed
        assert most_threads % 32 == 0


def test_kernels_state_what_the_row_functions_declare():
    for function, kernel in rows.KERNELS.values():
        assert rows.agrees(function, kernel)
    kept = {name: kernel.arrays_in_registers for name, (_, kernel) in rows.KERNELS.items()}
    assert kept == dict.fromkeys(rows.KERNELS, 1) | {"backward": 2, "gapped": 2} | dict.fromkeys(
        ("backward_temp", "double_backward", "reinmax"), 3
    )
    assert not rows.agrees(BACKWARD_TEMP, kernels.backward)
    assert not rows.agrees(BACKWARD, kernels.soft)
    assert not rows.agrees(MASK_AT, selecting.mask)


@pytest.mark.skipif(simulated(), reason="numba's simulator compiles nothing")
def test_a_numpy_without_row_stack():
    """NumPy 2.5 has it no more, and numba-cuda 0.30 asks for it. (numba itself goes by the version: it comes first.)"""
    code = """
import numba.np.arrayobj
import numpy as np
if hasattr(np, "row_stack"):
    del np.row_stack
from npselect._gpu import intrinsics as device_primitives
import numba.cuda.np.arrayobj
assert np.vstack(([1], [2])).shape == (2, 1) and not hasattr(np, "row_stack")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
