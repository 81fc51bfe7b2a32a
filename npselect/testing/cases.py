"""The questions that an implementation is asked: real logits, seeded random ones, the edges, and the options.

Nothing here knows the answers; those come from the oracle, when a `Case` is asked for them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from importlib.resources import files
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from npselect import straight_through
from npselect.testing.aliases import Array, Dtype
from npselect.testing.case import Case, Origin, spread
from npselect.testing.dtypes import floating_dtype, rounded, times
from npselect.testing.families import family_of, family_of_id
from npselect.testing.implementation import OPTIONS, SETTINGS
from npselect.testing.indexed import with_index, with_sample_noise
from npselect.testing.layout_cases import layout_cases
from npselect.testing.long_cases import long_cases
from npselect.testing.noisy import with_noise, with_noise_in_proportion
from npselect.testing.option_cases import option_cases
from npselect.testing.random_cases import random_cases
from npselect.testing.range_cases import range_cases
from npselect.testing.setting_cases import plain_cases, setting_cases
from npselect.testing.temperature_cases import temperature_cases
from npselect.testing.tolerance import Format

__all__ = ["all_cases", "cases", "find_case", "rounded"]

_INF, _NAN = np.inf, np.nan


@np.errstate(all="ignore")
def cases(
    dtype: npt.DTypeLike = "float32",
    temp: float | None = None,
    *,
    operator: ModuleType = straight_through,
    options: Collection[str] = (),
    profile: str = "standard",
) -> list[Case]:
    """The cases for a test suite: parametrise a test with them, and ask each to check what your code returns.

    Parameters
    ----------
    dtype : dtype
        float16, bfloat16, float32 or float64.
    temp : float
        Of the cases that do not ask for a temperature of their own: that of the operator (0.6, or 1.0 where it draws a
        sample of the logits alone), unless it is given. It is rounded to `dtype`.
    operator : module
        `npselect.straight_through`; or `npselect.gumbel_softmax`: then every case has noise; or `npselect.reinmax`,
        `npselect.categorical` or `npselect.gapped`: then every case has an index; or `npselect.gumbel_rao`: then it has
        the noise of samples given that as well, and `Case.forward_options` is what forward takes of the options.
    options : collection of str
        "axis" and "where", to have the cases in which these are given too; "row_temp", to have those in which `temp` is
        an array (of `Case.given_temp`); "forward_temp", "unimix" and "gap", to have those in which these are not the
        operator's defaults.
    profile : {"standard", "strict"}
        "standard" leaves out the cases in which there is a row on which textbooks differ, "strict" those alone whose
        right answer is an error. In neither are there arrays that only NumPy has: of negative strides.

    Returns
    -------
    list of Case
        The same at every call, bit for bit.

    Raises
    ------
    ValueError
        An argument has a value that is not listed.

    Examples
    --------
    >>> import pytest
    >>> from npselect import straight_through, testing
    >>> @pytest.mark.parametrize("case", testing.cases(), ids=str)
    ... def test_mine(case):
    ...     case.check_forward(straight_through.forward(case.logits, case.temp))
    ...     case.check_backward(straight_through.backward(case.grad_mask, case.logits, case.temp))
    >>> [case.id for case in testing.cases() if case.group == "digits"]
    ['float32/digits/1797x10']
    """
    options = {options} if isinstance(options, str) else set(options)
    unknown = options - {*OPTIONS, "row_temp"}
    if unknown:
        raise ValueError(
            f"options holds {', '.join(map(repr, sorted(unknown)))}; it takes 'axis', 'where', 'row_temp', and what "
            f"some operators take: {', '.join(map(repr, SETTINGS))}"
        )
    if profile not in ("standard", "strict"):
        raise ValueError(f"profile is {profile!r}; it takes 'standard' or 'strict'")
    family = family_of(operator)
    form, temp = floating_dtype(dtype), family.temp if temp is None else temp
    if not 0 < rounded(temp, form) < _INF:
        raise ValueError(f"temp is {temp}, in {form.name} {rounded(temp, form)}; it must be positive and finite")
    return [
        case
        for case in all_cases(form, temp, operator, learned_temp="row_temp" in options)
        if set(case.needs) <= options | {*family.given}
        and not {"error", "numpy"} & {*case.flags}
        and (profile == "strict" or np.all(case.agreed))
    ]


@np.errstate(all="ignore")
def find_case(id: str, temp: float | None = None) -> Case:  # noqa: A002 the name of the attribute
    """The case of an id, such as a report names.

    Parameters
    ----------
    id : str
        As in `Case.id`.
    temp : float
        As in `cases`.

    Returns
    -------
    Case

    Raises
    ------
    ValueError
        No case has that id.

    Examples
    --------
    >>> from npselect import testing
    >>> testing.find_case("bfloat16/edge/-inf").note
    'never selected; the gradient there is exactly 0'
    """
    family = family_of_id(id)
    dtype = id.removeprefix(family.prefix).partition("/")[0]
    try:
        temp = family.temp if temp is None else temp
        asked = all_cases(floating_dtype(dtype), temp, family.module, learned_temp="/temp/" in id)
        return next(case for case in asked if case.id == id)
    except (StopIteration, ValueError):
        raise ValueError(f"id is {id!r}; no case has that, see [case.id for case in cases(...)]") from None


def all_cases(dtype: Dtype, temp: float, operator: ModuleType, learned_temp: bool = False) -> list[Case]:
    """With all options, and those whose right answer is an error; with those of the temperature if one is learned."""
    family = family_of(operator)
    temp = rounded(temp, dtype)
    usual = [*_digits(dtype, temp), *random_cases(dtype, temp), *_edges(dtype, temp), *option_cases(dtype, temp)]
    usual += layout_cases(dtype, temp)
    if learned_temp and family.learns_temp:
        usual += temperature_cases(dtype, temp)
    far = [*range_cases(dtype, temp), *long_cases(dtype), *_beyond_exp(dtype)]
    if not family.given:
        return [replace(case, operator=family.name) for case in [*usual, *far, _excluded_blocks(dtype)]]
    usual += [case for one in family.settings for case in setting_cases(dtype, temp, one, family.name)]
    fixed, *others = family.given
    asked = [*_GIVEN[fixed](usual, far, family.name)]
    if "sample_noise" in others:
        asked = [with_sample_noise(case, seed) for seed, case in enumerate(asked)]
    more = [*plain_cases(dtype, temp, family.name)]
    return asked + [case for option in family.may_give for case in _GIVEN[option](more, [], family.name)]


def _with_noise(usual: list[Case], far: list[Case], operator: str) -> Iterator[Case]:
    for seed, case in enumerate(usual):
        noisy = with_noise(case, seed, operator)
        if noisy is not None:
            yield noisy
    for seed, case in enumerate(far):
        yield with_noise_in_proportion(case, seed, operator)


def _with_index(usual: list[Case], far: list[Case], operator: str) -> Iterator[Case]:
    """But for the long rows that have an origin: at temperature 1, what is small there is not negligible."""
    for seed, case in enumerate([*usual, *far]):
        if case.origin is None:
            yield with_index(case, seed, operator)


_GIVEN = {"noise": _with_noise, "index": _with_index}
"""How cases without options become cases that are given one, by its name."""


def _digits(dtype: Dtype, temp: float) -> Iterator[Case]:
    with (files("npselect.testing") / "data" / "digits_logits.npz").open("rb") as file, np.load(file) as stored:
        logits = stored["logits"].astype(dtype)
    grad_mask = np.random.default_rng(0).standard_normal(logits.shape).astype(dtype)
    yield Case("digits/1797x10", "held-out logits of handwritten digits", logits, grad_mask, temp)


def _edges(dtype: Dtype, temp: float) -> Iterator[Case]:
    form = Format.of(dtype)
    one_up = 1 + 2 * form.unit
    big, small = {"float16": (3e4, 1e-4), "float64": (1e300, 1e-300)}.get(dtype.name, (1e30, 1e-30))

    def case(
        name: str,
        note: str,
        logits: Any,
        grad_mask: Any = (1.0, -2.0, 0.5, 3.0),
        temp: float = temp,
        flags: tuple[str, ...] = (),
    ) -> Case:
        w = np.atleast_2d(np.asarray(logits, np.float64)).astype(dtype)
        g = np.broadcast_to(np.asarray(grad_mask, np.float64), w.shape).astype(dtype)
        return Case(f"edge/{name}", note, w, g, temp, flags=flags)

    four = [[0.5, 2.0, -1.0, 1.5]]
    ties = [[1, 3, 3, 0], [2, 2, 2, 2], [-5, -6, -5, -5], [-0.0, 0.0, -1, -1], [0.0, -0.0, -1, -1], [-1, -1, -0.0, 0.0]]
    yield case("ties", "the lowest index among equals; -0 equals +0", ties)
    long = np.full((6, 1025), -1.0)
    for row, equals in zip(long, [(9, 16), (100, 130), (700, 1024), (1, 1024), (31, 32, 33), (0, 1023)], strict=True):
        row[list(equals)] = 2.0
    slopes = (np.arange(1025) * 37 % 41 - 20) / 8
    yield case("ties in long rows", "the lowest index among equals, in whichever block or lane they are", long, slopes)
    neighbours = [[1, one_up, 0, 1], [one_up, 1, 1, 0], [0, 1, 1, one_up]]
    yield case("near ties", "neighbouring numbers", neighbours, flags=("ties",))
    rounded_away = [[1, one_up, 1, 0], [0, 1, 1, one_up]]
    yield case(
        "near ties, large temp",
        "the argmax of logits, not of rounded probs",
        rounded_away,
        temp=times(16.0, temp, dtype),
        flags=("ties",),
    )
    yield case("K=1", "the mask is 1, the gradient 0", [[3.0], [-2.0], [0.0]], 5.0)
    yield case("no rows", "an empty result", np.zeros((0, 4)))
    excluded = [[1, -_INF, 2, -_INF], [-_INF, -_INF, 0, -_INF], [-_INF, 3, 3, 1]]
    yield case("-inf", "never selected; the gradient there is exactly 0", excluded)
    yield case("zero cotangent", "the gradient is 0", four, 0.0)
    yield case("large logits", "the maximum is subtracted before exp is taken", [[big, 0, -big, big], [-big, 0, 1, -1]])
    yield case("large temp", "nearly equal probabilities", four, temp=rounded(big, dtype))
    yield case("large logits, small temp", "the maximum is subtracted before anything is divided",
               [[big, 0, -big, big], [-big, -big, -big, -big]], temp=rounded(small, dtype))  # fmt: skip
    depths = {"float16": (-10.5, -12, -14), "float64": (-710, -720, -730)}.get(dtype.name, (-88, -91, -95))
    yield case("subnormal probabilities", "small as they are, they count when multiplied by a large cotangent",
               [[0, *depths]], (1, big, -big, big), temp=1.0)  # fmt: skip
    yield case(
        "-inf, cotangent NaN there", "what grad_mask holds there is ignored", [[1, -_INF, 2, 0]], (1, _NAN, 2, 3)
    )
    yield case("all -inf", "NaN rows", [[-_INF] * 4])
    yield case("NaN", "a NaN row", [[1, _NAN, 2, 0], [_NAN] * 4, [_NAN, -_INF, 2, 0]])
    yield case("+inf", "a NaN row", [[1, _INF, 2, 0], [_INF, _INF, 2, -_INF]])
    yield case("NaN beside", "every row is independent of its neighbours",
               [[1, 3, 2, 0], [1, _NAN, 2, 0], [0, 1, 2, 3], [-_INF] * 4, [3, 0, 2, 1]])  # fmt: skip
    broken = [[1, _NAN, 0, 2], [_INF, 1, 0, 2], [1, 2, -_INF, 2], [1, 2, 3, 4]]
    yield case("cotangent not finite", "its row is not finite, other rows are untouched", four * 4, broken)
    for name, shape in (("one axis", (5,)), ("three axes", (2, 3, 4))):
        size, note = int(np.prod(shape)), "rows lie along the last axis, however many axes are before it"
        w, g = ((np.arange(size) * factor % size / 4 - 1).reshape(shape) for factor in (7, 13))
        yield replace(case(name, note, four), logits=w.astype(dtype), grad_mask=g.astype(dtype))
    yield case("K=0", "ValueError", np.zeros((2, 0)), 0.0, flags=("error",))
    for bad in (0.0, -1.0, _NAN, _INF):
        yield case(f"temp={bad}", "ValueError", four, temp=bad, flags=("error",))


def _beyond_exp(dtype: Dtype) -> Iterator[Case]:
    """Rows whose largest entry is so far from others, or from 0, that the distance is beyond the range of exp.

    Their sum is infinite or 0 if they are not measured from that entry: if the maximum leaves out a block, be it the
    last one, one entry long, or every other; or if it is another number from some row on.
    """
    rng = np.random.default_rng(20261201)
    depth = 2.0 ** (10 if dtype.name == "float64" else 7)

    def case(name: str, note: str, w: Array, rows: Array, columns: Array, temp: float = 0.75) -> Case:
        g = min(1.0, temp) * rng.standard_normal(w.shape).clip(-3, 3)
        small = Case("random/", "", w.astype(dtype), g.astype(dtype), temp)
        return spread(f"random/{name}", note, Origin(small, rows, columns))

    note = "the maximum is that of all blocks: of some of them, exp overflows"
    for power, others in ((12, range(3, 12)), (16, range(13, 16))):
        tops = np.array([0, 2**power, 2**power - 1, *(2**other for other in others)])
        columns = rng.integers(1, 17, (len(tops), 2**power + 1)).astype(np.int8)
        columns[np.arange(len(tops)), tops] = 0
        one_above = np.where(np.arange(17) == 0, 8.0, -depth - 4.0 * np.arange(17)) * np.ones((len(tops), 1))
        yield case(f"K={2**power + 1}, one far above", note, one_above, np.arange(len(tops)), columns)

    steps = np.array([-6.0, -4, -3, -3, -2, -1, -1, 0])
    rising = np.concatenate([np.stack([steps, steps[::-1]]), np.tile(-48.0 - np.arange(8), (2, 1))], axis=-1)
    places = [0, 5, 31, 32, 1000, 40000, 2**16 - 1, 2**16]
    columns = rng.integers(8, 16, (2, 2**16 + 1)).astype(np.int8)
    columns[:, places] = np.arange(8)
    temp = 2.0 ** (-12 if dtype.name == "float16" else -20)
    note = "what was added up is scaled down by exp of a difference over temp, small as that is"
    yield case("K=65537, small temp", note, temp * rising, np.arange(2), columns, temp)

    far = depth * np.array([[-1.0], [-1.5], [1.0], [1.5]]) + np.array([[0, 1], [2, 0], [1, 0], [0, 2], [3, 0]])[:, None]
    note = "each of 65,793 rows is measured from its own maximum, far from 0 as that is"
    yield case("many rows far from 0", note, far.reshape(-1, 2), np.arange(65793) % 19, np.arange(2)[None])


def _excluded_blocks(dtype: Dtype) -> Case:
    """A long row of which whole blocks hold no candidate, the first or the last or those between.

    A running maximum is -inf until a candidate is met, and -inf less -inf is NaN.
    """
    places = [[2**16], [2**16 - 1, 2**16], [0, 2**16], [0, 5, 7], [40000, 40001, 2**16]]
    w, columns = np.full((len(places), 4), -_INF), np.full((len(places), 2**16 + 1), 3, np.int8)
    for small, row, candidates in zip(w, columns, places, strict=True):
        small[: len(candidates)] = [-20.5, -22.0, -20.5][: len(candidates)]
        row[candidates] = np.arange(len(candidates))
    g = np.array([1.0, -2.0, 0.5, 3.0]) * np.ones((len(places), 1))
    return spread(
        "random/K=65537, few candidates",
        "a block without any candidate changes nothing",
        Origin(Case("random/", "", w.astype(dtype), g.astype(dtype), 0.75), np.arange(len(places)), columns),
    )
