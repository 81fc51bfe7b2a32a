"""The benchmark harness: peers that are judged before they are timed, in turns, beside a copy of as many bytes.

Examples
--------
>>> from npselect import bench
>>> effort = bench.Effort(rounds=2, seconds=1e-4)
>>> report = bench.run(operators=["straight_through"], shapes=[(32, 10)], peers=["npselect", "numpy"], effort=effort)
>>> report.ok
True
"""

from npselect.bench.copying import COPIES, copies
from npselect.bench.harness import Effort, compare, problems, run
from npselect.bench.interleave import Times, ratio, turns
from npselect.bench.judging import fault, own_fault, prepared
from npselect.bench.peer import Calls, LeftOutError, Peer
from npselect.bench.peers import PEERS, own_peer
from npselect.bench.picture import draw
from npselect.bench.problem import CALLS, OPERATORS, QUICK_SHAPES, SHAPES, WIDTH, Problem
from npselect.bench.report import BenchReport, Timing
from npselect.bench.threads import thread_count, threads_are

__all__ = [
    "CALLS",
    "COPIES",
    "OPERATORS",
    "PEERS",
    "QUICK_SHAPES",
    "SHAPES",
    "WIDTH",
    "BenchReport",
    "Calls",
    "Effort",
    "LeftOutError",
    "Peer",
    "Problem",
    "Times",
    "Timing",
    "compare",
    "copies",
    "draw",
    "fault",
    "own_fault",
    "own_peer",
    "prepared",
    "problems",
    "ratio",
    "run",
    "thread_count",
    "threads_are",
    "turns",
]
