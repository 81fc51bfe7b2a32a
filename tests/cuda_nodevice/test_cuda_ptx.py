"""What the CUDA tier's kernels become: read in the PTX, and in what ptxas makes of it for two generations of devices.

Neither a device nor a driver is needed.
"""

import os
import re
import shutil
import struct
import subprocess
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

if find_spec("numba_cuda") is None:
    pytest.skip("numba-cuda is not installed: pip install 'npselect[cuda]'", allow_module_level=True)


def find_ptxas():
    wheel = find_spec("nvidia")
    folders = [Path(folder) / "cu13" / "bin" for folder in (wheel.submodule_search_locations if wheel else [])]
    return shutil.which("ptxas", path=os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")]))


PTXAS = find_ptxas()
if PTXAS is None:
    pytest.skip("there is no ptxas: pip install 'nvidia-cuda-nvcc==13.0.*'", allow_module_level=True)

from npselect._gpu.copy import copy_kernel  # noqa: E402
from npselect._gpu.intrinsics import simulated  # noqa: E402
from npselect.tiers.cuda import gather as device_selection  # noqa: E402
from npselect.tiers.cuda import rows  # noqa: E402
from npselect.tiers.cuda.gapped import gapped  # noqa: E402
from npselect.tiers.cuda.kernels import mixture  # noqa: E402
from npselect.tiers.cuda.noise import draw  # noqa: E402
from npselect.tiers.cuda.plan import plan, variant_for  # noqa: E402
from npselect.tiers.cuda.reinmax import reinmax  # noqa: E402
from npselect.tiers.cuda.selecting import choice, mask_at, totals  # noqa: E402

F16, BF16, F32, F64 = np.uint16, np.int16, np.float32, np.float64
KERNELS = {**{name: kernel for name, (_, kernel) in rows.KERNELS.items()}, "totals": totals}


@pytest.fixture(autouse=True, scope="module")
def without_a_driver():
    """numba-cuda asks the driver what device to compile its helpers for; here the answer is of no consequence."""
    from numba.cuda import dispatcher

    assert not simulated()
    asked = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=(9, 0))
    yield
    dispatcher.get_current_device = asked


def variant(name, kind, choices, noise="none", *, aligned=True):
    return variant_for(KERNELS[name], kind, kind, noise, choices, aligned)


def made_for(name, *about, **more):
    """The kernel, and the variant that it is made for."""
    made = variant(name, *about, **more)
    return made, KERNELS[name].of(made)


def text_of(cubin):
    """The machine code of a cubin, an ELF file, by section."""
    data = cubin.read_bytes()
    (start,) = struct.unpack_from("<Q", data, 40)
    size, count, names = struct.unpack_from("<HHH", data, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, start + i * size) for i in range(count)]
    found = {}
    for name, _, _, _, offset, length, *_ in sections:
        at = sections[names][4] + name
        title = data[at : data.index(b"\0", at)]
        if title.startswith(b".text"):
            found[title] = data[offset : offset + length]
    assert found
    return found


def assemble(ptx, folder, architecture, *options):
    source, cubin = folder / "kernel.ptx", folder / "kernel.cubin"
    source.write_text(ptx)
    command = [PTXAS, "-v", f"-arch={architecture}", *options, "-o", str(cubin), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr, text_of(cubin)


def check_compiled(kernel, folder, *, resident=True):
    """No spills, no local memory, no contraction, on both architectures; the PTX for the newer one."""
    for capability, architecture in (((8, 0), "sm_80"), ((9, 0), "sm_90")):
        ptx = kernel.ptx(capability)
        assert f".target {architecture}" in ptx
        report, code = assemble(ptx, folder, architecture)
        frames = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report)
        assert frames
        if resident:
            assert set(frames) == {("0", "0", "0")}, f"{architecture}: {report}"
            assert ".local" not in ptx
        # a product and a sum that ptxas could make one of would make another code of the two settings
        _, strict = assemble(ptx, folder, architecture, "-fmad=false")
        assert code == strict, f"{architecture}: a product meets a sum"
        assert int(re.search(r"Used (\d+) registers", report)[1]) * kernel.most_threads <= 65536
    return ptx


def count(pattern, ptx):
    return len(re.findall(pattern, ptx))


# How often the source says fma. exp: 8 in float32, 13 in float64; divided_difference: 3, and 1 more for `top`, which
# is the same for the row; prepared: 1. Then, for each pass over a column, the dot products and the last step; and what
# is left of that where the first pass keeps its exponentials.
EXP = {F32: 8, F16: 8, BF16: 8, F64: 13}
PASSES = {
    "mask": [],
    "index": [],
    "soft": [0, 0],
    "backward": [1, 1],
    "backward_temp": [1, 1],
    "double_backward": [2, 3, 2],
}
KEPT = {**PASSES, "double_backward": [2, 3, 1]}


