"""The command as a process: on a terminal, in a pipe, interrupted, and without rich."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ENVIRONMENT, ROOT, run, start


def test_as_a_module(folder):
    assert run("check", "right.py").returncode == 0
    wrong = run("check", "wrong.py")
    assert (wrong.returncode, wrong.stderr) == (1, "")
    missing = run("check", "missing.py")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert missing.stderr == "npselect: error: missing.py: no such file\n"
    assert "Traceback" not in run("check").stderr


def test_without_rich(folder):
    code = "import sys; sys.modules['rich'] = None; from npselect.cli import main; sys.exit(main())"
    done = run("check", "right.py", python=("-c", code))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("PASSED")


def test_a_pipe_gets_whole_lines(folder):
    done = run("check", "wrong.py", COLUMNS="40")
    line = next(line for line in done.stdout.splitlines() if "float32/digits/1797x10 " in line)
    assert "; expected " in line
    assert "\x1b" not in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize("rich", [True, False])
def test_on_a_terminal(folder, rich):
    import pty

    block = "" if rich else "sys.modules['rich'] = None; "
    code = f"import sys; {block}from npselect.cli import main; sys.exit(main(['check', 'wrong.py']))"
    ours, theirs = pty.openpty()
    environment = {**ENVIRONMENT, "TERM": "xterm-256color", "COLUMNS": "80"}
    for name in ("NO_COLOR", "FORCE_COLOR", "CI"):
        environment.pop(name, None)
    child = subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=theirs, env=environment)
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
    assert child.wait() == 1
    assert (b"\x1b[" in written) is rich
    assert b"likely cause: backward: 1/temp is missing" in written
    line = next(line for line in written.splitlines() if b"random/K=10 " in line and b"failed" in line)
    assert b"expected" in line


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_interrupt(folder):
    (folder / "slow.py").write_text(
        "import time\nfrom right import *\n"
        "def forward(logits, temp):\n    print('running', flush=True)\n    time.sleep(60)\n"
    )
    child = start("slow.py", "--json", "report.json")
    assert child.stdout is not None
    assert child.stdout.readline() == "running\n"
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (130, "npselect: interrupted\n")
    assert not Path("report.json").exists()


def test_closed_pipe(folder):
    child = start("right.py")
    assert child.stdout is not None
    child.stdout.close()
    assert child.stderr is not None
    err = child.stderr.read()
    child.stderr.close()
    assert (child.wait(timeout=30), err) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full exists on Linux alone")
@pytest.mark.parametrize("arguments", [["--json", "/dev/full"], []])
def test_a_report_that_cannot_be_written_is_not_a_verdict(arguments):
    command = [sys.executable, "-m", "npselect", "check", *arguments]
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            command,
            stdout=subprocess.DEVNULL if arguments else full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == "npselect: error: the report cannot be written: No space left on device\n"
