"""What an adapter needs of a framework, said in five functions, and the implementations that follow from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from npselect.testing.adapters.common import as_logits, given_options, given_temp, of_shape, of_type, options_taken
from npselect.testing.adapters.sampling import sampling_op
from npselect.testing.aliases import Array, Function, Option, Options, Temp, Tensor
from npselect.testing.implementation import Implementation, function_name, guarded_implementation
from npselect.testing.sampling.op import SamplingOp

__all__ = ["Autodiff"]

Cotangent = Callable[[Tensor], Tensor]
"""The cotangent of a result, for that result."""


@dataclass(frozen=True)
class Autodiff:
    """A framework, as adapters use it.

    Attributes
    ----------
    kind : type
        Of its tensors.
    tensor : callable
        ``tensor(array) -> tensor``, a copy in the same dtype.
    array : callable
        ``array(tensor) -> array``, the way back.
    vjp : callable
        ``vjp(function, leaf, cotangent) -> grad``: the gradient of ``function(leaf)`` for
        ``cotangent(function(leaf))``, or None where nothing depends on `leaf`.
    """

    kind: type
    tensor: Callable[[Array], Tensor]
    array: Callable[[Tensor], Array]
    vjp: Callable[[Function, Tensor, Cotangent], Tensor | None]

    def _gradient(self, fn: Function, function: Function, leaf: Array, cotangent: Array, name: str) -> Array:
        def given(result: Tensor) -> Tensor:
            return self.tensor(of_shape(cotangent, result, fn, name))

        grad = self.vjp(function, self.tensor(leaf), given)
        return np.zeros_like(leaf) if grad is None else self.array(grad)

    def implementation(
        self, fn: Function, name: str | None, *, row_temp: bool, learned_temp: bool, **declared: bool
    ) -> Implementation:
        """``fn(logits, temp) -> mask`` over tensors, as `npselect.testing.check` takes it."""

        def select(logits: Tensor, temp: Tensor, options: Options) -> Tensor:
            temp = temp if isinstance(temp, self.kind) else given_temp(temp, self.tensor)
            return of_type(self.kind, fn(logits, temp, **given_options(options, self.tensor)), fn)

        def forward(logits: Array, temp: Temp, **options: Option) -> Array:
            return self.array(select(self.tensor(logits), temp, options))

        def backward(grad_mask: Array, logits: Array, temp: Temp, **options: Option) -> Array:
            return self._gradient(fn, lambda leaf: select(leaf, temp, options), logits, grad_mask, "grad_mask")

        def backward_temp(grad_mask: Array, logits: Array, temp: Temp, **options: Option) -> Array:
            given = self.tensor(logits)
            leaf = as_logits(temp, logits)
            return self._gradient(fn, lambda leaf: select(given, leaf, options), leaf, grad_mask, "grad_mask")

        options = options_taken(fn, "logits", "temp")
        by_temp = backward_temp if learned_temp else None
        name = name or function_name(fn)
        return guarded_implementation(name, forward, backward, options, by_temp, row_temp=row_temp, **declared)

    def sampling(
        self,
        fn: Function,
        run: Callable[[Tensor, float, bool, int], Tensor],
        *,
        name: str | None,
        takes: tuple[str, ...] = ("logits", "temp", "hard"),
        max_seed: int | None = None,
        hard_and_soft: bool,
        flushes_subnormals: bool,
        normalises_logits: bool,
    ) -> SamplingOp:
        """The op whose sample is ``run(logits, temp, hard, seed)``, as `check_sampling_op` takes it."""

        def drawn(logits: Tensor, temp: float, hard: bool, seed: int) -> Tensor:
            return of_type(self.kind, run(logits, temp, hard, seed), fn)

        def sample(logits: Array, temp: float, hard: bool, seed: int) -> Array:
            return self.array(drawn(self.tensor(logits), temp, hard, seed))

        def backward(grad_sample: Array, logits: Array, temp: float, hard: bool, seed: int) -> Array:
            return self._gradient(fn, lambda leaf: drawn(leaf, temp, hard, seed), logits, grad_sample, "grad_sample")

        return sampling_op(
            fn,
            sample,
            backward,
            name=name,
            hard_and_soft=hard_and_soft,
            flushes_subnormals=flushes_subnormals,
            normalises_logits=normalises_logits,
            takes=takes,
            max_seed=max_seed,
        )
