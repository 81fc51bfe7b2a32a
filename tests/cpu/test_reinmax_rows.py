"""`choice`, `mask_at` and `reinmax` of the CPU tier, beside their definitions in NumPy.

The expected gradient is ``2 J((q + onehot_m) / 2) g - J(p) g / 2`` in longdouble. How far a result may be from it, with
u the unit roundoff of the compute type, D = 16 + K / 1024 the longest chain of additions of a sum over a row, and
A = sum_j q_j |h_j|, B = sum_j p_j |h_j|:

- an exponential is relatively wrong by at most 4 u (1 ULP, and what is wrong with t), the sum of them by (4 + D) u, and
  p and q by (9 + D) u;
- a = sum_j e_j h_j / s is wrong by (11 + 2 D) u A: each term by 4 u, by u for h and by D u for the additions, the sum's
  divisor by (4 + D) u, and the division by u; b likewise with B;
- ((2 q_j - p_j) h_j - (q_j a - p_j b)) / 2: relatively (9 + D) u for p and q and 4 u for the operations, on
  (2 q_j + p_j) |h_j| + q_j A + p_j B, and what is wrong with h, a and b: less than
  (24 + 3 D) u (q_j (|h_j| + A) + p_j (|h_j| + B)). At m, likewise, less than (24 + 3 D) u (2 A + p_m B).

At temperature 1, p is q and a is b, to the bit; so at j != m, ``p_j h_j / 2`` is relatively wrong by (9 + D) u for p
and 3 u for the operations alone.

longdouble's own error in t counts up to 2 u for float64, as |t| < 746. Where numbers are subnormal, each operation adds
up to one smallest subnormal. At last the result is rounded to the dtype.
"""

from __future__ import annotations

from typing import Any

import bits
import ml_dtypes
import numpy as np
import pytest

from npselect._stream import StreamNumbers
from npselect.tiers.cpu import rows, short_rows

dtypes = pytest.mark.parametrize("dtype", list(bits.DTYPES))
EMPTY, INVALID, REFUSED = -1, -2, -3
Wide = np.longdouble


def compute_of(dtype: Any) -> Any:
    return np.float64 if dtype == np.float64 else np.float32


def offered_of(given: dict[str, Any], where: Any) -> Any:
    return np.broadcast_to(True if where is None else where, given["logits"].shape)


def expected_choice(x: Any, offered: Any) -> Any:
    """By the rule, of logits that noise was added to."""
    found = []
    for row, candidates in zip(x.astype(np.float64), offered, strict=True):
        values = row[candidates]
        if not len(values):
            found.append(EMPTY)
        elif np.isnan(values).any() or not np.isfinite(values.max()):
            found.append(INVALID)
        else:
            found.append(int(np.argmax(np.where(candidates, row, -np.inf))))
    return np.array(found)


def some_choice(logits: Any, offered: Any, seed: int) -> Any:
    """A candidate of each row, seldom the largest; EMPTY or INVALID where there is none."""
    random = np.random.default_rng(seed)
    choice = expected_choice(logits, offered)
    for r in np.flatnonzero(choice >= 0):
        choice[r] = random.choice(np.flatnonzero(offered[r] & (logits[r].astype(np.float64) > -np.inf)))
    return choice


def jacobian(w: Any, g: Any) -> Any:
    return w * (g - (w * g).sum(-1, keepdims=True))


def softmax(logits: Any, temp: Any) -> Any:
    with np.errstate(over="ignore", under="ignore"):
        e = np.exp((logits - logits.max(-1, keepdims=True)) / temp)
    return e / e.sum(-1, keepdims=True)


