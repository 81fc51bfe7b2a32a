"""What the sections of bench/gpu.py find, where the CPU tier stands in for the device and has faults planted in it."""

from __future__ import annotations

import io
import itertools
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import npselect
from npselect import gumbel_softmax, noise, selection, straight_through

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "bench"))  # last: files of its tests have the names of ours

from gpu_sections import (  # noqa: E402 they are found where the command finds them
    SECTIONS,
    copying,
    correctness,
    host,
    large,
    many,
    noise_and_selection,
    peers,
    refusals,
    sanitizer,
    speed,
    summary,
    timing,
)
from gpu_sections.comparison import compare  # noqa: E402
from gpu_sections.device_arrays import POISON, Host, host_dtype, poisoned  # noqa: E402
from gpu_sections.functions import FUNCTIONS, function  # noqa: E402
from gpu_sections.inputs import KINDS, batch, rows_of  # noqa: E402
from gpu_sections.report import DeviceLostError, Report  # noqa: E402
from gpu_sections.results import Results  # noqa: E402

DTYPES = ["float16", "bfloat16", "float32", "float64"]


class Processor(Host):
    """Arrays of the host in place of the device's, a clock in place of its events."""

    name = "processor"

    def __init__(self):
        super().__init__("cpu")

    def random(self, size, dtype, seed):
        return np.random.default_rng(seed).standard_normal(size, np.float32).astype(host_dtype(dtype))

    def copy(self, to, source):
        to[...] = source

    def event(self):
        return time.perf_counter()

    def seconds(self, first, second):
        return second - first


