"""What LLVM makes of the CPU tier's kernels for AArch64 with NEON, read wherever the tests run: nothing is executed."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import aarch64
import pytest

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ["NUMBA_CACHE_DIR"]) / "aarch64"  # of these very sources, see conftest.py
ROWS = [
    f"{module}.{function}_rows"
    for module in ("short_rows", "long_rows")
    for function in (
        *("index", "mask", "choice", "mask_at", "sum", "soft"),
        *("backward", "backward_temp", "double_backward", "reinmax"),
        *("gapped", "gapped_soft", "gumbel_rao", "mixture", "log"),
    )
]
KERNELS = [*ROWS, *(f"noise.{name}" for name in ("draw", "draw_at", "perturb", "perturb_at", "add_rows"))]
# These have the loads, exponentials, sums and stores of all; the others are compiled in the long sweeps.
QUICK = [f"{module}.{name}_rows" for module in ("short_rows", "long_rows") for name in ("mask", "backward")]
QUICK += ["noise.perturb_at"]
EACH = [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in KERNELS]
WITHOUT_FMA = re.compile(r"(index|mask|choice|mask_at|sum|add|log)_rows")  # log is of one number at a time

CALL = re.compile(r"^\tbl?\t(?!\.L)(\S+)$", re.MULTILINE)
OURS = re.compile(r"_ZN|NRT_|Py|_Py|numba_|mem(cpy|move|set)$")  # memory, the interpreter, functions of our own
VECTOR_FMA = re.compile(r"^\tfml[as]\tv\d+\.(2d|4s)", re.MULTILINE)
# One entry of a vector behind a test of its own: how a masked load comes out where there is no instruction for it.
MASKED = re.compile(
    r"^\t(tbn?z|cbn?z|b\.\w+)\b.*\n(\S+:.*\n)?(\t(add|sub)\t.*\n)?\tld1\t\{ ?v\d+\.\w ?\}\[", re.MULTILINE
)
# The register of the modes is read and cleared, the kernel called, and the register has again what was read.
ENTERED = re.compile(
    r"\tmrs\t(x\d+), FPCR\n(?:\t.*\n)*?\tmsr\tFPCR, xzr\n(?:\t.*\n)*?\tbl\t_ZN\S+\n(?:\t.*\n)*?\tmsr\tFPCR, \1\n"
)


def foreign_calls(assembly):
    """Of what is neither ours nor numba's: of a library for mathematics, say."""
    return sorted({name for name in CALL.findall(assembly) if not OURS.match(name)})


