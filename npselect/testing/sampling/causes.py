"""x"""

from __future__ import annotations

__all__ = ["likely_cause"]


def likely_cause(op, traits, seen, failed):
    return None
