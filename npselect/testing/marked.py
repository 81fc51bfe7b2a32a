"""What ``@pytest.mark.npselect(...)`` means: which cases a test gets, and a judgement of each in one line.

The plugin is `pytest_npselect`, beside the package. pytest finds it by its entry point; ``-p no:npselect`` leaves it
out.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from npselect.testing.aliases import SelectionFunctions, Tensor
from npselect.testing.case import Case
from npselect.testing.cases import cases as all_cases
from npselect.testing.check import assert_conforms
from npselect.testing.dtypes import DTYPES, floating_dtype
from npselect.testing.families import FAMILIES, family_of
from npselect.testing.implementation import DECLARED
from npselect.testing.profile import Profile

__all__ = ["MarkedCase", "marked_cases"]

_KEYWORDS = ("dtypes", "operator", "options", "profile", "groups")


@dataclass(frozen=True, eq=False)
class MarkedCase(Case):
    """A `Case`, as the fixture `npselect_case` is one: judged in the profile of the mark, unless another is named.

    Attributes
    ----------
    profile : {"standard", "strict"}
        Of the mark.

    Examples
    --------
    A test file::

        @pytest.mark.npselect(dtypes=["float32", "float64"], options=["axis"])
        def test_mine(npselect_case):
            npselect_case.check(from_torch(my_select))

    >>> from npselect import straight_through
    >>> from npselect.testing.marked import marked_cases
    >>> case = marked_cases(groups="edge")[0]
    >>> case.id
    'float32/edge/ties'
    >>> case.check(straight_through)
    """

    profile: str = "standard"

    def check(self, implementation: SelectionFunctions) -> None:
        """Put this case to an implementation, and raise AssertionError with the report unless it passes.

        Where the implementation declares that it flushes subnormal numbers, or that it normalises logits, a case that
        then cannot be judged is skipped.

        Parameters
        ----------
        implementation : object or module
            As in `npselect.testing.check`, which see for errors too.

        Raises
        ------
        AssertionError
            It fails.
        """
        __tracebackhide__ = True
        declared = {name: bool(getattr(implementation, name, False)) for name in DECLARED}
        if len(self.w) and not np.any(self.judged(Profile(self.profile, "reference", **declared))):
            names = " and ".join(name for name in DECLARED if declared[name])
            pytest.skip(f"{self}: not judged of what declares {names}")
        assert_conforms(implementation, operator=self.family.module, profile=self.profile, cases=[self])

    def check_forward(self, actual: Tensor, profile: str | None = None) -> None:
        """As `Case.check_forward`, by default in the profile of the mark."""
        __tracebackhide__ = True
        super().check_forward(actual, profile or self.profile)

    def check_backward(self, actual: Tensor, profile: str | None = None) -> None:
        """As `Case.check_backward`, by default in the profile of the mark."""
        __tracebackhide__ = True
        super().check_backward(actual, profile or self.profile)

    @property
    def found_by(self) -> str:
        """What `find_case` must be given to find it."""
        return repr(self.id)


def marked_cases(*positional: object, **keywords: Any) -> list[MarkedCase]:
    """The cases of a mark, in an order that is the same in every process.

    Parameters
    ----------
    dtypes : dtype or collection of dtypes, optional
        By default float32.
    operator : module or str, optional
        `npselect.straight_through`, `npselect.gumbel_softmax`, `npselect.reinmax`, or the name of one.
    options : str or collection of str, optional
        "axis", "where", "row_temp": what the implementation takes. Cases that need others are left out.
    profile : {"standard", "strict"}, optional
        Which rows are judged, and by which bound: as in `npselect.testing.cases` and `npselect.testing.check`.
    groups : str or collection of str, optional
        "digits", "random", "edge", "layout", "axis", "where", "temp": those of the cases; by default all.

    Returns
    -------
    list of MarkedCase
        Two marks with the same keywords share them, with their answers.

    Raises
    ------
    TypeError
        There is a keyword that is not listed, or an argument without one.
    ValueError
        An argument has a value that is not listed.
    ModuleNotFoundError
        bfloat16 was asked for and the package ml_dtypes is missing.
    """
    unknown = [*map(repr, positional), *(name for name in keywords if name not in _KEYWORDS)]
    if unknown:
        allowed = f"{', '.join(_KEYWORDS[:-1])} and {_KEYWORDS[-1]}"
        raise TypeError(f"it was given {', '.join(unknown)}; it takes the keywords {allowed}")
    return _cases(**keywords)


def _cases(
    dtypes: Tensor = "float32",
    operator: ModuleType | str = "straight_through",
    options: str | Collection[str] = (),
    profile: str = "standard",
    groups: str | Collection[str] | None = None,
) -> list[MarkedCase]:
    if isinstance(operator, str):
        if operator not in FAMILIES:
            raise ValueError(f"operator is {operator!r}; it takes {', '.join(map(repr, FAMILIES))} or the module")
        operator = FAMILIES[operator].module
    name = family_of(operator).name
    several = isinstance(dtypes, Iterable) and not isinstance(dtypes, (str, type, np.dtype))
    asked = {floating_dtype(dtype).name for dtype in (dtypes if several else [dtypes])}
    if not asked:
        raise ValueError(f"dtypes is empty; it takes some of {', '.join(DTYPES)}")
    taken = tuple(sorted({options} if isinstance(options, str) else set(options)))
    found = [case for dtype in DTYPES if dtype in asked for case in _of(dtype, name, taken, profile)]
    if groups is None:
        return found
    wanted, there = {groups} if isinstance(groups, str) else set(groups), list(dict.fromkeys(c.group for c in found))
    if unknown := sorted(map(str, wanted - {*there})) or ([] if wanted else ["none"]):
        raise ValueError(
            f"groups holds {', '.join(map(repr, unknown))}; with these options there are {', '.join(there)}"
        )
    return [case for case in found if case.group in wanted]


@functools.cache
def _of(dtype: str, operator: str, options: tuple[str, ...], profile: str) -> list[MarkedCase]:
    some = all_cases(dtype, operator=FAMILIES[operator].module, options=options, profile=profile)
    names = [field.name for field in fields(Case)]
    return [MarkedCase(**{name: getattr(case, name) for name in names}, profile=profile) for case in some]
