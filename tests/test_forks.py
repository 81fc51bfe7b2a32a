"""A fork while another thread is in its first call: the child's calls work."""

from __future__ import annotations

import os
import subprocess
import textwrap

import children
import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

# A thread is stopped in the midst of its first call, for a while; meanwhile the process forks.
SCRIPT = """
    import os, sys, threading, time
    import numpy as np
    from npselect import straight_through

    logits = np.array([[0.5, 2.0, -1.0]], np.float32)
    begun = threading.Event()

    def stop():
        begun.set()
        time.sleep(1)

    def call():
        return straight_through.index(logits, backend="cpu").tolist()

    {where}

    thread = threading.Thread(target=call)
    thread.start()
    assert begun.wait(60)
    child = os.fork()
    if child == 0:
        os._exit(7 if call() == [1] else 1)
    for _ in range(600):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.1)
    else:
        os.kill(child, 9)
        raise SystemExit("the child hangs")
    assert os.waitstatus_to_exitcode(status) == 7
    thread.join()
    assert call() == [1]
    assert os.fork() or os._exit(0) is None
    print("ended")
"""
COMPILING = """
    from npselect.backends import choose
    choose("cpu")
    from npselect.backends.kept import Kept
    load = Kept.load_overload

    def load_slowly(*arguments):
        if not begun.is_set():
            stop()
        return load(*arguments)

    Kept.load_overload = load_slowly
"""
LOADING = """
    class Finder:
        def find_spec(self, name, *_):
            if name == "npselect.backends.gumbel":
                stop()

    sys.meta_path.insert(0, Finder())
"""


def script(where: str) -> str:
    return textwrap.dedent(SCRIPT.replace("    {where}", where.strip("\n")))


@pytest.mark.parametrize("where", [COMPILING, LOADING], ids=["compiling", "loading"])
def test_a_fork_meanwhile(where: str) -> None:
    command = [*children.python(), "-c", script(where)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr


def test_without_numba_too() -> None:
    """A fork, and a fork of a fork, of a process that has called nothing yet."""
    code = """
import os, sys
import npselect
assert "numba" not in sys.modules
child = os.fork()
if child == 0:
    grandchild = os.fork()
    os._exit(npselect.straight_through.index([1.0, 3.0], backend="reference") if not grandchild
             else os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
print("ended")
"""
    done = subprocess.run([*children.python(), "-c", code], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr


def test_a_fork_from_within_gives_back_what_it_took() -> None:
    from npselect.backends import forks

    assert forks._held == []
    with forks.loading:
        forks._take()
        forks._give_back()
        assert forks.loading._is_owned()  # type: ignore[attr-defined]
    assert not forks.loading._is_owned()  # type: ignore[attr-defined]
    assert forks._held == []
    forks._give_back()  # as after a fork that Python was not told of before
