"""The harness: statistics by a fake clock, bytes, the judgement before the time, and the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import children
import jsonschema
import numpy as np
import pytest

from npselect import bench, straight_through
from npselect.bench.report import duration
from npselect.cli import main

ROOT = Path(__file__).parents[2]
EXAMPLE = str(ROOT / "examples" / "numpy_select.py")
WRONG = str(ROOT / "examples" / "wrong_select.py")
SMALL = ["--shape", "16x5", "--quick", "--peer", "npselect", "--peer", "numpy"]
QUICK = bench.Effort(rounds=2, seconds=1e-4, quick=True)
PROBLEM = bench.Problem("straight_through", rows=16, choices=5)


@pytest.fixture(autouse=True)
def _loaded_modules(monkeypatch):
    """A file that is loaded once more would have another name."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in ("numpy_select", "wrong_select", "writer", "noisy", "numpy_like", "toy_losses"):
        sys.modules.pop(name, None)


class Clock:
    """Time passes when something is done."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def takes(self, *seconds):
        """A function that takes that long, call after call, and the last of them ever after."""
        left = list(seconds)

        def function():
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return function


def last(*arguments, **options):
    *_, times = bench.turns(*arguments, **options)
    return times


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


# ------------------------------------------------------------------------------------------------ statistics


def test_the_first_call_of_a_turn_does_not_count():
    clock = Clock()
    fast = clock.takes(0.01, *[0.01, 0.001] * 3)  # what others have left in the caches makes it ten times as slow
    assert last({"fast": fast}, 3, 0.01, clock)["fast"].seconds == pytest.approx({0: 0.001, 1: 0.001, 2: 0.001})


def test_a_turn_has_as_many_calls_as_fill_its_time():
    clock = Clock()
    times = last({"fast": clock.takes(0.001)}, 3, 0.01, clock)
    assert times["fast"].median == pytest.approx(0.001)
    assert clock.now == pytest.approx(0.001 * (1 + 3 * (1 + 10)))


def test_turns_are_interleaved_and_every_other_round_is_reversed():
    clock, order = Clock(), []

    def noting(name):
        def function():
            order.append(name)
            clock.now += 1e-3

        return function

    last({"a": noting("a"), "b": noting("b")}, 4, 1e-3, clock)
    assert "".join(order) == "ab" + "aabb" + "bbaa" + "aabb" + "bbaa"


def test_what_is_slow_has_three_turns_and_no_call_that_does_not_count():
    clock = Clock()
    times = last({"slow": clock.takes(2.0), "fast": clock.takes(0.1)}, 7, 0.05, clock)
    assert len(times["slow"].seconds) == 3
    assert len(times["fast"].seconds) == 7
    assert clock.now == pytest.approx(2.0 + 0.1 + 3 * 2.0 + 7 * 2 * 0.1)


def test_median_quartiles_and_spread():
    times = bench.Times(dict(enumerate([5.0, 1.0, 2.0, 4.0, 3.0])))
    assert (times.median, times.quartiles, times.spread) == (3.0, (2.0, 4.0), pytest.approx(2 / 3))
    one = bench.Times({0: 2.0})
    assert (one.median, one.quartiles, one.spread) == (2.0, (2.0, 2.0), 0.0)
    noisy = bench.Times(dict(enumerate([1.0, 1.0, 1.0, 50.0, 60.0])))
    assert noisy.median == 1.0
    assert noisy.spread == 49.0


def test_a_ratio_is_taken_within_rounds():
    busy = {0: 1.0, 1: 10.0, 2: 1.0, 3: 10.0, 4: 10.0}  # how slow the machine was
    a = bench.Times({turn: 2 * slow for turn, slow in busy.items()})
    b = bench.Times({turn: busy[turn] for turn in (0, 2, 3)})
    assert bench.ratio(a, b) == 2.0
    assert a.median / b.median == 20.0  # which is what comparing the medians would say


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (2.5, "2.5 s"),
        (0.0123456, "12.3 ms"),
        (1.5e-6, "1.5 us"),
        (0.9996, "1 s"),
        (0.9994, "999 ms"),
        (3e-9, "3 ns"),
        (1234.0, "1234 s"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


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


def cannot_run(capsys, *arguments):
    assert main(["bench", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("npselect: error: ")
    assert err.count("\n") == 1
    return err


def test_quick_with_the_example(capsys, tmp_path):
    paths = tmp_path / "times.json", tmp_path / "times.png"
    options = ["--json", str(paths[0]), "--plot", str(paths[1])]
    pytest.importorskip("matplotlib")
    assert main(["bench", EXAMPLE, *SMALL, "--shape", "64x9", *options]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "straight_through, float32, 16 x 5, forward+backward" in out
    lines = [line.split() for line in out.splitlines() if line.startswith("numpy_select")]
    assert len(lines) == 6
    assert "GB/s" in out
    assert "threads for everybody (NPSELECT_NUM_THREADS=" in out
    assert paths[1].read_bytes().startswith(b"\x89PNG")
    report = json.loads(paths[0].read_text())
    assert report["own"] == ["numpy_select"]
    assert {timing["peer"] for timing in report["timings"]} == {*bench.COPIES, "numpy_select", "npselect", "numpy"}


def test_json_is_as_its_schema_says(capsys, tmp_path):
    schema = json.loads((files("npselect.bench") / "report.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    for subject, ok in [(EXAMPLE, True), (WRONG, False)]:
        path = tmp_path / "report.json"
        main(["bench", subject, *SMALL, "--json", str(path)])
        report = json.loads(path.read_text())
        jsonschema.validate(report, schema, cls=jsonschema.Draft202012Validator)
        assert report["ok"] is ok
    (timing, *_) = [timing for timing in report["timings"] if timing["wrong"]]
    assert timing["peer"] == "wrong_select"
    assert timing["seconds"] == []
    assert timing["median"] is None


def test_a_wrong_implementation(capsys):
    assert main(["bench", WRONG, *SMALL]) == 1
    out = capsys.readouterr().out
    assert "wrong, and not timed: wrong_select: backward: 1/temp is missing" in out
    assert [line for line in out.splitlines() if line.startswith("numpy ")]


def test_one_that_writes_to_its_arguments_is_wrong(capsys, tmp_path):
    text = (
        Path(EXAMPLE)
        .read_text()
        .replace("exps = np.exp((logits", "logits *= 1\n    logits[0] = 0\n    exps = np.exp((logits")
    )
    (tmp_path / "writer.py").write_text(text)
    assert main(["bench", str(tmp_path / "writer.py"), *SMALL]) == 1
    assert "writes to its argument logits" in capsys.readouterr().out


def test_an_implementation_with_noise(capsys, tmp_path):
    (tmp_path / "noisy.py").write_text("from npselect.gumbel_softmax import backward, forward\n")
    assert main(["bench", f"{tmp_path / 'noisy.py'}", "--operator", "gumbel_softmax", *SMALL]) == 0
    out = capsys.readouterr().out
    assert "noisy" in out
    assert "takes no noise=" in cannot_run(capsys, EXAMPLE, "--operator", "gumbel_softmax", *SMALL)


def test_the_name_of_a_peer_may_be_taken(capsys, tmp_path):
    (tmp_path / "numpy_like.py").write_text(
        f"import runpy\nfrom types import SimpleNamespace\nexample = runpy.run_path({EXAMPLE!r})\n"
        "mine = SimpleNamespace(__name__='numpy', forward=example['forward'], backward=example['backward'])\n"
    )
    assert main(["bench", f"{tmp_path / 'numpy_like.py'}:mine", *SMALL]) == 0
    assert "numpy (own)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.py"], "missing.py: no such file"),
        ([f"{EXAMPLE}:nothing"], "has no nothing"),
        ([str(ROOT / "examples" / "toy_losses.py"), *SMALL], "has no function forward(logits, temp)"),
        ([EXAMPLE, "--operator", "noise"], "an implementation of noise is not taken"),
        (["--operator", "sort"], "invalid choice: 'sort'"),
        (["--operator", "noise", "--dtype", "float16"], "noise is drawn in float32 or float64"),
        (["--shape", "8"], "'8' is no shape like 1024x64"),
        (["--shape", "0x8"], "'0x8' is no shape like 1024x64"),
        (["--peer", "rust"], "invalid choice: 'rust'"),
        (["--temp", "0"], "temp is 0.0"),
        (["--temp", "cold"], "invalid float value: 'cold'"),
        (["--json", "missing/report.json"], "--json missing/report.json: No such file or directory"),
        (["--json", "mine.py"], "--json mine.py: that is the name of a Python file"),
        (["--plot", "missing/times.png"], "--plot missing/times.png: No such file or directory"),
        (["--plot", "times.doc"], "--plot times.doc: no known format"),
    ],
)
def test_errors_have_one_line(capsys, tmp_path, monkeypatch, arguments, message):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    assert message in cannot_run(capsys, *arguments)
    assert not list(tmp_path.iterdir())


def test_bad_number_of_threads(capsys, monkeypatch):
    monkeypatch.setenv("NPSELECT_NUM_THREADS", "many")
    assert "NPSELECT_NUM_THREADS is 'many'" in cannot_run(capsys, *SMALL)


def test_a_plot_without_matplotlib(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install 'npselect[bench]'" in cannot_run(capsys, *SMALL, "--plot", str(tmp_path / "times.png"))
    assert main(["bench", *SMALL]) == 0


def test_nothing_to_draw(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "times.svg"
    with pytest.raises(ValueError, match="nothing was timed"):
        bench.draw(bench.BenchReport(), path)
    assert not path.exists()


def child(*arguments, before="", **options):
    code = f"import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); {before}"
    code += "from npselect.cli import main; sys.exit(main())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [*children.python(), "-c", code, "bench", *arguments]
    return subprocess.Popen(command, text=True, env={**environment, "TERM": "xterm", "COLUMNS": "100"}, **options)


def test_interrupt_prints_what_was_measured(tmp_path):
    (tmp_path / "slow.py").write_text(
        f"import runpy, time\nexample = runpy.run_path({EXAMPLE!r})\nforward = example['forward']\n"
        "def backward(grad_mask, logits, temp):\n"
        "    if logits.shape == (16, 5):\n        print('waiting', flush=True)\n        time.sleep(60)\n"
        "    return example['backward'](grad_mask, logits, temp)\n"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    run = child(str(tmp_path / "slow.py"), *SMALL, "--json", str(tmp_path / "times.json"), **pipes)
    assert run.stdout.readline() == "waiting\n"
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert (run.returncode, err) == (130, "npselect: interrupted\n")
    assert "straight_through, float32, 16 x 5, forward\n" in out
    assert [line for line in out.splitlines() if line.startswith("slow ")]
    assert "backward\n" not in out
    assert not (tmp_path / "times.json").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize("rich", [True, False])
def test_on_a_terminal(rich):
    import pty

    ours, theirs = pty.openpty()
    before = "" if rich else "sys.modules['rich'] = None; "
    run = child(WRONG, *SMALL, before=before, stdout=theirs, stderr=theirs)
    os.close(theirs)
    written = b""
    while True:
        try:
            some = os.read(ours, 65536)
        except OSError:  # how Linux says that the other side is closed
            break
        if not some:
            break
        written += some
    os.close(ours)
    assert run.wait() == 1, written
    assert (b"\x1b[" in written) is rich
    assert b"wrong, and not timed: wrong_select: backward: 1/temp is missing" in written


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
