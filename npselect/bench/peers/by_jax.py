"""JAX: the textbook and `stop_gradient`, and what `jax.vjp` makes of it, each call one function under `jax.jit`.

A call ends when its results are ready. "backward" recomputes the probabilities, within the same compiled function.
float64 runs under ``jax.enable_x64``, which costs a microsecond or so a call.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import numpy as np

from npselect.bench.peer import Calls, needed
from npselect.bench.problem import Problem
from npselect.bench.threads import configure
from npselect.testing.aliases import Dtype, Tensor

__all__ = ["calls"]


def calls(problem: Problem) -> Calls:
    """What it does with a problem."""
    jax = needed("jax")
    configure(jax)
    jnp = jax.numpy
    temp, dtype = problem.temp, problem.form

    def precision() -> AbstractContextManager[object]:
        if dtype != np.float64:
            return nullcontext()
        home = jax if hasattr(jax, "enable_x64") else needed("jax.experimental")
        context: AbstractContextManager[object] = home.enable_x64(True)
        return context

    def select(logits: Tensor) -> Tensor:
        probs = jax.nn.softmax(logits / temp)
        mask = jax.nn.one_hot(logits.argmax(-1), logits.shape[-1], dtype=dtype)
        return probs + jax.lax.stop_gradient(mask - probs)

    draw = _draw(problem.shape, dtype)

    def choose(x: Tensor, logits: Tensor) -> Tensor:
        return jnp.matmul(select(logits)[..., None, :], x)[..., 0, :]

    def ready(function: Callable[..., Tensor], *arguments: Tensor) -> Callable[[], Tensor]:
        compiled = jax.jit(function)
        if dtype != np.float64:
            return lambda: jax.block_until_ready(compiled(*arguments))

        def call() -> Tensor:
            with precision():
                return jax.block_until_ready(compiled(*arguments))

        return call

    with precision():
        key = jax.random.key(problem.seed)
        if problem.operator == "noise":
            return Calls(lambda _: ready(draw, key))
        noise = None
        function: Callable[..., Tensor]
        if problem.operator == "selection":
            function, given, cotangent = choose, [problem.x, problem.logits], jnp.array(problem.grad_chosen)
            extra: list[Tensor] = []
        elif not problem.draws:
            function, given, cotangent, extra = select, [problem.logits], jnp.array(problem.grad_mask), []
        else:
            drawn = ready(draw, key)

            def function(logits: Tensor, key: Tensor) -> Tensor:
                return select(logits + draw(key))

            def noise() -> Tensor:
                return np.asarray(drawn())

            given, cotangent, extra = [problem.logits], jnp.array(problem.grad_mask), [key]
        arrays = [jnp.array(one) for one in given]
    count = len(arrays)

    def both(cotangent: Tensor, *arguments: Tensor) -> Tensor:
        result, pullback = jax.vjp(lambda *leaves: function(*leaves, *arguments[count:]), *arguments[:count])
        return (result, *pullback(cotangent))

    def backward(cotangent: Tensor, *arguments: Tensor) -> Tensor:
        grads = both(cotangent, *arguments)[1:]
        return grads if count > 1 else grads[0]

    def prepare(call: str) -> Callable[[], Tensor]:
        if call == "forward":
            return ready(function, *arrays, *extra)
        return ready(backward if call == "backward" else both, cotangent, *arrays, *extra)

    return Calls(prepare, np.asarray, noise=noise, flushes_subnormals=True)


@lru_cache(maxsize=16)
def _draw(shape: tuple[int, ...], dtype: Dtype) -> Callable[[Tensor], Tensor]:
    """One function for all seeds: `jax.jit` compiles anew for each function object, and this takes it seconds."""
    jax = needed("jax")

    def draw(key: Tensor) -> Tensor:
        return jax.random.gumbel(key, shape, dtype)

    return draw
