"""Straight-through selection in PyTorch
=====================================

Straight-through selection in PyTorch, by the `detach` idiom and as a `Function` with a backward pass of its own.

Check them with ``npselect check examples/torch_select.py:detach`` and ``examples/torch_select.py:function``; the latter
passes ``--profile strict`` too. With ``noise=`` both are straight-through Gumbel-softmax; `gumbel_noise` draws it.
"""

import torch

from npselect.testing import from_torch


def detach_select(logits, temp=0.6, *, axis=-1, where=None, noise=None):
    """The value is the mask, exactly; the gradient is that of ``probs = softmax((logits + noise) / temp)``."""
    w, top, index, excluded = candidates(logits, temp, axis, where, noise)
    probs = torch.softmax((w - top) / temp, axis)
    mask = torch.zeros_like(w).scatter(axis, index, 1.0)
    return (probs + (mask - probs).detach()).masked_fill(excluded, 0.0).to(logits.dtype)


def function_select(logits, temp=0.6, *, axis=-1, where=None, noise=None):
    """The same, its gradient written out."""
    w, top, index, excluded = candidates(logits, temp, axis, where, noise)
    return Select.apply(w, top, index, excluded, temp, axis).to(logits.dtype)


class Select(torch.autograd.Function):
    """The one-hot of `index`, differentiated as if it were the softmax."""

    @staticmethod
    def forward(ctx, w, top, index, excluded, temp, axis):
        """``mask = one_hot(argmax(w))``."""
        probs = torch.softmax((w - top) / temp, axis).masked_fill(excluded, 0.0)
        ctx.save_for_backward(probs, index, excluded)
        ctx.temp, ctx.axis = temp, axis
        mask = torch.zeros_like(w).scatter(axis, index, 1.0)
        return torch.where(probs.isnan(), probs, mask).masked_fill(excluded, 0.0)

    @staticmethod
    def backward(ctx, grad_mask):
        """``probs * (h - sum(probs * h)) / temp``; measured from the selected entry, h keeps its digits."""
        probs, index, excluded = ctx.saved_tensors
        h = (grad_mask - grad_mask.gather(ctx.axis, index)).masked_fill(excluded, 0.0)
        grad_w = probs * (h - (probs * h).sum(ctx.axis, keepdim=True)) / ctx.temp
        return grad_w, None, None, None, None, None


def candidates(logits, temp, axis, where, noise):
    """What is compared, in 32 bits or more; its maximum, the first place of that; and what cannot be selected."""
    if not (0 < temp < torch.inf and logits.shape[axis]):
        raise ValueError(f"temp is {temp}, of {logits.shape[axis]} candidates; both must be positive, and temp finite")
    w = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if noise is not None:
        w = w + noise.to(w.dtype)
    if where is not None:
        w = w.masked_fill(~where, -torch.inf)
    top, index = w.detach().max(axis, keepdim=True)
    excluded = (w == -torch.inf) & torch.isfinite(top)  # a row of nothing but -inf is a row of NaN,
    return w, top, index, excluded if where is None else excluded | ~where  # of nothing but where=False one of 0


def gumbel_noise(logits, generator=None):
    """Independent standard Gumbel noise in the shape of `logits`."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    return -torch.empty_like(logits, dtype=wide).exponential_(generator=generator).log()


detach = from_torch(detach_select)
function = from_torch(function_select)
