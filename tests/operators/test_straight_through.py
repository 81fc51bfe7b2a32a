"""The truth table of the operators, row by row, on both tiers and in every dtype.

Gumbel-softmax with noise of 0 is straight-through selection, and must fill the same table.
"""

from functools import partial
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

from npselect import gumbel_softmax, straight_through
from npselect.tiers import choose

DTYPES = [np.dtype(name) for name in ("float16", ml_dtypes.bfloat16, "float32", "float64")]
nan, inf = np.nan, np.inf

NO_NOISE = SimpleNamespace(
    **{name: partial(getattr(gumbel_softmax, name), noise=np.float64(0.0)) for name in gumbel_softmax.__all__}
)
pytestmark = [
    pytest.mark.parametrize("st", [straight_through, NO_NOISE], ids=["straight_through", "gumbel_softmax"]),
    pytest.mark.parametrize("backend", ["reference", "cpu"]),
    pytest.mark.parametrize("dtype", DTYPES, ids=str),
]


def array(values, dtype):
    return np.array(values, dtype=np.float64).astype(dtype)


def all_functions(st, logits, grad, **options):
    """Every result of the operator that has the logits' shape, by name."""
    index_options = {name: value for name, value in options.items() if name != "temp"}
    first, second = st.double_backward(grad, grad, logits, **options)
    return {
        "forward": st.forward(logits, **options),
        "soft": st.soft(logits, **options),
        "backward": st.backward(grad, logits, **options),
        "jvp": st.jvp(grad, logits, **options),
        "double_backward[0]": first,
        "double_backward[1]": second,
        "index": st.index(logits, **index_options),
    }


def assert_rows(result, expected):
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result.astype(np.float64), expected.astype(np.float64))


@pytest.mark.parametrize(
    ("row", "selected"),
    [
        ([1.0, 3.0, 3.0, 2.0], 1),
        ([3.0, 3.0, 3.0], 0),
        ([-0.0, 0.0], 0),
        ([0.0, -0.0], 0),
        ([-1.0, -0.0, 0.0], 1),
        ([-inf, -5.0, -inf, -5.0], 1),
        ([5.0], 0),
        ([-3.0, -2.0, -1.0], 2),
    ],
)
def test_lowest_index_among_equals(row, selected, st, dtype, backend):
    logits = array([row], dtype)
    one_hot = np.zeros(logits.shape)
    one_hot[0, selected] = 1.0
    mask = st.forward(logits, backend=backend)
    assert_rows(mask, one_hot.astype(dtype))
    assert not np.signbit(mask.astype(np.float64)).any()
    assert st.index(logits, backend=backend).tolist() == [selected]


def test_ties_are_decided_on_the_logits_and_not_on_rounded_probabilities(st, dtype, backend):
    step = np.nextafter(array(1.0, dtype), array(2.0, dtype))
    logits = np.array([[1.0, step, 1.0]], dtype=dtype)
    hot = array(2.0**14 if dtype == np.float16 else 1e30, dtype)  # softmax(logits / temp) is (1/3, 1/3, 1/3)
    assert st.index(logits, backend=backend).tolist() == [1]
    assert_rows(st.forward(logits, hot, backend=backend), array([[0, 1, 0]], dtype))


@pytest.mark.parametrize("temp", [0.0, -1.0, nan, inf, -inf])
def test_temp_must_be_positive_and_finite(temp, st, dtype, backend):
    logits = array([[1.0, 2.0]], dtype)
    calls = [
        lambda t: st.forward(logits, t, backend=backend),
        lambda t: st.soft(logits, t, backend=backend),
        lambda t: st.backward(logits, logits, t, backend=backend),
        lambda t: st.jvp(logits, logits, t, backend=backend),
        lambda t: st.backward_temp(logits, logits, t, backend=backend),
        lambda t: st.double_backward(logits, logits, logits, t, backend=backend),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"temp is .* it must be positive and finite"):
            call(temp)
        with pytest.raises(ValueError, match="temp is"):
            call(np.array([[temp]]))


