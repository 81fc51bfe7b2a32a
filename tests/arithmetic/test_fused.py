"""fma on processors without an instruction for it: which they are, and that float32's vector code has an fma's bits."""

from __future__ import annotations

import itertools
import os
import platform
import subprocess
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import children
import llvmlite.binding as llvm
import numpy as np
import pytest
import test_exponential
from numba import njit
from numba.core.cpu import CPUContext

from npselect._arithmetic import processor as processors
from npselect._arithmetic.primitives import fma
from npselect._arithmetic.simd import WIDTH, load, store

X86, ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
PROCESSOR = "x86-64-v2"


# ------------------------------------------------------------------------------------------------ has_fma


def context_for(*codegen: str) -> Any:
    context = CPUContext.__new__(CPUContext)
    context.codegen = lambda: SimpleNamespace(magic_tuple=lambda: codegen)
    return context


@pytest.mark.parametrize(
    ("triple", "name", "features", "expected"),
    [
        (X86, "x86-64", "", False),
        (X86, "x86-64-v2", "", False),
        (X86, "x86-64-v2", "+avx2", False),
        (X86, "x86-64-v2", "+fma", True),
        (X86, "ivybridge", "", False),
        (X86, "bdver1", "", True),  # FMA4
        (X86, "haswell", "", True),
        (X86, "haswell", "-fma", False),
        (X86, "skylake-avx512", "", True),
        ("x86_64-apple-darwin", "nehalem", "", False),
        ("x86_64-pc-windows-msvc", "nehalem", "", False),
        (ARM, "generic", "", True),
        (ARM, "neoverse-n1", "", True),
        ("arm64-apple-darwin", "apple-m1", "", True),
    ],
)
def test_who_has_an_instruction(triple: str, name: str, features: str, expected: bool) -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    assert processors.has_fma(context_for(triple, name, features)) is expected


def test_a_gpu_has_one_without_being_asked() -> None:
    assert processors.has_fma(object())


# ------------------------------------------------------------------------------------------------ the bits


def cases() -> tuple[Any, ...]:
    """`hard_fma`; sums of all sizes that are a midpoint of two float32, or 2**-47 of c's unit beside it; any bits.

    Where c has many bits, those beside a midpoint are rounded to the midpoint in float64.
    """
    near = []
    for exponent in (-149, -148, -140, -127, -126, -125, -100, -24, 0, 77, 103, 104):  # of c's last place
        left = (exponent - 1) // 2
        a, b = np.exp2(left), np.exp2(exponent - 1 - left)
        for k in (0, 1, 2, 3, 2**22 + 1, 2**23 - 1, 2**23, 2**23 + 1, 2**24 - 2, 2**24 - 1):
            for trace, minus_a, minus_c in itertools.product((0.0, 2.0**-23, 2.0**-22), (1, -1), (1, -1)):
                near.append((minus_a * a * (1 + trace), b * (1 - trace), minus_c * k * np.exp2(exponent)))
    any_bits = np.random.default_rng(5).integers(0, 2**32, (3, 5000), np.uint64).astype(np.uint32).view(np.float32)
    some = np.array(near).astype(np.float32).T
    assert np.array_equal(some, np.array(near).T)  # all of them are float32
    found = np.concatenate([np.array(test_exponential.hard_fma(np.float32)), some, any_bits], axis=1)
    found = found[:, : found.shape[1] // WIDTH * WIDTH]
    return tuple(np.ascontiguousarray(x) for x in found)


@njit  # type: ignore[untyped-decorator]
def _by_vectors(a: Any, b: Any, c: Any, out: Any) -> None:
    for i in range(0, len(a), WIDTH):
        store(out, i, fma(load(a, i), load(b, i), load(c, i)))


def compiled(path: Path) -> None:
    """In a process of its own: all results, of numbers and of SIMD vectors, and what of fma is in the machine code."""
    a, b, c = cases()
    results = []
    for function in (test_exponential._fma, _by_vectors):
        results.append(np.empty_like(a))
        function(a, b, c, results[-1])
        (code,) = function.inspect_asm().values()
        print("vfmadd" in code, "fmaf" in code, "cvtsd2ss" in code or "cvtpd2ps" in code)
    np.save(path, results)


def test_numbers_and_vectors_are_rounded_once(tmp_path: Path) -> None:
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("all processors of other families have an instruction")
    path = tmp_path / "results.npy"
    folders = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
    code = f"import sys; sys.path[:0] = {folders!r}\n"
    code += f"import test_fused; test_fused.compiled({str(path)!r})"
    environment = {**os.environ, "NUMBA_CPU_NAME": PROCESSOR, "NUMBA_CPU_FEATURES": ""}
    run = subprocess.run([*children.python(), "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ["False False True"] * 2

    a, b, c = cases()
    with np.errstate(all="ignore"):
        exact = np.array([fma(*abc) for abc in zip(a, b, c, strict=True)])
    here = np.empty_like(a)
    test_exponential._fma(a, b, c, here)  # by an instruction, if there is one
    for results in (here, *np.load(path)):
        wrong = np.flatnonzero(~test_exponential.same_bits(results, exact))
        assert len(wrong) == 0, (a[wrong[0]], b[wrong[0]], c[wrong[0]], results[wrong[0]], exact[wrong[0]])


def test_the_cases_need_rounding_to_odd() -> None:
    """Rounded to float64 and again to float32, some are wrong: subnormal, normal and about to overflow."""
    a, b, c = cases()
    with np.errstate(all="ignore"):
        exact = np.array([fma(*abc) for abc in zip(a, b, c, strict=True)])
        twice = (a.astype(np.float64) * b + c).astype(np.float32)
    wrong = np.abs(exact[~test_exponential.same_bits(twice, exact)])
    tiny, largest = np.finfo(np.float32).tiny, np.finfo(np.float32).max
    sizes = Counter("subnormal" if x < tiny else "normal" if x < largest else "largest" for x in wrong)
    assert min(sizes["subnormal"], sizes["normal"]) >= 10
    assert sizes["largest"] >= 1
