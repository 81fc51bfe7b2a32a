"""After `npselect.warm_up` nothing is compiled: not in this process and, where the cache is kept, not in another."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import npselect
from npselect import _warm_up
from npselect.cli import main

ROOT = Path(__file__).parents[2]

# Shapes, layouts, temperatures, noise and lengths of rows that `warm_up` itself does not have.
CALLS = """
import json, sys
from types import SimpleNamespace
import numpy as np
from npselect import OPERATORS, categorical, gapped, gumbel_rao, gumbel_softmax, noise, reinmax, selection
from npselect import straight_through

def calls(dtype, wide, operator, choices):
    rng = np.random.default_rng(0)
    g, k, logits = (rng.standard_normal((5, choices)).astype(dtype) for _ in range(3))
    frozen = logits.copy()
    frozen.flags.writeable = False
    strided = np.zeros((10, 2 * choices), dtype)[::2, ::2]
    each = np.array([[0.5], [1.0], [2.0], [0.1], [7.0]], wide)
    where = rng.random(choices) < 0.9
    where[0] = True  # which an index names
    ways = [{}]
    if operator is not straight_through:
        row = rng.standard_normal(choices).astype(wide)
        ways = [{"seed": 3}, {"seed": 3, "offset": 7}, {"noise": row}, {"noise": rng.standard_normal((5, choices))}]
    record = OPERATORS[operator.__name__.rpartition(".")[-1]]
    if "index" in record.options:
        ways.append({"index": np.zeros(5, np.int32)})
    if "unimix" in record.options:
        ways.append({"seed": 3, "unimix": 0.5, "forward_temp": 2.0})
    if "gap" in record.options:
        ways.append({"seed": 3, "gap": "adaptive"})
    for way in ways:
        for x in (logits, frozen, strided, logits[:1]):
            rows = len(x)
            more = {**way, "noise": way["noise"][:rows]} if way.get("noise", row_or_none).ndim == 2 else way
            more = {"index": way["index"][:rows]} if "index" in way else more
            operator.index(x, **more)
            for temp in (0.6, each[:rows]):
                for there in (None, where, np.broadcast_to(where, x.shape)):
                    options = {"where": there, **more}
                    operator.forward(x, temp, **options)
                    operator.soft(x, temp, where=there, **(more if {*more} <= {*record.options_of("soft")} else {}))
                    if operator is gumbel_rao:
                        options = {"where": there, "index": np.zeros(rows, int), "seed": 1, "samples": 20}
                        if "noise" in way:
                            options = {**options, "seed": None, "samples": None}
                            options["sample_noise"] = np.ones((2, *x.shape), wide)
                    operator.backward(g[:rows], x, temp, **options, out=np.empty(x.shape, dtype))
                    operator.jvp(g[:rows], x, temp, **options)
                    if "backward_temp" in record.functions:
                        operator.backward_temp(g[:rows], x, temp, **options)
                        operator.double_backward(k[:rows], g[:rows], x, temp, **options)
        if way.keys() & {"seed"}:
            operator.backward(g.T.copy(), logits.T.copy(), axis=0, **way)  # of gumbel_rao with a hundred samples
    vectors = rng.standard_normal((choices, 2)).astype(dtype)
    given = {"seed": 1} if record.options else {}
    chosen = selection.forward(vectors, logits, operator=operator, **given)
    selection.backward(chosen, vectors, logits, operator=operator, **given)
    for e in (g, frozen, strided):
        selection.rotation.backward(g, e, logits)
    if record.options:
        noise.gumbel((3, choices), 5, offset=1, dtype=wide)

row_or_none = np.zeros(0)
"""

COUNTED = (
    CALLS
    + """
from numba.core import event

class Names(event.Listener):
    def __init__(self):
        self.names = []
    def on_start(self, happening):
        self.names.append(str(happening.data["dispatcher"]))
    def on_end(self, _):
        pass

name, operators = sys.argv[1], sys.argv[2].split(",")
dtype = np.dtype(__import__("ml_dtypes").bfloat16 if name == "bfloat16" else name)
names = Names()
with event.install_listener("numba:compile", names):
    for operator in operators:
        for choices in (1, 5, 16, 20, 128, 129, 1000):
            calls(dtype, np.float64 if name == "float64" else np.float32, globals()[operator], choices)
