"""Rows that are split: the bits of the unsplit call, whatever the shards; merging in any order; what is refused."""

from __future__ import annotations

import functools
import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npselect import categorical, gumbel_softmax, noise, reinmax, sharded, straight_through
from npselect.testing.dtypes import floating_dtype

SPLITS = {  # the columns at which shards begin, by the length of the rows
    1: [()],
    10: [()],
    1023: [()],
    1024: [(), (0,), (1024,)],
    1025: [(), (1024,)],
    5000: [(), (1024,), (1024, 1024, 2048, 4096), (1024, 2048, 3072, 4096)],
}
LONG = {151_936: [(51_200, 102_400)]}
DTYPES = ["float32", *(pytest.param(name, marks=pytest.mark.slow) for name in ("float16", "bfloat16", "float64"))]


def rows(dtype, choices, seed=0):
    """Logits, cotangents, temperatures and where, of rows with all that a row may hold."""
    rng, form = np.random.default_rng(seed), floating_dtype(dtype)
    w, g = (scale * rng.standard_normal((9, choices)) for scale in (3, 1))
    last = choices - 1
    w[0, last // 3] = -np.inf
    w[1, last] = np.nan
    w[2] = -np.inf
    w[3, last // 2] = np.inf
    w[4, [0, last // 2, last]] = 20.0  # the first of equals, in whichever shard
    g[5, last] = np.nan
    w[6] = np.where(np.arange(choices) < choices // 2, -np.inf, w[6])
    temp = np.array([[0.5], [1.0], [2.0], [0.01], [3.0], [0.6], [0.25], [1e3], [0.7]])
    where = rng.random((9, choices)) < 0.6
    where[7] = False
    where[:7, last // 2] = True
    return w.astype(form), g.astype(form), temp.astype(form), where


class Split:
    """The calls on shards, put together as their callers would."""

    def __init__(self, starts, w, g, temp, axis=-1, **given):
        edges = [0, *starts, w.shape[axis]]
        self.places, self.axis, self.temp = list(itertools.pairwise(edges)), axis, temp
        self.w, self.g = self.cut(w), self.cut(g)
        self.given = [dict(zip(given, each, strict=True)) for each in zip(*map(self.cut, given.values()), strict=True)]
        self.given = self.given or [{}] * len(self.places)
        self.selected = self.merged(self.given)

    def cut(self, array):
        parts = [slice(first, end) for first, end in self.places]
        return [array[(*[slice(None)] * (self.axis % array.ndim), part)] for part in parts]

    def merged(self, given):
        return functools.reduce(sharded.merge, self.each(sharded.select, self.w, given=given))

    def each(self, function, *arrays, given=None):
        given = [{}] * len(self.places) if given is None else given
        together = zip(self.places, zip(*arrays, strict=True), given, strict=True)
        return [function(*some, start=first, axis=self.axis, **own) for (first, _), some, own in together]

    def joined(self, function, *arrays, given=None):
        return np.concatenate(self.each(function, *arrays, given=given), axis=self.axis)

    def all(self, *values):
        return [[value] * len(self.places) for value in values]

    def at(self, selected):
        return sum(self.each(sharded.at, self.g, *self.all(selected)))

    def totals(self, temp, g_m=None, given=None):
        more = [] if g_m is None else [self.g, *self.all(g_m)]
        selected, temps = self.all(self.selected, temp)
        return sharded.total(self.each(sharded.sums, self.w, selected, temps, *more, given=given or self.given))

    def forward(self):
        return self.joined(sharded.forward, self.w, *self.all(self.selected))

    def soft(self):
        return self.joined(
            sharded.soft, self.w, *self.all(self.selected, self.totals(self.temp), self.temp), given=self.given
        )

    def backward(self):
        g_m = self.at(self.selected)
        others = self.all(self.selected, self.totals(self.temp, g_m), g_m, self.temp)
        return self.joined(sharded.backward, self.g, self.w, *others, given=self.given)

    def backward_temp(self):
        g_m = self.at(self.selected)
        totals = self.totals(self.temp, g_m)
        others = self.all(self.selected, totals, g_m, self.temp)
        found = sharded.total(self.each(sharded.temp_sums, self.g, self.w, *others, given=self.given))
        form = self.w[0].dtype
        return sharded.backward_temp(self.selected, totals, found, self.temp, axis=self.axis, dtype=form)

    def reinmax(self, drawn):
        g_d = self.at(drawn)
        totals = self.totals(1.0, g_d), self.totals(self.temp, g_d)
        others = self.all(self.selected, drawn, *totals, g_d, self.temp)
        return self.joined(sharded.reinmax, self.g, self.w, *others, given=self.given)


def assert_same_bits(found, expected):
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    bits = f"u{expected.dtype.itemsize}"
    np.testing.assert_array_equal(found.view(bits), np.ascontiguousarray(expected).view(bits))


def assert_unsplit(split, operator, g, w, temp, **options):
    """All functions of an operator."""
    assert_same_bits(split.forward(), operator.forward(w, temp, **options))
    assert_same_bits(split.soft(), operator.soft(w, temp, **options))
    assert_same_bits(split.backward(), operator.backward(g, w, temp, **options))
    assert_same_bits(split.backward_temp(), operator.backward_temp(g, w, temp, **options))
    assert_same_bits(sharded.index(split.selected), operator.index(w, **options))


# ------------------------------------------------------------------------------------------------ bits


@pytest.mark.parametrize("excluding", [False, True])
@pytest.mark.parametrize("choices", [*SPLITS, *LONG])
@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_of_the_unsplit_call(dtype, choices, excluding):
    w, g, temp, where = rows(dtype, choices)
    options = {"where": where} if excluding else {}
    for starts in (SPLITS | LONG)[choices]:
        assert_unsplit(Split(starts, w, g, temp, **options), straight_through, g, w, temp, **options)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_bits_with_noise_of_a_block(dtype):
    """Gumbel-softmax, and the two that draw by noise and weigh without."""
    choices, starts = 2500, (1024, 2048)
    w, g, temp, _ = rows(dtype, choices)
    edges = [0, *starts, choices]
    drawn = np.concatenate(
        [noise.gumbel((9, end - first), 7, within=(w.shape, (0, first))) for first, end in itertools.pairwise(edges)],
        axis=1,
    )
    assert_unsplit(Split(starts, w, g, temp, noise=drawn), gumbel_softmax, g, w, temp, seed=7)

    split = Split(starts, w, g, temp)
    chosen = split.merged([{"noise": some} for some in split.cut(drawn)])
    assert_same_bits(split.joined(sharded.forward, split.w, *split.all(chosen)), categorical.forward(w, temp, seed=7))
    assert_same_bits(split.backward(), categorical.backward(g, w, temp, seed=7))
    assert_same_bits(split.reinmax(chosen), reinmax.backward(g, w, temp, seed=7))


@pytest.mark.parametrize("axis", [0, 1])
def test_any_axis_and_any_layout(axis):
    w, g, temp, where = (np.moveaxis(array.reshape(3, 3, -1), -1, axis) for array in rows("float32", 2048))
    for order in ("C", "F"):
        w, g = (np.asarray(array, order=order) for array in (w, g))
        split = Split((1024,), w, g, temp, axis=axis, where=where)
        assert_unsplit(split, straight_through, g, w, temp, axis=axis, where=where)
    shared = temp[:, :, :1] if axis == 1 else temp[:, :1]
    assert_unsplit(Split((1024,), w, g, shared, axis=axis), straight_through, g, w, shared, axis=axis)
    assert_unsplit(Split((1024,), w, g, 0.7, axis=axis), straight_through, g, w, 0.7, axis=axis)


def test_a_row_and_a_cotangent_of_another_dtype():
    w, g, _, _ = rows("float32", 1500)
    split = Split((1024,), w, g.astype(np.float64), 0.6)
    assert_same_bits(split.backward(), straight_through.backward(g.astype(np.float64), w, 0.6))
    one = Split((1024,), w[8], g[8], 0.6)
    assert_same_bits(one.backward(), straight_through.backward(g[8], w[8], 0.6))


def test_threads_change_nothing(monkeypatch):
    from npselect import _threads

    w, g, temp, _ = rows("float32", 40_000)
    monkeypatch.setattr(_threads, "thread_count", lambda: 3)
    assert_unsplit(Split((20_480,), w, g, temp), straight_through, g, w, temp)


# ------------------------------------------------------------------------------------------------ merging

NUMBERS = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, -np.inf, np.inf, np.nan, -np.inf, 1.0])
CANDIDATES = st.lists(st.tuples(NUMBERS, st.booleans()), min_size=1, max_size=4)


@given(st.lists(CANDIDATES, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_merging_is_exact_in_any_order_and_grouping(pieces, random):
    row, where = (np.array([entry[i] for piece in pieces for entry in piece]) for i in (0, 1))
    columns = [1024 * k + c for k, piece in enumerate(pieces) for c in range(len(piece))]
    parts = [
        sharded.select([[w for w, _ in piece]], start=1024 * k, where=[[offered for _, offered in piece]])
        for k, piece in enumerate(pieces)
    ]
    random.shuffle(parts)
    while len(parts) > 1:
        a, b = parts.pop(random.randrange(len(parts))), parts.pop(random.randrange(len(parts)))
        parts.append(sharded.merge(a, b))
    (found,) = parts
    index = straight_through.index(row, where=where)
    assert found.index[0] == (-1 if index < 0 else columns[index])
    mask = straight_through.forward(row, where=where)
    assert (found.state[0] == 0) == (not where.any())
    assert (found.state[0] in (1, 3)) == bool(np.isnan(mask).any())


def test_nothing_is_the_identity():
    w = rows("float32", 50)[0]
    some = sharded.select(w)
    nothing = [sharded.select(np.empty((9, 0), np.float32), start=1024)]
    nothing.append(sharded.select(w, start=1024, where=np.zeros((9, 1), np.bool_)))
    for empty in nothing:
        for found in (sharded.merge(some, empty), sharded.merge(empty, some)):
            for one, other in zip(found, some, strict=True):
                np.testing.assert_array_equal(one, other)


def test_what_is_selected_can_be_sent():
    some = sharded.select(rows("bfloat16", 50)[0])
    for one, other in zip(pickle.loads(pickle.dumps(some)), some, strict=True):
        assert type(one) is np.ndarray
        np.testing.assert_array_equal(one, other)
    assert [array.dtype for array in some] == [np.float32, np.int64, np.int8]


def test_shards_without_a_column():
    w, g, temp, _ = rows("float32", 2048)
    assert_unsplit(Split((0, 1024, 1024, 2048), w, g, temp), straight_through, g, w, temp)


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(("start", "nearest"), [(1, "0 and 1024"), (1500, "1024 and 2048"), (-5, "0 and 1024")])
def test_a_start_between_segments_is_refused(start, nearest):
    with pytest.raises(ValueError, match=f"start is {start}; .* The nearest are {nearest}"):
        sharded.select(np.zeros((2, 3)), start=start)


def test_what_does_not_fit_is_refused():
    w = np.zeros((2, 3))
    selected = sharded.select(w)
    totals = sharded.total([sharded.sums(w, selected)])
    for call, error, message in (
        (lambda: sharded.select(w, start=0.5), TypeError, "start is 0.5"),
        (lambda: sharded.select([["a"]]), TypeError, "logits has dtype"),
        (lambda: sharded.select(w, axis=2), np.exceptions.AxisError, "axis 2"),
        (lambda: sharded.select(w, where=np.ones((3, 3), bool)), ValueError, "where has shape"),
        (
            lambda: sharded.merge(selected, sharded.select(w[:1])),
            ValueError,
            r"a has shape \(2,\) and b has shape \(1,\)",
        ),
        (lambda: sharded.forward(w[:1], selected), ValueError, "selected has shape"),
        (lambda: sharded.sums(w, selected, 0.0), ValueError, "temp is 0.0"),
        (lambda: sharded.sums(w, selected, 1.0, w), TypeError, "grad_mask and g_selected go together"),
        (lambda: sharded.sums(w, selected, 1.0, w, 0.0), ValueError, "g_selected has shape"),
        (lambda: sharded.sums(w, selected, 1.0, w[:1], [0.0, 0.0]), ValueError, "grad_mask has shape"),
        (lambda: sharded.total([]), ValueError, "parts is empty"),
        (lambda: sharded.soft(w, selected, totals[:1]), ValueError, "totals has shape"),
        (lambda: sharded.backward(w, w, selected, totals, [0.0, 0.0]), ValueError, "totals has 1 numbers a row"),
        (lambda: sharded.backward_temp(selected, totals, totals), ValueError, "totals has shape"),
        (
            lambda: sharded.backward_temp(selected, np.ones((2, 2)), totals, axis=2),
            np.exceptions.AxisError,
            "axis 2",
        ),
    ):
        with pytest.raises(error, match=message):
            call()
