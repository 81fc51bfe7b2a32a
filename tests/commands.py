"""The command in a process of its own, and in this one; files for it to check."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import children

from npselect.cli import main

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
RIGHT = """\
import numpy as np

def forward(logits, temp):
    return (np.arange(logits.shape[-1]) == np.argmax(logits, axis=-1, keepdims=True)).astype(logits.dtype)

def backward(g, logits, temp):
    e = np.exp((logits - logits.max(axis=-1, keepdims=True)) / temp)
    p = e / e.sum(axis=-1, keepdims=True)
    return p * (g - (p * g).sum(axis=-1, keepdims=True)) / temp
"""
WRONG = RIGHT.replace(".sum(axis=-1, keepdims=True)) / temp", ".sum(axis=-1, keepdims=True))")
OBJECT = """\
import right

class Namespace:
    class Select:
        forward = staticmethod(right.forward)
        backward = staticmethod(right.backward)

select = Namespace.Select()
number = 3
"""


def run(*arguments, python=("-m", "npselect"), **environment):
    command = [*children.python(), *python, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**ENVIRONMENT, **environment})


def start(subject, *options):
    """A child that can be interrupted, even where this process has been started to ignore that."""
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from npselect.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "check", subject, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


def cannot_run(capsys, *arguments):
    """The one line on stderr."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("npselect: error: ")
    assert err.count("\n") == 1
    return err
