"""Samplers judged as samplers: one-hot samples of given logits against the exact probabilities ``softmax(logits)``.

The statistics, and why their p-values hold, are in `npselect.testing.sampler_statistics` and
`npselect.testing.sampler_repeats`.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from numbers import Real

import numpy as np
import numpy.typing as npt

from npselect.testing.aliases import Dtype, Sampler, Tensor
from npselect.testing.check import name_of, versions
from npselect.testing.dtypes import floating_dtype
from npselect.testing.sampler_independence import fifths_of, neighbouring_rows, neighbouring_seeds, pairs_of, position
from npselect.testing.sampler_questions import FormError, draw, equal_logits, far_seeds, question_of, taken_seeds
from npselect.testing.sampler_repeats import repeated_rows, rows_that_tell
from npselect.testing.sampler_report import SamplerReport, SamplerTest
from npselect.testing.sampler_statistics import (
    Question,
    all_frequencies,
    each_frequency,
    judged,
    mean_logit,
    other_seed,
    same_seed,
)

__all__ = ["TESTS", "check_sampler", "each_choices", "integer", "probability", "sampler_tests", "size_of"]

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
    "far seeds",
    "repeated rows",
)
TESTS = ("form", *_AFTER_FORM)
"""The names of the tests, in order."""
_TOLD = 96  # bits, by the rows of a call with a far seed: of 512, two are alike by chance once in 2**79 checks
_STREAM = 0x6E7073656C656374  # keeps the numbers drawn here apart from those of a sampler that uses default_rng(seed)


@np.errstate(all="ignore")
def check_sampler(
    sample: Sampler,
    *,
    choices: Sequence[int] = (2, 10, 1000),
    vectors: int = 16,
    rows: int | None = None,
    seeds: int = 16,
    seed: int = 0,
    max_seed: int | None = None,
    false_alarm: float = 1e-6,
    dtype: npt.DTypeLike = "float32",
) -> SamplerReport:
    """Judge a sampler of one-hots: its frequencies against softmax(logits), and the independence of rows and seeds.

    For each K the sampler is called with `seeds` consecutive seeds and the same logits, and once more with the first
    seed. The rows hold `vectors` different logits vectors, shuffled: from nearly equal to saturated, every other one
    with candidates of -inf. Then it is called with logits that are all 0: for many rows with the first seed, and for
    few rows with 512 seeds from the whole range that it takes. Tested are, for each K:

    - the form: one 1 and otherwise zeros in every row, never at a candidate of -inf;
    - that a seed gives the same sample again, that two seeds give two, and that no row ignores the seed;
    - the frequency of each candidate, for each logits vector and over all of them; the mean of the selected logits; and
      all frequencies together;
    - the independence of the rows i and i + lag of a sample, for every lag;
    - the independence of row i of a seed and row i + lag of the next seed, for every lag either way;
    - that a row's position does not matter, from the very first and the very last row towards the middle;
    - that no two seeds of the whole range are one to the sampler: none of their bits is lost, by rounding, cutting or
      hashing, and no remainder is taken;
    - that no stretch of rows is repeated anywhere in these calls: at any lag, from one call to another, moved by some
      candidates, or backwards.

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
        In a call, at most; at least 16 and at least `vectors`. By default 43691, and 349525 of equal logits, or fewer
        such that a call has at most 6 million logits.
    seeds : int, optional
        Calls for each K, at least 2: ``seed``, ``seed + 1``, and so on.
    seed : int, optional
        The first seed, not negative. It also seeds everything that is drawn here.
    max_seed : int, optional
        The largest seed that the sampler is meant to take. By default the largest of 2**64 - 1, 2**63 - 1, 2**32 - 1,
        2**31 - 1, 2**16 - 1, 2**15 - 1 and 2**8 - 1 that it does not refuse, with an error of any kind; and -1 and -2
        are asked as well, if it takes them. Say 2**32 - 1 of a sampler whose generator uses 32 bits of a seed, such as
        those of `torch.manual_seed` on a CPU and, without 64-bit types, of `jax.random.key`.
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

    Noise that is used again after any number of rows is found if some 80 bits' worth of rows is (80 rows for K = 2, 25
    for K = 10), and the call is long enough to have it twice. A map of the seeds to fewer is found with certainty if a
    bit is lost, if large seeds are rounded or cut, or if it is a remainder by 16384 or less; if it is a hash, with
    probability ``1 - exp(-130000 / M)`` for M values, for each K.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import testing
    >>> def sample(logits, seed):
    ...     noise = np.random.default_rng(seed).gumbel(size=logits.shape)
    ...     return np.eye(logits.shape[-1])[np.argmax(logits + noise, axis=-1)]
    >>> report = testing.check_sampler(sample, choices=(2, 10), rows=1000)
    >>> print(report.summary[-1])
    PASSED: 22 of 22 tests
    >>> report = testing.check_sampler(lambda logits, seed: sample(logits / 0.5, seed), choices=(2, 10), rows=1000)
    >>> report.ok
    False
    """
    if not callable(sample):
        raise TypeError(f"sample is {sample!r}; it takes a function sample(logits, seed)")
    form = floating_dtype(dtype)
    asked = each_choices(choices)
    vectors, seeds = integer(vectors, "vectors", 1), integer(seeds, "seeds", 2)
    seed = integer(seed, "seed", 0)
    false_alarm = probability(false_alarm, "false_alarm")
    least = max(16, vectors)
    sizes = [max(least, size_of(k)) if rows is None else integer(rows, "rows", least) for k in asked]
    last = seed + seeds - 1
    if max_seed is not None:
        max_seed = integer(max_seed, "max_seed", last)

    results: list[SamplerTest] = []
    taken: list[int] = []
    for k, size in zip(asked, sizes, strict=True):
        many = max(size, size_of(k, 20)) if rows is None else size
        tests, largest = sampler_tests(sample, k, form, vectors, size, many, range(seed, seed + seeds), max_seed)
        results += tests
        taken.append(largest)
    chances = sum(result.p_value is not None for result in results)
    return SamplerReport(
        name_of(sample),
        form.name,
        vectors,
        tuple(sizes),
        seeds,
        seed,
        min(taken),
        float(false_alarm),
        tuple(judged(result, chances, false_alarm) for result in results),
        versions(),
    )


def sampler_tests(
    sample: Sampler, k: int, form: Dtype, vectors: int, rows: int, many_rows: int, seeds: range, max_seed: int | None
) -> tuple[list[SamplerTest], int]:
    """All the tests of one K, their p-values corrected for the comparisons of each alone; and the largest seed."""
    rng = np.random.default_rng([_STREAM, seeds[0], k])
    question = question_of(vectors, rows, k, form, rng)
    few = equal_logits(k, min(rows, rows_that_tell(_TOLD, k)), form)
    largest, negative = taken_seeds(sample, few, seeds[-1]) if max_seed is None else (max_seed, ())
    far = [*negative, *far_seeds(largest, negative, rng)]
    many = equal_logits(k, many_rows, form)
    return list(_tests(sample, question, seeds, few, far, many, rng)), largest


def each_choices(choices: Sequence[int]) -> tuple[int, ...]:
    """Each K once, if they are integers of at least 2."""
    try:
        asked = tuple(choices)
    except TypeError:
        raise TypeError(f"choices is {choices!r}; it takes a sequence of integers, such as ({choices!r},)") from None
    if not asked:
        raise ValueError("choices is empty: there is nothing to test; give at least one K")
    asked = tuple(integer(k, "each of choices", 2) for k in asked)
    if len(set(asked)) < len(asked):
        raise ValueError(f"choices is {asked}; each K may be given once")
    return asked


def size_of(choices: int, most: int = 17, numbers: float = 6e6) -> int:
    """Rows in a call: a third of a power of two, so that blocks of a power of two leave a third or two thirds over."""
    return next(rows for n in range(most, -1, -1) if (rows := round((1 << n) / 3)) * choices <= numbers)


def probability(value: Tensor, name: str) -> float:
    """The number, if it is a probability that is neither 0 nor 1."""
    if not isinstance(value, Real):
        raise TypeError(f"{name} is {value!r}; it takes a number")
    if not 0 < float(value) < 1:
        raise ValueError(f"{name} is {value}; it must lie between 0 and 1")
    return float(value)


def integer(value: Tensor, name: str, least: int) -> int:
    """The integer, if it is one and large enough."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}; it takes an integer") from None
    if number < least:
        raise ValueError(f"{name} is {number}; it must be at least {least}")
    return number


