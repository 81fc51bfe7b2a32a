"""The textbook in NumPy, its softmax written out or SciPy's. 16-bit numbers are computed in 32 bits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from npselect.bench.peer import Calls, needed
from npselect.bench.peers.by_npselect import two_functions
from npselect.bench.problem import Problem
from npselect.testing.aliases import Array
from npselect.testing.textbook import SURROGATE, softmax

__all__ = ["calls", "scipy_calls"]


def scipy_calls(problem: Problem) -> Calls:
    """With `scipy.special.softmax`."""
    scipy_softmax = needed("scipy.special").softmax
    return calls(problem, lambda t: scipy_softmax(t, axis=-1))


def calls(problem: Problem, softmax: Callable[[Array], Array] = softmax) -> Calls:
    """What it does with a problem."""
    wide = problem.wide
    temp = wide.type(problem.temp)
    rng = np.random.Generator(np.random.Philox(problem.seed))
    start = rng.bit_generator.state

    def restart() -> None:
        rng.bit_generator.state = start

    def drawn(shape: tuple[int, ...]) -> Array:
        """-log of an exponential, which is 0 now and then."""
        exponential = rng.standard_exponential(shape, wide.type)
        return np.asarray(-np.log(np.maximum(exponential, np.finfo(wide).tiny)))

    def noise() -> Array:
        restart()
        return drawn(problem.noise_shape)

    if problem.operator == "noise":
        return Calls(lambda _: lambda: drawn(problem.shape).astype(problem.form, copy=False), restart=restart)
    logits = problem.logits.astype(wide, copy=False)
    textbook = SURROGATE if problem.family is None else problem.family.textbook

    def mask(**given: Array) -> Array:
        return np.asarray(textbook.forward(logits, temp, **given).astype(problem.form, copy=False))

    def gradient(g: Array, **given: Array) -> Array:
        g = g.astype(wide, copy=False)
        grad = textbook.backward(g, logits, temp, softmax=softmax, **given)
        return np.asarray(grad.astype(problem.form, copy=False))

    if problem.draws:
        kept = noise()

        def both() -> tuple[Array, Array]:
            given = problem.given(drawn(problem.noise_shape))
            return mask(**given), gradient(problem.grad_mask, **given)

        functions = {
            "forward": lambda: mask(**problem.given(drawn(problem.shape))),
            "backward": lambda: gradient(problem.grad_mask, **problem.given(kept)),
            "forward+backward": both,
        }
        return Calls(functions.__getitem__, noise=noise, restart=restart)
    if problem.operator != "selection":
        return two_functions(mask, lambda: gradient(problem.grad_mask))

    x, grad_chosen = problem.x, problem.grad_chosen

    def chosen() -> Array:
        index = np.argmax(logits, axis=-1)[:, None, None]
        return np.asarray(np.take_along_axis(x, index, axis=1)[:, 0])

    def gradients() -> tuple[Array, Array]:
        grad_x = np.zeros_like(x)
        index = np.argmax(logits, axis=-1)[:, None, None]
        np.put_along_axis(grad_x, index, grad_chosen[:, None], axis=1)
        g = np.matmul(x.astype(wide, copy=False), grad_chosen.astype(wide, copy=False)[..., None])[..., 0]
        return grad_x, gradient(g)

    return two_functions(chosen, gradients)
