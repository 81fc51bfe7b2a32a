"""Memory that knows, of each byte, whether it was allotted, whether it was written, and which threads used it."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from typing import Any

import numpy as np

__all__ = ["Fault", "Space"]

_NOBODY, _SEVERAL, _WARPS = 0, -1, -2  # from which the warps' numbers go down


class Fault(Exception):  # noqa: N818
    """What a device would punish, or let pass."""


class Space:
    """Addresses from `base` on, `size` bytes of them, for each of `copies` blocks; nothing of it is allotted at first.

    Threads are known by numbers from 1 on; `warps` is the number of each one's warp, where these may meet.
    """

    def __init__(self, name: str, base: int, size: int, copies: int = 1, warps: Any = None) -> None:
        self.name, self.base, self.size, self.copies = name, base, size, copies
        self.data, self.usable, self.written = (np.zeros(copies * size, np.uint8) for _ in range(3))
        self.readers, self.writers = (np.zeros(copies * size, np.int32) for _ in range(2))
        self.warps = warps

    # -------------------------------------------------------------------------------------------- from outside

    def allot(self, address: int, nbytes: int, usable: bool = True) -> None:
        """Bytes for threads to use, in each copy, that are not written; or that they may use no longer."""
        places = self._part(address, nbytes)
        for marks in (self.usable, self.written):
            marks.reshape(self.copies, self.size)[:, places] = 0
        self.usable.reshape(self.copies, self.size)[:, places] = usable

    def fill(self, address: int, values: Any) -> None:
        """Write bytes, in a space of one copy."""
        places = self._part(address, len(values))
        if not self.usable[places].all():
            raise Fault(f"{self.name} memory at {address:#x} was not allotted")
        self.data[places], self.written[places] = values, 1

    def dump(self, address: int, nbytes: int) -> Any:
        """Read bytes, in a space of one copy."""
        places = self._part(address, nbytes)
        left = np.flatnonzero(~(self.usable[places] & self.written[places]).astype(bool))
        if len(left):
            raise Fault(f"{len(left)} bytes of {nbytes} were never written, the first at {address:#x} + {left[0]}")
        return self.data[places]

    def only(self, arrays: Iterable[tuple[int, int]]) -> Space:
        """The same memory, as far as it lies in arrays of an address and so many bytes; nobody has used it yet."""
        part = copy(self)
        part.usable = np.zeros(len(self.usable), np.uint8)  # zeros_like would go through all of it
        for address, nbytes in arrays:
            part.usable[self._part(address, nbytes)] = self.usable[self._part(address, nbytes)]
        part.readers, part.writers = (np.zeros(len(self.usable), np.int32) for _ in range(2))
        return part

    def _part(self, address: int, nbytes: int) -> slice:
        start = address - self.base
        assert 0 <= start <= start + nbytes <= self.size
        return slice(start, start + nbytes)

    # -------------------------------------------------------------------------------------------- by threads

    def load(self, addresses: Any, copies: Any, threads: Any, dtype: np.dtype[Any], count: int) -> Any:
        """What each thread reads: an array of `count` columns."""
        places, threads = self._places(addresses, copies, dtype.itemsize * count), threads[:, None]
        self._check(self.written[places] == 1, addresses, "was never written")
        self._check(self._left_to(threads, self.writers[places]), addresses, "was written by another thread")
        before = self.readers[places]
        left = self._left_to(threads, before)
        readers = np.where(left, threads, before)
        readers[~left] = self._together(np.broadcast_to(threads, left.shape)[~left], before[~left])
        self.readers[places] = readers
        now = self.readers[places]  # one of those that read the same byte at a time
        others = now != readers
        together = self._together(readers[others], now[others])
        self.readers[places[others]] = together
        self.readers[places[others][together == _SEVERAL]] = _SEVERAL
        return self.data[places].view(dtype)

    def store(self, addresses: Any, copies: Any, threads: Any, values: Any) -> None:
        """A row of `values` from each thread."""
        contents = np.ascontiguousarray(values).view(np.uint8)
        places, threads = self._places(addresses, copies, contents.shape[1]), threads[:, None]
        self._check(self._left_to(threads, self.writers[places]), addresses, "was written by another thread")
        self._check(self._left_to(threads, self.readers[places]), addresses, "was read by another thread")
        self.writers[places] = threads
        self._check(self.writers[places] == threads, addresses, "is written by two threads")
        self.data[places], self.written[places] = contents, 1

    def forget(self, copies: Any) -> None:
        """Who used it: they have met at a barrier."""
        for users in (self.readers, self.writers):
            users.reshape(self.copies, self.size)[copies] = _NOBODY

    def met(self, warps: Any) -> None:
        """Threads of some warps have met: what they used is their warp's."""
        for users in (self.readers, self.writers):
            several = self._several(users)
            met = np.isin(several, _WARPS - 2 * warps)
            users[met] = several[met] - 1

    def _several(self, users: Any) -> Any:
        """Users as several threads of one warp that have not met; their warp, once they have, is the number below."""
        if self.warps is None:
            return np.where(users == _NOBODY, _NOBODY, _SEVERAL)
        of_threads = _WARPS - 2 * self.warps[np.maximum(users, 1) - 1]
        return np.where(users > 0, of_threads, np.where(users <= _WARPS, users + (users & 1), users))

    def _together(self, users: Any, others: Any) -> Any:
        several = self._several(users)
        return np.where(several == self._several(others), several, _SEVERAL)

    def _places(self, addresses: Any, copies: Any, nbytes: int) -> Any:
        self._check((addresses & np.uint64(nbytes - 1)) == 0, addresses, f"is no multiple of {nbytes}")
        offsets = addresses - np.uint64(self.base)  # huge for what lies before
        self._check(offsets <= self.size - nbytes, addresses, "was not allotted")
        places = (copies * self.size + offsets.astype(np.int64))[:, None] + np.arange(nbytes)
        self._check(self.usable[places] == 1, addresses, "was not allotted")
        return places

    def _left_to(self, threads: Any, users: Any) -> Any:
        return (users == _NOBODY) | (users == threads) | (users == self._several(threads) - 1)

    def _check(self, holds: Any, addresses: Any, fault: str) -> None:
        if not holds.all():
            at = np.flatnonzero(~holds.reshape(len(addresses), -1).all(1))
            raise Fault(f"{self.name} memory at {addresses[at[0]]:#x} {fault}; {len(at)} threads of {len(addresses)}")
