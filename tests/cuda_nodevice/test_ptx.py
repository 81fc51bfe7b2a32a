"""The interpreter of PTX (`tests/ptx`): its arithmetic beside exact fractions, and the faults that it must notice."""

import itertools
import math
from fractions import Fraction
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
from ptx import machine
from ptx.device import Device
from ptx.flow import doubtful
from ptx.machine import Kernel
from ptx.memory import Fault
from ptx.operations import OPERATIONS, TYPES
from ptx.program import PtxError, read
from ptx.rounding import is_nearest

# ------------------------------------------------------------------------------------------------ arithmetic


def hard(kind):
    """Numbers of every size: the ends of the format, subnormals, neighbours of one, random bits."""
    dtype = TYPES[kind]
    info = np.finfo(dtype)
    bits = np.random.default_rng(1).integers(0, 2 ** (8 * dtype.itemsize), 40, dtype=f"u{dtype.itemsize}")
    few = [0, info.smallest_subnormal, info.tiny - info.smallest_subnormal, info.tiny, 1, 1 + info.eps, 3, 1 / 3]
    few += [1 - info.epsneg, info.max, np.inf, np.nan, 5 * info.smallest_subnormal, 2 / 3, 1e-20, 3e19]
    numbers = np.concatenate([np.array(few, dtype), bits.view(dtype)])
    return np.concatenate([numbers, -numbers])


def applied(opcode, *columns):
    operation = OPERATIONS[opcode]
    columns = [np.asarray(column, TYPES[kind]) for column, kind in zip(columns, operation.operands, strict=True)]
    with np.errstate(all="ignore"):
        result = operation.compute(*columns)
    assert result.dtype == TYPES[operation.result]
    return result


def check_rounding(opcode, exactly, *columns):
    """Every finite result of finite operands beside the exact one."""
    seen = 0
    for result, *operands in zip(applied(opcode, *columns), *columns, strict=True):
        if all(map(math.isfinite, map(float, operands))):
            try:
                exact = exactly(*(Fraction(float(x)) for x in operands))
            except ZeroDivisionError:
                continue
            if exact:
                assert is_nearest(result, exact), f"{opcode} {operands}: {result}"
                seen += 1
    assert seen > len(columns[0]) // 3


def pairs(kind):
    numbers = hard(kind)
    return tuple(column.reshape(-1) for column in np.meshgrid(numbers, numbers))


