"""ReinMax in NumPy and PyTorch
============================

ReinMax by hand: a sampled mask forward, a second-order gradient backward (Liu et al. 2023, arXiv:2304.08612).

`forward` and `backward` are NumPy's. In PyTorch, `function_select` has the gradient as a `Function`, measured from the
drawn entry, which keeps its digits on saturated rows; `published_select` leaves it to autograd, as the authors do. All
are given the index, which `sample` draws: `npselect check examples/reinmax_select.py --operator reinmax`.
"""

import numpy as np
import torch

from npselect.testing import from_torch


def forward(logits, temp=1.0, *, index):
    """``mask = one_hot(index)``, an int64 array of the logits' shape without the last axis."""
    mask = np.zeros_like(logits)
    np.put_along_axis(mask, index[..., None], 1, axis=-1)
    return mask


def backward(grad_mask, logits, temp=1.0, *, index):
    """``2 J((q + D) / 2) g - J(p) g / 2``, ``J(x) g = x (g - <x, g>)``; D is the one-hot of `index`."""
    z = logits - np.max(logits, axis=-1, keepdims=True)
    exps_p, exps_q = np.exp(z), np.exp(z / temp)
    p, q = exps_p / exps_p.sum(axis=-1, keepdims=True), exps_q / exps_q.sum(axis=-1, keepdims=True)
    h = grad_mask - np.take_along_axis(grad_mask, index[..., None], axis=-1)  # constants drop out, and h[index] is 0
    a, b = (q * h).sum(axis=-1, keepdims=True), (p * h).sum(axis=-1, keepdims=True)
    one_hot = np.arange(logits.shape[-1]) == index[..., None]
    return np.where(one_hot, p * b - (1 + q) * a, q * (2 * h - a) - p * (h - b)) / 2


class ReinMax(torch.autograd.Function):
    """The one-hot of `index`, an int64 tensor of the logits' shape without the last axis."""

    @staticmethod
    def forward(ctx, logits, index, temp):
        """``mask = one_hot(index)``."""
        ctx.save_for_backward(logits, index)
        ctx.temp = temp
        return torch.zeros_like(logits).scatter(-1, index[..., None], 1.0)

    @staticmethod
    def backward(ctx, grad_mask):
        """As in NumPy."""
        logits, index = ctx.saved_tensors
        z = logits - logits.max(-1, keepdim=True).values
        p, q = torch.softmax(z, -1), torch.softmax(z / ctx.temp, -1)
        h = (grad_mask - grad_mask.gather(-1, index[..., None])).masked_fill(logits == -torch.inf, 0.0)
        a, b = (q * h).sum(-1, keepdim=True), (p * h).sum(-1, keepdim=True)
        one_hot = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, index[..., None], True)
        grad_logits = torch.where(one_hot, p * b - (1 + q) * a, q * (2 * h - a) - p * (h - b)) / 2
        return grad_logits, None, None


def function_select(logits, temp=1.0, *, index):
    """A mask whose gradient is written out."""
    return ReinMax.apply(logits, index, temp)


def published_select(logits, temp=1.0, *, index):
    """The same by autograd. It is NaN where a logit is -inf, and loses its digits where logits are large."""
    mask = torch.zeros_like(logits).scatter(-1, index[..., None], 1.0)
    p, q = torch.softmax(logits, -1), torch.softmax(logits / temp, -1)
    middle = torch.softmax((((q + mask) / 2).log() - logits).detach() + logits, -1)  # value: (q + mask) / 2
    surrogate = 2 * middle - p / 2
    return mask + (surrogate - surrogate.detach())


def sample(logits, generator=None):
    """An index for each row, drawn from ``softmax(logits)``."""
    probs = torch.softmax(logits.detach(), -1)
    return torch.multinomial(probs.reshape(-1, probs.shape[-1]), 1, generator=generator).reshape(probs.shape[:-1])


function = from_torch(function_select)
published = from_torch(published_select)