def definition(g: Any, logits: Any, m: int, temp: Any) -> tuple[Any, Any]:
    """Of the candidates of one row: the gradient, and how far from it a float64 or float32 result may be, over u."""
    g, logits = g.astype(Wide), logits.astype(Wide)
    p, q, one_hot = softmax(logits, Wide(1)), softmax(logits, Wide(temp)), np.zeros(len(g), Wide)
    one_hot[m] = 1
    h = g - g[m]  # a constant drops out
    with np.errstate(under="ignore"):
        gradient = 2 * jacobian((q + one_hot) / 2, h) - jacobian(p, h) / 2
        a, b = (q * abs(h)).sum(), (p * abs(h)).sum()
        size = q * (abs(h) + a) + p * (abs(h) + b)
        size[m] = 2 * a + p[m] * b
    return gradient, size * (26 + 3 * (16 + len(g) / 1024))


def allowed(gradient: Any, size: Any, g: Any, dtype: Any) -> Any:
    """The bound of this module's docstring."""
    compute, stored = np.finfo(compute_of(dtype)), ml_dtypes.finfo(dtype)
    largest = abs(g.astype(Wide)).max() * 2 + 1
    with np.errstate(under="ignore"):
        computed = Wide(1.01) * size * Wide(compute.eps) / 2 + 8 * Wide(compute.smallest_subnormal) * largest
    return computed + (abs(gradient) + computed) * Wide(float(stored.eps)) / 2 + Wide(float(stored.smallest_subnormal))


def run_reinmax(given: dict[str, Any], choice: Any, temp: Any, where: Any) -> Any:
    out = np.full_like(given["logits"], 7)
    rows.reinmax(given["grad_mask"], given["logits"], choice, temp, where, out)
    return out


def trials(dtype: str, choices: int) -> Any:
    given = bits.inputs(bits.DTYPES[dtype], choices)
    compute = compute_of(bits.DTYPES[dtype])
    each, one = given["temp"][:, 0], np.full(1, 0.6, compute)
    return given, [(None, each), (given["where"], each), (given["where"][:1], one), (None, one)]


# ------------------------------------------------------------------------------------------------ choices


@dtypes
@pytest.mark.parametrize("choices", bits.CHOICES)
def test_choice(dtype: str, choices: int) -> None:
    """With no noise, with an array of it, and with that of a seed."""
    given, options = trials(dtype, choices)
    logits, compute = given["logits"], compute_of(bits.DTYPES[dtype])
    stream = StreamNumbers(2**63 + 5, 3, logits.shape, (0, 1), np.dtype(compute))
    drawn = np.empty(logits.size, compute)
    rows.gumbel(2**63 + 5, 3, drawn)
    out = np.empty(len(logits), np.int64)
    for where, _ in options[:3]:
        offered = offered_of(given, where)
        for noise, added in ((None, 0), (given["noise"], given["noise"]), (stream, drawn.reshape(logits.shape))):
            rows.choice(logits, noise, None, where, out)
            with np.errstate(invalid="ignore", over="ignore"):
                expected = expected_choice(logits.astype(compute) + added, offered)
            np.testing.assert_array_equal(out, expected)
            index = np.empty_like(out)
            rows.index(logits, noise, where, index)
            np.testing.assert_array_equal(index, np.maximum(expected, -1))


