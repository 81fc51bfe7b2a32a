"""The harness: problem after problem, judge every peer, time those that are right in turns, and take notes."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from npselect.bench.copying import COPIES, copies
from npselect.bench.interleave import Times, ratio, turns
from npselect.bench.judging import own_fault, prepared
from npselect.bench.peer import LeftOutError, Peer
from npselect.bench.peers import PEERS, own_peer
from npselect.bench.problem import OPERATORS, QUICK_SHAPES, SHAPES, WIDTH, Problem
from npselect.bench.processor import code_is_for
from npselect.bench.report import BenchReport, Timing
from npselect.bench.threads import thread_count, threads_are
from npselect.testing.aliases import Progress, SelectionFunctions, Timed
from npselect.testing.dtypes import floating_dtype
from npselect.testing.families import FAMILIES

__all__ = ["Effort", "compare", "problems", "run"]

Clock = Callable[[], float]


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes
    ----------
    rounds : int
        Turns of each peer.
    seconds : float
        Of a turn, at the least.
    quick : bool
        Whether small shapes do, and peers that compile for long are left out.
    """

    rounds: int = 7
    seconds: float = 0.05
    quick: bool = False

    @classmethod
    def of(cls, quick: bool) -> Effort:
        """The usual one, or the quick one."""
        return cls(3, 0.002, True) if quick else cls()