# ------------------------------------------------------------------------------------------------ the tests of one K


def _tests(
    sample: Sampler,
    question: Question,
    seeds: range,
    few: Question,
    far: list[int],
    many: Question,
    rng: np.random.Generator,
) -> Iterator[SamplerTest]:
    """All the tests of one K. Their p-values are corrected for the comparisons of the test alone."""
    k = question.choices
    rows = (len(seeds) + 1) * len(question.vector) + len(far) * len(few.vector) + len(many.vector)
    try:
        index = np.stack([draw(sample, question, seed) for seed in seeds])
        again = draw(sample, question, seeds[0])
        far_index = np.stack([draw(sample, few, seed) for seed in far])
        many_index = draw(sample, many, seeds[0])
    except FormError as error:
        yield SamplerTest("form", k, "failed", rows, None, str(error))
        yield from (SamplerTest(name, k, "not run", 0, None, None) for name in _AFTER_FORM)
        return
    yield SamplerTest("form", k, "passed", rows, None, None)
    yield same_seed(k, index[0], again, seeds[0])
    yield other_seed("other seed", question, index, seeds)
    counts = np.bincount((question.vector * k + index).ravel(), minlength=question.probs.size).reshape(-1, k)
    yield each_frequency(question, counts)
    yield mean_logit(question, counts)
    yield all_frequencies(question, counts, rng)
    fifths = {order: fifths_of(question, index, order, rng) for order in _ORDERS}
    pairs = {order: pairs_of(part) for order, part in fifths.items()}
    yield neighbouring_rows(k, {order: of_one for order, (of_one, _) in pairs.items()})
    yield neighbouring_seeds(k, {order: of_two for order, (_, of_two) in pairs.items()})
    yield position(k, fifths)
    yield other_seed("far seeds", few, far_index, far)
    others = [(seed, selected) for seed, selected in zip(far, far_index, strict=True) if seed != seeds[0]]
    yield repeated_rows(k, [(seeds[0], many_index), *others])