@dtypes
@pytest.mark.parametrize("choices", [1, 2, 8, 33, 128, 129, 1025])
def test_a_given_index_is_checked(dtype: str, choices: int) -> None:
    given, options = trials(dtype, choices)
    logits = given["logits"]
    out, states = np.empty(len(logits), np.int64), set()
    for where, _ in options[:3]:
        offered = offered_of(given, where)
        found = expected_choice(logits, offered)
        for i in (-(2**40), -3, -2, -1, 0, choices // 3, choices // 2, choices - 1, choices, choices + 1, 2**40):
            rows.choice(logits, None, np.full(len(logits), i), where, out)
            for r, state in enumerate(found):
                if not -1 <= i < choices:
                    expected = REFUSED
                elif state == INVALID:
                    expected = INVALID
                elif state == EMPTY or i == -1:
                    expected = EMPTY if state == i else REFUSED
                else:
                    expected = i if offered[r, i] and logits[r, i] > -np.inf else REFUSED
                assert out[r] == expected, (r, i)
                states.add(min(expected, 0))
    assert states == {0, EMPTY, INVALID, REFUSED}


@dtypes
@pytest.mark.parametrize("choices", [1, 3, 16, 128, 129, 1025])
def test_mask_at(dtype: str, choices: int) -> None:
    choice = np.random.default_rng(choices).integers(0, choices, 37)
    choice[3:7], choice[20] = (EMPTY, INVALID, EMPTY, INVALID), INVALID
    out = np.full((37, choices), 7, bits.DTYPES[dtype])
    rows.mask_at(choice, out)
    expected = (choice[:, None] == np.arange(choices)).astype(bits.DTYPES[dtype])
    expected[choice == INVALID] = np.nan
    np.testing.assert_array_equal(out.astype(np.float64), expected.astype(np.float64))
    assert not np.signbit(out[choice != INVALID].astype(np.float64)).any()


# ------------------------------------------------------------------------------------------------ reinmax


@dtypes
@pytest.mark.parametrize("choices", bits.CHOICES)
def test_reinmax(dtype: str, choices: int, record: Any) -> None:
    """Every row within the bound, or as its state wants it; excluded entries are +0."""
    given, options = trials(dtype, choices)
    g, logits = given["grad_mask"], given["logits"]
    for where, temp in options:
        offered = offered_of(given, where)
        choice = some_choice(logits, offered, choices)
        out = run_reinmax(given, choice, temp, where).astype(np.float64)
        for r, m in enumerate(choice):
            if m < 0:
                assert np.isnan(out[r]).all() if m == INVALID else not (out[r].any() or np.signbit(out[r]).any())
                continue
            candidates = offered[r] & (logits[r].astype(np.float64) > -np.inf)
            assert not out[r][~candidates].any()
            assert not np.signbit(out[r][~candidates]).any()
            some = g[r][candidates]
            if not np.isfinite(some.astype(np.float64)).all():
                assert np.isnan(out[r][candidates]).all()
                continue
            place = int(np.count_nonzero(candidates[:m]))
            gradient, size = definition(some, logits[r][candidates], place, temp[r % len(temp)])
            bound = allowed(gradient, size, some, bits.DTYPES[dtype])
            ratio = abs(out[r][candidates].astype(Wide) - gradient) / bound
            record(f"reinmax on the CPU, {dtype}, in bounds", float(ratio.max()))
            assert ratio.max() <= 1, (r, int(ratio.argmax()))
            if candidates.sum() == 1:
                assert not out[r].any()


def test_the_bound_finds_mistakes() -> None:
    """Formulas that are nearly right are far outside."""
    given, _ = trials("float32", 33)
    g, logits, temp = (given["grad_mask"][0], given["logits"][0], np.float32(0.6))
    gradient, size = definition(g, logits, 4, temp)
    bound = allowed(gradient, size, g, np.dtype(np.float32))
    p, q, one_hot = softmax(logits.astype(Wide), 1), softmax(logits.astype(Wide), Wide(temp)), np.eye(33)[4]
    mistakes = {
        "the factor 2 is missing": jacobian((q + one_hot) / 2, g) - jacobian(p, g) / 2,
        "the one-hot is left out": 2 * jacobian(q, g) - jacobian(p, g) / 2,
        "divided by temp": gradient / temp,
        "q in place of p": 2 * jacobian((q + one_hot) / 2, g) - jacobian(q, g) / 2,
        "the mean over candidates": gradient - gradient[1:].mean(),
    }
    for name, wrong in mistakes.items():
        assert (abs(wrong - gradient) > bound).any(), name


@dtypes
@pytest.mark.parametrize("choices", [choices for choices in bits.CHOICES if 32 <= choices <= 128])
def test_same_bits_as_for_long_rows(dtype: str, choices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for longest in (128, 0):
        monkeypatch.setattr(short_rows, "MAX_SHORT_ROW", longest)
        given, options = trials(dtype, choices)
        results = []
        for where, temp in options:
            choice = np.empty(len(given["logits"]), np.int64)
            rows.choice(given["logits"], None, None, where, choice)
            index = some_choice(given["logits"], offered_of(given, where), 1)
            checked = np.empty_like(choice)
            rows.choice(given["logits"], None, np.maximum(index, -1), where, checked)
            np.testing.assert_array_equal(checked, index)
            results += [choice, *(run_reinmax(given, each, temp, where) for each in (choice, index))]
        found.append(bits.digest(results))
    assert found[0] == found[1]


@dtypes
@pytest.mark.parametrize("choices", [129, 1024, 1025, 1039, 5000])
def test_same_bits_segment_by_segment(dtype: str, choices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given, options = trials(dtype, choices)
    choices_of = [some_choice(given["logits"], offered_of(given, where), 2) for where, _ in options]

    def results() -> str:
        pairs = zip(options, choices_of, strict=True)
        return bits.digest(run_reinmax(given, choice, temp, where) for (where, temp), choice in pairs)

    expected = results()
    monkeypatch.setattr(rows, "ROW_MEMORY", 0)
    assert results() == expected


@pytest.mark.parametrize("row_memory", [rows.ROW_MEMORY, 0])
@pytest.mark.parametrize("choices", [1, 33, 128, 129, 1025, 5000])
def test_kernels_stay_in_their_scratch_memory(
    choices: int, row_memory: int, guards: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "ROW_MEMORY", row_memory)
    given, options = trials("float32", choices)
    for where, temp in options:
        choice = np.empty(len(given["logits"]), np.int64)
        rows.choice(given["logits"], None, None, where, choice)
        rows.mask_at(choice, np.empty_like(given["logits"]))
        run_reinmax(given, choice, temp, where)
    assert len(guards) >= 24
    assert all(np.all(guard == 7) for guard in guards)


@pytest.mark.parametrize("choices", [2, 33, 200])
def test_a_saturated_row(choices: int) -> None:
    """The gradient at an entry far below the selected one is not lost beside what is subtracted from it."""
    logits, g = np.zeros((1, choices)), np.zeros((1, choices))
    logits[0, 1:], g[0, 1] = -50, 1
    out = np.empty_like(logits)
    rows.reinmax(g, logits, np.zeros(1, np.int64), np.ones(1), None, out)
    p = np.exp(-50.0)
    np.testing.assert_allclose(out[0, 1], p / 2, rtol=1e-14)
    np.testing.assert_allclose(out[0, 0], -p / 2, rtol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("choices", [2, 10, 128, 129, 1025])
def test_at_temperature_1_small_entries_keep_their_digits(dtype: str, choices: int) -> None:
    """``p_j h_j / 2`` where p_j b is much larger: within the roundings of p and of three operations."""
    random, kind = np.random.default_rng(choices), bits.DTYPES[dtype]
    logits = random.normal(size=(64, choices)).astype(kind)
    grad_mask = random.normal(size=logits.shape).astype(kind)
    choice = random.integers(0, choices, len(logits))
    near = random.random(logits.shape) < 0.5  # the drawn entry's cotangent, but for a few last places
    selected = np.take_along_axis(grad_mask, choice[:, None], -1)
    grad_mask[near] = (np.broadcast_to(selected, logits.shape) * kind.type(1 + 2.0**-18))[near]
    np.put_along_axis(grad_mask, choice[:, None], selected, -1)
    out = np.empty_like(logits)
    rows.reinmax(grad_mask, logits, choice, np.ones(1, kind), None, out)
    p, h = softmax(logits.astype(Wide), Wide(1)), grad_mask.astype(Wide) - selected.astype(Wide)
    others = np.arange(choices) != choice[:, None]
    chain = 16 + choices / 1024
    wrong = abs(out.astype(Wide) - p * h / 2)[others]
    assert (wrong <= (12 + chain) * Wide(np.finfo(kind).eps) / 2 * abs(p * h / 2)[others]).all()
