"""Machine code on disk, so that later processes need not compile.

An entry is a file, named by what it was compiled for, that comes into being whole. So nothing is added to what others
write too, and processes that keep code at once, of one function even, do each other no harm. A file begins with a
digest of the rest: what was cut off, or never was an entry, is told from one. Next comes a digest of all that the code
depends on, numba and the kernels' sources among it: after a change of any, it is compiled anew.

Nothing that is wrong with the files is an error of the calls that compile: they say so once, and go on without.
"""

from __future__ import annotations

import pickle
import warnings
from contextlib import suppress
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any
from uuid import uuid4

import llvmlite
import numba
from numba.core.caching import FunctionCache
from numba.core.serialize import dumps

__all__ = ["CacheFiles", "KernelCache", "all_cached"]

_DIGEST = sha256().digest_size
_FOLDERS = ("npselect._arithmetic", "npselect.tiers.cpu")  # what kernels are made of


class KernelCache(FunctionCache):  # type: ignore[misc]
    """numba's cache of a function: its folder, its keys, files of ours."""

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        self._cache_file = CacheFiles(Path(self._cache_path), self._impl.filename_base)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The machine code for types of arguments; None if there is none that can be used."""
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # whatever comes of reading what somebody else wrote
            _warn_once("cannot be read", error, "it is compiled again")
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep it, if that can be done."""
        try:
            super().save_overload(sig, data)
        except Exception as error:
            _warn_once(_NOT_CACHED, error, "each process compiles again; NUMBA_CACHE_DIR may name another folder")


_NOT_CACHED = "cannot be kept"
_warned: set[str] = set()


def all_cached() -> bool:
    """Whether everything that was to be kept in this process was."""
    return _NOT_CACHED not in _warned


def _warn_once(what: str, error: Exception, then: str) -> None:
    if what not in _warned:
        _warned.add(what)
        text = f"npselect's machine code {what} ({type(error).__name__}: {error}); {then}"
        warnings.warn(text, RuntimeWarning, stacklevel=2)


class CacheFiles:
    """Those of one function, by keys whose text is the same in all processes."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name

    def load(self, key: Any) -> Any:
        """What was kept under the key; None if nothing was, or before a change."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        digest, rest = content[:_DIGEST], content[_DIGEST:]
        if sha256(rest).digest() != digest:
            raise ValueError(f"{path} is damaged")
        return pickle.loads(rest[_DIGEST:]) if rest[:_DIGEST] == _depends_on(key) else None

    def save(self, key: Any, data: Any) -> None:
        """Keep it under the key, in the place of what was there."""
        rest = _depends_on(key) + dumps(data)
        path = self._path(key)
        made = path.with_suffix(f".{uuid4().hex[:16]}.tmp")
        try:
            made.write_bytes(sha256(rest).digest() + rest)
            made.replace(path)
        except BaseException:
            with suppress(OSError):
                made.unlink()
            raise

    def flush(self) -> None:
        """Keep nothing."""
        for path in self._folder.glob(f"{self._name}.*.nbc"):
            path.unlink(missing_ok=True)

    def _path(self, key: Any) -> Path:
        return self._folder / f"{self._name}.{sha256(repr(key).encode()).hexdigest()[:16]}.nbc"


def _depends_on(key: Any) -> bytes:
    return sha256(repr((numba.__version__, llvmlite.__version__, _sources(), key)).encode()).digest()


@cache
def _sources() -> str:
    """A digest of the folders that kernels are made of."""
    digest = sha256()
    for folder in _FOLDERS:
        for file in sorted(files(folder).iterdir(), key=lambda file: file.name):
            if file.name.endswith(".py"):
                digest.update(f"{folder}/{file.name}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()
