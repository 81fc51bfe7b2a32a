"""numba's cache of compiled kernels, with files as `npselect._machine_code` has them.

Each specialisation of a kernel is a file of its own, named by its key: processes that compile the same function at once
do not disturb each other. What the code depends on is numba and the kernels' sources.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

import llvmlite
import numba
from numba.core.caching import FunctionCache
from numba.core.serialize import dumps

from npselect import _machine_code
from npselect._arithmetic.aliases import CompileResult, Context, Signature

__all__ = ["CacheFiles", "KernelCache", "all_cached"]

Key: TypeAlias = Any  # numba's: types, processor, a digest of the byte code
Entry: TypeAlias = Any  # numba's: the reduced compile result

_FOLDERS = ("npselect._arithmetic", "npselect.tiers.cpu")  # what kernels are made of
_NOT_READ = "npselect's machine code cannot be read"
_NOT_CACHED = "npselect's machine code cannot be kept"


class KernelCache(FunctionCache):  # type: ignore[misc]
    """numba's cache of a function, with its folder and its keys, over `CacheFiles`."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__(function)
        self._cache_file = CacheFiles(Path(self._cache_path), self._impl.filename_base)

    def load_overload(self, sig: Signature, target_context: Context) -> CompileResult:
        """The machine code for types of arguments; None if there is none that can be used."""
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # whatever comes of reading what somebody else wrote
            _machine_code.warn_once(_NOT_READ, error, "it is compiled again")
            return None

    def save_overload(self, sig: Signature, data: CompileResult) -> None:
        """Write it to disk, if that can be done."""
        try:
            super().save_overload(sig, data)
        except Exception as error:
            then = "each process compiles again; NUMBA_CACHE_DIR may name another folder"
            _machine_code.warn_once(_NOT_CACHED, error, then)


def all_cached() -> bool:
    """Whether all that this process tried to cache was written."""
    return not _machine_code.warned(_NOT_CACHED)


class CacheFiles:
    """The files of one function, by keys whose text is the same in all processes."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name

    def load(self, key: Key) -> Entry | None:
        """What was saved under the key; None if nothing was, or if what it depends on has changed."""
        code = _machine_code.read(self._path(key), _depends_on(key))
        return None if code is None else pickle.loads(code)

    def save(self, key: Key, data: Entry) -> None:
        """Save it under the key, and replace what was there."""
        _machine_code.write(self._path(key), _depends_on(key), dumps(data))

    def flush(self) -> None:
        """Remove all files."""
        for path in self._folder.glob(f"{self._name}.*.nbc"):
            path.unlink(missing_ok=True)

    def _path(self, key: Key) -> Path:
        return self._folder / f"{self._name}.{sha256(repr(key).encode()).hexdigest()[:16]}.nbc"


def _depends_on(key: Key) -> bytes:
    return repr((numba.__version__, llvmlite.__version__, _machine_code.sources(*_FOLDERS), key)).encode()