def check_fma(made, name, ptx):
    columns = made.slots
    difference, slack = EXP[made.kind] + 3, 4 if made.reload else 0
    if made.team.tiled and made.team.group == 1:  # what is beyond the row is known, and little of it is left
        slack = (columns - made.team.length) * sum(KEPT[name])
        columns = made.team.length
    if not PASSES[name]:
        written = 0
    elif made.reload:
        written = sum(columns * (difference + more) + 1 for more in PASSES[name]) + 1
    else:
        written = columns * (difference + sum(KEPT[name])) + 2
    found = count(r"fma\.rn\.f64" if made.kind is F64 else r"fma\.rn\.f32", ptx)
    # what is the same for a row may be taken out of a loop, or stand in both branches of one
    assert abs(found - written) <= slack


NAMES = {F32: "float32", F64: "float64", F16: "float16", BF16: "bfloat16"}
KINDS = {name: kind for kind, name in NAMES.items()}
READ = {F32: ("v4.f32", 1), F64: ("v2.f64", 2), F16: ("u64", 1), BF16: ("u64", 1)}  # of a quad, and how many
WRITTEN = {**READ, F16: ("v4.u16", 1), BF16: ("v4.u16", 1)}
SINGLE = {F32: "f32", F64: "f64", F16: "[bu]16", BF16: "u16"}
RESULTS = {"mask": 1, "index": 0, "soft": 1, "backward": 1, "backward_temp": 0, "double_backward": 2}


def check_aligned(made, name, ptx):
    """Rows are read and written by 16 bytes (8 for 16-bit numbers); singles are g_m and the temperature."""
    kind, quads = made.kind, made.quads_in_registers
    vector, parts = READ[kind]
    assert count(rf"ld\.global\.{vector}", ptx) >= quads * parts
    vector, parts = WRITTEN[kind]
    assert count(rf"st\.global\.{vector}", ptx) >= quads * parts * RESULTS[name]
    singles = {"soft": 1, "backward": 2, "backward_temp": 2, "double_backward": 3}.get(name, 0)
    assert count(rf"ld\.global\.{SINGLE[kind]}", ptx) <= singles
    assert count(rf"st\.global\.({SINGLE[kind]}|f32)", ptx) == (name == "backward_temp")


@pytest.mark.parametrize("choices", [128, 1024, 131072])
@pytest.mark.parametrize("name", sorted(PASSES))
def test_float32(name, choices, tmp_path):
    made, kernel = made_for(name, F32, choices)
    assert made.resident
    ptx = check_compiled(kernel, tmp_path)
    check_fma(made, name, ptx)
    check_aligned(made, name, ptx)


@pytest.mark.parametrize("choices", [4, 500, 4096])
@pytest.mark.parametrize("aligned", [True, False])
def test_rows_of_a_warp(aligned, choices, tmp_path):
    made, kernel = made_for("backward", F32, choices, aligned=aligned)
    ptx = check_compiled(kernel, tmp_path)
    check_fma(made, "backward", ptx)


@pytest.mark.parametrize("choices", [10, 1001])
@pytest.mark.parametrize("name", sorted(PASSES))
def test_rows_that_are_not_aligned(name, choices, tmp_path):
    made, kernel = made_for(name, F32, choices, aligned=False)
    ptx = check_compiled(kernel, tmp_path)
    check_fma(made, name, ptx)
    assert count(r"(ld|st)\.global\.v", ptx) == 0


@pytest.mark.parametrize("kind", [F32, F64, BF16], ids=NAMES.get)
@pytest.mark.parametrize("choices", [3, 96])
def test_tiles(choices, kind, tmp_path):
    _, kernel = made_for("double_backward", kind, choices, aligned=False)
    check_compiled(kernel, tmp_path)


@pytest.mark.parametrize("kind", [F64, F16, BF16], ids=NAMES.get)
@pytest.mark.parametrize("name", ["mask", "backward", "double_backward"])
def test_other_types(name, kind, tmp_path):
    made, kernel = made_for(name, kind, 1024)
    ptx = check_compiled(kernel, tmp_path)
    check_fma(made, name, ptx)
    check_aligned(made, name, ptx)


@pytest.mark.parametrize(("choices", "aligned"), [(128, True), (1024, True), (10, False), (1001, False)])
@pytest.mark.parametrize(
    "kernel",
    [reinmax, gapped, mixture, choice, mask_at],
    ids=["reinmax", "gapped", "mixture", "choice", "mask_at"],
)
def test_choose_and_weigh(kernel, choices, aligned, tmp_path):
    check_compiled(kernel.of(variant_for(kernel, F32, F32, "none", choices, aligned)), tmp_path)


@pytest.mark.parametrize("kind", [F32, F64], ids=NAMES.get)
@pytest.mark.parametrize("noise", ["array", "drawn"])
@pytest.mark.parametrize("name", ["mask", "backward"])
def test_noise(name, noise, kind, tmp_path):
    _, kernel = made_for(name, kind, 1024, noise)
    check_compiled(kernel, tmp_path)


