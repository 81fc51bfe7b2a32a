"""The other estimators in PyTorch
===============================

The straight-through gradient of a drawn sample, in its dialects, and the gapped one (GST), in PyTorch, as a `Function`.

Check them with ``npselect check examples/torch_estimators.py:categorical --operator categorical``; likewise `gapped`.
Both are given the index, which `sample` draws. ReinMax in PyTorch is in ``examples/reinmax_select.py``.
"""

import torch

from npselect.testing import from_torch


def categorical_select(logits, temp=1.0, *, index, forward_temp=1.0, unimix=0.0):
    """A mask with the gradient of ``(1 - unimix) softmax(logits / (forward_temp temp))``."""
    w = logits.to(torch.promote_types(logits.dtype, torch.float32))
    z = w - w.detach().amax(-1, keepdim=True)
    return Select.apply(w, z, index, forward_temp * temp, 1 - unimix).to(logits.dtype)


def gapped_select(logits, temp=1.0, *, index, gap=1.0):
    """A mask with the gradient of a softmax in which the drawn logit leads by `gap`."""
    w = logits.to(torch.promote_types(logits.dtype, torch.float32))
    z = (w - w.amax(-1, keepdim=True)).detach()
    if gap == "adaptive":
        p = torch.softmax(z, -1).gather(-1, index[..., None])
        gap = -torch.log1p(-p) / p
    moved = torch.minimum(z, -torch.as_tensor(gap, dtype=z.dtype)).scatter(-1, index[..., None], 0.0)
    return Select.apply(w, torch.where(z.isnan(), z, moved), index, temp, 1.0).to(logits.dtype)


class Select(torch.autograd.Function):
    """The one-hot of `index`, differentiated as if it were ``scale softmax(z / temp)``, z moving with the logits."""

    @staticmethod
    def forward(ctx, logits, z, index, temp, scale):
        """``mask = one_hot(index)``, NaN in a row that is spoilt."""
        probs = torch.softmax(z / temp, -1)
        ctx.save_for_backward(z, probs, z.argmax(-1, keepdim=True))
        ctx.temp, ctx.scale = temp, scale
        mask = torch.zeros_like(logits).scatter(-1, index[..., None], 1.0)
        return torch.where(probs.isnan(), probs, mask)

    @staticmethod
    def backward(ctx, grad_mask):
        """``probs * (h - sum(probs * h)) * scale / temp``; measured from the likeliest entry, h keeps its digits."""
        z, probs, top = ctx.saved_tensors
        h = (grad_mask - grad_mask.gather(-1, top)).masked_fill(z == -torch.inf, 0.0)
        grad_logits = probs * (h - (probs * h).sum(-1, keepdim=True)) * ctx.scale / ctx.temp
        return grad_logits, None, None, None, None


def sample(logits, forward_temp=1.0, unimix=0.0, generator=None):
    """An index for each row, drawn from ``(1 - unimix) softmax(logits / forward_temp) + unimix / K``."""
    probs = (1 - unimix) * torch.softmax(logits.detach() / forward_temp, -1) + unimix / logits.shape[-1]
    return torch.multinomial(probs.reshape(-1, probs.shape[-1]), 1, generator=generator).reshape(probs.shape[:-1])


categorical = from_torch(categorical_select)
gapped = from_torch(gapped_select)
