"""The harness's times: turns, medians and ratios by a fake clock, and how durations are written."""

from __future__ import annotations

import pytest

from npselect import bench
from npselect.bench.report import duration


class Clock:
    """Time passes when something is done."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def takes(self, *seconds):
        """A function that takes that long, call after call, and the last of them ever after."""
        left = list(seconds)

        def function():
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return function


def last(*arguments, **options):
    *_, times = bench.turns(*arguments, **options)
    return times


def test_the_first_call_of_a_turn_does_not_count():
    clock = Clock()
    fast = clock.takes(0.01, *[0.01, 0.001] * 3)  # what others have left in the caches makes it ten times as slow
    assert last({"fast": fast}, 3, 0.01, clock)["fast"].seconds == pytest.approx({0: 0.001, 1: 0.001, 2: 0.001})


def test_a_turn_has_as_many_calls_as_fill_its_time():
    clock = Clock()
    times = last({"fast": clock.takes(0.001)}, 3, 0.01, clock)
    assert times["fast"].median == pytest.approx(0.001)
    assert clock.now == pytest.approx(0.001 * (1 + 3 * (1 + 10)))


def test_turns_are_interleaved_and_every_other_round_is_reversed():
    clock, order = Clock(), []

    def noting(name):
        def function():
            order.append(name)
            clock.now += 1e-3

        return function

    last({"a": noting("a"), "b": noting("b")}, 4, 1e-3, clock)
    assert "".join(order) == "ab" + "aabb" + "bbaa" + "aabb" + "bbaa"


def test_what_is_slow_has_three_turns_and_no_call_that_does_not_count():
    clock = Clock()
    times = last({"slow": clock.takes(2.0), "fast": clock.takes(0.1)}, 7, 0.05, clock)
    assert len(times["slow"].seconds) == 3
    assert len(times["fast"].seconds) == 7
    assert clock.now == pytest.approx(2.0 + 0.1 + 3 * 2.0 + 7 * 2 * 0.1)


def test_median_quartiles_and_spread():
    times = bench.Times(dict(enumerate([5.0, 1.0, 2.0, 4.0, 3.0])))
    assert (times.median, times.quartiles, times.spread) == (3.0, (2.0, 4.0), pytest.approx(2 / 3))
    one = bench.Times({0: 2.0})
    assert (one.median, one.quartiles, one.spread) == (2.0, (2.0, 2.0), 0.0)
    noisy = bench.Times(dict(enumerate([1.0, 1.0, 1.0, 50.0, 60.0])))
    assert noisy.median == 1.0
    assert noisy.spread == 49.0


def test_a_ratio_is_taken_within_rounds():
    busy = {0: 1.0, 1: 10.0, 2: 1.0, 3: 10.0, 4: 10.0}  # how slow the machine was
    a = bench.Times({turn: 2 * slow for turn, slow in busy.items()})
    b = bench.Times({turn: busy[turn] for turn in (0, 2, 3)})
    assert bench.ratio(a, b) == 2.0
    assert a.median / b.median == 20.0  # which is what comparing the medians would say


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (2.5, "2.5 s"),
        (0.0123456, "12.3 ms"),
        (1.5e-6, "1.5 us"),
        (0.9996, "1 s"),
        (0.9994, "999 ms"),
        (3e-9, "3 ns"),
        (1234.0, "1234 s"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
