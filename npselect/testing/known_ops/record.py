"""What is known of an op that somebody ships: where it is, how it is judged, what is documented. Plain data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from npselect.testing.aliases import Tensor

__all__ = ["Finding", "KnownOp", "Package"]


@dataclass(frozen=True)
class Finding:
    """What came of judging an op.

    Attributes
    ----------
    ok : bool
        Whether nothing is wrong.
    judged : str
        What was asked, in a few words.
    cause : str or None
        The likely cause of what is wrong, or which tests have failed.
    detail : str or None
        The first thing that is wrong: what was got, and what was expected.
    remarks : tuple of str
        What was seen and does not count.
    """

    ok: bool
    judged: str
    cause: str | None = None
    detail: str | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class KnownOp:
    """An op of a package.

    Attributes
    ----------
    name : str
        As its documentation writes it.
    subject : callable
        Makes what is judged. It imports the package, which nothing does before it is called.
    judge : callable
        ``judge(subject()) -> Finding``, one of `npselect.testing.known_ops.judging`.
    documented : str
        What its documentation, or its source, says of what is judged, in our words.
    links : tuple of str
        Where that stands, and where users have reported it.
    reproduce : str
        Three lines that show what is wrong, if something is known to be.
    """

    name: str
    subject: Callable[[], Tensor]
    judge: Callable[[Tensor], Finding]
    documented: str
    links: tuple[str, ...] = ()
    reproduce: str = ""


@dataclass(frozen=True)
class Package:
    """A package with ops.

    Attributes
    ----------
    name : str
        That ``npselect survey --only`` takes.
    modules : tuple of str
        To import: if one cannot be, none of the ops is run, and the reason is told.
    distributions : tuple of str
        By which installers may know it; the first that is installed has the version.
    ops : tuple of KnownOp
        In the order in which they are run.
    """

    name: str
    modules: tuple[str, ...]
    distributions: tuple[str, ...]
    ops: tuple[KnownOp, ...]