@pytest.mark.parametrize("kind", [F32, F64], ids=NAMES.get)
def test_noise_alone_and_sums(kind, tmp_path):
    check_compiled(draw(kind), tmp_path)
    check_compiled(made_for("totals", kind, 1024)[1], tmp_path)


@pytest.mark.parametrize(
    ("source", "target"),
    [("float32", "float32"), ("bool", "bool"), ("int8", "float64"), ("uint64", "float16"), ("float64", "bfloat16"),
     ("float16", "float64"), ("bfloat16", "float32"), ("float32", "float16")],
)  # fmt: skip
def test_copies(source, target, tmp_path):
    check_compiled(copy_kernel(source, target), tmp_path)


@pytest.mark.parametrize("name", NAMES.values())
def test_selections(name, tmp_path):
    compute = "float64" if name == "float64" else "float32"
    check_compiled(device_selection._taking(name, np.dtype(KINDS[name]).itemsize), tmp_path)
    check_compiled(device_selection._adding(name, name), tmp_path)
    check_compiled(device_selection._multiplying(name, name, compute), tmp_path)


def test_the_check_notices_spills_and_products_that_meet_sums(tmp_path):
    """The check of this file, given kernels that are wrong."""
    from numba import types

    from npselect._arithmetic.primitives import two_sum
    from npselect._gpu.elements import load, store
    from npselect._gpu.intrinsics import thread
    from npselect._gpu.launch import Kernel

    def fused_by_the_compiler(x, out):
        i = thread()
        store(out, i, F32, load(x, i, F32) * load(x, i + 1, F32) + load(x, i + 2, F32))

    def fused_by_the_assembler(x, out):
        i = thread()
        s, tail = two_sum(load(x, i, F32) * load(x, i + 1, F32), load(x, i + 2, F32))
        store(out, i, F32, s)
        store(out, i + 1, F32, tail)

    addresses = (types.int64, types.int64)
    assert count(r"fma\.rn\.f32", Kernel(fused_by_the_compiler, addresses, 128).ptx((9, 0))) == 1  # none is written
    with pytest.raises(AssertionError, match="a product meets a sum"):
        check_compiled(Kernel(fused_by_the_assembler, addresses, 128), tmp_path)
    with pytest.raises(AssertionError, match="spill"):
        check_compiled(
            KERNELS["double_backward"].of(replace(variant("double_backward", F32, 1024), threads=1024)), tmp_path
        )


@pytest.mark.parametrize("aligned", [True, False])
def test_threads_of_a_warp_meet_in_one_place(aligned):
    """A row beyond the last is gone through like the others: no call, shuffle or barrier stands there twice."""
    import dis

    _, kernel = made_for("mask", F32, 1024, aligned=aligned)
    calls = [step for step in dis.get_instructions(kernel.function) if step.argval == "body"]
    assert len(calls) == 1
    assert sum(step.opname in ("CALL", "CALL_FUNCTION") for step in dis.get_instructions(kernel.function)) == 2
    ptx = kernel.ptx((9, 0))
    assert count(r"(bar|barrier)\.sync", ptx) == 0
    assert count(r"shfl\.sync", ptx) == 10  # five times, a number and its column


@pytest.mark.parametrize("refused", [False, True])
def test_the_driver_is_given_the_ptx_that_was_read_here(refused, monkeypatch):
    """Or, if it refuses that, what the linker makes of it."""
    from numba.cuda import codegen, dispatcher

    from npselect._gpu import kernel_cache

    bound = []

    def bind(kernel):
        bound.append(kernel)
        if refused and len(bound) == 1:
            raise RuntimeError("CUDA_ERROR_UNSUPPORTED_PTX_VERSION")

    monkeypatch.setattr(dispatcher._Kernel, "bind", bind)
    monkeypatch.setattr(codegen.CUDACodeLibrary, "_ensure_cc", lambda library, cc: cc or (9, 0))
    monkeypatch.setattr(kernel_cache, "load", lambda kernel: None)
    monkeypatch.setattr(kernel_cache, "save", lambda kernel, compiled: None)
    kernel = plan(KERNELS["mask"], F32, F32, "none", 64, True).kernel
    compiled = kernel.compiled()
    assert bound[-1] is compiled
    assert compiled.argument_types == kernel.signature.args
    given = compiled._codelibrary._cubin_cache
    assert len(bound) == 1 + refused
    if refused:
        assert given == {}
    else:
        assert given[9, 0].code_type == "ptx"
        read, loaded = (text[text.index(".entry") :] for text in (kernel.ptx((9, 0)), given[9, 0].code.decode()))
        assert re.sub(r"_ZN\w+", "", read) == re.sub(r"_ZN\w+", "", loaded)
