"""The command that times: its report, pictures and errors, and what an interrupt leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import children
import jsonschema
import pytest

from npselect import bench
from npselect.cli import main

ROOT = Path(__file__).parents[2]
EXAMPLE = str(ROOT / "examples" / "numpy_select.py")
WRONG = str(ROOT / "examples" / "wrong_select.py")
SMALL = ["--shape", "16x5", "--quick", "--peer", "npselect", "--peer", "numpy"]


@pytest.fixture(autouse=True)
def _loaded_modules(monkeypatch):
    """A file that is loaded once more would have another name."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    names = ("numpy_select", "wrong_select", "writer", "noisy", "numpy_like", "toy_losses")
    for name in names:  # by tests of other files
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield
    for name in names:
        sys.modules.pop(name, None)


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


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
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
