"""What the sections of bench/gpu.py time, and which peers they believe; the processor stands in for the device."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from cuda_device import many
from gpu.sections import checks, copying, host, peers, sanitizer, speed

from npselect import straight_through
from npselect.bench import Problem
from npselect.bench.devices import FUNCTIONS, Pool, Sample, Torch, by_torch, function, interleaved
from npselect.bench.devices.arrays import host_dtype, poisoned

DTYPES = ["float16", "bfloat16", "float32", "float64"]


def test_speed_copying_host_and_many_run_through(report, monkeypatch):
    monkeypatch.setattr(speed, "BYTES", 1 << 19)
    monkeypatch.setattr(copying, "Pool", lambda arrays, dtype, size: Pool(arrays, dtype, 1 << 16))
    monkeypatch.setattr(speed, "clocks", lambda: {"clocks.sm": "1", "clocks.mem": "2", "power.draw": "3"})
    monkeypatch.setattr(host, "captured", lambda public: host_captured(public))
    monkeypatch.setattr(many, "ELEMENTS", 10**6)
    for section in (copying.run, speed.run, host.run, checks.many):
        section(report, "")
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


@pytest.mark.parametrize("each", [each for each in FUNCTIONS if each.name in ("forward", "backward")], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_bytes_are_those_of_the_benchmarks_on_the_processor(each, dtype):
    """Which count no noise that is given."""
    problem = Problem(each.operator, 7, 33, dtype)
    given = 7 * 33 * problem.wide.itemsize if each.noise == "noise" else 0
    assert each.least_bytes(7, 33, problem.form.itemsize) - given == problem.bytes(each.name)


def test_calls_take_turns(processor):
    arrays, log = processor, []
    calls = {name: lambda i, name=name: log.append((name, i)) for name in "ab"}
    samples = interleaved(arrays, calls, 4, lambda i: log.append(("busy", i)), warm=1)
    assert [len(samples[name].seconds) for name in "ab"] == [4, 4]
    assert [name for name, _ in log] == [*"ab", *["busy", "a", "busy", "b", "busy", "b", "busy", "a"] * 2]


def textbook(wrong=1.0):
    def backward(g, logits, out, temp):
        e = np.exp((logits - logits.max(-1, keepdims=True)) / np.float32(temp))
        p = e / e.sum(-1, keepdims=True)
        out[...] = wrong * p * (g - (p * g).sum(-1, keepdims=True)) / np.float32(temp)

    def forward(g, logits, out, temp):
        out[...] = np.arange(logits.shape[-1]) == np.argmax(logits, -1, keepdims=True) + (wrong != 1)

    return {"backward": backward, "forward": forward}


def test_peers_are_checked_and_timed(report, monkeypatch, processor):
    monkeypatch.setattr(peers, "BYTES", 1 << 19)
    monkeypatch.setattr(peers, "Pool", lambda arrays, dtype, size: Pool(arrays, dtype, min(size, 1 << 16)))
    group = {
        call: {"right": textbook()[call], "wrong": textbook(1.001)[call], "broken": lambda *given: 1 / 0}
        for call in peers.CALLS
    }
    peers.compare_peers(report, processor, lambda: [group], [("float32", 10), ("float32", 1000)])
    timings = report.found("timing")
    assert {record["peer"] for record in timings} == {"npselect", "right", "wrong"}
    assert all(record["within_bound"] == (record["peer"] != "wrong") for record in timings)
    assert all(record["to_npselect"] == 1 for record in timings if record["peer"] == "npselect")
    assert len(report.found("error")) == 4
    assert all("broken" in record["where"] for record in report.found("error"))
    assert all(record["text"].startswith("wrong, straight_through.") for record in report.found("note"))
    assert len(report.found("note")) == 4


def test_peers_that_are_not_there_are_left_out(report, monkeypatch):
    monkeypatch.setattr(peers, "compare_peers", lambda report, arrays, peers, units: None)
    for package in ("triton", "cupy"):
        monkeypatch.setitem(sys.modules, package, None)
    sys.modules.pop("npselect.bench.devices.by_triton", None)
    peers.run(report, "")
    assert report.found("error") == []
    assert [record["text"] for record in report.found("note")] == [
        "Triton: triton is not installed",
        "CuPy: cupy is not installed",
    ]
    peers.compiled(report, "")
    assert report.found("note")[-1]["text"].startswith("torch does not reach the device")


@pytest.mark.parametrize("choices", [10, 4097])
@pytest.mark.parametrize("row", [0, -1])
def test_both_ends_are_judged(processor, choices, row):
    pool = Pool(processor, "float32", 1 << 18)
    rows = pool.size // choices
    g, logits = (pool.get(role, 0, rows, choices) for role in ("g", "logits"))
    sample = Sample.of(pool, rows, choices, 0.6)
    assert sample.rows % 2 == 0
    mask = straight_through.forward(logits)
    grad_logits = straight_through.backward(g, logits, sample.temp)
    assert sample.fault("forward", mask) is None
    assert sample.fault("backward", grad_logits) is None
    mask[row] = np.roll(mask[row], 1)
    grad_logits[row] *= 1.001
    assert sample.fault("forward", mask).startswith("forward[")
    assert sample.fault("backward", grad_logits).startswith("backward[")


@pytest.mark.skipif(sys.platform == "win32", reason="a script of sh stands for the tool")
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
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_torch_peers_are_honest(dtype):
    pytest.importorskip("torch")
    pool = Pool(Torch("cpu"), dtype, 4 * 40 * 100)
    sample = Sample.of(pool, 40, 100, 0.6)
    g, logits = (pool.get(role, 0, 40, 100) for role in ("g", "logits"))
    kept = by_torch.probabilities(logits, sample.temp)
    for group in (by_torch.eager(), by_torch.eager(textbook=True)):
        for call, functions in group.items():
            for peer in functions.values():
                assert sample.fault(call, peer(g, logits, kept, sample.temp)) is None
