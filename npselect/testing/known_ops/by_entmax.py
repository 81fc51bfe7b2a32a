"""Known ops of entmax: soft forms alone, and without noise."""

from __future__ import annotations

from functools import partial
from importlib import import_module

from npselect.testing.adapters import from_torch
from npselect.testing.implementation import Implementation
from npselect.testing.known_ops.judging import sparse
from npselect.testing.known_ops.record import KnownOp, Package

__all__ = ["PACKAGE"]


def soft(name: str) -> Implementation:
    function = getattr(import_module("entmax"), name)
    return from_torch(lambda logits, temp: function(logits / temp, dim=-1), name=name)


_LINKS = ("https://github.com/deep-spin/entmax", "https://aclanthology.org/P19-1146/")
PACKAGE = Package(
    "entmax",
    ("entmax",),
    ("entmax",),
    tuple(
        KnownOp(
            f"entmax.{name}",
            partial(soft, name),
            sparse(alpha),
            "A sparse relaxation without a hard form: out of the family of npselect, and judged by its own formula.",
            _LINKS,
        )
        for name, alpha in (("sparsemax", 2.0), ("entmax15", 1.5))
    ),
)
