"""Straight-through selection in NumPy
===================================

Straight-through selection by hand: choose hard in the forward pass, differentiate soft in the backward pass.

Check it with ``npselect check examples/numpy_select.py``.
"""

import numpy as np


def forward(logits, temp=0.6):
    """The one-hot of the largest logit, of the first one among equals."""
    index = np.argmax(logits, axis=-1, keepdims=True)
    return (np.arange(logits.shape[-1]) == index).astype(logits.dtype)


def backward(grad_mask, logits, temp=0.6):
    """The gradient of ``probs = softmax(logits / temp)``, not that of the mask (which is zero)."""
    exps = np.exp((logits - np.max(logits, axis=-1, keepdims=True)) / temp)
    probs = exps / np.sum(exps, axis=-1, keepdims=True)
    return probs * (grad_mask - np.sum(probs * grad_mask, axis=-1, keepdims=True)) / temp