@pytest.mark.parametrize("junk", [nan, inf, -inf, 7.0])
def test_excluded_entries_are_never_selected_and_get_a_gradient_of_zero(junk, st, dtype, backend):
    grad = array([[1.0, junk, -2.0, junk]], dtype)
    by_logit = array([[0.5, -inf, 0.25, -inf]], dtype)
    by_where = array([[0.5, 9.0, 0.25, nan]], dtype)
    alone = array([[0.5, 0.25]], dtype)
    alone_grad = array([[1.0, -2.0]], dtype)
    where = np.array([True, False, True, False])
    expected = all_functions(st, alone, alone_grad, backend=backend)
    for logits, options in ((by_logit, {}), (by_where, {"where": where}), (by_logit, {"where": where})):
        results = all_functions(st, logits, grad, backend=backend, **options)
        assert results.pop("index").tolist() == [0]
        for name, result in results.items():
            full = np.zeros((1, 4))
            full[:, [0, 2]] = expected[name].astype(np.float64)
            assert_rows(result, full.astype(dtype))
            assert not np.signbit(result[:, [1, 3]].astype(np.float64)).any()


def test_a_row_without_an_offered_candidate_is_zero(st, dtype, backend):
    logits = array([[nan, inf, 1.0], [1.0, 2.0, 3.0], [-inf, -inf, -inf]], dtype)
    where = np.array([[False] * 3, [True] * 3, [False] * 3])
    results = all_functions(st, logits, array(np.full((3, 3), nan), dtype), where=where, backend=backend)
    assert results.pop("index").tolist() == [-1, 2, -1]
    for result in results.values():
        assert_rows(result[[0, 2]], array(np.zeros((2, 3)), dtype))
    assert_rows(st.backward_temp(logits[:1], logits[:1], where=where[:1], backend=backend), array(0.0, dtype))


@pytest.mark.parametrize(
    "row", [[-inf, -inf], [nan, 1.0], [1.0, nan], [inf, 1.0], [inf, inf], [-inf, nan], [nan, nan], [1.0, inf]]
)
def test_rows_that_are_nan_throughout(row, st, dtype, backend):
    logits = array([[1.0, 2.0], row, [2.0, 1.0]], dtype)
    results = all_functions(st, logits, array(np.ones((3, 2)), dtype), backend=backend)
    assert results.pop("index").tolist() == [1, -1, 0]
    for result in results.values():
        assert np.isnan(result[1].astype(np.float64)).all()
        assert np.isfinite(result[[0, 2]].astype(np.float64)).all()
    assert np.isnan(np.float64(st.backward_temp(logits, logits, backend=backend)))
    assert np.isfinite(np.float64(st.backward_temp(logits[::2], logits[::2], backend=backend)))


def test_all_candidates_minus_infinity_beside_entries_that_are_none(st, dtype, backend):
    logits = array([[-inf, 3.0, -inf]], dtype)
    results = all_functions(st, logits, logits, where=np.array([True, False, True]), backend=backend)
    assert results.pop("index").tolist() == [-1]
    for result in results.values():
        assert np.isnan(result.astype(np.float64)).all()


@pytest.mark.parametrize("value", [nan, inf])
def test_nan_policy_raise_names_the_first_position(value, st, dtype, backend):
    logits = array([[0.0, -inf, 0.0], [0.0, 0.0, value], [value, 0.0, 0.0]], dtype)
    match = rf"logits( \+ noise\))?\[1, 2\] is {value}.*nan_policy"
    ok = array(np.zeros((3, 3)), dtype)
    for call in (
        lambda: st.forward(logits, nan_policy="raise", backend=backend),
        lambda: st.soft(logits, nan_policy="raise", backend=backend),
        lambda: st.index(logits, nan_policy="raise", backend=backend),
        lambda: st.backward(ok, logits, nan_policy="raise", backend=backend),
        lambda: st.jvp(ok, logits, nan_policy="raise", backend=backend),
        lambda: st.backward_temp(ok, logits, nan_policy="raise", backend=backend),
        lambda: st.double_backward(ok, ok, logits, nan_policy="raise", backend=backend),
    ):
        with pytest.raises(ValueError, match=match):
            call()
    st.forward(logits, where=np.isfinite(logits.astype(np.float64)), nan_policy="raise", backend=backend)
    with pytest.raises(ValueError, match="nan_policy is 'omit'; it takes 'propagate' or 'raise'"):
        st.forward(ok, nan_policy="omit", backend=backend)


