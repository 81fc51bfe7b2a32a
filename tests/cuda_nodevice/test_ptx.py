"""The interpreter of PTX (`tests/ptx`): kernels written by hand, what they count, and what is refused."""

import numpy as np
import pytest
from ptx.by_hand import COPY, OWN_PLACE, SHARED, Numbers, launch, ptx, run
from ptx.device import Device
from ptx.machine import Kernel
from ptx.memory import Fault
from ptx.program import PtxError, read


def test_a_kernel():
    values, counts = run(COPY)
    assert values.tolist() == list(range(1, 65))
    assert counts.issued["global"] == 4
    assert counts.done["global"] == 128
    assert counts.issued["float32"] == 2
    assert counts.sectors == counts.least_sectors == 16


def test_threads_part_and_meet():
    """Each thread goes through a loop as often as its number says; then all meet."""
    values, counts = run("""
        mov.u32 %r3, 0;
        mov.u32 %r4, 0;
    $loop:
        setp.ge.u32 %p1, %r3, %r1;
        @%p1 bra $done;
        add.s32 %r3, %r3, 1;
        add.s32 %r4, %r4, %r3;
        bra.uni $loop;
    $done:
        cvt.rn.f32.u32 %f2, %r4;
        st.global.f32 [%rd6], %f2;
    """)
    assert values.tolist() == [i * (i + 1) // 2 for i in range(64)]
    assert counts.issued["global"] == 2
    assert counts.issued["float32"] == 2
    assert counts.issued["int32"] == 64 + 32 + 2 * 31 + 2 * 63  # each warp as often as its last thread


def test_a_shuffle():
    values, counts = run("""
        cvt.rn.f32.u32 %f2, %r1;
        mov.b32 %r5, %f2;
        mov.u32 %r6, 8;
        mov.u32 %r7, 31;
        mov.u32 %r8, -1;
        shfl.sync.bfly.b32 %r9|%p1, %r5, %r6, %r7, %r8;
        mov.b32 %f3, %r9;
        st.global.f32 [%rd6], %f3;
    """)
    assert values.tolist() == [i ^ 8 for i in range(64)]
    assert counts.issued["shuffle"] == 2


def test_shared_memory_with_a_barrier():
    there = "st.shared.f32 [%rd8], %f2;\nbar.sync 0;\nld.shared.f32 %f3, [%rd10];\nst.global.f32 [%rd6], %f3;"
    values, _ = run(OWN_PLACE + there, SHARED)
    assert values.tolist() == [i ^ 1 for i in range(64)]


def test_shared_memory_with_a_barrier_of_warps():
    """It is enough for neighbours, and for those that have read the same number; not for other warps."""
    there = "st.shared.f32 [%rd8], %f2;\nbar.warp.sync -1;\nld.shared.f32 %f3, [%rd10];"
    there = OWN_PLACE + "mov.u64 %rd9, numbers;\nand.b64 %rd10, %rd4, 128;\nadd.s64 %rd9, %rd9, %rd10;\n" + there
    there = there.replace("[%rd10]", "[%rd9+4]") + "\nst.global.f32 [%rd6], %f3;"
    over = "\nst.shared.f32 [%rd8], %f1;"
    assert run(there + "\nbar.warp.sync -1;" + over, SHARED)[0].tolist() == [1] * 32 + [33] * 32
    for place in (4, 60, 124):  # of the first, of one between, of the last of a warp
        with pytest.raises(Fault, match="was read by another thread; 2 threads of 64"):
            run(there.replace("+4]", f"+{place}]") + over, SHARED)
    with pytest.raises(Fault, match="was written by another thread"):
        run(there.replace("128", "0"), SHARED)
    with pytest.raises(Fault, match="some lanes"):
        run(there.replace("-1", "1"), SHARED)


def test_constants_vectors_and_narrow_numbers():
    values, _ = run(
        """
        mov.u64 %rd7, table;
        add.s64 %rd7, %rd7, %rd3;
        setp.gt.u32 %p1, %r1, 0;
        @%p1 bra $end;
        ld.global.v4.f32 {%f2, %f3, %f4, %f5}, [%rd5+16];
        ld.const.u8 %rs1, [%rd7+1];
        ld.const.s8 %rs2, [%rd7+1];
        cvt.rn.f32.u16 %f6, %rs1;
        cvt.rn.f32.s16 %f7, %rs2;
        st.global.v4.f32 [%rd6], {%f5, %f4, %f6, %f7};
        st.global.u16 [%rd6+16], %rd2;
        shr.u64 %rd8, %rd2, 16;
        st.global.u16 [%rd6+18], %rd8;
        mov.b32 %r5, 0;
        st.global.u32 [%rd6+20], %r5;
        st.global.v2.f32 [%rd6+24], {%f2, %f3};
    $end:
        """,
        ".const .align 1 .b8 table[2] = {1, 255};",
        threads=8,
    )
    assert values[:4].tolist() == [7, 6, 255, -1]
    assert values[5:].tolist() == [0, 4, 5]


def test_halves():
    values, _ = run("""
        mov.b64 %rd7, {%r1, %r1};
        shr.u64 %rd8, %rd7, 31;
        { .reg .b32 tmp; mov.b64 {tmp, %r3}, %rd8; }
        mov.b64 {%r4, %r5}, %rd8;
        add.s32 %r6, %r4, %r5;
        add.s32 %r7, %r6, %r3;
        cvt.rn.f32.s32 %f2, %r7;
        st.global.f32 [%rd6], %f2;
    """)
    assert values.tolist() == [2 * i for i in range(64)]


def test_a_conversion_of_the_lower_half():
    values, _ = run("""
        sub.s64 %rd7, %rd3, 5;
        and.b64 %rd7, %rd7, 4294967295;
        cvt.s64.s32 %rd8, %rd7;
        cvt.rn.f32.s64 %f2, %rd8;
        st.global.f32 [%rd6], %f2;
    """)
    assert values.tolist() == [i - 5 for i in range(64)]


def test_a_half_that_nobody_reads():
    joined = "mov.b64 %rd7, {%r1, %r3};\ncvt.u32.u64 %r4, %rd7;\ncvt.rn.f32.u32 %f2, %r4;\nst.global.f32 [%rd6], %f2;"
    assert run(joined)[0].tolist() == list(range(64))
    with pytest.raises(Fault, match="%r3 was never written"):
        run(joined + "\nadd.s64 %rd8, %rd7, %rd7;")


def test_local_memory():
    """Each thread has its own."""
    values, _ = run("""
        .local .align 8 .b8 frame[8];
        .reg .b64 %SPL;
        mov.u64 %SPL, frame;
        ld.global.f32 %f2, [%rd5];
        st.local.v2.f32 [%SPL], {%f1, %f2};
        ld.local.f32 %f3, [%SPL+4];
        st.global.f32 [%rd6], %f3;
    """)
    assert values.tolist() == list(range(64))


UNKNOWN = [
    "add.ftz.f32 %f2, %f1, %f1;",
    "div.approx.f32 %f2, %f1, %f1;",
    "ex2.approx.f32 %f2, %f1;",
    "fma.rn.ftz.f32 %f2, %f1, %f1, %f1;",
    "cvt.rz.f32.f64 %f2, %rd1;",
    "ld.volatile.global.f32 %f2, [%rd5];",
    "ld.global.nc.f32 %f2, [%rd5];",
    "ld.f32 %f2, [%rd5];",
    "atom.global.add.f32 %f2, [%rd6], %f1;",
    "bar.warp.sync -1, -1;",
    "shfl.sync.down.b32 %r9|%p1, %r1, %r1, %r1, %r1;",
    "bar.sync 1, 32;",
    "add.s64 %rd7, %rd1, %r1;",  # a register of another size
    "add.f32 %f2, %f1, 1;",  # an integer
    "add.s32 %r3, %r1, 4294967296;",
    "add.s64 %rd7, %rd1;",
    "mov.u32 %r3, %laneid;",
    "mov.b32 %r3, %p1;",
    "st.global.f32 [%rd6], %rd1;",
    "st.const.f32 [%rd6], %f1;",
    "ld.global.v4.f32 {%f1, %f2}, [%rd5];",
    "ld.global.u32 %rs1, [%rd5];",
    "@%p1 add.f32 %f2, %f1, %f1;",
    "@%p1 ret;",
    "call.uni (%r3), other, (%r1);",
    "ld.generic.f32 %f2, [%rd5];",
    ".extern .func other;",
    "bra $nowhere;",
]


@pytest.mark.parametrize("statement", UNKNOWN)
def test_what_is_not_known_is_refused(statement):
    with pytest.raises(PtxError, match=r"^line"):
        Kernel(read(ptx(f"setp.eq.u32 %p1, %r1, 5;\n{statement}")))


STRIDES = {  # bytes from thread to thread, and from the array's beginning: sectors of 32 threads, and least
    (4, 0): (4, 4),
    (4, 4): (5, 4),
    (8, 0): (8, 4),
    (32, 0): (32, 4),
    (0, 0): (1, 1),
}


@pytest.mark.parametrize("stride", STRIDES)
def test_sectors(stride):
    device = Device()
    source, target = Numbers(device, np.zeros(300)), Numbers(device, 1)
    body = f"mul.lo.s64 %rd7, %rd3, {stride[0]};\nadd.s64 %rd8, %rd1, %rd7;\nld.global.f32 %f2, [%rd8+{stride[1]}];"
    launch(device, ptx(body), source, target, threads=32)
    assert (device.counts.sectors, device.counts.least_sectors) == STRIDES[stride]
