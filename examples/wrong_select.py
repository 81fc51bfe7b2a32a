"""The same with a mistake
=======================

The same as numpy_select.py, with a mistake that is easily made: the backward pass forgets 1 / temp.

See it found with ``npselect check examples/wrong_select.py``.
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
    return probs * (grad_mask - np.sum(probs * grad_mask, axis=-1, keepdims=True))