def triples(kind):
    """Products and sums of every size, and ties of products that a tiny number decides."""
    numbers, rng = hard(kind), np.random.default_rng(2)
    a, b, c = (rng.choice(numbers, 20000) for _ in range(3))
    info = np.finfo(numbers.dtype)
    precision, lowest = info.nmant + 1, info.minexp
    x, y = 1 + 2.0 ** -(precision // 2), 1 + 2.0 ** -(precision - precision // 2)  # x * y is halfway
    tiny = [sign * 2.0**-k for k in range(precision + 2, 1 - lowest) for sign in (1, -1)]
    near = -(a[:4000] * b[:4000]) * (1 + rng.integers(-2, 3, 4000) * info.eps)
    return (
        np.concatenate([a, np.full(len(tiny), x, a.dtype), a[:4000]]),
        np.concatenate([b, np.full(len(tiny), y, a.dtype), b[:4000]]),
        np.concatenate([c, np.array(tiny, a.dtype), near.astype(a.dtype)]),
    )


@pytest.fixture(autouse=True)
def ignore_what_ieee_754_has_an_answer_to():
    with np.errstate(all="ignore"):
        yield


EXACT = {"add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div.rn": lambda a, b: a / b}


@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_sums_products_quotients(kind):
    for name, exactly in EXACT.items():
        check_rounding(f"{name}.{kind}", exactly, *pairs(kind))
    check_rounding(f"rcp.rn.{kind}", lambda a: 1 / a, hard(kind))


@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_fma_is_rounded_once(kind):
    check_rounding(f"fma.rn.{kind}", lambda a, b, c: a * b + c, *triples(kind))


def test_conversions_of_floats():
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    wide = applied("cvt.f32.f16", halves)
    check_rounding("cvt.f32.f16", lambda a: a, halves)
    ties = wide[np.isfinite(wide)][:-1] / 2 + wide[np.isfinite(wide)][1:] / 2
    for numbers in (wide, ties, np.nextafter(ties, np.float32(np.inf)), np.nextafter(ties, np.float32(-np.inf))):
        check_rounding("cvt.rn.f16.f32", lambda a: a, numbers[::5])
    check_rounding("cvt.rn.f32.f64", lambda a: a, hard("f64"))
    singles = hard("f32").astype(np.float64)
    near_ties = singles * (1 + 2.0**-24), singles * (1 + 3 * 2.0**-25)
    for numbers in (singles, np.nextafter(singles, 2 * singles), *near_ties):
        check_rounding("cvt.rn.f32.f64", lambda a: a, numbers)
    check_rounding("cvt.f64.f32", lambda a: a, hard("f32"))


def test_conversions_of_integers():
    for source in ("s16", "u16", "s32", "u32", "s64", "u64"):
        info = np.iinfo(TYPES[source])
        numbers = [info.min, info.max, info.max - 1, *(2**k + j for k in range(2, 63) for j in (-1, 0, 1, 2**k // 3))]
        numbers = np.array([number for number in numbers if number <= info.max], TYPES[source])
        for target in ("f32", "f64"):
            for result, number in zip(applied(f"cvt.rn.{target}.{source}", numbers), numbers.tolist(), strict=True):
                assert number == result == 0 or is_nearest(result, Fraction(number))


@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_larger_and_smaller(kind):
    """NaN gives way to numbers, and +0 is larger than -0."""
    for name, best in (("max", max), ("min", min)):
        for a, b, got in zip(*(pair := pairs(kind)), applied(f"{name}.{kind}", *pair), strict=True):
            numbers = [x for x in (a, b) if not math.isnan(x)]
            if not numbers:
                assert math.isnan(got)
            else:
                wanted = best(numbers, key=lambda x: (x, not np.signbit(x)))
                assert (got, np.signbit(got)) == (wanted, np.signbit(wanted))


def test_signs_and_nan():
    for kind, other in (("f32", "b32"), ("f64", "b64")):
        numbers = hard(kind)
        sign = 1 << (8 * TYPES[kind].itemsize - 1)
        bits = numbers.view(TYPES[other])
        assert (applied(f"neg.{kind}", numbers).view(TYPES[other]) == bits ^ TYPES[other].type(sign)).all()
        assert (applied(f"abs.{kind}", numbers).view(TYPES[other]) == bits & TYPES[other].type(sign - 1)).all()
        assert np.signbit(applied(f"mul.{kind}", [-0.0], [5])).all()
        assert not np.signbit(applied(f"add.{kind}", [-0.0], [0])).any()
        assert not np.signbit(applied(f"fma.rn.{kind}", [-1.0], [2], [2])).any()
    for result in (
        applied("add.f32", [np.inf], [-np.inf]),
        applied("mul.f32", [np.nan], [1]),
        applied("cvt.rn.f32.f64", [np.nan]),
    ):
        assert result.view(np.uint32) == 0x7FFFFFFF
    assert applied("div.rn.f32", [1], [-0.0]) == -np.inf


@pytest.mark.parametrize("kind", ["f32", "f64", "s16", "u16", "s32", "u32", "s64", "u64"])
def test_comparisons(kind):
    holds = {"eq": "__eq__", "ne": "__ne__", "lt": "__lt__", "le": "__le__", "gt": "__gt__", "ge": "__ge__"}
    few = np.array([0, 1, 5, 2**15 - 1, 2**15, 2**16 - 1], np.uint16).astype(TYPES[kind])
    numbers = hard(kind) if kind[0] == "f" else few
    left, right = (column.reshape(-1) for column in np.meshgrid(numbers, numbers))
    unordered = [a != a or b != b for a, b in zip(left.tolist(), right.tolist(), strict=True)]
    for name, method in holds.items():
        plain = [getattr(a, method)(b) for a, b in zip(left.tolist(), right.tolist(), strict=True)]
        got = applied(f"setp.{name}.{kind}", left, right).tolist()
        assert got == [x and not u for x, u in zip(plain, unordered, strict=True)]
        if kind[0] == "f":
            got = applied(f"setp.{name}u.{kind}", left, right).tolist()
            assert got == [x or u for x, u in zip(plain, unordered, strict=True)]
    if kind[0] == "f":
        assert applied(f"setp.nan.{kind}", left, right).tolist() == unordered
        assert applied(f"setp.num.{kind}", left, right).tolist() == [not u for u in unordered]


def wrapped(number, kind):
    """An integer as a type holds it."""
    bits = 8 * TYPES[kind].itemsize
    number %= 2**bits
    return number - 2**bits if kind[0] == "s" and number >= 2 ** (bits - 1) else number


def quotient(a, b):
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


KINDS = "u16", "u32", "u64", "s16", "s32", "s64"
INTEGERS = {
    **{f"add.{t}": lambda a, b: a + b for t in ("s32", "s64")},
    **{f"sub.{t}": lambda a, b: a - b for t in ("s32", "s64")},
    **{f"mul.lo.{t}": lambda a, b: a * b for t in ("s32", "s64")},
    **{f"mad.lo.{t}": lambda a, b, c: a * b + c for t in ("s32", "s64")},
    "add.u64": lambda a, b: a + b,
    **{f"mul.wide.{t}": lambda a, b: a * b for t in ("s32", "u32")},
    **{f"mul.hi.{t}": lambda a, b: a * b >> 64 for t in ("s64", "u64")},
    **{f"div.{t}": lambda a, b: quotient(a, b) if b else None for t in ("s32", "u32", "s64", "u64")},
    **{f"min.{t}": min for t in ("s32", "u32", "s64", "u64")},
    **{f"max.{t}": max for t in ("s32", "u32", "s64", "u64")},
    **{f"and.{t}": lambda a, b: a & b for t in ("b16", "b32", "b64")},
    **{f"or.{t}": lambda a, b: a | b for t in ("b16", "b32", "b64")},
    **{f"xor.{t}": lambda a, b: a ^ b for t in ("b16", "b32", "b64")},
    **{f"shl.{t}": lambda a, n: a << min(n, 99) for t in ("b32", "b64")},
    **{f"shr.{t}": lambda a, n: a >> min(n, 99) for t in ("s32", "u32", "s64", "u64")},
    **{f"not.{t}": lambda a: ~a for t in ("b16", "b32", "b64")},
    **{f"neg.{t}": lambda a: -a for t in ("s32", "s64")},
    **{f"cvt.{target}.{source}": lambda a: a for target in KINDS for source in KINDS},
}


@pytest.mark.parametrize("opcode", INTEGERS)
def test_integers(opcode):
    operation, rng = OPERATIONS[opcode], np.random.default_rng(3)
    columns = []
    for kind in operation.operands:
        bits = 8 * TYPES[kind].itemsize
        edges = [0, 1, 2, 31, 32, 33, 63, 64, 65, 2 ** (bits - 1) - 1, 2 ** (bits - 1), 2**bits - 1]
        numbers = [edge % 2**bits for edge in edges] + rng.integers(0, 2**bits, 20, np.uint64).tolist() * (bits < 64)
        numbers += rng.integers(0, 2**63, 20).tolist() * (bits == 64)
        columns.append(np.array([wrapped(number, kind) for number in numbers], TYPES[kind]))
    rows = list(itertools.product(*(column.tolist() for column in columns)))
    wanted = [INTEGERS[opcode](*row) for row in rows]
    possible = [i for i, value in enumerate(wanted) if value is not None]
    got = applied(opcode, *zip(*(rows[i] for i in possible), strict=True))
    assert got.tolist() == [wrapped(wanted[i], operation.result) for i in possible]


def test_the_rest():
    assert applied("bfi.b64", [0xABCD], [0x1111222233334444], [32], [32]).tolist() == [0x0000ABCD33334444]
    assert applied("bfi.b64", [0xFF], [0], [4], [4]).tolist() == [0xF0]
    assert applied("selp.s64", [1, 2], [3, 4], [True, False]).tolist() == [1, 4]
    assert applied("xor.pred", [True, True], [True, False]).tolist() == [False, True]
    assert applied("not.pred", [True, False]).tolist() == [False, True]
    source = np.array([1.5, 2])
    assert applied("mov.f64", source) is not source


def test_an_approximate_logarithm_is_as_wrong_as_it_may_be():
    x = np.exp2(np.random.default_rng(4).uniform(-126, 127, 10_000)).astype(np.float32)
    x = np.concatenate([x, np.linspace(0.4, 2.1, 10_000, dtype=np.float32), np.float32([1e-45, 0, 1, -1])])
    exact = [mpmath.log(mpmath.mpf(float(number)), 2) for number in x[:-4]]
    got = applied("lg2.approx.ftz.f32", x)
    absolute = np.array([float(abs(y - mpmath.mpf(float(z)))) for y, z in zip(exact, got[:-4], strict=True)])
    allowed = np.where((x[:-4] > 0.5) & (x[:-4] < 2), 2.0**-22.6, 2.0**-22 * np.abs(np.array(exact, float)))
    rounding = np.spacing(np.abs(got[:-4])) / 2
    assert (absolute <= allowed + rounding).all()
    assert (absolute >= allowed - rounding - 2.0**-50).all()
    assert got[-4:-2].tolist() == [-np.inf, -np.inf]
    assert np.isnan(got[-1])


WRONG = {
    "fma.rn.f32": lambda a, b, c: a * b + c,
    "fma.rn.f64": lambda a, b, c: a * b + c,
    "div.rn.f32": lambda a, b: a * (np.float32(1) / b),
    "add.f32": lambda a, b: np.where(abs(a + b) < np.finfo(np.float32).tiny, np.float32(0), a + b),  # .ftz
    "cvt.rn.f32.f64": lambda x: (x.view(np.int64) >> 29 << 29).view(np.float64).astype(np.float32),
}


@pytest.mark.parametrize("opcode", WRONG)
def test_wrong_roundings_are_noticed(opcode, monkeypatch):
    right = OPERATIONS[opcode]
    exactly = {"fma": lambda a, b, c: a * b + c, "div": EXACT["div.rn"], "add": EXACT["add"], "cvt": lambda a: a}
    columns = {1: lambda kind: (hard(kind),), 2: pairs, 3: triples}[len(right.operands)](right.operands[0])
    monkeypatch.setitem(OPERATIONS, opcode, SimpleNamespace(**{**vars(right), "compute": WRONG[opcode]}))
    with pytest.raises(AssertionError, match=opcode):
        check_rounding(opcode, exactly[opcode[:3]], *columns)


def test_float32_fma_rounded_by_way_of_float64_is_noticed(monkeypatch):
    right = OPERATIONS["fma.rn.f32"]
    twice = lambda a, b, c: (a.astype(np.float64) * b + c).astype(np.float32)  # noqa: E731
    monkeypatch.setitem(OPERATIONS, "fma.rn.f32", SimpleNamespace(**{**vars(right), "compute": twice}))
    with pytest.raises(AssertionError, match="fma"):
        check_rounding("fma.rn.f32", lambda a, b, c: a * b + c, *triples("f32"))


# ------------------------------------------------------------------------------------------------ kernels

FRAME = """
.version 9.0
.target sm_90
.address_size 64
{variables}
.visible .entry kernel(
	.param .u64 kernel_param_0,
	.param .u64 kernel_param_1
)
.maxntid 256, 1, 1
.minnctapersm 1
{{
	.reg .pred %p<9>;
	.reg .b16 %rs<9>;
	.reg .b32 %r<19>;
	.reg .f32 %f<19>;
	.reg .b64 %rd<19>;
	ld.param.u64 %rd1, [kernel_param_0];
	ld.param.u64 %rd2, [kernel_param_1];
	mov.u32 %r1, %tid.x;
	mov.u32 %r2, %ctaid.x;
	cvt.u64.u32 %rd3, %r1;
	shl.b64 %rd4, %rd3, 2; // 4 bytes on for each thread: %rd5 in the first array, %rd6 in the second
	add.s64 %rd5, %rd1, %rd4;
	add.s64 %rd6, %rd2, %rd4;
	mov.f32 %f1, 0f3F800000;
{body}
	ret;
}}
"""
SHARED = ".visible .shared .align 4 .b8 numbers[256];"


def ptx(body, variables=""):
    return FRAME.format(body=body, variables=variables)


class Numbers:
    """An array on the machine: of so many float32, or of those given; alive for as long as this is."""

    def __init__(self, device, values):
        self.device, self.size = device, values if isinstance(values, int) else len(values)
        self.owner = device.allocate(4 * self.size)
        if not isinstance(values, int):
            device.upload(self.owner.address, np.array(values, np.float32), 1)

    def get(self):
        values = np.empty(self.size, np.float32)
        self.device.download(values, self.owner.address, 1)
        return values


class Compiled:
    """In the place of a launcher."""

    def __init__(self, text):
        self.text = text

    def ptx(self, capability):
        return self.text


def launch(device, text, source, target, threads=64, blocks=1):
    device.launch(Compiled(text), blocks, threads, 1, source.owner.address, target.owner.address)


def run(body, variables="", threads=64, blocks=1):
    """0, 1, 2, ... through a kernel: what it writes into as many numbers."""
    device = Device()
    source, target = Numbers(device, range(threads * blocks)), Numbers(device, threads * blocks)
    launch(device, ptx(body, variables), source, target, threads, blocks)
    return target.get(), device.counts


COPY = """
    ld.global.f32 %f2, [%rd5];
    add.f32 %f3, %f2, %f1;
    st.global.f32 [%rd6], %f3;
"""
OWN_PLACE = """
    mov.u64 %rd7, numbers;
    add.s64 %rd8, %rd7, %rd4; // of this thread
    xor.b64 %rd9, %rd4, 4;
    add.s64 %rd10, %rd7, %rd9; // of its neighbour
    ld.global.f32 %f2, [%rd5];
"""


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


def test_registers_that_a_way_leaves_unwritten():
    kernel = Kernel(read(ptx(FAULTS["a register that some have not written"][0])))
    assert doubtful(kernel.parts) == {"%f2"}
    assert doubtful(Kernel(read(ptx(COPY))).parts) == set()


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