print(json.dumps(names.names))
"""
)


def process(code, *arguments, **environment):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_another_process_compiles_nothing(dtype):
    npselect.warm_up(dtype)
    assert json.loads(process(COUNTED, dtype, ",".join(npselect.OPERATORS))) == []


def test_what_is_not_warm_is_counted(tmp_path):
    """In an empty cache, where one call compiles one kernel."""
    code = COUNTED.replace(
        "            calls(dtype, np.float64",
        "            straight_through.index(np.zeros((1, 3), dtype)); (dtype, np.float64",
    )
    names = json.loads(process(code, "float32", "straight_through", NUMBA_CACHE_DIR=str(tmp_path)))
    assert any("index_rows" in name for name in names)


def test_counts_what_it_compiles(monkeypatch, tmp_path):
    code = """
import numpy as np, npselect._warm_up as w
from types import SimpleNamespace
from functools import partial
from npselect import straight_through
w._calls = lambda operator, kind: [("index", partial(straight_through.index, np.zeros((1, 3), kind)))] * 2
print(w.warm_up("float32", "straight_through"), w.warm_up("float32", "straight_through"))
"""
    assert process(code, NUMBA_CACHE_DIR=str(tmp_path)).split() == ["1", "0"]
    assert process(code, NUMBA_CACHE_DIR=str(tmp_path)).split() == ["0", "0"]


def test_every_function_is_called():
    for name in npselect.OPERATORS:
        called = {function for function, _ in _warm_up._calls(name, np.dtype(np.float32))}
        assert set(getattr(npselect, name).__all__) <= called


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("int8",), r"dtype is 'int8'; it takes one of 'float16', 'bfloat16', 'float32', 'float64'"),
        ((["float32", np.complex64],), "dtype is 'complex64'"),
        ((object(),), "dtype is '"),
        (("float32", "sort"), "operator is 'sort'; it takes one of 'straight_through', 'gumbel_softmax', 'cat"),
        (("float32", ["gumbel_softmax", 3]), "operator is 3"),
        (("float32", [["straight_through"]]), r"operator is \['straight_through'\]; it takes one of"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        npselect.warm_up(*arguments)


@pytest.fixture
def quick(monkeypatch):
    """Nothing to compile."""
    asked = []

    def calls(operator, kind):
        asked.append((operator, str(kind)))
        return [("forward", lambda: None)]

    monkeypatch.setattr(_warm_up, "_calls", calls)
    return asked


def test_dtypes_are_names_or_dtypes(quick):
    assert npselect.warm_up([np.float16, np.dtype("float64"), "float32"], "straight_through") == 0
    assert quick == [("straight_through", name) for name in ("float16", "float64", "float32")]


def test_progress(quick):
    told = []
    npselect.warm_up(progress=lambda *one: told.append(one))
    assert told == [
        (0, 6, "straight_through.forward, float32"),
        (1, 6, "gumbel_softmax.forward, float32"),
        (2, 6, "categorical.forward, float32"),
        (3, 6, "reinmax.forward, float32"),
        (4, 6, "gapped.forward, float32"),
        (5, 6, "gumbel_rao.forward, float32"),
        (6, 6, ""),
    ]


def test_command(quick, capsys):
    assert main(["warm-up", "--dtype", "float64", "--operator", "gumbel_softmax"]) == 0
    assert quick == [("gumbel_softmax", "float64")]
    out = capsys.readouterr().out
    assert out.startswith("0 kernels compiled in ")
    assert os.environ["NUMBA_CACHE_DIR"] in out


def test_command_where_nothing_can_be_kept(quick, capsys, monkeypatch):
    from npselect.tiers.cpu import compilations as compiling

    monkeypatch.setattr(compiling, "mask_rows", SimpleNamespace(stats=SimpleNamespace(cache_path=None)))
    assert main(["warm-up"]) == 2
    assert "nothing is kept: no cache directory can be written; name one in NUMBA_CACHE_DIR" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (OSError(errno.ENOSPC, "No space left"), 2, "error: the machine code cannot be kept: No space left"),
        (OSError("the lock is gone"), 2, "error: the machine code cannot be kept: the lock is gone"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=["full disk", "no lock", "interrupted"],
)
def test_command_that_cannot_go_on(capsys, monkeypatch, error, status, message):
    def call():
        raise error

    monkeypatch.setattr(_warm_up, "_calls", lambda operator, kind: [("forward", call)])
    assert main(["warm-up"]) == status
    assert capsys.readouterr().err == f"npselect: {message}\n"


@pytest.mark.parametrize("option", ["--dtype", "--operator"])
def test_command_with_what_there_is_not(capsys, option):
    assert main(["warm-up", option, "sort"]) == 2
    assert "invalid choice: 'sort'" in capsys.readouterr().err
