"""PyTorch: the textbook and `detach`, as it is and behind `torch.compile`; and `F.gumbel_softmax`.

"forward" runs under `torch.no_grad`. "backward" is `torch.autograd.grad` of a graph that is kept: the probabilities are
there already. Noise is the global generator's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from npselect.bench.peer import Calls, needed
from npselect.bench.problem import Problem
from npselect.bench.threads import configure
from npselect.testing.aliases import Array, Tensor

__all__ = ["calls"]


def calls(problem: Problem, *, compiled: bool = False, functional: bool = False) -> Calls:
    """What it does with a problem; `functional` is `F.gumbel_softmax`."""
    torch = needed("torch")
    configure(torch)
    if compiled:
        torch.compiler.reset()  # it compiles a function for eight shapes, and then no more
    temp = problem.temp

    def draw(logits: Tensor) -> Tensor:
        return -torch.empty(problem.noise_shape, dtype=logits.dtype).exponential_().log()

    def select(logits: Tensor) -> Tensor:
        probs = torch.softmax(logits / temp, -1)
        mask = torch.zeros_like(probs).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
        return probs + (mask - probs).detach()

    def sample(logits: Tensor) -> Tensor:
        if functional:
            return torch.nn.functional.gumbel_softmax(logits, tau=temp, hard=True)
        return select(logits + draw(logits))

    def sampled(logits: Tensor) -> Tensor:
        """The mask of a sample of the softmax."""
        index = (logits + draw(logits)).detach().argmax(-1, keepdim=True)
        return torch.zeros_like(logits).scatter_(-1, index, 1.0)

    def of_sample(logits: Tensor) -> Tensor:
        """Straight-through of a sample, as distributions have it, with a temperature."""
        probs = torch.softmax(logits / temp, -1)
        return probs + (sampled(logits) - probs).detach()

    def moved(logits: Tensor) -> Tensor:
        """GST as it is published, with a gap of 1; but for the row's mean, which costs small gradients their digits."""
        mask, fixed = sampled(logits), logits.detach()
        top = fixed.max(-1, keepdim=True).values
        up = top - (fixed * mask).sum(-1, keepdim=True)
        down = (fixed - top + 1.0).clamp(min=0.0) * (1 - mask)
        probs = torch.softmax((logits + (up * mask - down)) / temp, -1)
        return probs + (mask - probs).detach()

    def averaged(logits: Tensor) -> Tensor:
        """Gumbel-Rao, in log space."""
        fixed, (first, *others) = logits.detach(), draw(logits)
        index = (fixed + first).argmax(-1, keepdim=True)
        mask = torch.zeros_like(fixed).scatter_(-1, index, 1.0)
        log_z, surrogate = torch.logsumexp(fixed, -1, keepdim=True), 0.0
        for noise in others:
            largest = log_z + noise.gather(-1, index)
            noisy = (-torch.logaddexp(-largest, -(fixed + noise))).scatter(-1, index, largest)
            surrogate = surrogate + torch.softmax((logits + (noisy - fixed)) / temp, -1)
        surrogate = surrogate / len(others)
        return surrogate + (mask - surrogate).detach()

    def second_order(logits: Tensor) -> Tensor:
        """ReinMax as it is published."""
        mask = sampled(logits)
        middle = (torch.softmax(logits.detach() / temp, -1) + mask) / 2
        pi = torch.softmax((middle.log() - logits).detach() + logits, -1)
        surrogate = 2 * pi - torch.softmax(logits, -1) / 2
        return surrogate + (mask - surrogate).detach()

    def choose(x: Tensor, logits: Tensor) -> Tensor:
        return torch.matmul(select(logits).unsqueeze(-2), x).squeeze(-2)

    def run(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return torch.compile(function, dynamic=False) if compiled else function

    logits = tensor(torch, problem.logits)
    if problem.operator == "noise":
        drawn = run(draw)
        return Calls(lambda _: lambda: drawn(logits), array, restart=lambda: torch.manual_seed(problem.seed))
    if problem.operator == "selection":
        return differentiated(
            torch, run(choose), [tensor(torch, problem.x), logits], tensor(torch, problem.grad_chosen)
        )
    samplers = {"categorical": of_sample, "reinmax": second_order, "gapped": moved, "gumbel_rao": averaged}
    grad_mask = tensor(torch, problem.grad_mask)
    if not problem.draws:
        return differentiated(torch, run(select), [logits], grad_mask)
    drawn = run(draw)

    def restart() -> None:
        torch.manual_seed(problem.seed)

    def noise() -> Array:
        restart()
        return array(drawn(logits))

    return differentiated(
        torch,
        run(samplers.get(problem.operator, sample)),
        [logits],
        grad_mask,
        noise=noise,
        restart=restart,
    )


def differentiated(
    torch: Tensor, function: Callable[..., Tensor], given: list[Tensor], cotangent: Tensor, **others: Tensor
) -> Calls:
    """The calls of a function of some tensors, all of which want a gradient."""
    leaves = [one.clone().requires_grad_() for one in given]
    kept: list[Tensor] = []

    def forward() -> Tensor:
        with torch.no_grad():
            return function(*given)

    def both() -> tuple[Tensor, ...]:
        result = function(*leaves)
        return (result.detach(), *torch.autograd.grad(result, leaves, cotangent))

    def backward() -> Tensor:
        grads = torch.autograd.grad(kept[0], leaves, cotangent, retain_graph=True)
        return grads if len(grads) > 1 else grads[0]

    def prepare(call: str) -> Callable[[], Tensor]:
        if call == "backward" and not kept:
            others.get("restart", lambda: None)()
            kept.append(function(*leaves))
        return {"forward": forward, "backward": backward, "forward+backward": both}[call]

    return Calls(prepare, array, **others)


def tensor(torch: Tensor, values: Array) -> Tensor:
    """The same memory as a tensor."""
    if values.dtype.name == "bfloat16":
        return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(values)


def array(tensor: Tensor) -> Array:
    """The same memory as an array."""
    tensor = tensor.detach()
    if str(tensor.dtype) == "torch.bfloat16":
        return np.asarray(tensor.view(needed("torch").int16).numpy().view(needed("ml_dtypes").bfloat16))
    return np.asarray(tensor.numpy())
