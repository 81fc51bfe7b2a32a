"""Tests in several processes, by pytest-xdist: which belong together, and which begin.

Most of the time goes to compiling kernels, each for one dtype: the tests of a dtype, of all files, run in one process,
which compiles their kernels once; and so do those of a framework, which takes seconds to import. Others go by files;
and those of the vectors, which one process writes once. Long sweeps that have nothing to share go by themselves.

What takes longest begins first: at the end no process waits for another that has just begun something long.
"""

from __future__ import annotations

import re

from xdist.scheduler import LoadScopeScheduling

_FRAMEWORKS = re.compile(r"torch|jax|tensorflow|tf(?=[._])")
_VECTORS = "tests/testing/test_vectors"
_DTYPES = re.compile(r"(?<![a-z])(?:b?float16|float32|float64)")
# By themselves, the dearest first. A test that is missing here costs time, no more.
_LONG = ("tests/cpu/test_cpu.py::test_processors",)


def group(nodeid: str) -> str:
    """The tests of one group run in one process."""
    file, _, test = nodeid.partition("::")
    if nodeid.startswith(_LONG):
        return nodeid
    if file.startswith(_VECTORS):
        return _VECTORS
    names = _FRAMEWORKS.findall(test) or _DTYPES.findall(test.partition("[")[2])
    return names[-1].replace("tf", "tensorflow") if names else file


def place(name: str, tests: int) -> tuple[int, int]:
    """Where a group stands: the long ones as they are listed, then the largest."""
    long = [i for i, start in enumerate(_LONG) if name.startswith(start)]
    return (long[0] if long else len(_LONG)), -tests


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Groups, to whichever process is free."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)

    def _assign_work_unit(self, node: object) -> None:
        first = min(self.workqueue, key=lambda name: place(name, len(self.workqueue[name])))
        self.workqueue.move_to_end(first, last=False)
        super()._assign_work_unit(node)