@pytest.fixture(autouse=True)
def frameworks_as_they_were():
    """The sections have processes of their own, and leave gradients switched off there."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_grad_enabled(True)


@pytest.fixture
def report(monkeypatch):
    """A report to a text, with `found()` for its records; sections find the processor."""
    arrays = Processor()
    for module in (copying, correctness, host, large, many, peers, speed):
        monkeypatch.setattr(module, "find", lambda report: arrays)
    stream = io.StringIO()
    made = Report(stream, 300, quick=True)
    made.found = lambda kind=None: [
        record for record in map(json.loads, stream.getvalue().splitlines()) if kind in (None, record["kind"])
    ]
    return made


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


@pytest.mark.parametrize("dtype", DTYPES)
def test_correctness_of_what_is_correct(report, dtype):
    for choices in (1, 10, 1025):
        correctness.check(report, Processor(), dtype, correctness.cases(dtype, choices, 40))
    correctness.check(report, Processor(), dtype, correctness.more_axes(dtype), "axes")
    noise_and_selection.check_selection(report, Processor(), dtype)
    refusals.check_refusals(report, Processor(), dtype)
    assert report.found("error") == []
    checks = report.found("check")
    assert len(checks) == 4 * len(FUNCTIONS) + 3
    assert differing(checks) == {}
    assert all(record["calls"] >= 4 and record["elements"] > 0 for record in checks)


def test_the_section_runs_through(report, monkeypatch):
    monkeypatch.setattr(correctness, "Host", Processor)
    monkeypatch.setattr(correctness, "check_frameworks", lambda report: None)
    for part in ("float32", "float32 seed", "float32 noise"):
        correctness.run(report, part)
    assert report.found("error") == []
    assert differing(report.found("check")) == {}
    assert {record["what"] for record in report.found("check")} > {str(each) for each in FUNCTIONS}
    units = [record["unit"] for record in report.found("begin")]
    assert units[:4] == [str(choices) for choices in correctness.QUICK]
    assert {record["choices"] for record in report.found("check")} > {10, "axes", "host", "noise", "selection"}
    assert report.found("note")[0]["text"].startswith("streams are tried with torch")


def test_every_length_of_rows_is_in_some_part(monkeypatch):
    """Once for each dtype and noise."""
    (parts,) = (section.parts for section in SECTIONS if section.name == "correctness")
    seen = {}
    monkeypatch.setattr(correctness, "find", lambda report: None)
    for part in parts:
        planned = SimpleNamespace(quick=False, units=lambda names, part=part: seen.setdefault(part, names)[:0])
        correctness.run(planned, part)
    assert len(seen) == len(parts) == 16
    for dtype, sampled in itertools.product(DTYPES, ("", " seed", " noise")):
        units = [unit for part in parts if part.split(",")[0] == dtype + sampled for unit in seen[part]]
        assert sorted(unit for unit in units if isinstance(unit, int)) == sorted(correctness.CHOICES)
        assert len([unit for unit in units if isinstance(unit, str)]) == 7
    correctness.run(SimpleNamespace(quick=True), "float32 seed, the rest")


def test_what_is_through_is_told_at_once(report):
    """A process may be ended in the middle of its work."""

    def end(*arguments, **options):
        raise KeyboardInterrupt

    operators = {"straight_through": faulty(straight_through, "index", end)}
    with pytest.raises(KeyboardInterrupt):
        correctness.check(report, Processor(), "float32", correctness.cases("float32", 10, 35), operators=operators)
    assert [record["what"] for record in report.found("check")] == [
        "straight_through.forward",
        "straight_through.backward",
    ]


@pytest.mark.parametrize("name", straight_through.__all__)
@pytest.mark.parametrize("fault", [flip_the_last_bit_of_the_last, leave_out_the_last])
def test_a_fault_in_any_function_is_found(report, name, fault):
    operators = {
        "straight_through": faulty(straight_through, name, fault),
        "gumbel_softmax": faulty(gumbel_softmax, name, fault),
    }
    correctness.check(report, Processor(), "float32", correctness.cases("float32", 10, 35), operators=operators)
    assert report.found("error") == []
    assert set(differing(report.found("check"))) == {str(each) for each in FUNCTIONS if each.name == name}
    for record in report.found("check"):
        if record["differing"]:
            assert record["case"] == "finite"
            assert record["unwritten"] >= (5 if fault is leave_out_the_last else 0)


@pytest.mark.parametrize(("fault", "count"), [(make_a_nan, "nan"), (negate_the_zeros, "zeros")])
def test_faults_are_told_apart(report, fault, count):
    operators = {"straight_through": faulty(straight_through, "forward", fault)}
    correctness.check(report, Processor(), "float32", correctness.cases("float32", 10, 41), operators=operators)
    (record,) = [record for record in report.found("check") if record["differing"]]
    assert record["what"] == "straight_through.forward"
    assert record[count] == record["differing"]


def test_a_result_that_is_not_out_is_an_error(report):
    copied = faulty(straight_through, "soft", lambda out: None)
    soft = copied.soft
    copied.soft = lambda *arguments, **options: soft(*arguments, **options).copy()
    correctness.check(
        report, Processor(), "float32", correctness.cases("float32", 3, 20), operators={"straight_through": copied}
    )
    assert {"straight_through.soft"} == {record["where"].split(",")[0] for record in report.found("error")}


def test_faults_of_noise_selection_and_refusals_are_found(report):
    def gumbel(*arguments, **options):
        flip_the_last_bit_of_the_last(noise.gumbel(*arguments, **options))

    noise_and_selection.check_gumbel(report, Processor(), "float32", SimpleNamespace(gumbel=gumbel))

    def forward(*arguments, **options):
        result = selection.forward(*arguments, **options)
        make_a_nan(result)
        return result

    tested = SimpleNamespace(forward=forward, backward=selection.backward)
    noise_and_selection.check_selection(report, Processor(), "float32", tested)

    def lenient(*arguments, temp=0.6, **options):
        return straight_through.backward(*arguments, **options)

    operators = {"straight_through": SimpleNamespace(forward=straight_through.forward, backward=lenient)}
    refusals.check_refusals(report, Processor(), "float32", operators)
    assert report.found("error") == []
    found = {record["what"]: record for record in report.found("check")}
    assert found["noise.gumbel"]["differing"] == found["noise.gumbel"]["calls"]
    assert found["selection.forward"]["differing"] > 0
    assert found["selection.backward"]["differing"] == 0
    assert found["refusals"]["first"] == "raised nothing, and out was written to; expected ValueError"


def test_every_kind_of_row_is_there():
    for choices in correctness.CHOICES:
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


def test_a_lost_device_ends_the_process(report):
    report.alive = lambda: False
    broken = {"straight_through": SimpleNamespace(forward=lambda *arguments, **options: 1 / 0)}
    with pytest.raises(DeviceLostError):
        correctness.check(report, Processor(), "float32", correctness.cases("float32", 3, 20), operators=broken)


@pytest.mark.parametrize(("name", "choices"), many.UNITS)
def test_many(report, name, choices, monkeypatch):
    monkeypatch.setattr(many, "BLOCK", 60_000)
    many.check_many(report, Processor(), name, choices, 200_000)
    (record,) = report.found("check")
    assert record["differing"] == 0
    assert record["elements"] >= 200_000 * (2 if "double" in name else 1)


def test_many_says_where(report, monkeypatch):
    monkeypatch.setattr(many, "BLOCK", 60_000)
    operators = {"straight_through": faulty(straight_through, "backward", flip_the_last_bit_of_the_last)}
    many.check_many(report, Processor(), "straight_through.backward", 1000, 200_000, operators)
    (record,) = report.found("check")
    assert record["differing"] == 1
    assert record["first"][0]["at"] == [199, 999]


def test_large(report, monkeypatch):
    monkeypatch.setattr(large, "places", lambda rows, choices: [(0, 3), (rows - 3, rows)])
    for name, dtype, choices in large.UNITS:
        large.check_large(report, Processor(), name, dtype, choices, 150_001)
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


# ----------------------------------------------------------------------------------------------------------- timing


def test_speed_copying_host_and_many_run_through(report, monkeypatch):
    monkeypatch.setattr(speed, "BYTES", 1 << 19)
    monkeypatch.setattr(copying, "Pool", lambda arrays, dtype, size: timing.Pool(arrays, dtype, 1 << 16))
    monkeypatch.setattr(speed, "clocks", lambda: {"clocks.sm": "1", "clocks.mem": "2", "power.draw": "3"})
    monkeypatch.setattr(host, "captured", lambda public: host_captured(public))
    monkeypatch.setattr(many, "ELEMENTS", 10**6)
    for section in (copying, speed, host, many):
        section.run(report, "")
    assert report.found("error") == []
    timings = report.found("timing")
    functions = {record["what"] for record in timings}
    assert functions == {"copy", "noise.gumbel", *speed.FIRST, *speed.THEN}
    assert all(record["p10_us"] <= record["median_us"] <= record["p90_us"] for record in timings)
    assert {(record["what"], record["layer"]) for record in report.found("host")} == {
        (name, layer) for name in host.FUNCTIONS for layer in ("public", "launch")
    }


def host_captured(public, captured=host.captured):
    from npselect.tiers.cpu import rows as cpu

    return captured(public, cpu)


def test_a_captured_launch_does_what_the_call_did():
    from npselect.tiers.cpu import rows as cpu

    out = np.empty((2, 3), np.float32)
    logits = np.float32([[1, 2, 3], [3, 2, 1]])
    original = cpu.mask
    launch = host_captured(lambda: straight_through.forward(logits, out=out))
    assert cpu.mask is original
    out[...] = 7
    launch()
    assert out.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert host.captured(lambda: None, cpu) is None


@pytest.mark.parametrize("choices", [10, 1000])
def test_least_bytes(choices):
    def least(name):
        return function(name).least_bytes(7, choices, 4)

    array = 4 * 7 * choices
    assert least("straight_through.forward") == 2 * array
    assert least("straight_through.backward") == 3 * array
    assert least("straight_through.index") == array + 8 * 7
    assert least("straight_through.backward_temp") == 2 * array
    assert least("straight_through.double_backward") == 5 * array
    assert least("gumbel_softmax.forward seed") == 2 * array
    assert least("gumbel_softmax.forward noise") == 3 * array


def test_calls_take_turns():
    arrays, log = Processor(), []
    calls = {name: lambda i, name=name: log.append((name, i)) for name in "ab"}
    samples = timing.interleaved(arrays, calls, 4, lambda i: log.append(("busy", i)), warm=1)
    assert [len(samples[name]) for name in "ab"] == [4, 4]
    assert [name for name, _ in log] == [*"ab", *["busy", "a", "busy", "b", "busy", "b", "busy", "a"] * 2]


def textbook(wrong=1.0):
    def backward(g, logits, out, temp):
        e = np.exp((logits - logits.max(-1, keepdims=True)) / np.float32(temp))
        p = e / e.sum(-1, keepdims=True)
        out[...] = wrong * p * (g - (p * g).sum(-1, keepdims=True)) / np.float32(temp)

    def forward(g, logits, out, temp):
        out[...] = np.arange(logits.shape[-1]) == np.argmax(logits, -1, keepdims=True) + (wrong != 1)

    return {"straight_through.backward": backward, "straight_through.forward": forward}


def test_peers_are_checked_and_timed(report, monkeypatch):
    monkeypatch.setattr(peers, "BYTES", 1 << 19)
    monkeypatch.setattr(peers, "Pool", lambda arrays, dtype, size: timing.Pool(arrays, dtype, min(size, 1 << 16)))
    group = {
        name: {"right": textbook()[name], "wrong": textbook(1.001)[name], "broken": lambda *given: 1 / 0}
        for name in peers.FUNCTIONS
    }
    peers.compare_peers(report, Processor(), lambda: [group], [("float32", 10), ("float32", 1000)])
    timings = report.found("timing")
    assert {record["peer"] for record in timings} == {"npselect", "right", "wrong"}
    assert all(record["within_bound"] == (record["peer"] != "wrong") for record in timings)
    assert all(record["to_npselect"] == 1 for record in timings if record["peer"] == "npselect")
    assert len(report.found("error")) == 4
    assert all("broken" in record["where"] for record in report.found("error"))


def test_sanitizer(report, monkeypatch, tmp_path):
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(
        "#!/bin/sh\necho called f 3\necho '========= ERROR SUMMARY: 2 errors'\n"
        'case "$*" in *memcheck*) exit 77;; *racecheck*) exit 0;; *) exit 1;; esac\n'
    )
    tool.chmod(0o755)
    monkeypatch.setattr(sanitizer, "find_sanitizer", lambda: str(tool))
    report.quick = False
    sanitizer.run(report, "")
    assert [(record["what"], record["differing"]) for record in report.found("check")] == [
        ("memcheck", 1),
        ("racecheck", 0),
    ]
    assert "initcheck ended with status 1, 1 calls done" in report.found("note")[0]["text"]
    monkeypatch.setattr(sanitizer, "find_sanitizer", lambda: None)
    sanitizer.run(report, "")
    assert report.found("note")[-1]["text"] == "compute-sanitizer is not installed"


# ------------------------------------------------------------------------------------------- frameworks, where they are


@pytest.mark.frameworks
@pytest.mark.parametrize("dtype", [*DTYPES, "bool", "int64"])
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (3, 7)])
def test_tensors_hold_what_arrays_hold(dtype, shape):
    pytest.importorskip("torch")
    from gpu_sections.device_arrays import Torch

    arrays = Torch("cpu")
    given = (np.arange(np.prod(shape, dtype=int)).reshape(shape) % 2).astype(host_dtype(dtype))
    given.setflags(write=False)
    for skew in (0, 1, 3):
        tensor = arrays.from_host(given, skew)
        assert tensor.is_contiguous()
        assert tensor.storage_offset() == skew
        back = arrays.to_host(tensor)
        assert (back.dtype, back.shape, back.tobytes()) == (given.dtype, given.shape, given.tobytes())
    if dtype != "bool":
        tensor = arrays.empty(shape, dtype, 1)
        arrays.poison(tensor)
        assert arrays.to_host(tensor).tobytes() == poisoned(shape, dtype).tobytes()
    assert arrays.alive()


@pytest.mark.frameworks
def test_torch_peers_are_honest():
    torch = pytest.importorskip("torch")
    from gpu_sections import torch_peers
    from gpu_sections.device_arrays import Torch

    arrays = Torch("cpu")
    for dtype in ("float32", "bfloat16"):
        g, logits = (arrays.random(40 * 100, dtype, i).reshape(40, 100) for i in range(2))
        for name, group in torch_peers.eager().items():
            for peer in group.values():
                result = peer(g, logits, torch.softmax(logits / 0.6, -1), 0.6)
                assert peers.is_honest(name, *map(arrays.to_host, (result, g, logits)), 0.6) <= 1
        result = torch_peers.textbook_backward(g, logits, 0.6)
        assert peers.is_honest("backward", *map(arrays.to_host, (result, g, logits)), 0.6) <= 1


# ---------------------------------------------------------------------------------------------------------- summary


def test_targets_and_tables(tmp_path):
    results = Results(tmp_path, began="2000-01-01T00:00:00", targets=[])

    def timing_of(section, what, choices, **fields):
        record = {"kind": "timing", "what": what, "dtype": "float32", "choices": choices, **fields}
        results.add(section, "", record)

    for choices in (256, 1000, 1024, 4096, 16384):
        timing_of("speed", "straight_through.backward", choices, of_copy=0.9 + (choices == 4096) / 100)
        timing_of("speed", "straight_through.forward", choices, of_copy=0.95)
    timing_of("speed", "straight_through.backward", 10, of_copy=0.5)
    timing_of("peers", "straight_through.backward", 1024, peer="torch eager", of_copy=0.3, to_npselect=2.5)
    timing_of("peers", "straight_through.backward", 10, peer="torch eager", of_copy=0.3, to_npselect=2.0)
    timing_of("peers", "straight_through.forward", 10, peer="Triton", of_copy=0.3, to_npselect=0.9, within_bound=False)
    results.add("host", "", {"kind": "host", "what": "f", "layer": "public", "median_us": 7.0})
    results.add("host", "", {"kind": "host", "what": "f", "layer": "driver", "median_us": 70.0})
    results.add("many", "", {"kind": "check", "what": "f", "elements": 10**8, "differing": 1})
    results.content["targets"] = summary.targets(results)
    found = {target["what"]: (target["measured"], target["met"]) for target in results.content["targets"]}
    assert found["backward, K 256..16384, aligned"] == (0.9, False)
    assert found["forward, K 256..16384, aligned"] == (0.95, True)
    assert found["forward and backward, K below 64"] == (0.5, False)
    assert found["forward and backward, odd K"] == (None, None)
    assert found["backward, torch eager's time over ours"] == (2.0, True)
    assert found["forward and backward, Triton's time over ours"] == (0.9, False)
    assert found["host cost of a launch, preallocated arrays, us"] == (7.0, True)
    assert found["bits equal to the CPU tier's, of 10**8 elements"] == (1 - 1e-8, False)
    text = summary.markdown(results)
    assert "0.99999999 |" in text
    assert "not measured" in text
    assert "0.90 (wrong)" in text
    assert npselect.__name__ in text
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    for table in tables:
        assert len({row.count("|") for row in table.splitlines()}) == 1
