"""The harness: bytes, the judgement before the time, and what its report says."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from npselect import bench, straight_through

QUICK = bench.Effort(rounds=2, seconds=1e-4, quick=True)
PROBLEM = bench.Problem("straight_through", rows=16, choices=5)


def peer(name, forward=straight_through.forward, backward=straight_through.backward, **others):
    def calls(problem):
        functions = {
            "forward": lambda: forward(problem.logits, problem.temp),
            "backward": lambda: backward(problem.grad_mask, problem.logits, problem.temp),
        }
        both = functions["forward"], functions["backward"]
        functions["forward+backward"] = lambda: tuple(function() for function in both)
        return bench.Calls(functions.__getitem__)

    return bench.Peer(name, calls, ("straight_through",), **others)


def compared(*peers, problem=PROBLEM, call="forward", effort=QUICK, **options):
    report = bench.BenchReport()
    bench.compare(problem, call, peers, effort, report, **options)
    return report


# ------------------------------------------------------------------------------------------------ bytes and the copy


def test_bytes():
    def moved(*arguments, **options):
        problem = bench.Problem(*arguments, **options)
        return [problem.bytes(call) for call in problem.calls]

    assert moved("straight_through", 6, 5) == [2 * 30 * 4, 3 * 30 * 4, 5 * 30 * 4]
    assert moved("gumbel_softmax", 6, 5, "float64") == [2 * 30 * 8, 3 * 30 * 8, 5 * 30 * 8]
    assert moved("noise", 6, 5, "float64") == [30 * 8]
    width = bench.WIDTH
    forward, backward = 30 + 6 * width + 6 * width, (30 + 30 * width + 6 * width) + (30 * width + 30)
    assert moved("selection", 6, 5) == [4 * forward, 4 * backward, 4 * (forward + backward)]


@pytest.mark.parametrize("moved", [0, 10, 4098])
def test_a_copy_reads_half_of_the_bytes_and_writes_the_other_half(monkeypatch, moved):
    copied = []
    monkeypatch.setenv("NPSELECT_NUM_THREADS", "3")
    with bench.copies(moved) as functions:
        monkeypatch.setattr(np, "copyto", lambda target, source: copied.append((target.nbytes, source.nbytes)))
        for name in bench.COPIES:
            copied.clear()
            functions[name]()
            assert sum(target for target, _ in copied) == sum(source for _, source in copied) == moved // 2


def test_the_faster_copy_is_the_limit():
    report = compared(peer("npselect"))
    copies = {timing.peer: timing for timing in report.timings if timing.peer in bench.COPIES}
    faster = min(copies.values(), key=lambda timing: timing.median)
    assert faster.of_copy == 1.0
    assert all(timing.times_npselect is not None for timing in report.timings)
    mine = report.timings[-1]
    assert mine.gb_per_s == pytest.approx(2 * 80 * 4 / mine.median / 1e9)
    assert 0 < mine.of_copy < 1


def test_half_precision_logits_and_noise_have_an_exact_sum():
    for dtype in ("float16", "bfloat16"):
        problem = bench.Problem("gumbel_softmax", 64, 10, dtype)
        exact = problem.logits.astype(np.float64) + problem.noise.astype(np.float64)
        assert np.array_equal((problem.logits + problem.noise).astype(np.float64), exact)
        assert problem.temp == float(np.float64(problem.form.type(0.6)))


# ------------------------------------------------------------------------------------------------ judged, then timed


@pytest.mark.parametrize("call", bench.CALLS)
@pytest.mark.parametrize(
    ("direction", "function", "message"),
    [
        ("backward", lambda g, x, t: t * straight_through.backward(g, x, t), "1/temp is missing"),
        ("backward", lambda g, x, t: straight_through.backward(g, x, t)[:, ::-1], "backward[0, 0] is"),
        (
            "backward",
            lambda g, x, t: straight_through.backward(g, x, t)[:-1],
            "returns shape (15, 5); expected (16, 5)",
        ),
        ("backward", lambda g, x, t: straight_through.backward(g, x, t).astype(np.float64), "returns dtype float64"),
        ("forward", lambda x, t: straight_through.soft(x, t), "forward[0, 0] is"),
        ("forward", lambda x, t: np.roll(straight_through.forward(x, t), 1, axis=0), "forward[0, "),
        ("forward", lambda x, t: 1 / 0, "raises ZeroDivisionError: division by zero"),
        ("forward", lambda x, t: None, "returns shape ()"),
    ],
)
def test_a_wrong_peer_is_reported_and_not_timed(call, direction, function, message):
    report = compared(peer("npselect"), peer("planted", **{direction: function}), call=call)
    planted = report.timings[-1]
    assert planted.peer == "planted"
    if direction in call:
        assert message in planted.wrong
        assert planted.seconds == ()
        assert planted.median is None
        assert f"wrong, and not timed: planted: {planted.wrong}" in str(report.footing)
    else:
        assert planted.wrong is None
        assert len(planted.seconds) == 2


def test_the_last_of_many_rows_is_judged():
    def forward(logits, temp):
        mask = straight_through.forward(logits, temp)
        mask[-1] = 0
        return mask

    report = compared(peer("planted", forward), problem=bench.Problem("straight_through", 100_000, 4))
    assert report.timings[-1].wrong


def test_wrong_selection_and_noise():
    problem = bench.Problem("selection", 8, 4)
    (npselect,) = [peer for peer in bench.PEERS if peer.name == "npselect"]
    right = list(npselect.calls(problem).prepare("forward+backward")())
    assert bench.fault(problem, "forward+backward", right) is None
    for i, message in enumerate(["another vector", "grad_x is not", "beyond its bound"]):
        wrong = [array.copy() for array in right]
        wrong[i] *= np.float32(1.00001)
        assert message in bench.fault(problem, "forward+backward", wrong)
    assert "expected 3" in bench.fault(problem, "forward+backward", right[:2])

    problem = bench.Problem("noise", 64, 64)
    normal = np.random.default_rng(1).standard_normal(problem.shape, np.float32)
    assert "standard deviations off" in bench.fault(problem, "forward", [normal])
    shifted = bench.Peer(
        "shifted",
        lambda problem: bench.Calls(
            lambda _: lambda: np.random.default_rng(problem.seed).normal(0.5772, 1.28, problem.shape).astype("float32")
        ),
        ("noise",),
    )
    function, wrong = bench.prepared(problem, shifted, shifted.calls(problem), "forward")
    assert function is None
    assert "as a sampler" in wrong


def test_noise_that_is_not_what_it_said_is_wrong():
    problem = bench.Problem("gumbel_softmax", 16, 5)
    (npselect,) = [peer for peer in bench.PEERS if peer.name == "npselect"]
    calls = npselect.calls(problem)
    (mask, grad) = calls.prepare("forward+backward")()
    assert bench.fault(problem, "forward+backward", [mask, grad], calls.noise()) is None
    assert bench.fault(problem, "forward+backward", [mask, grad], calls.noise()[::-1])


def quick_peers(operator):
    """The peers that take part, those of frameworks marked."""
    for one in bench.PEERS:
        if operator in one.operators and one.quick:
            framework = one.name.startswith(("torch", "F.", "jax", "tf"))
            marks = [pytest.mark.frameworks] if framework else []
            yield pytest.param(operator, one, id=f"{one}-{operator}", marks=marks)


@pytest.mark.parametrize(("operator", "one"), [pair for operator in bench.OPERATORS for pair in quick_peers(operator)])
def test_every_peer_is_right(operator, one):
    dtype = "float64" if operator in ("selection", "noise") else "bfloat16"
    for problem in (bench.Problem(operator, 33, 7), bench.Problem(operator, 33, 7, dtype)):
        report = compared(one, problem=problem, call=problem.calls[-1])
        if report.left_out:
            pytest.skip(str(report.left_out))
        assert report.timings[-1].peer == one.name
        assert report.timings[-1].wrong is None
        assert report.timings[-1].median > 0


@pytest.mark.parametrize(
    ("package", "left_out"),
    [
        ("torch", ["torch", "torch.compile", "F.gumbel_softmax"]),
        ("jax", ["jax.jit"]),
        ("tensorflow", ["tf.function"]),
        ("scipy.special", ["scipy"]),
    ],
)
def test_a_missing_framework_is_left_out(monkeypatch, package, left_out):
    monkeypatch.setitem(sys.modules, package, None)
    names = ["npselect", *left_out]
    report = bench.run(operators=["gumbel_softmax"], shapes=[(16, 5)], peers=names, effort=QUICK)
    assert list(report.left_out) == left_out
    assert {timing.peer for timing in report.timings} == {*bench.COPIES, "npselect"}
    for name in left_out:
        assert f"left out: {name}: {package.partition('.')[0]} is not installed" in str(report)


def test_the_oracle_is_not_asked_about_large_batches():
    report = bench.BenchReport()
    reference = [peer for peer in bench.PEERS if peer.name == "npselect reference"]
    bench.compare(bench.Problem("straight_through", 1 << 20, 2), "forward", reference, QUICK, report)
    assert "oracle" in report.left_out["npselect reference"]


def test_threads_are_set_and_set_back(monkeypatch):
    monkeypatch.setenv("NPSELECT_NUM_THREADS", "7")
    monkeypatch.delenv("NPROC", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    with bench.threads_are(3):
        assert os.environ["NPSELECT_NUM_THREADS"] == os.environ["NPROC"] == os.environ["OMP_NUM_THREADS"] == "3"
        assert os.environ["OMP_WAIT_POLICY"] == "active"
        assert bench.thread_count() == 3
    assert os.environ["NPSELECT_NUM_THREADS"] == "7"
    assert "NPROC" not in os.environ


def test_an_interrupt_leaves_the_rounds_that_are_done():
    rounds = []

    def tell(text):
        rounds.append(text)
        if text.startswith("round 2"):
            raise KeyboardInterrupt

    report = bench.BenchReport()
    with pytest.raises(KeyboardInterrupt):
        bench.compare(PROBLEM, "forward", [peer("npselect")], bench.Effort(5, 1e-4), report, tell)
    assert [(timing.peer, len(timing.seconds)) for timing in report.timings] == [
        ("copy", 2),
        ("copy, threads", 2),
        ("npselect", 2),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"operators": ["sort"]}, "operator is 'sort'"),
        ({"operators": ["noise"], "dtypes": ["float16"]}, "noise is drawn in float32 or float64"),
        ({"peers": ["rust"]}, "there is no peer 'rust'"),
        ({"temp": 0.0}, "temp is 0.0"),
        ({"dtypes": ["int8"]}, "dtype is 'int8'"),
        ({"implementation": straight_through, "operators": ["selection"]}, "an implementation of selection"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        bench.run(**{"shapes": [(4, 3)], "effort": QUICK, **options})


# ------------------------------------------------------------------------------------------------ the command


def test_the_report_names_its_processor_and_versions():
    report = bench.run(peers=["npselect"], shapes=[(4, 3)], effort=QUICK)
    heading = "\n".join(report.heading)
    assert report.machine["cpu"] in heading
    assert f"numpy {np.__version__}" in heading
    assert report.settings["threads_reported"]["npselect"] == bench.thread_count()


def test_a_report_of_peers_alone_is_right_whatever_they_do():
    report = compared(peer("other", lambda logits, temp: 0 * logits), peer("npselect"))
    assert report.ok
    report.own = ["other"]
    assert not report.ok


def test_peers_of_another_operator_are_passed_over():
    report = compared(SimpleNamespace(operators=("noise",), name="noise alone"))
    assert {timing.peer for timing in report.timings} == set(bench.COPIES)
