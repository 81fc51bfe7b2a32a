"""What is accepted, and of whom.

``"standard"`` accepts every honest textbook implementation: it judges the rows on which textbooks agree by their bound,
and shows the rest. ``"strict"`` judges all rows by the bound of npselect's tiers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from npselect.testing import tolerance
from npselect.testing.implementation import DECLARED

__all__ = ["PROFILES", "STANDARD", "Profile", "profile_name"]

PROFILES = {"standard": tolerance.TEXTBOOK, "strict": tolerance.KERNELS}


@dataclass(frozen=True)
class Profile:
    """What an implementation is held to.

    Attributes
    ----------
    name : {"standard", "strict"}
    backend : {"reference", "cpu"}
        The oracle, whose own error is allowed for.
    flushes_subnormals, normalises_logits : bool
        What the implementation declares: that its operations may return 0 for a subnormal number; that it subtracts the
        logits' logsumexp before all else.
    """

    name: str
    backend: str = "reference"
    flushes_subnormals: bool = False
    normalises_logits: bool = False

    @property
    def arithmetic(self) -> tolerance.Arithmetic:
        """That is assumed of the implementation."""
        declared = {name: getattr(self, name) for name in DECLARED}
        return replace(PROFILES[self.name], **declared)


STANDARD = Profile("standard")


def profile_name(name: str) -> str:
    """The name, if it is one of a profile; else a `ValueError`."""
    if name not in PROFILES:
        raise ValueError(f"profile is {name!r}; it takes one of {', '.join(map(repr, PROFILES))}")
    return name
