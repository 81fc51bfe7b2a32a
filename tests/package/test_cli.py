"""The command: what it prints, and how it ends."""

from __future__ import annotations

import json
import sys

import pytest
from commands import OBJECT, RIGHT, cannot_run, run

import npselect
from npselect._commands import load
from npselect.cli import main

# ------------------------------------------------------------------------------------------------ check


def test_right(folder, capsys):
    assert main(["check", "right.py"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("PASSED: ")
    assert "float32  digits       1" in out


def test_wrong(folder, capsys):
    assert main(["check", "wrong.py"]) == 1
    out, err = capsys.readouterr()
    assert err == ""
    verdict, cause, *_ = out.splitlines()
    assert verdict.startswith("FAILED: ")
    assert cause == "likely cause: backward: 1/temp is missing"


@pytest.mark.parametrize("name", ["select", "Namespace.Select"])
def test_named_object_and_import_of_a_neighbour(folder, capsys, name):
    assert main(["check", f"thing.py:{name}"]) == 0
    assert "PASSED" in capsys.readouterr().out


def test_a_file_may_have_the_name_of_a_loaded_module(folder, capsys):
    (folder / "json.py").write_text(RIGHT)
    assert main(["check", "json.py"]) == 0
    assert sys.modules["json"] is json


def test_options_reach_the_check(folder, capsys):
    options = ["--dtype", "float16", "--dtype", "float64", "--temp", "2", "--profile", "strict", "--backend", "cpu"]
    assert main(["check", "right.py", *options]) == 1
    out = capsys.readouterr().out
    for words in ("dtype float16 float64", "temp 2 ", "profile strict", "oracle cpu", "operator straight_through"):
        assert words in out


def test_an_operator_with_noise(folder, capsys):
    (folder / "noisy.py").write_text(
        RIGHT.replace("(logits, temp):", "(logits, temp, noise):\n    logits = logits + noise").replace(
            "(g, logits, temp):", "(g, logits, temp, noise):\n    logits = logits + noise"
        )
    )
    assert main(["check", "noisy.py", "--operator", "gumbel_softmax"]) == 0
    assert "operator gumbel_softmax" in capsys.readouterr().out
    assert "right takes no noise=" in cannot_run(capsys, "check", "right.py", "--operator", "gumbel_softmax")


def test_known_failures(folder, capsys):
    assert main(["check", "wrong.py", "--known", "*", "issue 7 = no 1/temp"]) == 0
    out = capsys.readouterr().out
    assert "known to fail" in out
    assert "  issue 7 = no 1/temp: backward[" in out
    assert "matches no case" in cannot_run(capsys, "check", "right.py", "--known", "float32/none", "why")


def test_json(folder, capsys):
    (folder / "report.json").write_text("x" * 10**6)
    assert main(["check", "wrong.py", "--json", "report.json"]) == 1
    report = json.loads((folder / "report.json").read_text())
    assert report["schema"] == "npselect-report/2"
    assert report["implementation"] == "wrong"
    assert report["ok"] is False
    first = next(case for case in report["cases"] if case["verdict"] == "failed")
    assert first["name"] == "digits/1797x10"
    assert first["difference"]["direction"] == "backward"
    assert first["difference"]["position"] == [0, 0]
    difference = first["difference"]
    assert abs(difference["actual"] - 0.6 * difference["expected"]) <= difference["tolerance"]
    assert first["fraction"] > 1


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        ("missing.py", "missing.py: no such file"),
        ("missing.py:name", "missing.py: no such file"),
        (".", ". is not a file"),
        ("right.py:nothing", "right.py has no nothing"),
        ("thing.py:Namespace.nothing", "thing.py has no Namespace.nothing"),
        ("thing.py:number", "int has no function forward(logits, temp)"),
        ("thing.py", "thing has no function forward(logits, temp)"),
    ],
)
def test_no_such_subject(folder, capsys, subject, message):
    assert message in cannot_run(capsys, "check", subject)


@pytest.fixture
def package(folder):
    (folder / "house" / "room").mkdir(parents=True)
    for name, text in {"__init__": "", "room/__init__": "", "room/select": RIGHT, "room/thing": OBJECT}.items():
        text = text.replace("import right", "from house.room import select as right")
        (folder / "house" / f"{name}.py").write_text(text)
    (folder / "house" / "broken.py").write_text("import json\n\njson.nothing\n")
    (folder / "house" / "lacking.py").write_text("import a_module_that_does_not_exist\n")
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "house"]:
        del sys.modules[name]


@pytest.mark.parametrize("subject", ["select", "thing:select", "thing:Namespace.Select"])
def test_a_module_by_its_name(package, subject):
    found = load(f"house.room.{subject}")
    assert found.forward is load("house.room.select:forward")


