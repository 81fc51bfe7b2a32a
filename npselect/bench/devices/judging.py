"""Results on a device are judged as those on the processor are, by `npselect.bench.fault`, at both ends of an array."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from npselect.bench.devices.arrays import DeviceArray
from npselect.bench.devices.timing import Pool
from npselect.bench.judging import fault
from npselect.bench.problem import Problem
from npselect.testing.aliases import Array

__all__ = ["Sample"]

_JUDGED = 1 << 13  # elements at each end


@dataclass(frozen=True)
class Sample(Problem):
    """The first and the last rows of arrays that lie on a device, as a problem.

    Attributes
    ----------
    pool : Pool
        The arrays; those of its first set are meant.
    whole : int
        How many rows the arrays have.
    """

    pool: Pool = field(kw_only=True)
    whole: int = field(kw_only=True)

    @classmethod
    def of(cls, pool: Pool, rows: int, choices: int, temp: float) -> Sample:
        """What is judged of a call of `npselect.straight_through` on so many rows."""
        judged = 2 * max(1, min(rows // 2, _JUDGED // choices))
        return cls("straight_through", judged, choices, pool.dtype, temp, pool=pool, whole=rows)

    @cached_property
    def logits(self) -> Array:
        """As the device has them."""
        return self._ends(self.pool.get("logits", 0, self.whole, self.choices))

    @cached_property
    def grad_mask(self) -> Array:
        """As the device has it."""
        return self._ends(self.pool.get("g", 0, self.whole, self.choices))

    def fault(self, call: str, result: DeviceArray) -> str | None:
        """What is wrong with the result of a call, in one line, or None."""
        return fault(self, call, [self._ends(result)])

    def _ends(self, array: DeviceArray) -> Array:
        some = self.rows // 2
        ends = array[:some], array[self.whole - some :]
        return np.concatenate([self.pool.arrays.to_host(end) for end in ends])