@pytest.mark.parametrize("value", [nan, inf, -inf])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_cotangent_that_is_not_finite_spoils_its_row_alone(value, position, st, dtype, backend):
    logits = array([[0.0, 1.0, 2.0, -inf], [0.0, 1.0, 2.0, -inf]], dtype)
    grad = array([[1.0, 2.0, 3.0, 4.0]] * 2, dtype)
    spoilt = grad.copy()
    spoilt[1, position] = value
    clean, broken = (st.backward(g, logits, backend=backend) for g in (grad, spoilt))
    assert_rows(broken[:1], clean[:1])
    assert not np.isfinite(broken[1, :3].astype(np.float64)).any()
    assert broken[1, 3] == 0
    for v, g in ((spoilt, grad), (grad, spoilt)):
        first, second = st.double_backward(v, g, logits, backend=backend)
        assert np.isfinite(first[0].astype(np.float64)).all()
        assert np.isfinite(second[0].astype(np.float64)).all()
        assert not np.isfinite(second[1, :3].astype(np.float64)).any()
        assert np.isfinite(first[1, :3].astype(np.float64)).all() == (v is grad)
        assert second[1, 3] == 0
    temps = array([[0.5], [0.5]], dtype)
    grad_temp = st.backward_temp(spoilt, logits, temps, backend=backend)
    assert np.isfinite(grad_temp.astype(np.float64)).tolist() == [[True], [False]]


def test_a_cotangent_that_is_not_finite_counts_where_the_probability_underflows(st, dtype, backend):
    logits = array([[0.0, -3e4]], dtype)
    result = st.backward(array([[1.0, inf]], dtype), logits, 0.125, backend=backend)
    assert not np.isfinite(result.astype(np.float64)).any()


def test_one_choice(st, dtype, backend):
    logits = array([[3.0], [-1e4]], dtype)
    grad = array([[5.0], [-2.0]], dtype)
    results = all_functions(st, logits, grad, backend=backend)
    assert results.pop("index").tolist() == [0, 0]
    for name, result in results.items():
        assert_rows(result, array([[name in ("forward", "soft")]] * 2, dtype))
    assert st.backward_temp(grad, logits, backend=backend) == 0


def test_no_choices(st, dtype, backend):
    for shape in ((3, 0), (0, 0), (0,)):
        logits = np.zeros(shape, dtype)
        with pytest.raises(ValueError, match="no candidates along axis"):
            st.forward(logits, backend=backend)
        with pytest.raises(ValueError, match="no candidates along axis"):
            st.backward(logits, logits, backend=backend)


def test_no_rows(st, dtype, backend, monkeypatch):
    def launched(*_):
        raise AssertionError

    tier = choose(backend)
    for name in ("mask", "index", "soft", "backward", "backward_temp", "double_backward"):
        monkeypatch.setattr(tier, name, launched)
    for shape in ((0, 5), (2, 0, 3)):
        logits = np.zeros(shape, dtype)
        results = all_functions(st, logits, logits, backend=backend)
        assert results.pop("index").shape == shape[:-1]
        for result in results.values():
            assert result.shape == shape
            assert result.dtype == dtype
        assert st.backward_temp(logits, logits, backend=backend) == 0
        per_row = np.ones((*shape[:-1], 1))
        assert st.backward_temp(logits, logits, per_row, backend=backend).shape == per_row.shape


def test_extreme_logits_and_temperatures(st, dtype, backend):
    big = 6e4 if dtype == np.float16 else 1e30
    logits = array([[big, -big, big, 0.0]], dtype)
    grad = array([[1.0, 2.0, 3.0, 4.0]], dtype)
    half = array([[0.5, 0, 0.5, 0]], dtype)
    for temp in (1e-30, 1.0):
        assert_rows(st.soft(logits, temp, backend=backend), half)
        scale = 0.5 / float(np.float32(temp) if dtype != np.float64 else temp)  # h = (0, ., 2, .), d = 1
        with np.errstate(over="ignore"):
            expected = array([[-scale, 0.0, scale, 0.0]], dtype).astype(np.float64)
        result = st.backward(grad, logits, temp, backend=backend).astype(np.float64)
        np.testing.assert_allclose(result, expected, rtol=2 * float(ml_dtypes.finfo(dtype).eps), atol=0)  # 2 roundings
    equal = st.soft(logits, 1e300 if dtype == np.float64 else 3e38, backend=backend)
    assert_rows(equal, array([[0.25] * 4], dtype))


