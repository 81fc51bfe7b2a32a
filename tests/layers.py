"""An honest selection layer, as a textbook has it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from honest import hard, soft_gradient


def chosen_from(logits, where, noise):
    w = logits if noise is None else logits + noise
    return w if where is None else np.where(where, w, w.dtype.type(-np.inf))


def wide(array):
    return array.astype(np.float32) if array.dtype.itemsize == 2 else array


def forward(x, logits, temp, *, where=None, noise=None):
    w = chosen_from(logits, where, noise)
    if len(w) == 0:
        return np.zeros((0, x.shape[-1]), x.dtype)
    index = np.argmax(w, axis=-1)
    return x[index] if x.ndim == 2 else x[np.arange(len(w)), index]


def products(grad_chosen, x):
    return np.einsum("bd,...kd->bk" if x.ndim == 2 else "bd,bkd->bk", wide(grad_chosen), wide(x)).astype(x.dtype)


def to_x(grad_chosen, x, weights):
    shares = wide(weights)[:, :, None] * wide(grad_chosen)[:, None]
    return (shares if x.ndim == 3 else np.sum(shares, axis=0)).astype(x.dtype)


def backward(grad_chosen, x, logits, temp, *, where=None, noise=None):
    w = chosen_from(logits, where, noise)
    if len(w) == 0:
        return np.zeros_like(x), np.zeros_like(logits)
    return to_x(grad_chosen, x, hard(w, temp)), soft_gradient(products(grad_chosen, x), w, temp)


def layer(**changes):
    return SimpleNamespace(**({"forward": forward, "backward": backward, "x_axes": (2, 3)} | changes))