def test_a_module_by_its_name_from_the_console(package):
    """The current directory is importable, as it is to pytest and uvicorn, where only the script's is on the path."""
    code = "import sys; sys.path[:] = filter(None, sys.path); from npselect.cli import main; main()"
    done = run("check", "house.room.thing:select", python=("-c", code))
    assert (done.stderr, "PASSED" in done.stdout) == ("", True)


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        ("hut", "hut: no such file, and no module hut in the current directory or where Python finds packages"),
        ("hut.room:select", "hut.room: no such file, and no module hut in the current directory"),
        ("house.root", "house has no module root; an object in it is house:root"),
        (
            "house.room.thing.select",
            "house.room.thing has no module select; an object in it is house.room.thing:select",
        ),
        ("house.room.thing:nothing", "house.room.thing has no nothing"),
        ("house.room.thing:Namespace.nothing", "house.room.thing has no Namespace.nothing"),
        ("house.room.thing:number", "int has no function forward(logits, temp)"),
        ("house.broken", "house.broken: broken.py, line 3 cannot be imported: AttributeError: module 'json' has no"),
        ("house.lacking", "lacking.py, line 1 cannot be imported: ModuleNotFoundError: No module named 'a_module_that"),
        ("house..room", "house..room: no such file"),
        ("house/room", "house/room is not a file"),
    ],
)
def test_no_such_module(package, capsys, subject, message):
    assert message in cannot_run(capsys, "check", subject)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def forward(:\n", "SyntaxError"),
        (
            "import a_module_that_does_not_exist\n",
            "ModuleNotFoundError: No module named 'a_module_that_does_not_exist'",
        ),
        ("from numpy import nonsense\n", "ImportError"),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(0)\n", "SystemExit: 0"),
        ("raise ValueError('two\\nlines')\n", "ValueError: two"),
        ("raise ValueError\n", "ValueError"),
        ("\0", "SyntaxError"),
        ("def forward(logits): ...\ndef backward(g, logits, temp): ...\n", "cannot be called as forward(logits, temp)"),
        (
            "def forward(logits, temp): ...\ndef backward(g): ...\n",
            "cannot be called as backward(grad_mask, logits, temp)",
        ),
        ("def forward(logits, temp): ...\n", "has no function backward(grad_mask, logits, temp)"),
    ],
)
def test_broken_subject(folder, capsys, text, message):
    (folder / "broken.py").write_text(text)
    assert message in cannot_run(capsys, "check", "broken.py")


def test_not_python(folder, capsys):
    (folder / "broken").write_bytes(bytes(range(256)))
    assert "broken cannot be imported" in cannot_run(capsys, "check", "broken")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--temp", "0"], "temp is 0.0"),
        (["--temp", "-1"], "temp is -1.0"),
        (["--temp", "nan"], "temp is nan"),
        (["--temp", "cold"], "argument --temp: invalid float value: 'cold'"),
        (["--temp", "1e-30", "--dtype", "float16"], "in float16 0.0"),
        (["--dtype", "int8"], "argument --dtype: invalid choice: 'int8'"),
        (["--backend", "tpu"], "argument --backend: invalid choice: 'tpu'"),
        (["--profile", "kind"], "argument --profile: invalid choice: 'kind'"),
        (["--json", "missing/report.json"], "--json missing/report.json: No such file or directory"),
        (["--json", "."], "--json .: Is a directory"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_bad_options(folder, capsys, options, message):
    assert message in cannot_run(capsys, "check", "right.py", *options)


def test_json_is_left_alone_if_nothing_ran(folder, capsys):
    (folder / "old.json").write_text("old")
    for name in ("old.json", "new.json"):
        cannot_run(capsys, "check", "right.py", "--temp", "0", "--json", name)
    assert (folder / "old.json").read_text() == "old"
    assert not (folder / "new.json").exists()


def test_bfloat16_without_ml_dtypes(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    assert "pip install ml_dtypes" in cannot_run(capsys, "check", "right.py", "--dtype", "bfloat16")


def test_no_command(capsys):
    assert "required: COMMAND" in cannot_run(capsys)
    assert "invalid choice: 'chek'" in cannot_run(capsys, "chek")


# ------------------------------------------------------------------------------------------------ the rest


def test_backends(capsys):
    assert main(["backends"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("reference: available")
    assert lines[1].startswith("cpu: available (numba")
    assert lines[2].startswith("cuda: ")


def test_version_and_help(capsys):
    for arguments, words in [
        (["--version"], f"npselect {npselect.__version__}"),
        (["--help"], "npselect check examples/numpy_select.py"),
        (["check", "--help"], "--json REPORT"),
    ]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        assert words in capsys.readouterr().out


def test_a_python_file_is_not_overwritten(tmp_path, capsys):
    subject = tmp_path / "mine.py"
    subject.write_text("x = 1\n")
    assert main(["check", "--json", str(subject)]) == 2
    assert "the report would overwrite it" in capsys.readouterr().err
    assert subject.read_text() == "x = 1\n"


def test_where_an_import_fails(tmp_path, capsys):
    subject = tmp_path / "broken.py"
    subject.write_text("x = 1\n\ny = x / 0\n")
    assert main(["check", str(subject)]) == 2
    assert "broken.py, line 3 cannot be imported: ZeroDivisionError" in capsys.readouterr().err