@functools.cache
def compiled(quick):
    """Assembly by kernel, float32; compiled in a process of its own, which is no use afterwards."""
    names = [name for name in KERNELS if (name in QUICK) == quick]
    done = FOLDER / f"done, quick = {quick}"
    if not done.exists():
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, str(ROOT / "tests" / "aarch64.py"), str(FOLDER), "--dtype", "float32"]
        run = subprocess.run(
            [*command, *(f"--kernel={name}" for name in names)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert run.returncode == 0, run.stderr
        done.touch()
    return {name: (FOLDER / f"{name}.float32.s").read_text() for name in names}


@pytest.fixture
def assembly(name):
    return compiled(name in QUICK)[name]


def test_every_kernel_is_there():
    assert sorted(KERNELS) == sorted(aarch64.kernels())


@pytest.mark.parametrize("name", EACH)
def test_no_function_of_a_library_is_called(name, assembly):
    assert foreign_calls(assembly) == []


@pytest.mark.parametrize("name", [each for each in EACH if not WITHOUT_FMA.search(each.values[0])])
def test_fma_is_an_instruction_over_vectors(name, assembly):
    assert VECTOR_FMA.search(assembly)


@pytest.mark.parametrize("name", EACH)
def test_no_load_is_masked(name, assembly):
    assert not MASKED.search(assembly)


@pytest.mark.parametrize("name", EACH)
def test_kernels_are_entered_in_the_usual_modes(name, assembly):
    assert len(ENTERED.findall(assembly)) == 1


# ------------------------------------------------------------------------------------------------ the reader

HONEST = """\
_ZN8npselect4rows:
.LBB0_1:
	ldp	q0, q1, [x8], #32
	fmla	v0.4s, v1.4s, v2.4s
	ld1	{ v3.s }[1], [x9]
	tbz	w9, #1, .LBB0_1
	b	.LBB0_2
	bl	memset
	bl	NRT_incref
	bl	PyErr_SetString
	bl	_ZN8npselect5tiers3cpu10short_rows5_fold
entry:
	mrs	x19, FPCR
	msr	FPCR, xzr
	str	x8, [sp]
	bl	_ZN8npselect4rows
	msr	FPCR, x19
	ret
"""


def test_the_reader_finds_what_is_there():
    assert foreign_calls(HONEST) == []
    assert VECTOR_FMA.search(HONEST)
    assert not MASKED.search(HONEST)
    assert ENTERED.search(HONEST)


@pytest.mark.parametrize("lost", ["mrs\tx19, FPCR", "msr\tFPCR, xzr", "bl\t_ZN8npselect4rows", "msr\tFPCR, x19"])
def test_the_reader_finds_that_modes_are_not_set(lost):
    assert not ENTERED.search(HONEST.replace(f"\t{lost}\n", ""))


@pytest.mark.parametrize("name", ["fmaf", "expf", "log", "fma", "__extendhfsf2"])
@pytest.mark.parametrize("jump", ["bl", "b"])
def test_the_reader_finds_a_call(name, jump):
    assert foreign_calls(HONEST.replace("bl\tmemset", f"{jump}\t{name}")) == [name]


@pytest.mark.parametrize("scalar", ["fmadd\ts0, s1, s2, s3", "fmul\tv0.4s, v1.4s, v2.4s"])
def test_the_reader_finds_no_fma_over_vectors(scalar):
    assert not VECTOR_FMA.search(HONEST.replace("fmla\tv0.4s, v1.4s, v2.4s", scalar))


@pytest.mark.parametrize(
    "masked",
    [
        "tbz\tw9, #2, .LBB0_33\n.LBB0_18:\n\tadd\tx10, x8, #2\n\tld1\t{ v2.b }[2], [x10]",
        "cbz\tw9, .LBB0_33\n\tld1\t{ v2.s }[2], [x10]",
        "b.eq\t.LBB0_33\n.LBB0_18:                 // a comment\n\tld1\t{v2.s}[3], [x10]",
    ],
)
def test_the_reader_finds_a_masked_load(masked):
    assert MASKED.search(HONEST.replace("bl\tmemset", masked))


# ------------------------------------------------------------------------------------------------ bench/aarch64.py


@pytest.fixture
def bench(monkeypatch):
    spec = importlib.util.spec_from_file_location("bench_aarch64", ROOT / "bench" / "aarch64.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.shutil, "which", lambda name: f"/usr/bin/{name}")
    return module


def command(bench, monkeypatch, work):
    return bench.main(["--work", str(work), "--dtype", "float32"])


def test_no_emulator(bench, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(bench.shutil, "which", lambda _: None)
    assert command(bench, monkeypatch, tmp_path) == 2
    assert "there is no qemu-aarch64-static on the path; install it" in capsys.readouterr().err


def test_another_python(bench, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(bench.sys, "version_info", (3, 14, 0))
    assert command(bench, monkeypatch, tmp_path) == 2
    assert "run this with Python 3.11" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: --work"),
        (["--work", "x", "--dtype", "int8"], "argument --dtype: invalid choice: 'int8'"),
        (["--work", f"{Path(__file__)}/x"], f"--work {Path(__file__)}/x: Not a directory"),
    ],
)
def test_bad_arguments(bench, capsys, arguments, message, monkeypatch):
    """In one line."""
    monkeypatch.setattr(bench.sys, "version_info", (3, 11, 0))
    assert bench.main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("aarch64: error: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("statuses", "expected"), [([0, 0], 0), ([0, 1], 1), ([1], 2)])
def test_compiled_here_and_run_there(bench, monkeypatch, capsys, tmp_path, statuses, expected):
    calls = []

    def process(command, **environment):
        calls.append((command, environment))
        return statuses[len(calls) - 1]

    monkeypatch.setattr(bench, "prepare", lambda work: ("qemu", work / "root", work / "site"))
    monkeypatch.setattr(bench, "process", process)
    assert command(bench, monkeypatch, tmp_path) == expected
    assert calls[0][0][0] == sys.executable
    assert ("cannot be compiled" in capsys.readouterr().err) is (expected == 2)
    if expected < 2:
        assert calls[1][0][0] == "qemu"
        assert calls[0][1]["NUMBA_CACHE_DIR"] == calls[1][1]["NUMBA_CACHE_DIR"]
