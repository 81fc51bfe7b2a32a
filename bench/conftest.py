"""What the benchmarks share: which problems and peers there are, and one benchmark of one peer.

Peers, shapes, the judgement of results, bytes and the copy are those of `npselect.bench`; pytest-benchmark takes the
times. With ``--benchmark-disable``, one small batch of one operator a file, in one dtype, does: tests/bench asks all
peers in another. Peers that compile for long are left out.
"""

import math
from collections import deque
from functools import lru_cache

import pytest

from npselect.bench import (
    CALLS,
    PEERS,
    LeftOutError,
    Problem,
    copies,
    prepared,
    problems,
    thread_count,
    threads_are,
    turns,
)

collect_ignore = ["gpu.py", "gpu"]  # the command for a GPU is no benchmark of pytest
BATCHES = [(1048576, 8), (131072, 64), (8192, 1024), (256, 32768)]
QUICK_BATCH = (256, 64)
DTYPES = ("float32", "float64", "float16", "bfloat16")


def pytest_configure(config):
    config.threads = threads_are(thread_count())
    config.threads.__enter__()


def pytest_unconfigure(config):
    config.threads.__exit__(None, None, None)


def pytest_report_header(config):
    return f"threads: {thread_count()} for every peer"


def pytest_generate_tests(metafunc):
    """``@pytest.mark.operator(name, shapes=None, dtypes=...)`` asks for all calls of all peers."""
    marks = list(metafunc.definition.iter_markers("operator"))
    if not marks:
        return
    quick = metafunc.config.getoption("benchmark_disable", False)
    asked = []
    for mark in marks[-1:] if quick else marks:
        (operator,) = mark.args
        shapes = mark.kwargs.get("shapes", BATCHES)
        dtypes = mark.kwargs.get("dtypes", DTYPES)
        if quick:
            shapes, dtypes = [min(shapes[-1], QUICK_BATCH, key=math.prod)], dtypes[:1]
        for problem in problems(operator, dtypes, shapes):
            peers = [peer for peer in PEERS if operator in peer.operators and (peer.quick or not quick)]
            asked += [(problem, call, peer) for call in CALLS if call in problem.calls for peer in peers]
    names = [f"{p.operator}-{p.dtype}-{p.rows}x{p.choices}-{call}-{peer}" for p, call, peer in asked]
    metafunc.parametrize(("problem", "call", "peer"), asked, ids=names)


@lru_cache(maxsize=1)
def kept(problem):
    """The same problem with arrays, which are given back when the next one comes."""
    return Problem(problem.operator, *problem.shape, problem.dtype, problem.temp, problem.seed)


@lru_cache
def copy_seconds(moved):
    """Of the faster copy of as many bytes, in this run."""
    with copies(moved) as functions:
        (times,) = deque(turns(functions, rounds=7, seconds=0.02), maxlen=1)
    return min(one.median for one in times.values())


@pytest.fixture
def measure(benchmark):
    """``measure(problem, call, peer)``: judge, then time, then say how far from a copy that is."""

    def one(problem, call, peer):
        problem = kept(problem)
        try:
            function, wrong = prepared(problem, peer, peer.calls(problem), call)
        except LeftOutError as why:
            pytest.skip(f"{peer}: {why}")
        assert wrong is None, f"{peer}: {wrong}"
        moved = problem.bytes(call)
        benchmark.group = f"{problem.operator}, {problem.dtype}, {problem.rows} x {problem.choices}, {call}"
        benchmark(function)
        if benchmark.stats is not None:
            median = benchmark.stats.stats.median
            benchmark.extra_info |= {"gb_per_s": moved / median / 1e9, "of_copy": copy_seconds(moved) / median}
            benchmark.extra_info["threads"] = thread_count()

    return one
