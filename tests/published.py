"""Published estimators in NumPy, formulas only, over rows with a given sample: as they are, with what is wrong there.

The gradients are what autodiff makes of the published forward passes, term by term.
"""

from __future__ import annotations

import numpy as np
from honest import softmax, total


def product(x, g):
    """``J(x) g``."""
    return x * (g - total(x * g))


def mask_of(index, like):
    return (np.arange(like.shape[-1]) == index[..., None]).astype(like.dtype)


# ------------------------------------------------------------------------------------------------ straight-through


def of_distributions(grad_mask, logits, temp, *, index):
    """``sample + probs - probs.detach()``, of torch's, distrax' and tfp's distributions, and Dreamer's."""
    return product(softmax(logits, 1.0), grad_mask)


def of_reinmax_and_gst(grad_mask, logits, temp, *, index):
    """The mode `st` of both: a sample of ``softmax(logits)``, the gradient of ``softmax(logits / temp)``."""
    return product(softmax(logits, temp), grad_mask) / logits.dtype.type(temp)


def mask_of_vector_quantize(logits, temp, *, index=None, noise=None):
    """``argmax(logits / temp + noise)``, of `gumbel_sample`; its gradient is that of `of_reinmax_and_gst`."""
    return mask_of(np.argmax(logits / logits.dtype.type(temp) + noise, -1) if index is None else index, logits)


def dreamer(grad_mask, logits, temp, *, index, unimix=0.0):
    """``m = (1 - e) p + e / K``, its logarithm as logits, their softmax as probabilities."""
    p = softmax(logits, 1.0)
    if not unimix:
        return product(p, grad_mask)
    m = logits.dtype.type(1 - unimix) * p + logits.dtype.type(unimix / logits.shape[-1])
    with np.errstate(divide="ignore"):
        arrived = product(softmax(np.log(m), 1.0), grad_mask) / m
    return product(p, logits.dtype.type(1 - unimix) * arrived)


# ------------------------------------------------------------------------------------------------ of second order


def reinmax(grad_mask, logits, temp, *, index):
    """``2 J(pi_1) g - J(p) g / 2`` through ``softmax(log(pi_1) - logits + logits)``, of which one has no gradient."""
    two = logits.dtype.type(2)
    with np.errstate(divide="ignore"):
        log = np.log((softmax(logits, temp) + mask_of(index, logits)) / two)
    return (
        product(softmax((log - logits) + logits, 1.0), two * grad_mask) - product(softmax(logits, 1.0), grad_mask) / two
    )


# ------------------------------------------------------------------------------------------------ gapped


def gst(grad_mask, logits, temp, *, index, gap=1.0):
    """As `gst_mover` has it: whatever is no float is the adaptive gap, of a clipped probability; and the row's mean."""
    form = logits.dtype.type
    drawn, top = mask_of(index, logits) == 1, np.max(logits, axis=-1, keepdims=True)
    if type(gap) is not float:
        p = total(np.where(drawn, softmax(logits, 1.0), form(0))) * form(1 - 1e-5)
        gap = -np.log(form(1) - p) / p
    up = top - total(np.where(drawn, logits, form(0)))
    down = np.where(drawn, form(0), np.maximum(logits + (np.asarray(gap, logits.dtype) - top), form(0)))
    moved = logits + (np.where(drawn, up, form(0)) - down)
    count = form(logits.shape[-1])
    gradient = product(softmax(moved - total(moved) / count, temp), grad_mask) / form(temp)
    return gradient - total(gradient) / count
