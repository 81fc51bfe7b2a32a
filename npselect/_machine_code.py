"""Machine code on disk, so that later processes need not compile: the format of a file, for kernels of both tiers.

A file holds one compiled kernel. It begins with a digest of the rest, by which a truncated or a foreign file is found
out. Then comes a digest of all that the code depends on: after a change of any of it, the kernel is compiled again. A
file is written under another name and then renamed, so processes that write the same file do not disturb each other.

A damaged file or a full disk is no error of the call that compiles: one warning tells of it.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from uuid import uuid4

__all__ = ["read", "sources", "warn_once", "warned", "write"]

_DIGEST = sha256().digest_size
_warned: set[str] = set()


def read(path: Path, depends_on: bytes) -> bytes | None:
    """The code in a file; None if there is no file, or `depends_on` has changed. ValueError if the file is damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    digest, rest = content[:_DIGEST], content[_DIGEST:]
    if sha256(rest).digest() != digest:
        raise ValueError(f"{path} is damaged")
    return rest[_DIGEST:] if rest[:_DIGEST] == sha256(depends_on).digest() else None


def write(path: Path, depends_on: bytes, code: bytes) -> None:
    """Write a file, or replace it."""
    rest = sha256(depends_on).digest() + code
    temporary = path.with_suffix(f".{uuid4().hex[:16]}.tmp")
    try:
        temporary.write_bytes(sha256(rest).digest() + rest)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


@cache
def sources(*packages: str) -> str:
    """A digest of all modules in these packages."""
    digest = sha256()
    for package in packages:
        for file in sorted(files(package).iterdir(), key=lambda file: file.name):
            if file.name.endswith(".py"):
                digest.update(f"{package}/{file.name}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


def warn_once(what: str, error: Exception, then: str) -> None:
    """Warn that something went wrong with the files, and what follows; once in a process for each `what`."""
    if what not in _warned:
        _warned.add(what)
        warnings.warn(f"{what} ({type(error).__name__}: {error}); {then}", RuntimeWarning, stacklevel=2)


def warned(what: str) -> bool:
    """Whether `warn_once` has warned of it."""
    return what in _warned
