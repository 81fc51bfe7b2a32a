"""Kernels that the sections of bench/gpu.py keep."""

import itertools
import json
import os
import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "bench"))

from gpu import kept  # noqa: E402

needs_numba_cuda = pytest.mark.skipif(find_spec("numba_cuda") is None, reason="numba-cuda is not installed")


# ------------------------------------------------------------------------------------------------ names


def launchers():
    """The launchers of all kernels for rows of many lengths, by what they are."""
    from npselect._gpu import copy as device_copy
    from npselect.tiers.cuda import gather as device_selection
    from npselect.tiers.cuda import kernels as device_kernels
    from npselect.tiers.cuda import noise as device_noise
    from npselect.tiers.cuda import rows as cuda

    made = {}
    kinds = {"float32": np.float32, "float64": np.float64, "float16": np.uint16, "bfloat16": np.int16}
    for name, held in {
        "mask": 1,
        "index": 1,
        "soft": 1,
        "backward": 2,
        "backward_temp": 3,
        "double_backward": 3,
    }.items():
        for kind, noise, choices, aligned in itertools.product(
            kinds, ("none", "array", "drawn"), (1, 10, 33, 100, 200, 1000, 1025, 4097, 50257), (True, False)
        ):
            about = held, kinds[kind], kinds[kind], noise, choices, aligned
            made[f"{name} {kind} {noise} {choices} {aligned}"] = cuda._plan(
                getattr(device_kernels, name), *about
            ).launch
    made["mixed"] = cuda._plan(device_kernels.mask, 1, np.float32, np.uint16, "array", 10, False).launch
    made["totals"] = cuda._plan(device_kernels.totals, 0, np.float32, np.float32, "none", 10, False).launch
    for source, target in itertools.product(("float32", "bool", "float16", "bfloat16"), repeat=2):
        made[f"{source} to {target}"] = device_copy._kernel(source, target)
    for kind in (np.float32, np.float64):
        made[f"draw {kind.__name__}"] = device_noise.draw(kind)
    for name in ("float32", "float16"):
        made[f"added {name}"] = device_selection._adding(name, name)
        made[f"product {name}"] = device_selection._multiplying(name, name, "float32")
    return made


@needs_numba_cuda
def test_every_kernel_has_a_name_of_its_own():
    by_name = {}
    for what, launcher in launchers().items():
        by_name.setdefault(kept.name_of(launcher, (9, 0)), {}).setdefault(id(launcher), []).append(what)
    assert [list(same.values()) for same in by_name.values() if len(same) > 1] == []
    assert len(by_name) > 300
    some = next(iter(launchers().values()))
    assert kept.name_of(some, (9, 0)) != kept.name_of(some, (8, 0))


@needs_numba_cuda
def test_names_are_the_same_in_another_process():
    code = (
        "import json, test_cuda_kept as t; print(json.dumps({what: t.kept.name_of(each, (9, 0)) "
        "for what, each in reversed(t.launchers().items())}))"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)]),
        "PYTHONHASHSEED": "7",
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert json.loads(done.stdout) == {what: kept.name_of(each, (9, 0)) for what, each in launchers().items()}


@needs_numba_cuda
def test_what_has_no_name_is_refused():
    thing = object()

    def kernel(x):
        return thing

    with pytest.raises(TypeError, match="a object has no name"):
        kept.name_of(SimpleNamespace(function=kernel, signature="", most_threads=1), (9, 0))


# ------------------------------------------------------------------------------------------------ keeping


class Kernel:
    argument_types = ()

    def __init__(self, number):
        self.number = number


def new_launchers(monkeypatch, log):
    """A class like `Launcher`, whose compiler numbers what it makes."""

    class Launchers:
        def compiled(self):
            log.append("compiled")
            return SimpleNamespace(overloads={(): Kernel(len(log))})

    monkeypatch.setattr(kept, "name_of", lambda launcher, capability: launcher.name)
    monkeypatch.setattr(kept, "_dispatcher", lambda launcher, kernel: SimpleNamespace(overloads={(): kernel}))
    return Launchers


def number(launchers, name):
    launcher = launchers()
    launcher.name = name
    (kernel,) = launcher.compiled().overloads.values()
    return kernel.number


def test_what_is_kept_is_taken(monkeypatch, tmp_path):
    log = []
    for _ in range(2):  # processes
        launchers = new_launchers(monkeypatch, log)
        kept.keep(launchers, tmp_path / "kernels", (9, 0))
        kept.keep(launchers, tmp_path / "kernels", (9, 0))  # a section may ask twice
        assert [number(launchers, name) for name in "aba"] == [1, 2, 1]
    assert log == ["compiled"] * 2
    assert sorted(path.name for path in (tmp_path / "kernels").iterdir()) == ["a", "b"]


def test_what_cannot_be_kept_or_taken_is_compiled(monkeypatch, tmp_path):
    log = []
    launchers = new_launchers(monkeypatch, log)
    kept.keep(launchers, tmp_path, (9, 0))
    (tmp_path / "broken").write_bytes(b"no pickle")
    assert number(launchers, "broken") == 1
    monkeypatch.setattr(pickle, "dumps", lambda kernel: (_ for _ in ()).throw(OSError("the disk is full")))
    assert [number(launchers, "a") for _ in range(2)] == [2, 3]
    monkeypatch.setattr(kept, "name_of", lambda launcher, capability: (_ for _ in ()).throw(TypeError("no name")))
    assert number(launchers, "b") == 4


def test_nothing_is_kept_unasked(monkeypatch):
    monkeypatch.delenv(kept.FOLDER, raising=False)
    monkeypatch.setattr(kept, "keep", None)
    kept.install()


def test_a_report_is_told_why_nothing_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv(kept.FOLDER, str(tmp_path))
    monkeypatch.setitem(sys.modules, "npselect._gpu.launch", None)
    notes = []
    kept.install(SimpleNamespace(note=notes.append))
    assert len(notes) == 1
    assert notes[0].startswith("compiled kernels are not kept: ")
