"""TensorFlow: the textbook and `tf.stop_gradient`, each call one `tf.function`, its gradient from `tf.GradientTape`.

"backward" recomputes the probabilities, within the same function. Noise is that of a stateless generator.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from npselect.bench.peer import Calls, needed
from npselect.bench.problem import Problem
from npselect.bench.threads import configure
from npselect.testing.aliases import Tensor

__all__ = ["calls"]


def calls(problem: Problem) -> Calls:
    """What it does with a problem."""
    tf = needed("tensorflow")
    configure(tf)
    temp = problem.temp

    def select(logits: Tensor) -> Tensor:
        probs = tf.nn.softmax(logits / temp)
        mask = tf.one_hot(tf.argmax(logits, -1), problem.choices, dtype=logits.dtype)
        return probs + tf.stop_gradient(mask - probs)

    def draw(seed: Tensor) -> Tensor:
        least = float(np.finfo(np.float32).tiny)
        uniform = tf.random.stateless_uniform(problem.shape, seed, minval=least, maxval=1.0, dtype=wide(tf, problem))
        return tf.cast(-tf.math.log(-tf.math.log(uniform)), problem.dtype)

    def choose(x: Tensor, logits: Tensor) -> Tensor:
        return tf.squeeze(tf.matmul(select(logits)[..., None, :], x), -2)

    def sample(logits: Tensor, seed: Tensor) -> Tensor:
        return select(logits + draw(seed))

    def ready(function: Callable[..., Tensor], *arguments: Tensor) -> Callable[[], Tensor]:
        traced = tf.function(function)
        return lambda: traced(*arguments)

    seed = tf.constant([problem.seed, 0])
    if problem.operator == "noise":
        return Calls(lambda _: ready(draw, seed), array)
    noise: Callable[[], Tensor] | None = None
    function: Callable[..., Tensor] = select
    given, cotangent = [problem.logits], problem.grad_mask
    extra: list[Tensor] = []
    if problem.operator == "selection":
        function, given, cotangent = choose, [problem.x, problem.logits], problem.grad_chosen
    elif problem.draws:
        drawn = ready(draw, seed)
        function, noise, extra = sample, lambda: array(drawn()), [seed]
    tensors = [tf.constant(one) for one in given]
    grad = tf.constant(cotangent)

    def both(cotangent: Tensor, *arguments: Tensor) -> Tensor:
        leaves = arguments[: len(tensors)]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(leaves)
            result = function(*arguments)
        return (result, *tape.gradient(result, leaves, cotangent))

    def backward(cotangent: Tensor, *arguments: Tensor) -> Tensor:
        grads = both(cotangent, *arguments)[1:]
        return grads if len(tensors) > 1 else grads[0]

    def prepare(call: str) -> Callable[[], Tensor]:
        if call == "forward":
            return ready(function, *tensors, *extra)
        return ready(backward if call == "backward" else both, grad, *tensors, *extra)

    return Calls(prepare, array, noise=noise, flushes_subnormals=True)


def wide(tf: Tensor, problem: Problem) -> Tensor:
    """What noise is drawn in: 16 bits have too few digits near 1."""
    return tf.float64 if problem.dtype == "float64" else tf.float32


def array(tensor: Tensor) -> Tensor:
    """A NumPy array."""
    return np.asarray(tensor.numpy())
