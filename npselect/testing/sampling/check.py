"""The whole check of an op that draws its own noise: prepare, ask, judge, report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from numbers import Real

import numpy as np
import numpy.typing as npt

from npselect.testing.aliases import Array, Dtype, SamplingFunctions, Tensor
from npselect.testing.check import name_of, versions
from npselect.testing.dtypes import floating_dtype, rounded
from npselect.testing.known import known_failures, reason_for
from npselect.testing.sampler import TESTS, each_choices, integer, probability, sampler_tests, size_of
from npselect.testing.sampler_questions import FormError, draw, equal_logits, question_of
from npselect.testing.sampler_report import SamplerTest
from npselect.testing.sampler_statistics import all_frequencies, each_frequency, judged, mean_logit
from npselect.testing.sampling.causes import likely_cause
from npselect.testing.sampling.judge import JUDGED, Raw, judged_by_bounds
from npselect.testing.sampling.noise import EQUAL, LAW, equal_numbers, law_of_noise, shares_of
from npselect.testing.sampling.observation import Observation, Traits, observe, traits_of
from npselect.testing.sampling.report import SamplingReport, SamplingTest

__all__ = ["check_sampling_op"]

_VECTORS = 16
_SEEDS = 16  # calls for the distribution
_SIZES = {"gradients": (13, 1e5), "samples": (14, 1.5e6), "many": (17, 6e6), "equal": (12, 1.5e6)}  # as `size_of` has
_STREAM = 0x73616D706C696E67  # keeps the numbers drawn here apart from those of an op that uses default_rng(seed)
_LIGHT = ("form", "each frequency", "mean logit", "all frequencies")
_CHANCE = 1e-3  # of the false alarms, the share of rows whose noise is of another size than is allowed for


class _Asked:
    """One dtype, temperature and K, and what was found there; `central` where all tests of the distribution are."""

    def __init__(self, form: Dtype, temp: float, choices: int, central: bool, hard_and_soft: bool) -> None:
        self.form, self.temp, self.choices, self.central = form, temp, choices, central
        self.looks_for_equals = central and hard_and_soft and form.name == "float64"
        self.raw: list[Raw] = []
        self.seen: Observation | None = None

    @property
    def ids(self) -> list[str]:
        """Of the tests, before they are run."""
        names = (*JUDGED, LAW, *(TESTS if self.central else _LIGHT), *([EQUAL] if self.looks_for_equals else []))
        return [SamplingTest(name, self.form.name, self.temp, self.choices, "").id for name in names]


@np.errstate(all="ignore")
def check_sampling_op(
    op: SamplingFunctions,
    *,
    dtypes: npt.DTypeLike | Sequence[npt.DTypeLike] = "float32",
    temps: Sequence[float] = (0.1, 0.6, 1.0, 5.0),
    choices: Sequence[int] = (2, 10, 1000),
    seed: int = 0,
    false_alarm: float = 1e-6,
    known: Mapping[str, str] | None = None,
) -> SamplingReport:
    """Judge an op that draws its own noise: its samples, their distribution, and the gradient of either form.

    The soft sample of a seed stands in for the noise, which nobody sees: with y that sample, the gradient of the soft
    and of the hard form is ``y (g - <y, g>) / temp``, within a bound that follows from the operations
    (`npselect.testing.tolerance_sampled`). For each dtype, temperature and K are judged:

    - *one-hot*: the hard sample is exactly 0 and 1, and never selects a logit of -inf;
    - *hard and soft*: both forms of a seed select the same;
    - *soft sample*: it is finite, not negative, and has the sum 1;
    - *gradient of the hard form*, *gradient of the soft form*;
    - *constants drop out*: gradients have the sum 0, and a constant added to the cotangent changes nothing;
    - *excluded candidates*: at a logit of -inf samples and gradients are exactly 0;
    - *law of the noise*, as the soft samples tell it: that of Gumbel's (`npselect.testing.sampling.noise`); and *equal
      noise*, in float64;
    - the distribution of the hard sample, by the tests of `check_sampler`: all of them at the temperature nearest to 1,
      the frequencies at each.

    Parameters
    ----------
    op : object
        With ``sample(logits, temp, hard, seed) -> sample`` and ``backward(grad_sample, logits, temp, hard, seed) ->
        grad_logits`` over NumPy arrays of shape (rows, K), such as `SamplingOp`, or what `sampling_from_torch` returns;
        `temp` is a float. The same seed gives the same noise. An attribute ``hard_and_soft = False`` declares that
        there is no soft form: then `hard` is always True, the gradient is asked for two cotangents more, from which
        the soft sample behind it follows (`npselect.testing.sampling.recovered`), and the report says what was not
        asked. Other attributes are those of `SamplingOp`.
    dtypes : dtype or sequence of dtypes, optional
        Of the arrays: some of float16, bfloat16, float32 and float64. Noise that is drawn, or added to logits, in 16
        bits is found to be biased, as in `check_sampler`.
    temps : sequence of float, optional
        Temperatures, each rounded to the dtype before it is handed over.
    choices : sequence of int, optional
        Each K >= 2.
    seed : int, optional
        The first seed, not negative. It also seeds everything that is drawn here.
    false_alarm : float, optional
        The probability, at most, that an honest op fails the whole check. In (0, 1).
    known : mapping of str to str, optional
        Failures that are known, as for `check`: ids of tests, or patterns of them (``"gradient of the hard form/*"``),
        and the reason. What is listed must fail.

    Returns
    -------
    SamplingReport
        ``report.ok`` says whether all is well, ``str(report)`` tells, the verdict and the likely cause first.

    Raises
    ------
    TypeError
        `op` lacks one of the functions, or an argument is of the wrong type.
    ValueError
        An argument has a value that is not listed, or an entry of `known` matches no test.
    ModuleNotFoundError
        bfloat16 was asked for and the package ml_dtypes is missing.
    Exception
        Whatever `op` raises, with a note that says in which call.

    Notes
    -----
    By default the noise of 100 thousand candidates is judged for each temperature, as the soft samples tell it, and 87
    thousand hard samples for each K up to 10, 22 thousand for K = 1000. Noise that ends at G = 7 or before is found,
    and so is any other law that is not nearly Gumbel's. Noise that ends later is not: uniform numbers of 24 bits, which
    end at 16.6, show in float64 only, where they are equal too often.

    Examples
    --------
    >>> from npselect import gumbel_softmax, testing
    >>> def sample(logits, temp, hard, seed):
    ...     form = gumbel_softmax.forward if hard else gumbel_softmax.soft
    ...     return form(logits, temp, seed=seed)
    >>> def backward(grad_sample, logits, temp, hard, seed):
    ...     return gumbel_softmax.backward(grad_sample, logits, temp, seed=seed)
    >>> op = testing.SamplingOp("npselect", sample, backward)
    >>> testing.check_sampling_op(op, choices=(10,), temps=(0.6,)).ok
    True
    >>> def forgets_temp(grad_sample, logits, temp, hard, seed):
    ...     return temp * backward(grad_sample, logits, temp, hard, seed)
    >>> op = testing.SamplingOp("without temp", sample, forgets_temp)
    >>> testing.check_sampling_op(op, choices=(10,), temps=(0.6,)).likely_cause
    '1/temp is missing'
    """
    for name, call in (("sample", "logits"), ("backward", "grad_sample, logits")):
        if not callable(getattr(op, name, None)):
            raise TypeError(f"{name_of(op)} has no function {name}({call}, temp, hard, seed)")
    forms = _forms(dtypes)
    temps = _temps(temps, forms)
    asked_choices = each_choices(choices)
    seed = integer(seed, "seed", 0)
    false_alarm = probability(false_alarm, "false_alarm")
    traits = traits_of(op)

    central = min(temps, key=lambda temp: abs(math.log(temp)))
    everything = [
        _Asked(form, temp, k, temp == rounded(central, form), traits.hard_and_soft)
        for form in forms
        for temp, k in product(dict.fromkeys(rounded(temp, form) for temp in temps), asked_choices)
    ]
    known = known_failures(known, [name for asked in everything for name in asked.ids])
    chance = _CHANCE * false_alarm / sum(_rows(asked.choices) for asked in everything)
    for asked in everything:
        _ask(op, traits, asked, seed, chance)
    chances = sum(raw.p_value is not None for asked in everything for raw in asked.raw)
    tests = tuple(_judged(asked, raw, chances, false_alarm, known) for asked in everything for raw in asked.raw)
    failed = [test for test in tests if test.verdict == "failed"]
    cause = (
        likely_cause(op, traits, [one.seen for one in everything if one.seen is not None], failed) if failed else None
    )
    return SamplingReport(
        name_of(op),
        tuple(form.name for form in forms),
        temps,
        asked_choices,
        seed,
        false_alarm,
        traits.hard_and_soft,
        traits.arithmetic.flushes_subnormals,
        traits.arithmetic.normalises_logits,
        tests,
        cause,
        versions(),
        known=known,
    )


def _forms(dtypes: Tensor) -> list[Dtype]:
    several = isinstance(dtypes, (list, tuple, set, frozenset))
    forms = list(dict.fromkeys(floating_dtype(dtype) for dtype in (dtypes if several else [dtypes])))
    if not forms:
        raise ValueError("dtypes is empty; it takes at least one dtype")
    return forms


def _temps(temps: Sequence[float], forms: list[Dtype]) -> tuple[float, ...]:
    try:
        asked = tuple(temps)
    except TypeError:
        raise TypeError(f"temps is {temps!r}; it takes a sequence of numbers, such as ({temps!r},)") from None
    if not asked:
        raise ValueError("temps is empty; it takes at least one temperature")
    for temp in asked:
        if not isinstance(temp, Real):
            raise TypeError(f"temps holds {temp!r}; it takes numbers")
        for form in forms:
            if not 0 < rounded(float(temp), form) < np.inf:
                raise ValueError(f"temps holds {temp}, which must be positive and finite, in {form.name} too")
    return tuple(map(float, asked))


def _size(of_what: str, choices: int) -> int:
    return max(_VECTORS, size_of(choices, *_SIZES[of_what]))


def _rows(choices: int) -> int:
    """Of an observation."""
    return _size("gradients", choices)


def _ask(op: SamplingFunctions, traits: Traits, asked: _Asked, seed: int, chance: float) -> None:
    """Everything of one dtype, temperature and K."""
    form, temp, k = asked.form, asked.temp, asked.choices
    rng = np.random.default_rng([_STREAM, seed, k, int.from_bytes(np.float64(temp).tobytes(), "little")])
    asked.seen = observe(op, traits, question_of(_VECTORS, _rows(k), k, form, rng), temp, seed, rng, chance)
    asked.raw += judged_by_bounds(asked.seen, traits.hard_and_soft)
    if asked.seen.sampled is not None:
        asked.raw.append(law_of_noise(shares_of(asked.seen.sampled)))
    else:
        asked.raw.append(Raw(LAW, "not run"))

    def hard(logits: Array, seed: int) -> Tensor:
        return op.sample(logits, temp, True, seed)

    if asked.central:
        rows = _size("samples", k)
        many = max(rows, _size("many", k))
        found, _ = sampler_tests(hard, k, form, _VECTORS, rows, many, range(seed, seed + _SEEDS), traits.max_seed)
    else:
        found = list(_frequencies(hard, k, form, seed, rng))
    asked.raw += [Raw(test.name, test.verdict, test.comparisons, test.p_value, None, test.finding) for test in found]
    if asked.looks_for_equals:
        question = equal_logits(k, _size("equal", k), form)
        asked.raw.append(
            equal_numbers(np.asarray(op.sample(question.logits[question.vector], temp, False, seed)), temp)
        )


def _frequencies(hard: Tensor, k: int, form: Dtype, seed: int, rng: np.random.Generator) -> Iterator[SamplerTest]:
    """The tests of `check_sampler` that tell of a temperature."""
    question = question_of(_VECTORS, _size("samples", k), k, form, rng)
    try:
        index = np.stack([draw(hard, question, seed + i) for i in range(2)])
    except FormError as error:
        yield SamplerTest("form", k, "failed", 0, None, str(error))
        yield from (SamplerTest(name, k, "not run", 0, None, None) for name in _LIGHT[1:])
        return
    yield SamplerTest("form", k, "passed", index.size, None, None)
    counts = np.bincount((question.vector * k + index).ravel(), minlength=question.probs.size).reshape(-1, k)
    yield each_frequency(question, counts)
    yield mean_logit(question, counts)
    yield all_frequencies(question, counts, rng)


def _judged(asked: _Asked, raw: Raw, chances: int, false_alarm: float, known: Mapping[str, str]) -> SamplingTest:
    """With the p-value corrected for the number of tests, and the verdict that follows."""
    as_sampler = SamplerTest(raw.name, asked.choices, raw.verdict, raw.comparisons, raw.p_value, raw.finding)
    result = judged(as_sampler, chances, false_alarm * (1 - _CHANCE))
    test = SamplingTest(
        raw.name, asked.form.name, asked.temp, asked.choices, result.verdict, raw.comparisons, result.p_value,
        raw.fraction, result.finding,
    )  # fmt: skip
    reason = reason_for(test.id, known) if test.verdict == "failed" else None
    return test if reason is None else replace(test, verdict="known", known=reason)
