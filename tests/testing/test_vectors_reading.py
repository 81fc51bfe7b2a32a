"""Vectors read back: the cases they were, and judged as those are."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from written_vectors import FILES, OPERATORS, bits, load, originals

from npselect import testing
from npselect.testing import tolerance, tolerance_categorical, tolerance_gapped, tolerance_gumbel_rao, tolerance_reinmax
from npselect.testing.dtypes import floating_dtype
from npselect.testing.profile import Profile

pytestmark = pytest.mark.usefixtures("remembered_vectors")


@pytest.mark.parametrize(("operator", "dtype"), FILES)
def test_round_trip(folder, operator, dtype):
    cases = originals(operator, dtype)
    loaded = load(folder, operator, dtype)
    for case in loaded:
        original = cases[case.id.partition("[:")[0]]
        assert case.note == original.note
        assert set(case.flags) - {"strict"} == set(original.flags)
        assert case.axis == original.axis
        assert np.array_equal(case.temp, original.temp, equal_nan=True)
        assert case.group == original.group
        rows = slice(len(case.logits))
        for key in ("logits", "grad_mask", "noise", "mask", "grad_logits"):
            if "error" in case.flags and key in ("mask", "grad_logits"):
                with pytest.raises(ValueError, match=r"."):
                    getattr(case, key)
                continue
            read, expected = getattr(case, key), getattr(original, key)
            if expected is None:
                assert read is None
                continue
            assert read.dtype == expected.dtype == floating_dtype(dtype)
            assert read.shape == expected[rows].shape
            same = bits(read) == bits(expected[rows])
            assert np.all(same | np.isnan(read) & np.isnan(expected[rows]))
            if key in ("logits", "grad_mask", "noise"):
                assert np.all(same)
        assert case.settings == original.settings
        if original.index is None:
            assert case.index is None
        else:
            assert case.index.dtype == np.int64
            cut = case.index.shape != original.index.shape
            assert np.array_equal(case.index, original.index[rows] if cut else original.index)
        if original.where is None:
            assert case.where is None
        else:
            assert np.array_equal(case.where, np.broadcast_to(original.where, original.logits.shape)[rows])
        if "error" not in case.flags:
            bound = original.bound[rows]
            assert np.array_equal(np.isnan(case.bound), np.isnan(bound))
            assert not np.any(case.bound < bound)
            assert not np.any(case.bound > bound * (1 + 2.0**-15))
            judged = original.judged(Profile("standard"))
            assert np.array_equal(
                case.judged(Profile("standard")), judged if len(case.w) == len(judged) else judged[rows]
            )


def test_answers_are_read_not_computed(folder, monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("called")

    for name in ("forward", "backward"):
        for module in OPERATORS.values():
            monkeypatch.setattr(module, name, never)
    monkeypatch.setattr(tolerance_categorical, "categorical", never)
    monkeypatch.setattr(tolerance_reinmax, "reinmax", never)
    monkeypatch.setattr(tolerance_gapped, "gapped", never)
    monkeypatch.setattr(tolerance_gumbel_rao, "gumbel_rao", never)
    for case in testing.load_vectors(folder):
        if "error" not in case.flags:
            case.check_forward(case.mask)
            case.check_backward(case.grad_logits)
            assert case.answer("forward") is case.mask
            assert case.answer("backward") is case.grad_logits


@pytest.mark.parametrize("profile", ["standard", "strict"])
@pytest.mark.parametrize(("operator", "dtype"), FILES)
def test_npselect_passes(folder, operator, dtype, profile):
    module = OPERATORS[operator]
    for case in load(folder, operator, dtype):
        if "error" in case.flags:
            with pytest.raises(ValueError, match=r"."):
                module.forward(case.logits, case.temp, **case.forward_options)
            continue
        case.check_forward(module.forward(case.logits, case.temp, **case.forward_options), profile)
        case.check_backward(module.backward(case.grad_mask, case.logits, case.temp, **case.options), profile)


@pytest.mark.parametrize(("operator", "dtype"), FILES)
def test_what_is_beyond_the_bound_is_refused(folder, operator, dtype):
    refused = 0
    for case in load(folder, operator, dtype):
        if "error" in case.flags or not np.any(case.judged(Profile("standard"))):
            continue
        row = int(np.argmax(case.judged(Profile("standard"))))
        at = case.position(row, case.logits.shape[case.axis] - 1)
        mask, grad_logits = case.mask.copy(), case.grad_logits.copy()
        mask[at] = np.nan
        with pytest.raises(AssertionError, match=r"forward\["):
            case.check_forward(mask)
        expected = float(grad_logits[at])
        with np.errstate(over="ignore"):
            for sign in (-1.0, 1.0):
                grad_logits[at] = expected + sign * (0.4 * case.bound[at])
                if abs(float(grad_logits[at]) - expected) <= case.bound[at]:
                    case.check_backward(grad_logits)
                grad_logits[at] = expected + sign * 3.0 * max(
                    case.bound[at], tolerance.ulp(np.asarray(expected), case.logits.dtype)
                )
                with pytest.raises(AssertionError, match=r"backward\["):
                    case.check_backward(grad_logits)
                refused += 1
    assert refused > 60


@pytest.mark.parametrize("operator", OPERATORS)
def test_check_takes_them(folder, operator):
    cases = testing.load_vectors(folder)
    module = OPERATORS[operator]
    for profile in ("standard", "strict"):
        report = testing.check(module, operator=module, dtypes=testing.DTYPES, profile=profile, cases=cases)
        assert report.ok, str(report)

    def forgets_temp(grad_mask, logits, temp, **options):
        result = module.backward(grad_mask, logits, temp, **options)
        return (result * np.float32(temp)).astype(logits.dtype)

    wrong = SimpleNamespace(forward=module.forward, backward=forgets_temp)
    report = testing.check(wrong, operator=module, dtypes=testing.DTYPES, cases=cases)
    assert not report.ok


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_sum_that_stagnates_is_found(folder, dtype):
    def total(x):
        sums = np.zeros((*x.shape[:-1], 1), x.dtype)
        for i in range(x.shape[-1]):
            sums = sums + x[..., i : i + 1]
        return sums

    def backward(g, logits, temp):
        temp = logits.dtype.type(temp)
        e = np.exp((logits - logits.max(axis=-1, keepdims=True)) / temp)
        p = e / total(e)
        return p * (g - total(p * g)) / temp

    found = set()
    for case in load(folder, "straight_through", dtype):
        if not case.options and case.group == "random":
            try:
                case.check_backward(backward(case.grad_mask, case.logits, case.temp))
            except AssertionError:
                found.add(case.name)
    assert "random/K=4096, nearly equal[:1]" in found


def test_a_bound_of_ones_own(copy):
    """The stored bound is what counts, not the one that would be derived."""
    whole = json.loads(copy.read_text())
    entry = next(case for case in whole["cases"] if case["id"] == "float32/edge/large temp")
    entry["bound"] = ["f64:3ff0000000000000"] * 4
    copy.write_text(json.dumps(whole))
    case = next(case for case in testing.load_vectors(copy) if case.name == "edge/large temp")
    assert case.bound.tolist() == [[1.0] * 4]
    case.check_backward(case.grad_logits + np.float32(0.875))
    with pytest.raises(AssertionError):
        case.check_backward(case.grad_logits + np.float32(1.25))
    with pytest.raises(AssertionError):
        case.check_backward(case.grad_logits + np.float32(0.875), profile="strict")


def test_loading_a_folder(folder, tmp_path):
    assert len(testing.load_vectors(str(folder))) == sum(len(load(folder, *file)) for file in FILES)
    with pytest.raises(ValueError, match=r"holds no vectors, such as straight_through-float32\.json"):
        testing.load_vectors(tmp_path)
    with pytest.raises(FileNotFoundError):
        testing.load_vectors(tmp_path / "missing.json")
    for name in ("straight_through-float32.json", "straight_through-float64.json"):
        shutil.copy(folder / "straight_through-float32.json", tmp_path / name)
    (tmp_path / "package.json").write_text("{}")
    with pytest.raises(ValueError, match=r"float64\.json: case 'float32/.*': stands here and in .*float32\.json"):
        testing.load_vectors(tmp_path)
