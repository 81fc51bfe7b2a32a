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

from npselect import gumbel_softmax, straight_through
from npselect.testing.case import Case
from npselect.testing.dtypes import floating_dtype
from npselect.testing.temperature import temperature_cases
from npselect.testing.tolerance import Format

__all__ = ["all_cases", "cases", "find_case", "rounded"]

Array = npt.NDArray[Any]
_INF, _NAN = np.inf, np.nan


def cases(
    dtype: npt.DTypeLike = "float32",
    temp: float = 0.6,
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
        Of the cases that do not ask for a temperature of their own. It is rounded to `dtype`.
    operator : module
        `npselect.straight_through`, or `npselect.gumbel_softmax`: then every case has noise.
    options : collection of str
        "axis" and "where", to have the cases in which these are given too; "row_temp", to have those in which `temp` is
        an array (of `Case.given_temp`).
    profile : {"standard", "strict"}
        "standard" leaves out the cases in which there is a row on which textbooks differ, "strict" those alone whose
        right answer is an error.

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
    unknown = options - {"axis", "where", "noise", "row_temp"}
    if unknown:
        raise ValueError(
            f"options holds {', '.join(map(repr, sorted(unknown)))}; it takes 'axis', 'where' and 'row_temp'"
        )
    if profile not in ("standard", "strict"):
        raise ValueError(f"profile is {profile!r}; it takes 'standard' or 'strict'")
    form = floating_dtype(dtype)
    if not 0 < rounded(temp, form) < _INF:
        raise ValueError(f"temp is {temp}, in {form.name} {rounded(temp, form)}; it must be positive and finite")
    return [
        case
        for case in all_cases(form, temp, operator, learned_temp="row_temp" in options)
        if set(case.needs) <= options | {"noise"}
        and "error" not in case.flags
        and (profile == "strict" or np.all(case.agreed))
    ]


def find_case(id: str, temp: float = 0.6) -> Case:  # noqa: A002 the name of the attribute
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
    operator = gumbel_softmax if id.startswith("gumbel/") else straight_through
    dtype = id.removeprefix("gumbel/").partition("/")[0]
    try:
        asked = all_cases(floating_dtype(dtype), temp, operator, learned_temp="/temp/" in id)
        return next(case for case in asked if case.id == id)
    except (StopIteration, ValueError):
        raise ValueError(f"id is {id!r}; no case has that, see [case.id for case in cases(...)]") from None


def all_cases(dtype: np.dtype[Any], temp: float, operator: ModuleType, learned_temp: bool = False) -> list[Case]:
    """With all options, and those whose right answer is an error; with those of the temperature if one is learned."""
    temp = rounded(temp, dtype)
    plain = [*_digits(dtype, temp), *_random(dtype, temp), *_edges(dtype, temp), *_options(dtype, temp)]
    if learned_temp:
        plain += temperature_cases(dtype, temp)
    if operator is straight_through:
        return plain
    if operator is not gumbel_softmax:
        raise ValueError(f"operator is {operator!r}; it takes npselect.straight_through or npselect.gumbel_softmax")
    return [noisy for seed, case in enumerate(plain) if (noisy := _with_noise(case, seed)) is not None]


def rounded(temp: float, dtype: np.dtype[Any]) -> float:
    """The number of `dtype` that `temp` means there, so that nobody computes with another one."""
    with np.errstate(over="ignore"):
        return float(np.asarray(temp, np.float64).astype(dtype))


def _times(factor: float, temp: float, dtype: np.dtype[Any]) -> float:
    """Another temperature: so many times as large or, at the end of the range, as small."""
    other = rounded(factor * temp, dtype)
    return other if 0 < other < _INF else rounded(temp / factor, dtype)


def _digits(dtype: np.dtype[Any], temp: float) -> Iterator[Case]:
    with (files("npselect.testing") / "data" / "digits_logits.npz").open("rb") as file, np.load(file) as stored:
        logits = stored["logits"].astype(dtype)
    grad_mask = np.random.default_rng(0).standard_normal(logits.shape).astype(dtype)
    yield Case("digits/1797x10", "held-out logits of handwritten digits", logits, grad_mask, temp)


def _random(dtype: np.dtype[Any], temp: float) -> Iterator[Case]:
    rng = np.random.default_rng(20131308)

    def case(
        name: str, note: str, rows: int, choices: int, spread: float = 3.0, offset: float = 0.0, temp: float = temp
    ) -> Case:
        logits = offset + spread * rng.standard_normal((rows, choices))
        grad_mask = rng.standard_normal((rows, choices))
        return Case(f"random/{name}", note, logits.astype(dtype), grad_mask.astype(dtype), temp)

    yield case("K=1", "nothing to choose from", 64, 1)
    yield case("K=2", "the logistic function", 256, 2)
    yield case("K=3", "few choices", 256, 3)
    yield case("K=7", "an odd number of choices", 128, 7)
    yield case("K=10", "every row by itself: nothing is summed or averaged over the batch", 512, 10, spread=5.0)
    yield case("K=64", "as many rows as choices: the wrong axis has the right length", 64, 64)
    yield case("K=100", "widely spread logits: small probabilities are probabilities", 64, 100, spread=10.0)
    yield case("K=1000", "long rows", 16, 1000)
    yield case("K=1024", "long rows of close logits", 16, 1024, spread=0.5)
    yield case("K=4096", "long rows: sums need their digits, small gradients are gradients", 8, 4096)
    if dtype.name != "float16":  # in which the sum may overflow
        many = case("K=131072", "gradients of 1e-6 are gradients, which an absolute tolerance misses", 1, 131072, 0.05)
        yield replace(many, grad_mask=(many.grad_mask.astype(np.float64) / 8).astype(dtype))
    yield case("K=4096, nearly equal", "a sum that stagnates in 16 bits", 8, 4096, spread=0.01)
    yield case("saturated", "one candidate has nearly all of the probability", 64, 10, spread=40.0)
    yield case("offset", "logits far from 0", 64, 10, offset=64.0)
    for name, other in (("doubled", _times(2.0, temp, dtype)), ("quartered", _times(0.25, temp, dtype))):
        yield case(f"temp {name}", "logits are divided by temp, and the gradient by it once", 64, 10, temp=other)

    close = case("constant cotangent", "the gradient is what the differences of grad_mask leave", 64, 10)
    noise = 16 * Format.of(dtype).unit * close.grad_mask.astype(np.float64)
    yield replace(close, grad_mask=(1 + noise).astype(dtype))

    unit = case("unit cotangents", "the whole Jacobian: what is not selected has a gradient, too", 7, 7)
    logits = np.repeat(unit.logits[:1], 7, axis=0)
    yield replace(unit, logits=logits, grad_mask=np.eye(7).astype(dtype))

    for choices in (5, 33, 129, 1025):
        yield case(f"K={choices}", "a length just beyond that of a block", 8, choices)
    sizes = case("cotangents of all sizes", "linear in grad_mask: nothing is clipped or dropped", 64, 10)
    most = {"float16": 10, "float64": 664}.get(dtype.name, 66)
    scale = min(1.0, temp) * np.ldexp(1.0, np.arange(64) * 2 * most // 63 - most)[:, None]
    yield replace(sizes, grad_mask=(scale * sizes.grad_mask.astype(np.float64)).astype(dtype))
    columns = case("columns first", "arrays in Fortran order: rows lie apart in memory", 64, 10)
    yield replace(columns, logits=np.asfortranarray(columns.logits), grad_mask=np.asfortranarray(columns.grad_mask))
    again = case("called again", "results depend on the arguments alone, and no later call changes them", 16, 6)
    yield replace(again, flags=("again",))
    yield _pairs(rng, case("close pairs", "rounding errs to either side: probs may swap two, not always", 512, 10))
    yield _pairs(rng, case("distinct pairs", "a choice in fewer bits than the logits have confuses two", 512, 10), 7)


def _pairs(rng: np.random.Generator, case: Case, bits: int = 0) -> Case:
    """The largest logit of each row, 1 to 1.75, and one that is a last place or two smaller, before or after it.

    Times ``2**bits``, and by up to half of the bits that then are left, at random.
    """
    logits, dtype = np.round(4 * case.logits.astype(np.float64)) / 4 - 20, case.logits.dtype
    top = (1 + 0.75 * rng.random(len(logits))).astype(dtype).astype(np.float64)
    form = Format.of(dtype)
    more = rng.integers(0, max(1, (form.precision - bits) // 2), len(logits)) if bits else 0
    below = top - 2 * form.unit * rng.integers(1, 3, len(logits)) * np.ldexp(1.0, bits + more)
    two = np.argsort(rng.random(logits.shape), axis=-1)[:, :2]
    np.put_along_axis(logits, two, np.stack([top, below], axis=-1), axis=-1)
    return replace(case, logits=logits.astype(dtype), flags=("pairs",))


def _edges(dtype: np.dtype[Any], temp: float) -> Iterator[Case]:
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
        temp=_times(16.0, temp, dtype),
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


def _options(dtype: np.dtype[Any], temp: float) -> Iterator[Case]:
    rng = np.random.default_rng(171717)

    def case(name: str, note: str, shape: tuple[int, ...], axis: int = -1, where: Array | None = None) -> Case:
        logits, grad_mask = (scale * rng.standard_normal(shape) for scale in (3.0, 1.0))
        return Case(name, note, logits.astype(dtype), grad_mask.astype(dtype), temp, axis, where)

    yield case("axis/0 of 2", "the candidates along the first axis", (7, 33), 0)
    yield case("axis/1 of 3", "the candidates along a middle axis", (4, 9, 5), 1)
    yield case("axis/-2 of 3", "a negative axis counts from the end", (5, 6, 4), -2)
    offered = rng.random((64, 10)) < 0.6
    offered[:, 3] |= ~np.any(offered, axis=-1)
    yield case(
        "where/random", "what is no candidate is never selected, and its gradient is exactly 0", (64, 10), -1, offered
    )
    yield case("where/all", "where= that excludes nothing changes nothing", (16, 10), -1, np.ones((16, 10), np.bool_))
    yield case("where/one candidate", "the mask is 1 there, the gradient 0", (10, 10), -1, np.eye(10, dtype=np.bool_))
    shared = np.arange(12) % 3 > 0
    yield case("where/shared", "where= broadcasts to the logits", (20, 12), -1, shared)
    along = rng.random((3, 8, 5)) < 0.7
    along[:, 2] = True
    yield case("where/axis=1", "where= and axis= together", (3, 8, 5), 1, along)
    some = np.ones((6, 4), np.bool_)
    some[[1, 4]] = False
    yield case("where/nothing offered", "zeros in rows without a candidate", (6, 4), -1, some)
    odd = case("where/NaN excluded", "what logits and grad_mask hold there is ignored", (8, 6), -1, np.arange(6) != 2)
    odd.logits[:, 2], odd.grad_mask[:, 2] = _NAN, _NAN
    yield odd
    yield case("axis/0 of 1", "one axis, and nothing beside it", (9,), 0)
    yield case("axis/0 of 3", "the candidates along the first of three axes, and back", (6, 4, 5), 0)
    yield case("axis/2 of 3", "the candidates along the last of three axes", (4, 5, 6), 2)


# ------------------------------------------------------------------------------------------------ noise

_STEPS = {
    "float16": (2.0**-5, 50.0),
    "bfloat16": (2.0**-3, 20.0),
    "float32": (2.0**-12, 1000.0),
    "float64": (2.0**-12, 1000.0),
}


def _with_noise(case: Case, seed: int) -> Case | None:
    """The case with Gumbel noise that was taken from its logits: the sum is what they were, and keeps its point.

    All three are on a grid, where that sum has no rounding error: the choice must not depend on whether 16-bit logits
    are added to their noise in 16 bits or in 32. None if the grid is too coarse or too small for the case. (The logits
    of close pairs keep their last places, next to which there is room for a little noise.)
    """
    step, largest = _STEPS[case.logits.dtype.name]
    w = case.logits.astype(np.float64)
    finite = np.isfinite(w)
    beyond = np.abs(w[finite]) > largest
    if "ties" in case.flags or np.any(np.abs(w[finite]) > 10 * largest) or 2 * np.sum(beyond) > beyond.size:
        return None
    noise = np.random.default_rng([20170417, seed]).gumbel(size=w.shape)
    noise = np.clip(np.round(noise / step) * step, -3.0, 8.0)
    with np.errstate(invalid="ignore"):
        if "pairs" in case.flags:
            noise = np.clip(np.round(4 * noise) / 4, -0.25, 0.25)
        else:
            w = np.where(finite, np.clip(np.round(w / step) * step, -largest, largest), w)
        logits = np.where(finite, w - noise, w)
    dtype = case.logits.dtype
    return replace(case, logits=logits.astype(dtype, order="K"), noise=noise.astype(dtype))
