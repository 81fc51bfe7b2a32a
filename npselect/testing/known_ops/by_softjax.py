"""Known ops of softjax and softtorch, one library for two frameworks."""

from __future__ import annotations

from importlib import import_module

from npselect.testing.adapters import from_jax, from_torch
from npselect.testing.implementation import Implementation
from npselect.testing.known_ops.judging import selection
from npselect.testing.known_ops.record import KnownOp, Package

__all__ = ["SOFTJAX", "SOFTTORCH"]

_HOW = {"mode": "smooth", "method": "softsort", "standardize": False}


def of_jax() -> Implementation:
    argmax = import_module("softjax").argmax_st
    return from_jax(lambda logits, temp: argmax(logits, axis=-1, softness=temp, **_HOW), name="argmax_st")


def of_torch() -> Implementation:
    argmax = import_module("softtorch").argmax_st
    return from_torch(lambda logits, temp: argmax(logits, dim=-1, softness=temp, **_HOW), name="argmax_st")


_DOCUMENTED = "The hard argmax as a one-hot, with the gradient of the soft one; here its softmax, not standardised."
SOFTJAX = Package(
    "softjax",
    ("softjax",),
    ("softjax",),
    (KnownOp("softjax.argmax_st", of_jax, selection(), _DOCUMENTED, ("https://github.com/a-paulus/softjax",)),),
)
SOFTTORCH = Package(
    "softtorch",
    ("softtorch",),
    ("softtorch",),
    (KnownOp("softtorch.argmax_st", of_torch, selection(), _DOCUMENTED, ("https://github.com/a-paulus/softtorch",)),),
)
