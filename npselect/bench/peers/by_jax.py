"""JAX: the textbook and `stop_gradient`, and what `jax.vjp` makes of it, each call one function under `jax.jit`.

A call ends when its results are ready. "backward" recomputes the probabilities, within the same compiled function.
float64 runs under ``jax.enable_x64``, which costs a microsecond or so a call.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import numpy as np

from npselect.bench.peer import Calls, needed
from npselect.bench.problem import Problem
from npselect.bench.threads import configure

__all__ = ["calls"]


def calls(problem: Problem) -> Calls:
    """What it does with a problem."""
    jax = needed("jax")
    configure(jax)
    jnp = jax.numpy
    temp, dtype = problem.temp, problem.form

    def precision() -> AbstractContextManager[Any]:
        if dtype != np.float64:
            return nullcontext()
        home = jax if hasattr(jax, "enable_x64") else needed("jax.experimental")
        context: AbstractContextManager[Any] = home.enable_x64(True)
        return context

    def select(logits: Any) -> Any:
        probs = jax.nn.softmax(logits / temp)
        mask = jax.nn.one_hot(logits.argmax(-1), logits.shape[-1], dtype=dtype)
        return probs + jax.lax.stop_gradient(mask - probs)

    draw = _draw(problem.shape, dtype)

    def choose(x: Any, logits: Any) -> Any:
        return jnp.matmul(select(logits)[..., None, :], x)[..., 0, :]

    def ready(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
        compiled = jax.jit(function)
        if dtype != np.float64:
            return lambda: jax.block_until_ready(compiled(*arguments))

        def call() -> Any:
            with precision():
                return jax.block_until_ready(compiled(*arguments))

        return call

    with precision():
        key = jax.random.key(problem.seed)
        if problem.operator == "noise":
            return Calls(lambda _: ready(draw, key))
        noise = None
        function: Callable[..., Any]
        if problem.operator == "selection":
            function, given, cotangent = choose, [problem.x, problem.logits], jnp.array(problem.grad_chosen)
            extra: list[Any] = []
        elif not problem.draws:
            function, given, cotangent, extra = select, [problem.logits], jnp.array(problem.grad_mask), []
        else:
            drawn = ready(draw, key)

            def function(logits: Any, key: Any) -> Any:
                return select(logits + draw(key))

            def noise() -> Any:
                return np.asarray(drawn())

            given, cotangent, extra = [problem.logits], jnp.array(problem.grad_mask), [key]
        arrays = [jnp.array(one) for one in given]
    count = len(arrays)

    def both(cotangent: Any, *arguments: Any) -> Any:
        result, pullback = jax.vjp(lambda *leaves: function(*leaves, *arguments[count:]), *arguments[:count])
        return (result, *pullback(cotangent))

    def backward(cotangent: Any, *arguments: Any) -> Any:
        grads = both(cotangent, *arguments)[1:]
        return grads if count > 1 else grads[0]

    def prepare(call: str) -> Callable[[], Any]:
        if call == "forward":
            return ready(function, *arrays, *extra)
        return ready(backward if call == "backward" else both, cotangent, *arrays, *extra)

    return Calls(prepare, np.asarray, noise=noise, flushes_subnormals=True)


@lru_cache(maxsize=16)
def _draw(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Callable[[Any], Any]:
    """One function for all seeds: `jax.jit` compiles anew for each function object, and this takes it seconds."""
    jax = needed("jax")

    def draw(key: Any) -> Any:
        return jax.random.gumbel(key, shape, dtype)

    return draw
