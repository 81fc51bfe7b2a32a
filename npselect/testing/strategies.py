"""Strategies of Hypothesis: logits, temperatures and cotangents that are hard to get right, and whole cases of them.

They shrink to what is easy to read: one row, few choices, small whole numbers, temperature 1. Hypothesis is imported
here and nowhere else in the package; ``pip install npselect[hypothesis]`` brings it.

Examples
--------
>>> from hypothesis import given, settings
>>> from npselect import straight_through
>>> from npselect.testing import assert_conforms, strategies
>>> @settings(max_examples=5, deadline=None)
... @given(strategies.cases("float32"))
... def test_mine(case):
...     assert_conforms(straight_through, cases=[case])
>>> test_mine()
"""

from __future__ import annotations

from collections.abc import Collection
from types import ModuleType

import numpy as np
import numpy.typing as npt
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from npselect import straight_through
from npselect.testing import strategy_parts as parts
from npselect.testing.aliases import Array, Tensor
from npselect.testing.case import Case
from npselect.testing.dtypes import floating_dtype
from npselect.testing.families import GIVEN, family_of
from npselect.testing.profile import STANDARD

__all__ = ["cases", "cotangents", "logits", "temperatures"]


def temperatures(dtype: npt.DTypeLike = "float32") -> SearchStrategy[float]:
    """Temperatures: usual ones, any between 2**-10 and 2**10, and powers of two far from 1.

    Parameters
    ----------
    dtype : dtype
        float16, bfloat16, float32 or float64. The temperatures are numbers of it, positive and finite.

    Returns
    -------
    strategy of float

    Examples
    --------
    >>> from hypothesis import find
    >>> from npselect.testing import strategies
    >>> find(strategies.temperatures(), lambda temp: temp < 1)
    0.5
    """
    return parts.temperatures(floating_dtype(dtype))


@st.composite
def logits(
    draw: DrawFn, dtype: npt.DTypeLike = "float32", *, rows: int = 4, choices: int = 8, temp: float = 1.0
) -> Array:
    """Logits whose softmax, or whose largest entry, is hard to get right.

    Each row is one of these: equal; a few small numbers; ties of a few numbers, 0 and -0 among them; neighbouring
    numbers; one entry that outweighs all others, by so much that their probabilities are small, or subnormal, or 0;
    -inf among others; far from 0; subnormal; any finite numbers up to a quarter of the largest. None holds NaN or +inf,
    nor -inf alone.

    Parameters
    ----------
    dtype : dtype
        float16, bfloat16, float32 or float64.
    rows, choices : int, optional
        The largest shape, (rows, choices). Both are 1 at least.
    temp : float, optional
        By which they will be divided: differences are in proportion to it.

    Returns
    -------
    strategy of ndarray

    Examples
    --------
    >>> from hypothesis import find
    >>> from npselect.testing import strategies
    >>> find(strategies.logits(), lambda w: w.shape[1] > 2)
    array([[0., 0., 0.]], dtype=float32)
    """
    form, length = floating_dtype(dtype), draw(st.integers(1, choices))
    return np.stack(draw(st.lists(parts.logits_row(form, length, temp), min_size=1, max_size=rows)))


@st.composite
def cotangents(draw: DrawFn, shape: tuple[int, int], dtype: npt.DTypeLike = "float32", *, scale: float = 1.0) -> Array:
    """Cotangents that show what a gradient forgets: one-hot, equal, nearly equal, of either sign, large and small.

    Parameters
    ----------
    shape : (int, int)
        That of the logits.
    dtype : dtype
        float16, bfloat16, float32 or float64.
    scale : float, optional
        By which they are multiplied: by that, by 2**14 or 2**5 times as much, or as little; in float16, 2**8 or 2**4.

    Returns
    -------
    strategy of ndarray
    """
    form, (rows, choices) = floating_dtype(dtype), shape
    found = draw(st.lists(parts.cotangents_row(form, choices), min_size=rows, max_size=rows))
    return np.asarray(np.stack(found) * scale * draw(parts.scales(form))).astype(form)


@st.composite
def cases(
    draw: DrawFn,
    dtypes: Tensor | Collection[Tensor] = "float32",
    *,
    operator: ModuleType = straight_through,
    options: str | Collection[str] = (),
    rows: int = 4,
    choices: int = 8,
    longest: int = 2**17,
) -> Case:
    """Cases for `npselect.testing.assert_conforms`, all rows of which are judged in the profile "standard".

    Parameters
    ----------
    dtypes : dtype or collection of dtypes, optional
        Of the arrays.
    operator : module, optional
        `npselect.straight_through`; or `npselect.gumbel_softmax`: then every case has noise; or one of those that draw
        a sample: then every case has an index and, of `npselect.gumbel_rao`, noise of up to three samples given that.
    options : str or collection of str, optional
        "axis" and "where", to have cases in which these are given too, of one, two and three axes.
    rows, choices : int, optional
        The largest shape of most cases.
    longest : int, optional
        Some cases have rows of up to so many choices, of which a few count, or some 1,000 rows, which repeat a few.
        Where it is no more than `choices`, none has. In float16 it is 2**15 at most: the softmax of more equal entries
        overflows there, if its sum is kept in float16.

    Returns
    -------
    strategy of Case
        Some have the flag "again": other things are asked before and after. Some have arrays in Fortran order.

    Raises
    ------
    ValueError
        An argument has a value that is not listed; when an example is drawn.

    Examples
    --------
    >>> from hypothesis import find
    >>> from npselect.testing import strategies
    >>> case = find(strategies.cases("float64"), lambda case: case.logits.shape[1] == 2 and case.grad_logits.any())
    >>> case.logits, sorted(case.grad_mask[0].tolist()), case.temp
    (array([[0., 0.]]), [0.0, 1.0], 1.0)
    """
    several = isinstance(dtypes, (list, tuple, set, frozenset))
    asked: list[Tensor] = [*dtypes] if several else [dtypes]
    forms = sorted({floating_dtype(dtype) for dtype in asked}, key=lambda form: form.name)
    taken = {options} if isinstance(options, str) else set(options)
    if unknown := taken - {"axis", "where", *GIVEN}:
        raise ValueError(f"options holds {', '.join(map(repr, sorted(unknown)))}; it takes 'axis' and 'where'")
    family, form = family_of(operator), draw(st.sampled_from(forms))
    case = parts.draw_case(draw, form, family, taken, (rows, choices, longest))
    with np.errstate(all="ignore"):
        assume(np.all(case.judged(STANDARD)))
    return case
