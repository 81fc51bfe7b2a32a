"""Tests in several processes, by pytest-xdist: which belong together.

Most of the time goes to compiling kernels, each for one dtype: the tests of a dtype, of all files, run in one process,
which compiles their kernels once; and so do those of a framework, which takes seconds to import. Others go by files;
and those of the vectors, which one process writes once.
"""

from __future__ import annotations

import re

from xdist.scheduler import LoadScopeScheduling

_FRAMEWORKS = re.compile(r"torch|jax|tensorflow|tf(?=[._])")
_VECTORS = "tests/testing/test_vectors"
_DTYPES = re.compile(r"(?<![a-z])(?:b?float16|float32|float64)")


def group(nodeid: str) -> str:
    """The tests of one group run in one process."""
    file, _, test = nodeid.partition("::")
    if file.startswith(_VECTORS):
        return _VECTORS
    names = _FRAMEWORKS.findall(test) or _DTYPES.findall(test.partition("[")[2])
    return names[-1].replace("tf", "tensorflow") if names else file


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Groups, to whichever process is free."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)
