"""A peer: somebody who implements an operator, and what of it is timed.

Timed is a call of no arguments over arrays in the framework's own form, until the results are there; what turns NumPy
arrays into that form, or back, is done before or after. "forward" returns the mask and keeps nothing for a gradient,
"backward" the gradient alone, in the cheapest way that the framework offers (PyTorch: of a graph that was recorded
before; the others recompute what they need), "forward+backward" both, as a training step does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module

import numpy as np

from npselect.bench.problem import Problem
from npselect.testing.aliases import Array, Tensor, Timed

__all__ = ["Calls", "LeftOutError", "Peer", "needed"]


class LeftOutError(Exception):
    """Why a peer takes no part, in one line."""


def _nothing() -> None:
    """There is no generator to set back."""


@dataclass(frozen=True)
class Calls:
    """What a peer does with one problem.

    Attributes
    ----------
    prepare : callable
        ``prepare(call)`` gives the function of no arguments that is timed, for one of `npselect.bench.CALLS`. That of
        "forward+backward" returns a tuple, of the mask (or what was chosen) and the gradients; that of "backward" the
        gradients alone, a tuple if there are several.
    array : callable
        A result of these functions as a NumPy array.
    noise : callable or None
        For an operator that draws noise: the numbers which the next call draws after `restart`.
    restart : callable
        Sets the generator of the noise back to its start, if it has one.
    flushes_subnormals : bool
        As in `npselect.testing.Implementation`.
    """

    prepare: Callable[[str], Timed]
    array: Callable[[Tensor], Array] = field(default_factory=lambda: np.asarray)
    noise: Callable[[], Array] | None = None
    restart: Callable[[], object] = field(default_factory=lambda: _nothing)
    flushes_subnormals: bool = False


@dataclass(frozen=True)
class Peer:
    """One of those that are compared.

    Attributes
    ----------
    name : str
        For tables and pictures.
    calls : callable
        ``calls(problem) -> Calls``. It raises `LeftOutError` if the peer cannot take part.
    operators : tuple of str
        Those that it implements.
    package : str
        What must be installed, as ``import`` names it.
    quick : bool
        Whether it is there in a quick run. (What compiles for a long time is not, unless it is named.)
    wrong : str or None
        What is wrong with it whatever the problem: then it is reported, and its time is not taken.
    """

    name: str
    calls: Callable[[Problem], Calls]
    operators: tuple[str, ...]
    package: str = "npselect"
    quick: bool = True
    wrong: str | None = None

    def __str__(self) -> str:
        return self.name


def needed(package: str) -> Tensor:
    """The package, or `LeftOutError`."""
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        missing = (error.name or package).partition(".")[0]
        raise LeftOutError(f"{missing} is not installed") from None
    except ImportError as error:
        raise LeftOutError(f"{package} cannot be imported: {next(iter(str(error).splitlines()), '')}") from None
