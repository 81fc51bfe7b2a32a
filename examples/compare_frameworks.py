"""Where frameworks differ
=======================

What npselect, PyTorch, JAX and TensorFlow answer to the same inputs, as a Markdown table.

The frameworks compute the textbook: ``probs = softmax(logits / temp)``, the one-hot of the argmax of `probs`, and the
straight-through idiom ``probs + stop_gradient(mask - probs)``; what `where` excludes is -inf. Of PyTorch, the row that
names `F.gumbel_softmax` is that, with ``hard=True``; the others add the noise and go on as before.

Where TensorFlow's softmax leaves NaN in one place and 0 in the others, that is oneDNN, which it uses on processors that
it deems fit; with ``TF_ENABLE_ONEDNN_OPTS=0`` the whole row is NaN.

Run ``python examples/compare_frameworks.py``; it needs ml_dtypes. The column of a missing framework says so.
"""

from types import SimpleNamespace

import ml_dtypes
import numpy as np

from npselect import gumbel_softmax, straight_through
from npselect.testing import from_jax, from_tensorflow, from_torch

INF, NAN = float("inf"), float("nan")
HALF, BRAIN, SINGLE = np.float16, ml_dtypes.bfloat16, np.float32
QUESTIONS = [  # text, dtype, logits, temp, options; with a grad_mask, the gradient is asked for
    ("equal logits", SINGLE, [1, 3, 3], 0.6, {}),
    ("-0 before +0", SINGLE, [-0.0, 0.0, -1], 0.6, {}),
    ("neighbouring numbers at temp 16, bfloat16", BRAIN, [1, 1 + 2**-7, -1], 16.0, {}),
    ("the same, float16", HALF, [1, 1 + 2**-10, -1], 16.0, {}),
    ("the same, float32", SINGLE, [1, 1 + 2**-23, -1], 16.0, {}),
    ("logits of 1e30, temp 1e-30", SINGLE, [1e30, 0, -1e30], 1e-30, {}),
    ("temp 0", SINGLE, [1, 3, 2], 0.0, {}),
    ("temp 0, with noise (`F.gumbel_softmax`)", SINGLE, [1, 3, 2], 0.0, {"noise": [0.3, -0.1, 0.8]}),
    ("temp -1", SINGLE, [1, 3, 2], -1.0, {}),
    ("NaN among the candidates", SINGLE, [1, NAN, 2], 0.6, {}),
    ("+inf among the candidates", SINGLE, [1, INF, 2], 0.6, {}),
    ("every candidate is -inf", SINGLE, [-INF, -INF, -INF], 0.6, {}),
    ("every candidate has where=False", SINGLE, [1, 3, 2], 0.6, {"where": [False, False, False]}),
    ("gradient at a -inf logit", SINGLE, [1, -INF, 2], 0.6, {"grad_mask": [1, 2, 0]}),
    ("gradient, where grad_mask is NaN at a -inf logit", SINGLE, [1, -INF, 2], 0.6, {"grad_mask": [1, NAN, 0]}),
    ("gradient where one logit leads by far", SINGLE, [0, 12], 0.6, {"grad_mask": [0, 1]}),
]


def by_npselect():
    """Both operators, the one with noise where there is some."""

    def operator(noise):
        return (straight_through, {}) if noise is None else (gumbel_softmax, {"noise": noise})

    def forward(logits, temp, *, where=None, noise=None):
        module, added = operator(noise)
        return module.forward(logits, temp, where=where, **added)

    def backward(grad_mask, logits, temp, *, where=None, noise=None):
        module, added = operator(noise)
        return module.backward(grad_mask, logits, temp, where=where, **added)

    return SimpleNamespace(forward=forward, backward=backward)


def by_torch():
    """The textbook, and `F.gumbel_softmax`, which draws noise of its own."""

    def select(logits, temp, *, where=None, noise=None):
        import torch
        from torch.nn import functional as F  # noqa: N812

        if noise is not None:
            return F.gumbel_softmax(logits, temp, hard=True)
        if where is not None:
            logits = logits.masked_fill(~where, -INF)
        probs = torch.softmax(logits / temp, -1)
        mask = F.one_hot(probs.argmax(-1), probs.shape[-1]).to(probs.dtype)
        return probs + (mask - probs).detach()

    return from_torch(select)


def by_jax():
    """The textbook."""

    def select(logits, temp, *, where=None, noise=None):
        import jax

        logits = logits if noise is None else logits + noise
        if where is not None:
            logits = jax.numpy.where(where, logits, -INF)
        probs = jax.nn.softmax(logits / temp)
        mask = jax.nn.one_hot(probs.argmax(-1), probs.shape[-1], dtype=probs.dtype)
        return probs + jax.lax.stop_gradient(mask - probs)

    return from_jax(select)


def by_tensorflow():
    """The textbook."""

    def select(logits, temp, *, where=None, noise=None):
        import tensorflow as tf

        logits = logits if noise is None else logits + noise
        if where is not None:
            logits = tf.where(where, logits, -INF)
        probs = tf.nn.softmax(logits / temp)
        mask = tf.one_hot(tf.argmax(probs, -1), probs.shape[-1], dtype=probs.dtype)
        return probs + tf.stop_gradient(mask - probs)

    return from_tensorflow(select)


COLUMNS = {"npselect": by_npselect, "torch": by_torch, "jax": by_jax, "tensorflow": by_tensorflow}


def answer(implementation, dtype, logits, temp, options):
    """One row of a mask or a gradient, in three digits; or the name of the error."""
    given = {"noise": dtype, "where": np.bool_, "grad_mask": dtype}
    arrays = {name: np.array(values, given[name]) for name, values in options.items()}
    cotangent = [arrays.pop("grad_mask")] if "grad_mask" in arrays else []
    function = implementation.backward if cotangent else implementation.forward
    try:
        row = function(*cotangent, np.array(logits, dtype), temp, **arrays)
    except ValueError as error:
        return type(error).__name__
    return "NaN row" if np.isnan(row).all() else "[" + ", ".join(f"{value + 0.0:.3g}" for value in row.tolist()) + "]"


def rows():
    """The table's rows, of a cell for the input and one for each column."""
    table = [[text] for text, *_ in QUESTIONS]
    for make in COLUMNS.values():
        try:
            implementation = make()
        except ModuleNotFoundError:
            implementation = None
        for row, (_, *question) in zip(table, QUESTIONS, strict=True):
            row.append("not installed" if implementation is None else answer(implementation, *question))
    return table


def markdown(table):
    """Lines of a Markdown table."""
    lines = [["input", *COLUMNS], ["---"] * (1 + len(COLUMNS)), *table]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(markdown(rows()))
