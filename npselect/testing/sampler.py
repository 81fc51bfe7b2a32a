"""Samplers judged as samplers: one-hot samples of given logits against the exact probabilities ``softmax(logits)``.

The statistics, and why their p-values hold, are in `npselect.testing.sampler_statistics`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from npselect import straight_through
from npselect._kinds import as_numpy_sees
from npselect.testing.check import name_of, versions
from npselect.testing.dtypes import floating_dtype
from npselect.testing.sampler_report import SamplerReport, SamplerTest
from npselect.testing.sampler_statistics import (
    Question,
    all_frequencies,
    each_frequency,
    fifths_of,
    judged,
    mean_logit,
    neighbouring_rows,
    neighbouring_seeds,
    other_seed,
    position,
    same_seed,
)

__all__ = ["check_sampler"]

Array = npt.NDArray[Any]
_ORDERS = ("index", "probability")
_AFTER_FORM = (
    "same seed",
    "other seed",
    "each frequency",
    "mean logit",
    "all frequencies",
    "neighbouring rows",
    "neighbouring seeds",
    "position",
)
_STREAM = 0x6E7073656C656374  # keeps the numbers drawn here apart from those of a sampler that uses default_rng(seed)


@np.errstate(all="ignore")
def check_sampler(
    sample: Callable[[Array, int], Any],
    *,
    choices: Sequence[int] = (2, 10, 1000),
    vectors: int = 16,
    rows: int | None = None,
    seeds: int = 16,
    seed: int = 0,
    false_alarm: float = 1e-6,
    dtype: npt.DTypeLike = "float32",
) -> SamplerReport:
    """Judge a sampler of one-hots: its frequencies against softmax(logits), and the independence of rows and seeds.

    For each K the sampler is called with `seeds` consecutive seeds and the same logits, and once more with the first
    seed. The rows hold `vectors` different logits vectors, shuffled: from nearly equal to saturated, every other one
    with candidates of -inf. Tested are, for each K:

    - the form: one 1 and otherwise zeros in every row, never at a candidate of -inf;
    - that a seed gives the same sample again, that two seeds give two, and that no row ignores the seed;
    - the frequency of each candidate, for each logits vector and over all of them; the mean of the selected logits; and
      all frequencies together;
    - the independence of the rows i and i + lag of a sample, for lags of 1, 3, the powers of 2, and half the rows;
    - the independence of row i of a seed and row i + lag of the next seed, for lag 0 and the same lags either way;
    - that a row's position does not matter, from the very first and the very last row towards the middle.

    Parameters
    ----------
    sample : callable
        ``sample(logits, seed) -> mask`` with `logits` a NumPy array of shape (rows, K) that the sampler may overwrite,
        and `seed` an int. The result is anything that `numpy.asarray` takes, of the shape of `logits` and any numeric
        or bool dtype.
    choices : sequence of int, optional
        Each K >= 2 to test.
    vectors : int, optional
        Different logits vectors for each K.
    rows : int, optional
        In a call, at least 16 and at least `vectors`. By default 43691, or fewer such that a call has at most 6
        million logits.
    seeds : int, optional
        Calls for each K, at least 2: ``seed``, ``seed + 1``, and so on.
    seed : int, optional
        The first seed, not negative. It also seeds everything that is drawn here.
    false_alarm : float, optional
        The probability, at most, that an honest sampler fails the whole check. In (0, 1).
    dtype : {"float16", "bfloat16", "float32", "float64"}, optional
        Of the logits.

    Returns
    -------
    SamplerReport
        ``report.ok`` says whether all is well, ``str(report)`` shows a table.

    Raises
    ------
    TypeError
        `sample` cannot be called, or a number is not an integer.
    ValueError
        An argument has a value that is not listed.
    ModuleNotFoundError
        bfloat16 was asked for and the package ml_dtypes is missing.
    Exception
        Whatever `sample` raises, with a note that says in which call.

    Notes
    -----
    By default 700 thousand samples are judged for each K up to 137, and 87 thousand for K = 1000. That finds, with near
    certainty, logits that are wrong by a factor of 1.02 and, from K = 10 on, noise that one row in ten shares with its
    neighbour. Noise added in bfloat16 is found too, for what it is: biased.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import testing
    >>> def sample(logits, seed):
    ...     noise = np.random.default_rng(seed).gumbel(size=logits.shape)
    ...     return np.eye(logits.shape[-1])[np.argmax(logits + noise, axis=-1)]
    >>> report = testing.check_sampler(sample, choices=(2, 10), rows=1000)
    >>> print(report.summary[-1])
    PASSED: 18 of 18 tests
    >>> report = testing.check_sampler(lambda logits, seed: sample(logits / 0.5, seed), choices=(2, 10), rows=1000)
    >>> report.ok
    False
    """
    if not callable(sample):
        raise TypeError(f"sample is {sample!r}; it takes a function sample(logits, seed)")
    form = floating_dtype(dtype)
    asked = _each_choices(choices)
    vectors, seeds = _integer(vectors, "vectors", 1), _integer(seeds, "seeds", 2)
    seed = _integer(seed, "seed", 0)
    if not isinstance(false_alarm, Real):
        raise TypeError(f"false_alarm is {false_alarm!r}; it takes a number")
    if not 0 < false_alarm < 1:
        raise ValueError(f"false_alarm is {false_alarm}; it must lie between 0 and 1")
    least = max(16, vectors)
    sizes = [max(least, _size(k)) if rows is None else _integer(rows, "rows", least) for k in asked]

    results: list[SamplerTest] = []
    for k, size in zip(asked, sizes, strict=True):
        rng = np.random.default_rng([_STREAM, seed, k])
        results += _tests(sample, _question(vectors, size, k, form, rng), range(seed, seed + seeds), rng)
    chances = sum(result.p_value is not None for result in results)
    return SamplerReport(
        name_of(sample),
        form.name,
        vectors,
        tuple(sizes),
        seeds,
        seed,
        float(false_alarm),
        tuple(judged(result, chances, false_alarm) for result in results),
        versions(),
    )


def _each_choices(choices: Sequence[int]) -> tuple[int, ...]:
    try:
        asked = tuple(choices)
    except TypeError:
        raise TypeError(f"choices is {choices!r}; it takes a sequence of integers, such as ({choices!r},)") from None
    if not asked:
        raise ValueError("choices is empty: there is nothing to test; give at least one K")
    asked = tuple(_integer(k, "each of choices", 2) for k in asked)
    if len(set(asked)) < len(asked):
        raise ValueError(f"choices is {asked}; each K may be given once")
    return asked


def _size(choices: int) -> int:
    """Rows in a call: a third of a power of two, so that blocks of a power of two leave a third or two thirds over."""
    return next(rows for n in range(17, -1, -1) if (rows := round((1 << n) / 3)) * choices <= 6e6)


def _integer(value: Any, name: str, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}; it takes an integer") from None
    if number < least:
        raise ValueError(f"{name} is {number}; it must be at least {least}")
    return number


# ------------------------------------------------------------------------------------------------ asking


class _FormError(Exception):
    """Why a result is no sample of one-hots."""


def _question(vectors: int, rows: int, choices: int, dtype: np.dtype[Any], rng: np.random.Generator) -> Question:
    spread = np.geomspace(0.1, 10.0, vectors)[:, None]
    w = rng.normal(0.0, 3.0, (vectors, 1)) + spread * rng.standard_normal((vectors, choices))
    w[0] = -100.0  # equal, and far from 0: if sums with noise are rounded to few bits, there are ties
    excluded = rng.random((vectors, choices)) < 0.25
    excluded[::2] = False
    excluded[np.arange(vectors), rng.integers(choices, size=vectors)] = False
    logits = np.where(excluded, -np.inf, w).astype(dtype)
    probs = straight_through.soft(logits.astype(np.float64), 1.0, backend="reference")
    return Question(logits, probs, rng.permutation(np.arange(rows) % vectors))


def _draw(sample: Callable[[Array, int], Any], question: Question, seed: int) -> Array:
    """The selected index of each row of one sample."""
    logits = question.logits[question.vector]
    call = f"sample(logits, {seed}) with logits of shape {logits.shape} and dtype {logits.dtype}"
    shape = logits.shape
    try:
        answer = sample(logits, seed)
        mask = np.asarray(as_numpy_sees(answer))
    except Exception as error:
        error.add_note(f"raised by {call}")
        raise
    if mask.shape != shape:
        returned = f"a {type(answer).__name__} of shape {mask.shape}"
        raise _FormError(f"{call} returns {returned}; expected an array of the shape of logits")
    if mask.dtype.kind not in "biuf" and mask.dtype.name != "bfloat16":
        raise _FormError(f"{call} returns dtype {mask.dtype}; expected numbers or bools")
    selected = mask != 0
    number = np.count_nonzero(selected, axis=-1)
    if np.any(number != 1):
        row = int(np.argmax(number != 1))
        raise _FormError(f"{call}: row {row} has {number[row]} entries that are not 0; expected one, and that a 1")
    index = np.argmax(selected, axis=-1)
    value = np.take_along_axis(mask, index[:, None], axis=-1)[:, 0]
    if np.any(value != 1):
        row = int(np.argmax(value != 1))
        raise _FormError(f"{call}: row {row} holds {value[row]} at candidate {index[row]}; expected 1")
    excluded = question.logits[question.vector, index] == -np.inf
    if np.any(excluded):
        row = int(np.argmax(excluded))
        raise _FormError(f"{call}: row {row} selects candidate {index[row]}, whose logit is -inf")
    return np.asarray(index)


def _tests(
    sample: Callable[[Array, int], Any], question: Question, seeds: range, rng: np.random.Generator
) -> Iterator[SamplerTest]:
    """All the tests of one K. Their p-values are corrected for the comparisons of the test alone."""
    k = question.choices
    rows = (len(seeds) + 1) * len(question.vector)
    try:
        index = np.stack([_draw(sample, question, seed) for seed in seeds])
        again = _draw(sample, question, seeds[0])
    except _FormError as error:
        yield SamplerTest("form", k, "failed", rows, None, str(error))
        yield from (SamplerTest(name, k, "not run", 0, None, None) for name in _AFTER_FORM)
        return
    yield SamplerTest("form", k, "passed", rows, None, None)
    yield same_seed(k, index[0], again, seeds[0])
    yield other_seed(question, index, seeds)
    counts = np.bincount((question.vector * k + index).ravel(), minlength=question.probs.size).reshape(-1, k)
    yield each_frequency(question, counts)
    yield mean_logit(question, counts)
    yield all_frequencies(question, counts, rng)
    fifths = {order: fifths_of(question, index, order, rng) for order in _ORDERS}
    yield neighbouring_rows(k, fifths)
    yield neighbouring_seeds(k, fifths)
    yield position(k, fifths)
