"""npselect itself: results that it allocates, or that go where the caller says; and the oracle."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from npselect import noise, selection
from npselect.bench.peer import Calls, LeftOutError
from npselect.bench.problem import SAMPLES, Problem
from npselect.testing.aliases import Options, Tensor, Timed
from npselect.testing.implementation import for_forward

__all__ = ["calls", "two_functions"]

_ORACLES = 1 << 20


def calls(problem: Problem, *, out: bool = False, backend: str | None = None, given: bool = False) -> Calls:
    """What it does with a problem.

    Parameters
    ----------
    problem : Problem
        The problem.
    out : bool
        Whether results go to arrays that are there before.
    backend : str or None
        The tier.
    given : bool
        Whether noise is given as an array, drawn before the time is taken.
    """
    if backend == "reference" and problem.size > _ORACLES:
        raise LeftOutError(f"is an oracle, and not asked about more than {_ORACLES} elements")
    result = partial(np.empty, dtype=problem.form)
    places = SimpleNamespace(forward=result(problem.shape), backward=result(problem.shape)) if out else None
    if problem.operator == "noise":
        draw = partial(noise.gumbel, problem.shape, problem.seed, dtype=problem.form, backend=backend)
        return Calls(lambda _: partial(draw, out=places.forward if places else None))
    if problem.operator == "selection":
        assert places is None, "selection takes no out"
        selected = (problem.x, problem.logits, problem.temp)
        return two_functions(
            partial(selection.forward, *selected, backend=backend),
            partial(selection.backward, problem.grad_chosen, *selected, backend=backend),
        )
    assert problem.family is not None
    operator = problem.family.module
    drawn: Timed | None = None
    of_forward: Options = {}
    of_backward: Options = {}
    if problem.draws and given:
        drawn = partial(getattr, problem, "noise")
        of_backward = problem.given(problem.noise) if problem.averages else {"noise": problem.noise}
        of_forward = for_forward(operator.forward, of_backward)
    elif problem.draws:
        drawn = partial(noise.gumbel, problem.noise_shape, problem.seed, dtype=problem.wide)
        of_forward = of_backward = {"seed": problem.seed}
        if problem.averages:
            of_backward = {**of_forward, "samples": SAMPLES}
    if places:
        of_forward, of_backward = {**of_forward, "out": places.forward}, {**of_backward, "out": places.backward}
    arguments = (problem.logits, problem.temp)
    return two_functions(
        partial(operator.forward, *arguments, backend=backend, **of_forward),
        partial(operator.backward, problem.grad_mask, *arguments, backend=backend, **of_backward),
        noise=drawn,
    )


def two_functions(forward: Timed, backward: Timed, **others: Any) -> Calls:
    """The calls of an implementation whose backward pass stands alone."""

    def both() -> tuple[Tensor, ...]:
        first, second = forward(), backward()
        return (first, *second) if isinstance(second, tuple) else (first, second)

    return Calls({"forward": forward, "backward": backward, "forward+backward": both}.__getitem__, **others)
