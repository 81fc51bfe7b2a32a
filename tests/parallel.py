"""Tests in several processes, by pytest-xdist: which belong together, and a cache of machine code for all of them.

Most of the time goes to compiling kernels, each for one dtype: the tests of a dtype, of all files, run in one process,
which compiles their kernels once; and so do those of a framework, which takes seconds to import. Others go by files.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from numba.core import config
from numba.core.caching import IndexDataCacheFile
from xdist.scheduler import LoadScopeScheduling

_FRAMEWORKS = re.compile(r"torch|jax|tensorflow|tf(?=[._])")
_DTYPES = re.compile(r"(?<![a-z])(?:b?float16|float32|float64)")


def group(nodeid: str) -> str:
    """The tests of one group run in one process."""
    file, _, test = nodeid.partition("::")
    names = _FRAMEWORKS.findall(test) or _DTYPES.findall(test.partition("[")[2])
    return names[-1].replace("tf", "tensorflow") if names else file


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Groups, to whichever process is free."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)


def save_in_turn() -> None:
    """Processes that compile one function for two types read, add to and write one index: let them take turns.

    Else one may lose the other's entry or, worse, overwrite the file that it names.
    """
    import fcntl

    save = IndexDataCacheFile.save

    def locked(self: Any, key: Any, data: Any) -> None:
        folder = Path(config.CACHE_DIR)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            save(self, key, data)

    IndexDataCacheFile.save = locked
