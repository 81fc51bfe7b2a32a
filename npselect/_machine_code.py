"""Machine code on disk, so that later processes need not compile: files that come into being whole.

A file begins with a digest of the rest: what was cut off, or never was an entry, is told from one. Next comes a digest
of all that the code depends on: after a change of any of it, it is compiled anew. Nothing is added to what others write
too, so processes that keep code at once do each other no harm.

Nothing that is wrong with the files is an error of the calls that compile: they say so once, and go on without.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from uuid import uuid4

__all__ = ["read", "sources", "warn_once", "write"]

_DIGEST = sha256().digest_size
_told: set[str] = set()


def read(path: Path, depends_on: bytes) -> bytes | None:
    """What was kept in the file; None if nothing was, or before a change. ValueError if the file is damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    digest, rest = content[:_DIGEST], content[_DIGEST:]
    if sha256(rest).digest() != digest:
        raise ValueError(f"{path} is damaged")
    return rest[_DIGEST:] if rest[:_DIGEST] == sha256(depends_on).digest() else None


def write(path: Path, depends_on: bytes, code: bytes) -> None:
    """Keep it, in the place of what was there."""
    rest = sha256(depends_on).digest() + code
    made = path.with_suffix(f".{uuid4().hex[:16]}.tmp")
    try:
        made.write_bytes(sha256(rest).digest() + rest)
        made.replace(path)
    except BaseException:
        with suppress(OSError):
            made.unlink()
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
    """Say what is wrong with the files, and what follows."""
    if what not in _told:
        _told.add(what)
        warnings.warn(f"{what} ({type(error).__name__}: {error}); {then}", RuntimeWarning, stacklevel=2)
