"""What `npselect.testing.check_sampling_op` takes: an op that draws its own noise, over NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from npselect.testing.aliases import Array, Tensor

__all__ = ["SamplingOp"]


@dataclass(frozen=True)
class SamplingOp:
    """What `check_sampling_op` takes; any object with these attributes will do, those with a default may be missing.

    Attributes
    ----------
    name : str
        For the report; also `__name__`.
    sample : callable
        ``sample(logits, temp, hard, seed) -> sample``: NumPy logits of shape (rows, K), a float, a bool and an int. The
        soft sample is ``softmax((logits + noise) / temp)``, the hard one the one-hot of its largest entry. The same
        seed gives the same noise, in all four ways to call the two functions.
    backward : callable
        ``backward(grad_sample, logits, temp, hard, seed) -> grad_logits``, likewise: the gradient that the logits get
        where the sample of this seed gets `grad_sample`.
    hard_and_soft : bool
        Whether both forms exist. If not, `hard` is always True.
    max_seed : int or None
        The largest seed that counts; None if it is to be found out, as `check_sampler` does.
    flushes_subnormals, normalises_logits : bool
        As of `Implementation`: declared, not tested.
    """

    name: str
    sample: Callable[[Array, float, bool, int], Tensor]
    backward: Callable[[Tensor, Array, float, bool, int], Tensor]
    hard_and_soft: bool = True
    max_seed: int | None = None
    flushes_subnormals: bool = False
    normalises_logits: bool = False

    @property
    def __name__(self) -> str:
        return self.name