def test_bad_axis_and_shapes(st, dtype, backend):
    logits = np.zeros((2, 3), dtype)
    for axis in (2, -3):
        with pytest.raises(np.exceptions.AxisError):
            st.forward(logits, axis=axis, backend=backend)
        with pytest.raises(np.exceptions.AxisError):
            st.backward(logits, logits, axis=axis, backend=backend)
    with pytest.raises(np.exceptions.AxisError):
        st.forward(np.zeros((), dtype), backend=backend)
    with pytest.raises(TypeError):
        st.forward(logits, axis=0.0, backend=backend)
    with pytest.raises(ValueError, match=r"grad_mask has shape \(3,\) and logits has shape \(2, 3\)"):
        st.backward(np.zeros(3, dtype), logits, backend=backend)
    with pytest.raises(ValueError, match=r"grad_grad_logits has shape \(3, 2\) and logits has shape \(2, 3\)"):
        st.double_backward(logits.T, logits, logits, backend=backend)
    with pytest.raises(ValueError, match=r"where has shape \(2,\) and logits has shape \(2, 3\)"):
        st.forward(logits, where=[True, False], backend=backend)
    for shape in ((2,), (3,), (2, 3), (1, 3), (3, 1), (1, 1, 1), (2, 2, 1)):
        with pytest.raises(ValueError, match=r"temp has shape .* and logits has shape \(2, 3\)"):
            st.forward(logits, np.ones(shape), backend=backend)


def test_every_row_has_its_own_temperature(st, dtype, backend):
    rng = np.random.default_rng(5)
    logits, grad = (rng.standard_normal((4, 3, 5)).astype(dtype) for _ in range(2))
    temps = rng.uniform(0.2, 3.0, (4, 1, 1))
    soft, back = (
        f(temps)
        for f in (
            lambda t: st.soft(logits, t, backend=backend),
            lambda t: st.backward(grad, logits, t, backend=backend),
        )
    )
    for i in range(4):
        one = float(temps[i, 0, 0])
        assert_rows(soft[i], st.soft(logits[i], one, backend=backend))
        assert_rows(back[i], st.backward(grad[i], logits[i], one, backend=backend))


def test_the_gradient_of_temp_has_its_shape_and_sums_over_what_shares_it(st, dtype, backend):
    rng = np.random.default_rng(6)
    logits, grad = (rng.standard_normal((4, 5, 3)).astype(dtype) for _ in range(2))
    single = st.backward_temp(grad, logits, 0.7, backend=backend)
    assert single.shape == ()
    assert isinstance(single, np.generic)
    for axis, shape in ((1, (4, 1, 3)), (1, (1, 1, 3)), (1, (4, 1, 1)), (1, (1, 1, 1)), (2, (5, 1)), (0, (1, 5, 3))):
        temps = rng.uniform(0.3, 2.0, shape)
        result = st.backward_temp(grad, logits, temps, axis=axis, backend=backend)
        assert result.shape == shape
        assert result.dtype == dtype
        full = np.broadcast_to(temps, [1 if i == axis else n for i, n in enumerate(logits.shape)])
        rows = st.backward_temp(grad, logits, np.ascontiguousarray(full), axis=axis, backend=backend)
        assert rows.shape == full.shape
        padded = (1,) * (3 - len(shape)) + shape
        summed = tuple(i for i in range(3) if padded[i] == 1)
        terms = rows.astype(np.float64)
        expected = terms.sum(axis=summed, keepdims=True).reshape(shape)
        unit = float(ml_dtypes.finfo(dtype).eps)  # each of up to 20 terms is rounded, and so is each sum
        bound = 22 * unit * np.abs(terms).sum(axis=summed, keepdims=True).reshape(shape)
        assert np.all(np.abs(result.astype(np.float64) - expected) <= bound)
