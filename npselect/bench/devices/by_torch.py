"""Forward and backward in PyTorch, as its users write them; and for `torch.compile`."""

from __future__ import annotations

from npselect.bench.devices.arrays import DeviceArray
from npselect.bench.devices.peers import DevicePeers
from npselect.bench.peer import needed

__all__ = ["KEPT", "compiled", "eager", "probabilities"]

KEPT = "torch eager, probs kept"  # finds the probabilities in `out`


def probabilities(logits: DeviceArray, temp: float) -> DeviceArray:
    """What forward would have kept for `KEPT`."""
    return needed("torch").softmax(logits / temp, -1)


def eager(*, textbook: bool = False) -> DevicePeers:
    """Plain calls; with `textbook`, those that a compiler can fuse."""
    torch = needed("torch")

    def forward(g: DeviceArray, logits: DeviceArray, out: DeviceArray, temp: float) -> DeviceArray:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)

    def backward(g: DeviceArray, logits: DeviceArray, out: DeviceArray, temp: float) -> DeviceArray:
        """The softmax again, and its gradient: what backward without residuals has to do."""
        probs = torch.softmax(logits / temp, -1)
        return torch._softmax_backward_data(g, probs, -1, logits.dtype) / temp

    def backward_kept(g: DeviceArray, logits: DeviceArray, out: DeviceArray, temp: float) -> DeviceArray:
        """Autograd's backward alone, forward having kept the probabilities."""
        return torch._softmax_backward_data(g, out, -1, g.dtype) / temp

    def textbook_backward(g: DeviceArray, logits: DeviceArray, out: DeviceArray, temp: float) -> DeviceArray:
        probs = torch.softmax(logits.float() / temp, -1)
        g = g.float()
        return (probs * (g - (probs * g).sum(-1, keepdim=True)) / temp).to(logits.dtype)

    if textbook:
        return {"forward": {"torch": forward}, "backward": {"torch": textbook_backward}}
    return {"forward": {"torch eager": forward}, "backward": {"torch eager": backward, KEPT: backward_kept}}


def compiled() -> DevicePeers:
    """The textbook through `torch.compile`, which compiles anew for every shape."""
    torch = needed("torch")
    needed("torch._dynamo").reset()
    textbook = eager(textbook=True)
    return {
        call: {"torch.compile": torch.compile(textbook[call]["torch"], dynamic=False)}
        for call in ("forward", "backward")
    }
