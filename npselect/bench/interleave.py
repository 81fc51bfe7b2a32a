"""Times taken in turns, A B C A B C, so that what else the machine does falls on all of them alike."""

from __future__ import annotations

import statistics
import time
import timeit
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from npselect.testing.aliases import Timed

__all__ = ["Times", "ratio", "turns"]

_LONG = 0.5  # seconds: who takes longer is not called once more beforehand, and has fewer turns
_FEW = 3


@dataclass
class Times:
    """Seconds of one call, one number a turn.

    Attributes
    ----------
    seconds : dict of int to float
        By round.

    Examples
    --------
    >>> from npselect.bench import Times
    >>> times = Times({0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0, 4: 100.0})
    >>> times.median, times.quartiles, times.spread
    (3.0, (2.0, 4.0), 0.6666666666666666)
    """

    seconds: dict[int, float] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Of all turns."""
        return statistics.median(self.seconds.values())

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third; of a single turn, both are it."""
        values = list(self.seconds.values())
        if len(values) == 1:
            return values[0], values[0]
        first, _, third = statistics.quantiles(values, n=4, method="inclusive")
        return first, third

    @property
    def spread(self) -> float:
        """The distance of the quartiles as a fraction of the median: what a noisy machine raises."""
        first, third = self.quartiles
        return (third - first) / self.median


def ratio(of: Times, to: Times) -> float:
    """How many times as long one takes as another: the median of the ratios within the rounds that both were in.

    Examples
    --------
    >>> from npselect.bench import Times, ratio
    >>> ratio(Times({0: 2.0, 1: 20.0, 2: 3.0}), Times({0: 1.0, 1: 10.0, 2: 1.0}))  # the machine was busy in round 1
    2.0
    """
    return statistics.median(of.seconds[turn] / to.seconds[turn] for turn in of.seconds.keys() & to.seconds.keys())


def turns(
    functions: Mapping[str, Timed],
    rounds: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[dict[str, Times]]:
    """Time functions in turns; the same dictionary comes after every round, with one turn more.

    A turn is one call that does not count, which finds the caches as they were left by another, and then as many as
    fill the given time, at least one. Every other round runs in the opposite order. Garbage is not collected meanwhile.

    Parameters
    ----------
    functions : mapping of str to callable
        By name.
    rounds : int
        How many turns each has. What takes longer than half a second has at most three.
    seconds : float
        How long a turn is to take at the least.
    clock : callable
        Gives seconds.

    Yields
    ------
    dict of str to Times
        By name.
    """
    timers = {name: timeit.Timer(function, timer=clock) for name, function in functions.items()}
    once = {name: timer.timeit(1) for name, timer in timers.items()}
    times = {name: Times() for name in functions}
    for turn in range(rounds):
        for name in list(timers) if turn % 2 == 0 else reversed(timers):
            if once[name] > _LONG and turn >= _FEW:
                continue
            if once[name] <= _LONG:
                once[name] = min(once[name], timers[name].timeit(1))
            number = max(1, round(seconds / max(once[name], 1e-9)))
            times[name].seconds[turn] = timers[name].timeit(number) / number
        yield times
