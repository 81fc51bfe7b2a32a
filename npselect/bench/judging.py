"""Every result is judged before its time is taken: by `npselect.testing`, its oracle and its bounds.

Rows are independent, so of a large batch some are judged, spread evenly from the first to the last.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from npselect import testing
from npselect.bench.peer import Calls, LeftOutError, Peer
from npselect.bench.problem import WIDTH, Problem, chosen
from npselect.testing import tolerance
from npselect.testing.aliases import Array, SelectionFunctions, Timed
from npselect.testing.families import exact_softmax
from npselect.testing.textbook import one_hot

__all__ = ["fault", "own_fault", "prepared"]

_JUDGED = 1 << 17  # elements


def prepared(problem: Problem, peer: Peer, calls: Calls, call: str) -> tuple[Timed | None, str | None]:
    """The function to be timed; or None, and what is wrong with it.

    Parameters
    ----------
    problem, peer, calls
        What ``peer.calls(problem)`` has made of the problem.
    call : str
        One of `npselect.bench.CALLS`.

    Returns
    -------
    function : callable or None
        Of no arguments. It has been called once, which compiles what is to be compiled.
    wrong : str or None
        One line.
    """
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # what frameworks warn of is no matter of ours
            wrong = _noise_fault(problem, peer) if problem.operator == "noise" else None
            function = calls.prepare(call)
            noise = None if calls.noise is None else calls.noise()
            calls.restart()
            result = function()
            arrays = [calls.array(one) for one in (result if isinstance(result, tuple) else (result,))]
            wrong = wrong or fault(problem, call, arrays, noise, calls.flushes_subnormals, peer.name)
    except LeftOutError:
        raise
    except Exception as error:
        wrong = f"raises {type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    return (function, None) if wrong is None else (None, wrong)


@np.errstate(all="ignore")
def fault(
    problem: Problem,
    call: str,
    results: list[Array],
    noise: Array | None = None,
    flushes_subnormals: bool = False,
    name: str = "peer",
) -> str | None:
    """What is wrong with the results of a call, in one line, or None.

    Parameters
    ----------
    problem : Problem
        The question.
    call : str
        One of `npselect.bench.CALLS`.
    results : list of ndarray
        The answer.
    noise : ndarray or None
        What was added to the logits.
    flushes_subnormals : bool
        As in `npselect.testing.Implementation`.
    name : str
        Of the peer.

    Examples
    --------
    >>> from npselect import straight_through
    >>> from npselect.bench import Problem, fault
    >>> problem = Problem("straight_through", rows=8, choices=3)
    >>> grad_logits = straight_through.backward(problem.grad_mask, problem.logits, problem.temp)
    >>> fault(problem, "backward", [grad_logits])
    >>> fault(problem, "backward", [0.6 * grad_logits]).partition(";")[0]
    'backward: 1/temp is missing'
    """
    expected = _shapes(problem, call)
    if len(results) != len(expected):
        return f"returns {len(results)} arrays; expected {len(expected)}"
    for result, shape in zip(results, expected, strict=True):
        if not isinstance(result, np.ndarray):
            return f"returns a {type(result).__name__}; expected an array"
        if result.shape != shape:
            return f"returns shape {result.shape}; expected {shape}"
        if result.dtype != problem.form:
            return f"returns dtype {result.dtype}; expected {problem.form}"
    rows = _some_rows(problem)
    some = [result[rows] for result in results]
    if problem.operator == "selection":
        return _selection_fault(problem, call, some, rows)
    if problem.operator == "noise":
        whole = results[0].astype(np.float64)
        far = abs(float(whole.mean()) - np.euler_gamma) * (6 * whole.size) ** 0.5 / np.pi
        return f"the mean of the noise is {far:.1f} standard deviations off" if not far < 6 else None
    case = _case(problem, rows, noise)
    mask = some[0] if call != "backward" else case.mask
    grad_logits = some[-1] if call != "forward" else case.grad_logits
    answers = SimpleNamespace(
        __name__=name,
        forward=lambda logits, temp, noise=None, index=None: mask,  # noqa: ARG005
        backward=lambda grad_mask, logits, temp, noise=None, index=None, sample_noise=None: grad_logits,  # noqa: ARG005
        flushes_subnormals=flushes_subnormals,
    )
    operator = case.family.module
    report = testing.check(answers, operator=operator, dtypes=problem.form, temp=problem.temp, cases=[case])
    return None if report.ok else _why(report)


@np.errstate(all="ignore")
def own_fault(implementation: SelectionFunctions, problem: Problem) -> str | None:
    """What `npselect.testing.check` finds wrong with somebody's own implementation on small batches, or None.

    What it finds is more than a wrong result: an argument that is written to, a result that a later call overwrites.
    TypeError if the implementation cannot be called.
    """
    assert problem.family is not None
    operator = problem.family.module
    cases = [
        case
        for case in testing.cases(problem.dtype, problem.temp, operator=operator)
        if case.group in ("digits", "random") and case.logits.size <= _JUDGED
    ]
    report = testing.check(implementation, operator=operator, dtypes=problem.dtype, temp=problem.temp, cases=cases)
    return None if report.ok else _why(report)


def _why(report: testing.Report) -> str:
    first = next((str(outcome.difference) for outcome in report.cases if outcome.difference), report.summary[-1])
    return f"{report.likely_cause}; {first}" if report.likely_cause else first


def _shapes(problem: Problem, call: str) -> list[tuple[int, ...]]:
    """Of the results, in their order."""
    forward: list[tuple[int, ...]]
    backward: list[tuple[int, ...]]
    if problem.operator == "selection":
        forward, backward = [(problem.rows, WIDTH)], [(*problem.shape, WIDTH), problem.shape]
    else:
        forward, backward = [problem.shape], [problem.shape]
    shapes: dict[str, list[tuple[int, ...]]]
    shapes = {"forward": forward, "backward": backward, "forward+backward": forward + backward}
    return shapes[call]


def _some_rows(problem: Problem) -> Array:
    count = min(problem.rows, max(2, _JUDGED // problem.choices))
    return np.unique(np.linspace(0, problem.rows - 1, count).astype(np.int64))


def _case(problem: Problem, rows: Array, noise: Array | None) -> testing.Case:
    """The rows as a question. Noise in the logits' dtype has been added in it; else it is wider, and so is the sum.

    Where the index is what is given, that is what the noise selects.
    """
    name, logits, grad_mask = f"bench/{problem.rows}x{problem.choices}", problem.logits[rows], problem.grad_mask[rows]
    index, operator = None, "" if problem.family is None else problem.family.name
    sample_noise = None
    if noise is not None:
        noise = noise[..., rows, :]
        if problem.averages:
            noise, sample_noise = noise[0], noise[1:]
        if problem.family is not None and "index" in problem.family.given:
            index, noise = chosen(logits, noise), None
        elif noise.dtype == logits.dtype:
            logits, noise, operator = logits + noise, None, ""
    return testing.Case(
        name,
        "",
        logits,
        grad_mask,
        problem.temp,
        noise=noise,
        index=index,
        sample_noise=sample_noise,
        operator=operator,
    )


def _selection_fault(problem: Problem, call: str, results: list[Array], rows: Array) -> str | None:
    """What is selected, and grad_x, must be exact; grad_logits within the bound, and the error of its products."""
    logits, x, grad_chosen = problem.logits[rows], problem.x[rows], problem.grad_chosen[rows]
    index = np.argmax(logits, axis=-1)[:, None, None]
    if call != "backward" and not np.array_equal(results[0], np.take_along_axis(x, index, axis=1)[:, 0]):
        return "forward: another vector than the selected one"
    if call == "forward":
        return None
    grad_x, grad_logits = results[-2:]
    expected = np.zeros_like(x)
    np.put_along_axis(expected, index, grad_chosen[:, None], axis=1)
    if not np.array_equal(grad_x, expected):
        return "backward: grad_x is not grad_chosen at the selected vector and 0 elsewhere"
    products = x.astype(np.float64) * grad_chosen.astype(np.float64)[:, None]
    g, size = products.sum(-1), np.abs(products).sum(-1)
    case = testing.Case("bench/selection", "", logits.astype(np.float64), g, problem.temp)
    exact, p = case.grad_logits, exact_softmax(logits, problem.temp)
    error = 2 * (WIDTH + 1) * tolerance.Format.of(problem.form).unit * size
    allowed = tolerance.backward(g, case.w, problem.temp, problem.form) + tolerance.ulp(exact, problem.form)
    allowed += p / problem.temp * (error + (p * error).sum(-1, keepdims=True))
    if not np.all(tolerance.isclose(grad_logits.astype(np.float64), exact, allowed)):
        return "backward: grad_logits is beyond its bound"
    return None


def _noise_fault(problem: Problem, peer: Peer) -> str | None:
    """Noise is judged by what it samples."""

    def sample(logits: Array, seed: int) -> Array:
        asked = replace(problem, rows=logits.shape[0], choices=logits.shape[1], seed=seed)
        calls = peer.calls(asked)
        function = calls.prepare("forward")
        calls.restart()
        return one_hot(logits + calls.array(function()))

    report = testing.check_sampler(sample, choices=(10,), rows=2048, seeds=4, max_seed=3, dtype=problem.form)
    return None if report.ok else f"as a sampler: {report.summary[-1]}"
