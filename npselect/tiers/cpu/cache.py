"""Machine code on disk, so that later processes need not compile.

Each specialisation of a kernel is a file of its own, named by its key, and written whole: processes that cache at once,
even the same function, do not disturb each other. A file begins with a digest of the rest, which tells a truncated or a
foreign file. Then comes a digest of all that the code depends on, numba and the kernels' sources among it: after a
change of any, the kernel is compiled again.

Damaged files and full disks are no errors of the calls that compile: one warning tells of them.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import llvmlite
import numba
from numba.core.caching import FunctionCache
from numba.core.serialize import dumps

from npselect._arithmetic.aliases import CompileResult, Context, Signature

__all__ = ["CacheFiles", "KernelCache", "all_cached"]

Key: TypeAlias = Any  # numba's: types, processor, a digest of the byte code
Entry: TypeAlias = Any  # numba's: the reduced compile result

_DIGEST = sha256().digest_size
_FOLDERS = ("npselect._arithmetic", "npselect.tiers.cpu")  # what kernels are made of


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
            _warn_once("cannot be read", error, "it is compiled again")
            return None

    def save_overload(self, sig: Signature, data: CompileResult) -> None:
        """Write it to disk, if that can be done."""
        try:
            super().save_overload(sig, data)
        except Exception as error:
            _warn_once(_NOT_CACHED, error, "each process compiles again; NUMBA_CACHE_DIR may name another folder")


_NOT_CACHED = "cannot be kept"
_warned: set[str] = set()


def all_cached() -> bool:
    """Whether all that this process tried to cache was written."""
    return _NOT_CACHED not in _warned


def _warn_once(what: str, error: Exception, then: str) -> None:
    if what not in _warned:
        _warned.add(what)
        text = f"npselect's machine code {what} ({type(error).__name__}: {error}); {then}"
        warnings.warn(text, RuntimeWarning, stacklevel=2)


class CacheFiles:
    """The files of one function, by keys whose text is the same in all processes."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name

    def load(self, key: Key) -> Entry | None:
        """What was saved under the key; None if nothing was, or if what it depends on has changed."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        digest, rest = content[:_DIGEST], content[_DIGEST:]
        if sha256(rest).digest() != digest:
            raise ValueError(f"{path} is damaged")
        return pickle.loads(rest[_DIGEST:]) if rest[:_DIGEST] == _depends_on(key) else None

    def save(self, key: Key, data: Entry) -> None:
        """Save it under the key, and replace what was there."""
        rest = _depends_on(key) + dumps(data)
        path = self._path(key)
        temporary = path.with_suffix(f".{uuid4().hex[:16]}.tmp")
        try:
            temporary.write_bytes(sha256(rest).digest() + rest)
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise

    def flush(self) -> None:
        """Remove all files."""
        for path in self._folder.glob(f"{self._name}.*.nbc"):
            path.unlink(missing_ok=True)

    def _path(self, key: Key) -> Path:
        return self._folder / f"{self._name}.{sha256(repr(key).encode()).hexdigest()[:16]}.nbc"


def _depends_on(key: Key) -> bytes:
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
