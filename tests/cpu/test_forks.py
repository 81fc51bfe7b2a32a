"""A fork while another thread is in its first call: what the child can do it does, and else it raises at once."""

from __future__ import annotations

import os
import subprocess
import textwrap
import threading

import children
import pytest

from npselect import _forks as forks

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

    def child_ends():
        for _ in range(600):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.1)
        os.kill(child, 9)
        raise SystemExit("the child hangs")

    {where}

    thread = threading.Thread(target=call)
    thread.start()
    assert begun.wait(60)
    child = os.fork()
    if child == 0:
        for _ in range(2):
            try:
                call()
                os._exit(1)
            except RuntimeError as error:
                assert "npselect.warm_up" in str(error)
        os._exit({others})
    assert child_ends() == 7
    thread.join()
    assert call() == [1]
    child = os.fork()
    if child == 0:
        os._exit(7 if call() == [1] else 1)
    assert child_ends() == 7
    print("ended")
"""
COMPILING = """
    straight_through.index(logits.astype("d"), backend="cpu")
    from npselect.tiers.cpu.cache import KernelCache
    load = KernelCache.load_overload

    def load_slowly(*arguments):
        if not begun.is_set():
            stop()
        return load(*arguments)

    KernelCache.load_overload = load_slowly
"""
LOADING = """
    class Finder:
        def find_spec(self, name, *_):
            if name == "npselect._arithmetic.gumbel":
                stop()

    sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize("where", [COMPILING, LOADING], ids=["compiling", "loading"])
def test_a_fork_meanwhile(where: str) -> None:
    """The child knows a kernel that had been compiled before, and no other; a fork afterwards is as any."""
    known = "7 if straight_through.index(logits.astype('d'), backend='cpu') == 1 else 2" if where == COMPILING else "7"
    script = textwrap.dedent(SCRIPT.replace("    {where}", where.strip("\n")).replace("{others}", known))
    command = [*children.python(), "-c", script]
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


def test_a_fork_by_the_thread_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the forking thread holds it still holds in the child; what another does, nobody."""
    monkeypatch.setattr(forks, "_interrupted", False)
    with forks.loading:
        forks._look()
        forks.check()
        other = threading.Thread(target=forks._look)
        other.start()
        other.join()
    with pytest.raises(RuntimeError, match=r"Call npselect\.warm_up before forking"):
        forks.check()