def problems(
    operator: str,
    dtypes: Iterable[str] = ("float32",),
    shapes: Iterable[tuple[int, int]] | None = None,
    *,
    temp: float = 0.6,
    quick: bool = False,
) -> list[Problem]:
    """The problems of one operator.

    Parameters
    ----------
    operator : str
        One of `npselect.bench.OPERATORS`.
    dtypes : iterable of str
        By name.
    shapes : iterable of tuple, optional
        Rows and choices; by default `SHAPES` or `QUICK_SHAPES`, for "selection" with as many rows as make `x` that big.
    temp : float
        The temperature.
    quick : bool
        Which of the two.

    Examples
    --------
    >>> from npselect.bench import problems
    >>> [problem.shape for problem in problems("straight_through", quick=True)]
    [(1024, 64), (16, 4096), (32, 10)]
    """
    if operator not in OPERATORS:
        raise ValueError(f"operator is {operator!r}; it takes one of {', '.join(map(repr, OPERATORS))}")
    dtypes = [floating_dtype(dtype).name for dtype in dtypes]
    if operator == "noise" and (short := [dtype for dtype in dtypes if dtype in ("float16", "bfloat16")]):
        raise ValueError(f"noise is drawn in float32 or float64, not in {short[0]}")
    if shapes is None:
        shapes = QUICK_SHAPES if quick else SHAPES
        if operator == "selection":
            shapes = [(max(1, rows // WIDTH), choices) if rows > 32 else (rows, choices) for rows, choices in shapes]
    shapes = list(shapes)
    return [Problem(operator, *shape, dtype, temp) for dtype in dtypes for shape in shapes]


@np.errstate(all="ignore")
def run(
    implementation: SelectionFunctions | None = None,
    *,
    operators: Sequence[str] = OPERATORS[:1],
    dtypes: Sequence[str] = ("float32",),
    shapes: Sequence[tuple[int, int]] | None = None,
    peers: Sequence[str] | None = None,
    temp: float = 0.6,
    cpu: str | None = None,
    effort: Effort | None = None,
    progress: Progress | None = None,
    report: BenchReport | None = None,
) -> BenchReport:
    """Compare all peers, and an implementation of your own.

    Parameters
    ----------
    implementation : object, optional
        One more peer, as `npselect.testing.check` takes it.
    operators : sequence of str
        Some of `npselect.bench.OPERATORS`; with an implementation, neither "selection" nor "noise".
    dtypes : sequence of str
        Of the arrays.
    shapes : sequence of tuple, optional
        Rows and choices.
    peers : sequence of str, optional
        The names of those to compare with; by default all.
    temp : float
        The temperature.
    cpu : str, optional
        Compile npselect's kernels for this processor, by LLVM's name ("haswell", "x86-64-v2"), and restrict the peers
        to its level, as far as they can be: before numba and they are loaded. By default all use all that there is.
    effort : Effort, optional
        How long to measure.
    progress : callable, optional
        Called as ``progress(done, total, text)``.
    report : BenchReport, optional
        What to write to; if this is interrupted, it holds what was measured before.

    Returns
    -------
    BenchReport
        ``str(report)`` shows tables.

    Raises
    ------
    TypeError
        The implementation lacks `forward` or `backward`, or they cannot be called.
    ValueError
        An argument has a value that is not listed, or `temp` is not positive and finite; LLVM knows no such `cpu`, or
        this one cannot run its code.
    RuntimeError
        numba has been loaded already, for another processor than `cpu`.
    ModuleNotFoundError
        bfloat16 was asked for and the package ml_dtypes is missing.

    Examples
    --------
    >>> from npselect import bench
    >>> report = bench.run(peers=["npselect"], shapes=[(8, 3)], effort=bench.Effort(rounds=2, seconds=1e-4))
    >>> [(timing.call, timing.peer, len(timing.seconds)) for timing in report.timings if timing.call == "forward"]
    [('forward', 'copy', 2), ('forward', 'copy, threads', 2), ('forward', 'npselect', 2)]
    """
    effort = effort or Effort()
    report = report or BenchReport()
    if unknown := [name for name in peers or () if name not in {peer.name for peer in PEERS}]:
        raise ValueError(f"there is no peer {unknown[0]!r}; there are {', '.join(peer.name for peer in PEERS)}")
    asked = [
        problem
        for operator in operators
        for problem in problems(operator, dtypes, shapes, temp=temp, quick=effort.quick)
    ]
    if implementation is not None and (odd := [name for name in operators if name not in FAMILIES]):
        raise ValueError(f"an implementation of {odd[0]} is not taken; it takes {' or '.join(FAMILIES)}")
    with threads_are(thread_count()), code_is_for(cpu) as restriction:
        own = _own_peers(implementation, asked)
        report.begin(effort.rounds, effort.seconds, temp, [peer.name for peer in own.values()])
        try:
            _compare_all(asked, own, peers, effort, report, progress)
        finally:
            report.note_versions()
            report.note_processor(restriction)
    return report


def _own_peers(implementation: SelectionFunctions | None, asked: Iterable[Problem]) -> dict[tuple[str, str], Peer]:
    """The user's implementation as a peer, judged, for each operator and dtype."""
    own: dict[tuple[str, str], Peer] = {}
    if implementation is not None:
        for problem in asked:
            if (problem.operator, problem.dtype) not in own:
                wrong = own_fault(implementation, problem)
                own[problem.operator, problem.dtype] = own_peer(implementation, problem.operator, wrong)
    return own


def _compare_all(
    asked: Sequence[Problem],
    own: Mapping[tuple[str, str], Peer],
    names: Sequence[str] | None,
    effort: Effort,
    report: BenchReport,
    progress: Progress | None,
) -> None:
    """Problem after problem, call after call."""
    total, done = sum(len(problem.calls) for problem in asked), 0
    for one in asked:
        problem = replace(one)  # whose arrays go when the next one comes
        mine = own.get((problem.operator, problem.dtype))
        peers = [] if mine is None else [mine]
        peers += [peer for peer in PEERS if names is None or peer.name in names]
        some = [peer for peer in peers if peer.quick or not effort.quick or names is not None]
        report.leave_out(peers, some, "compiles for long; a quick run has it where --peer names it")
        for call in problem.calls:

            def tell(text: str, problem: Problem = problem, call: str = call, done: int = done) -> None:
                if progress is not None:
                    where = f"{problem.operator} {problem.rows}x{problem.choices} {call}"
                    progress(done, total, f"{where}: {text}" if text else where)

            tell("")
            compare(problem, call, some, effort, report, tell)
            done += 1
    if progress is not None:
        progress(total, total, "")


@np.errstate(all="ignore")
def compare(
    problem: Problem,
    call: str,
    peers: Iterable[Peer],
    effort: Effort,
    report: BenchReport,
    tell: Callable[[str], object] = lambda _: None,
    clock: Clock = time.perf_counter,
) -> None:
    """Judge the peers on one call of one problem, time those that are right, and write to the report.

    Parameters
    ----------
    problem : Problem
        The problem.
    call : str
        One of its calls.
    peers : iterable of Peer
        Those that do not implement the operator are passed over.
    effort : Effort
        How long to measure.
    report : BenchReport
        Where timings, faults and those that are left out are noted; after an interrupt, of the rounds that are done.
    tell : callable
        Called as ``tell(text)`` on the way.
    clock : callable
        Gives seconds.
    """
    functions: dict[str, Timed] = {}
    wrongs: dict[str, str] = {}
    for peer in peers:
        if problem.operator not in peer.operators:
            continue
        tell(peer.name)
        function, wrong = None, peer.wrong
        if wrong is None:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # what frameworks warn of is no matter of ours
                    function, wrong = prepared(problem, peer, peer.calls(problem), call)
            except LeftOutError as error:
                report.note(peer.name, str(error))
                continue
        if function is not None:
            functions[peer.name] = function
        else:
            wrongs[peer.name] = str(wrong)
    moved = problem.bytes(call)
    times: dict[str, Times] = {}
    turn = 0
    try:
        with copies(moved) as limits, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for times in turns({**limits, **functions}, effort.rounds, effort.seconds, clock):  # noqa: B007 see finally
                turn += 1
                tell(f"round {turn} of {effort.rounds}")
    finally:
        times = {name: times[name] for name in times if times[name].seconds}
        limit = min((times[name] for name in COPIES if name in times), key=lambda one: one.median, default=None)
        base = times.get("npselect")
        for name, one in times.items():
            of_copy = None if limit is None else ratio(limit, one)
            relative = None if base is None else ratio(one, base)
            report.timings.append(Timing.of(problem, call, name, moved, one, of_copy, relative))
        report.timings += [Timing.wrong_one(problem, call, name, moved, why) for name, why in wrongs.items()]
