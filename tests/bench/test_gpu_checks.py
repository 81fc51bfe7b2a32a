"""What the checks of tests/cuda_device find, where the CPU tier stands in for the device, with faults planted."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from cuda_device import correctness, large, many, noise_and_selection, refusals
from cuda_device.comparison import compare
from cuda_device.inputs import KINDS, batch, rows_of
from gpu import SECTIONS
from gpu.report import DeviceLostError
from gpu.sections import checks as sections

from npselect import gumbel_softmax, noise, selection, straight_through
from npselect.bench.devices import FUNCTIONS
from npselect.bench.devices.arrays import POISON, host_dtype, poisoned

DTYPES = ["float16", "bfloat16", "float32", "float64"]


def differing(records):
    return {record["what"]: record["differing"] for record in records if record["differing"]}


# ------------------------------------------------------------------------------------------------------- comparison


@pytest.mark.parametrize("dtype", DTYPES)
def test_comparison_sees_what_is_planted(dtype):
    kind = host_dtype(dtype)
    expected = np.array([[0.0, 1.0, -2.5], [np.nan, np.inf, 3.0]]).astype(kind)
    bits = f"u{kind.itemsize}"

    def planted(place, value):
        actual = expected.copy()
        actual.view(bits)[place] = value
        return compare(actual, expected)

    assert compare(expected.copy(), expected) == {"elements": 6, "differing": 0}
    other_nan = int(np.array(-np.nan, kind).view(bits)) | 3
    assert planted((1, 0), other_nan)["differing"] == 0
    one_off = planted((0, 2), int(expected.view(bits)[0, 2]) ^ 1)
    assert (one_off["differing"], one_off["nan"], one_off["zeros"], one_off["unwritten"]) == (1, 0, 0, 0)
    assert one_off["first"][0]["at"] == (0, 2)
    assert one_off["first"][0]["is"].endswith("1)")
    assert planted((0, 1), other_nan)["nan"] == 1
    assert planted((1, 0), int(np.array(1, kind).view(bits)))["nan"] == 1
    assert planted((0, 0), 1 << (8 * kind.itemsize - 1))["zeros"] == 1
    for place in ((0, 1), (1, 0)):  # NaN where NaN is right, but never written
        unwritten = planted(place, POISON[dtype])
        assert (unwritten["differing"], unwritten["unwritten"]) == (1, 1)


def test_comparison_of_indices_shapes_and_dtypes():
    expected = np.array([3, -1, 0])
    assert compare(expected.copy(), expected)["differing"] == 0
    assert compare(np.array([3, 0, 0]), expected)["first"][0]["is"] == "0 (0000000000000000)"
    assert compare(poisoned((3,), "int64"), expected)["unwritten"] == 3
    with pytest.raises(ValueError, match=r"float32 of shape \(3,\); expected int64"):
        compare(np.zeros(3, np.float32), expected)
    with pytest.raises(ValueError, match="shape"):
        compare(expected[:2], expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_poison_is_nan_and_no_result_of_the_kernels(dtype):
    assert np.all(np.isnan(poisoned((3,), dtype)))
    logits = np.full((1, 3), np.nan, host_dtype(dtype))
    assert compare(straight_through.soft(logits, 1.0), straight_through.soft(logits, 1.0))["differing"] == 0


# ------------------------------------------------------------------------------------------------------ correctness


def faulty(operator, name, fault):
    """The operator, with one function whose result `fault` changes."""

    def changed(*arguments, **options):
        result = getattr(operator, name)(*arguments, **options)
        for out in result if isinstance(result, tuple) else (result,):
            fault(out)
        return result

    functions = {each: getattr(operator, each) for each in operator.__all__}
    return SimpleNamespace(**{**functions, name: changed})


def flip_the_last_bit_of_the_last(out):
    if out.size:
        out.view(f"u{out.itemsize}").reshape(-1)[-1] ^= 1


def make_a_nan(out):
    out.reshape(-1)[out.size // 2 : out.size // 2 + 1] = np.nan


def negate_the_zeros(out):
    out[out == 0] = -0.0


def leave_out_the_last(out):
    if out.size:
        out.view(f"u{out.itemsize}").reshape(-1)[-1] = POISON[out.dtype.name]


@pytest.mark.parametrize(
    "dtype", [pytest.param(dtype, marks=[pytest.mark.slow] * (dtype != "float32")) for dtype in DTYPES]
)
def test_correctness_of_what_is_correct(report, dtype, processor):
    for choices in (1, 10, 1025):
        correctness.check(report, processor, dtype, correctness.cases(dtype, choices, 40))
    correctness.check(report, processor, dtype, correctness.more_axes(dtype), "axes")
    noise_and_selection.check_selection(report, processor, dtype)
    refusals.check_refusals(report, processor, dtype)
    assert report.found("error") == []
    checks = report.found("check")
    assert len(checks) == 4 * len(FUNCTIONS) + 3
    assert differing(checks) == {}
    assert all(record["calls"] >= 4 and record["elements"] > 0 for record in checks)


def test_the_section_runs_through(report, monkeypatch, processor):
    monkeypatch.setattr(sections, "Host", lambda: processor)
    monkeypatch.setattr(sections, "check_frameworks", lambda report: None)
    for part in ("float32", "float32 seed", "float32 noise"):
        sections.correctness(report, part)
    assert report.found("error") == []
    assert differing(report.found("check")) == {}
    assert {record["what"] for record in report.found("check")} > {str(each) for each in FUNCTIONS}
    units = [record["unit"] for record in report.found("begin")]
    assert units[:4] == [str(choices) for choices in sections.QUICK]
    assert {record["choices"] for record in report.found("check")} > {10, "axes", "host", "noise", "selection"}
    assert report.found("note")[0]["text"].startswith("streams are tried with torch")


def test_every_length_of_rows_is_in_some_part(monkeypatch):
    """Once for each dtype and noise."""
    (parts,) = (section.parts for section in SECTIONS if section.name == "correctness")
    seen = {}
    monkeypatch.setattr(sections, "find", lambda report: None)
    for part in parts:
        planned = SimpleNamespace(quick=False, units=lambda names, part=part: seen.setdefault(part, names)[:0])
        sections.correctness(planned, part)
    assert len(seen) == len(parts) == 16
    for dtype, sampled in itertools.product(DTYPES, ("", " seed", " noise")):
        units = [unit for part in parts if part.split(",")[0] == dtype + sampled for unit in seen[part]]
        assert sorted(unit for unit in units if isinstance(unit, int)) == sorted(sections.CHOICES)
        assert len([unit for unit in units if isinstance(unit, str)]) == 7
    sections.correctness(SimpleNamespace(quick=True), "float32 seed, the rest")


def test_what_is_through_is_told_at_once(report, processor):
    """A process may be ended in the middle of its work."""

    def end(*arguments, **options):
        raise KeyboardInterrupt

    operators = {"straight_through": faulty(straight_through, "index", end)}
    with pytest.raises(KeyboardInterrupt):
        correctness.check(report, processor, "float32", correctness.cases("float32", 10, 35), operators=operators)
    assert [record["what"] for record in report.found("check")] == [
        "straight_through.forward",
        "straight_through.backward",
        "straight_through.soft",
    ]


@pytest.mark.parametrize("name", straight_through.__all__)
@pytest.mark.parametrize("fault", [flip_the_last_bit_of_the_last, leave_out_the_last])
def test_a_fault_in_any_function_is_found(report, name, fault, processor):
    operators = {
        "straight_through": faulty(straight_through, name, fault),
        "gumbel_softmax": faulty(gumbel_softmax, name, fault),
    }
    correctness.check(report, processor, "float32", correctness.cases("float32", 10, 35), operators=operators)
    assert report.found("error") == []
    wrong = {str(each) for each in FUNCTIONS if each.name == name and each.operator in operators}
    assert set(differing(report.found("check"))) == wrong
    for record in report.found("check"):
        if record["differing"]:
            assert record["case"] == "finite"
            assert record["unwritten"] >= (5 if fault is leave_out_the_last else 0)


@pytest.mark.parametrize(("fault", "count"), [(make_a_nan, "nan"), (negate_the_zeros, "zeros")])
def test_faults_are_told_apart(report, fault, count, processor):
    operators = {"straight_through": faulty(straight_through, "forward", fault)}
    correctness.check(report, processor, "float32", correctness.cases("float32", 10, 41), operators=operators)
    (record,) = [record for record in report.found("check") if record["differing"]]
    assert record["what"] == "straight_through.forward"
    assert record[count] == record["differing"]


def test_a_result_that_is_not_out_is_an_error(report, processor):
    copied = faulty(straight_through, "soft", lambda out: None)
    soft = copied.soft
    copied.soft = lambda *arguments, **options: soft(*arguments, **options).copy()
    correctness.check(
        report, processor, "float32", correctness.cases("float32", 3, 20), operators={"straight_through": copied}
    )
    assert {"straight_through.soft"} == {record["where"].split(",")[0] for record in report.found("error")}


def test_faults_of_noise_selection_and_refusals_are_found(report, processor):
    def gumbel(*arguments, **options):
        flip_the_last_bit_of_the_last(noise.gumbel(*arguments, **options))

    noise_and_selection.check_gumbel(report, processor, "float32", SimpleNamespace(gumbel=gumbel))

    def forward(*arguments, **options):
        result = selection.forward(*arguments, **options)
        make_a_nan(result)
        return result

    tested = SimpleNamespace(forward=forward, backward=selection.backward)
    noise_and_selection.check_selection(report, processor, "float32", tested)

    def lenient(*arguments, temp=0.6, **options):
        return straight_through.backward(*arguments, **options)

    operators = {"straight_through": SimpleNamespace(forward=straight_through.forward, backward=lenient)}
    refusals.check_refusals(report, processor, "float32", operators)
    assert report.found("error") == []
    found = {record["what"]: record for record in report.found("check")}
    assert found["noise.gumbel"]["differing"] == found["noise.gumbel"]["calls"]
    assert found["selection.forward"]["differing"] > 0
    assert found["selection.backward"]["differing"] == 0
    assert found["refusals"]["first"] == "raised nothing, and out was written to; expected ValueError"


def test_every_kind_of_row_is_there():
    for choices in sections.CHOICES:
        assert rows_of(choices) > len(KINDS)
    made = batch("float32", 40, 33, 1)
    kinds = np.arange(40) % len(KINDS)
    with np.errstate(invalid="ignore"):
        index = straight_through.index(made.logits)
    for name in ("all -inf", "a NaN", "a +inf", "+inf is last"):
        assert np.all(index[kinds == KINDS.index(name)] == -1)
    assert np.all(index[kinds == KINDS.index("the first and the last are equal")] == 0)
    assert np.any(np.isnan(made.grad_mask[kinds == KINDS.index("a NaN among the cotangents")]))
    assert np.any(~made.where.any(-1))
    assert made.temps.dtype == np.float32
    assert np.all((made.temps > 0) & np.isfinite(made.temps))


def test_a_lost_device_ends_the_process(report, processor):
    report.alive = lambda: False
    broken = {"straight_through": SimpleNamespace(forward=lambda *arguments, **options: 1 / 0)}
    with pytest.raises(DeviceLostError):
        correctness.check(report, processor, "float32", correctness.cases("float32", 3, 20), operators=broken)


@pytest.mark.parametrize(("name", "choices"), many.UNITS)
def test_many(report, name, choices, monkeypatch, processor):
    monkeypatch.setattr(many, "BLOCK", 60_000)
    many.check_many(report, processor, name, choices, 200_000)
    (record,) = report.found("check")
    assert record["differing"] == 0
    assert record["elements"] >= 200_000 * (2 if "double" in name else 1)


def test_many_says_where(report, monkeypatch, processor):
    monkeypatch.setattr(many, "BLOCK", 60_000)
    operators = {"straight_through": faulty(straight_through, "backward", flip_the_last_bit_of_the_last)}
    many.check_many(report, processor, "straight_through.backward", 1000, 200_000, operators)
    (record,) = report.found("check")
    assert record["differing"] == 1
    assert record["first"][0]["at"] == [199, 999]


def test_large(report, monkeypatch, processor):
    monkeypatch.setattr(large, "places", lambda rows, choices: [(0, 3), (rows - 3, rows)])
    for name, dtype, choices in large.UNITS:
        large.check_large(report, processor, name, dtype, choices, 150_001)
    assert len(report.found("check")) == len(large.UNITS)
    assert differing(report.found("check")) == {}


@pytest.mark.parametrize("choices", [2, 10, 1024, 131072])
def test_places_are_about_where_32_bits_end(choices):
    rows = -(-large.ELEMENTS // choices)
    ranges = large.places(rows, choices)
    assert ranges[0][0] == 0
    assert max(last for _, last in ranges) == rows
    for power in (29, 30, 31):
        assert any(first * choices < 2**power < last * choices for first, last in ranges)
