"""Forward and backward in torch, as its users write them; for torch.compile too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["compiled", "eager"]


def forward(logits: Any) -> Any:
    """The one-hot of the argmax."""
    import torch

    return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)


def backward(grad_mask: Any, logits: Any, temp: float) -> Any:
    """The softmax again, and its gradient: what backward without residuals has to do."""
    import torch

    probs = torch.softmax(logits / temp, -1)
    return torch._softmax_backward_data(grad_mask, probs, -1, logits.dtype) / temp


def textbook_backward(grad_mask: Any, logits: Any, temp: float) -> Any:
    """The same in plain operations, for a compiler to fuse."""
    import torch

    probs = torch.softmax(logits.float() / temp, -1)
    g = grad_mask.float()
    return (probs * (g - (probs * g).sum(-1, keepdim=True)) / temp).to(logits.dtype)


def backward_kept(grad_mask: Any, probs: Any, temp: float) -> Any:
    """Autograd's backward alone, the probabilities having been kept by forward."""
    import torch

    return torch._softmax_backward_data(grad_mask, probs, -1, grad_mask.dtype) / temp


def eager() -> dict[str, dict[str, Callable[..., Any]]]:
    """By function and peer; each takes (grad_mask, logits, out, temp)."""
    return {
        "straight_through.forward": {"torch eager": lambda g, logits, out, temp: forward(logits)},
        "straight_through.backward": {
            "torch eager": lambda g, logits, out, temp: backward(g, logits, temp),
            "torch eager, probs kept": lambda g, logits, out, temp: backward_kept(g, out, temp),
        },
    }


def compiled() -> dict[str, dict[str, Callable[..., Any]]]:
    """The same through torch.compile, which compiles anew for every shape."""
    import torch
    import torch._dynamo

    torch._dynamo.reset()
    one = torch.compile(forward, dynamic=False)
    other = torch.compile(textbook_backward, dynamic=False)
    return {
        "straight_through.forward": {"torch.compile": lambda g, logits, out, temp: one(logits)},
        "straight_through.backward": {"torch.compile": lambda g, logits, out, temp: other(g, logits, temp)},
    }
