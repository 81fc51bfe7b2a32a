"""Compiled kernels that are kept from one process to the next; without a device, and without a compiler.

That the driver is given what was kept is seen in test_cuda_driver.py.
"""

import itertools
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

if find_spec("numba_cuda") is None:
    pytest.skip("numba-cuda is not installed: pip install 'npselect[cuda]'", allow_module_level=True)

from npselect import _machine_code
from npselect._gpu import kernel_cache, launch, numba_private

if numba_private.simulated():
    pytest.skip("numba's simulator compiles nothing", allow_module_level=True)

ROOT = Path(__file__).parents[2]


# ------------------------------------------------------------------------------------------------ names


def kernels():
    """All kernels for rows of many lengths, by what they are."""
    from npselect._gpu.copy import copy_kernel
    from npselect.tiers.cuda import gather, rows, selecting
    from npselect.tiers.cuda.noise import draw
    from npselect.tiers.cuda.plan import plan

    made = {}
    kinds = {"float32": np.float32, "float64": np.float64, "float16": np.uint16, "bfloat16": np.int16}
    for name, (function, each) in rows.KERNELS.items():
        noises = ("none", "array", "drawn") if "noise" in function.reads else ("none",)
        for kind, noise, choices, aligned in itertools.product(kinds, noises, (1, 33, 200, 1025, 50257), (True, False)):
            about = kinds[kind], kinds[kind], noise, choices, aligned
            made[f"{name} {kind} {noise} {choices} {aligned}"] = plan(each, *about).kernel
    made["mixed"] = plan(selecting.mask, np.float32, np.uint16, "array", 10, False).kernel
    made["totals"] = plan(selecting.totals, np.float32, np.float32, "none", 10, False).kernel
    for source, target in itertools.product(("float32", "bool", "float16", "bfloat16"), repeat=2):
        made[f"{source} to {target}"] = copy_kernel(source, target)
    for kind in (np.float32, np.float64):
        made[f"draw {kind.__name__}"] = draw(kind)
    for name in ("float32", "float16"):
        made[f"added {name}"] = gather._adding(name, name)
        made[f"product {name}"] = gather._multiplying(name, name, "float32")
    return made


def names():
    return {what: kernel_cache.name_of(each, (9, 0)) for what, each in kernels().items()}


def test_every_kernel_has_a_name_of_its_own():
    by_name = {}
    for what, kernel in kernels().items():
        by_name.setdefault(kernel_cache.name_of(kernel, (9, 0)), {}).setdefault(id(kernel), []).append(what)
    assert [list(same.values()) for same in by_name.values() if len(same) > 1] == []
    assert len(by_name) > 200
    some = next(iter(kernels().values()))
    assert kernel_cache.name_of(some, (9, 0)) != kernel_cache.name_of(some, (8, 0))


def test_names_are_the_same_in_another_process():
    code = "import json, test_cuda_kept as t; print(json.dumps(t.names()))"
    folders = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": folders, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert json.loads(done.stdout) == names()


def test_what_has_no_name_is_refused():
    thing = object()

    def kernel(x):
        return thing

    with pytest.raises(TypeError, match="a object has no name"):
        kernel_cache.name_of(SimpleNamespace(function=kernel, signature="", bounds=(1, 1)), (9, 0))


# ------------------------------------------------------------------------------------------------ keeping


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """A compiler that numbers what it makes, and a folder of its own; nothing has been said of files yet."""
    made = []

    def compile_kernel(function, arguments, bounds):
        made.append(function.__name__)
        return f"code {len(made)}"

    monkeypatch.setattr(launch, "compile_kernel", compile_kernel)
    monkeypatch.setattr(kernel_cache, "_capability", lambda: (9, 0))
    monkeypatch.setattr(numba_private, "cache_folder", lambda function: tmp_path)
    monkeypatch.setattr(numba_private, "kernel_to_bytes", str.encode)
    monkeypatch.setattr(numba_private, "kernel_from", bytes.decode)
    monkeypatch.setattr(_machine_code, "_warned", set())
    return made


def a_kernel(number):
    def kernel(address):
        return number

    from numba import types

    return launch.Kernel(kernel, [types.int64], 32)


def test_what_is_kept_is_taken(compiler, tmp_path):
    assert [a_kernel(number).compiled() for number in (1, 2, 1)] == ["code 1", "code 2", "code 1"]
    assert len(compiler) == 2
    assert [path.suffix for path in tmp_path.iterdir()] == [".nbk"] * 2


def test_a_change_of_the_sources_or_of_the_compiler_compiles_anew(compiler, monkeypatch, tmp_path):
    a_kernel(1).compiled()
    monkeypatch.setattr(kernel_cache, "_depends_on", lambda: b"another version")
    assert [a_kernel(1).compiled() for _ in "ab"] == ["code 2"] * 2
    assert len(list(tmp_path.iterdir())) == 1


def damaged(path):
    content = path.read_bytes()
    path.write_bytes(content[:-1])


@pytest.mark.parametrize("spoil", [damaged, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"no")])
def test_a_damaged_file_is_said_and_compiled_again(spoil, compiler, tmp_path):
    a_kernel(1).compiled()
    (path,) = tmp_path.iterdir()
    spoil(path)
    with pytest.warns(RuntimeWarning, match=r"a compiled CUDA kernel cannot be read \(ValueError: .* is damaged\)"):
        assert a_kernel(1).compiled() == "code 2"
    assert a_kernel(1).compiled() == "code 2"


def test_code_that_the_driver_takes_no_more_is_compiled_again(compiler, monkeypatch):
    a_kernel(1).compiled()
    refusing = lambda content: (_ for _ in ()).throw(OSError("CUDA_ERROR_UNSUPPORTED_PTX_VERSION"))  # noqa: E731
    monkeypatch.setattr(numba_private, "kernel_from", refusing)
    with pytest.warns(RuntimeWarning, match="cannot be read"):
        assert a_kernel(1).compiled() == "code 2"


def test_what_cannot_be_kept_is_said_once(compiler, monkeypatch, recwarn):
    full = lambda function: (_ for _ in ()).throw(OSError("the disk is full"))  # noqa: E731
    monkeypatch.setattr(numba_private, "kernel_to_bytes", full)
    with pytest.warns(RuntimeWarning, match=r"cannot be kept .*the disk is full.*NUMBA_CACHE_DIR"):
        assert a_kernel(1).compiled() == "code 1"
    assert a_kernel(1).compiled() == "code 2"
    assert not recwarn


def test_kernels_are_kept_where_numba_keeps_its_own(monkeypatch, tmp_path):
    code = (
        "import numpy; from npselect._gpu import numba_private; from npselect.tiers.cuda.noise import draw; "
        "print(numba_private.cache_folder(draw(numpy.float32).function))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert Path(done.stdout.strip()).parent == tmp_path
    assert Path(done.stdout.strip()).is_dir()
