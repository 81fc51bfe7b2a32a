"""Cases far from the middle of the range, of many rows and of long ones: mistakes that no other case finds."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from honest import DTYPES, hard, implementation, one_hot, remembered_cases, soft_gradient, softmax, total, with_options

from npselect import gumbel_softmax, straight_through, testing
from npselect.testing.dtypes import floating_dtype
from npselect.testing.tolerance import Format

BLOCKS = [2**power for power in range(11, 17)]
FEW = {f"random/K={block + more}, few large" for block in BLOCKS for more in (-1, 0, 1)}
FAR = {"edge/200 from 0", "edge/far from 0", "edge/far from 0, large temp"}
WHERE = {"where/far from 0", "where/far from 0, large temp"}


def failing(subject, dtype="float32", operator=straight_through, only=None):
    """The cases that reject it, by name: of those without many rows and long ones, or of a few."""
    cases = remembered_cases(floating_dtype(dtype), 0.6, operator)
    asked = [case for case in cases if (case.origin is None if only is None else case.name in only)]
    report = testing.check(subject, dtypes=dtype, operator=operator, cases=asked)
    failed = {case.name for case in report.cases if case.verdict == "failed"}
    assert report.ok == (not failed)
    return failed


def around(*lengths):
    return {f"random/K={choices}, few large" for choices in lengths}


def gradient(g, logits, temp, probs):
    return soft_gradient(g, logits, temp, probs=probs)


def of_the_softmax(probs):
    return implementation(hard, partial(gradient, probs=probs))


# ------------------------------------------------------------------------------------------------ far from 0


def top_from(w, temp, first, scaled):
    """A running maximum that starts at a number; of the logits, or of the logits over temp."""
    scalar = w.dtype.type
    t = w / scalar(temp)
    if not scaled:
        e = np.exp((w - np.max(w, axis=-1, keepdims=True, initial=first)) / scalar(temp))
    else:
        e = np.exp(t - np.max(t, axis=-1, keepdims=True, initial=first))
    return e / total(e)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("first", [0.0, 1.2e-38, -100.0, -1e4, -5e4, -1e30, -0.7 * np.finfo(np.float32).max])
def test_a_maximum_that_starts_at_a_number(first, scaled):
    found = failing(of_the_softmax(partial(top_from, first=np.float32(first), scaled=scaled)))
    if scaled and first < -1e29:  # no logits over temp are so small, and honest
        assert found == set()
    else:
        assert found & FAR
        assert found <= FAR | WHERE or first >= 0


@pytest.mark.parametrize(("dtype", "first"), [("float16", -5e4), ("bfloat16", -1e38), ("float64", -1e300)])
def test_a_maximum_that_starts_at_a_number_in_every_range(dtype, first):
    found = failing(of_the_softmax(partial(top_from, first=floating_dtype(dtype).type(first), scaled=False)), dtype)
    assert found
    assert found <= FAR


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_choice_that_starts_at_zero(dtype):
    """None is larger than 0: then it is the first."""

    def forward(w, temp):
        best = np.argmax(np.concatenate([np.zeros_like(w[:, :1]), w], axis=-1), axis=-1)
        return one_hot(np.maximum(best - 1, 0)[:, None], w)

    assert "edge/far from 0" in failing(implementation(forward, soft_gradient), dtype)


@pytest.mark.parametrize("operator", [straight_through, gumbel_softmax])
@pytest.mark.parametrize("most", [100.0, 1e4])
def test_clamped_logits(most, operator):
    def clamped(w):
        return np.clip(w, np.float32(-most), np.float32(most))

    for subject in (
        with_options(hard, lambda g, w, temp: soft_gradient(g, clamped(w), temp)),
        with_options(lambda w, temp: hard(clamped(w), temp), soft_gradient),
    ):
        found = failing(subject, operator=operator)
        assert found >= FAR - ({"edge/200 from 0"} if most > 200 else set())
        assert most == 100 or found <= FAR | WHERE | {"edge/temp 2**60"}


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_maximum_for_all_rows(dtype):
    def probs(w, temp):
        e = np.exp((w - np.max(w, initial=-np.inf)) / w.dtype.type(temp))
        return e / total(e)

    assert "edge/far from 0" in failing(of_the_softmax(probs), dtype)


# ------------------------------------------------------------------------------------------------ where= by a number


def filled(number, added):
    """What is no candidate gets that number, or it is added."""

    def chosen_from(logits, where):
        if where is None:
            return logits
        with np.errstate(over="ignore"):
            return np.where(where, logits, (logits if added else 0) + logits.dtype.type(number))

    honest = with_options(hard, soft_gradient)
    return implementation(
        lambda logits, temp, *, axis=-1, where=None: honest.forward(chosen_from(logits, where), temp, axis=axis),
        lambda g, logits, temp, *, axis=-1, where=None: honest.backward(
            g if where is None else np.where(where, g, g.dtype.type(0)), chosen_from(logits, where), temp, axis=axis
        ),
    )


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize(
    ("dtype", "number"),
    [(dtype, number) for dtype in DTYPES for number in (-100.0, -1e4, -1e9, -1e30) if (number, dtype) >= (-1e4, "") or
     dtype != "float16"],
)  # fmt: skip
def test_where_by_a_number(dtype, number, added):
    found = failing(filled(number, added), dtype)
    assert found & WHERE
    assert number > -1e4 or "where/random" not in found


@pytest.mark.parametrize("dtype", DTYPES)
def test_where_by_the_smallest_number_there_is(dtype):
    """As good as none, but in a row without a candidate, in which textbooks differ."""
    smallest = -Format.of(dtype).largest
    assert not failing(filled(smallest, added=False), dtype) - {"where/NaN excluded"}


# ------------------------------------------------------------------------------------------------ many rows


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("rows", [2048, 4096, 8192, 16384, 32768, 65535, 65536])
def test_wrong_from_a_row_on(rows, dtype):
    def from_there_on(result):
        """The first rows again."""
        result[rows:] = result[: len(result[rows:])]
        return result

    forward = implementation(lambda w, t: from_there_on(hard(w, t)), soft_gradient)
    backward = implementation(hard, lambda *given: from_there_on(soft_gradient(*given)))
    for subject in (forward, backward):
        assert failing(subject, dtype, only={"random/many rows"})


@pytest.mark.parametrize("power", [18, 19, 20])
def test_wrong_from_an_entry_on(power):
    def from_there_on(result):
        result.reshape(-1)[2**power :] = 0
        return result

    wrong = lambda *given: from_there_on(soft_gradient(*given))  # noqa: E731
    assert failing(implementation(hard, wrong), only={"random/many long rows"})


def test_a_difference_in_a_part_has_its_place_in_the_whole():
    def backward(g, w, temp):
        result = soft_gradient(g, w, temp)
        result[60000:, 2] = 7
        return result

    (case,) = (
        case for case in remembered_cases(np.dtype("f4"), 0.6, straight_through) if case.name == "random/many rows"
    )
    report = testing.check(implementation(hard, backward), cases=[case])
    (outcome,) = report.cases
    assert outcome.difference.position == (60000, 2)
    assert outcome.difference.actual == 7
    assert outcome.difference.expected == case.grad_logits[60000, 2]
    with pytest.raises(AssertionError, match=r"backward\[60000, 2\] is 7"):
        case.check_backward(backward(case.grad_mask, case.logits, case.temp))


# ------------------------------------------------------------------------------------------------ long rows


def padded(values, block, number):
    missing = -values.shape[-1] % block if values.shape[-1] > block else 0
    return np.pad(values, ((0, 0), (0, missing)), constant_values=number)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("block", BLOCKS)
def test_the_last_block_is_read_as_zeros(block, dtype):
    def probs(w, temp):
        return softmax(padded(w, block, 0), temp)[:, : w.shape[-1]]

    def forward(w, temp):
        return hard(padded(w, block, 0), temp)[:, : w.shape[-1]]

    lengths = around(block - 1, block, block + 1)
    for subject in (of_the_softmax(probs), implementation(forward, soft_gradient)):
        assert failing(subject, dtype, only=lengths) == around(block + 1)


@pytest.mark.parametrize("block", [*BLOCKS, 3000, 50000])
def test_the_last_block_is_forgotten(block):
    def forgotten(values):
        values[:, values.shape[-1] // block * block :] = 0
        return values

    backward = implementation(hard, lambda *given: forgotten(soft_gradient(*given)))
    forward = implementation(lambda w, t: forgotten(hard(w, t)), soft_gradient)
    lengths = around(block - 1, block, block + 1) if block in BLOCKS else around(65535, 65537)
    for subject in (backward, forward):
        assert failing(subject, only=lengths) == lengths - around(block)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("tile", BLOCKS)
def test_the_last_tile_of_equals(tile, dtype):
    """A later tile wins that is as large."""

    def forward(w, temp):
        if w.shape[-1] <= tile:
            return hard(w, temp)
        largest = w == np.max(w, axis=-1, keepdims=True)
        last = (w.shape[-1] - 1 - np.argmax(largest[:, ::-1], axis=-1)) // tile * tile
        return hard(np.where(np.arange(w.shape[-1]) >= last[:, None], w, w.dtype.type(-np.inf)), temp)

    assert failing(implementation(forward, soft_gradient), dtype, only=around(tile + 1)) == around(tile + 1)


@pytest.mark.parametrize("lanes", [*BLOCKS, 1000, 3072])
def test_the_lowest_lane_of_equals(lanes):
    def forward(w, temp):
        if w.shape[-1] <= lanes:
            return hard(w, temp)
        order = np.arange(w.shape[-1]) % lanes * 2**20 + np.arange(w.shape[-1])
        order = np.where(w == np.max(w, axis=-1, keepdims=True), order, 2**60)
        return one_hot(np.argmin(order, axis=-1)[:, None], w)

    lengths = around(lanes + 1) if lanes in BLOCKS else FEW
    assert failing(implementation(forward, soft_gradient), only=lengths)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_an_index_of_16_bits(dtype):
    narrow = implementation(lambda w, t: one_hot(np.argmax(w, axis=-1)[:, None].astype(np.uint16), w), soft_gradient)
    assert failing(narrow, dtype, only=around(65535, 65536, 65537)) == around(65537)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_candidate_is_missed_now_and_then(dtype):
    """In one long row of a hundred."""
    rng = np.random.default_rng(1)

    def forward(w, temp):
        if w.shape[-1] < 1000:
            return hard(w, temp)
        missed = hard(w, temp).astype(bool) & (rng.random((len(w), 1)) < 0.01)
        return hard(np.where(missed, w.dtype.type(-np.inf), w), temp)

    assert failing(implementation(forward, straight_through.backward), dtype, only={"random/many long rows"})


# ------------------------------------------------------------------------------------------------ temperatures


@pytest.mark.parametrize(
    "change",
    [
        lambda t: max(t, 0.1),
        lambda t: max(t, 1e-3),
        lambda t: max(t, 1e-6),
        lambda t: max(t, 1e-12),
        lambda t: t + 1e-8,
        lambda t: t + 1e-12,
        lambda t: min(t, 100.0),
        lambda t: min(t, 1e4),
        lambda t: min(t, 1e12),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_temperatures_are_kept_in_bounds(change, dtype):
    if dtype == "float16" and all(np.float16(change(temp)) == temp for temp in (2.0**-12, 2.0**12)):
        pytest.skip("beyond the temperatures of float16")

    def backward(g, w, temp):
        return soft_gradient(g, w, change(temp))

    found = failing(implementation(hard, backward), dtype)
    assert any(name.startswith("edge/temp 2**") for name in found)


# ------------------------------------------------------------------------------------------------ subnormal logits


def flushing(w, temp):
    return hard(np.where(np.abs(w) < Format.of(w.dtype).tiny, w.dtype.type(0), w), temp)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_choice_that_takes_subnormal_logits_for_0(dtype):
    found = failing(implementation(flushing, soft_gradient), dtype)
    assert found == {"edge/subnormal logits"}
    assert not failing(implementation(flushing, soft_gradient, flushes_subnormals=True), dtype)
    strict = testing.check(implementation(flushing, straight_through.backward), dtypes=dtype, profile="strict")
    assert {case.name for case in strict.cases if case.verdict == "failed"} >= {"edge/near ties of subnormal logits"}


# ------------------------------------------------------------------------------------------------ taken answers


@pytest.mark.parametrize("operator", [straight_through, gumbel_softmax])
@pytest.mark.parametrize("dtype", DTYPES)
def test_answers_that_are_taken_are_the_oracles(dtype, operator):
    """Bit for bit: of the small case as of the large one."""
    cases = [case for case in remembered_cases(floating_dtype(dtype), 0.6, operator) if case.origin is not None]
    assert {case.name for case in cases} > FEW | {"random/many rows", "random/many long rows"}
    for case in cases:
        some = slice(0, 2**13 // case.logits.shape[-1] or 1)
        part = case.part(some)
        if part.logits.size > 2**13 + 1:
            continue
        options = {} if part.noise is None else {"noise": part.noise}
        mask = operator.forward(part.logits, part.temp, backend="reference", **options)
        grad_logits = operator.backward(part.grad_mask, part.logits, part.temp, backend="reference", **options)
        np.testing.assert_array_equal(part.mask, mask)
        np.testing.assert_array_equal(part.grad_logits, grad_logits)
        np.testing.assert_array_equal(case.mask[some], mask)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_few_large_entries_have_each_of_them_once(dtype):
    for case in remembered_cases(floating_dtype(dtype), 0.6, straight_through):
        if case.name not in FEW:
            continue
        origin, depth = case.origin, (np.max(case.w, axis=-1, keepdims=True) - case.w) / case.temp
        counts = [np.bincount(columns, minlength=64) for columns in origin.columns]
        weighs = (np.max(origin.case.w, axis=-1, keepdims=True) - origin.case.w) / case.temp < 60
        for row, count, heavy in zip(depth, counts, weighs[origin.rows], strict=True):
            assert np.all(count[heavy] == 1)
            assert np.sum(np.exp(-row[row >= 60])) < 2.0**-64


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_check_needs_no_more_memory_than_its_parts(dtype):
    """What is kept of a large case is its question."""
    cases = [case for case in testing.cases(dtype) if case.name in around(2049, 65537) | {"random/many rows"}]
    assert testing.check(implementation(hard, soft_gradient), dtypes=dtype, cases=cases).ok
    for case in cases:
        assert not {"w", "mask", "grad_logits", "_allowed"} & vars(case).keys()
