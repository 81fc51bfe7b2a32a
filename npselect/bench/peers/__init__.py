"""All peers, in the order of the tables; a framework is imported when a peer is given a problem, never before."""

from __future__ import annotations

from functools import partial
from typing import Any

from npselect.bench.peer import Calls, Peer
from npselect.bench.peers import by_jax, by_npselect, by_numpy, by_tensorflow, by_torch
from npselect.bench.problem import OPERATORS, Problem
from npselect.testing.aliases import SelectionFunctions
from npselect.testing.check import name_of
from npselect.testing.families import FAMILIES
from npselect.testing.implementation import for_forward
from npselect.testing.textbook import SURROGATE

__all__ = ["PEERS", "own_peer"]

_FAMILIES = tuple(FAMILIES)
_DRAWING = tuple(name for name, family in FAMILIES.items() if family.given)
_BY_SURROGATE = tuple(name for name, family in FAMILIES.items() if family.textbook is SURROGATE)

PEERS = (
    Peer("npselect", by_npselect.calls, OPERATORS),
    Peer("npselect out=", partial(by_npselect.calls, out=True), (*_FAMILIES, "noise")),
    Peer("npselect noise=", partial(by_npselect.calls, given=True), _DRAWING),
    Peer("npselect reference", partial(by_npselect.calls, backend="reference"), OPERATORS),
    Peer("numpy", by_numpy.calls, OPERATORS, "numpy"),
    Peer("scipy", by_numpy.scipy_calls, _FAMILIES, "scipy"),
    Peer("torch", by_torch.calls, OPERATORS, "torch"),
    Peer("torch.compile", partial(by_torch.calls, compiled=True), OPERATORS, "torch", quick=False),
    Peer("F.gumbel_softmax", partial(by_torch.calls, functional=True), ("gumbel_softmax",), "torch"),
    Peer("jax.jit", by_jax.calls, (*_BY_SURROGATE, "selection", "noise"), "jax"),
    Peer("tf.function", by_tensorflow.calls, (*_BY_SURROGATE, "selection", "noise"), "tensorflow"),
)


def own_peer(implementation: SelectionFunctions, operator: str, wrong: str | None = None) -> Peer:
    """Somebody's own implementation as one more peer, over NumPy arrays as `npselect.testing.check` takes it.

    Where the operator draws, the noise or the index is given, drawn before the time is taken; what an adapter copies
    between NumPy and its framework is part of the time.
    """

    def calls(problem: Problem) -> Calls:
        options: dict[str, Any] = {}
        drawn = None
        if problem.draws:
            options, drawn = problem.given(problem.noise), lambda: problem.noise
        return by_npselect.two_functions(
            partial(
                implementation.forward, problem.logits, problem.temp, **for_forward(implementation.forward, options)
            ),
            partial(implementation.backward, problem.grad_mask, problem.logits, problem.temp, **options),
            noise=drawn,
            flushes_subnormals=bool(getattr(implementation, "flushes_subnormals", False)),
        )

    name = name_of(implementation).rpartition(".")[-1]
    taken = {peer.name for peer in PEERS}
    return Peer(f"{name} (own)" if name in taken else name, calls, (operator,), wrong=wrong)
