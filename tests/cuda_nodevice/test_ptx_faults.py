"""The faults of kernels that the interpreter of PTX (`tests/ptx`) must notice."""

from types import SimpleNamespace

import pytest
from ptx import machine
from ptx.by_hand import COPY, OWN_PLACE, SHARED, Numbers, launch, ptx, run
from ptx.device import Device
from ptx.flow import doubtful
from ptx.machine import Kernel
from ptx.memory import Fault
from ptx.program import read

FAULTS = {
    "an odd address": ("ld.global.f32 %f2, [%rd5+2];", "is no multiple of 4"),
    "a vector at the place of a number": ("ld.global.v4.f32 {%f2, %f3, %f4, %f5}, [%rd1+8];", "is no multiple of 16"),
    "beyond the end": ("st.global.f32 [%rd6+4], %f1;", "was not allotted; 1 threads"),
    "before the beginning": ("ld.global.f32 %f2, [%rd5+-4];", "was not allotted; 1 threads"),
    "no address at all": ("ld.global.f32 %f2, [%rd4];", "was not allotted; 64 threads"),
    "half of an address": (
        "cvt.u32.u64 %r3, %rd5;\ncvt.u64.u32 %rd7, %r3;\nld.global.f32 %f2, [%rd7];",
        "was not allotted; 64 threads",
    ),
    "shared memory as global": ("mov.u64 %rd7, numbers;\nld.global.f32 %f2, [%rd7];", "was not allotted"),
    "results that are not there yet": ("ld.global.f32 %f2, [%rd6];", "was never written; 64 threads"),
    "two threads, one place": ("st.global.f32 [%rd2], %f1;", "is written by two threads"),
    "what another thread reads": ("ld.global.f32 %f2, [%rd1];\nst.global.f32 [%rd5], %f2;", "was read by another"),
    "what another thread wrote": ("st.global.f32 [%rd5], %f1;\nld.global.f32 %f2, [%rd1];", "was written by another"),
    "shared memory never written": (OWN_PLACE + "ld.shared.f32 %f3, [%rd8];", "was never written"),
    "beyond a shared array": (OWN_PLACE + "st.shared.f32 [%rd8+4], %f2;", "was not allotted; 1 threads"),
    "no barrier": (
        OWN_PLACE + "st.shared.f32 [%rd8], %f2;\nld.shared.f32 %f3, [%rd10];",
        "was written by another thread; 64 threads",
    ),
    "no barrier before the next round": (
        OWN_PLACE + "st.shared.f32 [%rd8], %f2;\nbar.sync 0;\nld.shared.f32 %f3, [%rd10];\nst.shared.f32 [%rd8], %f3;",
        "was read by another thread",
    ),
    "a shared place for all": (OWN_PLACE + "st.shared.f32 [%rd7], %f2;", "is written by two threads"),
    "a barrier for some": (
        "setp.lt.u32 %p1, %r1, 32;\n@%p1 bra $end;\nbar.sync 0;\n$end:",
        "wait in vain: 32 threads have ended, 32 threads are at line .* bar.sync",
    ),
    "two barriers for one": (
        "setp.lt.u32 %p1, %r1, 32;\n@%p1 bra $other;\nbar.sync 0;\nbra.uni $end;\n$other:\nbar.sync 0;\n$end:",
        "wait in vain",
    ),
    "a shuffle in a branch": (
        "mov.u32 %r6, 1;\nmov.u32 %r7, 31;\nmov.u32 %r8, -1;\nsetp.lt.u32 %p1, %r1, 16;\n@%p1 bra $end;\n"
        "shfl.sync.bfly.b32 %r9|%p2, %r1, %r6, %r7, %r8;\n$end:",
        "wait in vain: 16 threads have ended, 16 threads are at line .* shfl",
    ),
    "two shuffles for one": (
        "mov.u32 %r6, 1;\nmov.u32 %r7, 31;\nmov.u32 %r8, -1;\nsetp.lt.u32 %p1, %r1, 16;\n@%p1 bra $other;\n"
        "shfl.sync.bfly.b32 %r9|%p2, %r1, %r6, %r7, %r8;\nbra.uni $end;\n$other:\n"
        "shfl.sync.bfly.b32 %r9|%p2, %r1, %r6, %r7, %r8;\n$end:",
        "wait in vain",
    ),
    "a shuffle among some": (
        "mov.u32 %r6, 1;\nmov.u32 %r7, 31;\nmov.u32 %r8, 65535;\nshfl.sync.bfly.b32 %r9|%p2, %r1, %r6, %r7, %r8;",
        "among some lanes",
    ),
    "a register that some have not written": (
        "setp.lt.u32 %p1, %r1, 16;\n@%p1 bra $end;\nmov.f32 %f2, %f1;\n$end:\nst.global.f32 [%rd6], %f2;",
        "%f2 was never written",
    ),
    "a register that nobody has written": ("st.global.f32 [%rd6], %f2;", "%f2 was never written"),
    "a quotient by zero": ("div.s64 %rd7, %rd1, %rd3;", "divided by 0"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_noticed(name):
    body, message = FAULTS[name]
    with pytest.raises(Fault, match=message):
        run(body, SHARED)


def test_a_shuffle_needs_whole_warps():
    body = FAULTS["a shuffle in a branch"][0].replace("@%p1 bra $end;\n", "")
    body += "\nst.global.f32 [%rd6], %f1;"
    run(body, threads=32)
    with pytest.raises(Fault, match=r"wait in vain: 16 threads are at line .* shfl"):
        run(body, threads=16)


def test_too_many_threads():
    with pytest.raises(Fault, match="at most 256"):
        run(COPY, threads=288)


def test_a_loop_without_end(monkeypatch):
    monkeypatch.setattr(machine, "_PATIENCE", 1000)
    with pytest.raises(Fault, match="go on for ever"):
        run("$loop:\nbra.uni $loop;")


def test_a_kernel_may_use_what_it_is_given_alone():
    device = Device()
    source, target, beside = Numbers(device, range(64)), Numbers(device, 64), Numbers(device, range(64))
    distance = beside.owner.address - source.owner.address
    with pytest.raises(Fault, match="was not allotted; 64 threads"):
        launch(device, ptx(f"ld.global.f32 %f2, [%rd5+{distance}];"), source, target)


def test_results_that_are_missing():
    with pytest.raises(Fault, match="4 bytes of 256 were never written"):
        run("setp.eq.u32 %p1, %r1, 5;\n@%p1 bra $end;" + COPY + "$end:")


def test_memory_that_was_freed():
    device = Device()
    source, target = Numbers(device, range(64)), Numbers(device, 64)
    again = SimpleNamespace(owner=SimpleNamespace(address=source.owner.address))
    del source
    with pytest.raises(Fault, match="was not allotted"):
        launch(device, ptx(COPY), again, target)


def test_registers_that_a_way_leaves_unwritten():
    kernel = Kernel(read(ptx(FAULTS["a register that some have not written"][0])))
    assert doubtful(kernel.parts) == {"%f2"}
    assert doubtful(Kernel(read(ptx(COPY))).parts) == set()
