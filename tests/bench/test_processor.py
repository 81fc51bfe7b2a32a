"""Code for another processor: what LLVM says it needs, what the packages are told, and what could not be restricted."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from npselect import bench
from npselect.bench import features, processor
from npselect.cli import main

ROOT = Path(__file__).parents[2]
SMALL = ["--shape", "16x5", "--quick", "--peer", "npselect", "--peer", "numpy"]
pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="processors of the family x86-64 are told apart"
)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in (*processor.variables("haswell", "x86-64-v3"), "NPY_DISABLE_CPU_FEATURES", "NPSELECT_BENCH_CPU"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def without_numba(monkeypatch):
    """As in a process that has not loaded it."""
    for name in ("numba", "torch", "jax", "tensorflow"):
        monkeypatch.delitem(sys.modules, name, raising=False)


# ------------------------------------------------------------------------------------------------ what LLVM says


@pytest.mark.parametrize(
    ("name", "has", "lacks"),
    [
        ("x86-64", {"sse2"}, {"sse3", "popcnt", "avx"}),
        ("x86-64-v2", {"sse4.2", "popcnt"}, {"avx", "fma"}),
        ("haswell", {"avx2", "fma", "f16c", "bmi2"}, {"avx512f", "sse4a", "fma4"}),
        ("bdver2", {"fma4", "xop", "avx"}, {"avx2"}),
        ("skylake-avx512", {"avx512f", "avx512vl"}, {"avx512vbmi"}),
        ("znver4", {"avx512f", "avx512vbmi", "sse4a"}, {"fma4"}),
    ],
)
def test_features(name, has, lacks):
    uses, here = features.features(name)
    assert has <= uses
    assert not lacks & uses
    assert "sse2" in here


@pytest.mark.parametrize("name", ["haswel", "", "-", "apple-m1", 'a" b', "i386"])
def test_no_such_processor(name):
    with pytest.raises(ValueError, match=r"LLVM (knows no x86-64 processor|cannot tell what code for the processor) '"):
        features.features(name)


def test_missing_is_what_a_compiler_may_issue():
    assert features.missing(frozenset({"avx512f", "sse2", "rdpru"}), frozenset({"sse2"})) == ["avx512f"]


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("x86-64", "x86-64"),
        ("nehalem", "x86-64-v2"),
        ("sandybridge", "x86-64-v2"),
        ("bdver2", "x86-64-v2"),
        ("haswell", "x86-64-v3"),
        ("znver3", "x86-64-v3"),
        ("skylake-avx512", "x86-64-v4"),
        ("znver5", "x86-64-v4"),
    ],
)
def test_level(name, level):
    assert processor.level(features.features(name)[0]) == level


# ------------------------------------------------------------------------------------------------ what they are told


def lacking(monkeypatch, *names):
    """This processor, without some features."""
    honest = features.features

    def planted(name):
        uses, has = honest(name)
        return uses, has - set(names)

    monkeypatch.setattr(processor, "features", planted)


def test_variables_are_set_and_set_back(monkeypatch, without_numba):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x --xla_cpu_max_isa=AVX512")
    monkeypatch.setenv("NUMBA_CPU_NAME", "generic")
    with processor.code_is_for("x86-64-v2") as restriction:
        assert os.environ["NUMBA_CPU_NAME"] == "x86-64-v2"
        assert os.environ["NUMBA_CPU_FEATURES"] == ""
        assert os.environ["ATEN_CPU_CAPABILITY"] == "default"
        assert os.environ["XLA_FLAGS"] == "--xla_dump_to=x --xla_cpu_max_isa=SSE4_2"
    assert (restriction.npselect, restriction.peers) == ("x86-64-v2", "x86-64-v2")
    assert os.environ["NUMBA_CPU_NAME"] == "generic"
    assert os.environ["XLA_FLAGS"] == "--xla_dump_to=x --xla_cpu_max_isa=AVX512"
    assert "NUMBA_CPU_FEATURES" not in os.environ
    assert "ATEN_CPU_CAPABILITY" not in os.environ


def test_nothing_is_set_without_a_name():
    before = dict(os.environ)
    with processor.code_is_for(None) as restriction:
        assert restriction is None
        assert dict(os.environ) == before


def test_what_was_loaded_before_is_named(monkeypatch, without_numba):
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace())
    with processor.code_is_for("x86-64-v2") as restriction:
        assert restriction.not_restricted["torch"] == "PyTorch was loaded before its variables could be set"
        assert "NPY_DISABLE_CPU_FEATURES=" in restriction.not_restricted["numpy"]
        assert {"tensorflow", "copy"} < restriction.not_restricted.keys()
        assert "jax" not in restriction.not_restricted
        with processor.code_is_for("x86-64-v2") as again:  # they are as they should be
            assert "torch" not in again.not_restricted


def test_what_was_set_before_is_not_named(monkeypatch, without_numba):
    level, variables = processor.restricted("x86-64-v2")
    assert level == "x86-64-v2"
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace())
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with processor.code_is_for("x86-64-v2") as restriction:
        assert restriction.not_restricted.keys() == {"tensorflow", "copy"}


def test_no_peer_goes_below_the_second_level(without_numba):
    with processor.code_is_for("x86-64") as restriction:
        assert restriction.peers == "x86-64"
        assert "x86-64-v2" in restriction.not_restricted["the peers"]


def test_numba_that_is_there_for_another_processor(monkeypatch):
    numba = SimpleNamespace(config=SimpleNamespace(CPU_NAME=None, CPU_FEATURES=None))
    monkeypatch.setitem(sys.modules, "numba", numba)
    with pytest.raises(RuntimeError, match=r"cpu is 'x86-64-v2' and numba has been loaded already, for .*; set NUMBA"):
        bench.run(peers=["npselect"], shapes=[(4, 3)], cpu="x86-64-v2")
    numba.config.CPU_NAME, numba.config.CPU_FEATURES = "x86-64-v2", "+avx2"
    with pytest.raises(RuntimeError, match="for x86-64-v2; set NUMBA"), processor.code_is_for("x86-64-v2"):
        pass
    numba.config.CPU_FEATURES = ""
    with processor.code_is_for("x86-64-v2") as restriction:
        assert restriction.npselect == "x86-64-v2"


def test_code_that_cannot_run_here(monkeypatch, without_numba):
    lacking(monkeypatch, "sse4.2", "popcnt")
    with (
        pytest.raises(ValueError, match=r"code for 'x86-64-v2' cannot run here: it may use popcnt, sse4\.2, which"),
        processor.code_is_for("x86-64-v2"),
    ):
        pass


@pytest.mark.parametrize("level", [*processor.LEVELS, "x86-64"])
def test_numpy_disables_what_is_above(level, monkeypatch):
    names = ["SSE42", "AVX2", "FMA3", "X86_V3", "AVX512F", "X86_V4", "AVX512_ICL"]
    monkeypatch.setattr(processor, "import_module", lambda _: SimpleNamespace(__cpu_dispatch__=names))
    kept = {"x86-64": 0, "x86-64-v2": 1, "x86-64-v3": 4, "x86-64-v4": 6}[level]
    assert processor.numpy_disables(level) == " ".join(names[kept:])


# ------------------------------------------------------------------------------------------------ the command


def test_the_report_says_for_which_processor(capfd, tmp_path):
    path = tmp_path / "times.json"
    assert main(["bench", *SMALL, "--cpu", "x86-64-v2", "--json", str(path)]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert "compiled for: npselect x86-64-v2, the peers x86-64-v2\n" in out
    assert "not restricted: tensorflow: " in out
    assert "not restricted: numpy" not in out
    code = json.loads(path.read_text())["settings"]["compiled_for"]
    assert (code["npselect"], code["peers"]) == ("x86-64-v2", "x86-64-v2")
    assert code["not_restricted"].keys() == {"tensorflow", "copy"}


def test_without_the_option_all_is_used():
    report = bench.run(peers=["npselect"], shapes=[(4, 3)], effort=bench.Effort(rounds=1, seconds=1e-4))
    code = report.settings["compiled_for"]
    assert code["npselect"] == processor.compiled_for() != ""
    assert (code["peers"], code["not_restricted"]) == ("this processor", {})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("haswel", "--cpu haswel: LLVM knows no x86-64 processor 'haswel'; it knows"),
        ("x86-64-v3", "--cpu x86-64-v3: code for 'x86-64-v3' cannot run here: it may use avx2, which this processor"),
    ],
)
def test_refused(capsys, monkeypatch, name, message):
    lacking(monkeypatch, "avx2")
    assert main(["bench", *SMALL, "--cpu", name]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_an_interrupt_of_the_command_alone_reaches_its_process(tmp_path):
    (tmp_path / "slow.py").write_text(
        "import time\ndef forward(logits, temp):\n    print('waiting', flush=True)\n    time.sleep(60)\n"
        "def backward(grad_mask, logits, temp):\n    return logits\n"
    )
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from npselect.cli import main; sys.exit(main())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", code, "bench", str(tmp_path / "slow.py"), *SMALL, "--cpu", "x86-64-v2"]
    with subprocess.Popen(command, text=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout.readline() == "waiting\n"
        started = time.monotonic()
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=50)
    assert (run.returncode, err) == (130, "npselect: interrupted\n")
    assert time.monotonic() - started < 50
